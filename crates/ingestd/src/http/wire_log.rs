//! Step 8 of the life of an item: the store's log as the wire reads it.

use std::sync::{Arc, OnceLock};

use news::{Seq, Timestamp};
use store::{LogReadError, LogReader};
use tokio_util::sync::CancellationToken;
use wire::{EventLog, LogBounds, LogError, LogEvent, LogPage};

/// The log on disk. Reading blocks; the wire reads in the blocking pool.
#[derive(Clone, Debug)]
pub(crate) struct WireLog {
    pub(crate) reader: LogReader,
    pub(crate) failure: LogFailure,
}

/// Stops the process when the log cannot be read: our own data is never served in part.
#[derive(Clone, Debug)]
pub(crate) struct LogFailure {
    stop: CancellationToken,
    reason: Arc<OnceLock<String>>,
}

impl LogFailure {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { stop, reason: Arc::default() }
    }

    fn report(&self, reason: String) {
        // Only the first reason is kept.
        self.reason.set(reason).ok();
        self.stop.cancel();
    }

    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }
}

impl WireLog {
    /// The sequence number before the first event recorded since `instant`. Blocks.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    pub(crate) fn before(&self, instant: Timestamp) -> Result<Seq, LogError> {
        let first = self.reader.first_since(instant).map_err(|error| self.failed(&error))?;
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
        let records =
            self.reader.page_before(before, floor, limit, bytes).map_err(|error| self.failed(&error))?;
        Ok(records.into_iter().map(|r| LogEvent { seq: r.seq, kind: r.kind, json: r.json }).collect())
    }

    fn failed(&self, error: &LogReadError) -> LogError {
        self.failure.report(error.to_string());
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
        let page = self.reader.page(after, limit, bytes).map_err(|error| self.failed(&error))?;
        let events =
            page.records.into_iter().map(|r| LogEvent { seq: r.seq, kind: r.kind, json: r.json }).collect();
        Ok(LogPage { events, missed: page.missed })
    }
}
