//! Pushes of a hub, through the real programs: a hint to visit sooner, and never a reason to stop visiting.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{fs, time::Duration};

use e2e::{Asked, Format, Hub, Origin, Program, SourceEntry, Stack, Subscriber, http, wait_for};
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(10);
/// What the feed calls itself. It is https, so the hub is given a secret although the test speaks http.
const TOPIC: &str = "https://news.example/feed";

/// A feed `a` with a hub, both programs, and a subscriber.
struct World {
    origin: Origin,
    stack: Stack,
    subscriber: Subscriber,
}

impl World {
    async fn start(hub: &str, every: &str) -> Self {
        let origin = Origin::start().await.unwrap();
        let url = origin.feed("a", Format::Rss);
        origin.also_send("a", &format!("Link: <{hub}>; rel=\"hub\", <{TOPIC}>; rel=\"self\""));
        origin.publish("a", "The first");
        let mut stack = Stack::new(&[SourceEntry::new("a", url.clone())]).unwrap();
        let catalogue = format!("[[source]]\nid = \"a\"\nurl = \"{url}\"\nevery = \"{every}\"\n");
        fs::write(stack.path("sources.toml"), catalogue).unwrap();
        let http::Address::Tcp(gateway) = stack.gateway() else { panic!("the gateway listens at TCP") };
        stack.set("gateway.public_url", &format!("\"http://{gateway}\""));
        stack.set("log.level", "\"debug\"");
        stack.start_both().await.unwrap();
        let subscriber = stack.subscribe("/news/stream?snapshot=1000");
        Self { origin, stack, subscriber }
    }

    async fn push_status(&self) -> serde_json::Value {
        self.stack.json("/sources/a").await.map(|source| source["push"].clone()).unwrap_or_default()
    }

    /// Waits until the source stands so with its hub.
    async fn stands(&self, state: &str) -> serde_json::Value {
        let mut last = serde_json::Value::Null;
        let what = format!("push.state to be {state}");
        let outcome = wait_for(&what, SOON, async || {
            last = self.push_status().await;
            (last["state"] == state).then(|| last.clone())
        })
        .await;
        outcome.unwrap_or_else(|error| panic!("{error}; the last was {last}"))
    }

    async fn subscribed(&self, hub: &Hub) -> Asked {
        wait_for("a verified subscription", SOON, async || hub.subscription()).await.unwrap()
    }

    async fn arrives(&self, guid: &str) {
        self.subscriber.wait_event("item", SOON, |r| r.json()["guid"] == *guid).await.unwrap();
    }

    /// The value of a metric of the daemon, with its labels; nothing when it was never counted.
    async fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = http::fetch(&self.stack.wire(), "/metrics", SOON).await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_brings_an_item_long_before_the_next_visit_is_due() {
    let hub = Hub::start(864_000).await.unwrap();
    let mut world = World::start(&hub.url(), "1h").await;
    let asked = world.subscribed(&hub).await;
    let secret = asked.field("secret").to_owned();
    assert_eq!((asked.field("topic"), asked.field("lease_seconds"), secret.len()), (TOPIC, "864000", 64));
    let callback = asked.field("callback").to_owned();
    world.stands("verified").await;
    let guid = world.origin.publish("a", "Pushed");
    assert_eq!(Hub::push(&callback, "anything", &secret).await.unwrap(), 202);
    world.arrives(&guid).await;
    let status = world.stands("verified").await;
    assert!(status["last_push"].is_string() && status["lease_end"].is_string(), "{status}");
    assert_eq!(status["hub"], hub.url());
    let asked_at = world.origin.requests("a");
    let conditional = asked_at.last().unwrap().header("if-none-match").is_some();
    assert!(conditional, "a push is no reason to ask for everything: {asked_at:?}");

    // Many pushes are few visits.
    let before = world.origin.requests("a").len();
    for _ in 0..50 {
        assert_eq!(Hub::push(&callback, "again", &secret).await.unwrap(), 202);
    }
    sleep(Duration::from_millis(2500)).await;
    let visits = world.origin.requests("a").len() - before;
    assert!((1..=5).contains(&visits), "50 pushes made {visits} visits");
    assert!(world.metric("newswire_ingestd_websub_pushes_total{result=\"coalesced\"}").await.unwrap() > 40);

    // The subscription survives a kill.
    world.stack.kill(Program::Ingestd).unwrap();
    assert_eq!(Hub::push(&callback, "x", &secret).await.unwrap(), 503, "the hub comes again");
    world.stack.start(Program::Ingestd).unwrap();
    world.stack.ready().await.unwrap();
    let guid = world.origin.publish("a", "Pushed after a restart");
    let taken = wait_for("the push to be taken", SOON, async || {
        (Hub::push(&callback, "x", &secret).await.ok()? == 202).then_some(())
    });
    taken.await.unwrap();
    world.arrives(&guid).await;
    assert_eq!(hub.asked().len(), 1, "nothing was asked twice: {:?}", hub.asked());
    for program in [Program::Ingestd, Program::Gateway] {
        let log = fs::read_to_string(world.stack.path(&format!("{}.log", program.name()))).unwrap();
        assert!(!log.contains(&secret), "{} wrote the secret down", program.name());
    }
    let shown = world.stack.json("/sources").await.unwrap().to_string();
    let id = callback.rsplit('/').next().unwrap();
    assert!(!shown.contains(&secret) && !shown.contains(id), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_with_a_wrong_signature_is_taken_and_changes_nothing() {
    let hub = Hub::start(864_000).await.unwrap();
    let world = World::start(&hub.url(), "1h").await;
    let asked = world.subscribed(&hub).await;
    let before = world.origin.requests("a").len();
    world.origin.publish("a", "Never asked for");
    assert_eq!(Hub::push(asked.field("callback"), "x", "not the secret").await.unwrap(), 202);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.origin.requests("a").len(), before);
    let counted = world.metric("newswire_ingestd_websub_pushes_total{result=\"bad_signature\"}").await;
    assert_eq!(counted, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_about_what_we_do_not_want_is_answered_with_404() {
    let hub = Hub::start(864_000).await.unwrap();
    let world = World::start(&hub.url(), "1h").await;
    let callback = world.subscribed(&hub).await.field("callback").to_owned();
    let (base, id) = callback.rsplit_once('/').unwrap();
    let other = format!("{base}/{}", id.chars().rev().collect::<String>());
    for (callback, mode, topic) in [
        (callback.as_str(), "subscribe", "https://other.example/feed"),
        (&callback, "unsubscribe", TOPIC),
        (&callback, "publish", TOPIC),
        (&other, "subscribe", TOPIC),
        (&format!("{base}/x"), "subscribe", TOPIC),
    ] {
        let (status, text) = Hub::verify(callback, mode, topic, 60).await.unwrap();
        assert_eq!(status, 404, "{mode} {topic} {callback}: {text}");
        assert!(!text.contains("challenge"), "{text}");
    }
    assert_eq!(Hub::push(&other, "x", "x").await.unwrap(), 404);
    let refused = world.metric("newswire_ingestd_websub_verifications_total{result=\"refused\"}").await;
    assert_eq!(refused, Some(4), "what has no shape of an id does not reach the daemon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_renewed_before_it_ends_and_given_up_with_its_source() {
    let hub = Hub::start(6).await.unwrap();
    let mut world = World::start(&hub.url(), "1h").await;
    wait_for("the second renewal", Duration::from_secs(20), async || (hub.asked().len() >= 3).then_some(()))
        .await
        .unwrap();
    let asked = hub.asked();
    let waits: Vec<_> = asked.windows(2).map(|two| two[1].at - two[0].at).collect();
    assert!(waits.iter().all(|wait| (3..6).contains(&wait.as_secs())), "{waits:?}");
    assert!(asked.iter().all(|a| a.field("callback") == asked[0].field("callback")), "{asked:?}");

    fs::write(world.stack.path("sources.toml"), "").unwrap();
    world.stack.process(Program::Ingestd).unwrap().signal(rustix::process::Signal::HUP).unwrap();
    let left = wait_for("the end of the subscription", SOON, async || {
        hub.asked().into_iter().find(|a| a.field("mode") == "unsubscribe" && a.verified.is_some())
    });
    let left = left.await.unwrap();
    assert_eq!(left.verified.map(|(status, _)| status), Some(200));
    assert_eq!(Hub::push(asked[0].field("callback"), "x", asked[0].field("secret")).await.unwrap(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_dead_hub_visits_go_on_as_ever() {
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hub", dead.local_addr().unwrap());
    drop(dead);
    let world = World::start(&url, "1s").await;
    wait_for("the hub to have failed", SOON, async || {
        (world.push_status().await["state"] == "failed").then_some(())
    })
    .await
    .unwrap();
    let began = Instant::now();
    let guid = world.origin.publish("a", "All the same");
    world.arrives(&guid).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_misses_something_is_silent_until_it_pushes_again() {
    let hub = Hub::start(864_000).await.unwrap();
    let world = World::start(&hub.url(), "1s").await;
    let asked = world.subscribed(&hub).await;
    world.stands("verified").await;
    sleep(Duration::from_millis(2500)).await;
    let guid = world.origin.publish("a", "Not pushed");
    world.arrives(&guid).await;
    let status = world.stands("silent").await;
    assert_eq!(status["error"], "a visit found new items that the hub had not pushed");
    assert_eq!(world.metric("newswire_ingestd_websub_missed_total").await, Some(1));
    assert_eq!(Hub::push(asked.field("callback"), "x", asked.field("secret")).await.unwrap(), 202);
    world.stands("verified").await;
}
