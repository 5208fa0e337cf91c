//! Step 9 of the life of an item: out of the process.
//!
//! ```text
//! cursor < head?  yes → a page from the log on disk → blocks → cursor moves
//!                 no  → wait for: a new head | a notice (no id) | the heartbeat
//! ```
//!
//! There is no queue per subscriber: it pulls with its cursor, so it can only fall behind. A `gap` block stands where
//! events are missing: retention removed them before they were read, or they are damaged.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use news::{Cursor, EventKind, RecordingPause, Seq};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use crate::aliases::IdAliases;
use crate::resume::{Gap, LogBounds, ResumeDecision, StreamOpened};

/// A log that is read in pages. `page` may block on a disk, and is called on threads for blocking work.
pub trait EventLog: Send + Sync + 'static {
    /// Its oldest and newest event now.
    fn bounds(&self) -> LogBounds;

    /// The events after `after`: at most `limit`, and about `bytes` of JSON. If `after` is below the newest event, the page
    /// has an event or says that all of them are missing.
    ///
    /// # Errors
    /// [`LogError`] if the log can no longer be read; every stream ends then.
    fn page(&self, after: Seq, limit: usize, bytes: usize) -> Result<LogPage, LogError>;
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log for a subscriber: {0}")]
pub struct LogError(pub String);

/// Events in order.
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// In order. The sequence numbers between two of them are those of events that are missing.
    pub events: Vec<LogEvent>,
    /// Number of events that are missing before the first one; without one, up to the newest.
    pub missed: u64,
}

/// One event.
#[derive(Clone, Debug)]
pub struct LogEvent {
    /// Its sequence number.
    pub seq: Seq,
    /// Item or update.
    pub kind: EventKind,
    /// The event as JSON, on one line.
    pub json: String,
}

/// Something that is sent once to the connected subscribers, without an id.
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
    /// `id:`, if it moves the cursor of the reader.
    pub id: Option<Cursor>,
    /// `event:`.
    pub event: &'static str,
    /// `data:`, on one line.
    pub data: String,
}

/// The data of a heartbeat: the bounds of the log, and why it does not grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireHeartbeat {
    /// The newest event.
    #[serde(default)]
    pub head: Option<Cursor>,
    /// The oldest event kept.
    pub oldest: Cursor,
    /// Empty while events are recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recording_paused: Vec<RecordingPause>,
}

/// Reads why recording is paused; must not block.
pub type RecordingPauses = Arc<dyn Fn() -> Vec<RecordingPause> + Send + Sync>;

/// Makes a stream of blocks for each subscriber.
#[derive(Clone)]
pub struct Publisher {
    /// The log that is read.
    pub log: Arc<dyn EventLog>,
    /// The newest event; subscribers wake when it changes.
    pub head_changed: watch::Receiver<Seq>,
    /// Notices to all subscribers.
    pub notices: broadcast::Sender<Notice>,
    /// What ids of the stream of NATS mean here; each subscriber is told at its start.
    pub aliases: watch::Receiver<Arc<[IdAliases]>>,
    /// A stream gets a heartbeat at this interval while it is silent.
    pub heartbeat: Duration,
    /// Why recording is paused; each heartbeat says so.
    pub recording_pauses: RecordingPauses,
    /// Name and version of this server, `name/version`.
    pub server: Arc<str>,
}

impl Publisher {
    /// Maximum number of events of one page.
    const PAGE_EVENTS: usize = 500;
    /// About the bytes of one page, and so the memory that a stalled subscriber takes.
    const PAGE_BYTES: usize = 256 * 1024;

    /// The blocks for one subscriber: `stream` first, then the backlog, then live events. Ends only if the log fails.
    ///
    /// `requested` is the id that it sent; without a valid one it starts with the `snapshot` newest events.
    pub fn stream(&self, requested: Option<&str>, snapshot: u64) -> impl Stream<Item = StreamBlock> + use<> {
        let bounds = self.log.bounds();
        let decision = bounds.resolve_cursor(requested);
        let opened = bounds.stream_opened(&decision, requested, &self.server);
        let opened = StreamOpened { aliases: self.aliases.borrow().to_vec(), ..opened };
        self.stream_from(bounds, &decision, opened, snapshot)
    }

    /// The same while a subscriber, this or another one, has seen `newest`, an event which this log does not have, in the
    /// same epoch. An id means nothing here then.
    pub fn stream_of_older_copy(
        &self,
        requested: Option<&str>,
        snapshot: u64,
        newest: Cursor,
    ) -> impl Stream<Item = StreamBlock> + use<> {
        let bounds = self.log.bounds();
        let decision = ResumeDecision::RESET;
        let opened = bounds.stream_opened(&decision, requested, &self.server);
        let opened = StreamOpened { older_copy: true, newest_seen: Some(newest), ..opened };
        self.stream_from(bounds, &decision, opened, snapshot)
    }

    fn stream_from(
        &self,
        bounds: LogBounds,
        decision: &ResumeDecision,
        opened: StreamOpened,
        snapshot: u64,
    ) -> impl Stream<Item = StreamBlock> + use<> {
        let mut heartbeat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cursor = decision.after.unwrap_or_else(|| bounds.snapshot(snapshot));
        // The first block has an id, so that the reader has a cursor before its first event.
        let start = Cursor { epoch: bounds.epoch.clone(), seq: cursor };
        let subscriber = Subscriber {
            cursor,
            head_changed: self.head_changed.clone(),
            notices: self.notices.subscribe(),
            recording_pauses: Arc::clone(&self.recording_pauses),
            ready: VecDeque::from([block("stream", Some(start), &opened)]),
            heartbeat,
            bounds,
            log: Arc::clone(&self.log),
        };
        stream::unfold(subscriber, |mut subscriber| async move {
            let block = subscriber.next().await?;
            Some((block, subscriber))
        })
    }
}

fn block(event: &'static str, id: Option<Cursor>, data: &impl serde::Serialize) -> StreamBlock {
    let data = serde_json::to_string(data).expect("every block has a JSON form");
    StreamBlock { id, event, data }
}

struct Subscriber {
    log: Arc<dyn EventLog>,
    bounds: LogBounds,
    cursor: Seq,
    head_changed: watch::Receiver<Seq>,
    notices: broadcast::Receiver<Notice>,
    heartbeat: Interval,
    recording_pauses: RecordingPauses,
    ready: VecDeque<StreamBlock>,
}

impl Subscriber {
    async fn next(&mut self) -> Option<StreamBlock> {
        loop {
            if let Some(block) = self.ready.pop_front() {
                return Some(block);
            }
            if self.cursor < *self.head_changed.borrow_and_update() {
                self.read_page().await.ok()?;
                continue;
            }
            tokio::select! {
                biased;
                changed = self.head_changed.changed() => changed.ok()?,
                notice = self.notices.recv() => self.push_notice(notice)?,
                _ = self.heartbeat.tick() => self.push_heartbeat(),
            }
        }
    }

    /// Reads the next page into `ready`.
    async fn read_page(&mut self) -> Result<(), LogError> {
        let (log, after) = (Arc::clone(&self.log), self.cursor);
        let page = tokio::task::spawn_blocking(move || {
            log.page(after, Publisher::PAGE_EVENTS, Publisher::PAGE_BYTES)
        })
        .await
        .map_err(|e| LogError(e.to_string()))??;
        if page.events.is_empty() && page.missed == 0 {
            return Err(LogError(format!("it has nothing after event {after}, which is not the newest")));
        }
        if page.events.is_empty() {
            self.push_gap(page.missed, None);
        }
        for LogEvent { seq, kind, json } in page.events {
            let missed = self.cursor.missing_before(seq);
            if missed > 0 {
                self.push_gap(missed, Some(seq));
            }
            self.cursor = seq;
            let id = Some(self.id(seq));
            self.ready.push_back(StreamBlock { id, event: kind.as_str(), data: json });
        }
        Ok(())
    }

    /// Adds a gap. Its id is the last event missed: a reader that continues there is not told of it again.
    fn push_gap(&mut self, missed: u64, follows: Option<Seq>) {
        self.cursor = Seq(self.cursor.0.saturating_add(missed));
        let oldest = follows.map(|seq| self.id(seq));
        self.ready.push_back(block("gap", Some(self.id(self.cursor)), &Gap { missed, oldest }));
    }

    fn push_notice(&mut self, notice: Result<Notice, broadcast::error::RecvError>) -> Option<()> {
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

    /// Adds a heartbeat with the cursor of the reader.
    fn push_heartbeat(&mut self) {
        self.bounds = self.log.bounds();
        let (oldest, head) = (self.id(self.bounds.oldest), self.id(self.bounds.head));
        let data = WireHeartbeat { oldest, head: Some(head), recording_paused: (self.recording_pauses)() };
        self.ready.push_back(block("heartbeat", Some(self.id(self.cursor)), &data));
    }

    fn id(&self, seq: Seq) -> Cursor {
        Cursor { epoch: self.bounds.epoch.clone(), seq }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::Mutex};

    use futures_util::StreamExt as _;
    use news::Epoch;

    use super::*;

    /// A log in memory that drops its oldest events on demand, and in which some are damaged.
    struct Memory {
        head: Mutex<u64>,
        oldest: Mutex<u64>,
        damaged: &'static [u64],
    }

    impl EventLog for Memory {
        fn bounds(&self) -> LogBounds {
            let epoch = Epoch::try_new("e").unwrap();
            LogBounds {
                epoch,
                oldest: Seq(*self.oldest.lock().unwrap()),
                head: Seq(*self.head.lock().unwrap()),
            }
        }

        fn page(&self, after: Seq, limit: usize, _: usize) -> Result<LogPage, LogError> {
            let LogBounds { oldest, head, .. } = self.bounds();
            let kept = (after.next().max(oldest).0..=head.0).filter(|seq| !self.damaged.contains(seq));
            let event = |seq| LogEvent { seq: Seq(seq), kind: EventKind::Item, json: "{}".into() };
            let events: Vec<_> = kept.take(limit.min(3)).map(event).collect();
            let missed = after.missing_before(events.first().map_or(head.next(), |event| event.seq));
            Ok(LogPage { events, missed })
        }
    }

    fn publisher(head: u64) -> (Arc<Memory>, watch::Sender<Seq>, Publisher) {
        publisher_of(head, &[])
    }

    fn publisher_of(head: u64, damaged: &'static [u64]) -> (Arc<Memory>, watch::Sender<Seq>, Publisher) {
        let log = Arc::new(Memory { head: Mutex::new(head), oldest: Mutex::new(1), damaged });
        let (head, head_changed) = watch::channel(Seq(head));
        let publisher = Publisher {
            log: Arc::clone(&log) as Arc<dyn EventLog>,
            head_changed,
            notices: broadcast::channel(4).0,
            aliases: watch::channel(Arc::default()).1,
            heartbeat: Duration::from_secs(2),
            recording_pauses: Arc::new(Vec::new),
            server: "test".into(),
        };
        (log, head, publisher)
    }

    async fn take(stream: &mut (impl Stream<Item = StreamBlock> + Unpin), n: usize) -> Vec<String> {
        let blocks: Vec<_> = stream.take(n).collect().await;
        blocks
            .iter()
            .map(|b| b.id.as_ref().map_or(b.event.to_owned(), |id| format!("{} {id}", b.event)))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_backlog_comes_first_and_live_events_follow_without_a_hole() {
        let (log, head, publisher) = publisher(4);
        let mut stream = pin!(publisher.stream(Some("e-1"), 0));
        assert_eq!(take(&mut stream, 4).await, ["stream e-1", "item e-2", "item e-3", "item e-4"]);
        *log.head.lock().unwrap() = 6;
        head.send_replace(Seq(6));
        assert_eq!(take(&mut stream, 2).await, ["item e-5", "item e-6"]);
        assert_eq!(take(&mut stream, 1).await, ["heartbeat e-6"], "a silent stream has heartbeats");
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_says_why_nothing_is_recorded_and_is_as_before_while_events_are() {
        let (_log, _head, publisher) = publisher(2);
        let pauses = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&pauses);
        let recording_pauses: RecordingPauses = Arc::new(move || shown.lock().unwrap().clone());
        let publisher = Publisher { recording_pauses, ..publisher };
        let mut stream = pin!(publisher.stream(Some("e-2"), 0));
        assert_eq!(take(&mut stream, 1).await, ["stream e-2"]);
        assert_eq!(stream.next().await.unwrap().data, r#"{"head":"e-2","oldest":"e-1"}"#);
        let (reason, since) =
            (news::RecordingPauseReason::DiskSpace, news::Timestamp::from_millis(1_700_000_000_000));
        pauses.lock().unwrap().push(RecordingPause { reason, since, detail: "3 left".into() });
        let heartbeat: WireHeartbeat = serde_json::from_str(&stream.next().await.unwrap().data).unwrap();
        assert_eq!(heartbeat.recording_paused, *pauses.lock().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_falls_behind_is_told_where_the_log_begins() {
        let (log, head, publisher) = publisher(2);
        let mut stream = pin!(publisher.stream(None, 1));
        assert_eq!(take(&mut stream, 2).await, ["stream e-1", "item e-2"]);
        *log.head.lock().unwrap() = 20;
        *log.oldest.lock().unwrap() = 18;
        head.send_replace(Seq(20));
        let gap = stream.next().await.unwrap();
        assert_eq!((gap.event, gap.data.as_str()), ("gap", r#"{"missed":15,"oldest":"e-18"}"#));
        assert_eq!(take(&mut stream, 3).await, ["item e-18", "item e-19", "item e-20"]);
    }

    #[tokio::test(start_paused = true)]
    async fn damaged_events_are_a_gap_of_exactly_that_many_where_they_were() {
        let (log, head, publisher) = publisher_of(9, &[1, 4, 5, 8, 9, 10]);
        let mut stream = pin!(publisher.stream(Some("e-0"), 0));
        let blocks: Vec<_> = stream.by_ref().take(9).collect().await;
        let told: Vec<_> = blocks.iter().map(|b| (b.id.as_ref().unwrap().seq.0, b.event, &*b.data)).collect();
        let (item, gap) = ("item", "gap");
        assert_eq!(
            told[1..],
            [
                (1, gap, r#"{"missed":1,"oldest":"e-2"}"#),
                (2, item, "{}"),
                (3, item, "{}"),
                (5, gap, r#"{"missed":2,"oldest":"e-6"}"#),
                (6, item, "{}"),
                (7, item, "{}"),
                (9, gap, r#"{"missed":2,"oldest":null}"#),
                (9, "heartbeat", r#"{"head":"e-9","oldest":"e-1"}"#),
            ],
            "the newest two are missing as well, and then it waits"
        );
        *log.head.lock().unwrap() = 11;
        head.send_replace(Seq(11));
        assert_eq!(take(&mut stream, 2).await, ["gap e-10", "item e-11"]);
    }

    #[tokio::test(start_paused = true)]
    async fn lost_notices_are_announced_by_the_catalogue_block() {
        let (_log, _head, publisher) = publisher(0);
        let mut stream = pin!(publisher.stream(None, 0));
        assert_eq!(take(&mut stream, 1).await, ["stream e-0"]);
        for _ in 0..9 {
            publisher.notices.send(Notice::Source("{}".into())).unwrap();
        }
        assert_eq!(take(&mut stream, 3).await, ["catalogue", "source", "source"]);
    }
}
