//! Reschedules the visits when the wall clock has jumped.

use std::time::Duration;

use fetch::schedule::{IntervalBounds, Next, PlannedVisit, catch_up};
use news::Timestamp;

use super::{SupervisedSource, Supervisor};
use crate::{
    clock_reading::{ClockJump, ClockReading},
    visit::{outcome::defer_overdue, source_actor::Reschedule},
};

/// Smaller differences are corrections by NTP.
const JUMP_MIN: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Reschedules the visits if the clock has jumped since the last check.
    pub(super) fn check_clock(&mut self) {
        let now = ClockReading::now(&self.ctx.clock);
        let before = std::mem::replace(&mut self.clock_reading, now);
        let Some(jump) = before.jump_until(now, JUMP_MIN) else { return };
        self.ctx.metrics.clock_jumps.inc();
        let idle: Vec<_> =
            self.sources.values().filter_map(|s| Some((s, s.entry.planned_visit()?))).collect();
        match jump {
            ClockJump::Back(by) => {
                move_back(&idle, by);
                tracing::warn!(by_s = by.as_secs(), "the clock was set back; visits rescheduled");
            }
            ClockJump::Ahead(by) => {
                let visits: Vec<_> = idle.iter().map(|(_, planned)| *planned).collect();
                let bounds = self.ctx.interval_bounds.get();
                let overdue = catch_up(now.wall, &visits, bounds);
                for (index, at) in &overdue {
                    idle[*index].0.spread_overdue(*at, bounds, now.wall);
                }
                tracing::warn!(
                    by_s = by.as_secs(),
                    overdue = overdue.len(),
                    "the clock jumped ahead or the machine slept; overdue visits spread over time"
                );
            }
        }
        for actor in idle.iter().filter_map(|(supervised, _)| supervised.actor.as_ref()) {
            // A full mailbox means orders to visit now, after which the actor reschedules anyway.
            actor.try_send(Reschedule).ok();
        }
    }
}

/// The time until each visit stays what it was.
fn move_back(idle: &[(&SupervisedSource, PlannedVisit)], by: Duration) {
    let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    for (supervised, planned) in idle {
        let next = Timestamp::from_millis(planned.next.millis().saturating_sub(by_ms));
        supervised.entry.set_next_visit(next, None);
    }
}

impl SupervisedSource {
    fn spread_overdue(&self, at: Timestamp, bounds: IntervalBounds, now: Timestamp) {
        let next = Next { at: Some(at), why: "due since before the clock jumped".to_owned() };
        let (source, state) = (&self.entry.source, self.entry.state());
        let next = defer_overdue(next, source, &state, bounds, now, fastrand::f64());
        self.entry.set_next_visit(next.at.unwrap_or(at), Some(&next.why));
    }
}
