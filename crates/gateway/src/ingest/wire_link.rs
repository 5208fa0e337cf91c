//! The state of the wire, as the intake last saw it.

use std::sync::{Mutex, PoisonError};

use news::{Cursor, RecordingPause};
use tokio::time::Instant;

/// The state of the wire, shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct WireLink(Mutex<WireState>);

/// The state of the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct WireState {
    pub(crate) connected: bool,
    /// When the daemon last sent anything.
    pub(crate) last_received: Option<Instant>,
    /// Why it is not connected; empty before the first attempt has failed.
    pub(crate) reason: String,
    /// Why the daemon records nothing, as it last said; unknown, so empty, while it is not connected.
    pub(crate) recording_paused: Vec<RecordingPause>,
    /// The log of the daemon is an older copy of the one before.
    pub(crate) older_copy: Option<OlderCopy>,
}

/// A log that does not have an event that this or another gateway has received from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OlderCopy {
    /// Where it ended when the wire connected.
    pub(crate) head: Cursor,
    /// The newest event that was received before.
    pub(crate) newest: Cursor,
}

/// What a failed attempt to connect, or the end of a connection, has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireChange {
    /// It was connected.
    Lost,
    /// It was never tried before.
    FirstFailure,
    None,
}

impl WireLink {
    pub(crate) fn get(&self) -> WireState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the wire is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).connected
    }

    /// Makes every thread wait that needs the state.
    #[cfg(test)]
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, WireState> {
        self.0.lock().unwrap()
    }

    /// Without waiting for the lock.
    pub(crate) fn try_get(&self) -> Option<WireState> {
        self.0.try_lock().ok().map(|state| state.clone())
    }

    /// Records that something was received.
    pub(crate) fn received(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.connected = true;
        state.last_received = Some(Instant::now());
    }

    /// Takes over what the daemon said.
    pub(crate) fn set_recording_paused(&self, pauses: Vec<RecordingPause>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).recording_paused = pauses;
    }

    /// Records whether the log is an older copy.
    pub(crate) fn set_older_copy(&self, older_copy: Option<OlderCopy>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).older_copy = older_copy;
    }

    /// Records a failed attempt or a lost connection; returns what changed.
    pub(crate) fn lost(&self, reason: &str) -> WireChange {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = state.reason.is_empty();
        reason.clone_into(&mut state.reason);
        state.recording_paused.clear();
        match std::mem::replace(&mut state.connected, false) {
            true => WireChange::Lost,
            false if is_first => WireChange::FirstFailure,
            false => WireChange::None,
        }
    }
}
