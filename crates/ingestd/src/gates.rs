//! Who may visit now: a bound for the process, a bound and a spacing for each host.
//!
//! ```text
//! queue ─► the host's turn (in order, spaced, not sent away) ─► a place in the process ─► Permit
//! ```
//!
//! Who waits holds nothing, so a queue at one host holds nobody else up. Suspects (sources that did not answer lately)
//! hold at most a quarter of the places; a visit that has lasted [`GIVE_WAY_AFTER`] while others want its place gives it
//! up and begins again as a suspect. So dead hosts never starve the living, not even before they are known.

mod yard;

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

pub(crate) use yard::Sign;
use yard::{Grant, Yard};

use crate::{host::Host, metrics::Numbers};

/// How many visits, and how close together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Visits under way in the process.
    pub(crate) in_flight: usize,
    /// Visits under way at one host.
    pub(crate) host_in_flight: usize,
    /// Least time between the starts of two visits at one host, until it asks for more.
    pub(crate) host_spacing: Duration,
}

/// The longest spacing that a host's 429s can teach us.
pub(crate) const SPACING_MAX: Duration = Duration::from_secs(3600);
/// What the first 429 of a host without a spacing is doubled from.
const SPACING_FIRST: Duration = Duration::from_millis(500);
/// A visit that has lasted so long gives way to others when all places are taken.
pub(crate) const GIVE_WAY_AFTER: Duration = Duration::from_secs(2);

/// What is known of a source before it is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It answered last time, or was never visited.
    Living,
    /// It did not answer last time.
    Suspect,
}

/// What a host said to a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It served us.
    Served,
    /// 429, and for how long it sends us away if it says so.
    TooMany(Option<Duration>),
}

/// The way in for every visit of one arbiter. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gates(Rc<Inner>);

struct Inner {
    yard: RefCell<Yard>,
    /// An alarm was set.
    bell: Notify,
    numbers: Numbers,
}

/// A visit in the queue of its host; leaves it when dropped.
pub(crate) struct Turn {
    sign: Arc<Sign>,
    permit: oneshot::Receiver<Permit>,
}

/// A place; given back when dropped.
pub(crate) struct Permit {
    gates: Gates,
    host: Host,
    ticket: u64,
    give_way: Option<oneshot::Receiver<()>>,
}

impl Gates {
    pub(crate) fn new(bounds: Bounds, numbers: Numbers) -> Self {
        Self(Rc::new(Inner { yard: RefCell::new(Yard::new(bounds)), bell: Notify::new(), numbers }))
    }

    /// Other bounds from now on, also for those who wait already; visits under way stay.
    pub(crate) fn set(&self, bounds: Bounds) {
        let granted = self.0.yard.borrow_mut().set(bounds, Instant::now());
        self.hand_out(granted);
    }

    /// Takes a place in the queue of `host`; first come, first served.
    pub(crate) fn queue(&self, host: &Host, standing: Standing) -> Turn {
        let (tell, permit) = oneshot::channel();
        let sign = self.0.yard.borrow_mut().join(host, standing, tell);
        self.serve(host);
        if sign.is_closed() {
            self.0.numbers.waits.get_or_create(&[("for", sign.cause())]).inc();
        }
        Turn { sign, permit }
    }

    /// Learns from what a host said to a visit.
    pub(crate) fn hear(&self, host: &Host, heard: Heard) {
        let mut yard = self.0.yard.borrow_mut();
        match heard {
            Heard::Served => yard.narrow(host),
            Heard::TooMany(asked) => {
                self.0.numbers.hosts_widened.inc();
                yard.widen(host, Instant::now());
                drop(yard);
                if let Some(asked) = asked {
                    self.hold(host, asked);
                }
            }
        }
    }

    /// Keeps everybody away from a host for so long. Only from a public one: a service of the operator's own, such as
    /// a bridge for many sites, means the one feed.
    pub(crate) fn hold(&self, host: &Host, asked: Duration) {
        if host.is_public() {
            self.0.numbers.hosts_held.inc();
            self.0.yard.borrow_mut().hold(host, Instant::now(), asked);
        }
    }

    /// Lets in whoever may come in now.
    fn serve(&self, host: &Host) {
        let granted = self.0.yard.borrow_mut().offer(host, Instant::now());
        self.hand_out(granted);
    }

    fn hand_out(&self, granted: Vec<Grant>) {
        for Grant { host, ticket, tell, give_way } in granted {
            let permit = Permit { gates: self.clone(), host, ticket, give_way };
            // Whoever left in this very moment gives the place back by dropping it.
            tell.send(permit).ok();
        }
        self.0.numbers.in_flight.set(i64::try_from(self.in_flight()).unwrap_or(i64::MAX));
        self.0.numbers.waiting.set(i64::try_from(self.0.yard.borrow().waiting()).unwrap_or(i64::MAX));
        self.0.bell.notify_one();
    }

    fn leave(&self, host: &Host, ticket: u64) {
        let granted = self.0.yard.borrow_mut().leave(host, ticket, Instant::now());
        self.hand_out(granted);
    }

    /// Opens hosts when their time has come. Somebody must poll this for as long as there are visits.
    pub(crate) async fn keep_time(self) {
        loop {
            let next = self.0.yard.borrow().next_alarm();
            match next {
                None => self.0.bell.notified().await,
                Some(at) => tokio::select! {
                    () = self.0.bell.notified() => continue,
                    () = sleep_until(at) => {}
                },
            }
            let granted = self.0.yard.borrow_mut().ring(Instant::now());
            if !granted.is_empty() {
                self.hand_out(granted);
            }
        }
    }

    /// Forgets hosts at which nobody is, nobody waits, and that taught us nothing.
    pub(crate) fn sweep(&self) {
        self.0.yard.borrow_mut().sweep(Instant::now());
    }

    /// Places taken in the process.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.yard.borrow().in_flight()
    }
}

impl Turn {
    /// Says what is waited for; it changes while the visit waits.
    pub(crate) fn sign(&self) -> Arc<Sign> {
        Arc::clone(&self.sign)
    }
}

impl Future for Turn {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let permit = Pin::new(&mut self.permit).poll(cx);
        permit.map(|permit| permit.expect("the gates outlive whoever waits, who has a clone"))
    }
}

impl Permit {
    /// Comes when others want the place; never for a suspect.
    pub(crate) async fn told_to_give_way(&mut self) {
        let told = match &mut self.give_way {
            Some(told) => told.await,
            None => std::future::pending().await,
        };
        if told.is_err() {
            // Nobody can ask any more.
            std::future::pending().await
        }
    }

    /// The visit is past what can hang: it keeps its place to the end.
    pub(crate) fn stay(&mut self) {
        self.give_way = None;
        self.gates.0.yard.borrow_mut().stay(self.ticket);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gates.clone().leave(&self.host, self.ticket);
    }
}

#[cfg(test)]
mod tests;
