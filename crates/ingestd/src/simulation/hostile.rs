//! The cases of the hostile catalogue that need the whole daemon; the others are in crates/fetch/tests/visit/hostile.rs, which
//! says where each number is.

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

/// Answers as a function of the source, of how often it was asked, and of whether validators came along.
struct Script<F> {
    answer: F,
    asked: Mutex<BTreeMap<String, Vec<(i64, bool)>>>,
}

impl<F: Fn(&str, usize, bool) -> Reply + Send + Sync> Script<F> {
    fn new(answer: F) -> Arc<Self> {
        Arc::new(Self { answer, asked: Mutex::default() })
    }

    /// When it was asked, and whether for everything.
    fn asked(&self, id: &str) -> Vec<(i64, bool)> {
        self.asked.lock().unwrap().get(id).cloned().unwrap_or_default()
    }
}

impl<F: Fn(&str, usize, bool) -> Reply + Send + Sync> Servers for Script<F> {
    fn respond(&self, now_ms: i64, request: &Request) -> Reply {
        let id = id_of(request.url());
        let in_full =
            ["if-none-match", "if-modified-since"].iter().all(|n| !request.headers().contains_key(*n));
        let nth = {
            let mut asked = self.asked.lock().unwrap();
            let asked = asked.entry(id.to_owned()).or_default();
            asked.push((now_ms, in_full));
            asked.len() - 1
        };
        (self.answer)(id, nth, in_full)
    }
}

fn say(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    Reply::After(Duration::from_millis(100), response.body(body.into()).unwrap())
}

/// Lives so long with these sources, each on a host of its own, and gives what the store remembers of them.
async fn live(
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
fn a25_what_was_cut_off_without_a_sign_is_had_at_the_next_visit() {
    // Close-delimited: for HTTP such an answer is complete wherever it ends.
    let feed = FEED.replace("</item>", "</item><item><title>two</title><guid>2</guid></item>");
    let ids: Vec<_> = (1..feed.len()).step_by(16).map(|at| format!("cut{at}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let servers = |cuts: usize| {
        let feed = feed.clone();
        Script::new(move |id, nth, _| {
            let at: usize = id.trim_start_matches("cut").parse().unwrap();
            let end = if nth < cuts { at } else { feed.len() };
            say(200, &[("etag", "\"1\"")], feed[..end].to_owned())
        })
    };
    let (states, _) = simulate(live(servers(1), &ids, Duration::from_secs(60)));
    let mut classes = BTreeSet::new();
    for (id, state) in &states {
        assert_eq!(state.etag, None, "{id}: {state:?}");
        match state.last_error.as_deref() {
            Some(error) => drop(classes.insert(error.split(':').next().unwrap().to_owned())),
            // What stood complete before the cut is an item like any other.
            None => assert_eq!(state.last_status, Some(VisitStatus::Partial), "{id}: {state:?}"),
        }
    }
    // What ends before its first element could be anything.
    assert!(
        classes.contains("truncated")
            && classes.is_subset(&["truncated", "not-a-feed"].map(str::to_owned).into())
    );
    let (states, head) = simulate(live(servers(1), &ids, HOUR));
    assert_eq!(head, 2 * ids.len() as u64, "every item, once");
    assert!(states.values().all(|state| state.etag.as_deref() == Some("\"1\"")));
    // A feed that always ends there is no cut one: the second time it is believed.
    let (states, _) = simulate(live(servers(usize::MAX), &ids[ids.len() - 1..], HOUR));
    assert!(states.values().all(|state| state.etag.as_deref() == Some("\"1\"")), "{states:?}");
}

#[test]
fn a29_whoever_lies_about_what_is_new_is_asked_for_everything_once_a_day() {
    let servers = Script::new(|id, nth, in_full| {
        let same_etag = [("etag", "\"1\"")];
        match id {
            // Says for ever that nothing is new; everything is new.
            "always-304" if in_full => say(200, &same_etag, FEED.replace("<guid>1", &format!("<guid>{nth}"))),
            "always-304" => say(304, &same_etag, ""),
            // Another name for the same bytes each time.
            "new-etag" => say(200, &[("etag", &format!("\"{nth}\""))], FEED),
            // The same name for other bytes.
            "old-etag" => say(200, &same_etag, FEED.replace("<guid>1", &format!("<guid>{nth}"))),
            // A 304 that nobody asked for.
            _ => say(304, &[], ""),
        }
    });
    let ids = ["always-304", "new-etag", "old-etag", "only-304"];
    let seen = Arc::clone(&servers);
    let (states, _) = simulate(live(servers, &ids, HOUR * 73));
    let in_full = seen.asked("always-304").iter().filter(|(_, in_full)| *in_full).count();
    assert!((3..=4).contains(&in_full), "{in_full} in three days");
    assert_eq!(states["always-304"].counts.items, in_full as u64, "and so everything new is had");
    assert_eq!(states["new-etag"].counts.items, 1);
    assert_eq!(states["new-etag"].counts.unchanged + 1, states["new-etag"].counts.visits);
    assert_eq!(states["old-etag"].counts.items, states["old-etag"].counts.visits);
    let error = states["only-304"].last_error.as_deref().unwrap();
    assert!(error.starts_with("bad-http: "), "{error}");
}

#[test]
fn a30_what_is_no_feed_is_named_so_and_the_feed_comes_back_when_it_does() {
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
    let servers = Script::new(|id, nth, _| {
        let (_, content_type, body) = BODIES.iter().find(|(name, _, _)| *name == id).unwrap();
        match nth {
            1..=3 => say(200, &[("content-type", content_type), ("etag", "\"wrong\"")], *body),
            _ => say(200, &[("etag", "\"right\"")], FEED),
        }
    });
    let ids = BODIES.map(|(name, _, _)| name);
    let seen = Arc::clone(&servers);
    let (states, head) = simulate(live(servers, &ids, HOUR * 24));
    assert_eq!(head, ids.len() as u64, "one item each, once");
    for id in ids {
        let state = &states[id];
        assert_eq!((state.counts.errors, state.last_error.as_deref()), (3, None), "{id}");
        assert_eq!(state.etag.as_deref(), Some("\"right\""), "{id}");
        let times: Vec<_> = seen.asked(id).iter().map(|(at, _)| *at).collect();
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[2] > gaps[1] * 3 / 2 && gaps[3] > gaps[2] * 3 / 2, "{id} backs off: {gaps:?}");
    }
    let servers = Script::new(|id, _, _| {
        let (_, content_type, body) = BODIES.iter().find(|(name, _, _)| *name == id).unwrap();
        say(200, &[("content-type", content_type)], *body)
    });
    let (states, head) = simulate(live(servers, &ids, Duration::from_secs(60)));
    assert_eq!(head, 0);
    for id in ids {
        let error = states[id].last_error.as_deref().unwrap_or_default();
        assert!(error.starts_with("not-a-feed: "), "{id}: {error}");
    }
}

/// How late each source was first asked, in milliseconds after its turn, sorted; those that `of` wants.
fn lags(plan: &BTreeMap<String, i64>, first: &BTreeMap<String, i64>, of: impl Fn(&str) -> bool) -> Vec<i64> {
    let late =
        |(id, due): (&String, &i64)| first.get(id).unwrap_or_else(|| panic!("{id} was never visited")) - due;
    let mut lags: Vec<_> = plan.iter().filter(|(id, _)| of(id)).map(late).collect();
    lags.sort_unstable();
    lags
}

/// Starts with sources that are due at the times of the board, and says when each was due and when it was first asked.
async fn first_visits<F: Fn(&str, usize, bool) -> Reply + Send + Sync + 'static>(
    servers: Arc<Script<F>>,
    sources: Vec<(String, String)>,
    pace: IntervalBounds,
    length: Duration,
) -> (BTreeMap<String, i64>, BTreeMap<String, i64>) {
    let clock = Clock::from_tokio(MONDAY_MS);
    let directory = directory();
    let simulated =
        SimulatedDaemon::start(directory.path(), &clock, Arc::clone(&servers) as Arc<dyn Servers>, pace)
            .await;
    simulated.apply(sources.iter().map(|(id, url)| source(id, url)).collect()).await;
    let due = |entry: Arc<crate::status::registry::SourceEntry>| {
        (entry.source.id.to_string(), entry.state().next_visit.expect("every new source has a turn").millis())
    };
    let plan = simulated.registry.entries().into_iter().map(due).collect();
    sleep(length).await;
    simulated.stop().await;
    let asked = servers.asked.lock().unwrap();
    (plan, asked.iter().map(|(id, times)| (id.clone(), times[0].0)).collect())
}

#[test]
fn a31_feeds_of_which_one_in_twenty_hangs_start_within_a_minute_of_their_turn() {
    // A fifth of 100,000 in a fifth of the time: as many a second, and as many that hang at a time.
    const FEEDS: usize = 20_000;
    let pace = IntervalBounds { interval_min: Duration::from_secs(60), ..IntervalBounds::default() };
    let hangs = |id: &str| id.ends_with("hangs");
    let servers = Script::new(move |id, _, _| {
        if hangs(id) { Reply::Hang } else { say(200, &[("cache-control", "max-age=86400")], FEED) }
    });
    let name = |n: usize| format!("feed{n}{}", if n % 20 == 7 { "hangs" } else { "" });
    let sources = (0..FEEDS).map(name).map(|id| (id.clone(), format!("http://{id}.example/{id}"))).collect();
    let (plan, first) = simulate(first_visits(servers, sources, pace, Duration::from_secs(180)));
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
    let servers = Script::new(move |id, _, _| if hangs(id) { Reply::Hang } else { say(200, &[], FEED) });
    // The dead host comes first in the catalogue, and has more feeds than the process has places.
    let dead =
        (0..FEEDS).map(|n| format!("hangs{n}")).map(|id| (id.clone(), format!("http://dead.example/{id}")));
    let living =
        (0..FEEDS).map(|n| format!("lives{n}")).map(|id| (id.clone(), format!("http://{id}.example/{id}")));
    let sources: Vec<_> = dead.chain(living).collect();
    let seen = Arc::clone(&servers);
    let (pace, length) = (IntervalBounds::default(), Duration::from_secs(120));
    let (plan, first) = simulate(first_visits(servers, sources, pace, length));
    let living: BTreeMap<_, _> = plan.into_iter().filter(|(id, _)| !hangs(id)).collect();
    let lags = lags(&living, &first, |_| true);
    assert_eq!(lags.len(), FEEDS);
    // A visit starts at its turn, give or take the grain of the timers.
    assert!(lags[FEEDS - 1] <= 10, "{lags:?}");
    let waits = (0..FEEDS).filter(|n| seen.asked(&format!("hangs{n}")).is_empty()).count();
    assert!(waits > FEEDS / 2, "only two at a time hang at the dead host, {waits} still wait");
}
