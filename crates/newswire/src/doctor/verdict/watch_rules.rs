//! Rules about what watches: the watchdog, the threads that read for the admin socket, and the listeners as the process
//! itself finds them.

use control::{
    WatchReport,
    watch::{LoopReport, WatchKind},
};

use super::{
    DaemonEvidence, DoctorVerdict, Evidence, VerdictCode, bundle, duration, name_and_pid,
    next::restart,
    progress_rules::{BEATS_AGAIN_MS, report_bug},
    safe,
};
use crate::doctor::second_look::{is_held_up, is_mute, is_stuck, watchdog_is_stuck};

/// A loop beats every 100 ms; without a watchdog that looks, one that has not for this long is blocked.
const UNWATCHED_MS: u64 = 1_000;

/// Whether a loop makes no progress: the watchdog says so, or its beat does while the watchdog is stuck.
pub(super) fn is_stalled(watch: &WatchReport, l: &LoopReport) -> bool {
    let marked = l.stalled && l.beat_ms_ago >= BEATS_AGAIN_MS;
    // The watchdog sends the probes of a pool: without it they are old.
    let unmarked = l.kind != WatchKind::Pool && l.beat_ms_ago > UNWATCHED_MS && watchdog_is_stuck(watch);
    marked || unmarked
}

/// The watchdog itself is blocked: the process works, but would not notice if it did not.
pub(super) fn watchdog_blocked(evidence: &Evidence) -> Option<DoctorVerdict> {
    let found = evidence.daemons().find_map(|daemon| {
        let watch = daemon.latest().filter(|watch| watchdog_is_stuck(watch))?;
        Some((daemon, watch.progress.watchdog?))
    });
    let (daemon, watchdog) = found?;
    let line = format!(
        "the watchdog of {} has not looked for {}{}; its loops still make progress",
        name_and_pid(daemon),
        duration(watchdog.looked_ms_ago),
        function(daemon, watchdog.tid)
    );
    Some(blocked(daemon, line))
}

/// The vitals cannot be read: what depends on them is unknown.
pub(super) fn observer_blocked(evidence: &Evidence) -> Option<DoctorVerdict> {
    let found = evidence.daemons().find_map(|daemon| {
        let stuck = daemon.latest()?.progress.observers.iter().filter(|observer| is_stuck(observer));
        Some((daemon, stuck.max_by_key(|observer| observer.since_ms_ago)?))
    });
    let (daemon, observer) = found?;
    let line = format!(
        "the thread {} of {}, which reads what the process reports about itself, has been blocked for {}{}",
        safe(&observer.name),
        name_and_pid(daemon),
        duration(observer.since_ms_ago),
        function(daemon, observer.tid)
    );
    Some(blocked(daemon, line))
}

/// The process itself has no answer at one of its sockets, although its loops beat.
pub(super) fn listener_mute(evidence: &Evidence) -> Option<DoctorVerdict> {
    let found = evidence.daemons().find_map(|daemon| {
        let mute = daemon.latest()?.progress.listeners.iter().filter(|listener| is_mute(listener));
        Some((daemon, mute.max_by_key(|listener| listener.waiting_ms)?))
    });
    let (daemon, listener) = found?;
    let since = duration(listener.waiting_ms.unwrap_or_default());
    let error = listener.error.as_deref().map(|error| format!(": {}", safe(error))).unwrap_or_default();
    let line = format!(
        "{} has had no answer at its own socket {} ({}) for {since}{error}{}",
        name_and_pid(daemon),
        safe(&listener.address),
        safe(&listener.name),
        accepting(daemon)
    );
    Some(blocked(daemon, line))
}

/// A task waits although something is queued for it: no thread is blocked, so no stack shows it.
pub(super) fn task_held_up(evidence: &Evidence) -> Option<DoctorVerdict> {
    let found = evidence.daemons().find_map(|daemon| {
        // The longest first.
        let task = daemon.watch.get()?.progress.tasks.iter().find(|task| is_held_up(task))?;
        Some((daemon, task))
    });
    let (daemon, task) = found?;
    let queue = match (task.queued, task.capacity) {
        (Some(queued), Some(capacity)) => format!(", and {queued} of {capacity} are queued for it"),
        _ => String::new(),
    };
    let line = format!(
        "the task {} of {} has waited for {} for {}{}; no thread need be blocked",
        safe(&task.name),
        name_and_pid(daemon),
        safe(task.waits_for.as_deref().unwrap_or_default()),
        duration(task.since_ms_ago),
        queue
    );
    Some(blocked(daemon, line))
}

fn blocked(daemon: &DaemonEvidence, line: String) -> DoctorVerdict {
    let next = [bundle(), restart(daemon), report_bug()];
    DoctorVerdict::new(VerdictCode::EventLoopBlocked, line, next)
}

/// `, in FUNCTION`, if the stack of the thread is known.
fn function(daemon: &DaemonEvidence, tid: i32) -> String {
    let culprit = daemon.stacks.get().and_then(|stacks| stacks.of(tid)?.culprit.clone());
    culprit.map(|at| format!(", in {}", safe(&at))).unwrap_or_default()
}

/// The first thread that is busy and could be the one that accepts.
fn accepting(daemon: &DaemonEvidence) -> String {
    let busy = daemon.stacks.get().and_then(|stacks| stacks.threads.iter().find(|thread| !thread.idle));
    match busy.and_then(|busy| Some((busy, busy.culprit.as_ref()?))) {
        Some((busy, at)) => {
            format!("; thread {} ({}) is in {}", busy.thread.tid, safe(&busy.thread.name), safe(at))
        }
        None if daemon.stacks.get().is_some() => "; every thread is idle".to_owned(),
        None => String::new(),
    }
}
