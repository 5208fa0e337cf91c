//! Rules about the output of the log.

use control::watch::{LogOutput, LogReport};

use super::{
    DaemonEvidence, DoctorVerdict, Evidence, VerdictCode, bundle, duration, name_and_pid,
    next::{as_root, look_with_rights, quoted, restart_in_order},
    safe,
};
use crate::{
    doctor::log_end::{self, LogEnd, LogEndKind, LogEndReader},
    out::count,
};

/// A thread that writes a log takes probes at once; on a machine without a processor to spare, within this time.
const UNTAKEN_MS: u64 = 5_000;

/// The output of a log that takes no lines. By the time of the present write, which begins anew with each byte that is
/// taken: so one sample is enough. Not for health checks: a restart by a supervisor that ends streams helps no reader.
pub(super) fn log_blocked(evidence: &Evidence) -> Option<DoctorVerdict> {
    if evidence.quick {
        return None;
    }
    if let Some(verdict) = not_taken(evidence) {
        return Some(verdict);
    }
    let troubles = evidence.daemons().filter_map(|daemon| {
        let log = log_end::trouble(daemon.latest()?)?;
        let lasted_ms = log.failing.as_ref().map_or(0, |failing| failing.lasted_ms).max(log.blocked_ms);
        Some((daemon, log, lasted_ms))
    });
    let (daemon, log, lasted_ms) = troubles.max_by_key(|(.., lasted_ms)| *lasted_ms)?;
    let end = daemon.log_end.get();
    let why = match &log.failing {
        // A write that waits is newer than one that failed.
        Some(failing) if log.blocked_ms == 0 => {
            let place = end.map_or("its standard error".to_owned(), |end| safe(&end.target));
            format!("{place} refuses it: {}", safe(&failing.error))
        }
        _ => waits_for(log, end),
    };
    let dropped = usize::try_from(log.dropped).unwrap_or(usize::MAX);
    let were = if dropped == 1 { "was" } else { "were" };
    let line = format!(
        "{} has not been able to write its log for {}: {why}; {} {were} dropped; nothing else waits for it",
        name_and_pid(daemon),
        duration(lasted_ms),
        count(dropped, "line"),
    );
    Some(DoctorVerdict::new(VerdictCode::LogBlocked, line, remedies(evidence, daemon, log, end)))
}

/// The thread that writes a log neither writes nor takes lines.
fn not_taken(evidence: &Evidence) -> Option<DoctorVerdict> {
    let untaken = |daemon: &DaemonEvidence| {
        let log = daemon.latest()?.progress.log.as_ref()?;
        (log.blocked_ms == 0 && log.untaken_ms >= UNTAKEN_MS).then_some(log.untaken_ms)
    };
    let (daemon, since) = evidence.daemons().find_map(|daemon| Some((daemon, untaken(daemon)?)))?;
    let line = format!(
        "the thread log of {} has taken no line for {}, and does not write; nothing else waits for it",
        name_and_pid(daemon),
        duration(since)
    );
    Some(DoctorVerdict::new(VerdictCode::LogBlocked, line, [bundle(), restart_in_order(daemon)]))
}

fn waits_for(log: &LogReport, end: Option<&LogEnd>) -> String {
    let Some(end) = end.filter(|_| log.output == LogOutput::Stderr) else {
        return match log.output {
            LogOutput::Journal => "the journal does not take its lines".to_owned(),
            LogOutput::Stderr => "its standard error does not take its lines".to_owned(),
        };
    };
    let target = safe(&end.target);
    match (end.kind, end.readers.as_slice()) {
        (LogEndKind::Pipe, []) => {
            format!("its standard error is {target}, and no process that this user may examine reads it")
        }
        (LogEndKind::Pipe, readers) => {
            let verb = if readers.len() == 1 { "does" } else { "do" };
            format!("its standard error is {target}, and {} {verb} not read it", names(readers))
        }
        (LogEndKind::Terminal, _) => format!("its standard error is the terminal {target}, which is stopped"),
        (LogEndKind::File, _) => format!("its standard error is {target}, whose file system does not answer"),
        (LogEndKind::Other, _) => format!("its standard error is {target}, which takes no lines"),
    }
}

/// `pid 812 (less) and pid 813 (sh)`
fn names(readers: &[LogEndReader]) -> String {
    let named: Vec<_> =
        readers.iter().map(|reader| format!("pid {} ({})", reader.pid, safe(&reader.name))).collect();
    named.join(" and ")
}

fn remedies(
    evidence: &Evidence,
    daemon: &DaemonEvidence,
    log: &LogReport,
    end: Option<&LogEnd>,
) -> Vec<String> {
    let goes_on = "the log goes on by itself, and says how many lines are missing";
    let first = match (log.output, end) {
        (LogOutput::Journal, _) => {
            format!("{}systemctl restart systemd-journald   # {goes_on}", as_root(evidence))
        }
        (_, Some(end)) if log.blocked_ms == 0 && end.kind == LogEndKind::File => {
            format!("df -h {}   # free some space: {goes_on}", quoted(&end.target))
        }
        (_, Some(end)) if end.kind == LogEndKind::Terminal => {
            format!("press Ctrl-Q in the terminal {}   # {goes_on}", safe(&end.target))
        }
        (_, Some(LogEnd { kind: LogEndKind::Pipe, readers, .. })) if log.blocked_ms > 0 => {
            match readers.as_slice() {
                [] => look_with_rights(evidence),
                readers => {
                    let pids: Vec<_> = readers.iter().map(|reader| reader.pid.to_string()).collect();
                    let pids = pids.join(",");
                    format!("ps -o pid,ppid,stat,user,args -p {pids}   # let it read on: {goes_on}")
                }
            }
        }
        // What reads it is gone.
        _ => return vec![restart_in_order(daemon)],
    };
    vec![first, restart_in_order(daemon)]
}
