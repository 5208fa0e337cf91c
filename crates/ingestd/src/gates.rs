//! Who may visit now: a bound for the process, a bound and a spacing for each host.
//!
//! Sources that timed out lately hold at most a quarter of the process's places, so that dead hosts can never starve
//! the living. A visit first gets its place at the host, then its place in the process: a queue at one host holds
//! nobody else up.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

/// How many visits, and how close together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Visits under way in the process.
    pub(crate) in_flight: usize,
    /// Visits under way at one host.
    pub(crate) host_in_flight: usize,
    /// Least time between the starts of two visits at one host.
    pub(crate) host_spacing: Duration,
}

/// The way in for every visit of one arbiter. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Gates {
    bounds: Bounds,
    all: Arc<Semaphore>,
    suspects: Arc<Semaphore>,
    hosts: Rc<RefCell<HashMap<String, Host>>>,
}

#[derive(Debug)]
struct Host {
    places: Arc<Semaphore>,
    /// When the next visit may start.
    next_start: Instant,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _host: OwnedSemaphorePermit,
    _suspect: Option<OwnedSemaphorePermit>,
    _all: OwnedSemaphorePermit,
}

impl Gates {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            all: Arc::new(Semaphore::new(bounds.in_flight)),
            suspects: Arc::new(Semaphore::new((bounds.in_flight / 4).max(1))),
            hosts: Rc::default(),
        }
    }

    /// Waits for a place at `host`; first come, first served. A suspect timed out at its last visit.
    pub(crate) async fn enter(&self, host: &str, suspect: bool) -> Permit {
        const OPEN: &str = "the gates are never closed";
        let host_place = Arc::clone(&self.host(host)).acquire_owned().await.expect(OPEN);
        self.space(host).await;
        let suspect = match suspect {
            true => Some(Arc::clone(&self.suspects).acquire_owned().await.expect(OPEN)),
            false => None,
        };
        let all = Arc::clone(&self.all).acquire_owned().await.expect(OPEN);
        Permit { _host: host_place, _suspect: suspect, _all: all }
    }

    fn host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.borrow_mut();
        let host = hosts.entry(host.to_owned()).or_insert_with(|| Host {
            places: Arc::new(Semaphore::new(self.bounds.host_in_flight)),
            next_start: Instant::now(),
        });
        Arc::clone(&host.places)
    }

    async fn space(&self, host: &str) {
        let start = {
            let mut hosts = self.hosts.borrow_mut();
            let Some(host) = hosts.get_mut(host) else { return };
            let start = host.next_start.max(Instant::now());
            host.next_start = start + self.bounds.host_spacing;
            start
        };
        sleep_until(start).await;
    }

    /// Forgets hosts at which nobody is and nobody waits.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.hosts
            .borrow_mut()
            .retain(|_, host| Arc::strong_count(&host.places) > 1 || host.next_start > now);
    }

    /// Places taken in the process.
    pub(crate) fn in_flight(&self) -> usize {
        self.bounds.in_flight - self.all.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn gates(in_flight: usize, host_in_flight: usize, spacing_s: u64) -> Gates {
        let host_spacing = Duration::from_secs(spacing_s);
        Gates::new(Bounds { in_flight, host_in_flight, host_spacing })
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_gets_two_visits_at_a_time_and_one_a_second() {
        let gates = gates(100, 2, 1);
        let start = Instant::now();
        let first = gates.enter("a", false).await;
        let _second = gates.enter("a", false).await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert!(gates.enter("a", false).now_or_never().is_none(), "two are there");
        let _other = gates.enter("b", false).now_or_never().expect("another host is not concerned");
        drop(first);
        let _third = gates.enter("a", false).await;
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn suspects_hold_a_quarter_of_the_places_at_most() {
        let gates = gates(8, 1, 0);
        let _one = gates.enter("a", true).await;
        let _two = gates.enter("b", true).await;
        assert!(gates.enter("c", true).now_or_never().is_none());
        let mut living = Vec::new();
        for n in 0..6 {
            living
                .push(gates.enter(&format!("host{n}"), false).now_or_never().expect("places for the living"));
        }
        assert_eq!(gates.in_flight(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_nobody_visits_is_forgotten() {
        let gates = gates(8, 1, 1);
        let permit = gates.enter("a", false).await;
        gates.sweep();
        assert_eq!(gates.hosts.borrow().len(), 1);
        drop(permit);
        gates.sweep();
        assert_eq!(gates.hosts.borrow().len(), 1, "its spacing still counts");
        tokio::time::advance(Duration::from_secs(1)).await;
        gates.sweep();
        assert_eq!(gates.hosts.borrow().len(), 0);
    }
}
