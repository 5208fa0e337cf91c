//! Step 8 of the life of an item: the store's log as the wire reads it.

use actix_web::http::header::HeaderMap;
use news::{Cursor, Seq, Timestamp};
use store::{DamagedEvents, LogReadError, LogReader, StoredEvent};
use wire::{EventLog, LogBounds, LogError, LogEvent, LogPage, NEWEST_EVENT_HASH, NEWEST_EVENT_ID};

use crate::status::metrics::IngestMetrics;

// A gateway takes an event of this size, with its id and its name around it.
const _: () = assert!(StoredEvent::JSON_BYTES_MAX + 1024 <= wire::Subscription::BLOCK_BYTES_MAX);

/// The log on disk. Reading blocks; the wire reads in the blocking pool.
///
/// A read that fails fails its request, and stops nothing else: what can be read is still served.
#[derive(Clone, Debug)]
pub(crate) struct WireLog {
    pub(crate) reader: LogReader,
    pub(crate) metrics: IngestMetrics,
}

impl WireLog {
    /// The sequence number before the first event recorded since `instant`. Blocks.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    pub(crate) fn before(&self, instant: Timestamp) -> Result<Seq, LogError> {
        let first = self.read(|reader| reader.first_since(instant))?;
        Ok(first.previous())
    }

    /// The events before `before` and not before `floor`, the newest first; at most `limit` and about `bytes`, but at
    /// least one if there is one. Blocks.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    pub(crate) fn page_before(
        &self,
        before: Seq,
        floor: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<LogEvent>, LogError> {
        let records = self.read(|reader| reader.page_before(before, floor, limit, bytes))?;
        Ok(records.into_iter().map(|r| LogEvent { seq: r.seq, kind: r.kind, json: r.json }).collect())
    }

    /// Whether this log lacks an event that a gateway has seen, of the same epoch. If so, later starts know it, too. Blocks.
    pub(crate) fn is_older_copy(&self, seen: &SeenByGateway) -> Result<bool, LogError> {
        let is_older = self.lacks(seen)?;
        if is_older {
            self.reader.mark_copied().map_err(|error| self.failed(&error))?;
        }
        Ok(is_older)
    }

    fn lacks(&self, seen: &SeenByGateway) -> Result<bool, LogError> {
        let bounds = self.bounds();
        let SeenByGateway { id, hash } = seen;
        if id.epoch != bounds.epoch {
            return Ok(false);
        }
        if id.seq > bounds.head {
            return Ok(true);
        }
        let Some(hash) = hash else { return Ok(false) };
        let page = self.page(id.seq.previous(), 1, 1)?;
        // One that retention has removed, or that is damaged, tells nothing.
        let here = page.events.first().filter(|event| event.seq == id.seq);
        Ok(here.is_some_and(|event| wire::event_hash(event.json.as_bytes()) != *hash))
    }

    fn read<T>(&self, read: impl FnOnce(&LogReader) -> Result<T, LogReadError>) -> Result<T, LogError> {
        #[cfg(feature = "drill")]
        crate::drill::fail_a_read().map_err(|error| self.failed(&error))?;
        let result = read(&self.reader).map_err(|error| self.failed(&error));
        for damage in self.reader.take_damage() {
            self.report(&damage);
        }
        result
    }

    /// Each event that is left out is reported once, by the first one who reads it.
    fn report(&self, damage: &DamagedEvents) {
        self.metrics.events_damaged.inc_by(damage.count);
        if let Some(bytes) = damage.too_large {
            return tracing::error!(
                epoch = %self.reader.epoch(),
                seq = damage.first.0,
                bytes,
                bytes_max = StoredEvent::JSON_BYTES_MAX,
                source = damage.source.as_ref().map(tracing::field::display),
                "an event in the log is too large to be sent; readers are told a gap of one, and all else is served; \
                 `newswire log export` writes it"
            );
        }
        tracing::error!(
            seq = damage.first.0,
            events = damage.count,
            source = damage.source.as_ref().map(tracing::field::display),
            "events in the log are damaged; readers are told a gap of so many, and all else is served; check the disk, and \
             restore a backup to have them back (newswire log restore)"
        );
    }

    fn failed(&self, error: &dyn std::error::Error) -> LogError {
        self.metrics.log_read_errors.inc();
        if self.metrics.progress.read_failures.note() {
            tracing::error!(
                %error,
                "a part of the log cannot be read and is not served, all else is; check the disk (dmesg) and its file system"
            );
        }
        LogError(error.to_string())
    }
}

impl EventLog for WireLog {
    fn bounds(&self) -> LogBounds {
        // Oldest before head: the head may advance in between, but the oldest never passes it.
        let oldest = self.reader.oldest();
        LogBounds { epoch: self.reader.epoch().clone(), oldest, head: self.reader.head() }
    }

    #[expect(clippy::disallowed_methods, reason = "the wire calls it on a thread of the blocking pool")]
    fn page(&self, after: Seq, limit: usize, bytes: usize) -> Result<LogPage, LogError> {
        let head = self.reader.head();
        let page = self.read(|reader| reader.page(after, limit, bytes))?;
        let events: Vec<_> =
            page.records.into_iter().map(|r| LogEvent { seq: r.seq, kind: r.kind, json: r.json }).collect();
        // Ids are exact: whatever lies between them is missing, and without an event everything up to the head is.
        let missed = after.missing_before(events.first().map_or(head.next(), |event| event.seq));
        Ok(LogPage { events, missed })
    }
}

/// The newest event that a gateway has ever seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenByGateway {
    pub(crate) id: Cursor,
    /// Its [`wire::event_hash`], if the gateway has the event.
    pub(crate) hash: Option<String>,
}

impl SeenByGateway {
    /// As the headers of a request say; one of an older version names only the event that it resumes after.
    pub(crate) fn of(headers: &HeaderMap, requested: Option<&str>) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let id = text(NEWEST_EVENT_ID).or(requested)?.parse().ok()?;
        Some(Self { id, hash: text(NEWEST_EVENT_HASH).map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use daemon::metrics::MetricsRegistry;
    use news::{FeedUrl, Item, Source, SourceId};
    use store::{LogWriter, VisitRecord};

    use super::*;

    /// A log of so many events, in the same folder at every call.
    fn log_of(folder: &std::path::Path, events: u64) -> (LogWriter, WireLog) {
        let (mut writer, reader) = store::open(folder, &store::StoreOptions::default()).unwrap();
        let url = FeedUrl::try_new("https://example.org/feed").unwrap();
        let source = Arc::new(Source::new(SourceId::try_new("a").unwrap(), url));
        let item = |n: u64| {
            let (key, title) = (format!("key {n}"), format!("story {n}"));
            Item { guid: Some(key.clone()), key, title, ..Item::default() }
        };
        let items = (reader.head().0 + 1..=events).map(item).collect();
        let (state, plan) = Default::default();
        let now = Timestamp::from_millis(1_000);
        writer.append(vec![VisitRecord { source, items, state, now, plan }]).unwrap();
        let metrics = IngestMetrics::register(&MetricsRegistry::new());
        (writer, WireLog { reader, metrics })
    }

    #[test]
    fn no_id_is_too_large_to_be_read_after_or_before() {
        let folder = tempfile::tempdir().unwrap();
        let (_writer, log) = log_of(folder.path(), 5);
        for (after, missed, first) in [(0, 0, Some(1)), (4, 0, Some(5)), (5, 0, None), (u64::MAX, 0, None)] {
            let page = log.page(Seq(after), 1, 1).unwrap();
            let found = page.events.first().map(|event| event.seq.0);
            assert_eq!((page.missed, found), (missed, first), "after {after}");
        }
        for (before, floor, newest) in [
            (0, 0, None),
            (1, 0, None),
            (6, 0, Some(5)),
            (u64::MAX, 0, Some(5)),
            (u64::MAX, u64::MAX, None),
            (3, u64::MAX, None),
        ] {
            let events = log.page_before(Seq(before), Seq(floor), 1, 1).unwrap();
            assert_eq!(events.first().map(|event| event.seq.0), newest, "before {before}, from {floor}");
        }
    }

    #[test]
    fn an_event_that_no_gateway_can_take_is_left_out_everywhere_and_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, log) = log_of(folder.path(), 2);
        let visit = |id: &str, bytes: usize| {
            let url = FeedUrl::try_new("https://example.org/feed").unwrap();
            let source = Arc::new(Source::new(SourceId::try_new(id).unwrap(), url));
            let (guid, key, title) = (Some(id.to_owned()), id.to_owned(), "x".repeat(bytes));
            let items = vec![Item { guid, key, title, ..Item::default() }];
            let (state, plan) = Default::default();
            VisitRecord { source, items, state, now: Timestamp::from_millis(2_000), plan }
        };
        writer.append(vec![visit("b", 5 << 20), visit("c", 4_000_000)]).unwrap();

        let first = log.page(Seq(0), 500, usize::MAX).unwrap();
        assert_eq!((first.missed, first.events.len()), (0, 2));
        let next = log.page(Seq(2), 500, usize::MAX).unwrap();
        assert_eq!((next.missed, next.events.len(), next.events[0].seq), (1, 1, Seq(4)));
        let newest = log.page_before(Seq(u64::MAX), Seq(1), 500, usize::MAX).unwrap();
        assert_eq!(newest.iter().map(|event| event.seq.0).collect::<Vec<_>>(), [4, 2, 1]);
        assert_eq!(log.metrics.events_damaged.get(), 1);
    }

    #[test]
    fn a_log_without_an_event_that_a_gateway_has_seen_is_an_older_copy_whatever_came_since() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (_writer, log) = log_of(folder.path(), 5);
        let bounds = log.bounds();
        let seen = |seq: u64, json: Option<&str>| SeenByGateway {
            id: Cursor { epoch: bounds.epoch.clone(), seq: Seq(seq) },
            hash: json.map(|json| wire::event_hash(json.as_bytes())),
        };
        let third = log.page(Seq(2), 1, 1).unwrap().events.remove(0).json;
        for (seen, expected) in [
            (seen(3, Some(&third)), false),
            (seen(3, None), false),
            (seen(0, None), false),
            (seen(5, None), false),
            // The copy has grown past it, with another event in its place.
            (seen(3, Some("{\"title\":\"another\"}")), true),
            (seen(6, None), true),
            (seen(6, Some(&third)), true),
            (seen(u64::MAX, None), true),
        ] {
            assert_eq!(log.is_older_copy(&seen).unwrap(), expected, "{seen:?}");
        }
        let (_writer, another) = log_of(other.path(), 2);
        assert!(!another.is_older_copy(&seen(6, None)).unwrap(), "ids of another epoch tell nothing");
    }

    #[test]
    fn what_a_gateway_has_seen_is_in_its_headers_or_is_what_it_resumes_after() {
        let mut headers = HeaderMap::new();
        assert_eq!(SeenByGateway::of(&headers, None), None);
        assert_eq!(SeenByGateway::of(&headers, Some("nonsense")), None);
        let id = |text: &str| text.parse::<Cursor>().unwrap();
        let resumed = SeenByGateway::of(&headers, Some("e-7"));
        assert_eq!(resumed, Some(SeenByGateway { id: id("e-7"), hash: None }));
        headers.insert(NEWEST_EVENT_ID.parse().unwrap(), "e-9".parse().unwrap());
        headers.insert(NEWEST_EVENT_HASH.parse().unwrap(), "0123456789abcdef".parse().unwrap());
        let seen = SeenByGateway { id: id("e-9"), hash: Some("0123456789abcdef".to_owned()) };
        assert_eq!(SeenByGateway::of(&headers, Some("e-7")), Some(seen));
    }
}
