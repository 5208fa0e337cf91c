//! What calls for a second look at a process before a rule decides: a process that was stopped for a moment has the same
//! report as one that is stuck.

use control::{
    WatchReport,
    watch::{ListenerProbe, ObserverReport, TaskWait, WatchKind},
};

use crate::black_box::BlackBoxReport;

/// The watchdog looks every 250 ms.
const WATCHDOG_SILENT_MS: u64 = 3_000;
/// The same while it reads the stack of a thread: the first time it reads debug information, for seconds on a busy machine.
const SAMPLING_MS: u64 = 20_000;
/// The vitals are read in milliseconds.
const VITALS_MS: u64 = 1_500;
/// The stacks of hundreds of threads take seconds.
const STACKS_MS: u64 = 15_000;
/// A listener that has not answered for this long does not; one probe waits as long.
const LISTENER_MUTE_MS: u64 = 5_000;

/// Three rounds of probes.
const UNREACHED_MS: u64 = 9_000;
/// Something is written every 500 ms.
const BLACK_BOX_SILENT_MS: u64 = 4_000;

/// A task that has waited for longer for one thing, while something is queued for it, was not woken: each request that it may
/// wait for has a shorter deadline.
const TASK_WAITS_MS: u64 = 20_000;
/// The same for a task that is not idle, whatever is queued.
const TASK_LATE_MS: u64 = 60_000;

/// Whether the watchdog has not looked for too long: then it marks no loop as stalled.
pub(crate) fn watchdog_is_stuck(watch: &WatchReport) -> bool {
    watch.progress.watchdog.is_some_and(|watchdog| {
        watchdog.looked_ms_ago > if watchdog.sampling { SAMPLING_MS } else { WATCHDOG_SILENT_MS }
    })
}

/// A thread that reads for the admin socket, for too long.
pub(crate) fn is_stuck(observer: &ObserverReport) -> bool {
    let bound = if observer.name == "stacks" { STACKS_MS } else { VITALS_MS };
    observer.since_ms_ago > bound
}

/// A listener of a running process that does not answer to it, although it is there.
pub(crate) fn is_mute(listener: &ListenerProbe) -> bool {
    !listener.missing && listener.waiting_ms.is_some_and(|waiting| waiting >= LISTENER_MUTE_MS)
}

/// A socket in a directory that a running process cannot reach itself any more, although it has answered there before.
pub(crate) fn is_barred(listener: &ListenerProbe) -> bool {
    let is_old = listener.answered_ms_ago.is_some_and(|ms| ms >= UNREACHED_MS);
    let is_in_a_directory = matches!(listener.kind, WatchKind::Admin | WatchKind::Wire);
    is_in_a_directory
        && is_old
        && listener.error.is_some()
        && listener.waiting_ms.is_none()
        && !listener.missing
}

/// A task that waits although something is queued for it, or longer than any deadline. For NATS it waits as long as it takes.
pub(crate) fn is_held_up(task: &TaskWait) -> bool {
    if task.waits_for.as_deref().is_some_and(|what| what.ends_with("NATS")) {
        return false;
    }
    let has_queued = task.queued.is_some_and(|queued| queued > 0);
    let is_late = !task.idle && task.since_ms_ago > TASK_LATE_MS;
    task.waits_for.is_some() && (is_late || has_queued && task.since_ms_ago > TASK_WAITS_MS)
}

/// Whether a process that runs has not written its black box for too long.
pub(crate) fn is_silent(black_box: &BlackBoxReport) -> bool {
    black_box.last.running && black_box.last.written_ms_ago > BLACK_BOX_SILENT_MS
}

/// Whether a report calls for a second one, before a rule decides by it: a process that was stopped for a moment has the
/// same report as one whose watchdog is stuck.
pub(crate) fn needs_second_look(watch: &WatchReport) -> bool {
    watch.vitals.is_none()
        || watchdog_is_stuck(watch)
        || watch.progress.observers.iter().any(is_stuck)
        || watch.progress.listeners.iter().any(is_mute)
        || watch.progress.tasks.iter().any(is_held_up)
}
