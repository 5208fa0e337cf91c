//! Admission of visits: a limit for the process, a limit and a spacing for each host.
//!
//! ```text
//! enqueue ─► first in its host's queue, spaced, not held by a 429 ─► a slot of the process, and memory ─► VisitPermit
//! ```
//!
//! A waiting visit holds no slot, so the queue of one host delays no other host. Sources on probation (they did not
//! answer lately) hold at most a quarter of the slots; a visit that has lasted `PREEMPT_AFTER` while others wait for
//! its slot is preempted, and starts over on probation. So dead hosts never starve the others, not even before they
//! are known as dead.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use news::RecordingPauseReason;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

#[cfg(test)]
pub(crate) use super::scheduler::PREEMPT_AFTER;
pub(crate) use super::scheduler::{PAUSE_WAIT_MAX, Priority, VisitLimits};
use super::{
    host::Host,
    memory::{MemoryBudget, MemoryPart, MemoryShare},
    scheduler::{Admission, Scheduler},
    wait_reason::WaitStatus,
};
use crate::{lease::Lease, status::metrics::IngestMetrics};

/// What the answer to a visit says about its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostFeedback {
    /// It answered as usual.
    Served,
    /// 429, with its `Retry-After` if there was one.
    TooManyRequests(Option<Duration>),
    /// 503 with this `Retry-After`.
    Busy(Duration),
}

/// Admits the visits of one arbiter. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HostLimiter(Rc<Inner>);

struct Inner {
    scheduler: RefCell<Scheduler<VisitPermit>>,
    lease: RefCell<Lease>,
    /// Why nothing may be recorded.
    recording_paused_by: Cell<Option<RecordingPauseReason>>,
    /// Why no visit begins: that, or the lease.
    paused_by: Cell<Option<RecordingPauseReason>>,
    /// The next timer may be another one.
    timer_set: Notify,
    /// A host has asked for a pause.
    held: Notify,
    memory: MemoryBudget,
    metrics: IngestMetrics,
}

/// The longest pause of a whole host because of a 503: often it is one service of many that is down.
pub(crate) const BUSY_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// A shorter pause is not worth a write: it is over soon after a start.
const HOLD_KEPT_MIN: Duration = Duration::from_secs(2);

/// A visit in the queue of its host; leaves it when dropped.
pub(crate) struct QueuedVisit {
    wait_status: Arc<WaitStatus>,
    permit: oneshot::Receiver<VisitPermit>,
}

/// A later request of a visit, or a request to a hub, in the queue of its host: as [`QueuedVisit`], but `None` if the host
/// asks for a long pause meanwhile.
pub(crate) struct QueuedHop(QueuedVisit);

/// The right to run one visit; it releases its slot when dropped.
pub(crate) struct VisitPermit {
    /// What the visit may use of the memory budget.
    memory: Arc<MemoryShare>,
    limiter: HostLimiter,
    host: Host,
    ticket: u64,
    preempted: Option<oneshot::Receiver<()>>,
}

impl HostLimiter {
    pub(crate) fn new(limits: VisitLimits, metrics: IngestMetrics) -> Self {
        let memory = MemoryBudget::new(limits.memory_bytes, metrics.memory.clone());
        Self(Rc::new(Inner {
            scheduler: RefCell::new(Scheduler::new(limits, memory.clone())),
            lease: RefCell::new(Lease::not_needed()),
            recording_paused_by: Cell::default(),
            paused_by: Cell::default(),
            timer_set: Notify::new(),
            held: Notify::new(),
            memory,
            metrics,
        }))
    }

    /// Applies new limits, also to the visits that already wait; visits in progress continue.
    pub(crate) fn set_limits(&self, limits: VisitLimits) {
        let granted = self.0.scheduler.borrow_mut().set_limits(limits, Instant::now());
        self.deliver(granted);
    }

    /// No visit begins any more, for this reason, or visits begin again. Those under way go on to their end.
    pub(crate) fn set_paused(&self, paused_by: Option<RecordingPauseReason>) {
        self.0.recording_paused_by.set(paused_by);
        self.check_lease();
    }

    /// No visit begins any more without this lease.
    pub(crate) fn require(&self, lease: Lease) {
        self.0.lease.replace(lease);
    }

    /// Looks whether the lease is over, or counts again. Each visit that is about to begin looks by itself; those that wait begin
    /// with the next call.
    pub(crate) fn check_lease(&self) {
        let is_over = !self.0.lease.borrow().is_valid();
        let no_lease = is_over.then_some(RecordingPauseReason::NoLease);
        let paused_by = self.0.recording_paused_by.get().or(no_lease);
        if self.0.paused_by.replace(paused_by) != paused_by {
            let granted = self.0.scheduler.borrow_mut().set_paused(paused_by, Instant::now());
            self.deliver(granted);
        }
    }

    /// Puts a visit at the end of the queue of `host`.
    pub(crate) fn enqueue(&self, host: &Host, priority: Priority) -> QueuedVisit {
        let (grant_to, permit) = oneshot::channel();
        let wait_status = self.0.scheduler.borrow_mut().enqueue(host, priority, grant_to);
        self.queued(host, wait_status, permit)
    }

    /// Puts a request in the queue of `host`, with the ticket of the request before it in the same visit.
    pub(crate) fn enqueue_hop(&self, host: &Host, priority: Priority, ticket: Option<u64>) -> QueuedHop {
        let (grant_to, permit) = oneshot::channel();
        let wait_status = self.0.scheduler.borrow_mut().enqueue_hop(host, priority, ticket, grant_to);
        QueuedHop(self.queued(host, wait_status, permit))
    }

    fn queued(
        &self,
        host: &Host,
        wait_status: Arc<WaitStatus>,
        permit: oneshot::Receiver<VisitPermit>,
    ) -> QueuedVisit {
        self.offer(host);
        if wait_status.is_waiting() {
            self.0.metrics.waits.get_or_create(&[("for", wait_status.label())]).inc();
        }
        QueuedVisit { wait_status, permit }
    }

    /// The part of the memory budget for a document that is there already, so that it need not wait for room.
    pub(crate) fn share_for(&self, bytes: usize) -> Arc<MemoryShare> {
        let share = self.0.memory.admit(true);
        share.use_for(MemoryPart::Body, bytes);
        Arc::new(share)
    }

    /// How long the host may not be asked, and whether it has asked for that.
    pub(crate) fn opens_in(&self, host: &Host) -> (Duration, bool) {
        let opens_at = self.0.scheduler.borrow().opens_at(host);
        opens_at.map_or((Duration::ZERO, false), |(at, is_asked)| {
            (at.saturating_duration_since(Instant::now()), is_asked)
        })
    }

    /// Adapts the spacing of a host to its answer.
    pub(crate) fn report(&self, host: &Host, feedback: HostFeedback) {
        let mut scheduler = self.0.scheduler.borrow_mut();
        match feedback {
            HostFeedback::Served => scheduler.narrow_spacing(host),
            HostFeedback::TooManyRequests(retry_after) => {
                self.0.metrics.hosts_widened.inc();
                scheduler.widen_spacing(host, Instant::now());
                drop(scheduler);
                if let Some(wait) = retry_after {
                    self.hold(host, 429, wait);
                }
            }
            HostFeedback::Busy(wait) => {
                drop(scheduler);
                self.hold(host, 503, wait.min(BUSY_PAUSE_MAX));
            }
        }
    }

    /// No visit to a host for `wait`, because it answered with this status.
    pub(crate) fn hold(&self, host: &Host, code: u16, wait: Duration) {
        self.0.metrics.hosts_held.inc();
        self.0.scheduler.borrow_mut().hold(host, Instant::now(), code, wait);
        if wait >= HOLD_KEPT_MIN {
            self.0.held.notify_one();
        }
        self.offer(host);
    }

    /// Completes when a host has asked for a pause since the last call.
    pub(super) async fn new_hold(&self) {
        self.0.held.notified().await;
    }

    /// The hosts that have asked for a pause: for how long from now, and with which status; the longest first.
    pub(super) fn held(&self) -> Vec<(Host, Duration, u16)> {
        let (scheduler, now) = (self.0.scheduler.borrow(), Instant::now());
        let left = |(host, until, code): (&Host, Instant, u16)| (host.clone(), until - now, code);
        let mut held: Vec<_> = scheduler.held(now).map(left).filter(|held| held.1 >= HOLD_KEPT_MIN).collect();
        held.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        held
    }

    /// Admits the visits of this host that may run now.
    fn offer(&self, host: &Host) {
        self.check_lease();
        let granted = self.0.scheduler.borrow_mut().offer(host, Instant::now());
        self.deliver(granted);
    }

    fn deliver(&self, granted: Vec<Admission<VisitPermit>>) {
        for Admission { host, ticket, grant_to, preempted, memory } in granted {
            let permit =
                VisitPermit { memory: Arc::new(memory), limiter: self.clone(), host, ticket, preempted };
            // A visit that was cancelled meanwhile drops the permit, which releases the slot.
            grant_to.send(permit).ok();
        }
        self.0.metrics.in_flight.set(i64::try_from(self.in_flight()).unwrap_or(i64::MAX));
        self.0.metrics.waiting.set(i64::try_from(self.0.scheduler.borrow().waiting()).unwrap_or(i64::MAX));
        self.0.timer_set.notify_one();
    }

    fn release(&self, host: &Host, ticket: u64) {
        self.check_lease();
        let granted = self.0.scheduler.borrow_mut().release(host, ticket, Instant::now());
        self.deliver(granted);
    }

    /// Admits visits when the time has come, or when memory was given back. The supervisor runs this for as long as there are visits.
    pub(crate) async fn run_timers(self) {
        loop {
            let next = self.0.scheduler.borrow().next_timer();
            match next {
                None => tokio::select! {
                    () = self.0.timer_set.notified() => continue,
                    () = self.0.memory.room() => {}
                },
                Some(at) => tokio::select! {
                    () = self.0.timer_set.notified() => continue,
                    () = self.0.memory.room() => {}
                    () = sleep_until(at) => {}
                },
            }
            self.check_lease();
            let granted = self.0.scheduler.borrow_mut().fire_timers(Instant::now());
            if !granted.is_empty() {
                self.deliver(granted);
            }
        }
    }

    /// Removes hosts without visits whose spacing is the configured one.
    pub(crate) fn remove_idle_hosts(&self) {
        self.0.scheduler.borrow_mut().remove_idle_hosts(Instant::now());
    }

    /// Visits in all queues.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.scheduler.borrow().waiting()
    }

    /// Slots in use.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.scheduler.borrow().in_flight()
    }
}

impl QueuedVisit {
    /// What the visit waits for; the status changes while it waits.
    pub(crate) fn wait_status(&self) -> Arc<WaitStatus> {
        Arc::clone(&self.wait_status)
    }
}

impl Future for QueuedVisit {
    type Output = VisitPermit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<VisitPermit> {
        let permit = Pin::new(&mut self.permit).poll(cx);
        permit.map(|permit| permit.expect("the limiter outlives its visits, which hold a clone of it"))
    }
}

impl QueuedHop {
    /// What the request waits for; the status changes while it waits.
    pub(crate) fn wait_status(&self) -> Arc<WaitStatus> {
        self.0.wait_status()
    }
}

impl Future for QueuedHop {
    type Output = Option<VisitPermit>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<VisitPermit>> {
        Pin::new(&mut self.0.permit).poll(cx).map(Result::ok)
    }
}

impl VisitPermit {
    /// What the visit may use of the memory budget; it may keep that for longer than its slot.
    pub(crate) fn memory(&self) -> Arc<MemoryShare> {
        Arc::clone(&self.memory)
    }

    /// The request belongs to a visit that has a share already: that gets what was reserved for the request.
    pub(crate) fn share_memory(&mut self, memory: Arc<MemoryShare>) {
        memory.take_over(&self.memory);
        self.memory = memory;
    }

    /// Ready when others wait for the slot; never on probation, and never once a large part of a document has arrived: then
    /// it is not the server that lets others wait. One that waits for memory itself is in the way of those that need little.
    pub(crate) fn poll_preempted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(signal) = &mut self.preempted else { return Poll::Pending };
        match Pin::new(signal).poll(cx) {
            Poll::Ready(Ok(())) if !self.memory.has_grown() => Poll::Ready(()),
            Poll::Ready(_) => {
                // The visit can no longer be preempted; another one may be.
                self.pin();
                self.limiter.0.timer_set.notify_one();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Its age, for the next request of the same visit.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The visit is past the part that can hang: it keeps its slot to the end.
    pub(crate) fn pin(&mut self) {
        self.preempted = None;
        self.limiter.0.scheduler.borrow_mut().pin(self.ticket);
    }
}

impl Drop for VisitPermit {
    fn drop(&mut self) {
        self.limiter.clone().release(&self.host, self.ticket);
    }
}

#[cfg(test)]
mod tests;
