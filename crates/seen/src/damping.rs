//! Sources that "change" most of their items at every visit: counters in the text, two servers that differ by a dot.
//!
//! The first time, all updates are sent. From then on those of a visit that changes more than [`FEW_MAX`] items are
//! absorbed, until [`QUIET_VISITS`] documents in a row had no more than that; but not an edit of an item that has been
//! quiet while the others counted. Items that change at most visits are
//! absorbed, too, if several do, if they go back and forth between two versions, or if only their numbers and signs change.
//! Any other edit of one item or two is sent.
//!
//! Readers end with the last version: what was absorbed is sent once the source and the item are quiet.

use std::time::Duration;

use news::Timestamp;

/// The most updates of one visit that are sent although others were absorbed.
const FEW_MAX: usize = 2;
/// Documents without mass updates after which a source is trusted again.
const QUIET_VISITS: u8 = 2;
/// A source is trusted again this long after its last mass update, however few documents it had since.
const DAMPED_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// What a change adds to the heat of an item, and what one of numbers and signs alone adds.
const HEAT_OF_CHANGE: u8 = 4;
const HEAT_OF_COUNT: u8 = 6;
/// What a document without a change of it takes away.
const COOLING: u8 = 2;
/// An item that is as hot as this has changed twice, and in more than a third of the documents lately; numbers in more than
/// a quarter.
const HOT: u8 = 2 * HEAT_OF_CHANGE;
const HEAT_MAX: u8 = 4 * HEAT_OF_CHANGE;
/// Below this an item is quiet: it has not changed in at least one document, and in up to seven after many changes.
const QUIET: u8 = HEAT_OF_CHANGE;

/// The state of a source whose updates are damped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damping {
    /// Documents without mass updates since the last one with.
    pub(crate) quiet_visits: u8,
    /// The last mass update.
    pub(crate) since: Timestamp,
}

impl Damping {
    /// The state after documents without mass updates; `None` if the source is trusted again.
    pub(crate) fn after_quiet(self, documents: u32) -> Option<Self> {
        let quiet_visits = self.quiet_visits.saturating_add(u8::try_from(documents).unwrap_or(u8::MAX));
        (quiet_visits < QUIET_VISITS).then_some(Self { quiet_visits, ..self })
    }
}

/// The heat of an item after documents in which it has not changed.
pub(crate) fn cooled(heat: u8, documents: u32) -> u8 {
    heat.saturating_sub(COOLING.saturating_mul(u8::try_from(documents).unwrap_or(u8::MAX)))
}

/// A known item of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownItem {
    pub(crate) heat: u8,
    /// Its last change was one of numbers and signs alone.
    pub(crate) counts: bool,
    /// It is not as it was in the document before.
    pub(crate) has_changed: bool,
    /// It has changed to what it was before the last change.
    pub(crate) has_returned: bool,
    /// Only numbers and signs have changed.
    pub(crate) is_counter: bool,
    /// It is not as it was sent last.
    pub(crate) is_unsent: bool,
    /// The result.
    pub(crate) action: UpdateAction,
}

/// What happens to a known item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpdateAction {
    /// Readers have it as it is, or wait for an update that was absorbed.
    Nothing,
    /// An update is sent.
    Send,
    /// It has changed, and the update is not sent now.
    Absorb,
}

/// Decides which updates are sent now, and remembers what has changed.
pub(crate) fn damp(state: &mut Option<Damping>, known: &mut [KnownItem], now: Timestamp) {
    let changed = known.iter().filter(|item| item.has_changed).count();
    let is_mass = changed > FEW_MAX && changed * 2 >= known.len();
    let is_damped = state.is_some_and(|damping| now.since(damping.since) < DAMPED_MAX);
    let absorbs_all = is_damped && changed > FEW_MAX;
    *state = match *state {
        Some(damping) if is_damped && !absorbs_all => damping.after_quiet(1),
        // 0 on disk is without damping.
        _ if is_mass || absorbs_all => {
            Some(Damping { quiet_visits: 0, since: Timestamp::from_millis(now.millis().max(1)) })
        }
        _ => None,
    };
    let is_quiet = state.is_none();
    let hot = known.iter().filter(|item| item.has_changed && item.heat >= HOT).count();
    for item in known {
        // Words that change in an item whose numbers count are an edit.
        let is_edit = item.counts && !item.is_counter && !item.has_returned;
        let is_hot = item.heat >= HOT && !is_edit && (hot > FEW_MAX || item.has_returned || item.is_counter);
        let is_in_mass = absorbs_all && !is_edit && (item.is_counter || item.heat > 0);
        item.counts = if item.has_changed { item.is_counter } else { item.counts };
        let heat = if item.is_counter { HEAT_OF_COUNT } else { HEAT_OF_CHANGE };
        item.heat = if item.has_changed {
            item.heat.saturating_add(heat).min(HEAT_MAX)
        } else {
            cooled(item.heat, 1)
        };
        item.action = match (item.has_changed, item.is_unsent) {
            (_, false) => UpdateAction::Nothing,
            (true, true) if is_in_mass || is_hot => UpdateAction::Absorb,
            (true, true) => UpdateAction::Send,
            (false, true) if is_quiet && item.heat < QUIET => UpdateAction::Send,
            (false, true) => UpdateAction::Nothing,
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
        counts: [bool; 10],
        /// The versions that the feed has, and that readers have.
        versions: [u32; 10],
        sent: [u32; 10],
        is_counter: bool,
        now: i64,
    }

    impl TenItems {
        fn new() -> Self {
            Self {
                state: None,
                heat: [0; 10],
                counts: [false; 10],
                versions: [0; 10],
                sent: [0; 10],
                is_counter: false,
                now: 1_800_000_000_000,
            }
        }

        /// How many updates were sent.
        fn visit(&mut self, changed: impl Fn(usize) -> bool) -> usize {
            self.now += 300_000;
            let now = Timestamp::from_millis(self.now);
            for n in (0..10).filter(|n| changed(*n)) {
                self.versions[n] += 1;
            }
            let mut known: Vec<_> = (0..10)
                .map(|n| KnownItem {
                    heat: self.heat[n],
                    counts: self.counts[n],
                    has_changed: changed(n),
                    has_returned: false,
                    is_counter: self.is_counter,
                    is_unsent: self.versions[n] != self.sent[n],
                    action: UpdateAction::Nothing,
                })
                .collect();
            damp(&mut self.state, &mut known, now);
            for (n, item) in known.iter().enumerate() {
                (self.heat[n], self.counts[n]) = (item.heat, item.counts);
                if item.action == UpdateAction::Send {
                    self.sent[n] = self.versions[n];
                }
            }
            known.iter().filter(|item| item.action == UpdateAction::Send).count()
        }

        /// Visits without a change until nothing is sent any more: how many updates they sent.
        fn quiet(&mut self) -> usize {
            let sent = (0..20).map(|_| self.visit(|_| false)).sum();
            assert_eq!(self.versions, self.sent, "readers have the last versions");
            sent
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
        assert_eq!(source.visit(|n| n == 7), 1, "an edit of one item is sent");
        assert_eq!(source.quiet(), 9, "what was absorbed");
        assert_eq!(source.state, None);
        assert_eq!(source.visit(|_| true), 10);
        source.now += 8 * 24 * 3_600_000;
        assert_eq!(source.visit(|_| true), 10, "a week later, without a document in between");
    }

    #[test]
    fn a_whole_feed_that_is_edited_twice_ends_right() {
        let mut source = TenItems::new();
        assert_eq!((source.visit(|_| true), source.visit(|_| true)), (10, 0));
        let visits: Vec<_> = (0..8).map(|_| source.visit(|_| false)).collect();
        assert_eq!(visits.iter().sum::<usize>(), 10, "{visits:?}");
        assert_eq!(source.quiet(), 0);
    }

    #[test]
    fn a_counter_of_one_item_is_bounded_and_ends_right() {
        let mut source = TenItems { is_counter: true, ..TenItems::new() };
        let sent: usize = (0..50).map(|_| source.visit(|n| n == 3)).sum();
        assert_eq!((sent, source.quiet()), (2, 1));
        let seldom: usize = (0..60).map(|visit| source.visit(|n| n == 3 && visit % 6 == 0)).sum();
        assert_eq!(seldom, 10, "numbers that change now and then are sent");
    }

    #[test]
    fn words_that_change_among_counters_that_never_stop_are_sent() {
        let mut source = TenItems { is_counter: true, ..TenItems::new() };
        for _ in 0..20 {
            source.visit(|n| n < 9);
        }
        source.is_counter = false;
        assert_eq!(source.visit(|n| n == 9), 1, "of the one that does not count");
        assert_eq!(source.visit(|n| n == 3), 1, "of one that does");
        source.is_counter = true;
        assert_eq!((0..20).map(|_| source.visit(|n| n < 9)).sum::<usize>(), 0);
    }

    #[test]
    fn a_whole_feed_that_changes_at_every_third_visit_is_sent() {
        let mut source = TenItems::new();
        for round in 0..20 {
            assert_eq!(source.visit(|_| true), 10, "round {round}");
            assert_eq!((source.visit(|_| false), source.visit(|_| false)), (0, 0));
        }
    }

    #[test]
    fn counters_of_any_three_items_of_ten_are_bounded() {
        let mut source = TenItems { is_counter: true, ..TenItems::new() };
        let sent: Vec<_> =
            (0..200_usize).map(|visit| source.visit(|n| (n * 7 + visit * 3) % 10 < 3)).collect();
        assert!(sent[40..].iter().sum::<usize>() == 0, "{sent:?}");
        assert_eq!(source.quiet(), 10);
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
        assert_eq!(source.quiet(), 4, "the last versions");
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
