//! Finds dead source actors and rebuilds them from their entries, after a longer wait each time.
//!
//! actix restarts an actor that stops, but not one that panics: its address then stays disconnected for good. So the
//! supervisor looks at every address.

use std::{ops::Bound, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{SupervisedSource, Supervisor};
use crate::status::activity::Activity;

/// Sources per check: with 100,000 sources each is checked every 12 s, and a check costs no more than with 2,000.
const CHECKED_MAX: usize = 2000;
/// The first wait before a dead actor is rebuilt; doubles with each death.
pub(super) const REBUILD_FIRST: Duration = Duration::from_secs(1);
/// The longest such wait.
const REBUILD_LONGEST: Duration = Duration::from_secs(300);

impl Supervisor {
    /// Schedules the rebuild of newly dead actors, and rebuilds those that have waited long enough.
    pub(super) fn check_liveness(&mut self) {
        let now = Instant::now();
        let (mut due, mut checked, mut last) = (Vec::new(), 0, None);
        let from = self.last_checked.take().map_or(Bound::Unbounded, Bound::Excluded);
        for (id, supervised) in self.sources.range_mut((from, Bound::Unbounded)).take(CHECKED_MAX) {
            checked += 1;
            last = Some(id);
            match supervised.rebuild_at {
                // It stopped in order to be replaced, or to leave.
                None if self.replacements.contains_key(id) => {}
                _ if supervised.is_leaving() => {}
                None if supervised.is_dead() => {
                    let deaths = supervised.entry.count_restart();
                    let wait = REBUILD_FIRST.saturating_mul(1 << (deaths - 1).min(16)).min(REBUILD_LONGEST);
                    supervised.rebuild_at = Some(now + wait);
                    supervised.entry.set_activity(Activity::Down, self.ctx.now());
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    tracing::error!(source = %id, deaths, wait_ms, "source actor died");
                }
                Some(at) if at <= now => due.push(id.clone()),
                _ => {}
            }
        }
        self.last_checked = last.filter(|_| checked == CHECKED_MAX).cloned();
        for id in due {
            let entry = Arc::clone(&self.sources[&id].entry);
            let actor = Some(self.start_actor(&entry, None));
            self.ctx.metrics.restarts.inc();
            tracing::info!(source = %id, "source actor rebuilt");
            self.sources.insert(id, SupervisedSource { entry, actor, rebuild_at: None });
        }
    }
}
