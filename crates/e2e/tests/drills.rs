//! Each way to hang, made to happen in the real programs, and what `newswire doctor` says of it: the right verdict, the
//! right frame, soon; what the watchdog had written before anybody asked; and health once it is over. What can be made to
//! go wrong from outside (stopped, dead, no listener of ours, slow feeds) is in `doctor.rs`.
//!
//! Each test prints a row of the table that `scripts/drill` collects.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{Manner, Origin, Program, Stack, http, say, story, wait_for};
use serde_json::Value;
use tokio::time::Instant;

/// Within this the doctor has its verdict, whatever hangs.
const VERDICT_WITHIN: Duration = Duration::from_secs(10);
/// How long a hang lasts if nobody ends it.
const HANG_SECONDS: u64 = 100;
/// Within this the watchdog has written of a stall.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// Within this after the end of a hang all is well; a slow commit is told of for a minute after it.
const WELL_WITHIN: Duration = Duration::from_secs(100);

/// Both programs at work, in the builds that can be made to hang.
struct Scene {
    stack: Stack,
    origin: Origin,
}

/// The innermost of our functions on the culprit's stack, and its file.
type Frame = (&'static str, &'static str);

impl Scene {
    async fn new() -> Self {
        Self::with(&[], Manner { drill: true, ..Manner::default() }).await
    }

    async fn with(settings: &[(&str, &str)], manner: Manner) -> Self {
        let origin = Origin::start().await.unwrap();
        let mut stack = Stack::new(&story::feeds(&origin, 2)).unwrap();
        for (key, value) in [("gateway.workers", "2")].iter().chain(settings) {
            stack.set(key, value);
        }
        stack.start_as(Program::Ingestd, manner);
        stack.start_as(Program::Gateway, manner);
        origin.publish("feed-0", "There is something to record");
        stack.start_both().await.unwrap();
        Self { stack, origin }
    }

    /// Begins a drill.
    async fn inject(&self, whom: Program, drill: &str, seconds: u64) {
        let path = format!("/drill/{drill}?seconds={seconds}");
        let answer = http::request("POST", &self.stack.admin(whom), &path, &[]).await.unwrap();
        assert_eq!(answer.status, 202, "the build knows of the drill");
    }

    /// Ends all drills of a program.
    async fn end_drills(&self, whom: Program) {
        let answer = http::request("DELETE", &self.stack.admin(whom), "/drill", &[]).await.unwrap();
        assert_eq!(answer.status, 204);
    }

    /// Waits until the watchdog has named the culprit in the log.
    async fn journal_names(&mut self, whom: Program, (function, file): Frame) {
        let process = self.stack.process(whom).unwrap();
        let what = format!("the watchdog to name {function} in {file}");
        let line = wait_for(&what, SEEN_WITHIN, async || {
            let log = process.log();
            log.lines().find(|line| line.contains("an event loop stalled")).map(str::to_owned)
        })
        .await
        .unwrap();
        assert!(names(&line, function, file), "{line}");
    }

    /// Asks the doctor, as an operator does.
    async fn doctor(&self) -> (Value, Duration) {
        let config = self.stack.write_config("doctor.toml", &[]).unwrap();
        let began = Instant::now();
        let asked = tokio::process::Command::new(Program::Newswire.path().unwrap())
            .args(["doctor", "--json", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output =
            tokio::time::timeout(VERDICT_WITHIN * 3, asked).await.expect("the doctor answers").unwrap();
        let took = began.elapsed();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let whole: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("the doctor gave no JSON, {error}: {text}{complaint}"));
        let code = whole["verdict"]["code"].as_str().unwrap_or_default();
        let ok = ["healthy", "slow-feeds"].contains(&code);
        assert_eq!(output.status.code(), Some(i32::from(!ok)), "the exit code says the same as {code}");
        (whole, took)
    }

    /// A machine without a processor to spare is told of first, which is right and not what is looked for.
    async fn doctor_unless_overloaded(&self, code: &str) -> (Value, Duration) {
        wait_for("a processor to spare", WELL_WITHIN, async || {
            let (whole, took) = self.doctor().await;
            let Value::String(line) = &whole["verdict"]["line"] else {
                panic!("a verdict has a line: {whole:#}")
            };
            let overloaded = whole["verdict"]["code"] == "worker-starved" && line.contains("no processor");
            (code == "worker-starved" || !overloaded).then_some((whole, took))
        })
        .await
        .unwrap()
    }

    /// What the doctor is to say of `drill`. Prints the row of the table.
    async fn diagnose(&self, drill: &str, code: &str, frame: Option<Frame>) -> Value {
        let (whole, took) = self.doctor_unless_overloaded(code).await;
        let line = whole["verdict"]["line"].as_str().unwrap_or_default().to_owned();
        let named = place_in_a_drill(&line).unwrap_or_else(|| "–".to_owned());
        say(&format!(
            "| {drill} | {} | {named} | {:.1} |",
            whole["verdict"]["code"].as_str().unwrap_or_default(),
            took.as_secs_f64()
        ));
        assert_eq!(whole["verdict"]["code"], code, "{line}\n{whole:#}");
        if let Some((function, file)) = frame {
            assert!(
                names(&line, function, file),
                "{function} at {file}:NUMBER is to be in: {line}\n{whole:#}"
            );
        }
        let next = whole["verdict"]["next"].as_array().map_or(0, Vec::len);
        assert!(next > 0, "it says what to do next: {}", whole["verdict"]);
        assert!(took < VERDICT_WITHIN, "it took {took:?}");
        whole
    }

    /// Waits until the doctor has nothing to complain of.
    async fn well_again(&self) {
        let mut last = Value::Null;
        let well = wait_for("the doctor to find it healthy", WELL_WITHIN, async || {
            last = self.doctor().await.0["verdict"].clone();
            (last["code"] == "healthy").then_some(())
        })
        .await;
        assert!(well.is_ok(), "{last:#}");
    }

    /// A drill that the watchdog sees, from its beginning to its end.
    async fn stall(whom: Program, drill: &str, code: &str, frame: Frame) {
        let mut scene = Self::new().await;
        scene.inject(whom, drill, HANG_SECONDS).await;
        scene.journal_names(whom, frame).await;
        let whole = scene.diagnose(&format!("{} {drill}", whom.name()), code, Some(frame)).await;
        let line = whole["verdict"]["line"].as_str().unwrap_or_default();
        assert!(line.contains(drill), "it says what the thread worked on: {line}");
        scene.end_drills(whom).await;
        scene.well_again().await;
    }
}

/// What stands around ` at .../drill.rs:NUMBER` in a line.
fn place_in_a_drill(line: &str) -> Option<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let file = words.iter().position(|word| word.contains("/drill.rs:"))?;
    Some(words.get(file.checked_sub(2)?..=file)?.join(" ").trim_end_matches([',', ';', '.']).to_owned())
}

/// `FUNCTION at FILE:NUMBER` as it stands in a line.
fn place(line: &str, function: &str, file: &str) -> String {
    let found = || {
        let from = line.find(function)?;
        let file_from = from + line[from..].find(file)? + file.len();
        let number: String =
            line[file_from..].strip_prefix(':')?.chars().take_while(char::is_ascii_digit).collect();
        (!number.is_empty()).then(|| format!("{function} at {file}:{number}"))
    };
    found().unwrap_or_else(|| "not named".to_owned())
}

fn names(line: &str, function: &str, file: &str) -> bool {
    place(line, function, file) != "not named"
}

const GATEWAY: &str = "crates/gateway/src/drill.rs";
const INGESTD: &str = "crates/ingestd/src/drill.rs";
const DAEMON: &str = "crates/daemon/src/drill.rs";

#[tokio::test]
async fn a_blocked_worker_is_named_with_its_frame() {
    let frame = ("read_a_silent_pipe", GATEWAY);
    Scene::stall(Program::Gateway, "block-worker", "event-loop-blocked", frame).await;
}

#[tokio::test]
async fn a_blocked_arbiter_of_the_gateway_is_named_with_its_frame() {
    let frame = ("wait_for_a_held_lock", GATEWAY);
    Scene::stall(Program::Gateway, "block-arbiter", "event-loop-blocked", frame).await;
}

#[tokio::test]
async fn a_blocked_arbiter_of_the_daemon_is_named_with_its_frame() {
    let frame = ("read_a_silent_pipe", INGESTD);
    Scene::stall(Program::Ingestd, "block-arbiter", "event-loop-blocked", frame).await;
}

#[tokio::test]
async fn a_full_pool_of_the_gateway_is_named_with_its_frame() {
    let frame = ("sit_in_the_pool", DAEMON);
    Scene::stall(Program::Gateway, "exhaust-pool", "blocking-pool-exhausted", frame).await;
}

#[tokio::test]
async fn a_full_pool_of_the_daemon_is_named_with_its_frame() {
    let frame = ("sit_in_the_pool", DAEMON);
    Scene::stall(Program::Ingestd, "exhaust-pool", "blocking-pool-exhausted", frame).await;
}

#[tokio::test]
async fn a_commit_that_takes_long_is_named_with_its_frame() {
    let frame = ("sit_in_the_flush", INGESTD);
    let mut scene = Scene::new().await;
    scene.inject(Program::Ingestd, "stall-flush", HANG_SECONDS).await;
    scene.origin.publish("feed-1", "One more to record");
    scene.journal_names(Program::Ingestd, frame).await;
    scene.diagnose("newswire-ingestd stall-flush", "store-slow", Some(frame)).await;
    scene.end_drills(Program::Ingestd).await;
    scene.well_again().await;
}

#[tokio::test]
async fn a_starved_worker_is_told_from_a_blocked_one() {
    let scene = Scene::new().await;
    scene.inject(Program::Gateway, "starve-worker", HANG_SECONDS).await;
    // Starved is who is late again and again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    scene.diagnose("newswire-gateway starve-worker", "worker-starved", None).await;
    scene.end_drills(Program::Gateway).await;
    scene.well_again().await;
}

/// Nobody can end a drill at a socket that gives no connection.
const LEAK_SECONDS: u64 = 20;
/// Few enough for the drill to use up, and enough to start with.
const FEW_FILES: Manner = Manner { drill: true, open_files_max: Some(256) };

async fn leak(whom: Program) {
    let scene = Scene::with(&[("gateway.clients_max", "50")], FEW_FILES).await;
    scene.inject(whom, "leak-descriptors", LEAK_SECONDS).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let drill = format!("{} leak-descriptors", whom.name());
    scene.diagnose(&drill, "descriptors-exhausted", None).await;
    scene.well_again().await;
}

#[tokio::test]
async fn a_gateway_without_descriptors_is_told() {
    leak(Program::Gateway).await;
}

#[tokio::test]
async fn a_daemon_without_descriptors_is_told() {
    leak(Program::Ingestd).await;
}

#[tokio::test]
async fn a_cut_wire_is_told() {
    let scene = Scene::new().await;
    scene.inject(Program::Ingestd, "stop-wire", HANG_SECONDS).await;
    // Without a wire is also who has just started; the doctor says so for ten seconds.
    tokio::time::sleep(Duration::from_secs(11)).await;
    scene.diagnose("newswire-ingestd stop-wire", "wire-cut", None).await;
    scene.end_drills(Program::Ingestd).await;
    scene.well_again().await;
}

#[tokio::test]
async fn a_clock_that_jumped_is_told() {
    let scene = Scene::new().await;
    scene.inject(Program::Ingestd, "clock-jump", 90).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.diagnose("newswire-ingestd clock-jump", "clock-jumped", None).await;
}

/// A file system in memory, gone when this is dropped.
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
        // Lazily, since a process that is about to end may have files open there.
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path().join("disk")) else {
        say("SKIPPED: a full disk needs the right to mount one");
        return;
    };
    let path = format!("{:?}", disk.0.join("data").display().to_string());
    let manner = Manner { drill: true, ..Manner::default() };
    let scene = Scene::with(&[("store.path", &path)], manner).await;
    // It fails when the last byte is taken.
    let _full = fs::write(disk.0.join("ballast"), vec![1_u8; 32 << 20]);
    scene.diagnose("the disk filled", "disk-full", None).await;
    drop(scene);
}

#[tokio::test]
async fn what_is_shipped_knows_no_drills() {
    let origin = Origin::start().await.unwrap();
    let mut stack = Stack::new(&story::feeds(&origin, 1)).unwrap();
    stack.start_both().await.unwrap();
    for (program, drill) in [(Program::Gateway, "block-worker"), (Program::Ingestd, "stall-flush")] {
        let path = format!("/drill/{drill}?seconds=1");
        let answer = http::request("POST", &stack.admin(program), &path, &[]).await.unwrap();
        assert_eq!(answer.status, 404, "{}", program.name());
    }
}
