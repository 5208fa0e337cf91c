//! The steps at which tests kill the process, in builds with the feature `crash-points` only. Other builds contain none of
//! it: [`point`] is then empty.
//!
//! `CRASH_AT=roll-synced:3` in the environment ends the process with SIGKILL when it comes to that step the third time:
//! nothing is flushed, and no destructor runs. `CRASH_SEGMENT_BYTES` makes the segments of the journal smaller, so that a
//! test soon fills one. The variables do not begin with `NEWSWIRE_`, because the daemons refuse unknown variables of that
//! prefix.
//!
//! A step is where everything before it is done and nothing after it has begun. Each has one name, listed in [`ALL`], so
//! that a test that goes through the list leaves none out.

/// All steps: of an append, of a new segment of the journal, of the background flush, of retention, of the migration of an
/// older store, of the rebuilding of a damaged one, of a backup, and of the start and the end of the daemon.
pub const ALL: [&str; 26] = [
    "append-built",
    "append-written",
    "append-synced",
    "append-applied",
    "append-visible",
    "roll-created",
    "roll-synced",
    "flush-started",
    "flush-synced",
    "flush-noted",
    "retain-noted",
    "retain-carried",
    "retain-unlinked",
    "migrate-segments",
    "migrate-renamed",
    "migrate-removed",
    "rebuild-built",
    "rebuild-renamed",
    "backup-segment",
    "backup-done",
    "publish",
    "publish-block",
    "shutdown-begun",
    "shutdown-joined",
    "shutdown-flushed",
    "open-truncated",
];

/// The process is at this step of [`ALL`].
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub const fn point(_: &'static str) {}

/// The size at which a segment of the journal is full; tests set a smaller one, so that segments are full soon.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub const fn segment_bytes(bytes: u64) -> u64 {
    bytes
}

#[cfg(feature = "crash-points")]
pub use self::armed::{point, segment_bytes};

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    use rustix::process::{Signal, getpid, kill_process};

    /// The environment variable that says where the process dies.
    const VARIABLE: &str = "CRASH_AT";
    /// The environment variable with the size of a segment.
    const SEGMENT_VARIABLE: &str = "CRASH_SEGMENT_BYTES";

    /// The step at which the process dies.
    struct Order {
        step: String,
        /// How often the process comes to it before it dies there, that time included.
        times: u64,
        passed: AtomicU64,
    }

    /// The process is at this step of [`super::ALL`], and dies if that was ordered.
    ///
    /// # Panics
    /// If the step is not in the list, or the order cannot be understood: a test must not pass because of a typing error.
    pub fn point(step: &'static str) {
        static ORDER: OnceLock<Option<Order>> = OnceLock::new();
        assert!(super::ALL.contains(&step), "{step} is missing in the list of crash points");
        let order = ORDER.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| order(&text)));
        if let Some(order) = order.as_ref().filter(|order| order.step == step)
            && order.passed.fetch_add(1, Ordering::SeqCst) + 1 == order.times
        {
            die();
        }
    }

    /// The size at which a segment of the journal is full: what the test has set, or this.
    ///
    /// # Panics
    /// If what the test has set is no number.
    pub fn segment_bytes(bytes: u64) -> u64 {
        let set = std::env::var(SEGMENT_VARIABLE).ok();
        set.map_or(bytes, |set| set.parse().unwrap_or_else(|_| panic!("{SEGMENT_VARIABLE}={set}")))
    }

    fn order(text: &str) -> Order {
        let parse = |(step, times): (&str, &str)| {
            let times = times.parse().ok().filter(|times| *times > 0)?;
            super::ALL.contains(&step).then(|| Order {
                step: step.to_owned(),
                times,
                passed: AtomicU64::new(0),
            })
        };
        text.split_once(':')
            .and_then(parse)
            .unwrap_or_else(|| panic!("{VARIABLE}={text} is not STEP:TIMES with a step of the list"))
    }

    fn die() -> ! {
        // SIGKILL cannot be blocked; should it fail all the same, the end is as sudden.
        kill_process(getpid(), Signal::KILL).ok();
        std::process::abort()
    }
}

#[cfg(feature = "crash-points")]
#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::Command};

    use super::*;

    /// In the child: comes to one step three times.
    #[test]
    fn child() {
        if std::env::var_os("CRASH_AT").is_none() {
            return;
        }
        for _ in 0..3 {
            point("publish");
        }
    }

    fn signal_of(order: &str) -> Option<i32> {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["crash::tests::child", "--exact"]).env("CRASH_AT", order);
        child.output().unwrap().status.signal()
    }

    #[test]
    fn the_process_dies_at_the_nth_passing_of_the_step_and_nowhere_else() {
        assert_eq!(signal_of("publish:3"), Some(9));
        assert_eq!(signal_of("publish:4"), None, "it passed three times only");
        assert_eq!(signal_of("append-built:1"), None, "another step");
    }
}
