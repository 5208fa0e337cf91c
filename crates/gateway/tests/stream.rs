//! The gateway over real sockets, in front of a scripted daemon: what a client gets in every situation, and what
//! a bad client can do to the others (nothing).
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

#[path = "support/harness.rs"]
mod harness;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use daemon::config::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use harness::{Client, FakeDaemon, Gateway, Serving, TIMEOUT, gateway_with};
use newswire_gateway::Limits;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_retry_and_stream_then_the_snapshot_then_live() {
    let (gateway, daemon, _serving) = gateway_with(5).await;
    let mut client = gateway.stream("?snapshot=2", "").await;
    let first = client.block().await.unwrap();
    let retry: u64 = first[0].strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((1000..3000).contains(&retry));
    assert_eq!(first[1..3], ["id: e-3", "event: stream"], "its cursor comes with the first block");
    let hello: serde_json::Value = serde_json::from_str(first[3].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(
        (&hello["resume"], &hello["oldest"], &hello["head"]),
        (&"live".into(), &"e-1".into(), &"e-5".into())
    );
    assert_eq!(client.ids(2).await, ["e-4", "e-5"]);
    daemon.publish("odd");
    assert_eq!(client.ids(1).await, ["e-6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_resumed_from_header_query_or_after_and_the_header_wins() {
    let (gateway, _daemon, _serving) = gateway_with(5).await;
    for (query, header, first) in [
        ("", "last-event-id: e-3\r\n", "e-4"),
        ("?last_event_id=e-2", "", "e-3"),
        ("?lastEventId=e-2", "", "e-3"),
        ("?after=e-1&snapshot=0", "", "e-2"),
        ("?last_event_id=e-1", "last-event-id: e-4\r\n", "e-5"),
    ] {
        let mut client = gateway.stream(query, header).await;
        assert_eq!(client.hello().await["resume"], "exact", "{query} {header}");
        assert_eq!(client.ids(1).await, [first], "{query} {header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_id_is_never_an_error_but_a_reset() {
    let (gateway, _daemon, _serving) = gateway_with(3).await;
    let long = format!("last-event-id: e-{}\r\n", "1".repeat(5000));
    for header in
        ["last-event-id: nonsense\r\n", "last-event-id: e-99\r\n", "last-event-id: other-2\r\n", &long]
    {
        let mut client = gateway.stream("?snapshot=1", header).await;
        let hello = client.hello().await;
        assert_eq!(
            (&hello["resume"], &hello["missed"]),
            (&"reset".into(), &serde_json::Value::Null),
            "{header}"
        );
        assert_eq!(client.ids(1).await, ["e-3"], "it starts as if it had sent none");
    }
}

/// A gateway whose ring holds ten of the thousand events that the daemon has.
async fn small_ring(oldest: u64) -> (Gateway, FakeDaemon, Serving) {
    small_ring_with(oldest, |_| ()).await
}

async fn small_ring_with(oldest: u64, change: impl FnOnce(&mut Config)) -> (Gateway, FakeDaemon, Serving) {
    let gateway = Gateway::start(|config| {
        config.gateway.ring_events = 10;
        change(config);
    })
    .await;
    let daemon = FakeDaemon::new("e");
    (0..1000).for_each(|n| daemon.publish(if n % 2 == 0 { "odd" } else { "even" }));
    daemon.oldest.store(oldest, Relaxed);
    let serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    (gateway, daemon, serving)
}

fn numbers(range: impl Iterator<Item = u64>) -> Vec<String> {
    range.map(|n| format!("e-{n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ring_no_longer_has_is_read_from_the_log_without_a_hole() {
    let (gateway, daemon, _serving) = small_ring(1).await;
    let mut client = gateway.stream("?after=e-5", "").await;
    let hello = client.hello().await;
    assert_eq!(
        (&hello["resume"], &hello["missed"], &hello["oldest"]),
        (&"exact".into(), &0.into(), &"e-1".into())
    );
    assert_eq!(client.ids(995).await, numbers(6..=1000));
    daemon.publish("odd");
    assert_eq!(client.ids(1).await, ["e-1001"]);
    let mut filtered = gateway.stream("?after=e-5&source=even", "").await;
    assert_eq!(filtered.ids(498).await, numbers((6..=1000).step_by(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_no_longer_has_becomes_a_gap() {
    let (gateway, _daemon, _serving) = small_ring(501).await;
    let mut client = gateway.stream("?after=e-5", "").await;
    let hello = client.hello().await;
    assert_eq!(
        (&hello["resume"], &hello["missed"], &hello["oldest"]),
        (&"gap".into(), &495.into(), &"e-501".into())
    );
    assert_eq!(client.ids(500).await, numbers(501..=1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_the_gateway_does_not_know_of_yet_is_a_gap_in_the_first_event() {
    let (gateway, daemon, _serving) = small_ring(1).await;
    daemon.oldest.store(301, Relaxed);
    let mut client = gateway.stream("?after=e-5", "").await;
    let hello = client.hello().await;
    assert_eq!(
        (&hello["resume"], &hello["missed"], &hello["oldest"]),
        (&"gap".into(), &295.into(), &"e-301".into())
    );
    assert_eq!(client.ids(700).await, numbers(301..=1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_before_the_ring_is_found_in_the_log() {
    let (gateway, _daemon, _serving) = small_ring(1).await;
    let mut client = gateway.stream("?since=1970-01-01T00:15:00Z", "").await;
    assert_eq!(client.hello().await["resume"], "live");
    assert_eq!(client.ids(101).await, numbers(900..=1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_log_that_begins_above_the_head_of_the_ring_does_not_hold_up_its_worker() {
    let (gateway, daemon, _serving) = small_ring(1).await;
    {
        // Retention has removed all that the gateway has, and one event more was recorded that it has not received.
        let mut log = daemon.log.lock().unwrap();
        let next = log[999].replace("e-1000", "e-1001");
        log.push(next);
        daemon.oldest.store(1001, Relaxed);
    }
    let mut client = gateway.stream("?since=1970-01-01T00:15:00Z", "").await;
    client.hello().await;
    assert_eq!(client.block().await.unwrap(), ["event: gap", "data: {\"missed\":101,\"oldest\":\"e-1001\"}"]);
    assert_eq!(client.block().await.unwrap(), ["event: live", "data: {\"head\":\"e-1000\"}"]);
    assert_eq!(client.ids(1).await, ["e-1001"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_log_count_for_the_budget_even_if_a_filter_leaves_them_out() {
    let (gateway, _daemon, _serving) = small_ring_with(1, |config| {
        config.gateway.replay_events_per_address = Some(10);
    })
    .await;
    let mut client = gateway.stream("?after=e-5&source=none", "").await;
    client.hello().await;
    let waits = "newswire_gateway_replay_waits_total{reason=\"replay_per_address\"}";
    let waited = async {
        while gateway.number(waits).await == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, waited).await.expect("160 events at once, then 10 per second");
    let pages = gateway.number("newswire_gateway_replay_pages_total").await;
    assert!(pages < 15, "{pages} pages of 50 events");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_below_the_ring_waits_for_a_log_that_is_not_readable_and_is_told_no_gap() {
    let (gateway, daemon, _serving) = small_ring(1).await;
    let mut before = gateway.stream("?after=e-900&kinds=item", "").await;
    assert_eq!(before.hello().await["resume"], "exact");
    daemon.mute.store(true, Relaxed);
    let began = tokio::time::Instant::now();
    let mut client = gateway.stream("?after=e-5&kinds=item", "").await;
    while !client.line().await.unwrap().starts_with("retry: ") {}
    let mut asks_for_heartbeats = gateway.stream("?after=e-5&heartbeat=1", "").await;
    // More than the five requests after which a gap was told once.
    let requests = daemon.log_requests.load(Relaxed);
    let failed = async {
        while daemon.log_requests.load(Relaxed) < requests + 20 {
            let block = asks_for_heartbeats.block().await.unwrap();
            let of_beat = block.iter().position(|field| field == "event: heartbeat").unwrap();
            assert_eq!(block[of_beat - 1], "id: e-5", "while it waits, its id is repeated");
        }
    };
    timeout(TIMEOUT, failed).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(5));
    daemon.mute.store(false, Relaxed);
    let hello = client.hello().await;
    assert_eq!((&hello["resume"], &hello["missed"]), (&"exact".into(), &0.into()), "only now it is known");
    assert_eq!(client.ids(995).await, numbers(6..=1000));
    assert_eq!(asks_for_heartbeats.hello().await["resume"], "exact");
    assert_eq!(before.ids(100).await, numbers(901..=1000));
}

/// What a client is told from its hello on: ids, and `n missed` for what is missing.
async fn told(client: &mut Client, until: u64) -> Vec<String> {
    let hello = client.hello().await;
    let mut told = vec![format!("{} {}", hello["resume"].as_str().unwrap(), hello["missed"])];
    loop {
        let block = client.block().await.expect("the stream goes on");
        let field = |name: &str| block.iter().find_map(|field| field.strip_prefix(name));
        match (field("event: "), field("id: ")) {
            (Some("gap"), _) => {
                let gap: serde_json::Value = serde_json::from_str(field("data: ").unwrap()).unwrap();
                told.push(format!("{} missed, then {}", gap["missed"], gap["oldest"].as_str().unwrap()));
            }
            (Some("item"), Some(id)) => told.push(id.to_owned()),
            _ => {}
        }
        if told.last().is_some_and(|last| last.ends_with(&format!("e-{until}"))) {
            return told;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_events_are_a_gap_of_exactly_that_many_from_the_log_and_from_the_ring_and_live() {
    let gateway = Gateway::start(|config| config.gateway.ring_events = 4).await;
    let daemon = FakeDaemon::new("e");
    (0..12).for_each(|_| daemon.publish("a"));
    // Two at the beginning, two in the middle of the log, one in the ring.
    for damaged in [1..3, 5..7, 10..11] {
        daemon.damage(damaged);
    }
    let _serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    let mut live = gateway.stream("?snapshot=0", "").await;
    live.hello().await;
    let of_middle = ["e-4", "2 missed, then e-7", "e-7", "e-8", "e-9", "1 missed, then e-11", "e-11", "e-12"];
    for (after, hello, from) in [
        ("e-0", "gap 2", &["e-3"][..]),
        ("e-1", "gap 1", &["e-3"]),
        ("e-3", "gap 0", &[]),
        ("e-5", "gap 1", &of_middle[..2]),
        ("e-9", "gap 1", &of_middle[..6]),
        ("e-10", "exact 0", &of_middle[..6]),
        ("e-11", "exact 0", &of_middle[..7]),
    ] {
        let mut client = gateway.stream(&format!("?after={after}"), "").await;
        let told = told(&mut client, 12).await;
        let rest = match from {
            ["e-3"] => [from, &of_middle].concat(),
            skipped => of_middle[skipped.len()..].to_vec(),
        };
        assert_eq!(told, [&[hello][..], &rest].concat(), "{after}");
    }
    // The newest ones: connected clients are told at that moment.
    daemon.publish_damaged(3);
    let gap = live.block().await.unwrap();
    assert_eq!(gap, ["event: live", "data: {\"head\":\"e-12\"}"]);
    assert_eq!(live.block().await.unwrap(), ["event: gap", "data: {\"missed\":3,\"oldest\":\"e-16\"}"]);
    let mut late = gateway.stream("", "last-event-id: e-12\r\n").await;
    let hello = late.hello().await;
    assert_eq!(
        (&hello["resume"], &hello["missed"], &hello["head"]),
        (&"gap".into(), &3.into(), &"e-15".into())
    );
    daemon.publish("a");
    assert_eq!((live.ids(1).await, late.ids(1).await), (numbers(16..=16), numbers(16..=16)));
    // Pages have what there is.
    let page = gateway.ask("GET", "/news?limit=100", "").await;
    let ids: Vec<_> = page.split("\"id\":\"e-").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(ids, ["16", "12", "11", "9", "8", "7", "4", "3"], "{page}");
    for gone in ["e-6", "e-10", "e-13", "e-14"] {
        let answer = gateway.ask("GET", &format!("/news/{gone}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 410"), "{gone}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_id_is_too_large_for_any_parameter() {
    const LAST: &str = "e-18446744073709551615";
    let (gateway, _daemon, _serving) = small_ring(1).await;
    for (query, header) in [
        (String::new(), format!("last-event-id: {LAST}\r\n")),
        (format!("&last_event_id={LAST}"), String::new()),
        (format!("&lastEventId={LAST}"), String::new()),
        (format!("&Last-Event-ID={LAST}"), String::new()),
        (format!("&after={LAST}"), String::new()),
    ] {
        let mut client = gateway.stream(&format!("?snapshot=1{query}"), &header).await;
        assert_eq!(client.hello().await["resume"], "reset", "{query} {header}");
        assert_eq!(client.ids(1).await, ["e-1000"], "{query} {header}");
    }
    for seq in [u64::MAX, u64::MAX - 1, 1001] {
        for (path, status) in [
            (format!("/news?after=e-{seq}"), 410),
            (format!("/news?before=e-{seq}"), 410),
            (format!("/news/e-{seq}"), 404),
        ] {
            let answer = gateway.ask("GET", &path, "").await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        }
    }
    for path in ["/news?before=e-0", "/news?after=e-0&before=e-1", "/news?before=e-1&after=e-1000"] {
        let answer = gateway.ask("GET", path, "").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"items\":[]"), "{path}: {answer}");
    }
    let answer = gateway.ask("GET", "/news/e-0", "").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_client_gets_its_events_and_its_cursor_passes_the_others() {
    let (gateway, daemon, _serving) = gateway_with(4).await;
    let mut client = gateway.stream("?source=even&snapshot=10", "").await;
    assert_eq!(client.ids(2).await, ["e-2", "e-4"]);
    assert_eq!(client.block().await.unwrap()[0], "event: live");
    daemon.publish("odd");
    let beat = client.block().await.unwrap();
    assert_eq!(beat, ["id: e-5"], "an id without an event");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_a_new_client_is_live_at_once_and_one_with_an_id_waits() {
    let gateway = Gateway::start(|_| ()).await;
    let mut fresh = gateway.stream("", "").await;
    let hello = fresh.hello().await;
    assert_eq!((&hello["resume"], &hello["head"]), (&"live".into(), &serde_json::Value::Null));
    let mut back = gateway.stream("", "last-event-id: e-2\r\n").await;
    let waiting = async { while !back.line().await.unwrap().starts_with("retry: ") {} };
    timeout(TIMEOUT, waiting).await.expect("it is told to wait");
    for path in ["/", "/health"] {
        assert!(gateway.ask("GET", path, "").await.starts_with("HTTP/1.1 200"), "{path}");
    }
    assert!(gateway.ask("GET", "/ready", "").await.starts_with("HTTP/1.1 503"));
    assert!(gateway.ask("GET", "/news", "").await.starts_with("HTTP/1.1 503"));
    let daemon = FakeDaemon::new("e");
    (0..4).for_each(|_| daemon.publish("a"));
    let _serving = daemon.serve(gateway.socket());
    assert_eq!(fresh.ids(4).await, ["e-1", "e-2", "e-3", "e-4"]);
    assert_eq!(back.hello().await["resume"], "exact");
    assert_eq!(back.ids(2).await, ["e-3", "e-4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_comes_and_goes_and_its_clients_miss_nothing() {
    let (gateway, daemon, serving) = gateway_with(2).await;
    let mut client = gateway.stream("?snapshot=2", "").await;
    assert_eq!(client.ids(2).await, ["e-1", "e-2"]);
    let mut serving = serving;
    for round in 0..3_u64 {
        drop(serving);
        daemon.publish("a");
        daemon.publish("a");
        serving = daemon.serve(gateway.socket());
        let first = 3 + round * 2;
        assert_eq!(client.ids(2).await, [format!("e-{first}"), format!("e-{}", first + 1)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_ends_the_streams_and_the_old_id_is_reset() {
    let (gateway, _daemon, serving) = gateway_with(2).await;
    let mut client = gateway.stream("?snapshot=2", "").await;
    client.ids(2).await;
    drop(serving);
    let other = FakeDaemon::new("f");
    other.publish("a");
    let _serving = other.serve(gateway.socket());
    let mut last = Vec::new();
    while let Some(block) = client.block().await {
        last = block;
    }
    assert_eq!(last, ["id: e-2"], "it keeps its cursor of the old log");
    let mut client = gateway.stream("", "last-event-id: e-2\r\n").await;
    assert_eq!(client.hello().await["resume"], "reset");
    assert_eq!(client.ids(1).await, ["f-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_limit_a_stream_is_told_to_retry_and_open_ones_stay() {
    let gateway = Gateway::start(|config| config.gateway.clients_per_address_max = 2).await;
    let daemon = FakeDaemon::new("e");
    daemon.publish("a");
    let _serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    let (mut one, _two) = (gateway.stream("", "").await, gateway.stream("", "").await);
    let refused = gateway.ask("GET", "/news/stream", "").await;
    assert!(refused.starts_with("HTTP/1.1 200"), "{refused}");
    assert!(refused.contains("\r\n\r\nretry: "), "{refused}");
    assert_eq!(one.ids(1).await, ["e-1"]);
    drop(one);
    let again = async {
        while !gateway.ask("GET", "/health", "").await.contains("\"clients\":1") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, again).await.expect("a client that left releases its permit");
    gateway.stream("", "").await.ids(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pipelines_on_its_open_stream_is_disconnected() {
    let (gateway, _daemon, _serving) = gateway_with(1).await;
    let mut client = gateway.stream("", "").await;
    client.ids(1).await;
    let flood = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20_000);
    // It is cut off in the middle of what it sends, too.
    timeout(TIMEOUT, client.stream.get_mut().write_all(flood.as_bytes())).await.unwrap().ok();
    let gone = async { while client.block().await.is_some() {} };
    timeout(TIMEOUT, gone).await.expect("the connection is closed");
    assert!(
        gateway.ask("GET", "/metrics", "").await.contains("streams_ended_total{reason=\"pipelining\"} 1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_of_a_stream_is_counted_once_with_its_reason() {
    let limits = Limits { throughput_window: Duration::from_secs(1), ..Limits::default() };
    let gateway = Gateway::within(limits, |_| ()).await;
    let mut daemon = FakeDaemon::new("e");
    daemon.publish("a");
    let serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    let open = async || {
        let mut client = gateway.stream("", "").await;
        client.ids(1).await;
        client
    };
    // Closed, half closed, and reset.
    drop(open().await);
    let mut half_closed = open().await;
    half_closed.stream.get_mut().shutdown().await.unwrap();
    open().await.stream.get_ref().set_zero_linger().unwrap();
    let mut floods = open().await;
    timeout(TIMEOUT, floods.stream.get_mut().write_all(&vec![b'x'; 1 << 20])).await.unwrap().ok();
    gateway.until_clients(0, TIMEOUT).await;
    let stuck = gateway.small_stream("?snapshot=0").await;
    gateway.until_clients(1, TIMEOUT).await;
    daemon.publish_large(200, 5_000);
    gateway.until_clients(0, TIMEOUT).await;
    drop(stuck);
    let mut other_log = gateway.stream("?snapshot=0", "").await;
    other_log.hello().await;
    drop(serving);
    daemon = FakeDaemon::new("f");
    daemon.publish("a");
    let _serving = daemon.serve(gateway.socket());
    while timeout(TIMEOUT, other_log.block()).await.unwrap().is_some() {}
    gateway.until_clients(0, TIMEOUT).await;
    let metrics = gateway.ask("GET", "/metrics", "").await;
    let mut ended: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("newswire_gateway_streams_ended_total{reason="))
        .filter(|line| !line.ends_with(" 0"))
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, ["\"client\"} 3", "\"epoch\"} 1", "\"pipelining\"} 1", "\"slow\"} 1"], "{metrics}");
    assert_eq!(gateway.number("newswire_gateway_streams_total").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_every_stream_with_its_cursor_and_the_process_in_time() {
    let (gateway, daemon, _serving) = gateway_with(3).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.stream("?snapshot=1", "").await;
        client.ids(1).await;
        clients.push(client);
    }
    daemon.publish("a");
    for client in &mut clients {
        client.ids(1).await;
    }
    let ended = tokio::spawn(gateway.end());
    for client in &mut clients {
        let mut last = Vec::new();
        while let Some(block) = client.block().await {
            last = block;
        }
        assert_eq!(last, ["id: e-4"], "the last block has its cursor");
    }
    assert!(ended.await.unwrap() < TIMEOUT);
}

/// Every id that a stream sends until its end.
async fn ids_until_end(client: &mut Client) -> Vec<String> {
    let (mut ids, mut last) = (Vec::new(), String::new());
    while let Some(line) = client.line().await {
        if line.starts_with('{') {
            let object: serde_json::Value = serde_json::from_str(&line).unwrap();
            ids.extend(object["id"].as_str().map(str::to_owned));
        }
        ids.extend(line.strip_prefix("id: ").map(str::to_owned));
        if !line.is_empty() {
            last = line;
        }
    }
    assert_eq!(last, "0", "the chunk that ends the body");
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_before_an_id_is_resolved_leaves_the_client_with_it_and_nothing_is_lost() {
    let (gateway, daemon, serving) = small_ring(1).await;
    // The log is not readable: what became of these ids is not known. The last one is above the ring.
    daemon.mute.store(true, Relaxed);
    let unresolved = ["e-5", "e-500", "e-988", "e-1005"];
    let ndjson = "accept: application/x-ndjson\r\n";
    let mut clients = Vec::new();
    for id in unresolved {
        for (query, accept) in [("", ""), ("?heartbeat=1", ""), ("?source=even", ""), ("", ndjson)] {
            let client = gateway.stream(query, &format!("last-event-id: {id}\r\n{accept}")).await;
            clients.push((id, format!("{query} {accept}"), client));
        }
    }
    for (_, _, client) in &mut clients {
        while !client.line().await.unwrap().contains("waiting") {}
    }
    // The ring goes on meanwhile.
    (0..3).for_each(|_| daemon.publish("even"));
    let head = async { while !gateway.ask("GET", "/news?limit=1", "").await.contains("e-1003") {} };
    timeout(TIMEOUT, head).await.unwrap();
    let ended = tokio::spawn(gateway.end());
    for (id, kind, client) in &mut clients {
        let ids = ids_until_end(client).await;
        assert!(!ids.is_empty() && ids.iter().all(|sent| sent == id), "{kind}, {id}: {ids:?}");
    }
    ended.await.unwrap();
    drop(serving);

    daemon.mute.store(false, Relaxed);
    let gateway = Gateway::start(|config| config.gateway.ring_events = 10).await;
    let _serving = daemon.serve(gateway.socket());
    for (id, first) in unresolved.into_iter().zip([6, 501, 989]) {
        let mut again = gateway.stream("", &format!("last-event-id: {id}\r\n")).await;
        assert_eq!(again.hello().await["resume"], "exact", "{id}");
        let rest = numbers(first..=1003);
        assert_eq!(again.ids(rest.len()).await, rest, "{id}");
    }
    let mut above = gateway.stream("", &format!("last-event-id: {}\r\n", unresolved[3])).await;
    assert_eq!(above.hello().await["resume"], "reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_before_the_daemon_ever_came_leaves_each_client_with_what_it_came_with() {
    let gateway = Gateway::start(|_| ()).await;
    let mut with_id = gateway.stream("", "last-event-id: e-2\r\n").await;
    let mut with_another = gateway.stream("", "last-event-id: nonsense\r\n").await;
    let mut without = gateway.stream("", "").await;
    for client in [&mut with_id, &mut with_another, &mut without] {
        while !client.line().await.unwrap().starts_with("retry: ") {}
    }
    let ended = tokio::spawn(gateway.end());
    assert_eq!(ids_until_end(&mut with_id).await, ["e-2"]);
    assert_eq!(ids_until_end(&mut with_another).await, [""; 0]);
    assert_eq!(ids_until_end(&mut without).await, [""; 0]);
    ended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_head_and_options_and_names_what_it_serves() {
    let (gateway, _daemon, _serving) = gateway_with(1).await;
    for path in [
        "/",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
        "/news",
        "/news/e-1",
        "/sources",
        "/categories",
        "/news/stream",
    ] {
        let head = gateway.ask("HEAD", path, "").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{path}: {head}");
        assert!(!head.contains("content-length: 0"), "{path} has a body: {head}");
        let post = gateway.ask("POST", path, "content-length: 0\r\n").await;
        assert!(
            post.starts_with("HTTP/1.1 405") && post.contains("allow: GET, HEAD, OPTIONS"),
            "{path}: {post}"
        );
        assert!(gateway.ask("OPTIONS", path, "").await.starts_with("HTTP/1.1 204"), "{path}");
        for answer in [head, post] {
            for header in [
                "x-content-type-options: nosniff",
                "content-security-policy: ",
                "referrer-policy: no-referrer",
            ] {
                assert!(answer.contains(header), "{path}: {header}");
            }
            assert!(!answer.contains("access-control-allow-origin"), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_is_refused_and_an_allowed_origin_is_named() {
    let gateway = Gateway::start(|config| {
        config.gateway.cors_origins = vec!["https://reader.example".to_owned()];
    })
    .await;
    let evil = "GET /health HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    gateway.send(evil).await.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    let allowed = gateway.ask("GET", "/health", "origin: https://reader.example\r\n").await;
    assert!(allowed.contains("access-control-allow-origin: https://reader.example"), "{allowed}");
    let other = gateway.ask("GET", "/health", "origin: https://reader.example.evil\r\n").await;
    assert!(!other.contains("access-control-allow-origin"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_the_target_counts_and_not_the_header() {
    let gateway = Gateway::start(|config| config.gateway.hosts = vec!["news.example".to_owned()]).await;
    let status = async |target: &str, hosts: &str| {
        let mut answer = String::new();
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        gateway.send(&request).await.read_to_string(&mut answer).await.unwrap();
        answer.get(9..12).unwrap_or_default().to_owned()
    };
    for (target, host) in [
        ("http://localhost/health", "evil.example"),
        ("http://news.example:8700/health?x=1", "news.example"),
        ("https://NEWS.example/health", ""),
        ("http://127.0.0.1:1/health", "evil.example"),
    ] {
        assert_eq!(status(target, &format!("host: {host}\r\n")).await, "200", "{target} {host}");
    }
    for target in [
        "http://evil.example/health",
        "http://localhost.evil.example/health",
        "http://evil.example:8700/news/stream",
        "http://localhost@evil.example/health",
        "http://evil@localhost/health",
        "ftp://localhost/health",
        "file://localhost/health",
    ] {
        assert_eq!(status(target, "host: localhost\r\n").await, "421", "{target}");
    }
    assert_eq!(status("http://localhost/nowhere", "host: localhost\r\n").await, "404");
    for hosts in ["", "host: localhost\r\nhost: localhost\r\n"] {
        let status = status("http://localhost/health", hosts).await;
        assert!(matches!(status.as_str(), "400" | "421"), "{hosts:?}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served_in_the_format_that_the_client_asks_for() {
    let (gateway, _daemon, _serving) = gateway_with(1).await;
    let metrics = async |accept: &str| gateway.ask("GET", "/metrics", accept).await;
    for accept in ["", "accept: */*\r\n", "accept: text/plain\r\n"] {
        let text = metrics(accept).await;
        assert!(
            text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{accept}: {text}"
        );
        assert!(text.contains("\n# TYPE newswire_gateway_streams_total counter\n"), "{accept}: {text}");
        assert!(text.contains("vary: Accept\r\n") && !text.contains("# EOF"), "{accept}: {text}");
    }
    let text =
        metrics("accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5\r\n")
            .await;
    assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0"), "{text}");
    assert!(
        text.contains("\n# TYPE newswire_gateway_streams counter\n") && text.ends_with("# EOF\n"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_format_of_a_stream_and_of_the_page_is_what_the_client_prefers() {
    let (gateway, _daemon, _serving) = gateway_with(1).await;
    let kind = async |path: &str, accept: &str| {
        let answer = gateway.ask("HEAD", path, &format!("accept: {accept}\r\n")).await;
        let kind = answer.lines().find_map(|line| line.strip_prefix("content-type: "));
        kind.map(str::to_owned).unwrap()
    };
    for (accept, expected) in [
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/x-ndjson, */*;q=0.1", "application/x-ndjson"),
        ("text/event-stream;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("application/x-ndjson;q=0", "text/event-stream"),
        ("application/x-ndjson;q=0.0, */*", "text/event-stream"),
        ("application/x-ndjson;q=0.5, text/event-stream", "text/event-stream"),
        ("application/x-ndjson, text/event-stream", "text/event-stream"),
        ("text/html", "text/event-stream"),
        ("*/*", "text/event-stream"),
    ] {
        assert_eq!(kind("/news/stream", accept).await, expected, "{accept}");
    }
    for (accept, expected) in [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("application/json, text/html;q=0.5", "application/json"),
        ("text/html;q=0, */*", "application/json"),
        ("*/*", "application/json"),
    ] {
        assert_eq!(kind("/", accept).await, expected, "{accept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_causes_in_ready_have_no_paths_and_no_messages_of_the_system() {
    let gateway = Gateway::start(|_| ()).await;
    let reasons = async || {
        let answer = gateway.ask("GET", "/ready", "").await;
        let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        (body["reasons"][0].as_str().unwrap_or_default().to_owned(), answer)
    };
    let until = async |expected: &str| {
        let found = async {
            loop {
                let (first, answer) = reasons().await;
                if first == expected {
                    return answer;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TIMEOUT, found).await.unwrap_or_else(|_| panic!("never {expected:?}"))
    };
    let never = until("the wire is not connected: the ingestion daemon cannot be reached").await;
    let daemon = FakeDaemon::new("e");
    daemon.publish("a");
    let serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    drop(serving);
    let lost = until("the wire is not connected: the connection to the ingestion daemon was lost").await;
    for answer in [never, lost] {
        let directory = gateway.directory.path().to_str().unwrap();
        for inside in [directory, ".sock", "os error", "/tmp", "No such file"] {
            assert!(!answer.contains(inside), "{inside}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_goes_back_page_by_page_and_an_event_has_an_address() {
    let (gateway, _daemon, _serving) = gateway_with(5).await;
    let mut path = "/news?limit=2&source=odd".to_owned();
    let mut ids = Vec::new();
    loop {
        let answer = gateway.ask("GET", &path, "").await;
        let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        ids.extend(body["items"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()));
        match body["next"].as_str() {
            Some(next) => next.clone_into(&mut path),
            None => break,
        }
    }
    assert_eq!(ids, ["e-5", "e-3", "e-1"]);
    assert!(gateway.ask("GET", "/news/e-3", "").await.contains("\"title\":\"Story 3\""));
    for (path, status) in
        [("/news/e-9", 404), ("/news/x-1", 404), ("/news/zzz", 400), ("/news?limit=0", 400), ("/nope", 404)]
    {
        let answer = gateway.ask("GET", path, "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{path}: {answer}");
    }
    let etag = gateway.ask("GET", "/news", "").await;
    let etag = etag.lines().find_map(|l| l.strip_prefix("etag: ")).unwrap().to_owned();
    let again = gateway.ask("GET", "/news", &format!("if-none-match: {etag}\r\n")).await;
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_orders_visits_and_every_client_gets_their_progress() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "a token of many characters").unwrap();
    let gateway = Gateway::start(|config| {
        config.gateway.operator_token_file = Some(token.path().to_owned());
    })
    .await;
    let daemon = FakeDaemon::new("e");
    let serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    let body = "{\"sources\":[\"a\",\"b\",\"x\"]}";
    let post = async |token: &str, body: &str| {
        let headers = format!("content-type: application/json\r\ncontent-length: {}\r\n{token}", body.len());
        let request = format!(
            "POST /news/refresh HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n{body}"
        );
        let mut answer = String::new();
        timeout(TIMEOUT, gateway.send(&request).await.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    };
    assert!(post("", body).await.starts_with("HTTP/1.1 401"));
    assert!(post("authorization: Bearer wrong\r\n", body).await.starts_with("HTTP/1.1 401"));
    let right = "authorization: Bearer a token of many characters\r\n";
    assert!(post(right, "{\"sources\":[]}").await.starts_with("HTTP/1.1 400"));
    assert!(post(right, "{\"source\":\"a\"}").await.starts_with("HTTP/1.1 400"));
    // A body that is right has a type that is not: curl sends the second one unless it is told otherwise.
    for kind in ["", "content-type: application/x-www-form-urlencoded\r\n", "content-type: text/json\r\n"] {
        let headers = format!("{right}{kind}content-length: {}\r\nconnection: close", body.len());
        let request = format!("POST /news/refresh HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n\r\n{body}");
        let mut answer = String::new();
        timeout(TIMEOUT, gateway.send(&request).await.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("bad-parameter"), "{answer}");
        assert!(
            answer.contains("content-type: ") && answer.contains("`Content-Type: application/json`"),
            "{answer}"
        );
    }
    let mut client = gateway.stream("?kinds=refresh", "").await;
    client.hello().await;
    let answer = post(right, body).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let answer: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&answer["total"], &answer["unknown"]), (&2.into(), &serde_json::json!(["x"])));
    for (visited, completed, state) in [("b", 1, "running"), ("a", 2, "complete")] {
        daemon.visited(visited);
        let block = loop {
            let block = client.block().await.unwrap();
            if block[0] == "event: refresh" {
                break block;
            }
        };
        let progress: serde_json::Value =
            serde_json::from_str(block[1].strip_prefix("data: ").unwrap()).unwrap();
        let expected = serde_json::json!({
            "refresh": answer["refresh"], "completed": completed, "total": 2, "state": state,
        });
        assert_eq!(progress, expected);
    }
    drop(serving);
    assert!(post(right, body).await.starts_with("HTTP/1.1 503"), "a dead daemon is not a hang");
    assert!(gateway.ask("GET", "/news/refresh", "").await.contains("allow: POST, OPTIONS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_have_the_same_events_as_the_event_stream() {
    let (gateway, daemon, _serving) = gateway_with(3).await;
    let request =
        "GET /news/stream?snapshot=2 HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\n\r\n";
    let mut client = Client { stream: gateway.send(request).await };
    let mut head = String::new();
    loop {
        let line = client.line().await.unwrap();
        if line.is_empty() {
            break;
        }
        head.push_str(&line);
        head.push('\n');
    }
    assert!(head.contains("content-type: application/x-ndjson"), "{head}");
    let mut next = async || loop {
        let line = client.line().await.unwrap();
        // Chunk sizes are between the lines.
        if line.starts_with('{') {
            break serde_json::from_str::<serde_json::Value>(&line).unwrap();
        }
    };
    let hello = next().await;
    assert_eq!(
        (&hello["event"], &hello["id"], &hello["data"]["head"]),
        (&"stream".into(), &"e-1".into(), &"e-3".into())
    );
    assert!(hello["retry_ms"].is_u64());
    for seq in 2..=3 {
        let item = next().await;
        assert_eq!((&item["event"], &item["id"]), (&"item".into(), &format!("e-{seq}").into()));
        assert_eq!(item["data"]["title"], format!("Story {seq}"));
    }
    let live = next().await;
    assert_eq!((&live["event"], &live["data"]["head"]), (&"live".into(), &"e-3".into()));
    daemon.publish("a");
    assert_eq!(next().await["id"], "e-4");
    let beat = next().await;
    assert_eq!((&beat["event"], &beat["id"]), (&"heartbeat".into(), &"e-4".into()));
    daemon.visited("a");
    let visit = next().await;
    assert_eq!((&visit["event"], &visit["data"]["source"]), (&"source".into(), &"a".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_is_that_of_the_slowest_client_and_filtered_out_events_do_not_count() {
    const LAG: &str = "newswire_gateway_lag_events_max";
    let (gateway, daemon, _serving) = gateway_with(1).await;
    let mut healthy = gateway.stream("?snapshot=0", "").await;
    let mut filtered = gateway.stream("?snapshot=0&source=b", "").await;
    for client in [&mut healthy, &mut filtered] {
        client.hello().await;
    }
    daemon.publish_large(200, 5_000);
    healthy.ids(200).await;
    let until_none = async || {
        let none = async {
            while gateway.number(LAG).await != 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TIMEOUT, none).await.expect("all are waiting for what comes next");
    };
    until_none().await;
    let stuck = gateway.small_stream("?after=e-1").await;
    gateway.until_clients(3, TIMEOUT).await;
    let settled = async {
        let mut lag = 0;
        // Until the socket takes no more.
        while lag == 0 || lag != gateway.number(LAG).await {
            lag = gateway.number(LAG).await;
            sleep(Duration::from_millis(500)).await;
        }
        lag
    };
    let lag = timeout(TIMEOUT, settled).await.expect("it falls behind");
    assert!((50..200).contains(&lag), "what its socket did not take of 200 events: {lag}");
    let health = gateway.ask("GET", "/health", "").await;
    assert!(health.contains(&format!("\"lag_events_max\":{lag}")), "{health}");
    assert!(!health.contains("\"delivered\":0"), "{health}");
    let metrics = gateway.ask("GET", "/metrics", "").await;
    let of_workers =
        metrics.lines().filter(|line| line.starts_with("newswire_gateway_worker_clients{worker="));
    let clients = of_workers.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
    assert_eq!(clients.sum::<usize>(), 3, "each is one worker's: {metrics}");
    drop(stuck);
    gateway.until_clients(2, TIMEOUT).await;
    until_none().await;
}
