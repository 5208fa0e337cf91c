//! A process to be dumped: a thread blocked in a read three calls deep, one spinning, one waiting for a lock, one asleep, one
//! waiting for messages, an idle runtime. It is this test binary, started as a child.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use stacks::{SelfSampler, StackDump, ThreadStack};

const KINDS: &str = "STACKS_TEST_KINDS";

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
    from.read(&mut byte).unwrap() + 1 // here it reads
}

#[inline(never)]
fn spinning(from: u64) -> u64 {
    let mut value = from;
    loop {
        value = std::hint::black_box(value.rotate_left(7) ^ 5); // here it spins
        if value == 0 {
            return value;
        }
    }
}

#[inline(never)]
fn at_the_lock(lock: &Mutex<u32>) -> u32 {
    lock.lock().map_or(0, |value| *value) // here it waits for the lock
}

#[inline(never)]
fn asleep() -> Duration {
    let long = Duration::from_secs(3600);
    thread::sleep(long); // here it sleeps
    long
}

#[inline(never)]
fn inbox(jobs: &mpsc::Receiver<u32>) -> u32 {
    jobs.recv().map_or(0, |job| job + 1) // here it waits for work
}

#[inline(never)]
fn job(never: &mpsc::Receiver<u32>) -> u32 {
    never.recv().map_or(0, |job| job + 1) // here a job of the pool waits
}

/// Starts and ends threads continuously.
#[inline(never)]
fn short_lived() {
    loop {
        let short = thread::Builder::new().name("short".to_owned()).spawn(|| std::hint::black_box(1));
        drop(short.map(thread::JoinHandle::join));
    }
}

/// The line of this file that ends with the comment.
pub(crate) fn line_of(comment: &str) -> u32 {
    let text = include_str!("busy.rs");
    let comment = format!("// {comment}");
    let at = text.lines().position(|line| line.ends_with(&comment)).unwrap();
    u32::try_from(at + 1).unwrap()
}

fn start<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) {
    thread::Builder::new().name(name.to_owned()).spawn(work).unwrap();
}

/// Not a test: the work of the child. Without its environment variable it does nothing.
#[test]
#[ignore = "the process that the tests dump"]
fn busy_process() {
    let Ok(kinds) = std::env::var(KINDS) else { return };
    let wants = |kind: &str| kinds.split(' ').any(|one| one == kind);
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let lock = Arc::new(Mutex::new(1));
    let held = lock.lock().unwrap();
    let (_jobs, inbox_of) = mpsc::sync_channel(1);
    let (read, was_read) = mpsc::sync_channel(1);
    start("blocked", move || read.send(outer(&mut theirs)));
    let waiting = Arc::clone(&lock);
    start("lock", move || at_the_lock(&waiting));
    start("asleep", asleep);
    start("inbox", move || inbox(&inbox_of));
    if wants("spin") {
        start("spinning", || spinning(7));
    }
    if wants("short") {
        start("parent", short_lived);
    }
    let (_never, never_of) = mpsc::sync_channel(1);
    let runtime = wants("runtime").then(|| runtime(never_of));
    if wants("undumpable") {
        // As after a change of user: only root may trace it.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).unwrap();
    }
    let inside = SelfSampler::install().unwrap();
    println!("\nready");
    for line in io::stdin().lock().lines() {
        match line.unwrap().as_str() {
            "stacks" => {
                // On a separate thread, like a watchdog: the sampling thread is excluded.
                let inside = inside.clone();
                let capture = thread::spawn(move || inside.all()).join().unwrap();
                println!("{}", serde_json::to_string(&capture).unwrap());
            }
            "release" => {
                ours.write_all(b"x").unwrap();
                println!("{}", was_read.recv().unwrap());
            }
            other => println!("{other}"),
        }
    }
    drop((held, runtime));
    std::process::exit(0);
}

fn runtime(never: mpsc::Receiver<u32>) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("rt")
        .thread_keep_alive(Duration::from_secs(3600))
        .enable_all()
        .build()
        .unwrap();
    drop(runtime.spawn_blocking(move || job(&never)));
    runtime.block_on(async {
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    });
    runtime
}

/// The child; killed when dropped.
pub(crate) struct BusyProcess {
    child: std::process::Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl BusyProcess {
    pub(crate) fn start(kinds: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["busy::busy_process", "--exact", "--ignored", "--nocapture"])
            .env(KINDS, kinds)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line.trim() != "ready" {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the child ended");
        }
        let busy = Self { child, stdin, stdout };
        busy.settle(kinds.contains("spin"));
        busy
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends a line and reads the answer.
    pub(crate) fn send(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    pub(crate) fn inside(&mut self) -> StackDump {
        serde_json::from_str(&self.send("stacks")).unwrap()
    }

    /// Waits until every thread is at its location.
    fn settle(&self, spins: bool) {
        let there = |name: &str, state: &[&str]| {
            let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
            threads.filter_map(Result::ok).any(|thread| {
                let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                let wchan = std::fs::read_to_string(thread.path().join("wchan")).unwrap_or_default();
                stat.contains(&format!("({name}) S")) && state.iter().any(|part| wchan.contains(part))
                    || spins && name == "spinning" && stat.contains("(spinning) R")
            })
        };
        let mut locations = vec![("blocked", ["read", "recv"]), ("lock", ["futex", "?"])];
        locations.extend([("asleep", ["nanosleep", "?"]), ("inbox", ["futex", "?"])]);
        if spins {
            locations.push(("spinning", ["?", "?"]));
        }
        for _ in 0..6000 {
            if locations.iter().all(|(name, state)| there(name, state)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the threads of the child did not reach their locations");
    }
}

impl Drop for BusyProcess {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) fn named<'a>(capture: &'a StackDump, name: &str) -> &'a ThreadStack {
    let thread = capture.threads.iter().find(|thread| thread.name == name);
    thread.unwrap_or_else(|| panic!("no thread {name} in {capture:#?}"))
}
