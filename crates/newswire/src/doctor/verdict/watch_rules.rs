//! Rules about what watches: the watchdog, the threads that read for the admin socket, and the listeners as the process
//! itself finds them.

use control::watch::{LoopReport, TaskWait, WatchKind};

use super::{
    DaemonEvidence, DoctorVerdict, Evidence, VerdictCode, bundle, duration, name_and_pid,
    next::{quoted, restart},
    progress_rules::report_bug,
    safe,
    stalled::stalled_loops,
};
use crate::doctor::second_look::{is_barred, is_held_up, is_mute, is_silent, is_stuck, watchdog_is_stuck};

/// The thread that writes the black box.
const BLACK_BOX_THREAD: &str = "black-box";

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

/// What the process does is not kept: after a hang or a crash there would be nothing to read.
pub(super) fn black_box_silent(evidence: &Evidence) -> Option<DoctorVerdict> {
    let found = evidence.daemons().find_map(|daemon| {
        daemon.latest()?;
        // It wakes ten times a second: one that runs has an output that fails, which its log tells.
        let still = &daemon.resources.get()?.still;
        still.iter().find(|thread| thread.name == BLACK_BOX_THREAD)?;
        Some((daemon, daemon.black_box.get().filter(|black_box| is_silent(black_box))?))
    });
    let (daemon, black_box) = found?;
    let thread = daemon
        .stacks
        .get()
        .and_then(|stacks| stacks.threads.iter().find(|thread| thread.thread.name == BLACK_BOX_THREAD));
    let line = format!(
        "the thread {BLACK_BOX_THREAD} of {} has written nothing for {}{}; all else makes progress",
        name_and_pid(daemon),
        duration(black_box.last.written_ms_ago),
        thread.map(|thread| function(daemon, thread.thread.tid)).unwrap_or_default()
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

/// A thread that works for the operator makes no progress. A health check does not ask for those that a restart would not
/// help.
pub(super) fn helper_blocked(evidence: &Evidence) -> Option<DoctorVerdict> {
    let found = evidence.daemons().find_map(|daemon| {
        let asked = |l: &&LoopReport| l.kind.is_helper() && !(evidence.quick && l.kind == WatchKind::Helper);
        Some((daemon, stalled_loops(daemon).filter(asked).max_by_key(|l| l.beat_ms_ago)?))
    });
    let (daemon, thread) = found?;
    let loss = match thread.kind {
        WatchKind::Signals => "; it does not react to SIGTERM and SIGHUP",
        WatchKind::Prober => "; nothing sees whether its sockets answer",
        _ => "",
    };
    let line = format!(
        "the thread {} of {} has made no progress for {}{}{loss}; clients and feeds do not wait for it",
        safe(&thread.name),
        name_and_pid(daemon),
        duration(thread.beat_ms_ago),
        function(daemon, thread.tid)
    );
    Some(blocked(daemon, line))
}

/// A process cannot reach its own socket, which is there: nor can any tool, or a gateway of the same user.
pub(super) fn socket_barred(evidence: &Evidence) -> Option<DoctorVerdict> {
    let found = evidence.daemons().find_map(|daemon| {
        Some((daemon, daemon.latest()?.progress.listeners.iter().find(|listener| is_barred(listener))?))
    });
    let (daemon, listener) = found?;
    let address = safe(&listener.address);
    let line = format!(
        "{} runs, but has not reached its own socket {address} for {}: {}; no tool and no gateway of its user can connect",
        name_and_pid(daemon),
        duration(listener.answered_ms_ago.unwrap_or_default()),
        safe(listener.error.as_deref().unwrap_or_default())
    );
    let next = format!(
        "namei -l {}   # the user of {} must be able to enter each of these directories: chmod u+rwx",
        quoted(&listener.address),
        daemon.name
    );
    Some(DoctorVerdict::new(VerdictCode::RunDirGone, line, [next]))
}

/// A task waits although something is queued for it: no thread is blocked, so no stack shows it. In every report it is the
/// same wait: that of a process which was stopped for long ends when it goes on.
pub(super) fn task_held_up(evidence: &Evidence) -> Option<DoctorVerdict> {
    let found = evidence.daemons().find_map(|daemon| {
        let is_same = |one: &TaskWait, other: &TaskWait| one.name == other.name && one.steps == other.steps;
        let lasts = |task: &&TaskWait| {
            daemon.reports().all(|report| report.progress.tasks.iter().any(|other| is_same(task, other)))
        };
        // The longest first.
        let mut tasks = daemon.latest()?.progress.tasks.iter().filter(|task| is_held_up(task));
        Some((daemon, tasks.find(lasts)?))
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
