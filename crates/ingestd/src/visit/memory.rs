//! What one visit uses of the memory budget, from its body to the disk.

use std::sync::Arc;

use daemon::Clock;
use fetch::{ByteBudget, RoomWait};
use news::Timestamp;

use super::context::VisitContext;
use crate::{
    queue::{host::Host, memory::MemoryShare, wait_reason::WaitStatus},
    status::{activity::Activity, registry::SourceEntry},
};

/// The share of a visit, and where it shows that it waits.
#[derive(Debug)]
pub(super) struct VisitMemory {
    share: Arc<MemoryShare>,
    entry: Arc<SourceEntry>,
    host: Host,
    clock: Clock,
}

impl VisitMemory {
    pub(super) fn new(
        ctx: &VisitContext,
        share: Arc<MemoryShare>,
        entry: &Arc<SourceEntry>,
        host: &Host,
    ) -> Self {
        Self { share, entry: Arc::clone(entry), host: host.clone(), clock: ctx.clock.clone() }
    }

    /// For a thread that goes on when the visit has ended.
    pub(super) fn share(&self) -> Arc<MemoryShare> {
        Arc::clone(&self.share)
    }

    /// Completes when the visit may use `bytes` in total; it then goes on with `activity`.
    pub(super) async fn grow_to(&self, bytes: usize, activity: Activity) {
        let Some(room) = self.share.grow_to(bytes) else { return };
        let now = || Timestamp::from_millis(self.clock.now_millis());
        let waits = WaitStatus::for_memory(self.host.clone(), self.share.budget().max());
        self.entry.set_waiting(Arc::new(waits), now());
        room.await;
        self.entry.set_activity(activity, now());
    }
}

impl ByteBudget for VisitMemory {
    fn grow_to(&self, bytes: usize) -> RoomWait<'_> {
        Box::pin(self.grow_to(bytes, Activity::Fetching))
    }

    fn hold(&self, bytes: usize) {
        self.share.hold(bytes);
    }

    fn is_wanted(&self) -> bool {
        self.share.is_wanted()
    }
}
