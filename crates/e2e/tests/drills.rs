//! Every kind of hang, injected into the real programs: `newswire doctor` reports the right verdict and frame in time, the
//! watchdog has logged the hang before, and the system is healthy afterwards. Faults that can be caused from outside
//! (stopped, dead, orphaned listener, slow feeds) are in `doctor.rs`.
//!
//! Each test prints a row of the table that `scripts/drill` collects.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{
    Binary, LatencyControl, Origin, StartOptions, TestStack, faults, http, log_line, scenario, wait_for,
};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Deadline of the doctor, whatever hangs: half of a hang, so that a doctor which waits for its end misses it.
const VERDICT_WITHIN: Duration = Duration::from_secs(HANG_SECONDS / 2);
/// How long a hang lasts unless it is ended.
const HANG_SECONDS: u64 = 100;
/// Deadline for the watchdog to log a stall.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
/// Deadline of an answer that does not depend on the workers; one that does takes [`HANG_SECONDS`].
const HEALTH_WITHIN: Duration = Duration::from_secs(30);
/// Deadline for the system to be healthy after a hang; a slow commit is reported for another minute.
const HEALTHY_WITHIN: Duration = Duration::from_secs(180);

/// Both daemons at work, in builds with drills.
struct DrillFixture {
    stack: TestStack,
    origin: Origin,
}

/// The innermost workspace function on the culprit's stack, and its file.
type Frame = (&'static str, &'static str);

impl DrillFixture {
    async fn new() -> Self {
        Self::with(&[], StartOptions { drill: true, ..StartOptions::default() }).await
    }

    async fn with(settings: &[(&str, &str)], options: StartOptions) -> Self {
        let origin = Origin::start().await.unwrap();
        let mut stack = TestStack::new(&scenario::feeds(&origin, 2)).unwrap();
        for (key, value) in [("gateway.workers", "2")].iter().chain(settings) {
            stack.set(key, value);
        }
        stack.set_start_options(Binary::Ingestd, options.clone());
        stack.set_start_options(Binary::Gateway, options);
        origin.publish("feed-0", "There is something to record");
        stack.start_both().await.unwrap();
        Self { stack, origin }
    }

    /// Starts a drill.
    async fn inject(&self, program: Binary, drill: &str, seconds: u64) {
        let path = format!("/drill/{drill}?seconds={seconds}");
        let answer = http::request("POST", &self.stack.admin(program), &path, &[]).await.unwrap();
        assert_eq!(answer.status, 202, "the build has this drill");
    }

    /// Ends all drills of a program.
    async fn end_drills(&self, program: Binary) {
        let answer = http::request("DELETE", &self.stack.admin(program), "/drill", &[]).await.unwrap();
        assert_eq!(answer.status, 204);
    }

    /// Waits until the watchdog has logged the culprit.
    async fn wait_log_names(&mut self, program: Binary, (function, file): Frame) {
        let process = self.stack.process(program).unwrap();
        let what = format!("the watchdog to name {function} in {file}");
        let line = wait_for(&what, SEEN_WITHIN, async || {
            let log = process.log();
            log.lines().find(|line| line.contains("an event loop stalled")).map(str::to_owned)
        })
        .await
        .unwrap();
        assert!(is_named(&line, function, file), "{line}");
    }

    /// Runs `newswire doctor --json`; returns its report and how long it took.
    async fn doctor(&self) -> (Value, Duration) {
        let config = self.stack.write_config("doctor.toml", &[]).unwrap();
        let began = Instant::now();
        let doctor = tokio::process::Command::new(Binary::Newswire.path().unwrap())
            .args(["doctor", "--json", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output =
            tokio::time::timeout(VERDICT_WITHIN * 2, doctor).await.expect("the doctor answers").unwrap();
        let took = began.elapsed();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("the doctor printed no JSON, {error}: {text}{complaint}"));
        let code = report["verdict"]["code"].as_str().unwrap_or_default();
        let exit = match code {
            "healthy" | "slow-feeds" => 0,
            "unknown" => 3,
            _ => 1,
        };
        assert_eq!(output.status.code(), Some(exit), "the exit code agrees with {code}");
        (report, took)
    }

    /// Repeats the diagnosis while the doctor reports an overloaded machine, which other tests may cause.
    async fn doctor_unless_overloaded(&self, code: &str) -> (Value, Duration) {
        wait_for("a processor to spare", HEALTHY_WITHIN, async || {
            let (report, took) = self.doctor().await;
            let Value::String(line) = &report["verdict"]["line"] else {
                panic!("a verdict has a line: {report:#}")
            };
            let overloaded = report["verdict"]["code"] == "worker-starved" && line.contains("no processor");
            (code == "worker-starved" || !overloaded).then_some((report, took))
        })
        .await
        .unwrap()
    }

    /// Checks the verdict and the frame that the doctor reports for `drill`. Prints the row of the table.
    async fn diagnose(&self, drill: &str, code: &str, frame: Option<Frame>) -> Value {
        let (report, took) = self.doctor_unless_overloaded(code).await;
        let line = report["verdict"]["line"].as_str().unwrap_or_default().to_owned();
        let named = location_in_a_drill(&line).unwrap_or_else(|| "–".to_owned());
        log_line(&format!(
            "| {drill} | {} | {named} | {:.1} |",
            report["verdict"]["code"].as_str().unwrap_or_default(),
            took.as_secs_f64()
        ));
        assert_eq!(report["verdict"]["code"], code, "{line}\n{report:#}");
        if let Some((function, file)) = frame {
            assert!(
                is_named(&line, function, file),
                "{function} at {file}:NUMBER is missing in: {line}\n{report:#}"
            );
        }
        let next = report["verdict"]["next"].as_array().map_or(0, Vec::len);
        assert!(next > 0, "it says what to do next: {}", report["verdict"]);
        assert!(took < VERDICT_WITHIN, "it took {took:?}");
        report
    }

    /// Waits until the verdict is `healthy`.
    async fn wait_healthy(&self) {
        let mut last = Value::Null;
        let well = wait_for("the doctor to find it healthy", HEALTHY_WITHIN, async || {
            last = self.doctor().await.0["verdict"].clone();
            (last["code"] == "healthy").then_some(())
        })
        .await;
        assert!(well.is_ok(), "{last:#}");
    }

    /// A drill that the watchdog detects, from beginning to end.
    async fn stall(program: Binary, drill: &str, code: &str, frame: Frame) {
        let mut fixture = Self::new().await;
        fixture.inject(program, drill, HANG_SECONDS).await;
        fixture.wait_log_names(program, frame).await;
        let report = fixture.diagnose(&format!("{} {drill}", program.name()), code, Some(frame)).await;
        let line = report["verdict"]["line"].as_str().unwrap_or_default();
        assert!(line.contains(drill), "it names the task of the thread: {line}");
        fixture.end_drills(program).await;
        fixture.wait_healthy().await;
    }
}

/// `FUNCTION at .../drill.rs:NUMBER` in a line, if present.
fn location_in_a_drill(line: &str) -> Option<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let file = words.iter().position(|word| word.contains("/drill.rs:"))?;
    Some(words.get(file.checked_sub(2)?..=file)?.join(" ").trim_end_matches([',', ';', '.']).to_owned())
}

/// `FUNCTION at FILE:NUMBER` if a line has them, or `not named`.
fn location(line: &str, function: &str, file: &str) -> String {
    let found = || {
        let from = line.find(function)?;
        let file_from = from + line[from..].find(file)? + file.len();
        let number: String =
            line[file_from..].strip_prefix(':')?.chars().take_while(char::is_ascii_digit).collect();
        (!number.is_empty()).then(|| format!("{function} at {file}:{number}"))
    };
    found().unwrap_or_else(|| "not named".to_owned())
}

fn is_named(line: &str, function: &str, file: &str) -> bool {
    location(line, function, file) != "not named"
}

const GATEWAY: &str = "crates/gateway/src/drill.rs";
const INGESTD: &str = "crates/ingestd/src/drill.rs";
const DAEMON: &str = "crates/daemon/src/drill.rs";

#[tokio::test]
async fn a_blocked_worker_is_named_with_its_frame() {
    let frame = ("read_a_silent_pipe", GATEWAY);
    DrillFixture::stall(Binary::Gateway, "block-worker", "event-loop-blocked", frame).await;
}

#[tokio::test]
async fn health_is_answered_while_every_worker_is_blocked() {
    let fixture = DrillFixture::new().await;
    // As many as the gateway has workers.
    for _ in 0..2 {
        fixture.inject(Binary::Gateway, "block-worker", HANG_SECONDS).await;
    }
    let is_blocked =
        async || http::fetch(&fixture.stack.gateway(), "/news", Duration::from_secs(2)).await.err();
    wait_for("the workers to be blocked", SEEN_WITHIN, is_blocked).await.unwrap();
    for _ in 0..50 {
        let (status, _) = http::fetch(&fixture.stack.gateway(), "/health", HEALTH_WITHIN).await.unwrap();
        assert_eq!(status, 200);
    }
    fixture.end_drills(Binary::Gateway).await;
    fixture.wait_healthy().await;
}

/// How long all loops spin while `/health` is probed.
const SPIN: Duration = Duration::from_secs(6);
/// Every loop of the gateway but that of `/health`, as its thread is named, and the drill that makes it spin.
const LOOPS: [(&str, &str); 5] = [
    ("worker-0", "spin-worker"),
    ("worker-1", "spin-worker"),
    ("pages", "spin-pages"),
    ("intake", "spin-intake"),
    // The main thread has the name of the program.
    ("newswire-gatewa", "spin-arbiter"),
];

/// Whether each of the loops is running or waits for a processor, in percent of so many looks at it.
async fn busy_percent(process: u32, looks: usize) -> [usize; LOOPS.len()] {
    let mut busy = [0; LOOPS.len()];
    for _ in 0..looks {
        sleep(SPIN / u32::try_from(looks).unwrap()).await;
        for thread in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
            let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
            // `12 (worker-0) R …`
            let Some((name, state)) = stat.split_once(" (").and_then(|(_, rest)| rest.rsplit_once(") "))
            else {
                continue;
            };
            let number = LOOPS.iter().position(|(of_loop, _)| *of_loop == name);
            busy.iter_mut().enumerate().filter(|(n, _)| Some(*n) == number).for_each(|(_, busy)| {
                *busy += usize::from(state.starts_with('R'));
            });
        }
    }
    busy.map(|busy| busy * 100 / looks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_answered_while_every_loop_spins_and_then_streams_go_on_with_nothing_lost() {
    let mut fixture = DrillFixture::new().await;
    let mut twin = TestStack::new(&[]).unwrap();
    twin.set("gateway.workers", "2");
    twin.start_both().await.unwrap();
    // Enough for both workers to have some.
    let subscribers: Vec<_> = (0..4).map(|_| fixture.stack.subscribe("/news/stream?snapshot=1000")).collect();
    for subscriber in &subscribers {
        subscriber.wait_event("item", SEEN_WITHIN, |_| true).await.unwrap();
    }
    for (_, drill) in LOOPS {
        fixture.inject(Binary::Gateway, drill, HANG_SECONDS).await;
    }
    let is_blocked =
        async || http::fetch(&fixture.stack.gateway(), "/news", Duration::from_secs(2)).await.err();
    wait_for("the workers to spin", SEEN_WITHIN, is_blocked).await.unwrap();

    let (gateway, of_twin) = (fixture.stack.gateway(), twin.gateway());
    let control = LatencyControl::start_on_health(&gateway, &of_twin, Duration::from_millis(20)).unwrap();
    fixture.origin.publish("feed-0", "While every loop spins");
    let process = fixture.stack.process(Binary::Gateway).unwrap().id();
    let busy = busy_percent(process, 60).await;
    let report = control.stop();
    log_line(&format!("every loop at 100 %: {report}; busy {busy:?}"));
    assert!(busy.iter().all(|busy| *busy > 90), "every loop spins: {LOOPS:?} {busy:?}");
    assert!(report.count() as u64 > SPIN.as_secs(), "probed throughout: {report}");
    report.check().unwrap();

    fixture.end_drills(Binary::Gateway).await;
    let last = fixture.origin.publish("feed-1", "After that");
    for subscriber in &subscribers {
        subscriber.wait_event("item", SEEN_WITHIN, |r| r.json()["guid"] == *last).await.unwrap();
        assert_eq!(faults(&fixture.origin.published(), &subscriber.records()), [""; 0]);
        assert_eq!(subscriber.connections().len(), 1, "{}", subscriber.summary());
    }
    fixture.wait_healthy().await;
}

#[tokio::test]
async fn a_blocked_arbiter_of_the_gateway_is_named_with_its_frame() {
    let frame = ("wait_for_a_held_lock", GATEWAY);
    DrillFixture::stall(Binary::Gateway, "block-arbiter", "event-loop-blocked", frame).await;
}

#[tokio::test]
async fn a_blocked_arbiter_of_the_daemon_is_named_with_its_frame() {
    let frame = ("read_a_silent_pipe", INGESTD);
    DrillFixture::stall(Binary::Ingestd, "block-arbiter", "event-loop-blocked", frame).await;
}

#[tokio::test]
async fn a_full_pool_of_the_gateway_is_named_with_its_frame() {
    let frame = ("sit_in_the_pool", DAEMON);
    DrillFixture::stall(Binary::Gateway, "exhaust-pool", "blocking-pool-exhausted", frame).await;
}

#[tokio::test]
async fn a_full_pool_of_the_daemon_is_named_with_its_frame() {
    let frame = ("sit_in_the_pool", DAEMON);
    DrillFixture::stall(Binary::Ingestd, "exhaust-pool", "blocking-pool-exhausted", frame).await;
}

#[tokio::test]
async fn a_slow_commit_is_named_with_its_frame() {
    let frame = ("sit_in_the_flush", INGESTD);
    let mut fixture = DrillFixture::new().await;
    fixture.inject(Binary::Ingestd, "stall-flush", HANG_SECONDS).await;
    fixture.origin.publish("feed-1", "One more to record");
    fixture.wait_log_names(Binary::Ingestd, frame).await;
    fixture.diagnose("newswire-ingestd stall-flush", "store-slow", Some(frame)).await;
    fixture.end_drills(Binary::Ingestd).await;
    fixture.wait_healthy().await;
}

/// How long the daemon runs on after its log has failed, whatever hangs; on a busy machine, so many times what an idle twin
/// takes to stop at the same time more.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
/// The same after an order to stop, while the disk takes nothing.
const STOPPED_WITHIN: Duration = Duration::from_secs(16);
const TWIN_TIMES: u32 = 3;

impl DrillFixture {
    /// Waits until the daemon ends because of its log, with the exit code of an I/O error, and stops a twin meanwhile as a
    /// control.
    async fn ends_by_itself(&mut self, cause: Option<&str>, within: Duration) {
        let mut twin = TestStack::new(&[]).unwrap();
        twin.start_both().await.unwrap();
        let daemon = self.stack.process(Binary::Ingestd).unwrap();
        match cause {
            Some(cause) => {
                let what = format!("an error with {cause:?} in the log");
                let is_logged = async || {
                    daemon.log().lines().any(|l| l.contains("ERROR") && l.contains(cause)).then_some(())
                };
                wait_for(&what, SEEN_WITHIN, is_logged).await.unwrap();
            }
            None => daemon.signal(Signal::TERM).unwrap(),
        }
        let hangs_after = Duration::from_secs(HANG_SECONDS);
        let (ended, of_twin) =
            tokio::join!(daemon.wait_exit(hangs_after), twin.terminate(Binary::Ingestd, hangs_after));
        let ((status, after), (_, twin_after)) = (ended.unwrap(), of_twin.unwrap());
        log_line(&format!("ended after {after:?}; its twin was stopped within {twin_after:?}"));
        assert_eq!(status.code(), Some(74));
        assert!(after < within + twin_after * TWIN_TIMES, "{after:?}, and the twin {twin_after:?}");
    }

    /// What was recorded is served again after a start.
    async fn starts_again(&mut self) {
        self.stack.start(Binary::Ingestd).unwrap();
        self.stack.wait_ready().await.unwrap();
        self.stack.terminate(Binary::Ingestd, SEEN_WITHIN).await.unwrap();
    }
}

#[tokio::test]
async fn a_daemon_whose_log_fails_ends_with_the_cause_even_if_its_stop_hangs() {
    let mut fixture = DrillFixture::new().await;
    // The stop uses the pool.
    fixture.inject(Binary::Ingestd, "exhaust-pool", HANG_SECONDS).await;
    fixture.inject(Binary::Ingestd, "fail-log", 1).await;
    fixture
        .ends_by_itself(Some("cannot write the journal: the drill fail-log; check the disk"), ENDED_WITHIN)
        .await;
    let log = fixture.stack.process(Binary::Ingestd).unwrap().log();
    assert!(log.contains("the stop after the failure of the log takes too long"), "{log}");
    fixture.starts_again().await;
}

#[tokio::test]
async fn a_panic_of_the_thread_that_writes_the_log_ends_the_daemon_with_its_message() {
    let mut fixture = DrillFixture::new().await;
    fixture.inject(Binary::Ingestd, "panic-log", 1).await;
    fixture
        .ends_by_itself(Some("the thread that writes the log panicked (the drill panic-log)"), ENDED_WITHIN)
        .await;
    fixture.starts_again().await;
}

#[tokio::test]
async fn a_disk_that_takes_nothing_does_not_keep_the_daemon_from_stopping() {
    let mut fixture = DrillFixture::new().await;
    fixture.inject(Binary::Ingestd, "stall-flush", HANG_SECONDS).await;
    fixture.origin.publish("feed-1", "One more to record");
    fixture.wait_log_names(Binary::Ingestd, ("sit_in_the_flush", INGESTD)).await;
    fixture.ends_by_itself(None, STOPPED_WITHIN).await;
    let log = fixture.stack.process(Binary::Ingestd).unwrap().log();
    assert!(log.contains("the disk of store.path does not take what is queued"), "{log}");
    fixture.starts_again().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_read_fails_the_requests_for_it_and_nothing_else() {
    let mut fixture = DrillFixture::new().await;
    let wire = fixture.stack.wire();
    let status = async |path: &str| http::fetch(&wire, path, HEALTH_WITHIN).await.unwrap().0;
    assert_eq!(status("/log?limit=5").await, 200, "control");
    fixture.inject(Binary::Ingestd, "fail-reads", HANG_SECONDS).await;
    for _ in 0..5 {
        assert_eq!(status("/log?limit=5").await, 500);
    }
    assert_eq!((status("/sources").await, status("/health").await), (200, 200));
    let read = e2e::http::fetch(&wire, "/metrics", HEALTH_WITHIN).await.unwrap().1;
    // The gateway may still be reading the log for its ring, so there may be more errors than requests from here.
    let errors = read.lines().find_map(|line| line.strip_prefix("newswire_ingestd_log_read_errors_total "));
    assert!(errors.and_then(|count| count.parse::<u32>().ok()).is_some_and(|count| count >= 5), "{read}");
    fixture.diagnose("newswire-ingestd fail-reads", "log-unreadable", None).await;
    let daemon = fixture.stack.process(Binary::Ingestd).unwrap();
    assert!(daemon.is_running());
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains("the drill fail-reads")).count();
    assert_eq!(lines, 1, "one line a minute: {log}");
    fixture.end_drills(Binary::Ingestd).await;
    wait_for("the log to be read again", HEALTHY_WITHIN, async || {
        (status("/log?limit=5").await == 200).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_starved_worker_is_distinguished_from_a_blocked_one() {
    let fixture = DrillFixture::new().await;
    fixture.inject(Binary::Gateway, "starve-worker", HANG_SECONDS).await;
    // The verdict needs several late beats.
    tokio::time::sleep(Duration::from_secs(3)).await;
    fixture.diagnose("newswire-gateway starve-worker", "worker-starved", None).await;
    fixture.end_drills(Binary::Gateway).await;
    fixture.wait_healthy().await;
}

/// Short, because a drill cannot be ended while its admin socket accepts no connections.
const LEAK_SECONDS: u64 = 40;
/// Low enough for the drill to exhaust, high enough to start.
const FEW_FILES: StartOptions = StartOptions {
    drill: true,
    open_files_max: Some(256),
    file_kib_max: None,
    unread_stderr: false,
    environment: Vec::new(),
    through: Vec::new(),
};

async fn exhaust_descriptors(program: Binary) {
    let fixture = DrillFixture::with(&[("gateway.clients_max", "50")], FEW_FILES).await;
    fixture.inject(program, "leak-descriptors", LEAK_SECONDS).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let drill = format!("{} leak-descriptors", program.name());
    fixture.diagnose(&drill, "descriptors-exhausted", None).await;
    fixture.wait_healthy().await;
}

#[tokio::test]
async fn a_gateway_without_file_descriptors_is_reported() {
    exhaust_descriptors(Binary::Gateway).await;
}

#[tokio::test]
async fn a_daemon_without_file_descriptors_is_reported() {
    exhaust_descriptors(Binary::Ingestd).await;
}

#[tokio::test]
async fn a_cut_wire_is_reported() {
    let fixture = DrillFixture::new().await;
    fixture.inject(Binary::Ingestd, "stop-wire", HANG_SECONDS).await;
    // For ten seconds after a start the doctor treats a missing wire as normal.
    tokio::time::sleep(Duration::from_secs(11)).await;
    fixture.diagnose("newswire-ingestd stop-wire", "wire-cut", None).await;
    fixture.end_drills(Binary::Ingestd).await;
    fixture.wait_healthy().await;
}

#[tokio::test]
async fn a_clock_jump_is_reported() {
    let fixture = DrillFixture::new().await;
    fixture.inject(Binary::Ingestd, "clock-jump", 90).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    fixture.diagnose("newswire-ingestd clock-jump", "clock-jumped", None).await;
}

#[tokio::test]
async fn a_clock_that_jumps_40_days_ahead_makes_no_event_too_old() {
    let mut fixture = DrillFixture::with(
        &[("store.retention_events", "3")],
        StartOptions { drill: true, ..StartOptions::default() },
    )
    .await;
    fixture.inject(Binary::Ingestd, "clock-jump", 40 * 86_400).await;
    let daemon = fixture.stack.process(Binary::Ingestd).unwrap();
    wait_for("a step of retention that sees the jump", SEEN_WITHIN, async || {
        daemon
            .log()
            .lines()
            .any(|line| line.contains("until then no event is removed because of its age"))
            .then_some(())
    })
    .await
    .unwrap();
    for n in 0..5 {
        fixture.origin.publish("feed-1", &format!("After the jump {n}"));
    }
    let wire = fixture.stack.wire();
    // Removal by number goes on: so a step has looked at all that is left.
    let kept = wait_for("a step of retention", HEALTHY_WITHIN, async || {
        let (_, text) = http::fetch(&wire, "/log?limit=100", HEALTH_WITHIN).await.unwrap();
        let log: Value = serde_json::from_str(&text).unwrap();
        let kept = log["events"].as_array().map_or(0, Vec::len);
        (log["oldest"].as_str()?.ends_with("-4")).then_some(kept)
    })
    .await
    .unwrap();
    assert_eq!(kept, 3);
}

/// A tmpfs, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=16M,mode=0700", "drill"];
        let mounted = Command::new("mount").args(options).arg(&at).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: an exiting process may still have files open there.
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path().join("disk")) else {
        log_line("SKIPPED: a full disk needs permission to mount a tmpfs");
        return;
    };
    let path = format!("{:?}", disk.0.join("data").display().to_string());
    let options = StartOptions { drill: true, ..StartOptions::default() };
    let fixture = DrillFixture::with(&[("store.path", &path)], options).await;
    // The write fails once the disk is full.
    let _full = fs::write(disk.0.join("ballast"), vec![1_u8; 32 << 20]);
    fixture.diagnose("the disk filled", "disk-full", None).await;
    drop(fixture);
}

#[tokio::test]
async fn release_builds_have_no_drills() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    stack.start_both().await.unwrap();
    for (program, drill) in [(Binary::Gateway, "block-worker"), (Binary::Ingestd, "stall-flush")] {
        let path = format!("/drill/{drill}?seconds=1");
        let answer = http::request("POST", &stack.admin(program), &path, &[]).await.unwrap();
        assert_eq!(answer.status, 404, "{}", program.name());
    }
}

/// What `newswire doctor --since 10m` prints.
async fn history(fixture: &DrillFixture) -> String {
    let config = fixture.stack.write_config("doctor.toml", &[]).unwrap();
    let mut doctor = tokio::process::Command::new(Binary::Newswire.path().unwrap());
    doctor.args(["doctor", "--since", "10m", "--config"]).arg(config).stdin(Stdio::null()).kill_on_drop(true);
    let output =
        tokio::time::timeout(VERDICT_WITHIN * 2, doctor.output()).await.expect("it answers").unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_process_killed_in_the_middle_of_a_stall_leaves_its_frame_and_its_last_minute() {
    let mut fixture = DrillFixture::new().await;
    // A minute more: the jump is measured up to a millisecond short, and whole hours are printed.
    fixture.inject(Binary::Ingestd, "clock-jump", 86_460).await;
    let (function, file) = ("read_a_silent_pipe", GATEWAY);
    fixture.inject(Binary::Gateway, "block-worker", HANG_SECONDS).await;
    let black_box = fixture.stack.path("run").join("gateway.blackbox");
    let is_written = async || {
        let bytes = fs::read(&black_box).ok()?;
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        let events = [r#""event":"stacks""#, r#""event":"counts""#, r#""event":"loops""#];
        let culprit = format!(r#""culprit":"newswire_gateway::drill::{function}"#);
        (has(&culprit) && events.into_iter().all(has)).then_some(())
    };
    wait_for("the stall in the black box", SEEN_WITHIN, is_written).await.unwrap();
    let size = || fs::metadata(&black_box).unwrap().len();
    assert_eq!(size(), 4 << 20);
    fixture.stack.kill(Binary::Gateway).unwrap();
    let log = fixture.stack.path("newswire-gateway.log");
    fs::remove_file(&log).unwrap();

    let (report, took) = fixture.doctor().await;
    let line = report["verdict"]["line"].as_str().unwrap();
    assert_eq!(report["verdict"]["code"], "gateway-dead", "{line}");
    assert!(line.contains("in the middle of a stall: "), "{line}");
    let stalls = report["evidence"]["gateway"]["black_box"]["stalls"].as_array().unwrap();
    assert!(stalls.iter().any(|stall| is_named(&stall.to_string(), function, file)), "{stalls:#?}");
    // On a machine without a processor to spare, another loop may have stalled even longer.
    assert!(is_named(line, function, file) || stalls.len() > 1, "{line}");
    log_line(&format!("| killed in a stall | gateway-dead | {function} | {:.1} |", took.as_secs_f64()));
    let printed = history(&fixture).await;
    for expected in
        ["STALL of worker-", "all stacks: ", "lags at most: ", "clients 0", "log INFO  ready", " end "]
    {
        assert!(printed.contains(expected), "{expected} is missing in:\n{printed}");
    }
    // The ingestion daemon runs; its clock was set, and the ages of what happened before are right all the same.
    assert!(printed.contains("the wall clock was set ahead by 24h"), "{printed}");
    assert!(
        printed.contains("committed 1 visits in ") || printed.contains("committed 2 visits in "),
        "{printed}"
    );
    assert!(printed.contains("visit of feed-0 ended: new, "), "{printed}");

    // After a restart, the file of the run before tells it.
    fixture.stack.start(Binary::Gateway).unwrap();
    fixture.stack.wait_ready().await.unwrap();
    assert!(previous_names(&fixture, function));
    let (report, _) = fixture.doctor().await;
    let before = &report["evidence"]["gateway"]["black_box"]["previous"];
    assert_eq!(before["end"]["how"], "killed", "{before:#}");
    assert!(is_named(&before["stalls"].to_string(), function, file), "{before:#}");
    fixture.end_drills(Binary::Ingestd).await;
}

fn previous_names(fixture: &DrillFixture, function: &str) -> bool {
    let previous = fs::read(fixture.stack.path("run").join("gateway.blackbox.previous")).unwrap();
    previous.windows(function.len()).any(|window| window == function.as_bytes())
}

#[tokio::test]
async fn what_frozen_processes_did_before_and_how_an_orderly_end_went_is_told() {
    let mut fixture = DrillFixture::new().await;
    for program in [Binary::Ingestd, Binary::Gateway] {
        fixture.stack.process(program).unwrap().signal(Signal::STOP).unwrap();
    }
    let printed = history(&fixture).await;
    assert!(printed.contains("VERDICT gateway-stopped"), "{printed}");
    for expected in
        ["black box of newswire-ingestd", "black box of newswire-gateway", "log INFO  ready", "written"]
    {
        assert!(printed.contains(expected), "{expected} is missing in:\n{printed}");
    }
    for program in [Binary::Ingestd, Binary::Gateway] {
        fixture.stack.process(program).unwrap().signal(Signal::CONT).unwrap();
    }
    let process = fixture.stack.process(Binary::Gateway).unwrap();
    process.signal(Signal::TERM).unwrap();
    wait_for("the gateway to end", SEEN_WITHIN, async || (!process.is_running()).then_some(()))
        .await
        .unwrap();
    let (report, _) = fixture.doctor().await;
    let line = report["verdict"]["line"].as_str().unwrap();
    assert_eq!(report["verdict"]["code"], "gateway-dead", "{line}");
    assert!(line.contains("it stopped in order"), "{line}");
    let printed = history(&fixture).await;
    assert!(printed.contains("SIGTERM arrived") && printed.contains("ended with exit code 0"), "{printed}");
}
