//! Step 8 of the life of an item: the store's log as the wire reads it.

use news::{Seq, Timestamp};
use store::{DamagedEvents, LogReadError, LogReader};
use wire::{EventLog, LogBounds, LogError, LogEvent, LogPage};

use crate::status::metrics::IngestMetrics;

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
        Ok(Seq(first.0 - 1))
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

    fn read<T>(&self, read: impl FnOnce(&LogReader) -> Result<T, LogReadError>) -> Result<T, LogError> {
        #[cfg(feature = "drill")]
        crate::drill::fail_a_read().map_err(|error| self.failed(&error))?;
        let result = read(&self.reader).map_err(|error| self.failed(&error));
        for damage in self.reader.take_damage() {
            self.report(&damage);
        }
        result
    }

    /// Each damaged event is reported once, by the first one who reads it.
    fn report(&self, damage: &DamagedEvents) {
        self.metrics.events_damaged.inc_by(damage.count);
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
        let page = self.read(|reader| reader.page(after, limit, bytes))?;
        let events =
            page.records.into_iter().map(|r| LogEvent { seq: r.seq, kind: r.kind, json: r.json }).collect();
        Ok(LogPage { events, missed: page.missed })
    }
}
