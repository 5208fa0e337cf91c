//! What the gates know: hosts with their queues, places, and when to look again. Never waits, never sends.
//!
//! ```text
//! host.queues ─ head may go by the host's rules, but all places are taken ─► ready (hosts, in order) ─ a place is free ─► offer
//! ```

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notation::humanize;
use tokio::{sync::oneshot, time::Instant};

use super::{Bounds, GIVE_WAY_AFTER, Permit, SPACING_FIRST, SPACING_MAX, Standing};
use crate::host::Host;

pub(super) struct Yard {
    bounds: Bounds,
    tickets: u64,
    waiting: usize,
    places: [usize; 2],
    hosts: HashMap<Host, Door>,
    /// Hosts whose heads wait for nothing but a place, by standing.
    ready: [VecDeque<(u64, Host)>; 2],
    alarms: BinaryHeap<Reverse<(Instant, Host)>>,
    /// Visits of the living that could give way, in the order of their start.
    running: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    /// Every visit under way, and since when.
    inside: HashMap<u64, (Standing, Instant)>,
    /// Visits that were told to give way and have not left yet.
    leaving: HashSet<u64>,
}

struct Door {
    in_flight: usize,
    /// The next visit may start.
    next_start: Instant,
    spacing: Duration,
    /// A 429 sends everybody away until then; and what it asked for.
    held: Option<(Instant, Duration)>,
    queues: [VecDeque<Waiter>; 2],
    /// Stands in `ready`.
    is_ready: [bool; 2],
    alarm: Option<Instant>,
    sign: Arc<Sign>,
}

struct Waiter {
    ticket: u64,
    tell: oneshot::Sender<Permit>,
}

/// A visit that may begin.
pub(super) struct Grant {
    pub(super) host: Host,
    pub(super) ticket: u64,
    pub(super) tell: oneshot::Sender<Permit>,
    pub(super) give_way: Option<oneshot::Receiver<()>>,
}

/// What the queue of a host waits for; one for all who wait there.
#[derive(Debug)]
pub(crate) struct Sign {
    host: Host,
    cause: Mutex<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Nobody waits.
    Open,
    UnderWay(usize),
    Spaced(Duration),
    Asked(Duration),
    Places(usize),
    SuspectPlaces(usize),
}

impl Sign {
    fn set(&self, cause: Cause) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    fn get(&self) -> Cause {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.get() != Cause::Open
    }

    /// The word for metric labels.
    pub(super) fn cause(&self) -> &'static str {
        match self.get() {
            Cause::Open => "none",
            Cause::UnderWay(_) => "host-in-flight",
            Cause::Spaced(_) => "host-spacing",
            Cause::Asked(_) => "host-asked",
            Cause::Places(_) => "in-flight",
            Cause::SuspectPlaces(_) => "suspects",
        }
    }

    /// For people; nothing when nobody waits.
    pub(crate) fn text(&self) -> Option<String> {
        let host = &self.host;
        Some(match self.get() {
            Cause::Open => return None,
            Cause::UnderWay(1) => format!("1 visit at {host} under way"),
            Cause::UnderWay(n) => format!("{n} visits at {host} under way"),
            Cause::Spaced(spacing) => format!("visits at {host} start {} apart", humanize(spacing)),
            Cause::Asked(asked) => format!("{host} asked for {} (429)", humanize(asked)),
            Cause::Places(n) => format!("all {n} places taken"),
            Cause::SuspectPlaces(n) => format!("all {n} places for sources that did not answer lately taken"),
        })
    }
}

impl Door {
    fn new(host: &Host, spacing: Duration, now: Instant) -> Self {
        Self {
            in_flight: 0,
            next_start: now,
            spacing,
            held: None,
            queues: [VecDeque::new(), VecDeque::new()],
            is_ready: [false; 2],
            alarm: None,
            sign: Arc::new(Sign { host: host.clone(), cause: Mutex::new(Cause::Open) }),
        }
    }

    /// When the next visit may start, and what it waits for until then.
    fn opens(&self) -> (Instant, Cause) {
        match self.held {
            Some((until, asked)) if until > self.next_start => (until, Cause::Asked(asked)),
            _ => (self.next_start, Cause::Spaced(self.spacing)),
        }
    }

    /// Those who wait, the first to come first.
    fn heads(&self) -> impl Iterator<Item = Standing> + use<> {
        let head = |standing: Standing| Some((self.queues[standing as usize].front()?.ticket, standing));
        let mut heads = [head(Standing::Living), head(Standing::Suspect)];
        heads.sort_unstable();
        heads.into_iter().flatten().map(|(_, standing)| standing)
    }
}

impl Yard {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            tickets: 0,
            waiting: 0,
            places: [0; 2],
            hosts: HashMap::new(),
            ready: [VecDeque::new(), VecDeque::new()],
            alarms: BinaryHeap::new(),
            running: BTreeMap::new(),
            inside: HashMap::new(),
            leaving: HashSet::new(),
        }
    }

    /// Other bounds from now on; gives who may begin by them. Visits under way stay, and so does what a host has taught
    /// us by its 429s while that is slower.
    pub(super) fn set(&mut self, bounds: Bounds, now: Instant) -> Vec<Grant> {
        let (old, new) = (self.bounds.host_spacing, bounds.host_spacing);
        self.bounds = bounds;
        for door in self.hosts.values_mut().filter(|door| door.spacing <= old.max(new)) {
            // From the start of the last visit.
            let next_start = (door.next_start + new).checked_sub(door.spacing);
            door.next_start = next_start.unwrap_or(door.next_start);
            door.spacing = new;
        }
        let mut granted = self.serve_ready(now);
        let first = |door: &Door| door.queues.iter().filter_map(VecDeque::front).map(|w| w.ticket).min();
        let mut queues: Vec<_> =
            self.hosts.iter().filter_map(|(host, door)| Some((first(door)?, host.clone()))).collect();
        queues.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (_, host) in queues {
            granted.extend(self.offer(&host, now));
        }
        granted
    }

    fn door(&mut self, host: &Host, now: Instant) -> &mut Door {
        let spacing = self.bounds.host_spacing;
        self.hosts.entry(host.clone()).or_insert_with(|| Door::new(host, spacing, now))
    }

    pub(super) fn join(
        &mut self,
        host: &Host,
        standing: Standing,
        tell: oneshot::Sender<Permit>,
    ) -> Arc<Sign> {
        self.tickets += 1;
        self.waiting += 1;
        let ticket = self.tickets;
        let door = self.door(host, Instant::now());
        door.queues[standing as usize].push_back(Waiter { ticket, tell });
        Arc::clone(&door.sign)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.places.iter().sum()
    }

    /// Visits in queues.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn suspects_max(&self) -> usize {
        (self.bounds.in_flight / 4).max(1)
    }

    fn has_place(&self, standing: Standing) -> bool {
        let for_suspects = || self.places[Standing::Suspect as usize] < self.suspects_max();
        self.in_flight() < self.bounds.in_flight && (standing == Standing::Living || for_suspects())
    }

    /// Lets in whoever may go at this host, and notes when or for what to look again.
    pub(super) fn offer(&mut self, host: &Host, now: Instant) -> Vec<Grant> {
        let mut granted = Vec::new();
        while let Some(grant) = self.offer_one(host, now) {
            granted.push(grant);
        }
        granted
    }

    fn offer_one(&mut self, host: &Host, now: Instant) -> Option<Grant> {
        let (in_flight_max, host_in_flight_max) = (self.bounds.in_flight, self.bounds.host_in_flight);
        let places = [Standing::Living, Standing::Suspect].map(|standing| self.has_place(standing));
        let suspects_max = self.suspects_max();
        let door = self.hosts.get_mut(host)?;
        for queue in &mut door.queues {
            while queue.pop_front_if(|waiter| waiter.tell.is_closed()).is_some() {
                self.waiting -= 1;
            }
        }
        if door.heads().next().is_none() {
            door.sign.set(Cause::Open);
            return None;
        }
        if door.in_flight >= host_in_flight_max {
            door.sign.set(Cause::UnderWay(door.in_flight));
            return None;
        }
        let (opens, cause) = door.opens();
        if opens > now {
            door.sign.set(cause);
            if door.alarm.is_none_or(|alarm| alarm > opens) {
                door.alarm = Some(opens);
                self.alarms.push(Reverse((opens, host.clone())));
            }
            return None;
        }
        let Some(standing) = door.heads().find(|standing| places[*standing as usize]) else {
            let full = self.places.iter().sum::<usize>() >= in_flight_max;
            door.sign.set(if full {
                Cause::Places(in_flight_max)
            } else {
                Cause::SuspectPlaces(suspects_max)
            });
            for standing in door.heads() {
                if !std::mem::replace(&mut door.is_ready[standing as usize], true) {
                    let ticket = door.queues[standing as usize].front().map_or(0, |waiter| waiter.ticket);
                    self.ready[standing as usize].push_back((ticket, host.clone()));
                }
            }
            self.make_way(now);
            return None;
        };
        let waiter = door.queues[standing as usize].pop_front()?;
        door.in_flight += 1;
        door.held = None;
        door.next_start = now + door.spacing;
        self.waiting -= 1;
        self.places[standing as usize] += 1;
        self.inside.insert(waiter.ticket, (standing, now));
        let give_way = (standing == Standing::Living).then(|| {
            let (tell, told) = oneshot::channel();
            self.running.insert((now, waiter.ticket), tell);
            told
        });
        Some(Grant { host: host.clone(), ticket: waiter.ticket, tell: waiter.tell, give_way })
    }

    /// Asks as many of the longest visits to leave as there are hosts whose living want a place.
    fn make_way(&mut self, now: Instant) {
        while self.leaving.len() < self.ready[Standing::Living as usize].len() {
            let Some(longest) = self.running.first_entry() else { return };
            let (started, ticket) = *longest.key();
            if started + GIVE_WAY_AFTER > now {
                return;
            }
            if longest.remove().send(()).is_ok() {
                self.leaving.insert(ticket);
            }
        }
    }

    /// The visit can no longer be asked to leave.
    pub(super) fn stay(&mut self, ticket: u64) {
        if let Some((_, started)) = self.inside.get(&ticket) {
            self.running.remove(&(*started, ticket));
        }
        self.leaving.remove(&ticket);
    }

    /// A visit ended: others may begin, first those that wait for a place longest.
    pub(super) fn leave(&mut self, host: &Host, ticket: u64, now: Instant) -> Vec<Grant> {
        self.stay(ticket);
        let Some((standing, _)) = self.inside.remove(&ticket) else { return Vec::new() };
        self.places[standing as usize] -= 1;
        if let Some(door) = self.hosts.get_mut(host) {
            door.in_flight -= 1;
        }
        let mut granted = self.serve_ready(now);
        granted.extend(self.offer(host, now));
        granted
    }

    fn serve_ready(&mut self, now: Instant) -> Vec<Grant> {
        let mut granted = Vec::new();
        loop {
            let head = |standing: Standing| {
                let (ticket, _) = self.ready[standing as usize].front()?;
                self.has_place(standing).then_some((*ticket, standing))
            };
            let heads = [head(Standing::Living), head(Standing::Suspect)];
            let Some((_, standing)) = heads.into_iter().flatten().min_by_key(|(ticket, _)| *ticket) else {
                return granted;
            };
            let Some((_, host)) = self.ready[standing as usize].pop_front() else { return granted };
            if let Some(door) = self.hosts.get_mut(&host) {
                door.is_ready[standing as usize] = false;
            }
            granted.extend(self.offer(&host, now));
        }
    }

    /// When to look again.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        let host = self.alarms.peek().map(|Reverse((at, _))| *at);
        let wanted = self.ready[Standing::Living as usize].len() > self.leaving.len();
        let longest = self.running.first_key_value().filter(|_| wanted);
        let way = longest.map(|((started, _), _)| *started + GIVE_WAY_AFTER);
        host.into_iter().chain(way).min()
    }

    pub(super) fn ring(&mut self, now: Instant) -> Vec<Grant> {
        let mut granted = Vec::new();
        while self.alarms.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((at, host))) = self.alarms.pop() else { break };
            if let Some(door) = self.hosts.get_mut(&host)
                && door.alarm == Some(at)
            {
                door.alarm = None;
                granted.extend(self.offer(&host, now));
            }
        }
        self.make_way(now);
        granted
    }

    pub(super) fn widen(&mut self, host: &Host, now: Instant) {
        let door = self.door(host, now);
        door.spacing = door.spacing.max(SPACING_FIRST).saturating_mul(2).min(SPACING_MAX);
        door.next_start = door.next_start.max(now + door.spacing);
    }

    pub(super) fn narrow(&mut self, host: &Host) {
        let least = self.bounds.host_spacing;
        if let Some(door) = self.hosts.get_mut(host).filter(|door| door.spacing > least) {
            let narrower = (door.spacing - door.spacing / 10).max(least);
            door.spacing = if narrower < SPACING_FIRST { least.min(narrower) } else { narrower };
        }
    }

    pub(super) fn hold(&mut self, host: &Host, now: Instant, asked: Duration) {
        let (door, until) = (self.door(host, now), now + asked);
        if door.held.is_none_or(|(held, _)| held < until) {
            door.held = Some((until, asked));
        }
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        let least = self.bounds.host_spacing;
        let mut left = 0;
        self.hosts.retain(|_, door| {
            for queue in &mut door.queues {
                let before = queue.len();
                queue.retain(|waiter| !waiter.tell.is_closed());
                left += before - queue.len();
            }
            door.in_flight > 0
                || door.queues.iter().any(|queue| !queue.is_empty())
                || door.opens().0 > now
                || door.spacing > least
        });
        self.waiting -= left;
    }
}

#[cfg(test)]
impl Yard {
    pub(super) fn hosts(&self) -> usize {
        self.hosts.len()
    }
}
