//! What the visits of all sources share.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use actix::Recipient;
use daemon::Clock;
use fetch::{Visitor, schedule::IntervalBounds};
use news::{Epoch, Timestamp};
use sources::CredentialFiles;
use tokio::sync::{Semaphore, broadcast};

use super::{
    crash_guard::CrashGuard, lost_time::LostTime, outage::OutageDetector, parse_limits::ParseLimits,
};
use crate::{
    messages::RecordVisit, queue::limiter::HostLimiter, status::metrics::IngestMetrics,
    websub::messages::SourceVisited,
};

/// Turns the bytes of a body into a document.
pub(crate) type ParseFn = fn(&[u8], &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError>;

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
