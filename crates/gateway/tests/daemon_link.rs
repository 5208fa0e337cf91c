//! What clients get before the ingestion daemon was ever reached, while it hangs or is dead, and after it has come back
//! with another log: never a wait per request, and never an empty answer that looks like a true one.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "tests may block")]

#[path = "support/answer.rs"]
mod answer;
#[path = "support/harness.rs"]
mod harness;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use answer::{body, header, status};
use harness::{Endpoint, FakeDaemon, Gateway, Serving, TIMEOUT};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

/// How long the gateway waits for the daemon at most.
const DAEMON_DEADLINE: Duration = Duration::from_secs(3);

/// Status, problem code and detail.
async fn problem(endpoint: &Endpoint, path: &str) -> (u16, String, String) {
    let answer = endpoint.ask("GET", path, "").await;
    let body = body(&answer);
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(header(&answer, "retry-after").is_some(), status(&answer) == 503, "{path}: {answer}");
    (status(&answer), text("code"), text("detail"))
}

/// Waits until a request is answered with 200.
async fn until_ok(endpoint: &Endpoint, path: &str) -> Value {
    let ok = async {
        loop {
            let answer = endpoint.ask("GET", path, "").await;
            if status(&answer) == 200 {
                return body(&answer);
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, ok).await.unwrap_or_else(|_| panic!("{path} was never answered with 200"))
}

/// A log of `events`, of which the ring holds the newest `ring`.
async fn log_and_ring(events: usize, ring: usize) -> (Gateway, FakeDaemon, Serving) {
    harness::gateway_and_log(events, |config| config.gateway.ring_events = ring).await
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_list_of_sources_arrived_lists_are_an_error_and_not_empty() {
    const LISTS: [&str; 5] = ["/sources", "/sources?limit=1", "/categories", "/sources/a", "/sources/none"];
    let gateway = Gateway::start(|_| ()).await;
    let not_listed = async |when: &str| {
        for path in LISTS {
            for headers in ["", "if-none-match: *\r\n"] {
                let answer = gateway.ask("GET", path, headers).await;
                let code = body(&answer)["code"].clone();
                assert_eq!((status(&answer), code), (503, json!("not-filled")), "{when}, {path}: {answer}");
                assert!(header(&answer, "retry-after").is_some() && header(&answer, "etag").is_none());
            }
            assert_eq!(status(&gateway.ask("HEAD", path, "").await), 503, "{when}, HEAD {path}");
        }
        let mut stream = gateway.stream("?category=world&source=nowhere", "").await;
        assert_eq!(stream.hello().await["unknown"], json!([]), "{when}: nothing is known to be unknown");
    };
    not_listed("without a daemon").await;

    let daemon = FakeDaemon::new("e");
    daemon.sources.lock().unwrap().push(FakeDaemon::health("a", "world"));
    daemon.publish("a");
    daemon.hangs.store(true, Relaxed);
    let serving = daemon.serve(gateway.socket());
    until_ok(&gateway, "/news").await;
    let ready = gateway.ask("GET", "/ready", "").await;
    assert!(status(&ready) == 503 && ready.contains("list of sources"), "{ready}");
    not_listed("with the wire alone").await;
    assert_eq!(until_ok(&gateway, "/news?category=world&source=nowhere").await["unknown"], json!([]));
    // A visit does not make a list of all sources.
    daemon.visited("b");
    until_ok(&gateway, "/sources/b").await;
    let list = gateway.ask("GET", "/sources", "").await;
    assert_eq!(status(&list), 503, "{list}");

    daemon.hangs.store(false, Relaxed);
    gateway.until_ready().await;
    let list = until_ok(&gateway, "/sources").await;
    assert_eq!(list["sources"][0]["id"], "a");
    assert_eq!(problem(&gateway, "/sources/none").await.0, 404);
    let mut stream = gateway.stream("?category=world&source=nowhere", "").await;
    assert_eq!(stream.hello().await["unknown"], json!(["nowhere"]));
    // The last list is good enough while the daemon is away.
    drop(serving);
    sleep(Duration::from_millis(100)).await;
    for path in ["/sources", "/categories", "/sources/a"] {
        assert_eq!(status(&gateway.ask("GET", path, "").await), 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_sources_has_an_empty_list() {
    let (gateway, _daemon, _serving) = log_and_ring(1, 10).await;
    assert_eq!(until_ok(&gateway, "/sources").await, json!({ "sources": [], "next": null }));
    assert_eq!(until_ok(&gateway, "/categories").await, json!({ "categories": [], "next": null }));
    assert_eq!(problem(&gateway, "/sources/a").await.0, 404);
}

/// Answered by the ring alone; its events are e-71 to e-100, recorded 71 to 100 s after 1970.
const OF_THE_RING: [&str; 7] = [
    "/news?limit=30",
    "/news?limit=5&source=odd",
    "/news?before=e-90&limit=10",
    "/news?after=e-70&limit=1000",
    "/news?after=e-95",
    "/news?since=1970-01-01T00:01:20Z",
    "/news/e-71",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_the_ring_has_whole_never_asks_the_daemon() {
    let (gateway, daemon, _serving) = log_and_ring(100, 30).await;
    daemon.hangs.store(true, Relaxed);
    for path in OF_THE_RING {
        assert_eq!(status(&gateway.ask("GET", path, "").await), 200, "{path}");
    }
    assert_eq!(daemon.log_requests.load(Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_costs_one_wait_and_the_pages_after_it_are_answered_at_once() {
    let (gateway, daemon, _serving) = log_and_ring(100, 30).await;
    daemon.hangs.store(true, Relaxed);
    let first = gateway.ask("GET", "/news?limit=50", "").await;
    assert_eq!((status(&first), body(&first)["items"].as_array().unwrap().len()), (200, 30), "{first}");

    // Each of these would wait, alone: together a minute.
    let began = Instant::now();
    for _ in 0..5 {
        let partly = gateway.ask("GET", "/news?limit=50", "").await;
        assert_eq!(body(&partly)["items"].as_array().unwrap().len(), 30, "what is in memory: {partly}");
        assert!(header(&partly, "etag").is_none() && body(&partly)["next"].is_string(), "{partly}");
        for path in
            ["/news?before=e-71", "/news?before=e-71&since=1h", "/news?q=nowhere&before=e-50", "/news/e-5"]
        {
            let (status, code, detail) = problem(&gateway, path).await;
            assert_eq!((status, code.as_str()), (503, "no-daemon"), "{path}");
            assert_eq!(detail, "the ingestion daemon did not answer in time", "{path}");
        }
    }
    let waited = began.elapsed();
    assert!(waited < DAEMON_DEADLINE * 25 / 2, "{waited:?}");
    let lines = "newswire_gateway_log_requests_total{result=\"";
    assert!(gateway.number(&format!("{lines}late\"}}")).await > 0);
    assert!(gateway.number(&format!("{lines}not_asked\"}}")).await >= 20);

    daemon.hangs.store(false, Relaxed);
    let page = until_ok(&gateway, "/news?before=e-71&limit=2").await;
    assert_eq!((&page["items"][0]["id"], &page["items"][1]["id"]), (&json!("e-70"), &json!("e-69")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_gone_is_not_said_to_be_late() {
    let (gateway, daemon, serving) = log_and_ring(100, 30).await;
    drop(serving);
    std::fs::remove_file(gateway.socket()).unwrap();
    for path in ["/news?before=e-71", "/news/e-5"] {
        let (status, code, detail) = problem(&gateway, path).await;
        assert_eq!((status, code.as_str()), (503, "no-daemon"), "{path}");
        assert_eq!(detail, "the ingestion daemon cannot be reached", "{path}");
    }
    let _serving = daemon.serve(gateway.socket());
    until_ok(&gateway, "/news?before=e-71").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_comes_back_with_another_log_is_never_mistaken_for_the_old_one() {
    const OLD: [(&str, u16, &str); 6] = [
        ("/news?before=e-71", 410, "other-log"),
        ("/news?before=e-99", 410, "other-log"),
        ("/news?after=e-5", 410, "other-log"),
        ("/news?after=e-0", 410, "other-log"),
        ("/news/e-5", 404, "not-found"),
        ("/news/e-99", 404, "not-found"),
    ];
    let (gateway, daemon, serving) = log_and_ring(100, 30).await;
    until_ok(&gateway, "/sources").await;
    // Requests reach the other daemon while the wire still belongs to the first one.
    let other = FakeDaemon::new("f");
    (0..100).for_each(|_| other.publish("a"));
    other.sources.lock().unwrap().push(FakeDaemon::health("a", "world"));
    let other_serving = other.serve(gateway.socket());
    for (path, status, code) in [OLD[0], OLD[4], ("/news?limit=50", 410, "other-log")] {
        let answer = problem(&gateway, path).await;
        assert_eq!((answer.0, answer.1.as_str()), (status, code), "{path}");
    }
    drop((daemon, serving));
    let replaced = async {
        while !until_ok(&gateway, "/news?limit=1").await["head"].as_str().unwrap().starts_with("f-") {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, replaced).await.unwrap();
    for (path, status, code) in OLD {
        let answer = problem(&gateway, path).await;
        assert_eq!((answer.0, answer.1.as_str()), (status, code), "{path}");
    }
    let listed = async {
        while until_ok(&gateway, "/sources").await["sources"] == json!([]) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, listed).await.expect("the list is that of the other daemon");
    drop(other_serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_below_the_ring_waits_for_a_daemon_that_is_away_and_misses_nothing() {
    let (gateway, daemon, serving) = log_and_ring(100, 30).await;
    drop(serving);
    std::fs::remove_file(gateway.socket()).unwrap();
    let mut streams = Vec::new();
    for query in ["?after=e-5&kinds=item", "?since=1970-01-01T00:00:06Z&kinds=item"] {
        streams.push(gateway.stream(query, "").await);
    }
    assert_eq!(
        streams[1].hello().await["resume"],
        "live",
        "a client without an id is live, whatever the log has"
    );
    while !streams[0].line().await.unwrap().starts_with("retry: ") {}
    // Known without the daemon: an id of the ring, and one that is of no log.
    for (id, resume) in [("e-80", "exact"), ("f-5", "reset"), ("e-x", "reset")] {
        let mut known = gateway.stream("?snapshot=0", &format!("last-event-id: {id}\r\n")).await;
        assert_eq!(known.hello().await["resume"], resume, "{id}");
    }
    // Longer than the requests that are made for an unreadable log, before the rest counts as lost.
    sleep(Duration::from_secs(8)).await;
    let _serving = daemon.serve(gateway.socket());
    assert_eq!(streams[0].hello().await["resume"], "exact");
    for stream in &mut streams {
        let mut next = 6;
        while next <= 100 {
            let block = stream.block().await.expect("the stream goes on");
            assert_ne!(block[0], "event: gap", "the log has all of them: {block:?}");
            if block.iter().any(|field| field == "event: item") {
                assert!(block.contains(&format!("id: e-{next}")), "{next}: {block:?}");
                next += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_waits_for_a_daemon_ends_when_another_log_comes() {
    let (gateway, _daemon, serving) = log_and_ring(100, 30).await;
    drop(serving);
    let mut waits = gateway.stream("?since=1970-01-01T00:00:06Z&kinds=item", "").await;
    assert_eq!(waits.hello().await["oldest"], "e-1");
    let mut not_opened = gateway.stream("?after=e-5&kinds=item", "").await;
    while !not_opened.line().await.unwrap().starts_with("retry: ") {}
    let other = FakeDaemon::new("f");
    other.publish("a");
    let _serving = other.serve(gateway.socket());
    let mut last = Vec::new();
    while let Some(block) = waits.block().await {
        assert_ne!(block[0], "event: gap", "{block:?}");
        last = block;
    }
    assert_eq!(last, ["id: e-0"], "it keeps its cursor of the old log");
    assert_eq!(
        not_opened.hello().await["resume"],
        "reset",
        "no stream had begun: this one begins with the new log"
    );
    assert_eq!(not_opened.ids(1).await, ["f-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_above_the_ring_waits_until_the_daemon_has_said_whether_it_is_of_the_log() {
    let (gateway, daemon, serving) = log_and_ring(100, 30).await;
    drop(serving);
    std::fs::remove_file(gateway.socket()).unwrap();
    // Another gateway has sent these while this one was not connected.
    (0..5).for_each(|_| daemon.publish("a"));
    let mut ahead = gateway.stream("?kinds=item", "last-event-id: e-103\r\n").await;
    let mut beyond = gateway.stream("?kinds=item&snapshot=1", "last-event-id: e-106\r\n").await;
    for stream in [&mut ahead, &mut beyond] {
        while !stream.line().await.unwrap().starts_with("retry: ") {}
    }
    let _serving = daemon.serve(gateway.socket());
    assert_eq!(ahead.hello().await["resume"], "exact");
    assert_eq!(ahead.ids(2).await, ["e-104", "e-105"]);
    assert_eq!(beyond.hello().await["resume"], "reset");
    daemon.publish("a");
    assert_eq!(ahead.ids(1).await, ["e-106"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_an_older_copy_of_the_log_no_client_is_told_exact_and_the_gateway_says_so() {
    let (gateway, _daemon, serving) = log_and_ring(160, 30).await;
    let mut live = gateway.stream("?snapshot=0", "").await;
    live.hello().await;
    drop(serving);
    // The copy has gone on by itself already; its event 101 is another one.
    let copy = FakeDaemon::new("e");
    (0..100).for_each(|_| copy.publish("a"));
    copy.publish("b");
    let serving = copy.serve(gateway.socket());
    let mut last = Vec::new();
    while let Some(block) = live.block().await {
        last = block;
    }
    assert_eq!(last, ["id: e-160"]);
    let ready = gateway.ask("GET", "/ready", "").await;
    assert!(
        status(&ready) == 503 && ready.contains("older copy, without e-160: it ended at e-101"),
        "{ready}"
    );
    let reset = async |id: &str| {
        let mut client = gateway.stream("?snapshot=1", &format!("last-event-id: {id}\r\n")).await;
        assert_eq!(client.hello().await["resume"], "reset", "{id}");
        client
    };
    for id in ["e-160", "e-161", "e-150", "e-101"] {
        reset(id).await;
    }
    // It does not become right by growing past what was sent before.
    (0..100).for_each(|_| copy.publish("b"));
    drop(serving);
    let serving = copy.serve(gateway.socket());
    let grown = async {
        while !until_ok(&gateway, "/news?limit=1").await["head"].as_str().unwrap().ends_with("-201") {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, grown).await.unwrap();
    drop((serving, reset("e-160").await));
    let decided = FakeDaemon::new("f");
    decided.publish("a");
    let _serving = decided.serve(gateway.socket());
    gateway.until_ready().await;
    assert_eq!(reset("e-160").await.ids(1).await, ["f-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_not_made_is_not_announced() {
    let (gateway, _daemon, _serving) = log_and_ring(1, 10).await;
    let h2c = "upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
    for path in ["/health", "/ready", "/metrics", "/", "/news", "/nowhere", "/news/stream?token=x"] {
        for headers in [
            format!("connection: Upgrade, HTTP2-Settings\r\n{h2c}"),
            "connection: upgrade\r\nupgrade: websocket\r\n".to_owned(),
            "connection: keep-alive, upgrade\r\nupgrade: TLS/1.3\r\n".to_owned(),
            "connection: keep-alive\r\n".to_owned(),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
            let mut answer = Vec::new();
            let mut stream = gateway.send(&request).await;
            let whole = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
            timeout(TIMEOUT, whole).await.unwrap().unwrap();
            let answer = String::from_utf8(answer).unwrap();
            assert_eq!(header(&answer, "connection"), Some("close"), "{path}, {headers}: {answer}");
            assert_eq!(header(&answer, "upgrade"), None, "{answer}");
        }
    }
    let mut stream = gateway
        .send(&format!(
            "GET /news/stream HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade, HTTP2-Settings\r\n{h2c}\r\n"
        ))
        .await;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        timeout(TIMEOUT, tokio::io::AsyncBufReadExt::read_line(&mut stream, &mut head))
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(header(&head, "connection"), Some("close"), "{head}");
}
