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
    drill::{self, DrillQueue, hold, jump_clock, leak_descriptors, offer, silent_pipe},
    work,
};
use tokio::{runtime::Handle, time::Instant};

/// More than any of our thread pools has threads.
const POOL_JOBS: usize = 1024;
/// How long a worker is kept busy at a time, and how long it may then serve its clients.
const STARVE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(20));

/// The lock that the threads of the pool wait for.
static POOL: Mutex<()> = Mutex::new(());
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
    actix_web::rt::spawn(ARBITER.clone().attend(async |time| {
        black_box(block_an_arbiter(time));
    }));
    offer("block-worker", |time| WORKERS.post(WorkerDrill::Block(time)));
    offer("starve-worker", |time| WORKERS.post(WorkerDrill::Starve(time)));
    offer("block-arbiter", |time| ARBITER.post(time));
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

/// Runs the drills of a worker; call it on each worker's event loop.
pub(crate) fn run_worker_drills() {
    actix_web::rt::spawn(WORKERS.clone().attend(async |harm| match harm {
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
    hold(&LOCK, time);
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
