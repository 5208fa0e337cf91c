//! What the visits of all sources share.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use actix::Recipient;
use daemon::Clock;
use fetch::{Visitor, schedule::IntervalBounds};
use news::{Epoch, Timestamp};
use sources::CredentialFiles;
use tokio::sync::{Semaphore, broadcast};

use super::{crash_guard::CrashGuard, lost_time::LostTime, outage::OutageDetector};
use crate::{
    messages::RecordVisit, queue::limiter::HostLimiter, status::metrics::IngestMetrics,
    websub::messages::SourceVisited,
};

/// Turns the bytes of a body into a document.
pub(crate) type ParseFn = fn(&[u8], &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError>;

/// How long a document may be parsed.
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

/// What the visits of all sources on one arbiter share.
pub(crate) struct VisitContext {
    pub(crate) visitor: Visitor,
    pub(crate) credentials: CredentialFiles,
    pub(crate) limiter: HostLimiter,
    /// How many documents may be parsed at once: a permit stays with its thread until that really ends.
    pub(crate) parsers: Arc<Semaphore>,
    /// `feed::read`, except in tests of its failures.
    pub(crate) parse: ParseFn,
    pub(crate) parse_limits: ParseLimits,
    pub(crate) crash_guard: CrashGuard,
    /// What this event loop has lost.
    pub(crate) lost_time: LostTime,
    pub(crate) outage: RefCell<OutageDetector>,
    pub(crate) recorder: Recipient<RecordVisit>,
    /// Notified of each visit of a source with a hub; `None` while WebSub is off.
    pub(crate) websub: Option<Recipient<SourceVisited>>,
    pub(crate) notices: broadcast::Sender<wire::Notice>,
    /// A reload may change them.
    pub(crate) interval_bounds: Cell<IntervalBounds>,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Clock,
    pub(crate) metrics: IngestMetrics,
}

impl VisitContext {
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.now_millis())
    }
}
