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
const FILE: &str = "WAITS_TEST_FILE";

/// Killed when dropped.
struct WaitingProcess(Child);

impl WaitingProcess {
    /// This test binary, with its standard input and error as given.
    fn start(work: &str, stdin: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        Self(Self::command(work).stdin(stdin).stderr(stderr).spawn().unwrap())
    }

    fn command(work: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["doctor::waits::tests::waiting_process", "--exact", "--ignored", "--nocapture"]);
        command.env(WORK, work).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
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
        "file" => named("writer", move || {
            let mut held = held.lock().unwrap();
            locked.send(()).unwrap();
            let mut file = std::fs::File::create(std::env::var(FILE).unwrap()).unwrap();
            while file.write_all(b"x").and_then(|()| file.sync_data()).is_ok() {
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

/// An ext4 of its own; thawed and unmounted when dropped.
struct LoopMount {
    mount: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl LoopMount {
    /// An error says why there cannot be one.
    fn new() -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.ext4", &["-q".as_ref(), image.as_os_str()])?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), mount.as_os_str()])?;
        Ok(Self { mount, _folder: folder })
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        run("umount", &[self.mount.as_os_str()]).unwrap();
    }
}

/// A file system that takes no writes until this is dropped.
struct FrozenMount<'a>(&'a LoopMount);

impl Drop for FrozenMount<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &["-u".as_ref(), self.0.mount.as_os_str()]).unwrap();
    }
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let error = || format!("{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.status.success().then_some(()).ok_or_else(error)
}

#[test]
fn a_lock_whose_holder_writes_to_a_frozen_file_system_has_that_as_its_root() {
    let disk = match LoopMount::new() {
        Ok(disk) => disk,
        Err(why) => return eprintln!("SKIPPED: no file system can be mounted: {why}"),
    };
    let file = disk.mount.join("file");
    let busy = WaitingProcess(WaitingProcess::command("file").env(FILE, &file).spawn().unwrap());
    wait_for(busy.pid(), &[("worker-0", "futex")]);
    run("fsfreeze", &["-f".as_ref(), disk.mount.as_os_str()]).unwrap();
    let frozen = FrozenMount(&disk);
    let found = from(&chains(busy.pid(), &[("worker-0", "futex"), ("writer", "rwsem")]), "worker-0");
    drop(frozen);
    drop(busy);
    let root = found.root().unwrap();
    let WaitsFor::File { path, mount, file_system, frozen, .. } = &root.waits_for else {
        panic!("{found:#?}")
    };
    assert_eq!((path.as_ref(), mount.as_ref()), (Some(&file), Some(&disk.mount)), "{found:#?}");
    assert!(*frozen && file_system.as_deref() == Some("ext4") && root.thread == "writer", "{found:#?}");
    assert!(root.says.contains("which is frozen"), "{}", root.says);
}

#[test]
fn a_process_that_a_debugger_has_stopped_has_the_debugger_as_its_root() {
    let (stdin, _open) = pipe().unwrap();
    let rests = WaitingProcess::mute(stdin);
    let (commands, _typed_later) = pipe().unwrap();
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-nx", "-p", &rests.pid().to_string()]).stdin(commands);
    gdb.stdout(Stdio::null()).stderr(Stdio::null());
    let gdb = match gdb.spawn() {
        Ok(gdb) => WaitingProcess(gdb),
        Err(why) => return eprintln!("SKIPPED: gdb: {why}"),
    };
    let all = chains(rests.pid(), &[("sleep", "ptrace")]);
    assert_eq!(all.len(), 1, "{all:#?}");
    let (first, root) = (&all[0].links[0], all[0].root().unwrap());
    assert_eq!((&first.waits_for, first.tid), (&WaitsFor::Tracer, None), "{all:#?}");
    assert_eq!((root.pid, root.root, all[0].still), (gdb.pid(), true, true), "{all:#?}");
}

#[test]
fn a_process_that_rests_has_no_chain() {
    let (stdin, _open) = pipe().unwrap();
    let rests = WaitingProcess::mute(stdin);
    assert_eq!(chains(rests.pid(), &[("sleep", "nanosleep")]), []);
}
