//! Hangs of this process on demand, in builds with the feature `drill` only: see [`daemon::drill`].
//!
//! Each of them blocks three calls deep, in functions that are never inlined: a tool that finds the cause has to name the
//! innermost one, and to show the calls that lead to it. Those that spin are for promises about everything else: they use
//! all the processor time that their thread gets, and never yield.

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

/// How long a loop spins before it looks whether the drills were ended.
const SPIN: Duration = Duration::from_millis(10);

static WORKERS: LazyLock<DrillQueue<WorkerDrill>> = LazyLock::new(DrillQueue::new);
static ARBITER: LazyLock<DrillQueue<Duration>> = LazyLock::new(DrillQueue::new);
static ARBITER_SPINS: LazyLock<DrillQueue<Duration>> = LazyLock::new(DrillQueue::new);
static PAGES_SPINS: LazyLock<DrillQueue<Duration>> = LazyLock::new(DrillQueue::new);
static INTAKE_SPINS: LazyLock<DrillQueue<Duration>> = LazyLock::new(DrillQueue::new);
static LOCK: Mutex<()> = Mutex::new(());

#[derive(Clone, Copy, Debug)]
enum WorkerDrill {
    Block(Duration),
    Starve(Duration),
    Spin(Duration),
}

/// Offers all drills; call it on the main thread's event loop.
pub(crate) fn offer_all() {
    actix_web::rt::spawn(ARBITER.clone().run(async |time| {
        black_box(block_an_arbiter(time));
    }));
    actix_web::rt::spawn(run_spins(&ARBITER_SPINS));
    offer("spin-worker", |time| WORKERS.post(WorkerDrill::Spin(time)));
    offer("spin-arbiter", |time| ARBITER_SPINS.post(time));
    offer("spin-pages", |time| PAGES_SPINS.post(time));
    offer("spin-intake", |time| INTAKE_SPINS.post(time));
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
        WorkerDrill::Spin(time) => spin(time),
    }));
}

/// Runs the drills of the thread that makes pages; call it on its event loop.
pub(crate) fn run_pages_drills() {
    tokio::spawn(run_spins(&PAGES_SPINS));
}

/// Runs the drills of the intake; call it on its event loop.
pub(crate) fn run_intake_drills() {
    tokio::spawn(run_spins(&INTAKE_SPINS));
}

async fn run_spins(orders: &DrillQueue<Duration>) {
    orders.clone().run(async |time| spin(time)).await;
}

/// Never yields, until the time is over or the drills are ended.
fn spin(time: Duration) {
    let _work = work::on("a drill", "spin");
    let (until, endings) = (Instant::now() + time, drill::endings());
    while Instant::now() < until && drill::endings() == endings {
        black_box(hog_the_processor(SPIN));
    }
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
