//! Detects outages of our own network: most hosts that answered before are unreachable at the same time.
//!
//! Only the last observation of each host counts, and only for [`WINDOW`]. A failure counts only if the source was
//! healthy before: a catalogue full of dead feeds is not an outage.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::queue::host::Host;

/// How long an observation counts.
const WINDOW: Duration = Duration::from_secs(60);
/// Hosts that are unreachable in an outage, at least.
const HOSTS_MIN: usize = 8;
/// An outage begins when so many percent of the hosts are unreachable.
const BEGINS_PERCENT: usize = 80;
/// It ends when fewer percent of the hosts are unreachable.
const ENDS_PERCENT: usize = 50;

/// What the visits of the last minute say about our own network.
#[derive(Debug, Default)]
pub(crate) struct OutageDetector {
    last: HashMap<Host, (Instant, Observation)>,
    order: VecDeque<(Instant, Host)>,
    unreachable: usize,
    /// Since when, and how many visits were exempted.
    on: Option<(Instant, u64)>,
}

/// What a visit says about the network path to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observation {
    /// The host answered.
    Reachable,
    /// The host did not answer, though it did at the visit before.
    Unreachable,
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutageChange {
    /// An outage began.
    Began {
        /// Unreachable hosts.
        hosts: usize,
    },
    /// It ended.
    Ended {
        /// How long it lasted.
        lasted: Duration,
        /// Visits that were not counted against their feeds.
        exempted: u64,
    },
}

impl OutageDetector {
    /// Takes the observation of a host.
    pub(crate) fn observe(
        &mut self,
        host: Host,
        observation: Observation,
        now: Instant,
    ) -> Option<OutageChange> {
        self.forget(now);
        if let Some((_, Observation::Unreachable)) = self.last.insert(host.clone(), (now, observation)) {
            self.unreachable -= 1;
        }
        self.unreachable += usize::from(observation == Observation::Unreachable);
        self.order.push_back((now, host));
        let percent = self.unreachable * 100 / self.last.len();
        match self.on {
            None if self.unreachable >= HOSTS_MIN && percent >= BEGINS_PERCENT => {
                self.on = Some((now, 0));
                Some(OutageChange::Began { hosts: self.unreachable })
            }
            Some((since, exempted)) if percent < ENDS_PERCENT => {
                self.on = None;
                Some(OutageChange::Ended { lasted: now - since, exempted })
            }
            _ => None,
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, host)) = self.order.pop_front_if(|(at, _)| *at + WINDOW < now) {
            // A newer observation of the host is further back in the queue.
            if self.last.get(&host).is_some_and(|(last, _)| *last == at)
                && let Some((_, Observation::Unreachable)) = self.last.remove(&host)
            {
                self.unreachable -= 1;
            }
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Counts a visit that is not counted against its feed.
    pub(crate) fn count_exempt(&mut self) {
        if let Some((_, exempted)) = &mut self.on {
            *exempted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: usize) -> Host {
        Host::of(&format!("https://host{n}.org/").parse().unwrap())
    }

    fn observe(
        outage: &mut OutageDetector,
        hosts: std::ops::Range<usize>,
        observation: Observation,
    ) -> Vec<OutageChange> {
        hosts.filter_map(|n| outage.observe(host(n), observation, Instant::now())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn many_hosts_unreachable_at_once_are_one_outage_and_the_first_answers_end_it() {
        let mut outage = OutageDetector::default();
        assert_eq!(observe(&mut outage, 0..7, Observation::Unreachable), []);
        assert_eq!(observe(&mut outage, 7..30, Observation::Unreachable), [OutageChange::Began { hosts: 8 }]);
        outage.count_exempt();
        tokio::time::advance(Duration::from_secs(300)).await;
        assert!(outage.is_on(), "silence proves nothing");
        let over = OutageChange::Ended { lasted: Duration::from_secs(300), exempted: 1 };
        assert_eq!(observe(&mut outage, 3..20, Observation::Reachable), [over]);
        assert!(!outage.is_on());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_fails_again_and_again_is_one_host() {
        let mut outage = OutageDetector::default();
        for _ in 0..50 {
            assert_eq!(observe(&mut outage, 0..3, Observation::Unreachable), []);
        }
        assert_eq!((outage.unreachable, outage.last.len()), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn dead_hosts_among_others_are_not_an_outage_nor_are_hosts_that_fail_one_after_the_other() {
        let mut outage = OutageDetector::default();
        observe(&mut outage, 0..30, Observation::Reachable);
        assert_eq!(observe(&mut outage, 30..60, Observation::Unreachable), []);
        for n in 100..150 {
            tokio::time::advance(WINDOW / 4).await;
            assert_eq!(observe(&mut outage, n..n + 1, Observation::Unreachable), []);
        }
        assert!(outage.last.len() <= 6 && outage.order.len() <= 6, "only the last minute is remembered");
    }
}
