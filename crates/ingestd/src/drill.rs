//! The hangs that this daemon can produce on demand, in builds with the feature `drill` only: see [`daemon::drill`].
//!
//! Each of them blocks three calls deep, in functions that are never inlined: a tool that finds the culprit has to
//! name the innermost one, and to show the calls that lead there.

use std::{
    hint::black_box,
    io::{self, PipeReader, Read as _},
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daemon::{
    drill::{DrillQueue, block, offer, offer_common, silent_pipe, spawn_detached},
    work,
};
use futures_util::{Stream, StreamExt as _};
use store::AppendError;
use tokio::sync::watch;

static ARBITER: LazyLock<DrillQueue<Duration>> = LazyLock::new(DrillQueue::new);
/// How much longer the next commit takes.
static FLUSH: Mutex<Option<Duration>> = Mutex::new(None);
/// Whether the next job of the recorder fails, or panics.
static FAIL: AtomicBool = AtomicBool::new(false);
static PANIC: AtomicBool = AtomicBool::new(false);
/// Whether the log cannot be read.
static UNREADABLE: AtomicBool = AtomicBool::new(false);
/// Whether the wire is cut: streams end, and new ones end at once.
static WIRE_CUT: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Offers all drills; call it on the actors' loop.
pub(crate) fn offer_all() {
    actix_rt::spawn(ARBITER.clone().run(async |time| {
        black_box(block_an_arbiter(time));
    }));
    offer("block-arbiter", |time| ARBITER.post(time));
    offer("stall-flush", |time| {
        FLUSH.lock().unwrap_or_else(PoisonError::into_inner).replace(time);
    });
    offer("fail-log", |_| FAIL.store(true, Ordering::Relaxed));
    offer("panic-log", |_| PANIC.store(true, Ordering::Relaxed));
    offer("fail-reads", |time| {
        UNREADABLE.store(true, Ordering::Relaxed);
        spawn_detached(move || {
            block(time);
            UNREADABLE.store(false, Ordering::Relaxed);
        });
    });
    offer("stop-wire", |time| {
        WIRE_CUT.send_replace(true);
        spawn_detached(move || {
            block(time);
            WIRE_CUT.send_replace(false);
        });
    });
    offer_common();
}

/// The same stream, ended while the wire is cut.
pub(crate) fn until_cut<T>(stream: impl Stream<Item = T>) -> impl Stream<Item = T> {
    let mut cut = WIRE_CUT.subscribe();
    stream.take_until(async move {
        // The sender lives as long as the process.
        cut.wait_for(|cut| *cut).await.map(|_| ()).ok();
    })
}

/// Before a job of the recorder: the log can no longer be written, as after a failed write.
pub(crate) fn fail_a_job() -> Result<(), AppendError> {
    assert!(!PANIC.load(Ordering::Relaxed), "the drill panic-log");
    if FAIL.load(Ordering::Relaxed) {
        Err(AppendError::Journal(io::Error::other("the drill fail-log")))
    } else {
        Ok(())
    }
}

/// Before a read of the log: its disk has an error.
pub(crate) fn fail_a_read() -> io::Result<()> {
    if UNREADABLE.load(Ordering::Relaxed) { Err(io::Error::other("the drill fail-reads")) } else { Ok(()) }
}

/// Part of a commit. The number that is added differs from that in [`block_an_arbiter`]; otherwise the optimiser
/// would merge the functions that read a pipe, under the name of either.
#[inline(never)]
pub(crate) fn stall_a_commit() -> usize {
    let time = FLUSH.lock().unwrap_or_else(PoisonError::into_inner).take();
    time.map_or(0, |time| black_box(wait_for_the_disk(silent_pipe(time))) + 1)
}

#[inline(never)]
fn wait_for_the_disk(pipe: PipeReader) -> usize {
    black_box(sit_in_the_flush(pipe)) + 2
}

#[inline(never)]
fn sit_in_the_flush(mut pipe: PipeReader) -> usize {
    black_box(pipe.read(&mut [0]).unwrap_or_default()) + 2
}

#[inline(never)]
fn block_an_arbiter(time: Duration) -> usize {
    let _work = work::on("a drill", "block-arbiter");
    black_box(ask_a_silent_peer(silent_pipe(time))) + 1
}

#[inline(never)]
fn ask_a_silent_peer(pipe: PipeReader) -> usize {
    black_box(read_a_silent_pipe(pipe)) + 1
}

#[inline(never)]
fn read_a_silent_pipe(mut pipe: PipeReader) -> usize {
    black_box(pipe.read(&mut [0]).unwrap_or_default()) + 1
}
