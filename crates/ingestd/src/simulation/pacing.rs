//! Redirects that lead to one host, as its server sees them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_rt::time::sleep;
use daemon::Clock;
use fetch::schedule::IntervalBounds;
use http::Response;
use news::{Source, SourceId, SourceState, VisitStatus};
use reqwest::{Body, Request};

use super::{MONDAY_MS, Reply, Servers, SimulatedDaemon, directory, id_of, simulate, source};

const LATENCY: Duration = Duration::from_millis(100);
const CDN: &str = "cdn.example";
const MINUTE_MS: i64 = 60_000;

type Answer = Box<dyn Fn(i64, &str, &Request) -> (u16, String) + Send + Sync>;

/// Titles of the items of the feed with an id.
type Items = Box<dyn Fn(i64, &str) -> Vec<String> + Send + Sync>;

/// Answers by time, host and request: a status and header lines. Every request is recorded with its time.
pub(super) struct RecordingServers {
    requests: Mutex<BTreeMap<String, Vec<(i64, String)>>>,
    answer: Answer,
    items: Items,
}

impl RecordingServers {
    pub(super) fn new(
        answer: impl Fn(i64, &str, &Request) -> (u16, String) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::with_items(answer, |_, id| vec![id.to_owned()])
    }

    pub(super) fn with_items(
        answer: impl Fn(i64, &str, &Request) -> (u16, String) + Send + Sync + 'static,
        items: impl Fn(i64, &str) -> Vec<String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { requests: Mutex::default(), answer: Box::new(answer), items: Box::new(items) })
    }

    /// Of a host: when, and the id of the source.
    pub(super) fn requests(&self, host: &str) -> Vec<(i64, String)> {
        self.requests.lock().unwrap().get(host).cloned().unwrap_or_default()
    }
}

impl Servers for RecordingServers {
    fn respond(&self, now_ms: i64, request: &Request) -> Reply {
        let host = request.url().host_str().unwrap().to_owned();
        let id = id_of(request.url()).to_owned();
        let (status, lines) = (self.answer)(now_ms - MONDAY_MS, &host, request);
        let items = (self.items)(now_ms - MONDAY_MS, &id);
        self.requests.lock().unwrap().entry(host).or_default().push((now_ms - MONDAY_MS, id.clone()));
        let body = match status {
            200 => {
                let items: String = items
                    .iter()
                    .map(|title| format!("<item><title>{title}</title><guid>{title}</guid></item>"))
                    .collect();
                format!(
                    "<rss version='2.0'><channel><title>t</title><link>http://x.example/</link>{items}</channel></rss>"
                )
            }
            _ => String::new(),
        };
        let mut response = Response::builder().status(status);
        for (name, value) in lines.lines().filter_map(|line| line.split_once(": ")) {
            response = response.header(name, value);
        }
        Reply::After(LATENCY, response.body(Body::from(body)).unwrap())
    }
}

/// To the same path at another host.
pub(super) fn found(host: &str, request: &Request) -> (u16, String) {
    (302, format!("location: http://{host}{}", request.url().path()))
}

/// Sources that each have a host of their own.
pub(super) fn sources(name: &str, ids: std::ops::Range<usize>) -> Vec<Source> {
    ids.map(|n| source(&format!("{name}-{n}"), &format!("http://{name}-{n}.example/{name}-{n}"))).collect()
}

async fn start(store: &std::path::Path, clock: &Clock, servers: &Arc<RecordingServers>) -> SimulatedDaemon {
    let servers = Arc::clone(servers) as Arc<dyn Servers>;
    SimulatedDaemon::start(store, clock, servers, IntervalBounds::default()).await
}

pub(super) fn state(daemon: &SimulatedDaemon, id: &str) -> SourceState {
    daemon.reader.state(&SourceId::try_new(id).unwrap()).unwrap().unwrap_or_default()
}

pub(super) fn gaps(requests: &[(i64, String)]) -> Vec<i64> {
    requests.windows(2).map(|two| two[1].0 - two[0].0).collect()
}

#[test]
fn thirty_sources_that_redirect_to_one_host_are_spaced_there() {
    let servers = RecordingServers::new(|_, host, request| match host {
        CDN => (200, String::new()),
        _ => found(CDN, request),
    });
    let recorded = Arc::clone(&servers);
    let (states, waiting) = simulate(async move {
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let daemon = start(directory.path(), &clock, &servers).await;
        daemon.apply(sources("front", 0..30)).await;
        sleep(Duration::from_secs(10)).await;
        let waiting = daemon.registry.get("front-29").unwrap().full_status();
        sleep(Duration::from_secs(50)).await;
        let states: Vec<_> = (0..30).map(|n| state(&daemon, &format!("front-{n}"))).collect();
        daemon.stop().await;
        (states, waiting)
    });
    let fronts: Vec<_> =
        (0..30).flat_map(|n| recorded.requests(&format!("front-{n}.example"))).map(|(at, _)| at).collect();
    assert!(fronts.len() == 30 && fronts.iter().all(|at| *at < 1000), "no front waits: {fronts:?}");
    let there = recorded.requests(CDN);
    assert_eq!(there.len(), 30, "{there:?}");
    assert!(gaps(&there).iter().all(|gap| (1000..1100).contains(gap)), "{there:?}");
    assert!(there[29].0 - there[0].0 >= 29_000, "{there:?}");
    assert_eq!(waiting.activity, "waiting");
    assert_eq!(waiting.waiting_for.as_deref(), Some("visits to cdn.example:80 start at least 1s apart"));
    for (n, state) in states.iter().enumerate() {
        assert_eq!(state.last_status, Some(VisitStatus::New), "{n}: {state:?}");
        assert!(
            state.last_took_ms.unwrap() < 500,
            "a visit does not take longer because it waits for a host: {n}: {state:?}"
        );
    }
}

/// The name of a public host: `.example` is no known suffix.
const PUBLIC_CDN: &str = "cdn.example.net";

#[test]
fn the_429_of_a_target_holds_all_who_lead_there_and_survives_a_restart() {
    held_by_a_target(PUBLIC_CDN, "example.net");
}

#[test]
fn the_429_of_a_private_target_does_as_well() {
    held_by_a_target(CDN, "cdn.example:80");
    held_by_a_target("bridge", "bridge:80");
}

fn held_by_a_target(cdn: &'static str, limited_host: &str) {
    let servers = RecordingServers::new(move |now_ms, host, request| match host {
        host if host != cdn => found(cdn, request),
        _ if now_ms < 5 * MINUTE_MS => (429, "retry-after: 1800".to_owned()),
        _ => (200, String::new()),
    });
    let recorded = Arc::clone(&servers);
    let (held, late, served) = simulate(async move {
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let daemon = start(directory.path(), &clock, &servers).await;
        daemon.apply(sources("front", 0..30)).await;
        sleep(Duration::from_secs(600)).await;
        let held: Vec<_> = (0..30).map(|n| state(&daemon, &format!("front-{n}"))).collect();
        daemon.stop().await;
        let daemon = start(directory.path(), &clock, &servers).await;
        // One more, which has never been told of the pause.
        daemon.apply(sources("front", 0..31)).await;
        sleep(Duration::from_secs(60)).await;
        let late = state(&daemon, "front-30");
        sleep(Duration::from_secs(3 * 3600)).await;
        let served: Vec<_> = (0..31).map(|n| state(&daemon, &format!("front-{n}"))).collect();
        daemon.stop().await;
        (held, late, served)
    });
    let there: Vec<_> = recorded.requests(cdn);
    let early: Vec<_> = there.iter().filter(|(at, _)| *at < 1800 * 1000).collect();
    assert_eq!(early.len(), 1, "one request was answered 429, none followed: {early:?}");
    let asked_first = &early[0].1;
    for (n, state) in held.iter().enumerate() {
        assert_eq!(state.last_status, Some(VisitStatus::Throttled), "{n}: {state:?}");
        assert!(state.next_visit.unwrap().millis() - MONDAY_MS >= 1800 * 1000, "{n}: {state:?}");
        let error = state.last_error.as_deref().unwrap();
        let names_it = error
            .contains(&format!("the feed redirects: {limited_host} asked for a pause, which is over in"));
        assert!(names_it || *asked_first == format!("front-{n}"), "{n}: {error}");
    }
    assert_eq!(late.last_status, Some(VisitStatus::Throttled), "{late:?}");
    assert_eq!(late.last_code, Some(302), "{late:?}");
    assert!(
        served.iter().all(|state| state.last_status == Some(VisitStatus::Unchanged)
            || state.last_status == Some(VisitStatus::New)),
        "{served:?}"
    );
    assert!(gaps(&there[1..]).iter().all(|gap| *gap >= 1000), "{there:?}");
}

#[test]
fn a_host_that_closes_while_others_wait_for_it_sends_them_away() {
    // The tenth request is the last one that is answered.
    let servers = RecordingServers::new(|now_ms, host, request| match host {
        PUBLIC_CDN if (9_000..1_000_000).contains(&now_ms) => (503, "retry-after: 900".to_owned()),
        PUBLIC_CDN => (200, String::new()),
        _ => found(PUBLIC_CDN, request),
    });
    let recorded = Arc::clone(&servers);
    let states = simulate(async move {
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let daemon = start(directory.path(), &clock, &servers).await;
        daemon.apply(sources("front", 0..30)).await;
        sleep(Duration::from_secs(15)).await;
        let states: Vec<_> = (0..30).map(|n| state(&daemon, &format!("front-{n}"))).collect();
        daemon.stop().await;
        states
    });
    let there = recorded.requests(PUBLIC_CDN);
    assert!((10..=12).contains(&there.len()), "{there:?}");
    let throttled = states.iter().filter(|state| state.last_status == Some(VisitStatus::Throttled)).count();
    assert_eq!(throttled, 30 - (there.len() - 1), "those in the queue have ended: {there:?}");
}

#[test]
fn redirects_in_a_circle_end_and_are_spaced_as_well() {
    let servers = RecordingServers::new(|_, host, request| match host {
        "a.example" => found("b.example", request),
        _ => found("a.example", request),
    });
    let recorded = Arc::clone(&servers);
    let ids: Vec<_> = (0..20).map(|n| format!("circle-{n}")).collect();
    let catalogue = ids.iter().enumerate().map(|(n, id)| {
        let host = if n % 2 == 0 { "a" } else { "b" };
        source(id, &format!("http://{host}.example/{id}"))
    });
    let catalogue: Vec<_> = catalogue.collect();
    let states = simulate(async move {
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let daemon = start(directory.path(), &clock, &servers).await;
        daemon.apply(catalogue).await;
        sleep(Duration::from_secs(240)).await;
        let states: Vec<_> = ids.iter().map(|id| state(&daemon, id)).collect();
        daemon.stop().await;
        states
    });
    for state in states {
        let error = state.last_error.unwrap_or_default();
        assert!(error.starts_with("redirect: the redirects form a loop at"), "{error}");
    }
    for host in ["a.example", "b.example"] {
        let requests = recorded.requests(host);
        assert_eq!(requests.len(), 20, "{requests:?}");
        assert!(gaps(&requests).iter().all(|gap| *gap >= 1000), "{requests:?}");
    }
}

/// The gaps between the visits of 200 sources, while so many others redirect to one host: the 99th percentile.
fn gap_beside(crowd: usize) -> i64 {
    let servers = RecordingServers::new(|_, host, request| match host {
        host if host.starts_with("front") => found(CDN, request),
        _ => (200, String::new()),
    });
    let recorded = Arc::clone(&servers);
    simulate(async move {
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let daemon = start(directory.path(), &clock, &servers).await;
        let mut catalogue = [sources("other", 0..200), sources("front", 0..crowd)].concat();
        for source in &mut catalogue {
            source.every = Some(Duration::from_secs(300));
        }
        daemon.apply(catalogue).await;
        sleep(Duration::from_secs(1500)).await;
        daemon.stop().await;
    });
    let others = (0..200).map(|n| recorded.requests(&format!("other-{n}.example")));
    let mut all: Vec<_> = others.flat_map(|requests| gaps(&requests)).collect();
    all.sort_unstable();
    let there = recorded.requests(CDN);
    assert!(gaps(&there).iter().all(|gap| *gap >= 1000));
    let expected = if crowd == 0 { 0 } else { 1300 };
    assert!(there.len() >= expected, "{} requests: the host is asked without a break", there.len());
    assert!(all.len() >= 600, "{}", all.len());
    all[all.len() * 99 / 100]
}

#[test]
fn a_thousand_hosts_that_redirect_to_one_delay_no_other() {
    let (alone, beside) = (gap_beside(0), gap_beside(1000));
    println!(
        "the 99th percentile of the gaps: {alone} ms alone, {beside} ms beside 1,000 sources of one host"
    );
    assert!((beside - alone).abs() <= 1500, "{alone} ms alone, {beside} ms");
}
