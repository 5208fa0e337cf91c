//! Scenarios of more than one test: feeds that publish continuously.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{DocumentFormat, Origin, TestSource};

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

/// The same on so many hosts in turn, on which the origin was started.
#[must_use]
pub fn feeds_on_hosts(origin: &Origin, count: usize, hosts: u8) -> Vec<TestSource> {
    (0..count)
        .map(|number| {
            let name = format!("feed-{number}");
            let host = u8::try_from(number % usize::from(hosts)).unwrap_or_default() + 1;
            TestSource::new(&name, origin.add_feed_on(host, &name, DocumentFormat::of(number)))
        })
        .collect()
}

/// Pause between two items, over all feeds.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);

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
