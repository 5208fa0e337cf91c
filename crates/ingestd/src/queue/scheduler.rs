//! The state machine of the limiter: hosts with their queues, slots in use, and when to look again. It never waits;
//! the limiter delivers what is granted. `P` is what a waiting visit gets in the end.
//!
//! ```text
//! host.queues ─ the host's rules allow its head, but all slots or all memory is in use ─► ready (hosts, in order) ─ there
//!               is some again ─► offer
//! ```

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use news::RecordingPauseReason;
use tokio::{sync::oneshot, time::Instant};

use super::{
    host::Host,
    memory::{MemoryBudget, MemoryShare},
    wait_reason::{WaitReason, WaitStatus},
};

/// The longest spacing that the 429s of a host can lead to.
pub(super) const SPACING_MAX: Duration = Duration::from_secs(3600);
/// What the first 429 of a host without a spacing doubles.
const SPACING_FIRST: Duration = Duration::from_millis(500);
/// The longest pause that a redirect waits for: with a longer one, the visit ends.
pub(crate) const PAUSE_WAIT_MAX: Duration = Duration::from_secs(60);
/// A visit that has lasted this long is preempted when all slots are in use and others wait.
pub(crate) const PREEMPT_AFTER: Duration = Duration::from_secs(2);

/// How many visits, and how close together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VisitLimits {
    /// Visits in progress in the process.
    pub(crate) in_flight: usize,
    /// Visits in progress per host.
    pub(crate) host_in_flight: usize,
    /// Shortest time between the starts of two visits to a host, until the host asks for more.
    pub(crate) host_spacing: Duration,
    /// Bytes of all bodies, documents and what waits to be written.
    pub(crate) memory_bytes: usize,
}

/// What the last visit says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// The source answered last time, or was never visited.
    Normal,
    /// The source did not answer last time.
    Probation,
}

pub(super) struct Scheduler<P> {
    limits: VisitLimits,
    /// Why no visit may begin. Those under way go on, with their redirects, and none of them is preempted.
    paused_by: Option<RecordingPauseReason>,
    memory: MemoryBudget,
    last_ticket: u64,
    waiting: usize,
    /// In use, by priority.
    slots: [usize; 2],
    hosts: HashMap<Host, HostQueue<P>>,
    /// Hosts whose first visit waits for nothing but a slot, by priority.
    ready: [VecDeque<(u64, Host)>; 2],
    timers: BinaryHeap<Reverse<(Instant, Host)>>,
    /// Visits of normal priority that can be preempted, in the order of their start.
    preemptible: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    /// Every visit in progress, and since when.
    admitted: HashMap<u64, (Priority, Instant)>,
    /// Visits that were preempted and have not ended yet.
    preempted: HashSet<u64>,
}

struct HostQueue<P> {
    in_flight: usize,
    /// The earliest start of the next visit.
    next_start: Instant,
    spacing: Duration,
    /// The pause that the host asked for.
    held: Option<Pause>,
    /// By [`QueueOf`].
    queues: [VecDeque<Waiter<P>>; 4],
    /// Whether it is in `ready`, by priority.
    is_ready: [bool; 2],
    timer: Option<Instant>,
    wait_status: Arc<WaitStatus>,
}

/// No visit until then, because of an answer with this status and a `Retry-After` of so long.
#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    code: u16,
    wait: Duration,
}

struct Waiter<P> {
    ticket: u64,
    grant_to: oneshot::Sender<P>,
}

/// The queues of a host. A hop is a request of a visit under way, or one to a hub: it does not wait for a pause longer than
/// [`PAUSE_WAIT_MAX`], and not until recording resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum QueueOf {
    Visits,
    VisitsOnProbation,
    Hops,
    HopsOnProbation,
}

impl QueueOf {
    const ALL: [Self; 4] = [Self::Visits, Self::VisitsOnProbation, Self::Hops, Self::HopsOnProbation];

    fn visits(priority: Priority) -> Self {
        match priority {
            Priority::Normal => Self::Visits,
            Priority::Probation => Self::VisitsOnProbation,
        }
    }

    fn hops(priority: Priority) -> Self {
        match priority {
            Priority::Normal => Self::Hops,
            Priority::Probation => Self::HopsOnProbation,
        }
    }

    fn priority(self) -> Priority {
        match self {
            Self::Visits | Self::Hops => Priority::Normal,
            Self::VisitsOnProbation | Self::HopsOnProbation => Priority::Probation,
        }
    }

    fn is_hop(self) -> bool {
        matches!(self, Self::Hops | Self::HopsOnProbation)
    }
}

/// A visit that may begin.
pub(super) struct Admission<P> {
    pub(super) host: Host,
    pub(super) ticket: u64,
    pub(super) grant_to: oneshot::Sender<P>,
    pub(super) preempted: Option<oneshot::Receiver<()>>,
    pub(super) memory: MemoryShare,
}

impl<P> HostQueue<P> {
    fn new(host: &Host, spacing: Duration, now: Instant) -> Self {
        Self {
            in_flight: 0,
            next_start: now,
            spacing,
            held: None,
            queues: std::array::from_fn(|_| VecDeque::new()),
            is_ready: [false; 2],
            timer: None,
            wait_status: Arc::new(WaitStatus::new(host.clone())),
        }
    }

    /// When the next visit may start, and what it waits for until then.
    fn opens_at(&self) -> (Instant, WaitReason) {
        match self.held {
            Some(Pause { until, code, wait }) if until > self.next_start => {
                (until, WaitReason::HostRetryAfter(code, wait))
            }
            _ => (self.next_start, WaitReason::HostSpacing(self.spacing)),
        }
    }

    /// The queues whose first visit may begin, unless its host or a lack of slots keeps it: the longest wait comes first.
    fn candidates(
        &self,
        paused_by: Option<RecordingPauseReason>,
    ) -> impl Iterator<Item = QueueOf> + Clone + use<P> {
        let first = |queue: QueueOf| Some((self.queues[queue as usize].front()?.ticket, queue));
        let mut first =
            QueueOf::ALL.map(|queue| first(queue).filter(|_| paused_by.is_none() || queue.is_hop()));
        first.sort_unstable();
        first.into_iter().flatten().map(|(_, queue)| queue)
    }

    fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }
}

impl<P> Scheduler<P> {
    pub(super) fn new(limits: VisitLimits, memory: MemoryBudget) -> Self {
        Self {
            limits,
            paused_by: None,
            memory,
            last_ticket: 0,
            waiting: 0,
            slots: [0; 2],
            hosts: HashMap::new(),
            ready: [VecDeque::new(), VecDeque::new()],
            timers: BinaryHeap::new(),
            preemptible: BTreeMap::new(),
            admitted: HashMap::new(),
            preempted: HashSet::new(),
        }
    }

    /// Applies new limits and returns the visits that they admit. Visits in progress continue, and a spacing that a
    /// host's 429s led to stays while it is longer.
    pub(super) fn set_limits(&mut self, limits: VisitLimits, now: Instant) -> Vec<Admission<P>> {
        let (old, new) = (self.limits.host_spacing, limits.host_spacing);
        self.limits = limits;
        self.memory.set_max(limits.memory_bytes);
        for host_queue in self.hosts.values_mut().filter(|host_queue| host_queue.spacing <= old.max(new)) {
            // Counted from the start of the last visit.
            let next_start = (host_queue.next_start + new).checked_sub(host_queue.spacing);
            host_queue.next_start = next_start.unwrap_or(host_queue.next_start);
            host_queue.spacing = new;
        }
        self.offer_all(now)
    }

    /// No visit begins any more, for this reason, or visits begin again. Returns the visits that begin.
    pub(super) fn set_paused(
        &mut self,
        paused_by: Option<RecordingPauseReason>,
        now: Instant,
    ) -> Vec<Admission<P>> {
        if std::mem::replace(&mut self.paused_by, paused_by) == paused_by {
            return Vec::new();
        }
        self.offer_all(now)
    }

    /// As [`Scheduler::offer`], of all hosts: first those whose visits have waited longest.
    fn offer_all(&mut self, now: Instant) -> Vec<Admission<P>> {
        let mut granted = self.serve_ready(now);
        let first = |host_queue: &HostQueue<P>| {
            host_queue.queues.iter().filter_map(VecDeque::front).map(|w| w.ticket).min()
        };
        let mut queues: Vec<_> = self
            .hosts
            .iter()
            .filter_map(|(host, host_queue)| Some((first(host_queue)?, host.clone())))
            .collect();
        queues.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (_, host) in queues {
            granted.extend(self.offer(&host, now));
        }
        granted
    }

    fn host_queue(&mut self, host: &Host, now: Instant) -> &mut HostQueue<P> {
        let spacing = self.limits.host_spacing;
        self.hosts.entry(host.clone()).or_insert_with(|| HostQueue::new(host, spacing, now))
    }

    pub(super) fn enqueue(
        &mut self,
        host: &Host,
        priority: Priority,
        grant_to: oneshot::Sender<P>,
    ) -> Arc<WaitStatus> {
        self.last_ticket += 1;
        self.insert(host, QueueOf::visits(priority), Waiter { ticket: self.last_ticket, grant_to })
    }

    /// The next request of a visit that has run before and released its slot: it keeps the age of its ticket. `None` for a
    /// first request. In both cases it leaves the queue when the host asks for a long pause, and `grant_to` is dropped.
    pub(super) fn enqueue_hop(
        &mut self,
        host: &Host,
        priority: Priority,
        ticket: Option<u64>,
        grant_to: oneshot::Sender<P>,
    ) -> Arc<WaitStatus> {
        self.last_ticket += 1;
        let ticket = ticket.unwrap_or(self.last_ticket);
        self.insert(host, QueueOf::hops(priority), Waiter { ticket, grant_to })
    }

    /// Tickets are in order in every queue: the longest wait comes first.
    fn insert(&mut self, host: &Host, queue: QueueOf, waiter: Waiter<P>) -> Arc<WaitStatus> {
        self.waiting += 1;
        let host_queue = self.host_queue(host, Instant::now());
        let queue = &mut host_queue.queues[queue as usize];
        queue.insert(queue.partition_point(|other| other.ticket < waiter.ticket), waiter);
        Arc::clone(&host_queue.wait_status)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.iter().sum()
    }

    /// Visits in all queues.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Slots that sources on probation may use.
    fn probation_max(&self) -> usize {
        (self.limits.in_flight / 4).max(1)
    }

    fn has_slot(&self, priority: Priority) -> bool {
        let on_probation = || self.slots[Priority::Probation as usize] < self.probation_max();
        self.in_flight() < self.limits.in_flight
            && self.memory.has_room()
            && (priority == Priority::Normal || on_probation())
    }

    /// Admits the visits of this host that may run now, and notes when or why to look again.
    pub(super) fn offer(&mut self, host: &Host, now: Instant) -> Vec<Admission<P>> {
        let mut granted = Vec::new();
        while let Some(grant) = self.offer_one(host, now) {
            granted.push(grant);
        }
        granted
    }

    fn offer_one(&mut self, host: &Host, now: Instant) -> Option<Admission<P>> {
        let (in_flight_max, host_in_flight_max) = (self.limits.in_flight, self.limits.host_in_flight);
        let slots = [Priority::Normal, Priority::Probation].map(|priority| self.has_slot(priority));
        let probation_max = self.probation_max();
        let host_queue = self.hosts.get_mut(host)?;
        for queue in &mut host_queue.queues {
            while queue.pop_front_if(|waiter| waiter.grant_to.is_closed()).is_some() {
                self.waiting -= 1;
            }
        }
        let candidates = host_queue.candidates(self.paused_by);
        if candidates.clone().next().is_none() {
            let paused_by = self.paused_by.filter(|_| !host_queue.is_empty());
            host_queue.wait_status.set(paused_by.map_or(WaitReason::NotWaiting, WaitReason::RecordingPaused));
            return None;
        }
        if host_queue.in_flight >= host_in_flight_max {
            host_queue.wait_status.set(WaitReason::HostInFlight(host_queue.in_flight));
            return None;
        }
        let (opens_at, reason) = host_queue.opens_at();
        if opens_at > now {
            host_queue.wait_status.set(reason);
            if host_queue.timer.is_none_or(|timer| timer > opens_at) {
                host_queue.timer = Some(opens_at);
                self.timers.push(Reverse((opens_at, host.clone())));
            }
            return None;
        }
        let Some(queue) = candidates.clone().find(|queue| slots[queue.priority() as usize]) else {
            let full = self.slots.iter().sum::<usize>() >= in_flight_max;
            host_queue.wait_status.set(if full {
                WaitReason::AllSlots(in_flight_max)
            } else if !self.memory.has_room() {
                WaitReason::Memory(self.memory.max())
            } else {
                WaitReason::ProbationSlots(probation_max)
            });
            for queue in candidates {
                let priority = queue.priority();
                if !std::mem::replace(&mut host_queue.is_ready[priority as usize], true) {
                    let ticket = host_queue.queues[queue as usize].front().map_or(0, |waiter| waiter.ticket);
                    let ready = &mut self.ready[priority as usize];
                    ready.insert(ready.partition_point(|(other, _)| *other < ticket), (ticket, host.clone()));
                }
            }
            self.preempt(now);
            return None;
        };
        let waiter = host_queue.queues[queue as usize].pop_front()?;
        let priority = queue.priority();
        host_queue.in_flight += 1;
        host_queue.held = None;
        host_queue.next_start = now + host_queue.spacing;
        self.waiting -= 1;
        self.slots[priority as usize] += 1;
        self.admitted.insert(waiter.ticket, (priority, now));
        let preempted = (priority == Priority::Normal).then(|| {
            let (signal, preempted) = oneshot::channel();
            self.preemptible.insert((now, waiter.ticket), signal);
            preempted
        });
        let memory = self.memory.admit(priority == Priority::Normal);
        Some(Admission {
            host: host.clone(),
            ticket: waiter.ticket,
            grant_to: waiter.grant_to,
            preempted,
            memory,
        })
    }

    /// Preempts the longest visits: as many as there are hosts whose visits of normal priority wait for a slot.
    fn preempt(&mut self, now: Instant) {
        if self.paused_by.is_some() {
            return;
        }
        while self.preempted.len() < self.ready[Priority::Normal as usize].len() {
            let Some(longest) = self.preemptible.first_entry() else { return };
            let (started, ticket) = *longest.key();
            if started + PREEMPT_AFTER > now {
                return;
            }
            if longest.remove().send(()).is_ok() {
                self.preempted.insert(ticket);
            }
        }
    }

    /// The visit can no longer be preempted.
    pub(super) fn pin(&mut self, ticket: u64) {
        if let Some((_, started)) = self.admitted.get(&ticket) {
            self.preemptible.remove(&(*started, ticket));
        }
        self.preempted.remove(&ticket);
    }

    /// A visit ended; returns the visits that may start now, first those that have waited longest for a slot.
    pub(super) fn release(&mut self, host: &Host, ticket: u64, now: Instant) -> Vec<Admission<P>> {
        self.pin(ticket);
        let Some((priority, _)) = self.admitted.remove(&ticket) else { return Vec::new() };
        self.slots[priority as usize] -= 1;
        if let Some(host_queue) = self.hosts.get_mut(host) {
            host_queue.in_flight -= 1;
        }
        let mut granted = self.serve_ready(now);
        granted.extend(self.offer(host, now));
        granted
    }

    fn serve_ready(&mut self, now: Instant) -> Vec<Admission<P>> {
        let mut granted = Vec::new();
        loop {
            let head = |priority: Priority| {
                let (ticket, _) = self.ready[priority as usize].front()?;
                self.has_slot(priority).then_some((*ticket, priority))
            };
            let heads = [head(Priority::Normal), head(Priority::Probation)];
            let Some((_, priority)) = heads.into_iter().flatten().min_by_key(|(ticket, _)| *ticket) else {
                return granted;
            };
            let Some((_, host)) = self.ready[priority as usize].pop_front() else { return granted };
            if let Some(host_queue) = self.hosts.get_mut(&host) {
                host_queue.is_ready[priority as usize] = false;
            }
            granted.extend(self.offer(&host, now));
        }
    }

    /// When to look again.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let host = self.timers.peek().map(|Reverse((at, _))| *at);
        let is_slot_missing = self.ready[Priority::Normal as usize].len() > self.preempted.len();
        let preempts = is_slot_missing && self.paused_by.is_none();
        let longest = self.preemptible.first_key_value().filter(|_| preempts);
        let preempts_at = longest.map(|((started, _), _)| *started + PREEMPT_AFTER);
        host.into_iter().chain(preempts_at).min()
    }

    /// Does what is due by `now`; returns the visits that may start.
    pub(super) fn fire_timers(&mut self, now: Instant) -> Vec<Admission<P>> {
        let mut granted = self.serve_ready(now);
        while self.timers.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((at, host))) = self.timers.pop() else { break };
            if let Some(host_queue) = self.hosts.get_mut(&host)
                && host_queue.timer == Some(at)
            {
                host_queue.timer = None;
                granted.extend(self.offer(&host, now));
            }
        }
        self.preempt(now);
        granted
    }

    /// Doubles the spacing of a host.
    pub(super) fn widen_spacing(&mut self, host: &Host, now: Instant) {
        let host_queue = self.host_queue(host, now);
        host_queue.spacing = host_queue.spacing.max(SPACING_FIRST).saturating_mul(2).min(SPACING_MAX);
        host_queue.next_start = host_queue.next_start.max(now + host_queue.spacing);
    }

    /// Takes a tenth off the spacing of a host.
    pub(super) fn narrow_spacing(&mut self, host: &Host) {
        let least = self.limits.host_spacing;
        if let Some(host_queue) = self.hosts.get_mut(host).filter(|host_queue| host_queue.spacing > least) {
            let narrower = (host_queue.spacing - host_queue.spacing / 10).max(least);
            host_queue.spacing = if narrower < SPACING_FIRST { least.min(narrower) } else { narrower };
        }
    }

    /// No visit to this host for `wait`, because it answered with this status.
    pub(super) fn hold(&mut self, host: &Host, now: Instant, code: u16, wait: Duration) {
        let (host_queue, until) = (self.host_queue(host, now), now + wait);
        if host_queue.held.is_none_or(|pause| pause.until < until) {
            host_queue.held = Some(Pause { until, code, wait });
        }
        if wait > PAUSE_WAIT_MAX {
            let mut left = 0;
            for hops in [QueueOf::Hops, QueueOf::HopsOnProbation] {
                left += std::mem::take(&mut host_queue.queues[hops as usize]).len();
            }
            self.waiting -= left;
        }
    }

    /// The hosts that have asked for a pause that is not over: until when, and with which status.
    pub(super) fn held(&self, now: Instant) -> impl Iterator<Item = (&Host, Instant, u16)> {
        let pause = move |(host, host_queue): (_, &HostQueue<P>)| {
            let Pause { until, code, .. } = host_queue.held.filter(|pause| pause.until > now)?;
            Some((host, until, code))
        };
        self.hosts.iter().filter_map(pause)
    }

    /// When the host may be asked next, and whether it has asked for a pause until then.
    pub(super) fn opens_at(&self, host: &Host) -> Option<(Instant, bool)> {
        let (at, reason) = self.hosts.get(host)?.opens_at();
        Some((at, matches!(reason, WaitReason::HostRetryAfter(..))))
    }

    /// Removes hosts without visits whose spacing is the configured one.
    pub(super) fn remove_idle_hosts(&mut self, now: Instant) {
        let least = self.limits.host_spacing;
        let mut cancelled = 0;
        self.hosts.retain(|_, host_queue| {
            for queue in &mut host_queue.queues {
                let before = queue.len();
                queue.retain(|waiter| !waiter.grant_to.is_closed());
                cancelled += before - queue.len();
            }
            host_queue.in_flight > 0
                || host_queue.queues.iter().any(|queue| !queue.is_empty())
                || host_queue.opens_at().0 > now
                || host_queue.spacing > least
        });
        self.waiting -= cancelled;
    }
}

#[cfg(test)]
impl<P> Scheduler<P> {
    pub(super) fn hosts(&self) -> usize {
        self.hosts.len()
    }
}
