//! What the gateway reports about its own event loops, over real sockets.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

#[path = "support/harness.rs"]
mod harness;

use std::time::Duration;

use daemon::watch::WatchKind;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::{sleep, timeout},
};

use harness::{Gateway, TIMEOUT, gateway_with};

async fn watch(gateway: &Gateway) -> Value {
    let mut stream = UnixStream::connect(gateway.directory.path().join("gateway-admin.sock")).await.unwrap();
    stream.write_all(b"GET /watch HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn ready(gateway: &Gateway) -> Value {
    let answer = gateway.ask("GET", "/ready", "").await;
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_loop_is_watched_and_the_gateway_reports_its_diagnostics() {
    let (gateway, _daemon, _serving) = gateway_with(3).await;
    let mut client = gateway.stream("", "").await;
    client.hello().await;
    let shown = watch(&gateway).await;
    let mut loops: Vec<_> =
        shown["loops"].as_array().unwrap().iter().map(|one| (&one["kind"], &one["name"])).collect();
    loops.sort_by_key(|(kind, name)| (kind.to_string(), name.to_string()));
    let expected = json!([
        ["admin", "admin"],
        ["arbiter", "main"],
        ["front", "front"],
        ["pool", "pool-main"],
        ["prober", "prober"],
        ["wire", "intake"],
        ["worker", "pages"],
        ["worker", "worker-0"],
        ["worker", "worker-1"]
    ]);
    assert_eq!(json!(loops), expected);
    let vitals = &shown["vitals"];
    assert_eq!(
        (&vitals["clients"], &vitals["draining"], &vitals["inherited"]),
        (&json!(1), &json!(false), &json!(false))
    );
    assert_eq!((&vitals["wire"]["connected"], &vitals["wire"]["cursor"]), (&json!(true), &json!("e-3")));
    assert_eq!((&vitals["ring"]["filled"], &vitals["ring"]["events"]), (&json!(true), &json!(3)));
    assert!(vitals["open_files"]["used"].as_u64().unwrap() > 0, "{shown:#}");
    let metrics = gateway.ask("GET", "/metrics", "").await;
    for line in
        ["newswire_gateway_loop_stalls_total{loop=\"worker-1\"} ", "newswire_gateway_clock_jumps_total 0"]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(metrics.contains("newswire_gateway_loop_lag_seconds{loop=\"intake\"} "), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_ends_while_a_loop_is_stuck_and_returns_with_it() {
    let (gateway, _daemon, _serving) = gateway_with(1).await;
    assert_eq!(ready(&gateway).await["loops"], json!([]));
    let busy = gateway.watch.busy_thread("worker-9", WatchKind::Worker);
    let stuck = async {
        // The watchdog takes the thread that holds the guard for stuck.
        let (free, freed) = std::sync::mpsc::sync_channel::<()>(0);
        let thread = std::thread::spawn(move || {
            let _guard = busy.during("GET /news", "a client");
            assert!(freed.recv().is_err());
        });
        let readiness = loop {
            let readiness = ready(&gateway).await;
            if readiness["ready"] == false {
                break readiness;
            }
            sleep(Duration::from_millis(50)).await;
        };
        drop(free);
        thread.join().unwrap();
        readiness
    };
    let readiness = timeout(TIMEOUT, stuck).await.unwrap();
    let reason = readiness["reasons"][0].as_str().unwrap();
    assert!(reason.starts_with("worker-9 has not answered for "), "{readiness:#}");
    assert_eq!(
        (&readiness["loops"][0]["name"], &readiness["loops"][0]["kind"]),
        (&json!("worker-9"), &json!("worker"))
    );
    let back = async {
        while ready(&gateway).await["ready"] == false {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, back).await.unwrap();
}
