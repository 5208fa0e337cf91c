//! Scenarios of more than one test: feeds publish continuously and clients stay connected while processes are killed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use crate::{
    Binary, DocumentFormat, Origin, Published, TestSource, TestStack, TestSubscriber, faults, wait_for,
};

/// Adds `count` feeds to the origin, `feed-0` and up, in the formats in turn.
#[must_use]
pub fn feeds(origin: &Origin, count: usize) -> Vec<TestSource> {
    (0..count)
        .map(|number| {
            let name = format!("feed-{number}");
            TestSource::new(&name, origin.add_feed(&name, DocumentFormat::of(number)))
        })
        .collect()
}

/// The result of [`kill_repeatedly`].
#[derive(Debug)]
pub struct KillSummary {
    /// Processes killed.
    pub kills: usize,
    /// Items published.
    pub published: usize,
    /// Connections that the subscribers opened.
    pub connections: usize,
}

/// Feeds of [`kill_repeatedly`].
const FEEDS: usize = 5;
/// Pause between two items, over all feeds.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// Deadline for every subscriber to have all items, counted from the last publication.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// Kills the programs that `victims` returns for each round with SIGKILL and restarts them, with random delays, while
/// feeds publish and subscribers stay connected. Ends when `victims` returns `None`.
///
/// # Errors
/// If a subscriber missed an item, received one twice or out of order, got a gap, or was closed for good; or if a process
/// exited by itself.
pub async fn kill_repeatedly(
    victims: impl FnMut(usize) -> Option<Vec<Binary>>,
) -> anyhow::Result<KillSummary> {
    let origin = Arc::new(Origin::start().await?);
    let mut stack = TestStack::new(&feeds(&origin, FEEDS))?;
    let outcome = run_rounds(&origin, &mut stack, victims).await;
    if outcome.is_err() {
        stack.show_logs();
    }
    outcome
}

async fn run_rounds(
    origin: &Arc<Origin>,
    stack: &mut TestStack,
    mut victims: impl FnMut(usize) -> Option<Vec<Binary>>,
) -> anyhow::Result<KillSummary> {
    stack.start_both().await?;
    let everything =
        [stack.subscribe("/news/stream?snapshot=1000"), stack.subscribe("/news/stream?snapshot=1000")];
    let filtered = stack.subscribe("/news/stream?snapshot=1000&source=feed-1");
    let publisher = FeedPublisher::start(Arc::clone(origin), FEEDS);

    let mut killed = 0;
    for round in 0.. {
        let Some(programs) = victims(round) else { break };
        sleep(random_delay(50, 2_000)).await;
        for program in &programs {
            stack.kill(*program).with_context(|| format!("round {round}"))?;
            killed += 1;
        }
        for program in programs {
            sleep(random_delay(0, 1_000)).await;
            stack.start(program)?;
        }
        // Sometimes the next kill hits processes that are still starting.
        if fastrand::u8(0..4) > 0 {
            stack.wait_ready().await.with_context(|| format!("round {round}"))?;
        }
    }
    stack.wait_ready().await?;
    sleep(Duration::from_secs(1)).await;
    publisher.stop().await;

    let published = origin.published();
    let one = Published::from([("feed-1".to_owned(), published["feed-1"].clone())]);
    for subscriber in &everything {
        wait_for_all_items(subscriber, &published).await?;
    }
    wait_for_all_items(&filtered, &one).await?;
    sleep(Duration::from_millis(1_500)).await; // the time of a visit: duplicates would arrive now
    for (subscriber, published) in
        [(&everything[0], &published), (&everything[1], &published), (&filtered, &one)]
    {
        let faults = faults(published, &subscriber.records());
        anyhow::ensure!(faults.is_empty(), "{}\n{}", faults.join("\n"), subscriber.summary());
    }
    Ok(KillSummary {
        kills: killed,
        published: published.values().map(Vec::len).sum(),
        connections: everything.iter().chain([&filtered]).map(|s| s.connections().len()).sum(),
    })
}

/// Waits until a subscriber has as many items as were published; [`faults`] checks which ones.
async fn wait_for_all_items(subscriber: &TestSubscriber, published: &Published) -> anyhow::Result<()> {
    let expected: usize = published.values().map(Vec::len).sum();
    let outcome = wait_for(&format!("{expected} items"), SETTLED_WITHIN, async || {
        (subscriber.count("item") >= expected || subscriber.closed().is_some()).then_some(())
    })
    .await;
    anyhow::ensure!(subscriber.closed().is_none(), "a browser would not reconnect: {}", subscriber.summary());
    outcome.map_err(|error| {
        let faults = faults(published, &subscriber.records());
        error.context(format!("{}\n{}", faults.join("\n"), subscriber.summary()))
    })
}

fn random_delay(from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(fastrand::u64(from_ms..to_ms))
}

/// Publishes items in random feeds until it is stopped.
pub struct FeedPublisher {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl FeedPublisher {
    /// Publishes an item every 50 ms in one of the first `feeds` feeds of [`feeds()`].
    #[must_use]
    pub fn start(origin: Arc<Origin>, feeds: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let began = Instant::now();
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let feed = format!("feed-{}", fastrand::usize(0..feeds));
                origin.publish(&feed, &format!("Something happened after {:?}", began.elapsed()));
                sleep(PUBLISH_EVERY).await;
            }
        });
        Self { stop, task }
    }

    /// Stops publishing; no item is published after this returns.
    ///
    /// # Panics
    /// If publishing panicked.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("publishing does not panic");
    }
}
