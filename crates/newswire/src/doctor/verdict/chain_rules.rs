//! Rules about what threads wait for: the root of a chain explains its first link.

use super::{DaemonEvidence, DoctorVerdict, Evidence, VerdictCode, name_and_pid, safe};
use crate::doctor::waits::{WaitChain, WaitLink, WaitsFor};

/// The thread that writes the log of a process. No other one waits for it.
const LOG_THREAD: &str = "log";

/// A debugger, or another tracer, holds a process or one thread of it. A tracer whose threads go on is no fault.
pub(super) fn held_by_debugger(evidence: &Evidence) -> Option<DoctorVerdict> {
    let held = evidence.chains(None).find_map(|chain| {
        let at = chain
            .links
            .iter()
            .position(|link| link.ours && link.still && link.waits_for == WaitsFor::Tracer)?;
        let tracer = chain.links.get(at + 1);
        // One that runs may only be slow to let the thread go on.
        tracer.is_none_or(|tracer| tracer.still).then_some((chain, chain.links.get(at)?, tracer))
    });
    if let Some((chain, link, tracer)) = held {
        return Some(held_in_chain(evidence, chain, link, tracer));
    }
    let daemon =
        [&evidence.gateway, &evidence.ingestd].into_iter().find(|daemon| tracer_of(daemon).is_some())?;
    let tracer = tracer_of(daemon)?;
    let line = format!("{} is stopped by a debugger, pid {tracer}", name_and_pid(daemon));
    Some(DoctorVerdict::new(VerdictCode::HeldByDebugger, line, [end_debugger(tracer, "", daemon.name)]))
}

/// The tracer of a process whose main thread it has stopped.
fn tracer_of(daemon: &DaemonEvidence) -> Option<i32> {
    daemon.process.get().filter(|process| process.stopped).and_then(|process| process.tracer)
}

fn held_in_chain(
    evidence: &Evidence,
    chain: &WaitChain,
    link: &WaitLink,
    tracer: Option<&WaitLink>,
) -> DoctorVerdict {
    let pid = link.held_by.as_ref().map_or(0, |held| held.pid);
    let name = tracer.map(|tracer| format!(" ({})", safe(&tracer.process))).unwrap_or_default();
    let daemon = evidence.daemons().find(|daemon| daemon.pid() == Some(link.pid));
    let process = daemon.map_or_else(|| safe(&link.process), name_and_pid);
    let is_whole = link.tid.is_none() || daemon.is_some_and(|daemon| tracer_of(daemon).is_some());
    let mut line = match is_whole {
        true => format!("{process} is stopped by a debugger, pid {pid}{name}"),
        false => format!("{} of {process} is stopped by a debugger, pid {pid}{name}", safe(&link.thread)),
    };
    let mut next = vec![end_debugger(pid, &name, &link.process)];
    if let Some(root) = chain.root().filter(|root| root.pid != pid && root.pid != link.pid) {
        line.push_str(&format!("; root: {}", root.says));
        let reader = format!("pid {} ({})", root.pid, safe(&root.process));
        next.insert(0, format!("read on where its output goes, in {reader}: pid {pid}{name} then goes on"));
    }
    DoctorVerdict::new(VerdictCode::HeldByDebugger, line, next)
}

fn end_debugger(pid: i32, name: &str, process: &str) -> String {
    format!(
        "end the debugger where it was started, pid {pid}{name}: {} then goes on by itself",
        safe(process)
    )
}

/// Whether the chain of its thread says so, too.
fn has_stalled_loop(daemon: &DaemonEvidence) -> bool {
    daemon.latest().is_some_and(|watch| watch.progress.loops.iter().any(|l| l.stalled))
}

/// Adds the root of the chain to a verdict about something that waits. While a loop is stalled, that is one of its chains: that
/// of another thread explains nothing of it.
pub(super) fn with_root(evidence: &Evidence, mut verdict: DoctorVerdict) -> DoctorVerdict {
    let process = match verdict.code {
        VerdictCode::EventLoopBlocked
        | VerdictCode::BlockingPoolExhausted
        | VerdictCode::WorkerStarved
        | VerdictCode::Unknown => None,
        VerdictCode::StoreSlow | VerdictCode::DiskStalled | VerdictCode::DaemonStale => {
            Some(evidence.ingestd.name)
        }
        VerdictCode::WireCut => Some(evidence.gateway.name),
        _ => return verdict,
    };
    let is_of_loop = matches!(verdict.code, VerdictCode::EventLoopBlocked | VerdictCode::WorkerStarved)
        && evidence.daemons().any(has_stalled_loop);
    let explains = |chain: &&WaitChain| {
        let is_log = chain.links.first().is_some_and(|first| first.thread == LOG_THREAD);
        chain.still && !is_log && (!is_of_loop || chain.since_ms.is_some())
    };
    let root = evidence.chains(process).find(explains).and_then(WaitChain::root);
    if let Some(root) = root.filter(|root| !verdict.line.contains(&root.says)) {
        verdict.line.push_str(&format!("; root: {}", root.says));
    }
    verdict
}
