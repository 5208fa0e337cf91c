//! Parts of the stream for readers that were away for long, by direct gets: any server that keeps the stream answers them, and
//! none has to remember a reader.
//!
//! A server that is behind may not have what the leader has; so what it does not find is asked of the leader before it counts
//! as missing.

use std::time::Duration;

use async_nats::jetstream::{
    message::StreamMessage,
    stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream},
};
use futures_util::{StreamExt as _, stream};
use news::{Cursor, Epoch, Seq, Timestamp};
use serde::Serialize;
use tokio::sync::watch;

use super::{
    event_stream::{EventStream, StreamProblem, chain},
    message::EventMessage,
};
use crate::resume::LogBounds;

/// Events that are asked for at the same time, for one page.
const IN_FLIGHT_MAX: usize = 16;
/// Numbers without an event that one page passes over one by one; with more, the next event is searched for.
const HOLES_IN_ROW_MAX: usize = 8;

/// How often, and after which pause, a stream is looked at again that ends before an id of a reader. Pages are read one after
/// the other, so an id that was made up must not take long.
const AHEAD_LOOKS: usize = 2;
const AHEAD_LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Reads pages of the stream whose bounds a subscription knows. Cheap to clone.
#[derive(Clone)]
pub struct StreamPages {
    stream: EventStream,
    bounds: watch::Receiver<Option<LogBounds>>,
}

/// Where a page begins, and in which direction it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStart<'a> {
    /// The events after this one.
    After(&'a Cursor),
    /// The first event stored since then, and what follows it. After a new epoch, what was published again counts as stored then:
    /// a reader gets more than it asked for, and misses nothing.
    Since(Timestamp),
    /// The events before this one, the newest first, down to the first one recorded since an instant.
    Before(&'a Cursor, Option<Timestamp>),
}

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageProblem {
    /// The id is of another epoch.
    #[error("this id belongs to another epoch")]
    OtherEpoch,
    /// The stream cannot be read now.
    #[error(transparent)]
    Stream(#[from] StreamProblem),
}

/// All of a page but its events; the same as the answer of a daemon at `/log`.
#[derive(Serialize)]
struct PageHead {
    epoch: Epoch,
    oldest: Cursor,
    head: Cursor,
    missed: u64,
    next: Option<Cursor>,
}

/// The events of a page.
#[derive(Default)]
struct PageEvents {
    events: Vec<(u64, bytes::Bytes)>,
    bytes: usize,
}

impl PageEvents {
    fn add(&mut self, epoch: &Epoch, message: StreamMessage) {
        // What is no event is a number without an event.
        let Ok(event) = EventMessage::from_received(&message.headers, message.payload) else { return };
        let json = event.json_with_id(&EventStream::id(epoch, message.sequence));
        self.bytes += json.len();
        self.events.push((message.sequence, json));
    }

    fn is_full(&self, limit: usize, bytes: usize) -> bool {
        self.events.len() >= limit || (self.bytes >= bytes && !self.events.is_empty())
    }
}

impl StreamPages {
    pub(super) fn new(stream: EventStream, bounds: watch::Receiver<Option<LogBounds>>) -> Self {
        Self { stream, bounds }
    }

    /// A page as JSON, `{"epoch","oldest","head","missed","next","events":[Event]}`: at most `limit` events, and about `bytes`
    /// of them, but one if there is one. `missed` is the number of events that are missing before the first one, or up to the
    /// end; `next` is where the next page begins.
    ///
    /// # Errors
    /// [`PageProblem`]
    pub async fn read(
        &self,
        start: PageStart<'_>,
        limit: usize,
        bytes: usize,
    ) -> Result<String, PageProblem> {
        let bounds = self.bounds.borrow().clone();
        let mut bounds =
            bounds.ok_or_else(|| StreamProblem::NotConnected(self.stream.connection().trouble()))?;
        if let PageStart::After(cursor) = start
            && cursor.epoch == bounds.epoch
            && cursor.seq > bounds.head
        {
            bounds.head = self.head_beside(cursor).await?.max(bounds.head);
        }
        let stream = self.stream.handle().await?;
        let page = self.read_within(bounds.clone(), stream, start, limit, bytes).await?;
        // The stream is found by its name: made anew in the meantime, it has other events under these numbers.
        let (record, _) = self.stream.look().await?;
        if record.epoch != bounds.epoch {
            return Err(PageProblem::OtherEpoch);
        }
        Ok(page)
    }

    /// The newest number of the stream, for an id that is newer than what this process has read: another gateway was quicker.
    /// One below the id means that there is no such event.
    async fn head_beside(&self, cursor: &Cursor) -> Result<Seq, PageProblem> {
        let mut looks = 0;
        loop {
            let (record, state) = self.stream.look().await?;
            if record.epoch != cursor.epoch {
                return Err(PageProblem::OtherEpoch);
            }
            looks += 1;
            if state.last >= cursor.seq.0 || looks > AHEAD_LOOKS {
                return Ok(Seq(state.last));
            }
            // A leader that was just elected may not have applied everything yet.
            tokio::time::sleep(AHEAD_LOOK_INTERVAL).await;
        }
    }

    async fn read_within(
        &self,
        bounds: LogBounds,
        stream: Stream<()>,
        start: PageStart<'_>,
        limit: usize,
        bytes: usize,
    ) -> Result<String, PageProblem> {
        let reader = PageReader { subjects: self.stream.connection().names().events(), stream, bounds };
        match start {
            PageStart::After(cursor) => reader.upwards(reader.own(cursor)?, limit, bytes).await,
            PageStart::Since(instant) => {
                let first = reader.first_since(instant).await?;
                reader.upwards(first - 1, limit, bytes).await
            }
            PageStart::Before(cursor, since) => {
                let floor = match since {
                    Some(instant) => reader.first_since(instant).await?,
                    None => 1,
                };
                reader.downwards(reader.own(cursor)?, floor, limit, bytes).await
            }
        }
    }
}

struct PageReader {
    stream: Stream<()>,
    subjects: String,
    bounds: LogBounds,
}

impl PageReader {
    fn own(&self, cursor: &Cursor) -> Result<u64, PageProblem> {
        if cursor.epoch != self.bounds.epoch {
            return Err(PageProblem::OtherEpoch);
        }
        Ok(cursor.seq.0)
    }

    async fn upwards(&self, after: u64, limit: usize, bytes: usize) -> Result<String, PageProblem> {
        let head = self.bounds.head.0;
        let mut page = PageEvents::default();
        let mut next = after.saturating_add(1).max(self.bounds.oldest.0);
        while next <= head && !page.is_full(limit, bytes) {
            let numbers = next..=head.min(next + (limit - page.events.len()) as u64 - 1);
            next = self.take(numbers, &mut page, limit, bytes).await?;
        }
        let end = page.events.last().map_or(head, |(seq, _)| *seq);
        let missed = match page.events.first() {
            Some((first, _)) => Seq(after).missing_before(Seq(*first)),
            None => head.saturating_sub(after),
        };
        Ok(self.page(&page, missed, Some(end).filter(|end| *end < head)))
    }

    /// Reads these numbers upwards; returns the one after the last that was read, or the first that there is after a row of
    /// numbers without an event.
    async fn take(
        &self,
        numbers: std::ops::RangeInclusive<u64>,
        page: &mut PageEvents,
        limit: usize,
        bytes: usize,
    ) -> Result<u64, PageProblem> {
        let mut messages = stream::iter(numbers.clone()).map(|seq| self.message(seq)).buffered(IN_FLIGHT_MAX);
        let (mut holes, mut read) = (0, *numbers.start());
        while let Some(message) = messages.next().await {
            read += 1;
            match message? {
                Some(message) => {
                    holes = 0;
                    page.add(&self.bounds.epoch, message);
                    if page.is_full(limit, bytes) {
                        return Ok(read);
                    }
                }
                None => holes += 1,
            }
            if holes >= HOLES_IN_ROW_MAX {
                let found = self.next_from(read).await?;
                return Ok(found.map_or(self.bounds.head.0 + 1, |message| message.sequence));
            }
        }
        Ok(read)
    }

    async fn downwards(
        &self,
        before: u64,
        floor: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<String, PageProblem> {
        let floor = floor.max(self.bounds.oldest.0);
        let mut page = PageEvents::default();
        let mut below = before.min(self.bounds.head.0 + 1);
        while below > floor && !page.is_full(limit, bytes) {
            let lowest = floor.max(below.saturating_sub((limit - page.events.len()) as u64));
            let numbers = (lowest..below).rev();
            let mut messages = stream::iter(numbers).map(|seq| self.message(seq)).buffered(IN_FLIGHT_MAX);
            let (mut holes, mut read) = (0, below);
            while let Some(message) = messages.next().await {
                read -= 1;
                match message? {
                    Some(message) => {
                        holes = 0;
                        page.add(&self.bounds.epoch, message);
                    }
                    None => holes += 1,
                }
                if page.is_full(limit, bytes) || holes >= HOLES_IN_ROW_MAX {
                    break;
                }
            }
            drop(messages);
            below = read;
            if holes >= HOLES_IN_ROW_MAX && below > floor {
                below = self.last_before(below, floor).await?.map_or(floor, |last| last + 1);
            }
        }
        let next = page.events.last().map(|(seq, _)| *seq).filter(|last| *last > floor);
        Ok(self.page(&page, 0, next))
    }

    /// The number of the first event stored since an instant, or the one after the head.
    async fn first_since(&self, instant: Timestamp) -> Result<u64, PageProblem> {
        // Everything below `low` is older, everything from `high` on is not.
        let (mut low, mut high) = (self.bounds.oldest.0, self.bounds.head.0 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.next_from(middle).await? {
                Some(message) if message.sequence < high => {
                    let stored = message.time.unix_timestamp_nanos() / 1_000_000;
                    if stored < i128::from(instant.millis()) {
                        low = message.sequence + 1;
                    } else {
                        high = middle;
                    }
                }
                _ => high = middle,
            }
        }
        // The event itself, and not the hole before it.
        Ok(self.next_from(low).await?.map_or(self.bounds.head.0 + 1, |message| message.sequence))
    }

    /// The number of the last event below `before` and not below `floor`.
    async fn last_before(&self, before: u64, floor: u64) -> Result<Option<u64>, PageProblem> {
        let mut step = 1_u64;
        let mut found = loop {
            let from = before.saturating_sub(step).max(floor);
            match self.next_from(from).await? {
                Some(message) if message.sequence < before => break message.sequence,
                _ if from == floor => return Ok(None),
                _ => step = step.saturating_mul(2),
            }
        };
        // Nothing is between `found` and `none` until the search has ended.
        let mut none = before;
        while found + 1 < none {
            let middle = found + 1 + (none - found - 1) / 2;
            match self.next_from(middle).await? {
                Some(message) if message.sequence < none => found = message.sequence,
                _ => none = middle,
            }
        }
        Ok(Some(found))
    }

    /// One event; `None` if the stream does not have it.
    async fn message(&self, seq: u64) -> Result<Option<StreamMessage>, StreamProblem> {
        match self.stream.direct_get(seq).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                match self.stream.get_raw_message(seq).await {
                    Ok(message) => Ok(Some(message)),
                    Err(error) if is_not_found(&error.kind()) => Ok(None),
                    Err(error) => Err(StreamProblem::NoAnswer(chain(&error))),
                }
            }
            Err(error) => Err(StreamProblem::NoAnswer(chain(&error))),
        }
    }

    /// The first event from a number on.
    async fn next_from(&self, seq: u64) -> Result<Option<StreamMessage>, StreamProblem> {
        let subjects = || self.subjects.clone();
        match self.stream.direct_get_next_for_subject(subjects(), Some(seq.max(1))).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                let asked =
                    self.stream.raw_message_builder().sequence(seq.max(1)).next_by_subject(subjects());
                match asked.send().await {
                    Ok(message) => Ok(Some(message)),
                    Err(error) if is_not_found(&error.kind()) => Ok(None),
                    Err(error) => Err(StreamProblem::NoAnswer(chain(&error))),
                }
            }
            Err(error) => Err(StreamProblem::NoAnswer(chain(&error))),
        }
    }

    fn page(&self, page: &PageEvents, missed: u64, next: Option<u64>) -> String {
        let id = |seq| EventStream::id(&self.bounds.epoch, seq);
        let head = PageHead {
            epoch: self.bounds.epoch.clone(),
            oldest: id(self.bounds.oldest.0),
            head: id(self.bounds.head.0),
            missed,
            next: next.map(id),
        };
        let mut json = serde_json::to_string(&head).expect("a page has a JSON form");
        json.pop();
        json.reserve(page.bytes + page.events.len() + 16);
        json.push_str(",\"events\":[");
        for (n, (_, event)) in page.events.iter().enumerate() {
            if n > 0 {
                json.push(',');
            }
            json.push_str(std::str::from_utf8(event).expect("an event was checked when it was received"));
        }
        json.push_str("]}");
        json
    }
}

fn is_not_found(kind: &LastRawMessageErrorKind) -> bool {
    const NO_MESSAGE_FOUND: u64 = 10037;
    match kind {
        LastRawMessageErrorKind::NoMessageFound => true,
        LastRawMessageErrorKind::JetStream(error) => error.error_code().0 == NO_MESSAGE_FOUND,
        _ => false,
    }
}
