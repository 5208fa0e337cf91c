//! Where finished lines go: standard error, the journal or a test's memory. What cannot be written is counted.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Takes finished lines, newline included; the journal takes whole records. Never fails: the writer counts what it
/// cannot write.
pub(super) trait LineWriter: Send + Sync {
    fn write(&self, line: &[u8]);
}

/// Lines that never reach a reader.
#[derive(Debug, Default)]
pub(super) struct LostLines {
    /// Not written because they repeat others.
    pub(super) suppressed: AtomicU64,
    /// Not accepted by the journal or standard error.
    pub(super) dropped: AtomicU64,
}

/// Standard error, one write per line.
pub(super) struct Stderr {
    pub(super) lost: Arc<LostLines>,
}

impl LineWriter for Stderr {
    fn write(&self, line: &[u8]) {
        if io::stderr().lock().write_all(line).is_err() {
            self.lost.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
