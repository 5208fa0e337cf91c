//! The processes, their loops, their stalls and their stacks.

use std::collections::BTreeMap;

use control::{WatchReport, watch::LoopReport};
use stacks::StackFrame;

use super::{ReportWriter, bytes, duration, resources};
use crate::{
    doctor::{
        admin::LATE_MS,
        evidence::{DaemonEvidence, Presence},
        log_end::BLOCKED_MS,
        part::{MissingCause, Part},
        process::{ProcessSample, Usage},
        second_look,
        threads::{ExaminedThread, location},
        verdict::task_text,
    },
    out::safe,
};

/// A task that is not idle is shown if it has waited for longer.
const TASK_WAITS_LONG_MS: u64 = 15_000;
/// Frames shown per stack, and more if the culprit is further out; the JSON contains all.
const FRAMES_SHOWN: usize = 14;
/// Further out there are only the frames that start the thread.
const THREAD_START: &str = "__rust_begin_short_backtrace";

pub(super) fn show(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    if daemon.presence == Presence::NotAsked {
        return;
    }
    page.section(daemon.name);
    match (&daemon.process, daemon.presence) {
        (Part::Found(process), _) => {
            let text = format!("{}, {}", process.pid, safe(&daemon.found_by));
            page.normal("pid", &text);
            facts(page, process);
            resources::show(page, daemon);
        }
        (_, Presence::Unknown) => page.missing("pid", &daemon.found_by),
        _ => page.problem("pid", &format!("not running: {}", safe(&daemon.found_by))),
    }
    for other in &daemon.others {
        // Only root can see the configuration of a process of another user.
        let name = if daemon.presence == Presence::Unknown { "possibly" } else { "another" };
        page.normal(name, &format!("pid {}: {}", other.pid, safe(&other.command)));
    }
    unit(page, daemon);
    if daemon.process.get().is_some() {
        own_report(page, daemon);
    }
}

fn facts(page: &mut ReportWriter, process: &ProcessSample) {
    page.normal("command", &safe(&process.command));
    let states: Vec<_> = process.states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let held = match (process.tracer, process.frozen, process.stopped) {
        (Some(tracer), ..) => format!(", held by a debugger, pid {tracer}"),
        (_, true, _) => ", frozen by its control group".to_owned(),
        (_, _, true) => ", stopped; the kernel does not record by whom and when".to_owned(),
        _ => String::new(),
    };
    let text = format!("{}{held}; {} threads: {}", process.state, process.threads, states.join(", "));
    page.line(!held.is_empty(), "state", &text);
    page.normal(
        "up",
        &format!("{}, {} processor time", duration(process.uptime_ms), duration(process.cpu_ms)),
    );
    if process.sampled_ms > 0 {
        let (cpu, delay, over) = (process.cpu_sampled_ms, process.run_delay_ms, process.sampled_ms);
        let text = format!(
            "ran {} of {}, waited {} for a processor",
            duration(cpu),
            duration(over),
            duration(delay)
        );
        page.line(delay > over, "processor", &text);
    }
    match process.open_files {
        Some(Usage { used, max }) => {
            page.line(used * 100 >= max.saturating_mul(80), "descriptors", &format!("{used} of {max}"))
        }
        None => page.missing("descriptors", "only its own user and root may count them"),
    }
    let limit = process.memory.map(|m| format!("; control group: {} of {}", bytes(m.used), bytes(m.max)));
    let full = process.memory.is_some_and(|m| m.used * 100 >= m.max.saturating_mul(90));
    page.line(full, "memory", &format!("{}{}", bytes(process.rss_bytes), limit.unwrap_or_default()));
}

fn unit(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    let Some(unit) = daemon.unit.get() else { return };
    let restarts = unit.restarts.map(|n| format!(", {n} restarts")).unwrap_or_default();
    let watchdog = match unit.watchdog.as_str() {
        "" => String::new(),
        at => format!(", last watchdog ping {}", safe(at)),
    };
    let text = format!(
        "{} is {} ({}){restarts}, result {}{watchdog}",
        safe(&unit.id),
        safe(&unit.active),
        safe(&unit.sub),
        safe(&unit.result)
    );
    page.line(unit.active == "failed", "systemd", &text);
    if let (Some(main), Some(pid)) = (unit.main_pid, daemon.pid())
        && main != pid
    {
        page.problem("systemd", &format!("main process is {main}, but {pid} is the one that works"));
    }
}

/// The output of its log, if lines were lost or wait.
fn log_output(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    let Some(log) = daemon.latest().and_then(|watch| watch.progress.log.as_ref()) else { return };
    let is_blocked = log.blocked_ms >= BLOCKED_MS;
    if log.dropped == 0 && !is_blocked && log.failing.is_none() {
        return;
    }
    let dropped = format!("{} lines dropped since the start", log.dropped);
    let text = match &log.failing {
        _ if is_blocked => {
            let (queued, max) = (bytes(log.queued_bytes), bytes(log.queued_bytes_max));
            format!(
                "a write has been waiting for {}; {queued} of {max} queued; {dropped}",
                duration(log.blocked_ms)
            )
        }
        Some(failing) => {
            format!("refused for {}: {}; {dropped}", duration(failing.lasted_ms), safe(&failing.error))
        }
        None => dropped,
    };
    page.line(is_blocked || log.failing.is_some(), "log", &text);
}

/// What the process reports itself.
fn own_report(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    if let Part::Missing { missing, .. } = &daemon.health {
        return page.problem("admin", &format!("{}: {}", safe(&daemon.socket), safe(missing)));
    }
    if let Part::Found(health) = &daemon.health
        && health.process.version != env!("CARGO_PKG_VERSION")
    {
        let text = format!("{}, this tool is {}", safe(&health.process.version), env!("CARGO_PKG_VERSION"));
        page.problem("version", &text);
    }
    match &daemon.watch {
        Part::Missing { missing, cause: MissingCause::OtherVersion } => page.problem("loops", &safe(missing)),
        Part::Missing { missing, .. } => page.missing("loops", missing),
        Part::Found(watch) => {
            watch.progress.loops.iter().for_each(|l| one_loop(page, l));
            watchers(page, watch);
            tasks(page, watch);
        }
    }
    if let Some((pauses, ms)) =
        daemon.watch.get().and_then(|w| Some((&w.progress.pauses, w.progress.pauses.last_ms?)))
    {
        let when = pauses.last_ms_ago.unwrap_or(0);
        page.normal(
            "paused",
            &format!("the whole process did not run for {}, until {} ago", duration(ms), duration(when)),
        );
    }
    log_output(page, daemon);
    for late in &daemon.late {
        page.problem(
            "late",
            &format!(
                "{} in {} of {} samples, by up to {}; ran {} and waited {} for a processor in {}",
                safe(&late.name),
                late.late,
                late.looks,
                duration(late.worst_ms),
                duration(late.cpu_ms.unwrap_or(0)),
                duration(late.run_delay_ms.unwrap_or(0)),
                duration(late.over_ms)
            ),
        );
    }
}

fn one_loop(page: &mut ReportWriter, l: &LoopReport) {
    let work = l.work.as_ref().map(|work| format!("; {}", task_text(work))).unwrap_or_default();
    let text = match l.stalled {
        true => format!("STALLED for {}{work}", duration(l.beat_ms_ago)),
        false => {
            format!("lag {}, maximum of the last minute {}{work}", duration(l.lag_ms), duration(l.lag_ms_max))
        }
    };
    page.line(l.stalled || l.lag_ms >= LATE_MS, &safe(&l.name), &text);
}

/// The watchdog, the threads that read for the admin socket, and the listeners.
fn watchers(page: &mut ReportWriter, watch: &WatchReport) {
    if let Some(watchdog) = watch.progress.watchdog {
        let text = format!("last looked {} ms ago", watchdog.looked_ms_ago);
        page.line(second_look::watchdog_is_stuck(watch), "watchdog", &text);
    }
    if watch.vitals.is_none() {
        page.missing("vitals", "the process did not read them in time");
    }
    for observer in watch.progress.observers.iter().filter(|observer| second_look::is_stuck(observer)) {
        let text = format!("BLOCKED for {}", duration(observer.since_ms_ago));
        page.problem(&safe(&observer.name), &text);
    }
    for listener in &watch.progress.listeners {
        let answered = match (listener.answered_ms_ago, listener.took_ms) {
            (Some(ago), Some(took)) => format!("answered {} ago, within {took} ms", duration(ago)),
            _ => "has not answered yet".to_owned(),
        };
        let waiting = listener.waiting_ms.map(|ms| format!(", NOT for {}", duration(ms))).unwrap_or_default();
        let error = listener.error.as_deref().map(|error| format!(": {}", safe(error))).unwrap_or_default();
        let text = format!("{} {answered}{waiting}{error}", safe(&listener.address));
        page.line(second_look::is_mute(listener), &format!("{} socket", safe(&listener.name)), &text);
    }
}

/// Tasks for which something is queued, or that have waited for long.
fn tasks(page: &mut ReportWriter, watch: &WatchReport) {
    for task in &watch.progress.tasks {
        let has_queued = task.queued.is_some_and(|queued| queued > 0);
        let is_long = !task.idle && task.since_ms_ago > TASK_WAITS_LONG_MS;
        if !has_queued && !is_long {
            continue;
        }
        let what = match &task.waits_for {
            Some(what) => format!("waits for {} for {}", safe(what), duration(task.since_ms_ago)),
            None => format!("at work for {}", duration(task.since_ms_ago)),
        };
        let queue = match (task.queued, task.capacity) {
            (Some(queued), Some(capacity)) => format!(", {queued} of {capacity} queued"),
            _ => String::new(),
        };
        page.line(
            second_look::is_held_up(task),
            &format!("task {}", safe(&task.name)),
            &format!("{what}{queue}"),
        );
    }
}

/// The recent stalls.
pub(super) fn stalls(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    let Some(watch) = daemon.watch.get().filter(|watch| !watch.progress.stalls.is_empty()) else { return };
    page.section(&format!("stalls of {}, {} in total", daemon.name, watch.progress.stalls_total));
    for stall in &watch.progress.stalls {
        let lasted =
            stall.lasted_ms.map_or("not over yet".to_owned(), |ms| format!("lasted {}", duration(ms)));
        let at = stall.culprit.as_deref().map(|at| format!(", in {}", safe(at))).unwrap_or_default();
        let work = stall.work.as_ref().map(|work| format!(", {}", task_text(work))).unwrap_or_default();
        let text = format!("began {} ago, {lasted}{at}{work}", duration(stall.began_ms_ago));
        page.line(stall.lasted_ms.is_none(), &safe(&stall.name), &text);
    }
}

pub(super) fn stacks(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    if daemon.process.get().is_none() {
        return;
    }
    match &daemon.stacks {
        missing if missing.is_missing_because(MissingCause::NotAsked) => {}
        Part::Missing { missing, .. } => {
            page.section(&format!("stacks of {}", daemon.name));
            page.missing("stacks", missing);
        }
        Part::Found(stacks) => {
            page.section(&format!(
                "stacks of {}, from {}, in {}",
                daemon.name,
                stacks.from,
                duration(stacks.took_ms)
            ));
            stacks
                .threads
                .iter()
                .filter(|examined| !examined.idle)
                .for_each(|examined| stack(page, examined));
            let mut idle = BTreeMap::<String, usize>::new();
            stacks
                .threads
                .iter()
                .filter(|examined| examined.idle)
                .for_each(|examined| *idle.entry(name(examined)).or_default() += 1);
            if !idle.is_empty() {
                let names =
                    idle.iter().map(|(name, n)| if *n == 1 { name.clone() } else { format!("{name} ({n})") });
                let names: Vec<_> = names.collect();
                page.normal(&format!("{} idle", idle.values().sum::<usize>()), &names.join(", "));
            }
        }
    }
}

fn name(examined: &ExaminedThread) -> String {
    safe(examined.loop_name.as_deref().unwrap_or(&examined.thread.name))
}

fn stack(page: &mut ReportWriter, examined: &ExaminedThread) {
    let thread = &examined.thread;
    let wchan = thread.wchan.as_deref().map(|at| format!(", in the kernel {}", safe(at))).unwrap_or_default();
    let work = examined.work.as_ref().map(|work| format!(", {}", task_text(work))).unwrap_or_default();
    let head = format!("{} ({}), state {}{wchan}{work}", thread.tid, safe(&thread.name), thread.state);
    page.line(examined.stalled, &name(examined), &head);
    if let Some(why) = &thread.missing {
        page.missing("", why);
    }
    let is_culprit = |frame: &&StackFrame| examined.culprit.as_deref() == Some(location(frame).as_str());
    let culprit = thread.frames.iter().position(|frame| is_culprit(&frame)).map_or(0, |at| at + 2);
    let is_start =
        |frame: &StackFrame| frame.function.as_deref().is_some_and(|name| name.contains(THREAD_START));
    let start = thread.frames.iter().position(is_start).unwrap_or(thread.frames.len());
    let shown = FRAMES_SHOWN.max(culprit).min(start);
    for frame in thread.frames.iter().take(shown) {
        let text = safe(&location(frame));
        let mark = if frame.inlined { "|" } else { "at" };
        page.line(is_culprit(&frame) && examined.stalled, "", &format!("{mark} {text}"));
    }
    if start > shown {
        page.normal("", &format!("and {} more", start - shown));
    }
}
