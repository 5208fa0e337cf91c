//! What can be made to go wrong in this process, in builds with the feature `drill` only: see [`daemon::drill`].
//!
//! Each of them blocks three calls deep, in functions that are never inlined: a tool that finds the culprit has to name
//! the innermost one, and to show the way that leads there.

use std::{
    hint::black_box,
    io::{PipeReader, Read as _},
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use daemon::{
    drill::{DrillQueue, apart, hold, jump_clock, leak_descriptors, offer, rest, silent_pipe},
    work,
};
use futures_util::{Stream, StreamExt as _};
use tokio::{runtime::Handle, sync::watch};

/// More than any pool of ours has threads.
const POOL_JOBS: usize = 1024;
/// What the threads of the pool wait for.
static POOL: Mutex<()> = Mutex::new(());
static ARBITER: LazyLock<DrillQueue<Duration>> = LazyLock::new(DrillQueue::new);
/// The next commit takes so much longer.
static FLUSH: Mutex<Option<Duration>> = Mutex::new(None);
/// No wire is to be had.
static WIRE_CUT: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Call it on the actors' loop.
pub(crate) fn offer_all() {
    actix_rt::spawn(ARBITER.clone().attend(async |time| {
        black_box(block_an_arbiter(time));
    }));
    offer("block-arbiter", |time| ARBITER.post(time));
    offer("stall-flush", |time| {
        FLUSH.lock().unwrap_or_else(PoisonError::into_inner).replace(time);
    });
    offer("stop-wire", |time| {
        WIRE_CUT.send_replace(true);
        apart(move || {
            rest(time);
            WIRE_CUT.send_replace(false);
        });
    });
    offer("leak-descriptors", leak_descriptors);
    offer("clock-jump", jump_clock);
    let runtime = Handle::current();
    offer("exhaust-pool", move |time| {
        hold(&POOL, time);
        for _ in 0..POOL_JOBS {
            drop(runtime.spawn_blocking(fill_the_pool));
        }
    });
}

/// The same stream, which ends while the wire is cut.
pub(crate) fn until_cut<T>(stream: impl Stream<Item = T>) -> impl Stream<Item = T> {
    let mut cut = WIRE_CUT.subscribe();
    stream.take_until(async move {
        // The sender lives as long as the process.
        cut.wait_for(|cut| *cut).await.map(|_| ()).ok();
    })
}

/// Part of a commit. The number is another one than in [`block_an_arbiter`], or the optimiser would make one function of
/// two that read a pipe, with the name of either.
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

#[inline(never)]
fn fill_the_pool() -> usize {
    let _work = work::on("a drill", "exhaust-pool");
    black_box(look_up_a_slow_name()) + 1
}

#[inline(never)]
fn look_up_a_slow_name() -> usize {
    black_box(sit_in_the_pool()) + 1
}

#[inline(never)]
fn sit_in_the_pool() -> usize {
    let _guard = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    black_box(1)
}
