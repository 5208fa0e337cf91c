//! Two daemons that divide one list of sources: each source is visited by one of them, and by the other one, with what is known
//! of it, when that is gone.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use e2e::{
    Binary, NatsServer, Origin, TestStack, TestSubscriber, Transport, faults, http, http::Address,
    nats_server_program, scenario, wait_for,
};
use rustix::process::Signal;
use serde_json::Value;

/// Only a fault reaches it.
const SOON: Duration = Duration::from_secs(180);
const HOSTS: u8 = 24;
const FEEDS: usize = 96;

async fn get(address: &Address, path: &str) -> Option<Value> {
    let (status, text) = http::fetch(address, path, Duration::from_secs(10)).await.ok()?;
    serde_json::from_str(&text).ok().filter(|_| status == 200)
}

/// The sources that a daemon visits.
async fn visited(daemon: &Address) -> Option<BTreeSet<String>> {
    let sources = get(daemon, "/sources").await?["sources"].as_array()?.clone();
    Some(sources.iter().filter_map(|source| Some(source["id"].as_str()?.to_owned())).collect())
}

fn host_of(feed: &str) -> usize {
    feed.trim_start_matches("feed-").parse::<usize>().unwrap() % usize::from(HOSTS)
}

struct Shared {
    server: NatsServer,
    origin: Arc<Origin>,
    one: TestStack,
    two: TestStack,
}

impl Shared {
    async fn start() -> Option<Self> {
        let program = nats_server_program()?;
        let server = NatsServer::start(&program, "").await.unwrap();
        let origin = Arc::new(Origin::start_on_hosts(HOSTS).await.unwrap());
        let feeds = scenario::feeds_on_hosts(&origin, FEEDS, HOSTS);
        let transport = Transport::Nats(format!("[\"{}\"]", server.url()));
        let stack = || {
            let mut stack = TestStack::with_transport(&feeds, &transport).unwrap();
            stack.set("store.retention_bytes", "67108864");
            stack.set("ingestd.share_group", "\"all\"");
            stack
        };
        let (mut one, mut two) = (stack(), stack());
        one.start(Binary::Ingestd).unwrap();
        two.start(Binary::Ingestd).unwrap();
        one.start_both().await.unwrap();
        Some(Self { server, origin, one, two })
    }

    /// Both visit some sources, together all, and none is visited by both, nor is a host.
    async fn wait_divided(&self) {
        wait_for("the daemons divide the list", SOON, async || {
            let (one, two) = (visited(&self.one.wire()).await?, visited(&self.two.wire()).await?);
            assert!(one.is_disjoint(&two), "both visit {:?}", one.intersection(&two));
            (!one.is_empty() && !two.is_empty() && one.len() + two.len() == FEEDS).then_some(())
        })
        .await
        .unwrap();
        let hosts = async |stack: &TestStack| -> BTreeSet<usize> {
            visited(&stack.wire()).await.unwrap().iter().map(|id| host_of(id)).collect()
        };
        assert!(hosts(&self.one).await.is_disjoint(&hosts(&self.two).await), "a host belongs to one daemon");
    }

    async fn wait_alone(&self) {
        wait_for("the other daemon has all sources", SOON, async || {
            (visited(&self.one.wire()).await?.len() == FEEDS).then_some(())
        })
        .await
        .unwrap();
    }

    /// Completes when the subscriber has everything that was published, once and in order.
    async fn check_delivered(&self, subscriber: &TestSubscriber) {
        let published = self.origin.published();
        let total: usize = published.values().map(Vec::len).sum();
        wait_for("everything is delivered", SOON, async || (subscriber.count("item") >= total).then_some(()))
            .await
            .unwrap_or_else(|error| panic!("{error}: {} of {total}", subscriber.count("item")));
        assert_eq!(faults(&published, &subscriber.records()), [""; 0]);
    }

    /// Each feed was asked for once without validators: what a daemon learns of it goes to the next one.
    fn check_polite(&self) {
        for number in 0..FEEDS {
            let requests = self.origin.requests(&format!("feed-{number}"));
            let is_bare = |request: &&e2e::Request| {
                request.header("if-none-match").is_none() && request.header("if-modified-since").is_none()
            };
            let bare = requests.iter().filter(is_bare).count();
            assert!(bare <= 1, "feed-{number} was asked for {bare} times without validators");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sources_of_a_dead_daemon_go_to_the_other_one_with_their_state_and_come_back() {
    let Some(mut shared) = Shared::start().await else { return };
    shared.wait_divided().await;
    let subscriber = shared.one.subscribe("/news/stream");
    let publisher = scenario::FeedPublisher::start(Arc::clone(&shared.origin), FEEDS);
    wait_for("items arrive", SOON, async || (subscriber.count("item") > 50).then_some(())).await.unwrap();
    shared.two.kill(Binary::Ingestd).unwrap();
    shared.wait_alone().await;
    let before = subscriber.count("item");
    wait_for("items arrive", SOON, async || (subscriber.count("item") > before + 50).then_some(()))
        .await
        .unwrap();
    shared.two.start(Binary::Ingestd).unwrap();
    shared.wait_divided().await;
    publisher.stop().await;
    shared.check_delivered(&subscriber).await;
    shared.check_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_slept_leaves_what_the_other_one_has_taken_and_publishes_nothing_twice() {
    let Some(mut shared) = Shared::start().await else { return };
    shared.wait_divided().await;
    let subscriber = shared.one.subscribe("/news/stream");
    let publisher = scenario::FeedPublisher::start(Arc::clone(&shared.origin), FEEDS);
    wait_for("items arrive", SOON, async || (subscriber.count("item") > 50).then_some(())).await.unwrap();
    for _ in 0..2 {
        shared.two.process(Binary::Ingestd).unwrap().signal(Signal::STOP).unwrap();
        shared.wait_alone().await;
        shared.two.process(Binary::Ingestd).unwrap().signal(Signal::CONT).unwrap();
        shared.wait_divided().await;
    }
    publisher.stop().await;
    shared.check_delivered(&subscriber).await;
    shared.check_polite();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_no_visit_begins_and_both_go_on_with_their_parts_when_it_is_back() {
    let Some(mut shared) = Shared::start().await else { return };
    shared.wait_divided().await;
    let subscriber = shared.one.subscribe("/news/stream");
    let publisher = scenario::FeedPublisher::start(Arc::clone(&shared.origin), FEEDS);
    wait_for("items arrive", SOON, async || (subscriber.count("item") > 50).then_some(())).await.unwrap();
    let parts = (visited(&shared.one.wire()).await, visited(&shared.two.wire()).await);
    shared.server.kill();
    wait_for("recording is paused for want of a lease", SOON, async || {
        let (_, text) = http::fetch(&shared.two.wire(), "/metrics", SOON).await.ok()?;
        text.lines().any(|line| line.starts_with("newswire_ingestd_lease_valid 0")).then_some(())
    })
    .await
    .unwrap();
    let last = |feeds: &Origin| (0..FEEDS).map(|n| feeds.requests(&format!("feed-{n}")).len()).sum::<usize>();
    // What was under way ends.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = last(&shared.origin);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(last(&shared.origin), before, "no visit begins");
    shared.server.restart().await.unwrap();
    shared.wait_divided().await;
    assert_eq!(parts, (visited(&shared.one.wire()).await, visited(&shared.two.wire()).await));
    publisher.stop().await;
    shared.check_delivered(&subscriber).await;
    shared.check_polite();
}
