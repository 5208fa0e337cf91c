//! Feeds that make a store work: small items, articles of 24 KB, and sources with over 300 known keys each.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};

use crate::{Origin, TestSource, TestStack};

/// Length of a long article, in bytes.
const ARTICLE_BYTES: usize = 24 * 1024;
/// Pause between two items, over all feeds.
const PUBLISH_EVERY: Duration = Duration::from_millis(70);

/// What the feeds publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Articles {
    /// Five feeds of small items.
    Small,
    /// Four feeds of articles of 24 KB.
    Long,
    /// Twenty feeds that show 320 small items each.
    ManyKeys,
    /// Some of each.
    Mixed,
}

impl Articles {
    /// All of them, with the words that select them.
    pub const ALL: [(&'static str, Self); 4] =
        [("small", Self::Small), ("long", Self::Long), ("keys", Self::ManyKeys), ("mixed", Self::Mixed)];

    /// Feeds, entries that each shows, and bytes of an article.
    fn feeds(self) -> Vec<(usize, usize, usize)> {
        match self {
            Self::Small => vec![(5, 40, 0)],
            Self::Long => vec![(4, 16, ARTICLE_BYTES)],
            Self::ManyKeys => vec![(20, 320, 0)],
            Self::Mixed => vec![(2, 40, 0), (2, 12, ARTICLE_BYTES), (2, 320, 0)],
        }
    }
}

struct WorkloadFeed {
    name: String,
    entries_shown: usize,
    article_bytes: usize,
    /// Guid and XML, oldest first.
    entries: VecDeque<(String, String)>,
}

struct WorkloadState {
    feeds: Vec<WorkloadFeed>,
    published: u64,
}

/// A web server with these feeds. Each shows all its entries at the first visit; for each further one the oldest goes.
pub(super) struct StoreWorkload {
    origin: Origin,
    state: Mutex<WorkloadState>,
}

impl StoreWorkload {
    pub(super) async fn start(articles: Articles) -> anyhow::Result<Arc<Self>> {
        let mut feeds = Vec::new();
        for (count, entries_shown, article_bytes) in articles.feeds() {
            for _ in 0..count {
                let name = format!("feed-{}", feeds.len());
                feeds.push(WorkloadFeed { name, entries_shown, article_bytes, entries: VecDeque::new() });
            }
        }
        let state = Mutex::new(WorkloadState { feeds, published: 0 });
        let workload = Self { origin: Origin::start().await?, state };
        workload.with_state(|state, origin| {
            for number in 0..state.feeds.len() {
                (0..state.feeds[number].entries_shown).for_each(|_| state.add_entry(number));
                state.serve(number, origin);
            }
        });
        Ok(Arc::new(workload))
    }

    fn with_state<T>(&self, act: impl FnOnce(&mut WorkloadState, &Origin) -> T) -> T {
        act(&mut self.state.lock().expect("no thread panics while holding it"), &self.origin)
    }

    /// The catalogue.
    pub(super) fn sources(&self) -> Vec<TestSource> {
        self.with_state(|state, origin| {
            let source = |feed: &WorkloadFeed| {
                TestSource::new(&feed.name, origin.url(&format!("/feeds/{}", feed.name)))
            };
            state.feeds.iter().map(source).collect()
        })
    }

    /// Source and guid of what the feeds show now.
    pub(super) fn shown(&self) -> BTreeSet<(String, String)> {
        self.with_state(|state, _| {
            let of = |feed: &WorkloadFeed| {
                let name = feed.name.clone();
                feed.entries.iter().map(move |(guid, _)| (name.clone(), guid.clone())).collect::<Vec<_>>()
            };
            state.feeds.iter().flat_map(of).collect()
        })
    }

    /// `store.retention_events`: a little more than what the feeds show, so that retention soon removes events.
    pub(super) fn events_kept(&self) -> u64 {
        self.with_state(|state, _| state.feeds.iter().map(|feed| feed.entries_shown as u64).sum::<u64>()) + 30
    }

    /// A stack with these sources and this retention; only its daemon is started.
    pub(super) fn stack(&self) -> anyhow::Result<TestStack> {
        let mut stack = TestStack::new(&self.sources())?;
        stack.set("store.retention_events", &self.events_kept().to_string());
        stack.set("store.source_share_percent", "100");
        Ok(stack)
    }

    /// Publishes an item every 70 ms in one of the feeds, until the returned value is dropped.
    pub(super) fn publish(self: &Arc<Self>) -> Publishing {
        let workload = Arc::clone(self);
        Publishing(tokio::spawn(async move {
            loop {
                workload.publish_one();
                sleep(PUBLISH_EVERY).await;
            }
        }))
    }

    fn publish_one(&self) {
        self.with_state(|state, origin| {
            let number = fastrand::usize(..state.feeds.len());
            state.add_entry(number);
            state.serve(number, origin);
        });
    }
}

impl WorkloadState {
    fn add_entry(&mut self, number: usize) {
        self.published += 1;
        let feed = &mut self.feeds[number];
        let guid = format!("urn:newswire-disk:{}:{}", feed.name, self.published);
        let mut article = String::new();
        while article.len() < feed.article_bytes {
            // Words that neither repeat nor compress well.
            write!(article, "<p>{:x} {:x}</p>", fastrand::u64(..), fastrand::u64(..))
                .expect("a string grows");
        }
        let xml = format!(
            "<item><title>News {published} of {name}</title><guid isPermaLink=\"false\">{guid}</guid>\
             <link>https://{name}.example/{published}</link><description>About {published}</description>\
             <content:encoded><![CDATA[{article}]]></content:encoded></item>\n",
            name = feed.name,
            published = self.published
        );
        feed.entries.push_back((guid, xml));
        if feed.entries.len() > feed.entries_shown {
            feed.entries.pop_front();
        }
    }

    fn serve(&self, number: usize, origin: &Origin) {
        let feed = &self.feeds[number];
        let items: String = feed.entries.iter().rev().map(|(_, xml)| xml.as_str()).collect();
        origin.set_document(
            &feed.name,
            &format!(
                "<rss version=\"2.0\" xmlns:content=\"http://purl.org/rss/1.0/modules/content/\"><channel>\
                 <title>{0}</title><link>https://{0}.example/</link>{items}</channel></rss>",
                feed.name
            ),
        );
    }
}

/// Publishes as long as it lives.
pub(super) struct Publishing(JoinHandle<()>);

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.abort();
    }
}
