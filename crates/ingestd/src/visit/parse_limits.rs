//! How long a document may be parsed.

use std::time::Duration;

/// The limits of one document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParseLimits {
    /// Of the processor, whose time is the document's own: the visit does not wait for a document that needs more. Its thread
    /// keeps the permit until it really ends.
    pub(crate) processor: Duration,
    /// In all, with the waits for a thread, a processor and the disk, which are ours. Then the visit is postponed.
    pub(crate) wait: Duration,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self { processor: Duration::from_secs(30), wait: Duration::from_secs(300) }
    }
}
