//! Where finished lines go: into the queue of standard error or of the journal, or into a test's memory.

use crate::line_queue::{LineQueue, LineShare};

/// Takes finished lines, newline included; the journal takes whole records. Never waits and never fails: the queue counts
/// what cannot be written.
pub(super) trait LineWriter: Send + Sync {
    fn write(&self, line: String, share: LineShare);
}

impl LineWriter for LineQueue {
    fn write(&self, line: String, share: LineShare) {
        self.push(line.into_bytes(), share);
    }
}
