//! The promises to an operator when an event loop is stuck. The process is this test binary itself, started as a child with
//! its role in an environment variable.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::admin::{Admin, serve, status_of};
use daemon::config::{LogFormat, LogSection};
use daemon::logs::{self, Logs};
use daemon::metrics::MetricsRegistry;
use daemon::stop::{self, OperatorRequests};
use daemon::watch::{ListenerAddress, Watch, WatchKind, WatchedListener};
use daemon::{notify, work};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stacks::SelfSampler;

const ROLE: &str = "DAEMON_TEST_ROLE";
const SOCKET: &str = "DAEMON_TEST_SOCKET";
/// A generous deadline; what the tests wait for takes a second or two.
const SOON: Duration = Duration::from_secs(60);
/// What systemd receives while all is well.
const WATCHDOG: &str = "WATCHDOG=1\n";
/// More than the 3 s in which it asks for one.
const LONGER_THAN_ASKED: Duration = Duration::from_secs(4);

#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let inside = SelfSampler::install().unwrap();
    let logs = logs::init(&LogSection { level: "info".to_owned(), format: LogFormat::Json }).unwrap();
    let watch = Watch::new();
    let dump_watch = watch.clone();
    let (usr1, usr2) = (Box::new(|| {}), Box::new(|| {}));
    let _signals = stop::on_signals_with(OperatorRequests {
        quit: Box::new(move || dump_watch.request_dump()),
        usr1,
        usr2,
        watch: watch.clone(),
    })
    .unwrap();
    let is_mute_about_itself = role == "vitals";
    let vitals = move || {
        if is_mute_about_itself {
            wait_for_a_line();
        }
        json!({ "sources": 3 })
    };
    let _watchdog = watch.start(inside, vitals).unwrap();
    let _admin = std::env::var_os(SOCKET).map(|socket| serve_admin(&PathBuf::from(socket), &watch, &logs));
    let system = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&system, async {
        watch.event_loop("worker-0", WatchKind::Worker);
        let _listener = (role == "mute").then(|| serve_until_a_line(&watch));
        notify::ready();
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            // The test writes a line to standard input to release the loop.
            match role.as_str() {
                "stuck" => {
                    let _at_work = work::on("GET /news", "127.0.0.1:9");
                    wait_for_a_line();
                }
                _ => tokio::time::sleep(Duration::from_secs(1)).await,
            }
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
    });
}

/// Answers everything, but nothing between two lines of standard input.
fn serve_until_a_line(watch: &Watch) -> WatchedListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = ListenerAddress::Tcp(listener.local_addr().unwrap());
    let gate = Arc::new(Mutex::new(()));
    let of_input = Arc::clone(&gate);
    std::thread::spawn(move || {
        let mut line = String::new();
        loop {
            std::io::stdin().read_line(&mut line).unwrap();
            let _held = of_input.lock();
            std::io::stdin().read_line(&mut line).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _open = gate.lock();
            stream.unwrap().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok();
        }
    });
    watch.listener("clients", WatchKind::Front, address)
}

/// The function that the test looks for.
#[inline(never)]
fn wait_for_a_line() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn serve_admin(path: &Path, watch: &Watch, logs: &Logs) -> daemon::admin::AdminHandle {
    let metrics = MetricsRegistry::new();
    watch.register_loops(&metrics, "test");
    let status = status_of(|| json!({}));
    serve(
        path,
        Admin {
            name: "testd",
            version: "1",
            metrics,
            watch: watch.clone(),
            status,
            reloads: None,
            documents: None,
        },
        logs,
    )
    .unwrap()
}

/// Waits until `condition` is true.
fn wait_until(condition: impl Fn() -> bool) {
    let pause = Duration::from_millis(20);
    for _ in 0..SOON.as_millis() / pause.as_millis() {
        if condition() {
            return;
        }
        std::thread::park_timeout(pause);
    }
    panic!("the condition never became true");
}

/// A running child; killed when dropped.
struct Running {
    child: Child,
    lines: Receiver<Value>,
    folder: tempfile::TempDir,
}

impl Running {
    fn start(role: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(ROLE, role)
            .env(SOCKET, folder.path().join("admin.sock"))
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = sync_channel(10_000);
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str(&line) {
                    drop(sender.try_send(line));
                }
            }
        });
        Self { child, lines, folder }
    }

    /// Reads the log up to the line with this message.
    fn until(&self, message: &str) -> (Vec<Value>, Value) {
        let mut before = Vec::new();
        loop {
            let line =
                self.lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("no {message} in {before:#?}"));
            if line["message"] == message {
                return (before, line);
            }
            before.push(line);
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn ask(&self, target: &str) -> String {
        let mut stream = UnixStream::connect(self.folder.path().join("admin.sock")).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn watch(&self) -> Value {
        serde_json::from_str(&self.ask("/watch")).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The receiver of notifications, as systemd is one for a unit with `WatchdogSec=3`.
struct NotifiedSystemd {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl NotifiedSystemd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { folder, socket }
    }

    /// Starts a child that notifies it.
    fn run(&self, role: &str) -> Running {
        let path = self.folder.path().join("notify");
        Running::start(role, &[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "3000000")])
    }

    /// The next notification that comes within this time.
    fn next(&self, within: Duration) -> std::io::Result<String> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut bytes = [0; 512];
        self.socket.recv(&mut bytes).map(|length| String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    fn wait_for(&self, notification: &str) {
        while self.next(SOON).unwrap() != notification {}
    }

    /// Forgets what has come so far.
    fn forget(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 512]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
    }
}

#[test]
fn a_stuck_loop_is_logged_at_once_with_its_function_and_shown_while_it_is_stuck() {
    let mut running = Running::start("stuck", &[]);
    let (_, stall) = running.until("an event loop stalled");
    assert_eq!(
        (&stall["level"], &stall["loop"], &stall["kind"]),
        (&json!("warn"), &json!("worker-0"), &json!("worker"))
    );
    assert_eq!((&stall["work"], &stall["of"]), (&json!("GET /news"), &json!("127.0.0.1:9")));
    let culprit = stall["blame"].as_str().unwrap();
    assert!(culprit.contains("wait_for_a_line") && culprit.contains("tests/watch.rs:"), "{stall:#}");
    assert!(stall["stack"].as_str().unwrap().contains("read"), "{stall:#}");

    let shown = running.watch();
    let stuck = shown["loops"].as_array().unwrap().iter().find(|one| one["name"] == "worker-0").unwrap();
    assert_eq!((&stuck["stalled"], &stuck["work"]["what"]), (&json!(true), &json!("GET /news")));
    assert!(stuck["beat_ms_ago"].as_u64().unwrap() > 1_000, "{shown:#}");
    let known = &shown["stalls"][0];
    assert_eq!(
        (&known["loop"], &known["lasted_ms"], &known["culprit"]),
        (&json!("worker-0"), &Value::Null, &stall["blame"])
    );
    assert_eq!((&shown["stalls_total"], &shown["vitals"]), (&json!(1), &json!({ "sources": 3 })));
    let text = running.ask("/stacks");
    assert!(text.contains("wait_for_a_line") && text.contains("works on: GET /news 127.0.0.1:9"), "{text}");
    assert!(running.ask("/metrics").contains("newswire_test_loop_stalls_total{loop=\"worker-0\"} 1"));

    running.child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    let (_, end) = running.until("an event loop recovered");
    assert!(end["lasted_ms"].as_u64().unwrap() > 1_000, "{end:#}");
    assert_eq!(running.watch()["stalls"][0]["lasted_ms"], end["lasted_ms"]);
}

#[test]
fn sigquit_logs_every_stack_and_the_diagnostics_while_a_loop_is_stuck_and_the_process_keeps_running() {
    let running = Running::start("stuck", &[]);
    running.until("an event loop stalled");
    for _ in 0..2 {
        running.signal(Signal::QUIT);
        let (_, head) = running.until("dump of all stacks");
        assert!(head["threads"].as_u64().unwrap() >= 3, "{head:#}");
        let (lines, _) = running.until("end of the dump");
        let has = |text: &str| lines.iter().any(|line| line["message"].as_str().unwrap().contains(text));
        assert!(has("wait_for_a_line") && has("works on: GET /news 127.0.0.1:9"), "{lines:#?}");
        let state = |part: &str| lines.iter().find(|line| line["part"] == part).unwrap()["state"].clone();
        assert_eq!(state("sources"), "3");
        assert!(state("loops").as_str().unwrap().contains("worker-0"), "{lines:#?}");
    }
    assert_eq!(running.watch()["stalls_total"], 1);
}

#[test]
fn a_pause_of_the_whole_process_blames_no_loop() {
    let running = Running::start("free", &[]);
    wait_until(|| running.folder.path().join("admin.sock").exists());
    let read_for = |time: Duration| {
        let mut lines = Vec::new();
        while let Ok(line) = running.lines.recv_timeout(time) {
            lines.push(line);
        }
        lines
    };
    // The watchdog has checked a few times before it.
    read_for(Duration::from_secs(1));
    running.signal(Signal::STOP);
    assert_eq!(read_for(Duration::from_secs(4)), Vec::<Value>::new(), "it is stopped");
    running.signal(Signal::CONT);
    let paused = "the whole process was paused: stopped, suspended with the machine, or without CPU";
    let (before, line) = running.until(paused);
    assert_eq!(before, Vec::<Value>::new());
    assert!(line["paused_ms"].as_u64().unwrap() > 2_000, "{line:#}");
    let shown = running.watch();
    assert_eq!(shown["stalls_total"], 0, "{shown:#}");
    assert!(shown["pauses"]["count"].as_u64().unwrap() >= 1, "{shown:#}");
}

#[test]
fn the_systemd_watchdog_is_notified_unless_a_loop_is_stuck() {
    let systemd = NotifiedSystemd::start();
    let running = systemd.run("free");
    systemd.wait_for("READY=1\n");
    for _ in 0..3 {
        systemd.wait_for(WATCHDOG);
    }
    drop(running);
    systemd.forget();

    let mut running = systemd.run("stuck");
    running.until("an event loop stalled");
    systemd.forget();
    assert!(systemd.next(LONGER_THAN_ASKED).is_err(), "a stuck loop starves it");
    running.child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    systemd.wait_for(WATCHDOG);
}

#[test]
fn a_listener_that_accepts_nothing_is_told_and_starves_the_systemd_watchdog_until_it_answers() {
    let systemd = NotifiedSystemd::start();
    let mut running = systemd.run("mute");
    let clients = |running: &Running| {
        let shown = running.watch();
        let probes = shown["listeners"].as_array().cloned().unwrap_or_default();
        probes.into_iter().find(|probe| probe["name"] == "clients").unwrap_or_default()
    };
    wait_until(|| running.folder.path().join("admin.sock").exists());
    wait_until(|| clients(&running)["answered_ms_ago"].is_u64());
    running.child.stdin.as_mut().unwrap().write_all(b"be mute\n").unwrap();
    let (_, told) = running.until(
        "a listener of this process does not answer, although the process runs; `newswire doctor` says why",
    );
    assert_eq!((&told["name"], &told["error"]), (&json!("clients"), &json!("no answer within 5 s")));
    // More than a pause beyond the bound: the watchdog may be about to notify when that is reached.
    let bound_ms = 19_000;
    wait_until(|| clients(&running)["waiting_ms"].as_u64().is_some_and(|ms| ms > bound_ms));
    systemd.forget();
    let received = systemd.next(LONGER_THAN_ASKED);
    assert!(
        received.is_err(),
        "every loop beats, but no client is served: {received:?}, {:#}",
        running.watch()
    );
    running.child.stdin.as_mut().unwrap().write_all(b"answer again\n").unwrap();
    running.until("a listener of this process answers again");
    systemd.wait_for(WATCHDOG);
}

#[test]
fn vitals_that_cannot_be_read_are_null_and_their_thread_is_named() {
    let mut running = Running::start("vitals", &[]);
    wait_until(|| running.folder.path().join("admin.sock").exists());
    assert_eq!(running.watch()["vitals"], Value::Null);
    wait_until(|| running.watch()["observers"][0]["tid"].as_i64().is_some_and(|tid| tid != 0));
    let first = running.watch();
    assert_eq!(first["observers"][0]["name"], "vitals", "{first:#}");
    let tid = first["observers"][0]["tid"].as_i64().unwrap();
    let stacks = running.ask("/stacks");
    let stack = stacks.split("\n\n").find(|stack| stack.contains(&format!("{tid}"))).unwrap();
    assert!(stack.contains("wait_for_a_line"), "{stack}");
    wait_until(|| {
        let again = running.watch();
        again["vitals"].is_null()
            && again["observers"][0]["tid"] == tid
            && again["observers"][0]["since_ms_ago"].as_u64().unwrap() > 1_500
    });
    assert!(first["watchdog"]["looked_ms_ago"].is_u64(), "{first:#}");
    running.child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    wait_until(|| running.watch()["vitals"].is_object());
}

#[test]
fn a_probe_is_known_to_be_our_own_and_no_other_connection_is() {
    let watch = Watch::new();
    let _watchdog = watch.start(None, || Value::Null).unwrap();
    for bound in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let Ok(listener) = TcpListener::bind(bound) else { continue };
        let address = listener.local_addr().unwrap();
        let _watched = watch.listener("clients", WatchKind::Front, ListenerAddress::Tcp(address));
        let (mut probe, peer) = listener.accept().unwrap();
        assert!(watch.is_own_probe(peer), "{peer}");
        let other = TcpStream::connect(("127.0.0.1", address.port()));
        if let Ok(other) = other {
            assert!(!watch.is_own_probe(other.local_addr().unwrap()));
        }
        let mut request = [0; 11];
        probe.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"GET /health");
    }
}

#[test]
fn an_exhausted_pool_and_a_thread_that_stays_busy_are_stalls_and_their_ends_are_detected() {
    let watch = Watch::new();
    let pool =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    watch.pool("pool-main", pool.handle());
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock().unwrap();
    let _watchdog = watch.start(None, || Value::Null).unwrap();
    let stalled = |name: &str| watch.stalled().iter().any(|one| &*one.name == name);
    let waiting = Arc::clone(&gate);
    pool.spawn_blocking(move || drop(waiting.lock()));
    let (watched, busy_gate) = (watch.clone(), Arc::clone(&gate));
    let recorder = std::thread::spawn(move || {
        let busy = watched.busy_thread("recorder", WatchKind::Recorder);
        let guard = busy.during("committing", "3 visits");
        drop(busy_gate.lock());
        drop(guard);
        busy
    });
    wait_until(|| stalled("pool-main") && stalled("recorder"));
    let sentence = watch.stalled().iter().find(|one| &*one.name == "recorder").unwrap().sentence();
    assert!(sentence.starts_with("recorder has not answered for "), "{sentence}");
    drop(held);
    let busy = recorder.join().unwrap();
    wait_until(|| watch.stalled().is_empty());
    drop(busy);
    pool.shutdown_background();
}

#[test]
fn a_helper_that_does_not_beat_and_a_thread_that_leaves_its_work_are_stalls() {
    let watch = Watch::new();
    let _watchdog = watch.start(None, || Value::Null).unwrap();
    let stalled = |name: &str| watch.stalled().iter().any(|one| &*one.name == name);
    let helper = watch.helper_thread("signals", WatchKind::Signals);
    let recorder = watch.busy_thread("recorder", WatchKind::Recorder);
    recorder.work_mark().expect();
    // Of two that are silent for the same time, the helper may be silent for longer.
    wait_until(|| stalled("recorder"));
    assert!(!stalled("signals"));
    wait_until(|| stalled("signals"));
    helper.beat();
    recorder.idles();
    wait_until(|| watch.stalled().is_empty());
}
