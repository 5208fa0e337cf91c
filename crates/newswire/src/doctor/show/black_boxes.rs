//! What the processes did last, from their black boxes: when it was asked for, and when they cannot say it themselves.

use super::{ReportWriter, duration};
use crate::{
    black_box::{RunReport, describe},
    doctor::{
        evidence::{DaemonEvidence, Presence},
        part::{MissingCause, Part},
    },
    out::safe,
};

/// How much of the black boxes is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlackBoxDetail {
    /// Everything, by `--since`.
    Asked,
    /// The last lines of a process that does not run or does not answer.
    IfItTellsMore,
}

/// Lines of each run, if nothing was asked for.
const LINES_SHOWN: usize = 25;
/// A run before this one is mentioned if it did not end in order within this time.
const BEFORE_RECENT_MS: u64 = 3_600_000;

pub(super) fn show(page: &mut ReportWriter, daemon: &DaemonEvidence, detail: BlackBoxDetail) {
    let is_silent = match daemon.presence {
        Presence::Absent => true,
        Presence::Running => daemon.health.get().is_none(),
        Presence::Unknown | Presence::NotAsked => false,
    };
    let is_asked = detail == BlackBoxDetail::Asked;
    let report = match &daemon.black_box {
        missing if missing.is_missing_because(MissingCause::NotAsked) => return,
        Part::Missing { missing, .. } => {
            if is_asked || is_silent {
                page.section(&format!("black box of {}", daemon.name));
                page.missing("records", missing);
            }
            return;
        }
        Part::Found(report) => report,
    };
    let lines_max = if is_asked { usize::MAX } else { LINES_SHOWN };
    let died = |run: &&RunReport| run.ending().is_some() && run.written_ms_ago < BEFORE_RECENT_MS;
    let before = report.previous.as_ref().filter(|run| is_asked && !run.records.is_empty() || died(run));
    if !is_asked && !is_silent {
        if let Some(before) = before.filter(|run| run.is_bad_end()) {
            page.section(&format!("black box of {}, the run before", daemon.name));
            page.problem("end", &format!("{}: {}", before.identity(), before.ending().unwrap_or_default()));
        }
        return;
    }
    for run in before.into_iter().chain([&report.last]) {
        page.section(&format!("black box of {}", run.identity()));
        facts(page, run);
        let skipped = run.records.len().saturating_sub(lines_max);
        for timed in run.records.iter().skip(skipped) {
            page.lines.push(format!("   {}", describe(timed)));
        }
    }
}

fn facts(page: &mut ReportWriter, run: &RunReport) {
    match run.ending() {
        Some(ending) => page.line(run.is_bad_end(), "end", &ending),
        None => page.normal("written", &format!("{} ago", duration(run.written_ms_ago))),
    }
    if let Some(ms) = run.watchdog_looked_ms_before {
        page.normal("watchdog", &format!("had looked {} before that", duration(ms)));
    }
    if run.dropped > 0 || run.damaged > 0 {
        let text = format!("{} records did not fit, {} are damaged", run.dropped, run.damaged);
        page.normal("missing", &safe(&text));
    }
}
