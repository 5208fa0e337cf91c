//! A log that cannot be written stops nothing: a pipe that is not read, a reader that is gone.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::time::Duration;

use e2e::{Binary, ChildProcess, Origin, StartOptions, TestStack, http, scenario, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Only a hang takes this long.
const HANGS_AFTER: Duration = Duration::from_secs(90);
const BOTH: [Binary; 2] = [Binary::Ingestd, Binary::Gateway];

fn unread() -> StartOptions {
    StartOptions { unread_stderr: true, ..StartOptions::default() }
}

/// What a daemon reports about its log.
async fn log_state(stack: &TestStack, program: Binary) -> Option<Value> {
    let (_, text) = http::fetch(&stack.admin(program), "/watch", Duration::from_secs(10)).await.ok()?;
    let watch: Value = serde_json::from_str(&text).ok()?;
    Some(watch["log"].clone())
}

async fn blocked_for(stack: &TestStack, program: Binary, ms: u64) {
    wait_for("a write that waits", HANGS_AFTER, async || {
        let log = log_state(stack, program).await?;
        (log["blocked_ms"].as_u64()? >= ms).then_some(())
    })
    .await
    .unwrap();
}

/// The verdict of the doctor, and its exit code.
async fn doctor(stack: &TestStack) -> (Value, Option<i32>) {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let arguments = ["doctor", "--json", "--no-stacks", "--config", config.to_str().unwrap()];
    let mut doctor = ChildProcess::start(Binary::Newswire, &arguments, stack.folder()).unwrap();
    let (status, _) = doctor.wait_exit(HANGS_AFTER).await.unwrap();
    let report: Value = serde_json::from_str(&doctor.log()).unwrap();
    (report["verdict"].clone(), status.code())
}

#[tokio::test]
async fn with_a_log_that_is_not_read_both_serve_record_dump_and_end_and_the_doctor_names_the_reader() {
    let origin = Origin::start().await.unwrap();
    let mut stack = TestStack::new(&scenario::feeds(&origin, 1)).unwrap();
    // Not even the level of the log hides a dump.
    stack.set("log.level", "\"off\"");
    for program in BOTH {
        stack.set_start_options(program, unread());
    }
    stack.start_both().await.unwrap();
    for program in BOTH {
        // Two dumps are larger than a pipe.
        for _ in 0..2 {
            stack.process(program).unwrap().signal(Signal::QUIT).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        blocked_for(&stack, program, 2_500).await;
    }

    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    origin.publish("feed-0", "While the log is blocked");
    wait_for("the item", HANGS_AFTER, async || (subscriber.count("item") == 1).then_some(())).await.unwrap();
    let (status, _) = http::fetch(&stack.gateway(), "/health", HANGS_AFTER).await.unwrap();
    assert_eq!(status, 200);
    let (verdict, exit) = doctor(&stack).await;
    assert_eq!((&verdict["code"], exit), (&"log-blocked".into(), Some(1)), "{verdict:#}");
    let reader = format!("and pid {} (", std::process::id());
    let line = verdict["line"].as_str().unwrap();
    assert!(line.contains("pipe:[") && line.contains(&reader) && line.contains("not read it"), "{line}");

    let daemon = stack.process(Binary::Ingestd).unwrap();
    daemon.read_stderr().unwrap();
    let dumps = wait_for("the end of the second dump", HANGS_AFTER, async || {
        let log = daemon.log();
        (log.matches(" end of the dump").count() == 2).then_some(log)
    });
    let log = dumps.await.unwrap();
    assert_eq!(log.matches(" dump of all stacks ").count(), 2, "{log}");
    assert_eq!(log.matches(" state part=loops ").count(), 2, "{log}");
    assert!(!log.contains("dropped here"), "both are whole: {log}");
    for program in BOTH {
        // That of the gateway is still not read.
        let (status, _) = stack.terminate(program, HANGS_AFTER).await.unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

#[tokio::test]
async fn lines_for_a_reader_that_is_gone_are_counted_and_the_doctor_shows_the_error() {
    let mut stack = TestStack::new(&[]).unwrap();
    stack.set_start_options(Binary::Gateway, unread());
    stack.start_both().await.unwrap();
    let gateway = stack.process(Binary::Gateway).unwrap();
    gateway.close_stderr();
    gateway.signal(Signal::QUIT).unwrap();
    wait_for("a failing log", HANGS_AFTER, async || {
        let log = log_state(&stack, Binary::Gateway).await?;
        (log["failing"]["lasted_ms"].as_u64()? >= 2_500).then_some(())
    })
    .await
    .unwrap();
    let (_, metrics) =
        http::fetch(&stack.admin(Binary::Gateway), "/metrics", Duration::from_secs(10)).await.unwrap();
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix("newswire_gateway_log_lines_dropped_total "))
        .unwrap();
    assert!(dropped.parse::<u64>().unwrap() > 10, "{dropped}");
    let (verdict, exit) = doctor(&stack).await;
    assert_eq!((&verdict["code"], exit), (&"log-blocked".into(), Some(1)), "{verdict:#}");
    assert!(verdict["line"].as_str().unwrap().contains("Broken pipe"), "{verdict:#}");
}

#[tokio::test]
async fn newswire_up_restarts_and_ends_both_daemons_while_what_it_prints_is_not_read() {
    let mut stack = TestStack::new(&[]).unwrap();
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let arguments = ["up", "--config", config.to_str().unwrap()];
    let mut up = ChildProcess::start_with(&unread(), Binary::Newswire, &arguments, stack.folder()).unwrap();
    stack.wait_ready().await.unwrap();
    let pid_of = async |program: Binary| {
        let address = stack.admin(program);
        let (_, text) = http::fetch(&address, "/health", Duration::from_secs(10)).await.ok()?;
        let health: Value = serde_json::from_str(&text).ok()?;
        Pid::from_raw(i32::try_from(health["pid"].as_i64()?).ok()?)
    };
    for program in BOTH {
        for _ in 0..2 {
            kill_process(pid_of(program).await.unwrap(), Signal::QUIT).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let before = pid_of(Binary::Gateway).await.unwrap();
    // A blocked child would not answer, and one that is not waited for would not be restarted.
    kill_process(before, Signal::KILL).unwrap();
    wait_for("another gateway", HANGS_AFTER, async || {
        pid_of(Binary::Gateway).await.filter(|pid| *pid != before)
    })
    .await
    .unwrap();
    up.signal(Signal::INT).unwrap();
    let (status, _) = up.wait_exit(HANGS_AFTER).await.unwrap();
    assert_eq!(status.code(), Some(0));
    for program in BOTH {
        assert!(pid_of(program).await.is_none(), "{} has ended", program.name());
    }
}
