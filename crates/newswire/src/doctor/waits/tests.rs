//! Chains through real processes: the children are this test binary, a program in C, and `sleep`, which never reads.

use std::{
    io::{Write as _, pipe},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use super::{
    chain,
    facts::{KnownProcess, WaitFacts},
    link::{HeldHow, LockKind, WaitChain, WaitsFor},
    sample::WaitSamples,
};

const WORK: &str = "WAITS_TEST_WORK";

/// Killed when dropped.
struct WaitingProcess(Child);

impl WaitingProcess {
    /// This test binary, with its standard input and error as given.
    fn start(work: &str, stdin: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["doctor::waits::tests::waiting_process", "--exact", "--ignored", "--nocapture"]);
        command.env(WORK, work).stdin(stdin).stdout(Stdio::null()).stderr(stderr);
        Self(command.spawn().unwrap())
    }

    /// A process that holds an end and never reads it.
    fn mute(end: impl Into<Stdio>) -> Self {
        Self(Command::new("sleep").arg("3600").stdin(end).stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for WaitingProcess {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Chains of the process as if it were a gateway, once each of these threads is in the kernel function named.
fn chains(pid: i32, settled: &[(&str, &str)]) -> Vec<WaitChain> {
    wait_for(pid, settled);
    let samples = Arc::new(WaitSamples::of(&[pid]));
    let dump = stacks::of_process(pid).unwrap();
    let known = KnownProcess::seen("newswire-gateway", dump);
    chain::all(&WaitFacts::of(&samples, vec![known]), None)
}

#[expect(clippy::disallowed_methods, reason = "a test on a thread of its own")]
fn wait_for(pid: i32, settled: &[(&str, &str)]) {
    let there = |name: &str, wchan: &str| {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.filter_map(Result::ok).any(|thread| {
            let read = |file: &str| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            read("comm").trim() == name && read("wchan").contains(wchan)
        })
    };
    for _ in 0..6000 {
        if settled.iter().all(|(name, wchan)| there(name, wchan)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the threads of the child did not come to their waits");
}

fn from(chains: &[WaitChain], thread: &str) -> WaitChain {
    let begins =
        |chain: &&WaitChain| chain.links[0].thread == thread || chain.also.iter().any(|also| also == thread);
    let found = chains.iter().find(begins);
    found.cloned().unwrap_or_else(|| panic!("no chain from {thread} in {chains:#?}"))
}

fn named(name: &str, work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).unwrap();
}

/// Not a test: the work of the child. Without its environment variable it does nothing.
#[test]
#[ignore = "the process that the tests look at"]
fn waiting_process() {
    let Ok(work) = std::env::var(WORK) else { return };
    let lock = Arc::new(Mutex::new(0_u64));
    let (locked, is_locked) = std::sync::mpsc::sync_channel(1);
    let held = Arc::clone(&lock);
    match work.as_str() {
        "pipe" => named("watchdog", move || {
            let mut held = held.lock().unwrap();
            locked.send(()).unwrap();
            while std::io::stderr().write_all(&[b'x'; 4096]).is_ok() {
                *held += 1;
            }
        }),
        "socket" => named("sender", move || {
            let mut held = held.lock().unwrap();
            locked.send(()).unwrap();
            // Its standard input is a socket.
            while rustix::io::write(std::io::stdin(), &[b'x'; 4096]).is_ok() {
                *held += 1;
            }
        }),
        "spin" => named("spinner", move || {
            let mut held = held.lock().unwrap();
            locked.send(()).unwrap();
            loop {
                *held = std::hint::black_box(*held + 1);
            }
        }),
        other => panic!("unknown work {other}"),
    }
    is_locked.recv().unwrap();
    for worker in ["worker-0", "worker-1"] {
        let lock = Arc::clone(&lock);
        named(worker, move || {
            *lock.lock().unwrap() += 1;
        });
    }
    loop {
        std::thread::park();
    }
}

#[test]
fn a_lock_that_a_writer_to_a_full_pipe_holds_has_the_reader_as_its_root() {
    let (reader, writer) = pipe().unwrap();
    let less = WaitingProcess::mute(reader);
    let (stdin, _open) = pipe().unwrap();
    let busy = WaitingProcess::start("pipe", stdin, writer);
    let all = chains(busy.pid(), &[("worker-0", "futex"), ("worker-1", "futex"), ("watchdog", "pipe_write")]);
    let found = &all[0];
    assert_eq!((all.len(), found.also.len()), (1, 1), "{all:#?}");
    assert_eq!(found.links.len(), 3, "{found:#?}");
    let (waiter, holder, root) = (&found.links[0], &found.links[1], &found.links[2]);
    assert!(matches!(waiter.waits_for, WaitsFor::Lock { lock: LockKind::Mutex, .. }), "{found:#?}");
    assert_eq!(waiter.held_by.as_ref().unwrap().how, HeldHow::Likely);
    assert_eq!(holder.thread, "watchdog");
    assert!(matches!(holder.waits_for, WaitsFor::Pipe { .. }), "{found:#?}");
    assert_eq!((root.pid, root.root, root.process.as_str()), (less.pid(), true, "sleep"));
    assert!(found.still && waiter.still && holder.still, "{found:#?}");
    assert!(root.says.starts_with(&format!("pid {} (sleep) has not read for ", less.pid())), "{}", root.says);
    assert!(found.line.starts_with("clients wait <- worker-"), "{}", found.line);
}

#[test]
fn a_unix_socket_that_its_peer_does_not_read_has_the_peer_as_its_root() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = WaitingProcess::mute(OwnedFd::from(theirs));
    let busy = WaitingProcess::start("socket", OwnedFd::from(ours), Stdio::null());
    let all = chains(busy.pid(), &[("worker-0", "futex"), ("sender", "")]);
    let found = from(&all, "worker-0");
    let root = found.root().unwrap();
    assert_eq!((found.links.len(), root.pid), (3, peer.pid()), "{found:#?}");
    assert!(
        matches!(found.links[1].waits_for, WaitsFor::UnixSocket { peer_inode: Some(_), .. }),
        "{found:#?}"
    );
}

#[test]
fn a_lock_that_a_running_thread_holds_has_that_thread_as_its_root() {
    let (stdin, _open) = pipe().unwrap();
    let busy = WaitingProcess::start("spin", stdin, Stdio::null());
    let found = from(&chains(busy.pid(), &[("worker-0", "futex")]), "worker-0");
    let root = found.root().unwrap();
    assert_eq!((found.links.len(), root.thread.as_str()), (2, "spinner"), "{found:#?}");
    assert_eq!(root.waits_for, WaitsFor::Nothing);
}

/// Two threads of C that wait for each other's mutex, and one that has locked its own twice.
const DEADLOCK: &str = r#"
#include <pthread.h>
#include <unistd.h>
static pthread_mutex_t a = PTHREAD_MUTEX_INITIALIZER, b = PTHREAD_MUTEX_INITIALIZER, c = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t both;
static void *first(void *_) {
  pthread_mutex_lock(&a); pthread_barrier_wait(&both); pthread_mutex_lock(&b); return _;
}
static void *second(void *_) {
  pthread_mutex_lock(&b); pthread_barrier_wait(&both); pthread_mutex_lock(&a); return _;
}
static void *twice(void *_) { pthread_mutex_lock(&c); pthread_mutex_lock(&c); return _; }
int main(void) {
  pthread_t threads[3];
  pthread_barrier_init(&both, 0, 2);
  pthread_create(&threads[0], 0, first, 0); pthread_setname_np(threads[0], "first");
  pthread_create(&threads[1], 0, second, 0); pthread_setname_np(threads[1], "second");
  pthread_create(&threads[2], 0, twice, 0); pthread_setname_np(threads[2], "twice");
  for (;;) pause();
}
"#;

#[test]
fn the_owner_of_a_mutex_of_c_is_known_and_a_deadlock_is_called_one() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("deadlock.c"), folder.path().join("deadlock"));
    std::fs::write(&source, DEADLOCK).unwrap();
    let built = Command::new("cc").args(["-pthread", "-o"]).arg(&program).arg(&source).status().unwrap();
    assert!(built.success());
    let busy = WaitingProcess(Command::new(&program).spawn().unwrap());
    let all = chains(busy.pid(), &[("first", "futex"), ("second", "futex"), ("twice", "futex")]);
    let twice = from(&all, "twice");
    assert!(twice.deadlock && twice.links.len() == 1, "{twice:#?}");
    assert!(twice.links[0].says.contains("that it holds itself"), "{}", twice.line);
    let found = from(&all, "first");
    assert!(found.deadlock && found.links.len() == 2, "{found:#?}");
    for link in &found.links {
        assert_eq!(link.held_by.as_ref().unwrap().how, HeldHow::Owner, "{found:#?}");
        assert!(matches!(link.waits_for, WaitsFor::Lock { lock: LockKind::Pthread, .. }), "{found:#?}");
    }
    assert_eq!(found.links[1].thread, "second");
}

#[test]
fn a_process_that_rests_has_no_chain() {
    let (stdin, _open) = pipe().unwrap();
    let rests = WaitingProcess::mute(stdin);
    assert_eq!(chains(rests.pid(), &[("sleep", "nanosleep")]), []);
}
