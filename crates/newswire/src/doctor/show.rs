//! Prints the evidence for people: short lines, problems marked, the verdict last.

mod black_boxes;
mod chains;
mod nats;
mod processes;
mod resources;

use std::time::Duration;

pub(crate) use self::black_boxes::BlackBoxDetail;
use super::{
    evidence::{DaemonEvidence, Evidence},
    http::HttpProbes,
    listener::ListenerReport,
    part::Part,
    proof_entry::ProofState,
    verdict::{DoctorVerdict, VerdictCode},
};
use crate::out::{Paint, safe, whole};

pub(crate) use notation::humanize_bytes as bytes;

/// A duration in milliseconds, in a readable unit.
pub(crate) fn duration(ms: u64) -> String {
    notation::approximate(Duration::from_millis(ms))
}

/// The lines of the report, while it is written.
struct ReportWriter {
    paint: Paint,
    lines: Vec<String>,
}

/// Width of the names of lines.
const NAME_CHARS: usize = 16;

impl ReportWriter {
    fn section(&mut self, title: &str) {
        if !self.lines.is_empty() {
            self.lines.push(String::new());
        }
        self.lines.push(self.paint.bold(title));
    }

    /// A line about something normal; its text must be escaped already.
    fn normal(&mut self, name: &str, text: &str) {
        let name = self.paint.dim(&format!("{name:NAME_CHARS$}"));
        self.lines.push(format!("   {name} {text}"));
    }

    /// A line about a problem; its text must be escaped already.
    fn problem(&mut self, name: &str, text: &str) {
        let name = self.paint.dim(&format!("{name:NAME_CHARS$}"));
        self.lines.push(format!("{} {name} {}", self.paint.bad("!!"), self.paint.bad(text)));
    }

    fn line(&mut self, is_problem: bool, name: &str, text: &str) {
        if is_problem { self.problem(name, text) } else { self.normal(name, text) }
    }

    /// A line about an unavailable part, which is not a problem in itself.
    fn missing(&mut self, name: &str, why: &str) {
        let text = self.paint.dim(&format!("unknown: {}", safe(why)));
        self.normal(name, &text);
    }
}

/// The whole report.
pub(crate) fn lines(
    evidence: &Evidence,
    verdict: &DoctorVerdict,
    history: BlackBoxDetail,
    paint: Paint,
) -> Vec<String> {
    let mut page = ReportWriter { paint, lines: Vec::new() };
    http(&mut page, evidence);
    for daemon in evidence.daemons() {
        processes::show(&mut page, daemon);
    }
    resources::show_machine(&mut page, evidence);
    if !evidence.quick {
        wire_and_store(&mut page, evidence);
        nats::show(&mut page, evidence);
        chains::show(&mut page, evidence);
        for daemon in evidence.daemons() {
            processes::stalls(&mut page, daemon);
        }
        for daemon in evidence.daemons() {
            processes::stacks(&mut page, daemon);
        }
    }
    proof(&mut page, evidence);
    for daemon in evidence.daemons() {
        black_boxes::show(&mut page, daemon, history);
    }
    page.lines.push(String::new());
    let took = format!("took {}, at {}", duration(evidence.took_ms), evidence.at);
    page.lines.push(paint.dim(&took));
    for step in &verdict.next {
        page.lines.push(format!("next: {step}"));
    }
    let line = format!("VERDICT {}: {}", verdict.code.as_str(), verdict.line);
    page.lines.push(match verdict.code {
        VerdictCode::Healthy | VerdictCode::SlowFeeds => paint.good(&line),
        _ => paint.bad(&line),
    });
    page.lines
}

/// What was proved, and what could not be looked at.
fn proof(page: &mut ReportWriter, evidence: &Evidence) {
    page.section("proof");
    for entry in &evidence.proof {
        let (name, why) = (entry.part.as_str(), safe(&entry.why));
        match entry.state {
            ProofState::Proved => page.normal(name, &format!("proved: {why}")),
            ProofState::NotAsked => page.normal(name, &format!("not asked: {why}")),
            ProofState::Unknown => page.problem(name, &format!("unknown: {why}")),
        }
    }
    for complaint in &evidence.configured.complaints {
        page.problem("mistake", &whole(complaint));
    }
    if let Some(why) = &evidence.configured.unreadable {
        page.missing("config", why);
    }
}

fn http(page: &mut ReportWriter, evidence: &Evidence) {
    page.section("http");
    match &evidence.http {
        Part::Missing { missing, .. } => page.missing("answers", missing),
        Part::Found(answers) => probes(page, answers),
    }
    match &evidence.listener {
        Part::Missing { missing, .. } => page.missing("listener", missing),
        Part::Found(found) => listener(page, found, &evidence.gateway),
    }
}

fn probes(page: &mut ReportWriter, answers: &HttpProbes) {
    page.normal("address", &safe(&answers.address));
    for probe in &answers.probes {
        let millis = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.1}ms"));
        let times =
            format!("connect {:>9}  first byte {:>9}", millis(probe.connect_ms), millis(probe.first_byte_ms));
        match (&probe.error, probe.status) {
            (Some(error), _) => page.problem(probe.path, &format!("{times}  {}", safe(error))),
            (None, status) => {
                let status = status.unwrap_or(0);
                page.line(status >= 500, probe.path, &format!("{times}  {status}"));
            }
        }
    }
    if let Part::Found(ready) = &answers.ready {
        for reason in &ready.reasons {
            page.problem("not ready", &whole(reason));
        }
    }
}

fn listener(page: &mut ReportWriter, listener: &ListenerReport, gateway: &DaemonEvidence) {
    if listener.sockets.is_empty() {
        return page.problem("listener", &format!("no process listens on {}", safe(&listener.address)));
    }
    for socket in &listener.sockets {
        let text =
            format!("{} inode {}, backlog (Recv-Q) {}", safe(&socket.address), socket.inode, socket.backlog);
        page.line(socket.backlog > 0, "listener", &text);
        for owner in &socket.owners {
            let expected = Some(owner.pid) == gateway.pid() || owner.is_systemd();
            let note = match (expected, gateway.pid()) {
                (true, _) => "",
                (false, Some(_)) => "  not the gateway",
                (false, None) => "  the gateway was not found",
            };
            let since = duration(owner.uptime_ms);
            let text = format!("pid {} for {since}: {}{note}", owner.pid, safe(&owner.command));
            page.line(!expected && gateway.is_running(), "  held by", &text);
        }
        if socket.owners.is_empty() {
            let blind = listener.blind_to;
            page.missing(
                "  held by",
                &format!("a process of user {}; {blind} processes cannot be examined", socket.uid),
            );
        }
    }
}

/// The wire, the store and the sources.
fn wire_and_store(page: &mut ReportWriter, evidence: &Evidence) {
    let (gateway, ingestd) = (evidence.gateway.gateway_vitals(), evidence.ingestd.ingest_vitals());
    let has_vitals = |daemon: &DaemonEvidence| daemon.reports().any(|watch| watch.vitals.is_some());
    let late = evidence.daemons().filter(|daemon| daemon.looks() > 0 && !has_vitals(daemon));
    let late: Vec<_> = late.collect();
    if gateway.is_some() || ingestd.is_some() || !late.is_empty() {
        page.section("wire");
    }
    for daemon in late {
        page.missing(
            daemon.name.trim_start_matches("newswire-"),
            "it did not put its diagnostics together in time",
        );
    }
    if let Some(vitals) = gateway {
        match &vitals.wire {
            Some(wire) if !wire.connected => {
                let reason = wire.reason.as_deref().map(safe).unwrap_or_default();
                page.problem("gateway", &format!("not connected: {reason}"));
            }
            Some(wire) => {
                let received =
                    wire.heard_ms_ago.map_or("nothing yet".to_owned(), |ms| format!("{} ago", duration(ms)));
                let cursor = wire.cursor.as_deref().map_or("none".to_owned(), safe);
                page.line(
                    wire.heard_ms_ago.is_some_and(|ms| ms > 8_000),
                    "gateway",
                    &format!("connected, last received {received}, cursor {cursor}"),
                );
            }
            None => page.missing("gateway", "it does not report it"),
        }
        for waits in &vitals.streams {
            let text =
                format!("{} wait for it, the longest for {}", waits.streams, duration(waits.longest_ms));
            page.normal(&format!("streams: {}", safe(&waits.waits_for)), &text);
        }
    }
    if let Some(vitals) = ingestd {
        let (head, subscribers) = (vitals.head, vitals.wire.subscribers);
        let lag =
            lag(evidence).map(|lag| format!(", the gateway is {lag} events behind")).unwrap_or_default();
        page.normal("ingestd", &format!("head {head}, subscribers {subscribers}{lag}"));
    }
    store(page, evidence);
    sources(page, evidence);
}

/// Events that the gateway has not received yet; `None` if the two have different logs.
pub(crate) fn lag(evidence: &Evidence) -> Option<u64> {
    let cursor = evidence.gateway.gateway_vitals()?.wire.as_ref()?.cursor.as_ref()?;
    let vitals = evidence.ingestd.ingest_vitals()?;
    let (epoch, seq) = cursor.rsplit_once('-')?;
    (epoch == vitals.epoch).then_some(())?;
    Some(vitals.head.saturating_sub(seq.parse().ok()?))
}

fn store(page: &mut ReportWriter, evidence: &Evidence) {
    page.section("store");
    match &evidence.store {
        Part::Missing { missing, .. } => page.missing("disk", missing),
        Part::Found(disk) => {
            let full = disk.free_bytes < disk.total_bytes / 20 && disk.free_bytes < 512 << 20;
            let text = format!(
                "{}: {} of {} free",
                safe(&disk.path),
                bytes(disk.free_bytes),
                bytes(disk.total_bytes)
            );
            page.line(full || disk.free_inodes == Some(0), "disk", &text);
        }
    }
    resources::show_store(page, evidence);
    let Some(vitals) = evidence.ingestd.ingest_vitals() else { return };
    for paused in &vitals.recording_paused {
        let text = format!("paused for {}: {}", duration(paused.since_ms_ago), whole(&paused.detail));
        page.line(true, "recording", &text);
    }
    let store = &vitals.store;
    let commit = match (store.last_commit_ms_ago, store.last_commit_took_ms) {
        (Some(ago), Some(took)) => format!("last commit {} ago took {}", duration(ago), duration(took)),
        _ => "no commit yet".to_owned(),
    };
    let text = format!("{}, {commit}, {} queued", bytes(store.bytes), store.queued);
    page.normal("log", &text);
    if let Some(ms) = store.committing_ms {
        page.line(ms > 1_000, "commit", &format!("in progress for {}", duration(ms)));
    }
}

/// How many of the busiest sources are shown.
const BUSIEST_SHOWN: usize = 8;

fn sources(page: &mut ReportWriter, evidence: &Evidence) {
    let Some(sources) = evidence.ingestd.sources() else { return };
    let outage = evidence.ingestd.ingest_vitals().is_some_and(|vitals| vitals.outage);
    page.section("sources");
    let counts: Vec<_> = sources
        .actors
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(activity, n)| format!("{n} {}", safe(activity)))
        .collect();
    page.normal("activity", &if counts.is_empty() { "none".to_owned() } else { counts.join(", ") });
    page.line(
        outage,
        "overdue",
        &format!("{}{}", sources.overdue, if outage { "; the network is down" } else { "" }),
    );
    if !sources.fetching.is_empty() {
        let waits = sources.fetching.iter().map(|(phase, n)| format!("{n} {}", safe(phase)));
        page.normal("fetching", &waits.collect::<Vec<_>>().join(", "));
    }
    if let Some(feeds) = &sources.feeds {
        let failing = feeds.failing.iter().map(|(trouble, count)| format!("{count} {}", trouble.as_str()));
        let failing = failing.collect::<Vec<_>>().join(", ");
        let failing = if failing.is_empty() { "none".to_owned() } else { failing };
        page.normal(
            "visited",
            &format!("{} of {}, {} succeeded", feeds.visited, feeds.watched, feeds.succeeded),
        );
        page.normal("failing", &failing);
        page.normal("slow", &format!("{}, {} now", feeds.slow, feeds.slow_now));
    }
    for busy in sources.busiest.iter().take(BUSIEST_SHOWN) {
        let waits =
            busy.waiting_for.as_deref().map(|what| format!(" for {}", safe(what))).unwrap_or_default();
        let text = format!("{} for {}{waits}", safe(&busy.activity), duration(busy.since_ms_ago));
        page.normal(&safe(&busy.source), &text);
    }
    let more = sources.busiest.len().saturating_sub(BUSIEST_SHOWN);
    if more > 0 {
        page.normal("", &format!("and {more} more"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_a_readable_unit() {
        let times = [5, 1_250, 61_000, 130_000, 7_300_000, 200_000_000].map(duration);
        assert_eq!(times, ["5ms", "1.2s", "61s", "2m", "2h", "2d"]);
        let sizes = [0, 1023, 1536, 20 << 20, 5 << 40, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.5 KiB", "20 MiB", "5.0 TiB", "16777215 TiB"]);
    }
}
