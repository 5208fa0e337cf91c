//! Is it them or is it us? When most hosts that answered before cannot be reached all at once, the fault is ours.
//!
//! Only the last word of each host counts, and only for [`WINDOW`]. A failure is evidence only where the source was
//! healthy before: a list full of dead feeds is no outage.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::host::Host;

/// How long a word counts.
const WINDOW: Duration = Duration::from_secs(60);
/// An outage concerns at least so many hosts.
const HOSTS_MIN: usize = 8;
/// It begins when so many in a hundred hosts cannot be reached.
const BEGINS_PERCENT: usize = 80;
/// It ends when fewer than so many in a hundred cannot.
const ENDS_PERCENT: usize = 50;

/// What visits say about our own network.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    last: HashMap<Host, (Instant, Word)>,
    order: VecDeque<(Instant, Host)>,
    lost: usize,
    /// Since when, and how many visits were pardoned.
    on: Option<(Instant, u64)>,
}

/// What a visit says about the way to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Somebody answered.
    Reached,
    /// Nobody did, though somebody had at the visit before.
    Lost,
}

/// What a word changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// An outage begins.
    Began {
        /// Hosts that cannot be reached.
        hosts: usize,
    },
    /// It is over.
    Ended {
        /// How long it lasted.
        lasted: Duration,
        /// Visits that were not blamed on their feeds.
        pardoned: u64,
    },
}

impl Outage {
    /// Takes a word about a host.
    pub(crate) fn hear(&mut self, host: Host, word: Word, now: Instant) -> Option<Change> {
        self.forget(now);
        if let Some((_, Word::Lost)) = self.last.insert(host.clone(), (now, word)) {
            self.lost -= 1;
        }
        self.lost += usize::from(word == Word::Lost);
        self.order.push_back((now, host));
        let percent = self.lost * 100 / self.last.len();
        match self.on {
            None if self.lost >= HOSTS_MIN && percent >= BEGINS_PERCENT => {
                self.on = Some((now, 0));
                Some(Change::Began { hosts: self.lost })
            }
            Some((since, pardoned)) if percent < ENDS_PERCENT => {
                self.on = None;
                Some(Change::Ended { lasted: now - since, pardoned })
            }
            _ => None,
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, host)) = self.order.pop_front_if(|(at, _)| *at + WINDOW < now) {
            // A newer word about the host stands further back.
            if self.last.get(&host).is_some_and(|(last, _)| *last == at)
                && let Some((_, Word::Lost)) = self.last.remove(&host)
            {
                self.lost -= 1;
            }
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Counts a visit that is not blamed on its feed.
    pub(crate) fn pardon(&mut self) {
        if let Some((_, pardoned)) = &mut self.on {
            *pardoned += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: usize) -> Host {
        Host::of(&format!("https://host{n}.org/").parse().unwrap())
    }

    fn hear(outage: &mut Outage, hosts: std::ops::Range<usize>, word: Word) -> Vec<Change> {
        hosts.filter_map(|n| outage.hear(host(n), word, Instant::now())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn many_hosts_lost_at_once_are_one_outage_and_the_first_answers_end_it() {
        let mut outage = Outage::default();
        assert_eq!(hear(&mut outage, 0..7, Word::Lost), []);
        assert_eq!(hear(&mut outage, 7..30, Word::Lost), [Change::Began { hosts: 8 }]);
        outage.pardon();
        tokio::time::advance(Duration::from_secs(300)).await;
        assert!(outage.is_on(), "silence proves nothing");
        let over = Change::Ended { lasted: Duration::from_secs(300), pardoned: 1 };
        assert_eq!(hear(&mut outage, 3..20, Word::Reached), [over]);
        assert!(!outage.is_on());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_fails_again_and_again_is_one_host() {
        let mut outage = Outage::default();
        for _ in 0..50 {
            assert_eq!(hear(&mut outage, 0..3, Word::Lost), []);
        }
        assert_eq!((outage.lost, outage.last.len()), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn dead_hosts_among_living_ones_are_no_outage_nor_are_those_that_die_one_after_the_other() {
        let mut outage = Outage::default();
        hear(&mut outage, 0..30, Word::Reached);
        assert_eq!(hear(&mut outage, 30..60, Word::Lost), []);
        for n in 100..150 {
            tokio::time::advance(WINDOW / 4).await;
            assert_eq!(hear(&mut outage, n..n + 1, Word::Lost), []);
        }
        assert!(outage.last.len() <= 6 && outage.order.len() <= 6, "only the last minute is remembered");
    }
}
