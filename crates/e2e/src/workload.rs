//! Feeds that publish while processes are killed: small and large articles, and long lists of known items.
//!
//! An item leaves its feed when enough newer ones have come, and what the daemon has not visited by then is lost rightly. So
//! a feed publishes nothing more while half of its document is still on the way to the clients.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::sleep;

use crate::{DocumentFormat, FeedShape, Origin, StreamAudit, TestSource};

/// One feed of a workload.
#[derive(Clone, Debug)]
struct FeedLoad {
    name: String,
    format: DocumentFormat,
    shape: FeedShape,
    /// Items that it has from the beginning.
    items_before: usize,
    /// Items that it publishes as soon as those before them have arrived.
    items_soon: usize,
    /// The size of the articles that it has from the beginning; 0: only summaries.
    article_bytes_before: usize,
    /// The size of the articles that it publishes later; 0: only summaries.
    article_bytes: usize,
    /// How often it publishes, compared with the others.
    weight: usize,
}

/// Feeds, and how often they publish.
#[derive(Clone, Debug)]
pub struct Workload {
    feeds: Vec<FeedLoad>,
    /// Pause between two items, over all feeds.
    every: Duration,
}

/// The size of a large article, in bytes.
const ARTICLE_BYTES: usize = 24 * 1024;
/// About the size of a document of large articles, in bytes.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

impl Workload {
    /// 20 feeds with 320 items and more, of which one has 3,000 and three publish articles of 24 KB; 200 items a second.
    #[must_use]
    pub fn long() -> Self {
        let feeds = (0..20).map(|number| match number {
            // A document has at most 1,000 items.
            0 => FeedLoad { items_before: 900, items_soon: 2_100, ..FeedLoad::small(number, 1_000, 2) },
            1..=3 => FeedLoad::large(number, 320),
            _ => FeedLoad { items_before: 320, ..FeedLoad::small(number, 400, 12) },
        });
        Self { feeds: feeds.collect(), every: Duration::from_millis(5) }
    }

    /// 5 feeds, of which one has 300 items and one publishes articles of 24 KB; 25 items a second.
    #[must_use]
    pub fn brief() -> Self {
        let feeds = (0..5).map(|number| match number {
            0 => FeedLoad { items_before: 300, ..FeedLoad::small(number, 400, 1) },
            2 => FeedLoad { article_bytes_before: ARTICLE_BYTES, ..FeedLoad::large(number, 20) },
            _ => FeedLoad::small(number, 200, 4),
        });
        Self { feeds: feeds.collect(), every: Duration::from_millis(40) }
    }

    /// Adds the feeds to the origin, without items.
    #[must_use]
    pub fn add_to(&self, origin: &Origin) -> Vec<TestSource> {
        let add = |feed: &FeedLoad| {
            TestSource::new(&feed.name, origin.add_shaped_feed(&feed.name, feed.format, feed.shape))
        };
        self.feeds.iter().map(add).collect()
    }

    /// The same at another pace.
    #[must_use]
    pub fn at_pace(self, every: Duration) -> Self {
        Self { every, ..self }
    }

    /// Publishes what the feeds have from the beginning: the same items each time.
    pub fn publish_before(&self, origin: &Origin) {
        for feed in &self.feeds {
            for n in 0..feed.items_before {
                let title = format!("Number {n} of what was there before");
                origin.publish_article(&feed.name, &title, feed.article_bytes_before);
            }
        }
    }

    /// The name of a feed with small articles, and of one with large ones.
    #[must_use]
    pub fn examples(&self) -> Vec<&str> {
        let small = self.feeds.iter().find(|feed| feed.article_bytes == 0);
        let large = self.feeds.iter().find(|feed| feed.article_bytes > 0);
        small.into_iter().chain(large).map(|feed| feed.name.as_str()).collect()
    }
}

impl FeedLoad {
    fn small(number: usize, window: usize, weight: usize) -> Self {
        let shape = FeedShape { window, ..FeedShape::default() };
        let (name, format) = (format!("feed-{number}"), DocumentFormat::of(number));
        Self {
            name,
            format,
            shape,
            items_before: 0,
            items_soon: 0,
            article_bytes_before: 0,
            article_bytes: 0,
            weight,
        }
    }

    fn large(number: usize, items_before: usize) -> Self {
        let shape = FeedShape { window: 400, document_bytes_max: DOCUMENT_BYTES_MAX };
        Self { shape, items_before, article_bytes: ARTICLE_BYTES, ..Self::small(number, 400, 1) }
    }

    /// Items of which the daemon can miss the visits.
    fn ahead_max(&self) -> usize {
        let large = DOCUMENT_BYTES_MAX.checked_div(self.article_bytes).unwrap_or(usize::MAX);
        self.shape.window.min(large) / 2
    }
}

/// Publishes a workload, after [`Workload::publish_before`], until it is dropped.
pub struct WorkloadPublisher {
    task: tokio::task::JoinHandle<()>,
    /// Locked while an item is published.
    pauses: Arc<Mutex<bool>>,
}

impl WorkloadPublisher {
    /// Publishes at the pace of the workload, and is paused at first. `audit` is of a stream with all events.
    #[must_use]
    pub fn start(origin: Arc<Origin>, workload: &Workload, audit: StreamAudit) -> Self {
        let pauses = Arc::new(Mutex::new(true));
        let (paused, workload) = (Arc::clone(&pauses), workload.clone());
        let before = |feed: &FeedLoad| (feed.name.clone(), feed.items_before);
        let mut counts: BTreeMap<String, usize> = workload.feeds.iter().map(before).collect();
        let task = tokio::spawn(async move {
            let turns: Vec<&FeedLoad> =
                workload.feeds.iter().flat_map(|feed| std::iter::repeat_n(feed, feed.weight)).collect();
            let mut soon: Vec<(&FeedLoad, usize)> =
                workload.feeds.iter().map(|feed| (feed, feed.items_soon)).collect();
            loop {
                sleep(workload.every).await;
                soon.retain(|(_, left)| *left > 0);
                let mut owed = soon.first_mut().filter(|_| fastrand::bool());
                let feed =
                    owed.as_ref().map_or_else(|| turns[fastrand::usize(0..turns.len())], |(feed, _)| feed);
                let count = counts.entry(feed.name.clone()).or_default();
                if count.saturating_sub(audit.received(&feed.name)) >= feed.ahead_max() {
                    continue;
                }
                let pauses = paused.lock().expect("no thread panics while holding it");
                if !*pauses {
                    origin.publish_article(
                        &feed.name,
                        &format!("Something happened, {count}"),
                        feed.article_bytes,
                    );
                    *count += 1;
                    if let Some((_, left)) = &mut owed {
                        *left -= 1;
                    }
                }
            }
        });
        Self { task, pauses }
    }

    /// Pauses or continues; nothing is published after a pause has begun.
    pub fn set_paused(&self, paused: bool) {
        *self.pauses.lock().expect("no thread panics while holding it") = paused;
    }
}

impl Drop for WorkloadPublisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
