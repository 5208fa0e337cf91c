//! WebSub through the real programs: a push makes a visit come sooner, and never replaces visits.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{fs, time::Duration};

use e2e::{
    Binary, DocumentFormat, ForwardProxy, HubRequest, Origin, TestHub, TestSource, TestStack, TestSubscriber,
    http, wait_for,
};
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(60);
/// The feed's `rel=self`. It is https, so the hub gets a secret although the test uses http.
const TOPIC: &str = "https://news.example/feed";

/// A feed `a` with a hub, both programs, and a subscriber.
struct Fixture {
    origin: Origin,
    stack: TestStack,
    subscriber: TestSubscriber,
}

impl Fixture {
    /// Hubs may be anywhere, so that one can be on this machine.
    async fn start(hub: &str, every: &str) -> Self {
        let every = format!("every = \"{every}\"");
        Self::start_allowing(&["0.0.0.0/0", "::/0"], hub, &every, "1s").await
    }

    /// A feed without `every`.
    async fn start_with_interval_min(hub: &str, interval_min: &str) -> Self {
        Self::start_allowing(&["0.0.0.0/0", "::/0"], hub, "", interval_min).await
    }

    async fn start_allowing(allow: &[&str], hub: &str, every: &str, interval_min: &str) -> Self {
        let origin = Origin::start().await.unwrap();
        let url = origin.add_feed("a", DocumentFormat::Rss);
        origin.add_header("a", &format!("Link: <{hub}>; rel=\"hub\", <{TOPIC}>; rel=\"self\""));
        origin.publish("a", "The first");
        let mut stack = TestStack::new(&[TestSource::new("a", url.clone())]).unwrap();
        let catalogue = format!("[[source]]\nid = \"a\"\nurl = \"{url}\"\n{every}\n");
        fs::write(stack.path("sources.toml"), catalogue).unwrap();
        let http::Address::Tcp(gateway) = stack.gateway() else { panic!("the gateway listens at TCP") };
        stack.set("fetch.allow", &format!("{allow:?}"));
        stack.set("gateway.public_url", &format!("\"http://{gateway}\""));
        stack.set("fetch.interval_min", &format!("\"{interval_min}\""));
        stack.set("log.level", "\"debug\"");
        stack.start_both().await.unwrap();
        let subscriber = stack.subscribe("/news/stream?snapshot=1000");
        Self { origin, stack, subscriber }
    }

    async fn push_status(&self) -> serde_json::Value {
        self.stack.json("/sources/a").await.map(|source| source["push"].clone()).unwrap_or_default()
    }

    /// Waits until `push.state` of the source has this value.
    async fn wait_push_state(&self, state: &str) -> serde_json::Value {
        let mut last = serde_json::Value::Null;
        let what = format!("push.state to be {state}");
        let outcome = wait_for(&what, SOON, async || {
            last = self.push_status().await;
            (last["state"] == state).then(|| last.clone())
        })
        .await;
        outcome.unwrap_or_else(|error| panic!("{error}; the last was {last}"))
    }

    async fn wait_subscribed(&self, hub: &TestHub) -> HubRequest {
        wait_for("a verified subscription", SOON, async || hub.verified_subscription()).await.unwrap()
    }

    /// Pushes, with an item that the feed has by then; returns when.
    async fn push_item(&self, request: &HubRequest) -> (String, Instant) {
        let guid = self.origin.publish("a", "Pushed");
        let (callback, secret) = (request.field("callback"), request.field("secret"));
        assert_eq!(TestHub::push(callback, "x", secret).await.unwrap(), 202);
        (guid, Instant::now())
    }

    /// When the feed was visited.
    fn visits(&self) -> Vec<Instant> {
        self.origin.requests("a").iter().map(|request| request.at).collect()
    }

    async fn wait_item(&self, guid: &str) {
        self.subscriber.wait_event("item", SOON, |r| r.json()["guid"] == *guid).await.unwrap();
    }

    /// The value of a metric of the daemon (name with labels); `None` if it does not exist.
    async fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = http::fetch(&self.stack.wire(), "/metrics", SOON).await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_brings_an_item_long_before_the_next_visit_is_due() {
    let hub = TestHub::start(864_000).await.unwrap();
    let mut fixture = Fixture::start(&hub.url(), "1h").await;
    let request = fixture.wait_subscribed(&hub).await;
    let secret = request.field("secret").to_owned();
    assert_eq!((request.field("topic"), request.field("lease_seconds"), secret.len()), (TOPIC, "864000", 64));
    let callback = request.field("callback").to_owned();
    fixture.wait_push_state("verified").await;
    let guid = fixture.origin.publish("a", "Pushed");
    assert_eq!(TestHub::push(&callback, "anything", &secret).await.unwrap(), 202);
    fixture.wait_item(&guid).await;
    let status = fixture.wait_push_state("verified").await;
    assert!(status["last_push"].is_string() && status["lease_end"].is_string(), "{status}");
    assert_eq!(status["hub"], hub.url());
    let visits_so_far = fixture.origin.requests("a");
    let conditional = visits_so_far.last().unwrap().header("if-none-match").is_some();
    assert!(conditional, "a visit after a push is conditional too: {visits_so_far:?}");

    // The others are coalesced, and wait for `every`.
    let before = fixture.origin.requests("a").len();
    for _ in 0..50 {
        assert_eq!(TestHub::push(&callback, "again", &secret).await.unwrap(), 202);
    }
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(fixture.origin.requests("a").len(), before);
    for (result, count) in [("taken", 2), ("coalesced", 49)] {
        let name = format!("newswire_ingestd_websub_pushes_total{{result=\"{result}\"}}");
        assert_eq!(fixture.metric(&name).await, Some(count), "{result}");
    }

    // The subscription survives a kill, and so does what it has to wait for.
    fixture.stack.kill(Binary::Ingestd).unwrap();
    assert_eq!(TestHub::push(&callback, "x", &secret).await.unwrap(), 503, "so that the hub retries");
    fixture.stack.start(Binary::Ingestd).unwrap();
    fixture.stack.wait_ready().await.unwrap();
    let taken = wait_for("the push to be accepted", SOON, async || {
        (TestHub::push(&callback, "x", &secret).await.ok()? == 202).then_some(())
    });
    taken.await.unwrap();
    sleep(Duration::from_millis(2500)).await;
    assert_eq!(fixture.origin.requests("a").len(), before);
    assert_eq!(hub.requests().len(), 1, "there was only one request: {:?}", hub.requests());
    for program in [Binary::Ingestd, Binary::Gateway] {
        let log = fs::read_to_string(fixture.stack.path(&format!("{}.log", program.name()))).unwrap();
        assert!(!log.contains(&secret), "{} logged the secret", program.name());
    }
    let shown = fixture.stack.json("/sources").await.unwrap().to_string();
    let id = callback.rsplit('/').next().unwrap();
    assert!(!shown.contains(&secret) && !shown.contains(id), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_names_its_own_hub_is_visited_no_more_often_than_interval_min() {
    let hub = TestHub::start(864_000).await.unwrap();
    let interval_min = Duration::from_secs(40);
    let fixture = Fixture::start_with_interval_min(&hub.url(), "40s").await;
    let request = fixture.wait_subscribed(&hub).await;
    fixture.wait_push_state("verified").await;
    let began = Instant::now();
    let (first, _) = fixture.push_item(&request).await;
    fixture.wait_item(&first).await;
    let mut last = first;
    while began.elapsed() < Duration::from_secs(44) {
        sleep(Duration::from_millis(500)).await;
        (last, _) = fixture.push_item(&request).await;
    }
    fixture.wait_item(&last).await;
    let visits = fixture.visits();
    let gaps: Vec<_> = visits.windows(2).map(|two| two[1] - two[0]).collect();
    let is_slow = |gap: &Duration| *gap > interval_min - Duration::from_millis(200);
    assert!(gaps.len() > 1 && gaps.iter().all(is_slow), "also after the first visit of all: {gaps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_visits_no_source_before_its_every() {
    let hub = TestHub::start(864_000).await.unwrap();
    let fixture = Fixture::start(&hub.url(), "9s").await;
    let request = fixture.wait_subscribed(&hub).await;
    fixture.wait_push_state("verified").await;
    let (first, pushed) = fixture.push_item(&request).await;
    fixture.wait_item(&first).await;
    let first_wait = pushed.elapsed();
    sleep(Duration::from_secs(1)).await;
    let before = fixture.visits();
    let (second, pushed) = fixture.push_item(&request).await;
    fixture.wait_item(&second).await;
    let visits = fixture.visits();
    assert_eq!(visits.len(), before.len() + 1, "one visit for it: {visits:?}");
    let gap = visits[before.len()] - visits[before.len() - 1];
    // An ordinary visit may come a tenth sooner.
    assert!(gap >= Duration::from_secs(8), "{gap:?}");
    let wait = pushed.elapsed();
    assert!(first_wait < wait, "only the first push is looked at at once: {first_wait:?}, {wait:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_found_nothing_is_looked_at_again_once_and_stretches_no_pause() {
    let hub = TestHub::start(864_000).await.unwrap();
    let interval_min = Duration::from_secs(70);
    let fixture = Fixture::start_with_interval_min(&hub.url(), "70s").await;
    let request = fixture.wait_subscribed(&hub).await;
    fixture.wait_push_state("verified").await;
    let before = fixture.visits().len();
    let (callback, secret) = (request.field("callback"), request.field("secret"));
    assert_eq!(TestHub::push(callback, "x", secret).await.unwrap(), 202);
    let visited =
        wait_for("the first look", 2 * SOON, async || (fixture.visits().len() > before).then_some(()));
    visited.await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let why = fixture.stack.json("/sources/a").await.unwrap()["why"].as_str().unwrap_or_default().to_owned();
    assert_eq!(why, "one more look for a push");
    // The publisher was slow.
    let guid = fixture.origin.publish("a", "Late");
    fixture.subscriber.wait_event("item", 2 * SOON, |r| r.json()["guid"] == *guid).await.unwrap();
    let visits = fixture.visits();
    assert_eq!(visits.len(), before + 2, "{visits:?}");
    let again = visits[before + 1] - visits[before];
    assert!(again > Duration::from_secs(29) && again < interval_min, "{again:?}");
    let status = fixture.push_status().await;
    assert_eq!(status["state"], "verified", "the push had announced it: {status}");
    assert_eq!(fixture.metric("newswire_ingestd_websub_missed_total").await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_is_changed_once_a_day() {
    let mut hubs = Vec::new();
    for _ in 0..3 {
        hubs.push(TestHub::start(864_000).await.unwrap());
    }
    let fixture = Fixture::start(&hubs[0].url(), "1s").await;
    let name = |hub: &TestHub| {
        fixture.origin.clear_headers("a");
        fixture
            .origin
            .add_header("a", &format!("Link: <{}>; rel=\"hub\", <{TOPIC}>; rel=\"self\"", hub.url()));
        fixture.origin.publish("a", "So that it is read");
    };
    fixture.wait_subscribed(&hubs[0]).await;
    name(&hubs[1]);
    fixture.wait_subscribed(&hubs[1]).await;
    let has_left =
        |request: &HubRequest| request.field("mode") == "unsubscribe" && request.verified.is_some();
    let left = wait_for("the end of the first", SOON, async || hubs[0].requests().into_iter().find(has_left));
    left.await.unwrap();
    name(&hubs[2]);
    let told = wait_for("the status to say so", SOON, async || {
        fixture.push_status().await["error"].as_str().map(str::to_owned)
    });
    let told = told.await.unwrap();
    assert!(told.contains("the feed names another hub; that changes at most once a day"), "{told}");
    sleep(Duration::from_secs(2)).await;
    let status = fixture.push_status().await;
    assert_eq!((status["hub"].as_str(), status["state"].as_str()), (Some(&*hubs[1].url()), Some("verified")));
    assert!(hubs[2].requests().is_empty(), "{:?}", hubs[2].requests());
    let request = hubs[1].verified_subscription().unwrap();
    let (callback, secret) = (request.field("callback"), request.field("secret"));
    assert_eq!(TestHub::push(callback, "x", secret).await.unwrap(), 202, "the old one still pushes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_inside_fetch_allow_is_not_asked() {
    let hub = TestHub::start(864_000).await.unwrap();
    let fixture = Fixture::start_allowing(&["127.0.0.0/8"], &hub.url(), "every = \"1h\"", "1s").await;
    let refused = wait_for("the hub to be refused", SOON, async || {
        let push = fixture.push_status().await;
        push["error"].as_str().map(str::to_owned)
    });
    let refused = refused.await.unwrap();
    assert!(refused.contains(": blocked-address: 127.0.0.1 is loopback, not public"), "{refused}");
    assert!(hub.requests().is_empty(), "{:?}", hub.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_is_asked_through_the_proxy_of_its_source() {
    let origin = Origin::start().await.unwrap();
    let [for_all, own] = [ForwardProxy::start().await.unwrap(), ForwardProxy::start().await.unwrap()];
    let mut stack = TestStack::new(&[]).unwrap();
    let http::Address::Tcp(gateway) = stack.gateway() else { panic!("the gateway listens at TCP") };
    stack.set("fetch.allow", "[\"0.0.0.0/0\", \"::/0\"]");
    stack.set("gateway.public_url", &format!("\"http://{gateway}\""));
    stack.set("fetch.proxy", &format!("{:?}", for_all.url("http", "")));
    let mut sources = String::new();
    let mut hubs = Vec::new();
    for (id, proxy, at) in [
        ("inherits", String::new(), Some(&for_all)),
        ("own", format!("proxy = {:?}", own.url("socks5", "")), Some(&own)),
        ("direct", "proxy = \"direct\"".to_owned(), None),
    ] {
        let hub = TestHub::start(864_000).await.unwrap();
        let named = |name: &str, url: String| at.map_or(url.clone(), |at| at.name(name, &url).unwrap());
        let hub_url = named(&format!("hub-of-{id}.example"), hub.url());
        let url = named(&format!("{id}.example"), origin.add_feed(id, DocumentFormat::Rss));
        origin.add_header(id, &format!("Link: <{hub_url}>; rel=\"hub\", <{url}>; rel=\"self\""));
        // It is for the feed alone.
        let secret = "headers = { X-Api-Key = \"TOPSECRET\" }";
        sources.push_str(&format!("[[source]]\nid = \"{id}\"\nurl = \"{url}\"\n{proxy}\n{secret}\n"));
        hubs.push(hub);
    }
    fs::write(stack.path("sources.toml"), sources).unwrap();
    stack.start_both().await.unwrap();
    for hub in &hubs {
        wait_for("a subscription", SOON, async || hub.verified_subscription()).await.unwrap();
    }
    let counts = |name: &str| [&for_all, &own].map(|proxy| proxy.count(name));
    assert_eq!(counts("hub-of-inherits.example"), [1, 0], "{:?}", for_all.requests());
    assert_eq!(counts("hub-of-own.example"), [0, 1], "{:?}", own.requests());
    assert_eq!(counts("127.0.0.1"), [0, 0], "direct leaves the proxy");
    let heads: Vec<_> = hubs.iter().flat_map(TestHub::requests).map(|request| request.head).collect();
    assert!(heads.len() == 3 && heads.iter().all(|head| !head.contains("TOPSECRET")), "{heads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_with_a_wrong_signature_is_accepted_and_ignored() {
    let hub = TestHub::start(864_000).await.unwrap();
    let fixture = Fixture::start(&hub.url(), "1h").await;
    let request = fixture.wait_subscribed(&hub).await;
    let before = fixture.origin.requests("a").len();
    fixture.origin.publish("a", "Never asked for");
    assert_eq!(TestHub::push(request.field("callback"), "x", "not the secret").await.unwrap(), 202);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(fixture.origin.requests("a").len(), before);
    let counted = fixture.metric("newswire_ingestd_websub_pushes_total{result=\"bad_signature\"}").await;
    assert_eq!(counted, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_of_an_unrequested_subscription_is_answered_404() {
    let hub = TestHub::start(864_000).await.unwrap();
    let fixture = Fixture::start(&hub.url(), "1h").await;
    let callback = fixture.wait_subscribed(&hub).await.field("callback").to_owned();
    let (base, id) = callback.rsplit_once('/').unwrap();
    let other = format!("{base}/{}", id.chars().rev().collect::<String>());
    for (callback, mode, topic) in [
        (callback.as_str(), "subscribe", "https://other.example/feed"),
        (&callback, "unsubscribe", TOPIC),
        (&callback, "publish", TOPIC),
        (&other, "subscribe", TOPIC),
        (&format!("{base}/x"), "subscribe", TOPIC),
    ] {
        let (status, text) = TestHub::verify(callback, mode, topic, 60).await.unwrap();
        assert_eq!(status, 404, "{mode} {topic} {callback}: {text}");
        assert!(!text.contains("challenge"), "{text}");
    }
    assert_eq!(TestHub::push(&other, "x", "x").await.unwrap(), 404);
    let refused = fixture.metric("newswire_ingestd_websub_verifications_total{result=\"refused\"}").await;
    assert_eq!(refused, Some(4), "a malformed id does not reach the daemon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_grants_seconds_is_not_asked_all_the_time() {
    let hub = TestHub::start(2).await.unwrap();
    let fixture = Fixture::start(&hub.url(), "1h").await;
    let status = fixture.wait_push_state("failed").await;
    let told =
        "the lease expired; the hub grants a lease of 2s only; it is asked no more often than every 10m";
    assert_eq!(status["error"], told);
    // Five leases.
    sleep(Duration::from_secs(10)).await;
    assert_eq!(hub.requests().len(), 1, "{:?}", hub.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_ends_with_its_source() {
    let hub = TestHub::start(864_000).await.unwrap();
    let mut fixture = Fixture::start(&hub.url(), "1h").await;
    fixture.wait_subscribed(&hub).await;
    fixture.wait_push_state("verified").await;
    let requests = hub.requests();
    fs::write(fixture.stack.path("sources.toml"), "").unwrap();
    fixture.stack.process(Binary::Ingestd).unwrap().signal(rustix::process::Signal::HUP).unwrap();
    let left = wait_for("the end of the subscription", SOON, async || {
        hub.requests().into_iter().find(|a| a.field("mode") == "unsubscribe" && a.verified.is_some())
    });
    let left = left.await.unwrap();
    assert_eq!(left.verified.map(|(status, _)| status), Some(200));
    assert_eq!(
        TestHub::push(requests[0].field("callback"), "x", requests[0].field("secret")).await.unwrap(),
        404
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_dead_hub_visits_continue() {
    // Bound without listening, so that no other process can take the port.
    let dead = tokio::net::TcpSocket::new_v4().unwrap();
    dead.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/hub", dead.local_addr().unwrap());
    let fixture = Fixture::start(&url, "1s").await;
    wait_for("the hub to have failed", SOON, async || {
        (fixture.push_status().await["state"] == "failed").then_some(())
    })
    .await
    .unwrap();
    let began = Instant::now();
    let guid = fixture.origin.publish("a", "All the same");
    fixture.wait_item(&guid).await;
    // Visits every second go on; one every hour would not bring it.
    assert!(began.elapsed() < SOON / 2, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_missed_a_push_is_silent_until_it_pushes_again() {
    let hub = TestHub::start(864_000).await.unwrap();
    let fixture = Fixture::start(&hub.url(), "1s").await;
    let request = fixture.wait_subscribed(&hub).await;
    fixture.wait_push_state("verified").await;
    sleep(Duration::from_millis(2500)).await;
    let guid = fixture.origin.publish("a", "Not pushed");
    fixture.wait_item(&guid).await;
    let status = fixture.wait_push_state("silent").await;
    assert_eq!(status["error"], "a visit found new items that the hub had not pushed");
    assert_eq!(fixture.metric("newswire_ingestd_websub_missed_total").await, Some(1));
    assert_eq!(TestHub::push(request.field("callback"), "x", request.field("secret")).await.unwrap(), 202);
    fixture.wait_push_state("verified").await;
}
