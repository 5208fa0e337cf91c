//! From a push to visits, as pure functions: when the visit is, and whether another one follows.
//!
//! ```text
//! push ──► waiting ──interval_min since any visit, every since the last for a push──► visit ──found something──► fruitful
//!                                                                                      │ found nothing
//!                                                                                      ▼
//!                                                                           after 30 to 60 s: one more visit
//! ```
//!
//! A publisher may tell its hub before the feed has the item, so one look too early must not lose it. The second look
//! belongs to its push; the next push has to wait from there. An ordinary visit that begins after a push is the visit for
//! it.

use std::{ops::Range, time::Duration};

use fetch::schedule::IntervalBounds;
use news::{HubSubscription, Source, Timestamp, UnsettledPushes};

use super::messages::VisitFindings;

/// After how many seconds a source is visited again whose visit for a push found nothing. With the visit and the tick of
/// the actor, the two requests are 30 to 60 s apart.
const AGAIN_S: Range<f64> = 30.0..58.0;

/// The pushes of one source that are not settled yet.
#[derive(Debug, Default)]
pub(crate) struct SourcePushes {
    waiting: Option<WaitingPush>,
    look: Option<Look>,
}

/// Pushes that no visit has begun for.
#[derive(Clone, Copy, Debug)]
struct WaitingPush {
    /// When the last of them came.
    came: Timestamp,
    not_before: Timestamp,
}

/// The visits for a push that is not waiting any more.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// When the push came.
    came: Timestamp,
    stage: LookStage,
}

#[derive(Clone, Copy, Debug)]
enum LookStage {
    /// A visit was ordered at this time.
    First(Timestamp),
    /// It found nothing; the second is due at this time.
    Between(Timestamp),
    /// The second was ordered at this time.
    Second(Timestamp),
}

/// What came of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushOutcome {
    /// A visit has found something. When the push came.
    Fruitful(Timestamp),
    /// Its visit found nothing; another one follows. When the push came.
    Empty(Timestamp),
}

/// The earliest time of a visit because of a push. `last_visit` is when the last visit of all ended.
pub(crate) fn earliest_visit(
    subscription: &HubSubscription,
    source: &Source,
    last_visit: Option<Timestamp>,
    bounds: IntervalBounds,
    now: Timestamp,
) -> Timestamp {
    let spacing = bounds.interval_min.max(source.every.unwrap_or_default());
    // The clock may have been wrong.
    let after = |last: Option<Timestamp>, pause| last.map_or(now, |last| last.min(now).plus(pause));
    after(subscription.last_push_visit, spacing).max(after(last_visit, bounds.interval_min))
}

impl SourcePushes {
    /// A push has come; returns whether it leads to a visit of its own, and not to that of an earlier one.
    pub(crate) fn add(&mut self, now: Timestamp, not_before: Timestamp) -> bool {
        let is_first = self.waiting.is_none();
        self.waiting = Some(WaitingPush { came: now, not_before });
        is_first
    }

    /// Whether a visit is to be ordered.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let again = match self.look {
            Some(Look { stage: LookStage::Between(at), .. }) => Some(at),
            _ => None,
        };
        let waiting = self.waiting.map(|push| push.not_before);
        waiting.into_iter().chain(again).any(|at| at <= now)
    }

    /// A visit was ordered.
    pub(crate) fn mark_ordered(&mut self, now: Timestamp) {
        if let Some(push) = self.waiting.take_if(|push| push.not_before <= now) {
            self.look = Some(Look { came: push.came, stage: LookStage::First(now) });
        } else if let Some(look) = &mut self.look {
            look.stage = LookStage::Second(now);
        }
    }

    /// What is to be kept for a restart. Of a second visit that was ordered, nothing is: a source whose visit stops the
    /// program would be looked at after each start.
    pub(crate) fn unsettled(&self) -> UnsettledPushes {
        let look = self.look.and_then(|look| match look.stage {
            LookStage::First(at) => Some(at.plus(Duration::from_secs_f64(AGAIN_S.start))),
            LookStage::Between(at) => Some(at),
            LookStage::Second(_) => None,
        });
        UnsettledPushes { waiting: self.waiting.map(|push| push.came), look }
    }

    /// What was kept before a restart; the last push came at `came`.
    pub(crate) fn restore(
        unsettled: UnsettledPushes,
        came: Timestamp,
        not_before: Timestamp,
        now: Timestamp,
    ) -> Self {
        // The clock may have been wrong.
        let latest = now.plus(Duration::from_secs_f64(AGAIN_S.end));
        let between = |at: Timestamp| Look { came: came.min(now), stage: LookStage::Between(at.min(latest)) };
        Self {
            waiting: unsettled.waiting.map(|came| WaitingPush { came: came.min(now), not_before }),
            look: unsettled.look.map(between),
        }
    }

    /// The pause since the last visit counts at the time when a visit is ordered.
    pub(crate) fn postpone(&mut self, earliest: Timestamp) {
        if let Some(push) = &mut self.waiting {
            push.not_before = earliest;
        }
    }

    /// A visit of the source has ended. `jitter` is from 0 to 1.
    pub(crate) fn settle(
        &mut self,
        visit: VisitFindings,
        now: Timestamp,
        jitter: f64,
    ) -> Option<PushOutcome> {
        // Whatever made the visit come.
        let is_looked_for = |came: Timestamp| came <= visit.started;
        if visit.found > 0 {
            let waiting = self.waiting.take_if(|push| is_looked_for(push.came)).map(|push| push.came);
            let look = self.look.take_if(|look| is_looked_for(look.came)).map(|look| look.came);
            return waiting.max(look).map(PushOutcome::Fruitful);
        }
        let look = self.look.take_if(|look| look.at() <= visit.started);
        // Otherwise each second visit would bring about another one. An ordinary visit may be the second.
        let is_second = look.is_some_and(|look| !matches!(look.stage, LookStage::First(_)));
        if !visit.is_healthy {
            // When it is visited again is a matter of its failures.
            self.look = None;
        }
        if is_second || !visit.is_healthy {
            return None;
        }
        let waiting = self.waiting.take_if(|push| is_looked_for(push.came)).map(|push| push.came);
        let came = waiting.max(look.map(|look| look.came))?;
        let wait = Duration::from_secs_f64(AGAIN_S.start + jitter * (AGAIN_S.end - AGAIN_S.start));
        self.look = Some(Look { came, stage: LookStage::Between(now.plus(wait)) });
        Some(PushOutcome::Empty(came))
    }

    /// Whether this visit was ordered for a push.
    pub(crate) fn has_ordered(&self, visit: VisitFindings) -> bool {
        self.look.and_then(Look::ordered).is_some_and(|at| at <= visit.started)
    }

    /// Brings what waits up to date: the interval of the source and the clock may have changed. `last_visit` is when the
    /// last visit ended; one that ended before `reported` has been reported, if it ever will be.
    pub(crate) fn review(
        &mut self,
        earliest: Timestamp,
        last_visit: Option<Timestamp>,
        reported: Timestamp,
        now: Timestamp,
    ) {
        self.postpone(earliest);
        let latest = now.plus(Duration::from_secs_f64(AGAIN_S.end));
        self.look.take_if(|look| match look.stage {
            LookStage::Between(at) => at > latest,
            LookStage::First(at) | LookStage::Second(at) => {
                last_visit.is_some_and(|ended| at <= ended && ended < reported)
            }
        });
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_none() && self.look.is_none()
    }
}

impl Look {
    /// When its next visit was ordered, or is due.
    fn at(self) -> Timestamp {
        match self.stage {
            LookStage::First(at) | LookStage::Between(at) | LookStage::Second(at) => at,
        }
    }

    /// When the visit in progress was ordered.
    fn ordered(self) -> Option<Timestamp> {
        match self.stage {
            LookStage::First(at) | LookStage::Second(at) => Some(at),
            LookStage::Between(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use news::{FeedUrl, SecretText, SourceId};

    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(s))
    }

    fn visit(started: u64, found: u32) -> VisitFindings {
        VisitFindings { started: at(started), found, is_healthy: true }
    }

    /// A source whose visit for a push was ordered at 0.
    fn looking() -> SourcePushes {
        let mut pushes = SourcePushes::default();
        assert!(pushes.add(at(0), at(0)) && pushes.is_due(at(0)));
        pushes.mark_ordered(at(0));
        assert!(!pushes.is_due(at(1000)));
        pushes
    }

    #[test]
    fn visits_for_pushes_are_interval_min_and_every_apart() {
        let hidden = |text: &str| SecretText::new(text.to_owned());
        let url = FeedUrl::try_new("https://a.example/").unwrap();
        let mut source = Source::new(SourceId::try_new("a").unwrap(), url);
        let (hub, topic) = (hidden("https://h.example/"), hidden("https://a.example/"));
        let mut one = super::super::subscription::create(&hub, &topic, hidden("id"), hidden("s"), at(0));
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let bounds = IntervalBounds { interval_min: minutes(5), ..IntervalBounds::default() };
        assert_eq!(earliest_visit(&one, &source, None, bounds, at(7)), at(7), "the first is immediate");
        for (ended, earliest) in [(at(50), at(350)), (at(999), at(500)), (Timestamp::from_millis(0), at(200))]
        {
            assert_eq!(
                earliest_visit(&one, &source, Some(ended), bounds, at(200)),
                earliest,
                "any visit counts"
            );
        }
        one.last_push_visit = Some(at(100));
        assert_eq!(earliest_visit(&one, &source, None, bounds, at(200)), at(400));
        for (every, earliest) in [(minutes(1), at(400)), (minutes(360), at(21_700))] {
            source.every = Some(every);
            assert_eq!(earliest_visit(&one, &source, None, bounds, at(200)), earliest);
        }
        one.last_push_visit = Some(at(1_000_000));
        assert_eq!(
            earliest_visit(&one, &source, None, bounds, at(200)),
            at(21_800),
            "the clock was set back"
        );
    }

    #[test]
    fn an_empty_push_is_looked_at_once_more_after_30_to_60_s() {
        for (jitter, again) in [(0.0, 33), (0.5, 47), (1.0, 61)] {
            let mut pushes = looking();
            assert_eq!(pushes.settle(visit(2, 0), at(3), jitter), Some(PushOutcome::Empty(at(0))));
            assert!(!pushes.is_due(at(again - 1)) && pushes.is_due(at(again)));
            pushes.mark_ordered(at(again));
            assert_eq!(pushes.settle(visit(again, 0), at(again + 1), jitter), None);
            assert!(pushes.is_settled(), "and never again: {pushes:?}");
        }
    }

    #[test]
    fn a_failed_visit_is_not_repeated() {
        let mut pushes = looking();
        let failed = VisitFindings { is_healthy: false, ..visit(0, 0) };
        assert_eq!(pushes.settle(failed, at(1), 0.5), None);
        assert!(pushes.is_settled());
        // Nor does a visit follow one that failed between the two.
        let mut pushes = looking();
        pushes.settle(visit(0, 0), at(1), 0.5);
        let failed = VisitFindings { is_healthy: false, ..visit(10, 0) };
        assert_eq!(pushes.settle(failed, at(11), 0.5), None);
        assert!(pushes.is_settled());
    }

    #[test]
    fn what_any_visit_finds_counts_for_the_pushes_before_it() {
        let mut pushes = looking();
        pushes.add(at(5), at(300));
        assert_eq!(pushes.settle(visit(2, 1), at(3), 0.5), Some(PushOutcome::Fruitful(at(0))));
        assert!(!pushes.is_settled(), "the second push came after the visit had begun");
        pushes.add(at(6), at(300));
        let empty = pushes.settle(visit(20, 0), at(21), 0.5);
        assert_eq!(empty, Some(PushOutcome::Empty(at(6))), "an ordinary visit is the first look");
        assert!(pushes.is_due(at(65)) && !pushes.is_due(at(64)));
        assert_eq!(pushes.settle(visit(30, 2), at(31), 0.5), Some(PushOutcome::Fruitful(at(6))));
        assert!(pushes.is_settled());
        // Between the two looks.
        let mut pushes = looking();
        pushes.settle(visit(0, 0), at(1), 0.5);
        assert_eq!(pushes.settle(visit(10, 0), at(11), 0.5), None, "too soon after the first");
        assert_eq!(pushes.settle(visit(20, 3), at(21), 0.5), Some(PushOutcome::Fruitful(at(0))));
        assert!(pushes.is_settled());
    }

    #[test]
    fn pushes_while_another_is_looked_at_make_one_visit_at_the_earliest_time() {
        let mut pushes = looking();
        assert!(pushes.add(at(1), at(300)) && !pushes.add(at(2), at(300)));
        assert_eq!(pushes.settle(visit(0, 0), at(1), 0.0), Some(PushOutcome::Empty(at(0))));
        assert!(pushes.is_due(at(31)));
        pushes.mark_ordered(at(31));
        assert_eq!(pushes.settle(visit(31, 0), at(32), 0.0), None);
        assert!(!pushes.is_due(at(299)) && pushes.is_due(at(300)));
        pushes.mark_ordered(at(300));
        assert_eq!(pushes.settle(visit(300, 0), at(301), 0.0), Some(PushOutcome::Empty(at(2))));
    }

    #[test]
    fn a_restart_keeps_what_is_unsettled_and_looks_at_most_once_more() {
        let restart =
            |pushes: &SourcePushes, now| SourcePushes::restore(pushes.unsettled(), at(0), at(300), at(now));
        // During the first visit, and between the two.
        let mut between = looking();
        between.settle(visit(0, 0), at(1), 0.0);
        for (before, due) in [(looking(), 30), (between, 31)] {
            let mut pushes = restart(&before, 5);
            assert!(!pushes.is_due(at(due - 1)) && pushes.is_due(at(due)));
            pushes.mark_ordered(at(due));
            assert!(restart(&pushes, due + 1).is_settled(), "during the second visit");
            assert_eq!(pushes.settle(visit(due, 0), at(due + 1), 0.0), None);
            assert!(pushes.is_settled());
            // An ordinary visit after a long stop is the second look.
            let mut pushes = restart(&before, 5000);
            assert!(pushes.is_due(at(5000)));
            assert_eq!(pushes.settle(visit(5000, 0), at(5001), 0.0), None);
            assert!(pushes.is_settled(), "{pushes:?}");
        }
        let mut waiting = SourcePushes::default();
        waiting.add(at(3), at(300));
        let waiting = restart(&waiting, 5);
        assert!(!waiting.is_due(at(299)) && waiting.is_due(at(300)));
        assert!(restart(&SourcePushes::default(), 5).is_settled());
    }

    #[test]
    fn a_review_moves_what_waits_and_ends_what_was_never_reported() {
        let mut pushes = looking();
        pushes.add(at(1), at(300));
        pushes.review(at(100), None, at(1), at(61));
        assert!(pushes.is_due(at(100)), "every is shorter now");
        pushes.waiting = None;
        pushes.review(at(100), Some(at(5)), at(1), at(61));
        assert!(!pushes.is_settled(), "the report may still come");
        pushes.review(at(100), Some(at(5)), at(6), at(66));
        assert!(pushes.is_settled());
    }
}
