//! Step 8 of the life of an item: the store's log as the wire reads it.

use store::Reader;
use wire::{Log, LogError, LogEvent, LogPage, Standing};

/// The log on disk. Reading it blocks; the wire does so off the runtime's threads.
#[derive(Clone, Debug)]
pub(crate) struct WireLog(pub(crate) Reader);

impl Log for WireLog {
    fn standing(&self) -> Standing {
        // Oldest before head: in between the head may move on, but the oldest never passes it.
        let oldest = self.0.oldest();
        Standing { epoch: self.0.epoch().clone(), oldest, head: self.0.head() }
    }

    fn page(&self, after: news::Seq, limit: usize, bytes: usize) -> Result<LogPage, LogError> {
        let page = self.0.page(after, limit, bytes).map_err(|error| {
            tracing::error!(%error, "could not read the log");
            LogError(error.to_string())
        })?;
        let events =
            page.records.into_iter().map(|r| LogEvent { seq: r.seq, kind: r.kind, json: r.json }).collect();
        Ok(LogPage { events, missed: page.missed })
    }
}
