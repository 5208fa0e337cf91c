//! The admission of every request of one visit: a redirect takes a permit of the host that it leads to, and waits there
//! like any other visit.
//!
//! ```text
//! permit of the first host ─► redirect ─► released ─► queue of the next host, with the old ticket ─► permit of that host
//! ```
//!
//! A visit holds the permit of one host at a time, and none while it waits, so visits never wait for each other in a
//! circle.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use fetch::{HeldHop, HopEntry, HopGate};
use news::FeedUrl;
use notation::humanize;
use tokio::time::{Instant, timeout};

use super::context::VisitContext;
use crate::{
    queue::{
        host::Host,
        limiter::{HostFeedback, HostLimiter, PAUSE_WAIT_MAX, Priority, VisitPermit},
        memory::MemoryShare,
        wait_reason::{ListWait, WaitStatus},
    },
    status::{activity::Activity, registry::SourceEntry},
};

/// The longest time in the queue of a host that a redirect leads to. At the usual spacing of a second this is a queue of
/// 3,600 visits.
const REDIRECT_WAIT_MAX: Duration = Duration::from_secs(3600);

/// The admission of the requests of one visit, or of one request to a hub and its redirects.
pub(crate) struct PacedHops {
    limiter: HostLimiter,
    priority: Priority,
    /// `None` while the visit waits for the next one.
    permit: RefCell<Option<VisitPermit>>,
    /// What the visit may use of the memory budget. `None` for a request to a hub, whose permit has a part of its own.
    memory: Option<Arc<MemoryShare>>,
    /// The age of the visit.
    ticket: Cell<Option<u64>>,
    /// The longest wait in a queue.
    wait_max: Duration,
    /// The longest pause that a host may ask for.
    pause_max: Duration,
    /// In queues, since the first request.
    waited: Cell<Duration>,
    /// A form is not sent twice, so a request to a hub must not be preempted.
    keeps_slot: bool,
    /// Where the wait is shown.
    shown: Option<Shown>,
}

/// Where it is shown that a request waits.
enum Shown {
    Source(Rc<VisitContext>, Arc<SourceEntry>),
    List(ListWait),
}

impl Shown {
    fn waits(&self, wait_status: Arc<WaitStatus>) {
        match self {
            Self::Source(ctx, entry) => entry.set_waiting(wait_status, ctx.now()),
            Self::List(wait) => wait.set(Some(wait_status)),
        }
    }

    fn entered(&self) {
        match self {
            Self::Source(ctx, entry) => entry.set_activity(Activity::Fetching, ctx.now()),
            Self::List(wait) => wait.set(None),
        }
    }
}

impl PacedHops {
    /// For a visit whose first request was admitted by this permit.
    pub(super) fn of_visit(
        ctx: &Rc<VisitContext>,
        entry: &Arc<SourceEntry>,
        priority: Priority,
        permit: VisitPermit,
    ) -> Self {
        Self {
            ticket: Cell::new(Some(permit.ticket())),
            memory: Some(permit.memory()),
            permit: RefCell::new(Some(permit)),
            shown: Some(Shown::Source(Rc::clone(ctx), Arc::clone(entry))),
            wait_max: REDIRECT_WAIT_MAX,
            keeps_slot: false,
            ..Self::to_hub(ctx, priority)
        }
    }

    /// For a request to a hub, which has to enter as well. It waits no longer than a minute, because few requests to hubs
    /// run at a time.
    pub(crate) fn to_hub(ctx: &VisitContext, priority: Priority) -> Self {
        let pause_max = fetch::schedule::server_interval_max(ctx.interval_bounds.get());
        Self::new(ctx.limiter.clone(), priority, pause_max)
    }

    /// For a request for a list of feeds, which has to enter as well.
    pub(crate) fn to_list(ctx: &VisitContext, wait: ListWait) -> Self {
        Self { shown: Some(Shown::List(wait)), ..Self::to_hub(ctx, Priority::Normal) }
    }

    fn new(limiter: HostLimiter, priority: Priority, pause_max: Duration) -> Self {
        Self {
            limiter,
            priority,
            permit: RefCell::new(None),
            memory: None,
            ticket: Cell::new(None),
            wait_max: PAUSE_WAIT_MAX,
            pause_max,
            waited: Cell::new(Duration::ZERO),
            keeps_slot: true,
            shown: None,
        }
    }

    /// How long the requests after the first have waited for admission.
    pub(super) fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// Completes when others wait for the slot of the request in progress.
    pub(super) async fn preempted(&self) {
        poll_fn(|cx| match &mut *self.permit.borrow_mut() {
            Some(permit) => permit.poll_preempted(cx),
            // The next permit is polled as soon as it is there: it arrives in the task that polls here.
            None => std::task::Poll::Pending,
        })
        .await;
    }

    /// The visit is past the part that can hang: it keeps its slot to the end.
    pub(super) fn pin(&self) {
        if let Some(permit) = &mut *self.permit.borrow_mut() {
            permit.pin();
        }
    }

    async fn wait(&self, host: &Host) -> Result<VisitPermit, HeldHop> {
        if let Some(held) = self.pause(host) {
            return Err(held);
        }
        let queued = self.limiter.enqueue_hop(host, self.priority, self.ticket.get());
        if let Some(shown) = &self.shown {
            shown.waits(queued.wait_status());
        }
        match timeout(self.wait_max, queued).await {
            Ok(Some(permit)) => Ok(permit),
            Ok(None) => Err(self
                .pause(host)
                .unwrap_or_else(|| HeldHop { why: format!("{host} asked for a pause"), wait: None })),
            Err(_) => {
                let (wait, _) = self.limiter.opens_in(host);
                let why = format!(
                    "{host} was not asked, because {} in the queue of its visits were not enough",
                    humanize(self.wait_max)
                );
                Err(HeldHop { why, wait: Some(wait).filter(|wait| !wait.is_zero()) })
            }
        }
    }

    /// The pause that a host has asked for, if it is longer than a request waits.
    fn pause(&self, host: &Host) -> Option<HeldHop> {
        let (left, is_asked) = self.limiter.opens_in(host);
        let is_long = is_asked && left > PAUSE_WAIT_MAX;
        is_long.then(|| HeldHop {
            why: format!("{host} asked for a pause, which is over in {}", humanize(left)),
            wait: Some(left),
        })
    }
}

impl HopGate for PacedHops {
    fn enter<'a>(&'a self, url: &'a FeedUrl) -> HopEntry<'a> {
        Box::pin(async move {
            // Before the wait: a visit never holds two hosts.
            drop(self.permit.take());
            // A crowd that waits for one host must not use up what others need.
            if let Some(memory) = &self.memory {
                memory.give_back();
            }
            let began = Instant::now();
            let entered = self.wait(&Host::of(url.secret())).await;
            self.waited.set(self.waited.get() + began.elapsed());
            let mut permit = entered?;
            if let Some(memory) = &self.memory {
                permit.share_memory(Arc::clone(memory));
            }
            if self.keeps_slot {
                permit.pin();
            }
            if let Some(shown) = &self.shown {
                shown.entered();
            }
            self.ticket.set(Some(permit.ticket()));
            *self.permit.borrow_mut() = Some(permit);
            Ok(())
        })
    }

    fn answered(&self, url: &FeedUrl, code: u16, retry_after: Option<Duration>) {
        let retry_after = retry_after.map(|wait| wait.min(self.pause_max));
        let feedback = match (code, retry_after) {
            (200..=399, _) => HostFeedback::Served,
            (429, wait) => HostFeedback::TooManyRequests(wait),
            (503, Some(wait)) => HostFeedback::Busy(wait),
            _ => return,
        };
        self.limiter.report(&Host::of(url.secret()), feedback);
    }
}

impl fmt::Debug for PacedHops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacedHops").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
