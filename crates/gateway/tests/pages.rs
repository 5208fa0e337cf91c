//! Pages, lists and metrics over real sockets: walks over the whole history, and answers that delay no other client.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "tests may block")]
#![allow(clippy::print_stdout, reason = "tests print what they measured")]

#[path = "support/answer.rs"]
mod answer;
#[path = "support/harness.rs"]
mod harness;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use answer::{body, header, status};
use harness::{Endpoint, FakeDaemon, Gateway, Serving, TIMEOUT, gateway_with};
use news::Item;
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

async fn get(endpoint: &Endpoint, path: &str) -> Value {
    let answer = endpoint.ask("GET", path, "").await;
    assert_eq!(status(&answer), 200, "{path}: {answer}");
    body(&answer)
}

fn numbers(page: &Value) -> Vec<u64> {
    let number = |item: &Value| item["id"].as_str().unwrap().strip_prefix("e-").unwrap().parse().unwrap();
    page["items"].as_array().unwrap().iter().map(number).collect()
}

/// Follows `next` to the end; `between` is called before every page but the first.
async fn walk(endpoint: &Endpoint, path: &str, mut between: impl FnMut()) -> Vec<u64> {
    let mut path = path.to_owned();
    let mut all = Vec::new();
    for _ in 0..10_000 {
        let page = get(endpoint, &path).await;
        all.extend(numbers(&page));
        let Some(next) = page["next"].as_str() else { return all };
        next.clone_into(&mut path);
        between();
    }
    panic!("{path} never ends");
}

/// A log of `events`, of which the ring holds the newest `ring`.
async fn log_and_ring(events: usize, ring: usize) -> (Gateway, FakeDaemon, Serving) {
    harness::gateway_and_log(events, |config| config.gateway.ring_events = ring).await
}

fn down(from: u64, to: u64) -> Vec<u64> {
    (to..=from).rev().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_over_the_whole_history_has_no_hole_and_nothing_twice() {
    let (gateway, _daemon, _serving) = log_and_ring(700, 60).await;
    for limit in [7, 50, 60, 61, 699, 700, 1000] {
        let all = walk(&gateway, &format!("/news?limit={limit}"), || ()).await;
        assert_eq!(all, down(700, 1), "limit={limit}");
    }
    let even = walk(&gateway, "/news?limit=9&source=even", || ()).await;
    assert_eq!(even, down(700, 1).into_iter().filter(|n| n % 2 == 0).collect::<Vec<_>>());
    assert_eq!(walk(&gateway, "/news?q=story+123", || ()).await, [123], "a word that only the log has");
    assert_eq!(walk(&gateway, "/news?q=nowhere", || ()).await, [0; 0]);
    assert_eq!(walk(&gateway, "/news?limit=30&before=e-50", || ()).await, down(49, 1));
    assert_eq!(get(&gateway, "/news").await["oldest"], "e-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_and_since_end_a_walk_in_the_ring_and_below_it() {
    let (gateway, _daemon, _serving) = log_and_ring(300, 60).await;
    for after in [0, 1, 100, 239, 240, 241, 299, 300] {
        let all = walk(&gateway, &format!("/news?limit=40&after=e-{after}"), || ()).await;
        assert_eq!(all, down(300, after + 1), "after {after}");
        // Event n was recorded n seconds after 1970.
        let since = format!("1970-01-01T00:{:02}:{:02}Z", after / 60, after % 60);
        let all = walk(&gateway, &format!("/news?limit=40&since={since}"), || ()).await;
        assert_eq!(all, down(300, after.max(1)), "since {since}");
    }
    let between = walk(&gateway, "/news?limit=40&before=e-200&after=e-150&source=odd", || ()).await;
    assert_eq!(between, down(199, 151).into_iter().filter(|n| n % 2 == 1).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_beyond_the_head_is_of_another_log_as_the_stream_says() {
    let (gateway, daemon, _serving) = log_and_ring(100, 10).await;
    for path in [
        "/news?after=e-101",
        "/news?after=e-999999&limit=5",
        "/news?before=e-101",
        "/news?before=e-18446744073709551615",
        "/news?before=e-50&after=e-999999",
        "/news?before=e-999999&after=e-50&q=nowhere",
    ] {
        let answer = gateway.ask("GET", path, "if-none-match: *\r\n").await;
        assert_eq!((status(&answer), body(&answer)["code"].as_str()), (410, Some("other-log")), "{path}");
    }
    for (path, newest) in [("/news?after=e-100", None), ("/news?before=e-100&limit=1", Some(99))] {
        assert_eq!(numbers(&get(&gateway, path).await).first().copied(), newest, "{path}");
    }
    daemon.publish("a");
    let arrived = async {
        while status(&gateway.ask("GET", "/news?after=e-101", "").await) != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, arrived).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_is_right_while_events_arrive_and_retention_removes_the_oldest() {
    let (gateway, daemon, _serving) = log_and_ring(500, 60).await;
    let (log, oldest) = (daemon.clone(), daemon.oldest.clone());
    let mut pages = 0;
    let all = walk(&gateway, "/news?limit=20", || {
        (0..5).for_each(|_| log.publish("new"));
        pages += 1;
        // The walk is at 500 - 20 n then, and meets the oldest at about 200.
        oldest.store(1 + 13 * pages, Relaxed);
    })
    .await;
    let last = *all.last().unwrap();
    assert_eq!(all, down(500, last), "no hole, nothing twice, nothing new");
    assert!((180..=215).contains(&last), "it ends where the log begins: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_below_the_ring_has_an_address_until_retention_removes_it() {
    let (gateway, daemon, _serving) = log_and_ring(100, 10).await;
    daemon.oldest.store(20, Relaxed);
    for (path, expected) in [
        ("/news/e-100", 200),
        ("/news/e-50", 200),
        ("/news/e-20", 200),
        ("/news/e-19", 410),
        ("/news/e-101", 404),
    ] {
        let answer = gateway.ask("GET", path, "").await;
        assert_eq!(status(&answer), expected, "{path}: {answer}");
    }
    for (path, missed) in [
        ("/news?after=e-10&limit=100", 9),
        ("/news?after=e-19&limit=100", 0),
        ("/news?after=e-95", 0),
        ("/news?limit=100", 0),
    ] {
        assert_eq!(get(&gateway, path).await["missed"], missed, "{path}");
    }
    let event = get(&gateway, "/news/e-50").await;
    assert_eq!((event["id"].as_str(), event["title"].as_str()), (Some("e-50"), Some("Story 50")));
    daemon.mute.store(true, Relaxed);
    let answer = gateway.ask("GET", "/news/e-50", "").await;
    assert_eq!((status(&answer), body(&answer)["code"].as_str()), (503, Some("no-daemon")));
    assert!(header(&answer, "retry-after").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_ring_is_served_and_a_page_below_it_is_an_error() {
    let (gateway, daemon, serving) = log_and_ring(100, 30).await;
    daemon.mute.store(true, Relaxed);
    drop(serving);
    let mut path = "/news?limit=20".to_owned();
    let mut all = Vec::new();
    let refused = loop {
        let answer = gateway.ask("GET", &path, "").await;
        if status(&answer) != 200 {
            break answer;
        }
        let page = body(&answer);
        all.extend(numbers(&page));
        page["next"].as_str().expect("the log goes on").clone_into(&mut path);
        if all.len() == 30 {
            assert!(header(&answer, "etag").is_none(), "it is shorter than it could be");
        }
    };
    assert_eq!(all, down(100, 71));
    assert_eq!((status(&refused), body(&refused)["code"].as_str()), (503, Some("no-daemon")), "{refused}");
    assert!(header(&refused, "retry-after").is_some());
    daemon.mute.store(false, Relaxed);
    let _serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    assert_eq!(walk(&gateway, &path, || ()).await, down(70, 1), "the walk goes on where it stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_at_most_a_mebibyte_of_events_and_at_least_one() {
    let (gateway, daemon, _serving) = gateway_with(0).await;
    daemon.publish_large(40, 60_000);
    // Nearly the largest that the wire carries, and with its escapes more than a page has.
    daemon.publish_item("a", Item { summary: "x".repeat(1_040_000), ..Item::default() });
    daemon.publish("a");
    while numbers(&get(&gateway, "/news?limit=1").await) != [42] {
        sleep(Duration::from_millis(10)).await;
    }
    let mut path = "/news?limit=1000".to_owned();
    let mut sizes = Vec::new();
    let mut all = Vec::new();
    loop {
        let answer = gateway.ask("GET", &path, "").await;
        let page = body(&answer);
        sizes.push(answer.len());
        all.extend(numbers(&page));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut path),
            None => break,
        }
    }
    assert_eq!(all, down(42, 1));
    assert!(sizes.iter().all(|size| *size < 1024 * 1024 + 2000), "{sizes:?}");
    assert!(sizes.len() >= 4, "{sizes:?}");
}

/// Connections that ask and do not read.
async fn lazy(endpoint: &Endpoint, path: &str, n: usize) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..n {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(endpoint.address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        connections.push(stream);
    }
    connections
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_clients_do_not_read_are_bounded_and_released_with_them() {
    const UNSENT: &str = "newswire_gateway_unsent_bytes";
    const REFUSED: &str = "newswire_gateway_unsent_refused_total{reason=\"address\"}";
    let (gateway, daemon, _serving) = gateway_with(0).await;
    daemon.publish_large(20, 60_000);
    while numbers(&get(&gateway, "/news?limit=1").await) != [20] {
        sleep(Duration::from_millis(10)).await;
    }
    let connections = lazy(&gateway, "/news?limit=1000", 60).await;
    let refused = async {
        while gateway.number(REFUSED).await == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, refused).await.expect("one address has a quarter of the budget");
    let unsent = gateway.number(UNSENT).await;
    assert!((8 << 20..=(16 << 20)).contains(&unsent), "{unsent}");
    assert_eq!(status(&gateway.ask("GET", "/health", "").await), 200);
    drop(connections);
    let released = async {
        while gateway.number(UNSENT).await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, released).await.expect("all of it is released");
    assert_eq!(numbers(&get(&gateway, "/news?limit=1").await), [20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_addresses_do_not_read_another_one_gets_its_page() {
    let (gateway, daemon, _serving) = gateway_with(0).await;
    daemon.publish_large(20, 60_000);
    while numbers(&get(&gateway, "/news?limit=1").await) != [20] {
        sleep(Duration::from_millis(10)).await;
    }
    let mut hostile = Vec::new();
    for n in 0..40_u8 {
        for _ in 0..24 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.bind(([127, 0, 1, n], 0).into()).unwrap();
            let mut stream = socket.connect(gateway.address).await.unwrap();
            let request = b"GET /news?limit=1000 HTTP/1.1\r\nhost: localhost\r\n\r\n";
            stream.write_all(request).await.unwrap();
            hostile.push(stream);
        }
    }
    sleep(Duration::from_secs(2)).await;
    let unsent = gateway.number("newswire_gateway_unsent_bytes").await;
    assert!((32 << 20..=64 << 20).contains(&unsent), "they take what they get: {unsent}");
    for _ in 0..20 {
        assert_eq!(numbers(&get(&gateway, "/news?limit=1").await), [20]);
        // A larger page is shorter, and continues where it ends.
        let page = get(&gateway, "/news?limit=1000").await;
        let first = numbers(&page);
        assert!(!first.is_empty() && first[0] == 20, "{first:?}");
        assert_eq!(page["next"].is_string(), first.len() < 20, "{first:?}");
    }
}

fn sources(n: usize) -> Vec<Value> {
    (0..n).map(|n| FakeDaemon::health(&format!("source-{n:05}"), &format!("category-{}", n % 7))).collect()
}

async fn with_sources(n: usize) -> (Gateway, FakeDaemon, Serving) {
    let gateway = Gateway::start(|_| ()).await;
    let daemon = FakeDaemon::new("e");
    daemon.publish("a");
    *daemon.sources.lock().unwrap() = sources(n);
    let serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    let loaded = async {
        while status(&gateway.ask("GET", "/sources?limit=1", "").await) != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT * 3, loaded).await.expect("the sources are loaded");
    (gateway, daemon, serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_over_the_sources_gets_each_once_and_an_unchanged_list_costs_a_304() {
    let (gateway, daemon, _serving) = with_sources(2_500).await;
    for limit in ["", "?limit=900", "?limit=99999"] {
        let mut path = format!("/sources{limit}");
        let mut ids = Vec::new();
        let mut pages = 0;
        loop {
            let page = get(&gateway, &path).await;
            ids.extend(
                page["sources"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()),
            );
            pages += 1;
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut path),
                None => break,
            }
        }
        let expected: Vec<_> = (0..2_500).map(|n| format!("source-{n:05}")).collect();
        assert_eq!((ids, pages), (expected, 3), "{limit}");
    }
    let categories = get(&gateway, "/categories").await;
    assert_eq!(categories["categories"].as_array().unwrap().len(), 7);
    assert_eq!(categories["categories"][0], serde_json::json!({"category": "category-0", "sources": 358}));
    assert_eq!(
        get(&gateway, "/categories?limit=3&after=category-3").await["categories"][0]["category"],
        "category-4"
    );
    for path in ["/sources", "/categories"] {
        let first = gateway.ask("GET", path, "").await;
        let etag = format!("if-none-match: {}\r\n", header(&first, "etag").unwrap());
        let again = gateway.ask("GET", path, &etag).await;
        assert_eq!(status(&again), 304, "{path}");
        assert_eq!(header(&again, "cache-control"), header(&first, "cache-control"), "{path}");
        daemon.visited_in(&format!("source-new-{}", path.len()), "new");
        let changed = async {
            while status(&gateway.ask("GET", path, &etag).await) == 304 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TIMEOUT, changed).await.expect("a change is seen");
    }
    for query in ["limit=0", "limit=x", &"a".repeat(3000)] {
        assert!(status(&gateway.ask("GET", &format!("/sources?{query}"), "").await) >= 400, "{query}");
    }
}

/// The slowest of many answers of each endpoint while `flood` runs: of the one that is flooded, and of an idle twin at the
/// same moments.
async fn slowest_of(
    endpoints: [Endpoint; 2],
    (path, headers): (&str, &str),
    flood: impl Future<Output = ()>,
) -> [Duration; 2] {
    let mut slowest = [Duration::ZERO; 2];
    let timed = async |endpoint: Endpoint| {
        let began = Instant::now();
        assert_eq!(status(&endpoint.ask("GET", path, headers).await), 200);
        began.elapsed()
    };
    let probe = async {
        loop {
            let (flooded, twin) = tokio::join!(timed(endpoints[0]), timed(endpoints[1]));
            slowest = [slowest[0].max(flooded), slowest[1].max(twin)];
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = probe => unreachable!("it never ends"),
        () = flood => {}
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lists_of_20_000_sources_does_not_hold_health_up() {
    let (gateway, _daemon, _serving) = with_sources(20_000).await;
    let endpoint = gateway.endpoint;
    let flood = async move {
        let asked: Vec<_> = (0..1_000)
            .map(|_| tokio::spawn(async move { status(&endpoint.ask("GET", "/sources", "").await) }))
            .collect();
        let mut served = 0;
        for answer in asked {
            match answer.await.unwrap() {
                200 => served += 1,
                429 | 503 => {}
                status => panic!("{status}"),
            }
        }
        assert!(served > 0);
    };
    let (twin, _twin_daemon, _twin_serving) = gateway_with(1).await;
    let [slowest, of_twin] = slowest_of([endpoint, twin.endpoint], ("/health", ""), flood).await;
    // Before, the lists were made by the workers: a /health waited for all of them, 10 s and more.
    assert!(slowest < of_twin * 2 + Duration::from_secs(1), "{slowest:?}, and the twin {of_twin:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_that_find_nothing_do_not_hold_up_a_page_of_another_address() {
    let gateway = Gateway::start(|config| config.gateway.trusted_proxies = vec!["127.0.0.1/32".into()]).await;
    let daemon = FakeDaemon::new("e");
    daemon.publish_large(2_000, 20_000);
    let _serving = daemon.serve(gateway.socket());
    gateway.until_ready().await;
    let endpoint = gateway.endpoint;
    let words: String = (1..32).map(|n| format!("+nothing{n}")).collect();
    let search = format!("/news?q=x{words}");
    let flood = async {
        let all: Vec<_> = (0..64)
            .map(|_| {
                let search = search.clone();
                tokio::spawn(
                    async move { endpoint.ask("GET", &search, "x-forwarded-for: 192.0.2.1\r\n").await },
                )
            })
            .collect();
        let mut refused = 0;
        for answer in all {
            let answer = answer.await.unwrap();
            match status(&answer) {
                200 => assert!(numbers(&body(&answer)).is_empty()),
                429 => {
                    assert_eq!(body(&answer)["code"], "too-many-requests");
                    assert!(header(&answer, "retry-after").is_some());
                    refused += 1;
                }
                status => panic!("{status}"),
            }
        }
        assert!(refused > 0, "one address has few searches at the same time");
    };
    let (twin, _twin_daemon, _twin_serving) = gateway_with(2_000).await;
    let page = ("/news?limit=1", "x-forwarded-for: 192.0.2.2\r\n");
    assert_eq!(numbers(&body(&endpoint.ask("GET", page.0, page.1).await)), [2_000]);
    let [slowest, of_twin] = slowest_of([endpoint, twin.endpoint], page, flood).await;
    assert!(slowest < of_twin * 2 + Duration::from_secs(1), "{slowest:?}, and the twin {of_twin:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_made_few_times_per_second_and_are_never_older_than_the_request() {
    let (gateway, _daemon, _serving) = gateway_with(1).await;
    let began = Instant::now();
    for n in 1..=4 {
        let _stream = gateway.stream("", "").await;
        assert_eq!(gateway.number("newswire_gateway_streams_total").await, n);
    }
    assert!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_the_page_have_an_etag_of_their_content() {
    let (gateway, _daemon, _serving) = gateway_with(0).await;
    let mut etags = Vec::new();
    for (path, accept) in [
        ("/", "accept: text/html\r\n"),
        ("/assets/app.js", ""),
        ("/assets/style.css", ""),
        ("/openapi.json", ""),
    ] {
        let answer = gateway.ask("GET", path, accept).await;
        let etag = header(&answer, "etag").unwrap_or_else(|| panic!("{path}: {answer}"));
        assert!(etag.starts_with('"'), "{path}: {etag}");
        let again = gateway.ask("GET", path, &format!("{accept}if-none-match: {etag}\r\n")).await;
        assert_eq!(status(&again), 304, "{path}");
        // A browser's cache takes over the headers of a 304; with another policy the page would not run.
        for name in ["cache-control", "content-security-policy", "vary", "etag", "content-type"] {
            assert_eq!(header(&again, name), header(&answer, name), "{path}: {name}");
        }
        let other = gateway.ask("GET", path, &format!("{accept}if-none-match: \"other\"\r\n")).await;
        assert_eq!(status(&other), 200, "{path}");
        etags.push(etag.to_owned());
    }
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), 4);
    let json = gateway.ask("GET", "/", "").await;
    assert_eq!((status(&json), header(&json, "etag")), (200, None), "other clients get JSON");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_page_is_also_a_link_of_the_head() {
    let (gateway, _daemon, _serving) = gateway_with(3).await;
    let answer = gateway.ask("GET", "/news?limit=2&q=%22", "").await;
    let next = body(&answer)["next"].as_str().map(|next| format!("<{next}>; rel=\"next\""));
    assert_eq!(header(&answer, "link"), next.as_deref(), "{answer}");
    let first = gateway.ask("GET", "/news?limit=2", "").await;
    assert_eq!(header(&first, "link"), Some("</news?limit=2&before=e-2>; rel=\"next\""), "{first}");
    let last = gateway.ask("GET", "/news?limit=3", "").await;
    assert_eq!((header(&last, "link"), &body(&last)["next"]), (None, &Value::Null), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_the_ring_cannot_fill_goes_on_in_the_log() {
    let (gateway, daemon, _serving) = log_and_ring(112, 10).await;
    for (query, first, all) in [
        ("?snapshot=3&source=even", 108, 3),
        ("?snapshot=8&source=even", 98, 8),
        ("?snapshot=70&source=even", 2, 56),
        ("?snapshot=30", 83, 30),
        ("?q=story+44", 44, 1),
        ("?q=nowhere", 0, 0),
    ] {
        let mut client = gateway.stream(&format!("{query}&kinds=item"), "").await;
        assert_eq!(client.hello().await["resume"], "live", "{query}");
        let mut ids = Vec::new();
        loop {
            let block = client.block().await.unwrap();
            if block.contains(&"event: live".to_owned()) {
                break;
            }
            ids.extend(block[0].strip_prefix("id: e-").map(|n| n.parse::<u64>().unwrap()));
        }
        assert_eq!((ids.first().copied().unwrap_or(0), ids.len()), (first, all), "{query}: {ids:?}");
        assert!(ids.is_sorted_by(|a, b| a < b), "{query}: {ids:?}");
    }
    daemon.mute.store(true, Relaxed);
    let began = Instant::now();
    let mut client = gateway.stream("?snapshot=8&source=even&kinds=item", "").await;
    assert_eq!(client.hello().await["resume"], "live");
    assert_eq!(client.ids(1).await, ["e-104"], "what the ring has, after {:?}", began.elapsed());
}
