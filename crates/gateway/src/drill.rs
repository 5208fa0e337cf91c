//! Hangs of this process on demand, in builds with the feature `drill` only: see [`daemon::drill`].
//!
//! Each of them blocks three calls deep, in functions that are never inlined: a tool that finds the cause has to name the
//! innermost one, and to show the calls that lead to it.

use std::{
    hint::black_box,
    io::{PipeReader, Read as _},
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use daemon::{
    drill::{self, DrillQueue, hold_lock, offer, offer_common, silent_pipe},
    work,
};
use tokio::time::Instant;

/// How long a worker is kept busy at a time, and how long it may then serve its clients.
const STARVE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(20));

static WORKERS: LazyLock<DrillQueue<WorkerDrill>> = LazyLock::new(DrillQueue::new);
static ARBITER: LazyLock<DrillQueue<Duration>> = LazyLock::new(DrillQueue::new);
static LOCK: Mutex<()> = Mutex::new(());

#[derive(Clone, Copy, Debug)]
enum WorkerDrill {
    Block(Duration),
    Starve(Duration),
}

/// Offers all drills; call it on the main thread's event loop.
pub(crate) fn offer_all() {
    actix_web::rt::spawn(ARBITER.clone().run(async |time| {
        black_box(block_an_arbiter(time));
    }));
    offer("block-worker", |time| WORKERS.post(WorkerDrill::Block(time)));
    offer("starve-worker", |time| WORKERS.post(WorkerDrill::Starve(time)));
    offer("block-arbiter", |time| ARBITER.post(time));
    offer_common();
}

/// Runs the drills of a worker; call it on each worker's event loop.
pub(crate) fn run_worker_drills() {
    actix_web::rt::spawn(WORKERS.clone().run(async |harm| match harm {
        WorkerDrill::Block(time) => {
            black_box(block_a_worker(time));
        }
        WorkerDrill::Starve(time) => {
            let (until, endings) = (Instant::now() + time, drill::endings());
            while Instant::now() < until && drill::endings() == endings {
                black_box(starve_a_worker(STARVE.0));
                tokio::time::sleep(STARVE.1).await;
            }
        }
    }));
}

#[inline(never)]
fn block_a_worker(time: Duration) -> usize {
    let _work = work::on("a drill", "block-worker");
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
fn starve_a_worker(time: Duration) -> u64 {
    let _work = work::on("a drill", "starve-worker");
    black_box(compute_in_place(time)) + 1
}

#[inline(never)]
fn compute_in_place(time: Duration) -> u64 {
    black_box(hog_the_processor(time)) + 1
}

#[inline(never)]
fn hog_the_processor(time: Duration) -> u64 {
    let began = Instant::now();
    let mut rounds = 0_u64;
    while began.elapsed() < time {
        rounds = black_box(rounds + 1);
    }
    rounds
}

#[inline(never)]
fn block_an_arbiter(time: Duration) -> usize {
    let _work = work::on("a drill", "block-arbiter");
    hold_lock(&LOCK, time);
    black_box(look_up_what_is_shared()) + 1
}

#[inline(never)]
fn look_up_what_is_shared() -> usize {
    black_box(wait_for_a_held_lock()) + 1
}

#[inline(never)]
fn wait_for_a_held_lock() -> usize {
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    black_box(1)
}
