//! What a process writes to the outside: its log on standard error and its notifications to systemd. The process is this
//! test binary itself, started as a child with its role in an environment variable.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Duration;

use daemon::admin::{Admin, serve};
use daemon::config::{LogFormat, LogSection};
use daemon::metrics::MetricsRegistry;
use daemon::watch::Watch;
use daemon::{logs, notify, panics};
use serde_json::Value;

const ROLE: &str = "DAEMON_TEST_ROLE";

#[test]
fn child() {
    match std::env::var(ROLE).as_deref() {
        Ok("json") => log_all(LogFormat::Json),
        Ok("auto") => log_all(LogFormat::Auto),
        Ok("level") => change_the_level(),
        Ok("notify") => notify_systemd(),
        _ => {}
    }
    logs::flush(Duration::from_secs(60));
}

fn log_all(format: LogFormat) {
    let logs = logs::init(&LogSection { level: "info".to_owned(), format }).unwrap();
    panics::install();
    tracing::debug!(target: "ingestd", "hidden");
    tracing::info!(target: "ingestd::roster", source = "bbc", "added a source");
    tracing::info!(target: "sled", "hidden");
    tracing_log::log::info!(target: "reqwest", "hidden");
    tracing_log::log::warn!(target: "reqwest", "said by a dependency");
    logs.set_level("ingestd=debug").unwrap();
    tracing::debug!(target: "ingestd", "shown");
    tracing::info!(target: "gateway", "hidden");
    logs.set_level("info").unwrap();
    let worker = std::thread::Builder::new().name("worker\u{1b}".to_owned());
    assert!(worker.spawn(|| panic!("first\nsecond\u{1b}[2J")).unwrap().join().is_err());
    tracing::info!(target: "gateway", panics = panics::count(), "ended");
    assert!(logs::init(&LogSection::default()).is_err(), "a second log is refused");
}

/// Changes the level through the admin socket, as an operator does.
fn change_the_level() {
    let logs = logs::init(&LogSection { level: "info".to_owned(), format: LogFormat::Text }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let status = daemon::admin::status_of(|| ());
    let what = Admin {
        name: "testd",
        version: "1",
        metrics: MetricsRegistry::new(),
        watch: Watch::new(),
        status,
        reloads: None,
        documents: None,
    };
    let _admin = serve(&path, what, &logs).unwrap();
    let log_each = |when: &str| {
        tracing::debug!(target: "ingestd::roster", "ingestd {when}");
        tracing::debug!(target: "gateway::hub", "gateway {when}");
        tracing::info!(target: "sled::db", "sled {when}");
    };
    log_each("before");
    let mut stream = UnixStream::connect(&path).unwrap();
    let level = "info,ingestd=debug";
    let length = level.len();
    write!(
        stream,
        "PUT /log-level HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{level}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    log_each("by module");
    logs.more_detail();
    log_each("one step more");
    logs.restore();
    log_each("restored");
}

fn notify_systemd() {
    notify::ready();
    notify::status("serving 3 clients\nREADY=0");
    notify::reloading();
    notify::watchdog();
    notify::extend_timeout(Duration::from_secs(2));
    notify::stopping();
    assert_eq!(notify::watchdog_interval(), Some(Duration::from_secs(30)));
}

fn run(role: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(ROLE, role)
        .env_remove("JOURNAL_STREAM")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    errors.lines().map(str::to_owned).collect()
}

#[test]
fn the_level_of_each_module_changes_at_run_time_and_can_be_restored() {
    let lines = run("level", &[]);
    let has = |what: &str| lines.iter().any(|line| line.contains(what));
    for shown in ["ingestd by module", "ingestd one step more", "gateway one step more"] {
        assert!(has(shown), "{shown}: {lines:#?}");
    }
    for hidden in ["before", "gateway by module", "sled", "DEBUG ingestd restored", "gateway restored"] {
        assert!(!has(hidden), "{hidden}: {lines:#?}");
    }
    let logged = [
        "changed the log level level=\"info,ingestd=debug\"",
        "raised the log level",
        "restored the configured log level",
    ];
    assert!(logged.iter().all(|line| has(line)), "{lines:#?}");
}

#[test]
fn a_json_log_has_one_object_per_line_from_us_from_dependencies_and_from_panics() {
    let lines: Vec<Value> = run("json", &[]).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<&str> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["added a source", "said by a dependency", "shown", "a thread panicked", "ended"]);
    assert_eq!(lines[0]["source"], "bbc");
    assert_eq!((&lines[1]["target"], &lines[1]["level"]), (&"reqwest".into(), &"warn".into()));
    assert_eq!(lines[3]["panic"], "first\\nsecond\\u{1b}[2J");
    assert!(lines[3]["location"].as_str().unwrap().contains("process.rs:"), "{}", lines[3]);
    assert_eq!(lines[4]["panics"], 1);
}

#[test]
fn without_a_journal_and_a_terminal_the_log_is_plain_text() {
    for environment in [&[][..], &[("JOURNAL_STREAM", "1:2")]] {
        let lines = run("auto", environment);
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines[0].ends_with("Z INFO  added a source source=bbc"), "{}", lines[0]);
        assert!(lines[3].contains(" ERROR a thread panicked thread=worker\\u{1b} location="), "{}", lines[3]);
        assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:#?}");
    }
}

#[test]
fn systemd_receives_each_state_and_none_that_a_text_contains() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    run("notify", &[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "30000000")]);
    let receive = || {
        let mut bytes = [0; 512];
        let length = systemd.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    assert_eq!(receive(), "READY=1\n");
    assert_eq!(receive(), "STATUS=serving 3 clients\\nREADY=0\n");
    let reloading = receive();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(
        [receive(), receive(), receive()],
        ["WATCHDOG=1\n", "EXTEND_TIMEOUT_USEC=2000000\n", "STOPPING=1\n"]
    );
}

#[test]
fn without_systemd_nothing_is_sent_and_nothing_fails() {
    notify::ready();
    notify::status("alone");
    assert_eq!(notify::watchdog_interval(), None);
}
