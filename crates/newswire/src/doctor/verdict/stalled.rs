//! Which loops and threads make no progress, for all rules.

use control::{
    WatchReport,
    watch::{LoopReport, WatchKind},
};

use super::{DaemonEvidence, Evidence};
use crate::doctor::second_look::watchdog_is_stuck;

/// A loop that has beaten since then is not blocked, even if the watchdog, on a busy machine, has not noticed that yet.
pub(super) const BEATS_AGAIN_MS: u64 = 500;
/// A loop beats every 100 ms; without a watchdog that looks, one that has not for this long is blocked.
const UNWATCHED_MS: u64 = 1_000;

/// Whether a loop makes no progress: the watchdog says so, or its beat does while the watchdog is stuck.
pub(super) fn is_stalled(watch: &WatchReport, l: &LoopReport) -> bool {
    let marked = l.stalled && l.beat_ms_ago >= BEATS_AGAIN_MS;
    // The watchdog sends the probes of a pool: without it they are old.
    let unmarked = l.kind != WatchKind::Pool
        && !l.kind.is_helper()
        && l.beat_ms_ago > UNWATCHED_MS
        && watchdog_is_stuck(watch);
    marked || unmarked
}

/// The loops that are stalled at the last look. One that has beaten between the two looks moves.
pub(super) fn stalled_loops(daemon: &DaemonEvidence) -> impl Iterator<Item = &LoopReport> {
    let loops = daemon.latest().map(|watch| watch.progress.loops.as_slice()).unwrap_or_default();
    loops.iter().filter(|l| daemon.latest().is_some_and(|watch| is_stalled(watch, l)))
}

/// What the gateway does while the daemon does nothing.
pub(super) fn gateway_serves(evidence: &Evidence) -> &'static str {
    let gateway = &evidence.gateway;
    let is_stalled = stalled_loops(gateway).any(|l| !l.kind.is_helper());
    let is_mute = evidence.http.get().is_some_and(|http| {
        !http.probes.is_empty() && http.probes.iter().all(|probe| probe.status.is_none())
    });
    if is_stalled || is_mute {
        "; the gateway does not work either: run the doctor again when the daemon runs"
    } else {
        "; the gateway still serves the events it has"
    }
}
