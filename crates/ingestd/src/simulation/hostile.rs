//! The cases of the hostile catalogue that need the whole daemon. The others are in
//! crates/fetch/tests/visit/hostile.rs, which lists where each number is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_rt::time::sleep;
use daemon::Clock;
use fetch::schedule::IntervalBounds;
use http::Response;
use news::{SourceId, SourceState, VisitStatus};
use reqwest::{Body, Request};

use super::{MONDAY_MS, Reply, Servers, SimulatedDaemon, directory, id_of, simulate, source};

const FEED: &str = "<rss version='2.0'><channel><title>t</title><link>http://x.example/</link><description>d\
                    </description><item><title>one</title><guid>1</guid></item></channel></rss>";

/// Responses as a function of the source, the number of the request, and whether it is unconditional.
struct ScriptedServer<F> {
    answer: F,
    requests: Mutex<BTreeMap<String, Vec<(i64, bool)>>>,
}

impl<F: Fn(&str, usize, bool) -> Reply + Send + Sync> ScriptedServer<F> {
    fn new(answer: F) -> Arc<Self> {
        Arc::new(Self { answer, requests: Mutex::default() })
    }

    /// When it was requested, and whether without validators.
    fn requests(&self, id: &str) -> Vec<(i64, bool)> {
        self.requests.lock().unwrap().get(id).cloned().unwrap_or_default()
    }
}

impl<F: Fn(&str, usize, bool) -> Reply + Send + Sync> Servers for ScriptedServer<F> {
    fn respond(&self, now_ms: i64, request: &Request) -> Reply {
        let id = id_of(request.url());
        let in_full =
            ["if-none-match", "if-modified-since"].iter().all(|n| !request.headers().contains_key(*n));
        let nth = {
            let mut requests = self.requests.lock().unwrap();
            let requests = requests.entry(id.to_owned()).or_default();
            requests.push((now_ms, in_full));
            requests.len() - 1
        };
        (self.answer)(id, nth, in_full)
    }
}

fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    Reply::After(Duration::from_millis(100), response.body(body.into()).unwrap())
}

/// Runs the daemon for so long with these sources, each on its own host; returns their stored states and the
/// head of the log.
async fn run_daemon(
    servers: Arc<dyn Servers>,
    ids: &[&str],
    length: Duration,
) -> (BTreeMap<String, SourceState>, u64) {
    let clock = Clock::from_tokio(MONDAY_MS);
    let directory = directory();
    let simulated =
        SimulatedDaemon::start(directory.path(), &clock, servers, IntervalBounds::default()).await;
    simulated.apply(ids.iter().map(|id| source(id, &format!("http://{id}.example/{id}"))).collect()).await;
    sleep(length).await;
    let state = |id: &&str| {
        let state = simulated.reader.state(&SourceId::try_new(id).unwrap()).unwrap();
        ((*id).to_owned(), state.unwrap_or_else(|| panic!("{id} was never visited")))
    };
    let states = ids.iter().map(state).collect();
    let head = simulated.reader.head().0;
    simulated.stop().await;
    (states, head)
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a25_a_document_truncated_without_an_error_is_complete_after_the_next_visit() {
    // Close-delimited: for HTTP such a response is complete wherever it ends.
    let feed = FEED.replace("</item>", "</item><item><title>two</title><guid>2</guid></item>");
    let ids: Vec<_> = (1..feed.len()).step_by(16).map(|at| format!("cut{at}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let servers = |cuts: usize| {
        let feed = feed.clone();
        ScriptedServer::new(move |id, nth, _| {
            let at: usize = id.trim_start_matches("cut").parse().unwrap();
            let end = if nth < cuts { at } else { feed.len() };
            response(200, &[("etag", "\"1\"")], feed[..end].to_owned())
        })
    };
    let (states, _) = simulate(run_daemon(servers(1), &ids, Duration::from_secs(60)));
    let mut classes = BTreeSet::new();
    for (id, state) in &states {
        assert_eq!(state.etag, None, "{id}: {state:?}");
        match state.last_error.as_deref() {
            Some(error) => drop(classes.insert(error.split(':').next().unwrap().to_owned())),
            // An item that was complete before the cut is recorded.
            None => assert_eq!(state.last_status, Some(VisitStatus::Partial), "{id}: {state:?}"),
        }
    }
    // A document that ends before its first element could be anything.
    assert!(
        classes.contains("truncated")
            && classes.is_subset(&["truncated", "not-a-feed"].map(str::to_owned).into())
    );
    let (states, head) = simulate(run_daemon(servers(1), &ids, HOUR));
    assert_eq!(head, 2 * ids.len() as u64, "every item, once");
    assert!(states.values().all(|state| state.etag.as_deref() == Some("\"1\"")));
    // A feed that always ends there is not truncated: it is accepted the second time.
    let (states, _) = simulate(run_daemon(servers(usize::MAX), &ids[ids.len() - 1..], HOUR));
    assert!(states.values().all(|state| state.etag.as_deref() == Some("\"1\"")), "{states:?}");
}

#[test]
fn a29_a_server_with_wrong_validators_gets_a_request_without_them_once_a_day() {
    let servers = ScriptedServer::new(|id, nth, in_full| {
        let same_etag = [("etag", "\"1\"")];
        match id {
            // Answers 304 although everything is new.
            "always-304" if in_full => {
                response(200, &same_etag, FEED.replace("<guid>1", &format!("<guid>{nth}")))
            }
            "always-304" => response(304, &same_etag, ""),
            // Another ETag for the same bytes each time.
            "new-etag" => response(200, &[("etag", &format!("\"{nth}\""))], FEED),
            // The same ETag for other bytes.
            "old-etag" => response(200, &same_etag, FEED.replace("<guid>1", &format!("<guid>{nth}"))),
            // A 304 to an unconditional request.
            _ => response(304, &[], ""),
        }
    });
    let ids = ["always-304", "new-etag", "old-etag", "only-304"];
    let seen = Arc::clone(&servers);
    let (states, _) = simulate(run_daemon(servers, &ids, HOUR * 73));
    let in_full = seen.requests("always-304").iter().filter(|(_, in_full)| *in_full).count();
    assert!((3..=4).contains(&in_full), "{in_full} in three days");
    assert_eq!(states["always-304"].counts.items, in_full as u64, "and so no new item is missed");
    assert_eq!(states["new-etag"].counts.items, 1);
    assert_eq!(states["new-etag"].counts.unchanged + 1, states["new-etag"].counts.visits);
    assert_eq!(states["old-etag"].counts.items, states["old-etag"].counts.visits);
    let error = states["only-304"].last_error.as_deref().unwrap();
    assert!(error.starts_with("bad-http: "), "{error}");
}

#[test]
fn a30_a_response_that_is_not_a_feed_is_classified_and_the_feed_recovers() {
    const BODIES: [(&str, &str, &str); 8] = [
        ("html", "text/html", "<!DOCTYPE html><html><head><title>t</title></head><body>Hello</body></html>"),
        (
            "login",
            "text/html",
            "<html><body><form action='/login'><input type=password></form></body></html>",
        ),
        ("parking", "text/html; charset=utf-8", "<html><script>location='//ads.example'</script></html>"),
        ("json", "application/json", "{\"error\":\"not found\"}"),
        ("image", "image/png", "\u{89}PNG\r\n\u{1a}\n\0\0\0\rIHDR"),
        ("empty", "application/rss+xml", ""),
        ("spaces", "application/rss+xml", " \n\n "),
        ("text", "text/plain", "Too many connections"),
    ];
    let servers = ScriptedServer::new(|id, nth, _| {
        let (_, content_type, body) = BODIES.iter().find(|(name, _, _)| *name == id).unwrap();
        match nth {
            1..=3 => response(200, &[("content-type", content_type), ("etag", "\"wrong\"")], *body),
            _ => response(200, &[("etag", "\"right\"")], FEED),
        }
    });
    let ids = BODIES.map(|(name, _, _)| name);
    let seen = Arc::clone(&servers);
    let (states, head) = simulate(run_daemon(servers, &ids, HOUR * 24));
    assert_eq!(head, ids.len() as u64, "one item each, once");
    for id in ids {
        let state = &states[id];
        assert_eq!((state.counts.errors, state.last_error.as_deref()), (3, None), "{id}");
        assert_eq!(state.etag.as_deref(), Some("\"right\""), "{id}");
        let times: Vec<_> = seen.requests(id).iter().map(|(at, _)| *at).collect();
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[2] > gaps[1] * 3 / 2 && gaps[3] > gaps[2] * 3 / 2, "{id} backs off: {gaps:?}");
    }
    let servers = ScriptedServer::new(|id, _, _| {
        let (_, content_type, body) = BODIES.iter().find(|(name, _, _)| *name == id).unwrap();
        response(200, &[("content-type", content_type)], *body)
    });
    let (states, head) = simulate(run_daemon(servers, &ids, Duration::from_secs(60)));
    assert_eq!(head, 0);
    for id in ids {
        let error = states[id].last_error.as_deref().unwrap_or_default();
        assert!(error.starts_with("not-a-feed: "), "{id}: {error}");
    }
}

/// How many milliseconds after it was due each source was first requested, sorted; of the sources that `of` selects.
fn lags(plan: &BTreeMap<String, i64>, first: &BTreeMap<String, i64>, of: impl Fn(&str) -> bool) -> Vec<i64> {
    let late =
        |(id, due): (&String, &i64)| first.get(id).unwrap_or_else(|| panic!("{id} was never visited")) - due;
    let mut lags: Vec<_> = plan.iter().filter(|(id, _)| of(id)).map(late).collect();
    lags.sort_unstable();
    lags
}

/// Starts the daemon; returns when each source was due, and when it was first requested.
async fn first_visits<F: Fn(&str, usize, bool) -> Reply + Send + Sync + 'static>(
    servers: Arc<ScriptedServer<F>>,
    sources: Vec<(String, String)>,
    interval_bounds: IntervalBounds,
    length: Duration,
) -> (BTreeMap<String, i64>, BTreeMap<String, i64>) {
    let clock = Clock::from_tokio(MONDAY_MS);
    let directory = directory();
    let simulated = SimulatedDaemon::start(
        directory.path(),
        &clock,
        Arc::clone(&servers) as Arc<dyn Servers>,
        interval_bounds,
    )
    .await;
    simulated.apply(sources.iter().map(|(id, url)| source(id, url)).collect()).await;
    let due = |entry: Arc<crate::status::registry::SourceEntry>| {
        (
            entry.source.id.to_string(),
            entry.state().next_visit.expect("every new source has a first visit").millis(),
        )
    };
    let plan = simulated.registry.entries().into_iter().map(due).collect();
    sleep(length).await;
    simulated.stop().await;
    let requests = servers.requests.lock().unwrap();
    (plan, requests.iter().map(|(id, times)| (id.clone(), times[0].0)).collect())
}

#[test]
fn a31_feeds_of_which_one_in_twenty_hangs_start_within_a_minute_of_their_due_time() {
    // A fifth of 100,000 in a fifth of the time: as many per second, and as many that hang at the same time.
    const FEEDS: usize = 20_000;
    let interval_bounds =
        IntervalBounds { interval_min: Duration::from_secs(60), ..IntervalBounds::default() };
    let hangs = |id: &str| id.ends_with("hangs");
    let servers = ScriptedServer::new(move |id, _, _| {
        if hangs(id) { Reply::Hang } else { response(200, &[("cache-control", "max-age=86400")], FEED) }
    });
    let name = |n: usize| format!("feed{n}{}", if n % 20 == 7 { "hangs" } else { "" });
    let sources = (0..FEEDS).map(name).map(|id| (id.clone(), format!("http://{id}.example/{id}"))).collect();
    let (plan, first) = simulate(first_visits(servers, sources, interval_bounds, Duration::from_secs(180)));
    let all = lags(&plan, &first, |_| true);
    let (p99, last) = (all[all.len() * 99 / 100], all[all.len() - 1]);
    println!("{FEEDS} feeds: p99 of the start lag {p99} ms, the last {last} ms");
    assert_eq!(all.len(), FEEDS);
    assert!(p99 <= 60_000, "{p99} ms");
}

#[test]
fn a_host_that_hangs_for_ever_delays_no_first_item_of_another_host() {
    const FEEDS: usize = 300;
    let hangs = |id: &str| id.starts_with("hangs");
    let servers =
        ScriptedServer::new(move |id, _, _| if hangs(id) { Reply::Hang } else { response(200, &[], FEED) });
    // The dead host is first in the catalogue, and has more feeds than the process has slots.
    let dead =
        (0..FEEDS).map(|n| format!("hangs{n}")).map(|id| (id.clone(), format!("http://dead.example/{id}")));
    let others =
        (0..FEEDS).map(|n| format!("lives{n}")).map(|id| (id.clone(), format!("http://{id}.example/{id}")));
    let sources: Vec<_> = dead.chain(others).collect();
    let seen = Arc::clone(&servers);
    let (interval_bounds, length) = (IntervalBounds::default(), Duration::from_secs(120));
    let (plan, first) = simulate(first_visits(servers, sources, interval_bounds, length));
    let others: BTreeMap<_, _> = plan.into_iter().filter(|(id, _)| !hangs(id)).collect();
    let lags = lags(&others, &first, |_| true);
    assert_eq!(lags.len(), FEEDS);
    // A visit starts when it is due, within the resolution of the timers.
    assert!(lags[FEEDS - 1] <= 10, "{lags:?}");
    let waits = (0..FEEDS).filter(|n| seen.requests(&format!("hangs{n}")).is_empty()).count();
    assert!(waits > FEEDS / 2, "only two at a time hang at the dead host, {waits} still wait");
}

#[test]
fn a_gone_feed_is_asked_again_days_apart_and_returns_with_its_items() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let servers = ScriptedServer::new(|_, nth, _| match nth {
        0 => response(200, &[], FEED),
        1..=4 => response(410, &[], ""),
        _ => response(
            200,
            &[],
            FEED.replace("</item>", "</item><item><title>two</title><guid>2</guid></item>"),
        ),
    });
    let head = simulate(async {
        let clock = Clock::from_tokio(MONDAY_MS);
        let (directory, mut head) = (directory(), 0);
        // With restarts in between, which must not ask it.
        for days in [3, 6, 16] {
            let servers = Arc::clone(&servers) as Arc<dyn Servers>;
            let simulated =
                SimulatedDaemon::start(directory.path(), &clock, servers, IntervalBounds::default()).await;
            simulated.apply(vec![source("feed", "http://feed.example/feed")]).await;
            sleep(DAY * days).await;
            head = simulated.reader.head().0;
            simulated.stop().await;
        }
        head
    });
    assert_eq!(head, 2, "both items, once");
    let at: Vec<_> = servers.requests("feed").iter().map(|(at, _)| *at).collect();
    let days: Vec<_> = at.windows(2).map(|pair| (pair[1] - pair[0]) / 86_400_000).collect();
    assert_eq!(days[..5], [0, 0, 0, 7, 14], "{days:?}");
    assert!(days[5..].iter().all(|days| *days < 1), "as before: {days:?}");
}

#[test]
fn a_server_that_asks_for_five_seconds_again_and_again_is_asked_ever_more_rarely() {
    let servers = ScriptedServer::new(|_, nth, _| match nth {
        0 => response(200, &[], FEED),
        _ => response(503, &[("retry-after", "5")], ""),
    });
    simulate(run_daemon(Arc::clone(&servers) as Arc<dyn Servers>, &["busy"], HOUR * 24));
    let at: Vec<_> = servers.requests("busy").iter().map(|(at, _)| *at).collect();
    let waits: Vec<_> = at.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect();
    assert!((5..12).contains(&waits.len()), "{waits:?}");
    assert!(
        waits.windows(2).all(|pair| pair[1] * 10 > pair[0] * 15),
        "each half as long again at least: {waits:?}"
    );
}
