//! Step 9 of the life of an item: out of the process.
//!
//! ```text
//! cursor < head?  yes → a page from the log on disk → blocks → cursor moves
//!                 no  → wait for: the bell (head moved) | a notice (no id) | the heartbeat
//! ```
//!
//! Nobody queues for a reader: it pulls with its cursor, so it can only fall behind. When retention overtakes it, it
//! is told by a `gap` block.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use news::{Cursor, EventKind, Seq};
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use crate::resume::{Gap, LogBounds};

/// A log that is read in pages. Every call may block on a disk, and is made off the runtime's threads.
pub trait EventLog: Send + Sync + 'static {
    /// What it holds now.
    fn standing(&self) -> LogBounds;

    /// The events after `after`, without holes: at most `limit`, and about `bytes` of JSON.
    ///
    /// # Errors
    /// [`LogError`] when the log can no longer be read; every stream then ends.
    fn page(&self, after: Seq, limit: usize, bytes: usize) -> Result<LogPage, LogError>;
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log for a subscriber: {0}")]
pub struct LogError(pub String);

/// Some events in order.
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// Without holes.
    pub events: Vec<LogEvent>,
    /// Events before the first of them that are no longer kept.
    pub missed: u64,
}

/// One event.
#[derive(Clone, Debug)]
pub struct LogEvent {
    /// Its place.
    pub seq: Seq,
    /// New or changed.
    pub kind: EventKind,
    /// Its one JSON form, on one line.
    pub json: String,
}

/// Something that is told once to whoever listens, without an id.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A visit ended; JSON on one line.
    Source(Arc<str>),
    /// The catalogue changed, or notices were lost: read the list of sources again.
    Catalogue,
}

/// One block of the stream.
#[derive(Clone, Debug)]
pub struct StreamBlock {
    /// `id:`, when it moves the reader's cursor.
    pub id: Option<Cursor>,
    /// `event:`.
    pub event: &'static str,
    /// `data:`, on one line.
    pub data: String,
}

/// Makes a stream of blocks for each subscriber.
#[derive(Clone)]
pub struct Publisher {
    /// What is read.
    pub log: Arc<dyn EventLog>,
    /// Rings when the head moves.
    pub bell: watch::Receiver<Seq>,
    /// What is told besides.
    pub notices: broadcast::Sender<Notice>,
    /// How often a silent stream shows that it lives.
    pub heartbeat: Duration,
    /// Who answers, as `name/version`.
    pub server: Arc<str>,
}

impl Publisher {
    /// Events in one page.
    const PAGE_EVENTS: usize = 500;
    /// About the bytes of one page: what a subscriber that does not read holds in memory.
    const PAGE_BYTES: usize = 256 * 1024;

    /// The blocks for one subscriber: `stream` first, then its backlog, then live. Ends only when the log fails.
    ///
    /// `requested` is its id; without a usable one it starts with the `snapshot` newest events.
    pub fn stream(&self, requested: Option<&str>, snapshot: u64) -> impl Stream<Item = StreamBlock> + use<> {
        let standing = self.log.standing();
        let verdict = standing.resolve_cursor(requested);
        let hello = standing.stream_opened(&verdict, requested, &self.server);
        let mut heartbeat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cursor = verdict.after.unwrap_or_else(|| standing.snapshot(snapshot));
        // Its place comes with the first block, so that it has one before its first event.
        let place = Cursor { epoch: standing.epoch.clone(), seq: cursor };
        let subscriber = Subscriber {
            cursor,
            bell: self.bell.clone(),
            notices: self.notices.subscribe(),
            ready: VecDeque::from([block("stream", Some(place), &hello)]),
            heartbeat,
            standing,
            log: Arc::clone(&self.log),
        };
        stream::unfold(subscriber, |mut subscriber| async move {
            let block = subscriber.next().await?;
            Some((block, subscriber))
        })
    }
}

fn block(event: &'static str, id: Option<Cursor>, data: &impl serde::Serialize) -> StreamBlock {
    let data = serde_json::to_string(data).expect("what we say has a JSON form");
    StreamBlock { id, event, data }
}

struct Subscriber {
    log: Arc<dyn EventLog>,
    standing: LogBounds,
    cursor: Seq,
    bell: watch::Receiver<Seq>,
    notices: broadcast::Receiver<Notice>,
    heartbeat: Interval,
    ready: VecDeque<StreamBlock>,
}

impl Subscriber {
    async fn next(&mut self) -> Option<StreamBlock> {
        loop {
            if let Some(block) = self.ready.pop_front() {
                return Some(block);
            }
            if self.cursor < *self.bell.borrow_and_update() {
                self.read_on().await.ok()?;
                continue;
            }
            tokio::select! {
                biased;
                rung = self.bell.changed() => rung.ok()?,
                notice = self.notices.recv() => self.tell(notice)?,
                _ = self.heartbeat.tick() => self.beat(),
            }
        }
    }

    /// Takes the next page into `ready`.
    async fn read_on(&mut self) -> Result<(), LogError> {
        let (log, after) = (Arc::clone(&self.log), self.cursor);
        let page = tokio::task::spawn_blocking(move || {
            log.page(after, Publisher::PAGE_EVENTS, Publisher::PAGE_BYTES)
        })
        .await
        .map_err(|e| LogError(e.to_string()))??;
        if page.missed > 0 {
            let oldest = page.events.first().map(|e| self.id(e.seq));
            self.ready.push_back(block("gap", None, &Gap { missed: page.missed, oldest }));
        }
        for LogEvent { seq, kind, json } in page.events {
            self.cursor = seq;
            let id = Some(self.id(seq));
            self.ready.push_back(StreamBlock { id, event: kind.as_str(), data: json });
        }
        Ok(())
    }

    fn tell(&mut self, notice: Result<Notice, broadcast::error::RecvError>) -> Option<()> {
        let block = match notice {
            Ok(Notice::Source(json)) => StreamBlock { id: None, event: "source", data: json.to_string() },
            Ok(Notice::Catalogue) | Err(broadcast::error::RecvError::Lagged(_)) => {
                StreamBlock { id: None, event: "catalogue", data: "{}".to_owned() }
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        self.ready.push_back(block);
        Some(())
    }

    /// Says that we live and where the reader stands.
    fn beat(&mut self) {
        self.standing = self.log.standing();
        let (oldest, head) = (self.id(self.standing.oldest), self.id(self.standing.head));
        let data = serde_json::json!({ "oldest": oldest, "head": head });
        self.ready.push_back(block("heartbeat", Some(self.id(self.cursor)), &data));
    }

    fn id(&self, seq: Seq) -> Cursor {
        Cursor { epoch: self.standing.epoch.clone(), seq }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::Mutex};

    use futures_util::StreamExt as _;
    use news::Epoch;

    use super::*;

    /// A log in memory that forgets its oldest events on demand.
    struct Memory {
        head: Mutex<u64>,
        oldest: Mutex<u64>,
    }

    impl EventLog for Memory {
        fn standing(&self) -> LogBounds {
            let epoch = Epoch::try_new("e").unwrap();
            LogBounds {
                epoch,
                oldest: Seq(*self.oldest.lock().unwrap()),
                head: Seq(*self.head.lock().unwrap()),
            }
        }

        fn page(&self, after: Seq, limit: usize, _: usize) -> Result<LogPage, LogError> {
            let LogBounds { oldest, head, .. } = self.standing();
            let first = after.0.max(oldest.0 - 1) + 1;
            let events = (first..=head.0).take(limit.min(3));
            let event = |seq| LogEvent { seq: Seq(seq), kind: EventKind::Item, json: "{}".into() };
            Ok(LogPage { events: events.map(event).collect(), missed: first - after.0 - 1 })
        }
    }

    fn publisher(head: u64) -> (Arc<Memory>, watch::Sender<Seq>, Publisher) {
        let log = Arc::new(Memory { head: Mutex::new(head), oldest: Mutex::new(1) });
        let (ring, bell) = watch::channel(Seq(head));
        let publisher = Publisher {
            log: Arc::clone(&log) as Arc<dyn EventLog>,
            bell,
            notices: broadcast::channel(4).0,
            heartbeat: Duration::from_secs(2),
            server: "test".into(),
        };
        (log, ring, publisher)
    }

    async fn take(stream: &mut (impl Stream<Item = StreamBlock> + Unpin), n: usize) -> Vec<String> {
        let blocks: Vec<_> = stream.take(n).collect().await;
        blocks
            .iter()
            .map(|b| b.id.as_ref().map_or(b.event.to_owned(), |id| format!("{} {id}", b.event)))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_backlog_comes_first_and_the_bell_brings_the_rest_without_a_seam() {
        let (log, ring, publisher) = publisher(4);
        let mut stream = pin!(publisher.stream(Some("e-1"), 0));
        assert_eq!(take(&mut stream, 4).await, ["stream e-1", "item e-2", "item e-3", "item e-4"]);
        *log.head.lock().unwrap() = 6;
        ring.send_replace(Seq(6));
        assert_eq!(take(&mut stream, 2).await, ["item e-5", "item e-6"]);
        assert_eq!(take(&mut stream, 1).await, ["heartbeat e-6"], "a silent stream shows that it lives");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_falls_behind_is_told_where_the_log_begins() {
        let (log, ring, publisher) = publisher(2);
        let mut stream = pin!(publisher.stream(None, 1));
        assert_eq!(take(&mut stream, 2).await, ["stream e-1", "item e-2"]);
        *log.head.lock().unwrap() = 20;
        *log.oldest.lock().unwrap() = 18;
        ring.send_replace(Seq(20));
        let gap = stream.next().await.unwrap();
        assert_eq!((gap.event, gap.data.as_str()), ("gap", r#"{"missed":15,"oldest":"e-18"}"#));
        assert_eq!(take(&mut stream, 3).await, ["item e-18", "item e-19", "item e-20"]);
    }

    #[tokio::test(start_paused = true)]
    async fn lost_notices_are_announced_by_the_catalogue_block() {
        let (_log, _ring, publisher) = publisher(0);
        let mut stream = pin!(publisher.stream(None, 0));
        assert_eq!(take(&mut stream, 1).await, ["stream e-0"]);
        for _ in 0..9 {
            publisher.notices.send(Notice::Source("{}".into())).unwrap();
        }
        assert_eq!(take(&mut stream, 3).await, ["catalogue", "source", "source"]);
    }
}
