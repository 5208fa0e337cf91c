//! How much time this process has lost: it was stopped, suspended with the machine, or had no processor. A server whose
//! answer came meanwhile, or whose connection timed out, is not to blame.
//!
//! ```text
//! a look every 250 ms ─► how late it is, on a clock that also counts while the machine sleeps ─► the sum
//! ```

use std::{cell::Cell, rc::Rc, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// How often the loop looks at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A look that is less late than this is on time: a busy machine is no pause.
const LATE_MIN: Duration = LOOK_EVERY;
/// A visit whose time was lost to so many percent says nothing about its server.
const LOST_PERCENT: u32 = 25;

/// The time lost so far by the event loop of the visits. Clones share it. Without [`LostTime::watch`] it is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct LostTime(Rc<Looks>);

#[derive(Debug, Default)]
struct Looks {
    lost: Cell<Duration>,
    /// When the next look is due.
    due: Cell<Option<Duration>>,
}

impl LostTime {
    /// Looks at the clock as long as the event loop runs that this is called on.
    pub(crate) fn watch(&self) {
        let looks = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            loop {
                looks.due.set(Some(boot_time() + LOOK_EVERY));
                tokio::time::sleep(LOOK_EVERY).await;
                looks.lost.set(looks.lost.get() + looks.pending());
            }
        });
    }

    /// The time lost since the start. Includes the look that is due, so that it does not matter which of the two sees first
    /// that the process runs again.
    pub(crate) fn total(&self) -> Duration {
        self.0.lost.get() + self.0.pending()
    }

    #[cfg(test)]
    pub(crate) fn lose(&self, lost: Duration) {
        self.0.lost.set(self.0.lost.get() + lost);
    }
}

impl Looks {
    fn pending(&self) -> Duration {
        let late = self.due.get().map_or(Duration::ZERO, |due| boot_time().saturating_sub(due));
        if late < LATE_MIN { Duration::ZERO } else { late }
    }
}

/// Whether so much of the time of a visit was lost that its server is not to blame for a failure.
pub(super) fn is_starved(lost: Duration, took: Duration) -> bool {
    !lost.is_zero() && lost * 100 >= took * LOST_PERCENT
}

/// Advances while the machine sleeps, too.
fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the loop must not run for a while")]
    async fn the_time_that_a_loop_did_not_run_is_lost_whichever_sees_it_first() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let lost_time = LostTime::default();
                assert_eq!(lost_time.total(), Duration::ZERO, "nothing looks");
                lost_time.watch();
                tokio::task::yield_now().await;
                let before = lost_time.total();
                std::thread::sleep(LOOK_EVERY + Duration::from_millis(400));
                let lost = lost_time.total() - before;
                assert!(lost >= Duration::from_millis(400), "before the look that is due: {lost:?}");
                tokio::time::sleep(LOOK_EVERY).await;
                assert!(lost_time.total() - before >= lost, "after it");
            })
            .await;
    }

    #[test]
    fn a_quarter_of_a_visit_lost_is_enough_to_pardon_its_server() {
        let seconds = Duration::from_secs;
        assert!(is_starved(seconds(3), seconds(10)) && is_starved(seconds(40), seconds(10)));
        assert!(!is_starved(seconds(2), seconds(10)));
        assert!(!is_starved(Duration::ZERO, Duration::ZERO));
    }
}
