//! Why the visits in the queue of a host have to wait: shown in the status, counted in the metrics.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use news::RecordingPauseReason;
use notation::humanize;

use super::host::Host;

/// What the queue of a host waits for; shared by all visits in it, and readable from any thread.
#[derive(Debug)]
pub(crate) struct WaitStatus {
    host: Host,
    reason: Mutex<WaitReason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitReason {
    /// The queue is empty.
    NotWaiting,
    /// The host has as many visits in flight as it may have.
    HostInFlight(usize),
    /// The last visit of the host started too recently.
    HostSpacing(Duration),
    /// The host answered with this status and this `Retry-After`.
    HostRetryAfter(u16, Duration),
    /// All slots of the process are in use.
    AllSlots(usize),
    /// All slots that sources on probation may use are in use.
    ProbationSlots(usize),
    /// The memory budget of so many bytes is used up.
    Memory(usize),
    /// Recording is paused.
    RecordingPaused(RecordingPauseReason),
}

impl WaitReason {
    /// The label in the metrics.
    fn label(self) -> &'static str {
        match self {
            Self::NotWaiting => "none",
            Self::HostInFlight(_) => "host-in-flight",
            Self::HostSpacing(_) => "host-spacing",
            Self::HostRetryAfter(..) => "host-asked",
            Self::AllSlots(_) => "in-flight",
            Self::ProbationSlots(_) => "suspects",
            Self::Memory(_) => "memory",
            Self::RecordingPaused(_) => "paused",
        }
    }
}

/// What the request for a list waits for in the queue of its host.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListWait(Arc<Mutex<Option<Arc<WaitStatus>>>>);

impl ListWait {
    /// `None` when it no longer waits.
    pub(crate) fn set(&self, waits_for: Option<Arc<WaitStatus>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = waits_for;
    }

    pub(crate) fn text(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.text()
    }
}

impl WaitStatus {
    pub(super) fn new(host: Host) -> Self {
        Self { host, reason: Mutex::new(WaitReason::NotWaiting) }
    }

    /// Of one visit, in its middle.
    pub(crate) fn for_memory(host: Host, bytes: usize) -> Self {
        Self { host, reason: Mutex::new(WaitReason::Memory(bytes)) }
    }

    pub(super) fn set(&self, reason: WaitReason) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn get(&self) -> WaitReason {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it waits because all slots are in use, or all of those for sources on probation. `None` if it is locked at this
    /// moment.
    pub(crate) fn try_is_for_slot(&self) -> Option<bool> {
        let reason = self.reason.try_lock().ok()?;
        Some(matches!(*reason, WaitReason::AllSlots(_) | WaitReason::ProbationSlots(_)))
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.get() != WaitReason::NotWaiting
    }

    /// The reason as a label in the metrics.
    pub(super) fn label(&self) -> &'static str {
        self.get().label()
    }

    /// The reason as a sentence; `None` if nothing waits.
    pub(crate) fn text(&self) -> Option<String> {
        let host = &self.host;
        Some(match self.get() {
            WaitReason::NotWaiting => return None,
            WaitReason::HostInFlight(1) => format!("1 visit to {host} in progress"),
            WaitReason::HostInFlight(n) => format!("{n} visits to {host} in progress"),
            WaitReason::HostSpacing(spacing) => {
                format!("visits to {host} start at least {} apart", humanize(spacing))
            }
            WaitReason::HostRetryAfter(code, wait) => {
                format!("{host} asked for a pause of {} ({code})", humanize(wait))
            }
            WaitReason::AllSlots(n) => format!("all {n} slots in use"),
            WaitReason::ProbationSlots(n) => {
                format!("all {n} slots for sources that did not answer lately in use")
            }
            WaitReason::Memory(bytes) => {
                format!(
                    "bodies, documents and the queue to the disk use all {bytes} bytes (fetch.memory_bytes)"
                )
            }
            WaitReason::RecordingPaused(reason) => reason.sentence().to_owned(),
        })
    }
}
