//! The processes, their loops, their stalls and their stacks.

use std::collections::BTreeMap;

use stacks::StackFrame;

use super::{ReportWriter, ago, bytes};
use crate::{
    doctor::{
        admin::{LATE_MS, Loop},
        evidence::{DaemonEvidence, Part, Presence, Usage},
        process::ProcessSample,
        threads::{ThreadReport, place},
        verdict::on,
    },
    out::safe,
};

/// Frames of one stack that are shown, and more when the one to blame is further out; the JSON has all.
const FRAMES_SHOWN: usize = 14;
/// Further out there is only how the thread was begun.
const BEGIN_OF_THREAD: &str = "__rust_begin_short_backtrace";

pub(super) fn show(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    if daemon.presence == Presence::NotAsked {
        return;
    }
    page.section(daemon.name);
    match (&daemon.process, daemon.presence) {
        (Part::Found(process), _) => {
            let text = format!("{}, {}", process.pid, safe(&daemon.found_by));
            page.fine("pid", &text);
            facts(page, process);
        }
        (_, Presence::Unknown) => page.missing("pid", &daemon.found_by),
        _ => page.wrong("pid", &format!("it does not run: {}", safe(&daemon.found_by))),
    }
    for other in &daemon.others {
        // Of a process of another user nobody but root knows the configuration.
        let name = if daemon.presence == Presence::Unknown { "perhaps" } else { "another" };
        page.fine(name, &format!("pid {}: {}", other.pid, safe(&other.command)));
    }
    unit(page, daemon);
    if daemon.process.get().is_some() {
        said(page, daemon);
    }
}

fn facts(page: &mut ReportWriter, process: &ProcessSample) {
    page.fine("command", &safe(&process.command));
    let states: Vec<_> = process.states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let held = match (process.tracer, process.frozen, process.stopped) {
        (Some(tracer), ..) => format!(", held by a debugger, pid {tracer}"),
        (_, true, _) => ", frozen by its control group".to_owned(),
        (_, _, true) => ", stopped: by whom and when is not recorded".to_owned(),
        _ => String::new(),
    };
    let text = format!("{}{held}; {} threads: {}", process.state, process.threads, states.join(", "));
    page.say(!held.is_empty(), "state", &text);
    page.fine("up", &format!("{}, {} of processor time", ago(process.uptime_ms), ago(process.cpu_ms)));
    if process.sampled_ms > 0 {
        let (cpu, delay, over) = (process.cpu_sampled_ms, process.run_delay_ms, process.sampled_ms);
        let text = format!("ran {cpu} ms of {over} ms, waited {delay} ms for a processor");
        page.say(delay > over, "processor", &text);
    }
    match process.open_files {
        Some(Usage { used, max }) => {
            page.say(used * 100 >= max.saturating_mul(80), "descriptors", &format!("{used} of {max}"))
        }
        None => page.missing("descriptors", "only its user and root may count them"),
    }
    let limit = process.memory.map(|m| format!("; its control group {} of {}", bytes(m.used), bytes(m.max)));
    let full = process.memory.is_some_and(|m| m.used * 100 >= m.max.saturating_mul(90));
    page.say(full, "memory", &format!("{}{}", bytes(process.rss_bytes), limit.unwrap_or_default()));
}

fn unit(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    let Some(unit) = daemon.unit.get() else { return };
    let restarts = unit.restarts.map(|n| format!(", {n} restarts")).unwrap_or_default();
    let watchdog = match unit.watchdog.as_str() {
        "" => String::new(),
        at => format!(", watchdog fed {}", safe(at)),
    };
    let text = format!(
        "{} is {} ({}){restarts}, result {}{watchdog}",
        safe(&unit.id),
        safe(&unit.active),
        safe(&unit.sub),
        safe(&unit.result)
    );
    page.say(unit.active == "failed", "systemd", &text);
    if let (Some(main), Some(pid)) = (unit.main_pid, daemon.pid())
        && main != pid
    {
        page.wrong("systemd", &format!("calls {main} the main process, and {pid} is the one at work"));
    }
}

/// What the process says itself.
fn said(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    if let Part::Missing { missing } = &daemon.health {
        return page.wrong("admin", &format!("{}: {}", safe(&daemon.socket), safe(missing)));
    }
    match &daemon.watch {
        Part::Missing { missing } => page.missing("loops", missing),
        Part::Found(watch) => watch.loops.iter().for_each(|l| one_loop(page, l)),
    }
    if let Some((pauses, ms)) = daemon.watch.get().and_then(|w| Some((&w.pauses, w.pauses.last_ms?))) {
        let when = pauses.last_ms_ago.unwrap_or(0);
        page.fine(
            "paused",
            &format!("the whole process did not run for {}, until {} ago", ago(ms), ago(when)),
        );
    }
    for late in &daemon.late {
        page.wrong(
            "late",
            &format!(
                "{} at {} of {} looks, by up to {} ms; ran {} ms and waited {} ms for a processor in {} ms",
                safe(&late.name),
                late.late,
                late.looks,
                late.worst_ms,
                late.cpu_ms.unwrap_or(0),
                late.run_delay_ms.unwrap_or(0),
                late.over_ms
            ),
        );
    }
}

fn one_loop(page: &mut ReportWriter, l: &Loop) {
    let work = l.work.as_ref().map(|work| format!("; {}", on(work))).unwrap_or_default();
    let text = match l.stalled {
        true => format!("STALLED for {}{work}", ago(l.beat_ms_ago)),
        false => format!("lag {} ms, at most {} ms in the last minute{work}", l.lag_ms, l.lag_ms_max),
    };
    page.say(l.stalled || l.lag_ms >= LATE_MS, &safe(&l.name), &text);
}

/// Stalls that are over: those that last are shown with their loops.
pub(super) fn stalls(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    let Some(watch) = daemon.watch.get().filter(|watch| !watch.stalls.is_empty()) else { return };
    page.section(&format!("stalls of {}, {} in all", daemon.name, watch.stalls_total));
    for stall in &watch.stalls {
        let lasted = stall.lasted_ms.map_or("and lasts".to_owned(), |ms| format!("lasted {}", ago(ms)));
        let at = stall.culprit.as_deref().map(|at| format!(", in {}", safe(at))).unwrap_or_default();
        let work = stall.work.as_ref().map(|work| format!(", {}", on(work))).unwrap_or_default();
        let text = format!("began {} ago, {lasted}{at}{work}", ago(stall.began_ms_ago));
        page.say(stall.lasted_ms.is_none(), &safe(&stall.name), &text);
    }
}

pub(super) fn stacks(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    if daemon.process.get().is_none() {
        return;
    }
    match &daemon.stacks {
        Part::Missing { missing } if missing == "not asked" => {}
        Part::Missing { missing } => {
            page.section(&format!("stacks of {}", daemon.name));
            page.missing("stacks", missing);
        }
        Part::Found(stacks) => {
            page.section(&format!(
                "stacks of {}, from {}, in {}",
                daemon.name,
                stacks.from,
                ago(stacks.took_ms)
            ));
            stacks.threads.iter().filter(|seen| !seen.idle).for_each(|seen| stack(page, seen));
            let mut idle = BTreeMap::<String, usize>::new();
            stacks
                .threads
                .iter()
                .filter(|seen| seen.idle)
                .for_each(|seen| *idle.entry(name(seen)).or_default() += 1);
            if !idle.is_empty() {
                let names =
                    idle.iter().map(|(name, n)| if *n == 1 { name.clone() } else { format!("{name} ({n})") });
                let names: Vec<_> = names.collect();
                page.fine(&format!("{} idle", idle.values().sum::<usize>()), &names.join(", "));
            }
        }
    }
}

fn name(seen: &ThreadReport) -> String {
    safe(seen.loop_name.as_deref().unwrap_or(&seen.thread.name))
}

fn stack(page: &mut ReportWriter, seen: &ThreadReport) {
    let thread = &seen.thread;
    let wchan = thread.wchan.as_deref().map(|at| format!(", in the kernel {}", safe(at))).unwrap_or_default();
    let work = seen.work.as_ref().map(|work| format!(", {}", on(work))).unwrap_or_default();
    let head = format!("{} ({}), state {}{wchan}{work}", thread.tid, safe(&thread.name), thread.state);
    page.say(seen.stalled, &name(seen), &head);
    if let Some(why) = &thread.missing {
        page.missing("", why);
    }
    let blamed = |frame: &&StackFrame| seen.culprit.as_deref() == Some(place(frame).as_str());
    let culprit = thread.frames.iter().position(|frame| blamed(&frame)).map_or(0, |at| at + 2);
    let is_begin =
        |frame: &StackFrame| frame.function.as_deref().is_some_and(|name| name.contains(BEGIN_OF_THREAD));
    let begin = thread.frames.iter().position(is_begin).unwrap_or(thread.frames.len());
    let shown = FRAMES_SHOWN.max(culprit).min(begin);
    for frame in thread.frames.iter().take(shown) {
        let text = safe(&place(frame));
        let mark = if frame.inlined { "|" } else { "at" };
        page.say(blamed(&frame) && seen.stalled, "", &format!("{mark} {text}"));
    }
    if begin > shown {
        page.fine("", &format!("and {} more", begin - shown));
    }
}
