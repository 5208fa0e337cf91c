//! Hubs and their pushes, on simulated time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_rt::time::sleep;
use daemon::Clock;
use fetch::schedule::IntervalBounds;
use news::{HubSubscription, PushState, Source};
use reqwest::Method;

use super::{
    MONDAY_MS, Servers, SimulatedDaemon, directory,
    pacing::{RecordingServers, gaps, sources},
    simulate, source,
};
use crate::websub::messages::{
    AcceptPush, CallbackSecret, IntentAnswer, LookupSecret, PushResult, VerifyIntent,
};

const HOUR_MS: i64 = 3_600_000;
/// When the pushes to a feed begin.
const BEGAN_MS: i64 = 960_000;
/// A host that can be held.
const HUB: &str = "hub.example.net";
/// A source that its server, which is that of the feed, asks to wait.
const BUSY: &str = "busy";

async fn start(store: &std::path::Path, clock: &Clock, servers: &Arc<RecordingServers>) -> SimulatedDaemon {
    let servers = Arc::clone(servers) as Arc<dyn Servers>;
    let bounds = IntervalBounds::default();
    SimulatedDaemon::start_with(store, clock, servers, bounds, Some("https://news.example")).await
}

/// The header of a feed with this hub.
fn names_hub(hub: &str) -> (u16, String) {
    (200, format!("link: <http://{hub}/hub>; rel=\"hub\""))
}

/// Feeds at hosts of their own, all with a hub at one host, or one that redirects there.
fn hub_requests(redirects: bool) -> (Vec<i64>, Vec<String>) {
    let servers = RecordingServers::new(move |now_ms, host, request| match host {
        HUB if (10_000..HOUR_MS).contains(&now_ms) => (429, "retry-after: 3600".to_owned()),
        HUB => (202, String::new()),
        _ if *request.method() == Method::POST => (307, format!("location: http://{HUB}/hub")),
        _ if redirects => names_hub(&host.replace("feed", "hub")),
        _ => names_hub(HUB),
    });
    let recorded = Arc::clone(&servers);
    let errors = simulate(async move {
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let daemon = start(directory.path(), &clock, &servers).await;
        daemon.apply(sources("feed", 0..30)).await;
        sleep(Duration::from_secs(60)).await;
        let subscription = |n| {
            let entry = daemon.registry.get(&format!("feed-{n}")).unwrap();
            entry.websub().unwrap().subscription.unwrap()
        };
        let errors = (0..30).filter_map(|n| subscription(n).error).collect();
        sleep(Duration::from_secs(2 * 3600)).await;
        // No callback is there to verify.
        assert!((0..30).all(|n| subscription(n).state == PushState::Failed || subscription(n).tries > 0));
        daemon.stop().await;
        errors
    });
    (recorded.requests(HUB).into_iter().map(|(at, _)| at).collect(), errors)
}

#[test]
fn hub_requests_to_one_host_are_paced_and_wait_for_its_retry_after() {
    for redirects in [false, true] {
        let (requests, errors) = hub_requests(redirects);
        let pairs: Vec<_> = requests.iter().map(|at| (*at, String::new())).collect();
        assert!(gaps(&pairs).iter().all(|gap| *gap >= 1000), "{requests:?}");
        let before = requests.iter().filter(|at| **at < 10_000).count();
        assert!((5..=10).contains(&before), "{requests:?}");
        let refused = requests[before];
        let after: Vec<_> = requests[before + 1..].iter().filter(|at| **at < refused + HOUR_MS).collect();
        // Two requests to a host may be in flight.
        assert!(after.iter().all(|at| **at < refused + 2_000) && after.len() <= 1, "{requests:?}");
        assert!(requests.len() >= 30, "all are asked afterwards: {requests:?}");
        assert!(errors.len() >= 18, "{errors:?}");
        let names_it = |error: &&String| {
            error.contains(": the hub was not asked: example.net asked for a pause, which is over in")
        };
        assert!(errors.iter().filter(names_it).count() >= 18, "{errors:?}");
        let refused = "http-status: the hub answered 429 and asked for a pause of 1h";
        assert!(
            errors.iter().any(|error| error.starts_with("at 20") && error.ends_with(refused)),
            "{errors:?}"
        );
    }
}

/// A feed with a hub that has as many items as it is told, and a daemon that is subscribed to it.
struct PushedFeed {
    daemon: SimulatedDaemon,
    clock: Clock,
    /// When the pushes to it begin.
    began_ms: i64,
    /// How many items the feed has.
    items: Arc<AtomicUsize>,
    servers: Arc<RecordingServers>,
    directory: tempfile::TempDir,
}

impl PushedFeed {
    /// `status` of the feed by time; anything but 200 has a `Retry-After` of an hour. [`BUSY`] always asks for ten minutes.
    async fn start(change: impl Fn(&mut Source), status: fn(i64) -> u16) -> Self {
        let items = Arc::new(AtomicUsize::new(1));
        let published = Arc::clone(&items);
        let servers = RecordingServers::with_items(
            move |now_ms, _, request| match *request.method() {
                Method::POST => (202, String::new()),
                _ if request.url().path().ends_with(BUSY) => (429, "retry-after: 600".to_owned()),
                _ if status(now_ms) != 200 => (status(now_ms), "retry-after: 3600".to_owned()),
                _ => names_hub(HUB),
            },
            move |_, _| (0..published.load(Ordering::Relaxed)).rev().map(|n| format!("item-{n}")).collect(),
        );
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let daemon = start(directory.path(), &clock, &servers).await;
        let mut catalogue = sources("feed", 0..1);
        change(&mut catalogue[0]);
        daemon.apply(catalogue).await;
        sleep(Duration::from_secs(10)).await;
        let mut feed = Self { daemon, clock, began_ms: 0, items, servers, directory };
        assert!(feed.verify(864_000).await);
        // Visits pause for twice as long each time: more than 5 minutes ago was one, and the next comes in minutes. So the first
        // push is looked at at once.
        feed.began_ms = BEGAN_MS;
        feed.sleep_until(0).await;
        feed
    }

    /// The hub verifies the subscription for so many seconds.
    async fn verify(&self, lease_s: u64) -> bool {
        let subscription = self.subscription();
        let verify = VerifyIntent {
            id: subscription.id.reveal().to_owned(),
            mode: "subscribe".to_owned(),
            topic: subscription.topic.reveal().to_owned(),
            lease: Some(Duration::from_secs(lease_s)),
            reason: String::new(),
        };
        self.daemon.websub.as_ref().unwrap().send(verify).await.unwrap() == IntentAnswer::Confirmed
    }

    async fn restart(self, every: Duration) -> Self {
        let clock = self.clock.clone();
        self.restart_at(clock, every).await
    }

    async fn restart_at(mut self, clock: Clock, every: Duration) -> Self {
        self.daemon.stop().await;
        self.clock = clock;
        self.daemon = start(self.directory.path(), &self.clock, &self.servers).await;
        let mut catalogue = sources("feed", 0..1);
        catalogue[0].every = Some(every);
        self.daemon.apply(catalogue).await;
        self
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_millis() - MONDAY_MS
    }

    /// Seconds since the pushes began.
    async fn sleep_until(&self, s: i64) {
        let left = self.began_ms + s * 1000 - self.now_ms();
        sleep(Duration::from_millis(left.try_into().unwrap())).await;
    }

    fn subscription(&self) -> HubSubscription {
        self.daemon.registry.get("feed-0").unwrap().websub().unwrap().subscription.unwrap()
    }

    async fn push(&self) -> PushResult {
        let id = self.subscription().id.reveal().to_owned();
        self.daemon.websub.as_ref().unwrap().send(AcceptPush(id)).await.unwrap()
    }

    fn publish(&self) {
        self.items.fetch_add(1, Ordering::Relaxed);
    }

    /// Items that were recorded.
    fn recorded(&self) -> u64 {
        self.daemon.registry.get("feed-0").unwrap().state().counts.items
    }

    fn why(&self) -> String {
        self.daemon.registry.get("feed-0").unwrap().state().why
    }

    /// Visits since the pushes began, in seconds.
    fn visits(&self) -> Vec<i64> {
        let all = self.servers.requests("feed-0.example");
        let since = all.iter().filter(|(at, id)| *at >= self.began_ms && id == "feed-0");
        since.map(|(at, _)| (at - self.began_ms) / 1000).collect()
    }
}

#[test]
fn a_hub_that_pushes_all_the_time_makes_no_more_visits_than_interval_min_allows() {
    let visits = simulate(async {
        let feed = PushedFeed::start(|_| {}, |_| 200).await;
        let mut taken = 0;
        for n in 0..360 {
            feed.sleep_until(n * 10).await;
            taken += u64::from(feed.push().await == PushResult::Taken);
        }
        assert!((9..=14).contains(&taken), "{taken} of 360 pushes");
        let visits = feed.visits();
        feed.daemon.stop().await;
        visits
    });
    // A visit and the look after it, then a pause of interval_min.
    let firsts: Vec<_> = visits.iter().step_by(2).copied().collect();
    assert!(firsts.windows(2).all(|two| (330..=365).contains(&(two[1] - two[0]))), "{visits:?}");
    let looks = visits.windows(2).step_by(2).map(|two| two[1] - two[0]);
    assert!(looks.clone().all(|wait| (30..=61).contains(&wait)), "{visits:?}");
    assert!((18..=24).contains(&visits.len()), "{visits:?}");
}

#[test]
fn a_push_makes_no_visit_before_every_and_is_not_lost() {
    const SIX_HOURS: i64 = 6 * 3600;
    let (visits, found) = simulate(async {
        let every = Duration::from_secs(6 * 3600);
        let feed = PushedFeed::start(|source| source.every = Some(every), |_| 200).await;
        feed.publish();
        assert_eq!(feed.push().await, PushResult::Taken);
        feed.sleep_until(60).await;
        assert_eq!(feed.visits(), [0], "the first is immediate, and has found it");
        let first = feed.subscription();
        assert_eq!(first.last_fruitful_push, first.last_push);
        for n in 1..=10 {
            feed.sleep_until(n * 600).await;
            let expected = if n == 1 { PushResult::Taken } else { PushResult::Coalesced };
            assert_eq!(feed.push().await, expected);
        }
        feed.sleep_until(SIX_HOURS + 600).await;
        let found = feed.subscription();
        let visits = feed.visits();
        feed.daemon.stop().await;
        (visits, found)
    });
    // The ordinary visit comes a little sooner, and is the one for the pushes.
    assert!(visits.len() == 3 && (SIX_HOURS - 120..SIX_HOURS + 5).contains(&visits[1]), "{visits:?}");
    assert!((30..=61).contains(&(visits[2] - visits[1])), "the second look: {visits:?}");
    assert_eq!(found.last_fruitful_push, None, "{found:?}");
}

#[test]
fn an_item_that_the_feed_has_after_the_push_is_found_by_the_second_look() {
    simulate(async {
        let feed = PushedFeed::start(|_| {}, |_| 200).await;
        assert_eq!(feed.push().await, PushResult::Taken);
        feed.sleep_until(10).await;
        assert_eq!(feed.visits(), [0]);
        assert!(!feed.why().contains("hub pushes"), "{}", feed.why());
        feed.publish();
        feed.sleep_until(70).await;
        let (visits, subscription) = (feed.visits(), feed.subscription());
        assert!(visits.len() == 2 && (30..=61).contains(&visits[1]), "{visits:?}");
        assert_eq!(subscription.state, PushState::Verified, "the hub had announced it");
        assert_eq!(subscription.last_fruitful_push, subscription.last_push);
        feed.daemon.stop().await;
    });
}

#[test]
fn pushes_stretch_the_pause_only_while_they_announce_something() {
    simulate(async {
        let feed = PushedFeed::start(|_| {}, |_| 200).await;
        let mut pushed = 0;
        for n in 0..3 {
            pushed += i32::from(feed.push().await == PushResult::Taken);
            feed.sleep_until((n + 1) * 600).await;
            assert!(!feed.why().contains("hub pushes"), "{}", feed.why());
        }
        assert_eq!((pushed, feed.subscription().last_fruitful_push), (3, None));
        feed.publish();
        feed.push().await;
        feed.sleep_until(1900).await;
        assert!(feed.subscription().last_fruitful_push.is_some());
        feed.sleep_until(4 * 3600).await;
        assert!(feed.why().starts_with("hub pushes: twice the usual interval"), "{}", feed.why());
        feed.push().await;
        feed.sleep_until(4 * 3600 + 120).await;
        assert!(!feed.why().contains("hub pushes"), "the last one announced nothing: {}", feed.why());
        feed.daemon.stop().await;
    });
}

#[test]
fn an_empty_push_soon_after_one_with_news_ends_the_longer_pause_too() {
    simulate(async {
        let feed = PushedFeed::start(|_| {}, |_| 200).await;
        feed.publish();
        feed.push().await;
        feed.sleep_until(10).await;
        // The same once more.
        feed.push().await;
        feed.sleep_until(400).await;
        assert!(feed.why().starts_with("hub pushes: twice the usual interval"), "{}", feed.why());
        feed.daemon.stop().await;
    });
    simulate(async {
        let feed = PushedFeed::start(|_| {}, |_| 200).await;
        feed.publish();
        feed.push().await;
        feed.sleep_until(30).await;
        feed.push().await;
        feed.sleep_until(325).await;
        assert_eq!(feed.visits().len(), 2, "{:?}", feed.visits());
        assert!(!feed.why().contains("hub pushes"), "{}", feed.why());
        feed.sleep_until(400).await;
        assert!(feed.visits().len() == 3 && !feed.why().contains("hub pushes"), "{}", feed.why());
        feed.daemon.stop().await;
    });
}

#[test]
fn a_server_that_asked_for_a_pause_is_not_visited_for_a_push() {
    let (visits, last) = simulate(async {
        // From the time of the push on.
        let feed = PushedFeed::start(|_| {}, |now_ms| if now_ms >= BEGAN_MS { 429 } else { 200 }).await;
        assert_eq!(feed.push().await, PushResult::Taken);
        feed.sleep_until(100).await;
        let last = feed.push().await;
        feed.sleep_until(1200).await;
        let visits = feed.visits();
        feed.daemon.stop().await;
        (visits, last)
    });
    assert_eq!((visits, last), (vec![0], PushResult::Held), "no second look, and no other push");
}

#[test]
fn a_push_that_waits_survives_a_restart() {
    simulate(async {
        let every = Duration::from_secs(6 * 3600);
        let mut feed = PushedFeed::start(|source| source.every = Some(every), |_| 200).await;
        feed.publish();
        feed.push().await;
        feed.sleep_until(600).await;
        assert_eq!(feed.push().await, PushResult::Taken);
        feed.sleep_until(700).await;
        feed = feed.restart(every).await;
        let six_hours = 6 * 3600;
        feed.sleep_until(six_hours + 100).await;
        let visits = feed.visits();
        assert!(visits.len() == 3 && (six_hours - 120..six_hours + 5).contains(&visits[1]), "{visits:?}");
        assert!((30..=61).contains(&(visits[2] - visits[1])), "the second look for it: {visits:?}");
        feed.daemon.stop().await;
    });
}

#[test]
fn the_second_look_survives_a_restart_and_the_status_shows_it() {
    simulate(async {
        let every = Duration::from_secs(6 * 3600);
        let mut feed = PushedFeed::start(|source| source.every = Some(every), |_| 200).await;
        assert_eq!(feed.push().await, PushResult::Taken);
        feed.sleep_until(4).await;
        for _ in 0..2 {
            let status = feed.daemon.registry.get("feed-0").unwrap().status();
            assert_eq!(status.why, "one more look for a push");
            let wait = status.next_visit.unwrap().millis() - MONDAY_MS - feed.began_ms;
            assert!((30_000..=61_000).contains(&wait), "{wait}");
            feed = feed.restart(every).await;
        }
        feed.sleep_until(300).await;
        feed = feed.restart(every).await;
        feed.sleep_until(3600).await;
        let visits = feed.visits();
        assert!(visits.len() == 2 && (30..=61).contains(&visits[1]), "{visits:?}");
        assert!(!feed.daemon.registry.get("feed-0").unwrap().status().why.contains("push"));
        feed.daemon.stop().await;
    });
}

#[test]
fn a_push_right_after_an_ordinary_visit_waits_for_interval_min() {
    let visits = simulate(async {
        let every = Duration::from_secs(300);
        let feed = PushedFeed::start(|source| source.every = Some(every), |_| 200).await;
        let mut seen = 0;
        while feed.now_ms() < BEGAN_MS + HOUR_MS {
            sleep(Duration::from_secs(1)).await;
            if feed.visits().len() > seen {
                seen = feed.visits().len();
                sleep(Duration::from_secs(4)).await;
                feed.push().await;
            }
        }
        let visits = feed.visits();
        feed.daemon.stop().await;
        visits
    });
    let gaps: Vec<_> = visits.windows(2).map(|two| two[1] - two[0]).collect();
    let is_second_look = |gap: &i64| (30..=61).contains(gap);
    assert!(gaps.len() > 10, "{visits:?}");
    assert!(gaps.iter().all(|gap| is_second_look(gap) || *gap >= 299), "{gaps:?}");
    assert!(gaps.windows(2).all(|two| !two.iter().all(is_second_look)), "{gaps:?}");
}

#[test]
fn a_lease_is_renewed_before_it_ends_but_a_hub_is_not_asked_all_the_time() {
    for (lease_s, pause_s) in [(1800, 1110..1292), (700, 600..602), (1, 600..602)] {
        let requests = simulate(async move {
            let feed = PushedFeed::start(|_| {}, |_| 200).await;
            feed.verify(lease_s).await;
            let mut answered = feed.servers.requests(HUB).len();
            while feed.now_ms() < BEGAN_MS + 2 * HOUR_MS {
                sleep(Duration::from_millis(200)).await;
                if feed.servers.requests(HUB).len() > answered {
                    answered += 1;
                    assert!(feed.verify(lease_s).await);
                    let error = feed.subscription().error.unwrap_or_default();
                    assert_eq!(error.contains("a lease of 1s only"), lease_s == 1, "{error}");
                }
            }
            let requests = feed.servers.requests(HUB);
            feed.daemon.stop().await;
            requests
        });
        let pauses: Vec<_> = requests.windows(2).skip(1).map(|two| (two[1].0 - two[0].0) / 1000).collect();
        assert!(pauses.len() > 3 && pauses.iter().all(|pause| pause_s.contains(pause)), "{pauses:?}");
    }
}

#[test]
fn a_feed_that_names_another_hub_at_each_visit_changes_it_once_a_day() {
    let servers = RecordingServers::new(|now_ms, _, request| match *request.method() {
        Method::POST => (202, String::new()),
        _ => names_hub(&format!("hub-{}.example", now_ms / 600_000)),
    });
    let recorded = Arc::clone(&servers);
    let (visits, changed) = simulate(async move {
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let daemon = start(directory.path(), &clock, &servers).await;
        let mut catalogue = sources("feed", 0..1);
        catalogue[0].every = Some(Duration::from_secs(1200));
        daemon.apply(catalogue).await;
        sleep(Duration::from_secs(3 * 86_400 + 3600)).await;
        let entry = daemon.registry.get("feed-0").unwrap();
        let changed = entry.websub().unwrap().hub_changed.unwrap().millis() - MONDAY_MS;
        daemon.stop().await;
        (servers.requests("feed-0.example").len(), changed)
    });
    let asked: Vec<_> = (0..1000)
        .filter_map(|n| recorded.requests(&format!("hub-{n}.example")).first().map(|(at, _)| at / HOUR_MS))
        .collect();
    assert!(visits > 200, "{visits}");
    assert_eq!(asked, [0, 0, 24, 48, 72], "the first, the first change, and one a day: in hours");
    assert_eq!(changed / HOUR_MS, 72);
}

#[test]
fn a_hub_whose_push_waits_is_not_silent() {
    simulate(async {
        let every = Duration::from_secs(3600);
        let feed = PushedFeed::start(|source| source.every = Some(every), |_| 200).await;
        assert_eq!(feed.push().await, PushResult::Taken);
        // During the visit for the first one.
        sleep(Duration::from_millis(50)).await;
        assert_eq!((feed.push().await, feed.visits()), (PushResult::Taken, vec![0]));
        feed.sleep_until(600).await;
        feed.publish();
        feed.sleep_until(3620).await;
        assert_eq!((feed.recorded(), feed.subscription().state), (2, PushState::Verified));
        feed.sleep_until(2 * 3600).await;
        feed.publish();
        feed.sleep_until(4 * 3600).await;
        assert_eq!((feed.recorded(), feed.subscription().state), (3, PushState::Silent), "control");
        feed.daemon.stop().await;
    });
}

#[test]
fn a_hub_is_not_silent_if_the_second_look_waits_long_for_its_host() {
    simulate(async {
        let feed = PushedFeed::start(|_| {}, |_| 200).await;
        assert_eq!(feed.push().await, PushResult::Taken);
        feed.sleep_until(10).await;
        let busy = source(BUSY, &format!("http://feed-0.example/{BUSY}"));
        feed.daemon.apply(sources("feed", 0..1).into_iter().chain([busy]).collect()).await;
        feed.sleep_until(300).await;
        assert_eq!(feed.visits(), [0], "its host has asked for a pause");
        feed.publish();
        feed.sleep_until(700).await;
        assert!(feed.visits()[1] > 600, "{:?}", feed.visits());
        assert_eq!((feed.recorded(), feed.subscription().state), (2, PushState::Verified));
        feed.daemon.stop().await;
    });
}

#[test]
fn a_hub_is_not_silent_if_what_it_pushed_is_recorded_in_parts() {
    simulate(async {
        // Each visit records one item.
        let feed = PushedFeed::start(|source| source.new_bytes_max = Some(1), |_| 200).await;
        for _ in 0..4 {
            feed.publish();
        }
        assert_eq!(feed.push().await, PushResult::Taken);
        for _ in 0..100 {
            sleep(Duration::from_secs(600)).await;
            assert_eq!(feed.subscription().state, PushState::Verified, "{}", feed.recorded());
        }
        assert_eq!(feed.recorded(), 5);
        feed.daemon.stop().await;
    });
}

#[test]
fn a_hub_is_not_silent_if_visits_have_failed_since_its_push() {
    simulate(async {
        let status = |now_ms| if (BEGAN_MS..BEGAN_MS + 3 * HOUR_MS).contains(&now_ms) { 429 } else { 200 };
        let feed = PushedFeed::start(|_| {}, status).await;
        assert_eq!(feed.push().await, PushResult::Taken);
        feed.publish();
        feed.sleep_until(100).await;
        assert_eq!(feed.push().await, PushResult::Held);
        feed.sleep_until(24 * 3600).await;
        assert!(feed.visits().len() > 2, "{:?}", feed.visits());
        assert_eq!((feed.recorded(), feed.subscription().state), (2, PushState::Verified));
        feed.daemon.stop().await;
    });
}

#[test]
fn the_status_shows_no_look_for_a_push_at_a_time_that_does_not_hold_any_more() {
    simulate(async {
        let every = Duration::from_secs(6 * 3600);
        let mut feed = PushedFeed::start(|source| source.every = Some(every), |_| 200).await;
        assert_eq!(feed.push().await, PushResult::Taken);
        feed.sleep_until(4).await;
        let set_back = Clock::from_tokio(feed.clock.now_millis() - HOUR_MS);
        feed = feed.restart_at(set_back, every).await;
        sleep(Duration::from_secs(6)).await;
        let status = feed.daemon.registry.get("feed-0").unwrap().status();
        assert_eq!(status.why, "one more look for a push");
        let wait_ms = status.next_visit.unwrap().millis() - feed.clock.now_millis();
        assert!((0..61_000).contains(&wait_ms), "{wait_ms}");
        sleep(Duration::from_secs(70)).await;
        let status = feed.daemon.registry.get("feed-0").unwrap().status();
        assert!(!status.why.contains("push"), "{}", status.why);
        feed.daemon.stop().await;
    });
}

#[test]
fn another_address_without_a_topic_of_its_own_is_subscribed_by_its_own_url() {
    simulate(async {
        let feed = PushedFeed::start(|_| {}, |_| 200).await;
        let (old, asked) = (feed.subscription(), feed.servers.requests(HUB).len());
        let other = "http://other.example/feed-0";
        feed.daemon.apply(vec![source("feed-0", other)]).await;
        sleep(Duration::from_secs(20)).await;
        let new = feed.subscription();
        assert_eq!((old.topic.reveal(), new.topic.reveal()), ("http://feed-0.example/feed-0", other));
        assert_eq!((old.hub, feed.servers.requests(HUB).len()), (new.hub, asked + 2), "one ends, one begins");
        feed.daemon.stop().await;
    });
}

#[test]
fn a_subscription_moves_with_its_source_and_only_its_new_daemon_renews_it() {
    const MINUTE: Duration = Duration::from_secs(60);
    let (requests, hub_before, results) = simulate(async {
        let feed = PushedFeed::start(|_| {}, |_| 200).await;
        assert!(feed.verify(7200).await);
        let before = feed.subscription();
        let list = || sources("feed", 0..1);
        let ids = [list()[0].id.clone()];
        let directory = directory();
        let other = start(directory.path(), &feed.clock, &feed.servers).await;
        other.share(list(), &ids).await;
        // Between the two daemons, the hub must come again, and it is told nothing.
        feed.daemon.leave(&ids, false).await;
        let push = async |daemon: &SimulatedDaemon| {
            let id = before.id.reveal().to_owned();
            daemon.websub.as_ref().unwrap().send(AcceptPush(id)).await.unwrap()
        };
        let mut results = vec![push(&feed.daemon).await, push(&other).await];
        // Also after the reviews that find no source any more.
        sleep(Duration::from_secs(20)).await;
        results.extend([push(&feed.daemon).await, push(&other).await]);
        assert!(feed.daemon.registry.get("feed-0").is_none());
        let secret = LookupSecret(before.id.reveal().to_owned());
        let secret = feed.daemon.websub.as_ref().unwrap().send(secret).await.unwrap();
        assert!(matches!(secret, CallbackSecret::Leaving));
        let hub_requests = || feed.servers.requests(HUB).into_iter().map(|(at, _)| at).collect::<Vec<_>>();
        let hub_before = hub_requests().len();
        other.adopt(feed.daemon.export(&ids).await).await;
        feed.daemon.share(list(), &ids).await;
        other.share(list(), &[]).await;
        results.extend([push(&feed.daemon).await, push(&other).await]);
        let entry = other.registry.get("feed-0").unwrap();
        let adopted = entry.websub().unwrap().subscription.unwrap();
        assert_eq!((&adopted.id, &adopted.secret), (&before.id, &before.secret));
        assert_eq!(adopted.lease_end, before.lease_end);
        // Two thirds of two hours.
        sleep(MINUTE * 70).await;
        assert_eq!(hub_requests().len(), hub_before, "nothing was asked");
        sleep(MINUTE * 20).await;
        // And back.
        other.leave(&ids, false).await;
        feed.daemon.adopt(other.export(&ids).await).await;
        other.share(list(), &ids).await;
        feed.daemon.share(list(), &[]).await;
        results.extend([push(&other).await, push(&feed.daemon).await]);
        sleep(MINUTE * 65).await;
        results.push(push(&other).await);
        let requests = hub_requests();
        other.stop().await;
        feed.daemon.stop().await;
        (requests, hub_before, results)
    });
    use PushResult::{Leaving, Taken, Unknown};
    assert_eq!(results[..4], [Leaving, Unknown, Leaving, Unknown]);
    assert_eq!(results[4..], [Leaving, Taken, Leaving, Taken, Unknown], "an id is remembered for an hour");
    // None verifies it: it is asked again ten minutes later, and then less and less often.
    let asked = &requests[hub_before..];
    assert!(
        asked.len() >= 2 && asked.windows(2).all(|two| two[1] - two[0] >= 590_000),
        "one asks: {requests:?}"
    );
}

#[test]
fn a_push_that_no_visit_has_begun_for_moves_with_its_source() {
    const SIX_HOURS: i64 = 6 * 3600;
    let every = Duration::from_secs(6 * 3600);
    let (visits, recorded) = simulate(async {
        let feed = PushedFeed::start(|source| source.every = Some(every), |_| 200).await;
        feed.publish();
        assert_eq!(feed.push().await, PushResult::Taken);
        feed.sleep_until(600).await;
        feed.publish();
        assert_eq!(feed.push().await, PushResult::Taken, "it waits for the end of the pause");
        let mut list = sources("feed", 0..1);
        list[0].every = Some(every);
        let ids = [list[0].id.clone()];
        let directory = directory();
        let other = start(directory.path(), &feed.clock, &feed.servers).await;
        other.share(list.clone(), &ids).await;
        feed.daemon.leave(&ids, false).await;
        other.adopt(feed.daemon.export(&ids).await).await;
        other.share(list, &[]).await;
        let waiting = || {
            let entry = other.registry.get("feed-0").unwrap();
            entry.websub().unwrap().subscription.unwrap().unsettled.waiting
        };
        assert!(waiting().is_some());
        feed.sleep_until(SIX_HOURS + 60).await;
        assert_eq!(waiting(), None, "a visit has begun for it");
        let visits = feed.visits();
        let recorded = other.registry.get("feed-0").unwrap().state().counts.items;
        other.stop().await;
        feed.daemon.stop().await;
        (visits, recorded)
    });
    assert_eq!(recorded, 3);
    assert!(visits.len() == 2 && (SIX_HOURS - 120..SIX_HOURS + 5).contains(&visits[1]), "{visits:?}");
}
