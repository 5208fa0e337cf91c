//! A process to be looked at by the tests: a thread blocked in a read three calls deep, one spinning, one at a lock,
//! one asleep, one waiting for its inbox. Says `ready`, then answers each line of its input; `stacks` with what it
//! sees of itself.
#![expect(clippy::print_stdout, reason = "it is asked and answers there")]
#![expect(clippy::disallowed_methods, reason = "it blocks on purpose")]

use std::{
    io::{self, BufRead as _, Read as _},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use stacks::Inside;

#[inline(never)]
fn outer(from: &mut UnixStream) -> usize {
    middle(from) + 1
}

#[inline(never)]
fn middle(from: &mut UnixStream) -> usize {
    blocked(from) + 1
}

#[inline(never)]
fn blocked(from: &mut UnixStream) -> usize {
    let mut byte = [0];
    from.read(&mut byte).unwrap_or(0) + 1
}

#[inline(never)]
fn spinning(from: u64) -> u64 {
    let mut value = from;
    loop {
        value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if std::hint::black_box(value) == 0 {
            return value;
        }
    }
}

#[inline(never)]
fn at_the_lock(lock: &Mutex<u32>) -> u32 {
    lock.lock().map_or(0, |value| *value)
}

#[inline(never)]
fn asleep() -> Duration {
    let long = Duration::from_secs(3600);
    thread::sleep(long);
    long
}

#[inline(never)]
fn inbox(jobs: &mpsc::Receiver<u32>) -> u32 {
    jobs.recv().map_or(0, |job| job + 1)
}

#[inline(never)]
fn short_lived() -> ! {
    loop {
        // Threads that come and go while somebody looks.
        let short = thread::Builder::new().name("short".to_owned()).spawn(|| std::hint::black_box(1));
        if let Ok(short) = short {
            drop(short.join());
        }
    }
}

fn start<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn main() -> io::Result<()> {
    let kinds: Vec<String> = std::env::args().skip(1).collect();
    let wants = |kind: &str| kinds.iter().any(|one| one == kind);
    let (_kept, mut other) = UnixStream::pair()?;
    let lock = Arc::new(Mutex::new(1));
    let _held = lock.lock();
    let (_jobs, inbox_of) = mpsc::sync_channel(1);
    start("blocked", move || outer(&mut other))?;
    let waiting = Arc::clone(&lock);
    start("lock", move || at_the_lock(&waiting))?;
    start("asleep", asleep)?;
    start("inbox", move || inbox(&inbox_of))?;
    if wants("spin") {
        start("spinning", || spinning(7))?;
    }
    if wants("short") {
        start("parent", || short_lived())?;
    }
    if wants("undumpable") {
        // As after a change of user: nobody but root may trace it any more.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    }
    let inside = Inside::install()?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "stacks" => {
                let (asks, answers) = mpsc::sync_channel(1);
                let inside = inside.clone();
                // From another thread, as a watchdog does it: the asking one does not see itself.
                start("watchdog", move || asks.send(inside.all()))?;
                let capture = answers.recv().map_err(io::Error::other)?;
                println!("{}", serde_json::to_string(&capture)?);
            }
            other => println!("{other}"),
        }
    }
    Ok(())
}
