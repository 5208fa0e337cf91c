//! The story that is told more than once: feeds publish all the while, clients stay connected, processes are killed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use crate::{Format, Origin, Program, Published, SourceEntry, Stack, Subscriber, faults, wait_for};

/// Begins so many feeds on the origin, `feed-0` and up, in every format in turn.
#[must_use]
pub fn feeds(origin: &Origin, count: usize) -> Vec<SourceEntry> {
    (0..count)
        .map(|number| {
            let name = format!("feed-{number}");
            SourceEntry::new(&name, origin.feed(&name, Format::of(number)))
        })
        .collect()
}

/// What a run of [`kills`] came to.
#[derive(Debug)]
pub struct Tally {
    /// Processes killed.
    pub kills: usize,
    /// Items published meanwhile.
    pub published: usize,
    /// Connections that the subscribers needed.
    pub connections: usize,
}

/// Feeds of [`kills`].
const FEEDS: usize = 5;
/// Pause between two publications, over all feeds.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// How long every subscriber may take to have everything, once the last process is up again and nothing more is published.
const SETTLED_WITHIN: Duration = Duration::from_secs(40);

/// Kills the victims of each round with -9 at a moment of chance and starts them again after another, while feeds publish
/// and subscribers stay connected; as long as `victims` names some for the round.
///
/// # Errors
/// When a subscriber missed an item, saw one twice or in another order, was told of a gap, or was closed for good; or when
/// a process ended by itself.
pub async fn kills(victims: impl FnMut(usize) -> Option<Vec<Program>>) -> anyhow::Result<Tally> {
    let origin = Arc::new(Origin::start().await?);
    let mut stack = Stack::new(&feeds(&origin, FEEDS))?;
    let outcome = play(&origin, &mut stack, victims).await;
    if outcome.is_err() {
        stack.show_logs();
    }
    outcome
}

async fn play(
    origin: &Arc<Origin>,
    stack: &mut Stack,
    mut victims: impl FnMut(usize) -> Option<Vec<Program>>,
) -> anyhow::Result<Tally> {
    stack.start_both().await?;
    let everything =
        [stack.subscribe("/news/stream?snapshot=1000"), stack.subscribe("/news/stream?snapshot=1000")];
    let filtered = stack.subscribe("/news/stream?snapshot=1000&source=feed-1");
    let publisher = Publisher::start(Arc::clone(origin), FEEDS);

    let mut killed = 0;
    for round in 0.. {
        let Some(programs) = victims(round) else { break };
        sleep(by_chance(50, 2_000)).await;
        for program in &programs {
            stack.kill(*program).with_context(|| format!("round {round}"))?;
            killed += 1;
        }
        for program in programs {
            sleep(by_chance(0, 1_000)).await;
            stack.start(program)?;
        }
        // Now and then the next kill meets processes that have not found their feet yet.
        if fastrand::u8(0..4) > 0 {
            stack.ready().await.with_context(|| format!("round {round}"))?;
        }
    }
    stack.ready().await?;
    sleep(Duration::from_secs(1)).await;
    publisher.stop().await;

    let published = origin.published();
    let one = Published::from([("feed-1".to_owned(), published["feed-1"].clone())]);
    for subscriber in &everything {
        settle(subscriber, &published).await?;
    }
    settle(&filtered, &one).await?;
    sleep(Duration::from_millis(1_500)).await; // a visit's time: what comes twice would come now
    for (subscriber, published) in
        [(&everything[0], &published), (&everything[1], &published), (&filtered, &one)]
    {
        let faults = faults(published, &subscriber.records());
        anyhow::ensure!(faults.is_empty(), "{}\n{}", faults.join("\n"), subscriber.summary());
    }
    Ok(Tally {
        kills: killed,
        published: published.values().map(Vec::len).sum(),
        connections: everything.iter().chain([&filtered]).map(|s| s.connections().len()).sum(),
    })
}

/// Waits until a subscriber has as many items as were published; which ones they are is for [`faults`] to say.
async fn settle(subscriber: &Subscriber, published: &Published) -> anyhow::Result<()> {
    let wanted: usize = published.values().map(Vec::len).sum();
    let outcome = wait_for(&format!("{wanted} items"), SETTLED_WITHIN, async || {
        (subscriber.count("item") >= wanted || subscriber.closed().is_some()).then_some(())
    })
    .await;
    anyhow::ensure!(subscriber.closed().is_none(), "a browser would not come back: {}", subscriber.summary());
    outcome.map_err(|error| {
        let faults = faults(published, &subscriber.records());
        error.context(format!("{}\n{}", faults.join("\n"), subscriber.summary()))
    })
}

fn by_chance(from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(fastrand::u64(from_ms..to_ms))
}

/// Publishes in feeds of chance until it is stopped.
pub struct Publisher {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Publisher {
    /// Begins: an item each 50 ms, in one of the first so many [`feeds`].
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

    /// Ends it; when this returns, everything is published.
    ///
    /// # Panics
    /// When publishing panicked.
    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("publishing does not panic");
    }
}
