//! Sources that "change" most of their items at every visit: counters in the text, two servers that differ by a dot.
//!
//! The first time, all updates are sent. From then on those of a visit that changes more than [`FEW_MAX`] items are
//! absorbed, until [`QUIET_VISITS`] documents in a row had no more than that. Items that change at most visits are
//! absorbed, too, if several do, or if they go back and forth between two versions. Any other edit of one item or two is
//! sent.

use std::time::Duration;

use news::Timestamp;

/// The most updates of one visit that are sent although others were absorbed.
const FEW_MAX: usize = 2;
/// Documents without mass updates after which a source is trusted again.
const QUIET_VISITS: u8 = 3;
/// A source is trusted again this long after its last mass update, however few documents it had since.
const DAMPED_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// What a change adds to the heat of an item; a document without a change of it takes away 1.
const HEAT_OF_CHANGE: u8 = 4;
/// An item that is as hot as this has changed twice, and in more than a fifth of the documents lately.
const HOT: u8 = 2 * HEAT_OF_CHANGE;
const HEAT_MAX: u8 = 4 * HEAT_OF_CHANGE;

/// The state of a source whose updates are damped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damping {
    /// Documents without mass updates since the last one with.
    pub(crate) quiet_visits: u8,
    /// The last mass update.
    pub(crate) since: Timestamp,
}

/// A known item of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownItem {
    pub(crate) heat: u8,
    pub(crate) has_changed: bool,
    /// It has changed to what it was before the last change.
    pub(crate) has_returned: bool,
    /// The result: its update is not sent.
    pub(crate) is_absorbed: bool,
}

/// Decides which updates are absorbed, and remembers what has changed.
pub(crate) fn damp(state: &mut Option<Damping>, known: &mut [KnownItem], now: Timestamp) {
    let changed = known.iter().filter(|item| item.has_changed).count();
    let is_mass = changed > FEW_MAX && changed * 2 >= known.len();
    let is_damped = state.is_some_and(|damping| now.since(damping.since) < DAMPED_MAX);
    let absorbs_all = is_damped && changed > FEW_MAX;
    *state = match *state {
        Some(damping) if is_damped && !absorbs_all => {
            let quiet_visits = damping.quiet_visits.saturating_add(1);
            (quiet_visits < QUIET_VISITS).then_some(Damping { quiet_visits, ..damping })
        }
        // 0 on disk is without damping.
        _ if is_mass || absorbs_all => {
            Some(Damping { quiet_visits: 0, since: Timestamp::from_millis(now.millis().max(1)) })
        }
        _ => None,
    };
    let hot = known.iter().filter(|item| item.has_changed && item.heat >= HOT).count();
    for item in known {
        let is_hot = item.heat >= HOT && (hot > FEW_MAX || item.has_returned);
        item.is_absorbed = item.has_changed && (absorbs_all || is_hot);
        item.heat = if item.has_changed {
            item.heat.saturating_add(HEAT_OF_CHANGE).min(HEAT_MAX)
        } else {
            item.heat.saturating_sub(1)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source of ten items; each visit says which of them have changed.
    struct TenItems {
        state: Option<Damping>,
        heat: [u8; 10],
        now: i64,
    }

    impl TenItems {
        fn new() -> Self {
            Self { state: None, heat: [0; 10], now: 1_800_000_000_000 }
        }

        /// How many updates were sent.
        fn visit(&mut self, changed: impl Fn(usize) -> bool) -> usize {
            self.now += 300_000;
            let now = Timestamp::from_millis(self.now);
            let known = |(n, heat): (usize, &u8)| KnownItem {
                heat: *heat,
                has_changed: changed(n),
                has_returned: false,
                is_absorbed: false,
            };
            let mut known: Vec<_> = self.heat.iter().enumerate().map(known).collect();
            damp(&mut self.state, &mut known, now);
            self.heat = std::array::from_fn(|n| known[n].heat);
            known.iter().filter(|item| item.has_changed && !item.is_absorbed).count()
        }
    }

    #[test]
    fn what_changes_at_every_visit_is_sent_once() {
        let mut source = TenItems::new();
        let sent: Vec<_> = (0..50).map(|_| source.visit(|_| true)).collect();
        assert_eq!((sent[0], sent[1..].iter().sum::<usize>()), (10, 0));
    }

    #[test]
    fn a_source_that_has_become_quiet_is_trusted_again() {
        let mut source = TenItems::new();
        for _ in 0..5 {
            source.visit(|_| true);
        }
        for _ in 0..3 {
            assert_eq!(source.visit(|n| n == 7), 1, "an edit of one item is sent");
        }
        assert_eq!(source.state, None);
        for _ in 0..20 {
            source.visit(|_| false);
        }
        assert_eq!(source.visit(|_| true), 10);
        source.now += 8 * 24 * 3_600_000;
        assert_eq!(source.visit(|_| true), 10, "a week later, without a document in between");
    }

    #[test]
    fn edits_of_one_or_two_items_are_always_sent() {
        let mut source = TenItems::new();
        for _ in 0..50 {
            assert_eq!(source.visit(|n| n < 2), 2);
        }
    }

    #[test]
    fn a_part_of_the_items_that_always_changes_is_absorbed_after_two_times() {
        let mut source = TenItems::new();
        let sent: usize = (0..50).map(|_| source.visit(|n| n < 4)).sum();
        assert_eq!(sent, 8);
        assert_eq!(source.visit(|n| n == 9), 1, "an edit of another one is sent");
        assert_eq!(source.visit(|n| n == 0 || n == 1 || n == 2 || n == 8), 1, "among them, too");
        assert_eq!(source.state, None);
    }

    #[test]
    fn several_articles_that_are_edited_now_and_then_are_sent() {
        let mut source = TenItems::new();
        for round in 0..30_usize {
            assert_eq!(source.visit(|n| n / 4 == round % 2), 4, "round {round}");
            for _ in 0..6 {
                source.visit(|_| false);
            }
        }
    }
}
