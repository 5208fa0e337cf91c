//! What must be seen before a verdict may be `healthy`. A rule that does not apply proves nothing: what it reads may be
//! missing. Each part is proved, unknown, or was not asked for.

use control::watch::{StoreReport, WireReport};

use super::{
    DaemonEvidence, Evidence, Presence, duration,
    next::{
        by_itself, in_its_place, look_again, look_with_rights, other_place, quoted, restart_in_order,
        tool_of_its_version, whose,
    },
    progress_rules::{SETTLED_MS, WIRE_SILENT_MS},
    resource_rules::other_network,
    safe,
};
use crate::doctor::{
    evidence::Target,
    http::{HttpProbes, PublicHealth},
    part::{MissingCause, Part},
    program::{GATEWAY, INGESTD},
    proof_entry::{ProofEntry, ProofPart},
    second_look::watchdog_is_stuck,
    show::lag,
};

/// Every part of the proof, in the order in which it is shown.
pub(crate) fn prove(evidence: &Evidence) -> Vec<ProofEntry> {
    let (gateway, ingestd) = (&evidence.gateway, &evidence.ingestd);
    let entries = [
        address(evidence),
        report(evidence, gateway, ProofPart::GatewayReport),
        report(evidence, ingestd, ProofPart::IngestdReport),
        watchdog(gateway, ProofPart::GatewayWatchdog),
        watchdog(ingestd, ProofPart::IngestdWatchdog),
        wire(evidence),
        store(evidence),
        sources(evidence),
        process(evidence, gateway, ProofPart::GatewayProcess),
        process(evidence, ingestd, ProofPart::IngestdProcess),
    ];
    let with_configuration = |entry: ProofEntry| ProofEntry {
        remedy: entry.remedy.map(|step| super::next::with_configuration(evidence, step)),
        ..entry
    };
    entries.into_iter().chain(nats(evidence)).map(with_configuration).collect()
}

fn address(evidence: &Evidence) -> ProofEntry {
    let part = ProofPart::Address;
    if evidence.target == Target::Pid && evidence.gateway.presence == Presence::NotAsked {
        return ProofEntry::not_asked(part, "only the ingestion daemon was asked for");
    }
    if evidence.target == Target::Both && evidence.gateway.presence == Presence::NotAsked {
        return ProofEntry::not_asked(part, "the gateways run on other machines");
    }
    let answers = match &evidence.http {
        Part::Found(answers) => answers,
        Part::Missing { missing, .. } => return ProofEntry::unknown(part, missing, look_again(evidence)),
    };
    let address = safe(&answers.address);
    let Some(health) = answers.health() else {
        let why = format!("{address} does not answer as newswire-gateway: {}", answer_to_health(answers));
        if let Some(entry) = elsewhere(evidence, &why) {
            return entry;
        }
        let remedy = match evidence.target {
            Target::Url => "name the gateway itself with --url, not the proxy in front of it".to_owned(),
            _ => format!("curl -i http://{address}/health   # which server answers there?"),
        };
        return ProofEntry::unknown(part, why, remedy);
    };
    match evidence.target {
        Target::Url => {
            let why = format!("newswire-gateway {} answers at {address}", safe(&health.version));
            ProofEntry::proved(part, why)
        }
        _ => answered_by(evidence, &address, health),
    }
}

/// The same address is another one in the network of the gateway, which does not pass as a start does.
fn elsewhere(evidence: &Evidence, why: &str) -> Option<ProofEntry> {
    let place = other_network(&evidence.gateway)?;
    let why = format!("{why}; the gateway runs in {}", place.describe());
    let remedy = in_its_place(evidence, &evidence.gateway, place).pop()?;
    Some(ProofEntry::unknown(ProofPart::Address, why, remedy).lasting())
}

fn answer_to_health(answers: &HttpProbes) -> String {
    let probe = answers.probes.iter().find(|probe| probe.path == "/health");
    match probe.map(|probe| (&probe.error, probe.status)) {
        Some((Some(error), _)) => safe(error),
        Some((None, Some(status))) => format!("/health was answered with {status}"),
        _ => "/health was not requested".to_owned(),
    }
}

/// The answer must come from the process that we hold for the gateway: by the id in the answer, else by the listener.
fn answered_by(evidence: &Evidence, address: &str, health: &PublicHealth) -> ProofEntry {
    let part = ProofPart::Address;
    let gateway = &evidence.gateway;
    let Some(process) = gateway.process.get() else {
        let why =
            format!("a newswire-gateway answers at {address}, but this user cannot see which process it is");
        return blind(evidence, gateway, part, why);
    };
    let listener = evidence.listener.get();
    let holds = listener.is_some_and(|l| l.owners().iter().any(|owner| owner.pid == process.pid));
    let is_it = match health.pid {
        Some(pid) => pid == process.pid || process.inner_pids.contains(&pid),
        None => holds,
    };
    if !is_it {
        let other = health.pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
        let why = format!("{other} answers at {address}, not newswire-gateway (pid {})", process.pid);
        if let Some(entry) = elsewhere(evidence, &why) {
            return entry;
        }
        return ProofEntry::unknown(part, why, look_with_rights(evidence));
    }
    let inherited = gateway.gateway_vitals().is_some_and(|vitals| vitals.inherited);
    match evidence.configured.listen.filter(|listen| !inherited && !is_reached_at(*listen, address)) {
        Some(listen) => ProofEntry::unknown(
            part,
            format!("the gateway answers at {address}, but gateway.listen is {listen}"),
            takes_the_value(gateway, LISTEN_VARIABLE, address),
        ),
        None => ProofEntry::proved(part, format!("pid {} answers at {address}", process.pid)),
    }
}

/// The variables of the environment that take precedence over `gateway.listen` and `store.path`.
const LISTEN_VARIABLE: &str = "NEWSWIRE_GATEWAY__LISTEN";
const STORE_VARIABLE: &str = "NEWSWIRE_STORE__PATH";

/// How a process and this tool come to the same value: the process takes that of the file at its start, unless a variable of
/// its environment has another.
fn takes_the_value(daemon: &DaemonEvidence, variable: &str, value: &str) -> String {
    match daemon.started.variables.iter().any(|name| name == variable) {
        true => format!(
            "{variable}={} newswire doctor   # with the value that {} has",
            quoted(value),
            daemon.name
        ),
        false => restart_in_order(daemon),
    }
}

fn is_reached_at(listen: std::net::SocketAddr, address: &str) -> bool {
    crate::doctor::http::reachable(listen).to_string() == address
}

/// Why a process cannot be examined, and what would let it be.
fn blind(evidence: &Evidence, daemon: &DaemonEvidence, part: ProofPart, why: String) -> ProofEntry {
    match daemon.denied {
        true => ProofEntry::denied(part, why, look_with_rights(evidence)),
        false => ProofEntry::denied(part, why, other_place()),
    }
}

fn report(evidence: &Evidence, daemon: &DaemonEvidence, part: ProofPart) -> ProofEntry {
    if daemon.presence == Presence::NotAsked {
        return ProofEntry::not_asked(part, "it was not asked for");
    }
    if let Some(foreign) = &daemon.foreign {
        let why = format!(
            "pid {} ({}), another program, holds {}",
            foreign.pid,
            safe(&foreign.command),
            safe(&daemon.socket)
        );
        return ProofEntry::unknown(part, why, whose(foreign.pid)).lasting();
    }
    let health = match (&daemon.health, daemon.latest()) {
        (Part::Found(health), Some(_)) => health,
        (Part::Missing { missing, cause }, _) => return unreadable(evidence, daemon, part, missing, *cause),
        (_, None) => {
            let Part::Missing { missing, cause } = &daemon.watch else {
                return ProofEntry::unknown(part, "it did not report", look_again(evidence));
            };
            return unreadable(evidence, daemon, part, missing, *cause);
        }
    };
    let said = &health.process;
    if said.name != daemon.name || health.status != "ok" {
        let why = format!(
            "{} is answered by {} with {}",
            safe(&daemon.socket),
            safe(&said.name),
            safe(&health.status)
        );
        return ProofEntry::unknown(part, why, look_again(evidence)).lasting();
    }
    if let Some(process) =
        daemon.process.get().filter(|p| p.pid != said.pid && !p.inner_pids.contains(&said.pid))
    {
        let why =
            format!("{} is answered by pid {}, not by pid {}", safe(&daemon.socket), said.pid, process.pid);
        return ProofEntry::unknown(part, why, look_again(evidence)).lasting();
    }
    if daemon.gateway_vitals().is_none() && daemon.ingest_vitals().is_none() {
        let why = format!("{} did not put its diagnostics together in time", daemon.name);
        return ProofEntry::unknown(part, why, look_again(evidence));
    }
    ProofEntry::proved(
        part,
        format!("version {} answers, up {}", safe(&said.version), duration(health.uptime_ms)),
    )
}

fn unreadable(
    evidence: &Evidence,
    daemon: &DaemonEvidence,
    part: ProofPart,
    missing: &str,
    cause: MissingCause,
) -> ProofEntry {
    let why = format!("the report of {} could not be read: {}", daemon.name, safe(missing));
    match cause {
        MissingCause::Denied => ProofEntry::denied(part, why, look_with_rights(evidence)),
        MissingCause::OtherVersion => ProofEntry::unknown(part, why, tool_of_its_version(daemon)).lasting(),
        // What answers one request and not the other has started.
        MissingCause::TimedOut if daemon.health.get().is_some() => {
            ProofEntry::unknown(part, why, look_again(evidence)).lasting()
        }
        // It runs: with other sockets than those of this configuration, or with lost ones.
        MissingCause::NoSocket => ProofEntry::unknown(part, why, by_itself(daemon)),
        _ => ProofEntry::unknown(part, why, look_again(evidence)),
    }
}

fn watchdog(daemon: &DaemonEvidence, part: ProofPart) -> ProofEntry {
    if daemon.presence == Presence::NotAsked {
        return ProofEntry::not_asked(part, "it was not asked for");
    }
    let looked = daemon
        .reports()
        .filter_map(|report| {
            Some((report.progress.watchdog.as_ref()?.looked_ms_ago, watchdog_is_stuck(report)))
        })
        .min();
    let entry = |looks: bool, how: String| match looks {
        true => ProofEntry::proved(part, how),
        false => ProofEntry::unknown(
            part,
            format!("the watchdog of {} does not look ({how}): a stall would not be noticed", daemon.name),
            super::BUNDLE,
        ),
    };
    match (looked, daemon.watchdog_ran) {
        (Some((ms, is_stuck)), _) => entry(!is_stuck, format!("looked {} ago", duration(ms))),
        (None, Some(ran)) => {
            entry(ran, if ran { "its thread runs" } else { "its thread does not run" }.to_owned())
        }
        // It is too old to say so; the report above is the proof that it answers.
        (None, None) => {
            ProofEntry::not_asked(part, "neither the process nor the kernel says when it looked last")
        }
    }
}

fn wire(evidence: &Evidence) -> ProofEntry {
    let part = ProofPart::Wire;
    match evidence.target {
        Target::Pid => return ProofEntry::not_asked(part, "only one of its ends was asked for"),
        Target::Url => return wire_according_to_ready(evidence),
        Target::Both => {}
    }
    if evidence.gateway.presence == Presence::NotAsked {
        return ProofEntry::not_asked(part, "the gateways run on other machines");
    }
    let Some(vitals) = evidence.gateway.gateway_vitals() else {
        return unseen(evidence, &evidence.gateway, part);
    };
    let Some(reported) = &vitals.wire else {
        return ProofEntry::unknown(
            part,
            "the gateway does not say whether it is connected",
            look_again(evidence),
        );
    };
    match heard(reported) {
        Err(why) => ProofEntry::unknown(part, why, look_again(evidence)),
        Ok(heard) => is_of_this_log(evidence, reported, heard),
    }
}

/// The stream must carry events; asked only if NATS is the wire.
fn nats(evidence: &Evidence) -> Option<ProofEntry> {
    let part = ProofPart::Nats;
    let survey = match &evidence.nats {
        Part::Found(survey) => survey,
        missing if missing.is_missing_because(MissingCause::NotAsked) => return None,
        Part::Missing { missing, .. } => {
            return Some(ProofEntry::unknown(part, safe(missing), look_again(evidence)));
        }
    };
    Some(match (&survey.problem, &survey.stream) {
        (None, Some(stream)) => ProofEntry::proved(
            part,
            format!(
                "{} of {} servers answer, events up to {}",
                survey.answering(),
                survey.servers.len(),
                stream.last
            ),
        ),
        (Some(problem), _) => ProofEntry::unknown(part, safe(&problem.text), look_again(evidence)).lasting(),
        (None, None) => ProofEntry::unknown(part, "the stream was not described", look_again(evidence)),
    })
}

fn heard(wire: &WireReport) -> Result<String, String> {
    match wire.heard_ms_ago {
        _ if !wire.connected => Err("the gateway is not connected".to_owned()),
        Some(ms) if ms <= WIRE_SILENT_MS => Ok(format!("heard {} ago", duration(ms))),
        Some(ms) => Err(format!("the gateway has heard nothing for {}", duration(ms))),
        None => Err("the gateway has heard nothing yet".to_owned()),
    }
}

/// The gateway must be connected to this daemon, and not to one that had its socket before.
fn is_of_this_log(evidence: &Evidence, wire: &WireReport, heard: String) -> ProofEntry {
    let part = ProofPart::Wire;
    if let Some(epoch) = evidence.nats.get().and_then(|survey| survey.epoch.as_ref()) {
        return is_of_this_stream(evidence, wire, &format!("{}-", epoch.epoch), heard);
    }
    let Some(ingest) = evidence.ingestd.ingest_vitals() else {
        return unseen(evidence, &evidence.ingestd, part);
    };
    let Some(cursor) = &wire.cursor else {
        return match ingest.head {
            0 => ProofEntry::proved(part, format!("{heard}; the log is empty")),
            head => ProofEntry::unknown(
                part,
                format!("{heard}, but the gateway has none of the {head} events of the log"),
                look_again(evidence),
            ),
        };
    };
    match lag(evidence) {
        Some(lag) if ingest.wire.subscribers > 0 => {
            ProofEntry::proved(part, format!("{heard}, {lag} events behind"))
        }
        _ => ProofEntry::unknown(
            part,
            format!(
                "the gateway is at {} and this daemon writes the log {} for {} gateways: they may not be connected to each other",
                safe(cursor),
                safe(&ingest.epoch),
                ingest.wire.subscribers
            ),
            restart_in_order(&evidence.gateway),
        ),
    }
}

/// The gateway must read the stream that the servers have.
fn is_of_this_stream(evidence: &Evidence, wire: &WireReport, epoch: &str, heard: String) -> ProofEntry {
    let part = ProofPart::Wire;
    match &wire.cursor {
        Some(cursor) if cursor.starts_with(epoch) => {
            ProofEntry::proved(part, format!("{heard}, at {}", safe(cursor)))
        }
        None => ProofEntry::proved(part, format!("{heard}; it has no event yet")),
        Some(cursor) => ProofEntry::unknown(
            part,
            format!(
                "the gateway is at {}, and the stream has the epoch {}",
                safe(cursor),
                safe(epoch.trim_end_matches('-'))
            ),
            look_again(evidence),
        ),
    }
}

fn wire_according_to_ready(evidence: &Evidence) -> ProofEntry {
    let part = ProofPart::Wire;
    let ready = match evidence.http.get().map(|http| &http.ready) {
        Some(Part::Found(ready)) => ready,
        Some(Part::Missing { missing, .. }) => {
            return ProofEntry::unknown(
                part,
                format!("/ready could not be read: {}", safe(missing)),
                look_again(evidence),
            );
        }
        None => return ProofEntry::unknown(part, "the gateway did not answer", look_again(evidence)),
    };
    let age = ready.wire.heartbeat_age_ms;
    match (ready.ready, age.filter(|ms| *ms <= WIRE_SILENT_MS)) {
        (true, Some(ms)) => ProofEntry::proved(
            part,
            format!("the gateway is ready, and heard its daemon {} ago", duration(ms)),
        ),
        (true, None) => ProofEntry::unknown(
            part,
            "the gateway does not say when it heard its daemon",
            look_again(evidence),
        ),
        (false, _) => {
            let why = format!("the gateway is not ready: {}", safe(&ready.reasons.join("; ")));
            ProofEntry::unknown(part, why, look_again(evidence))
        }
    }
}

/// A part that the report of a process would prove.
fn unseen(evidence: &Evidence, daemon: &DaemonEvidence, part: ProofPart) -> ProofEntry {
    let mut entry = report(evidence, daemon, part);
    if !entry.is_unknown() {
        entry =
            ProofEntry::unknown(part, format!("{} does not report it", daemon.name), look_again(evidence));
    }
    entry
}

fn store(evidence: &Evidence) -> ProofEntry {
    let part = ProofPart::Store;
    if evidence.ingestd.presence == Presence::NotAsked {
        return ProofEntry::not_asked(part, "the ingestion daemon was not asked for");
    }
    let Some(vitals) = evidence.ingestd.ingest_vitals() else {
        return unseen(evidence, &evidence.ingestd, part);
    };
    let path = safe(&vitals.store.path);
    if let Some(configured) =
        evidence.configured.store.as_ref().filter(|store| !is_same_path(store, &vitals.store.path))
    {
        return ProofEntry::unknown(
            part,
            format!("the daemon writes {path}, but store.path is {}", safe(configured)),
            takes_the_value(&evidence.ingestd, STORE_VARIABLE, &vitals.store.path),
        );
    }
    let all = vitals.sources.as_ref().map_or(0, |sources| sources.actors.values().sum::<u64>());
    let may_be_idle = all == 0 || evidence.ingestd.uptime_ms().is_none_or(|uptime| uptime < SETTLED_MS);
    match last_commit(evidence, &vitals.store) {
        Some(commit) => ProofEntry::proved(part, format!("{path}: {commit}")),
        None if may_be_idle || !vitals.recording_paused.is_empty() => {
            ProofEntry::proved(part, format!("{path}: there was nothing to record yet"))
        }
        None => ProofEntry::unknown(
            part,
            format!("nothing was written to {path} since the daemon started"),
            "newswire sources list --failing   # do the sources answer?",
        ),
    }
}

fn last_commit(evidence: &Evidence, store: &StoreReport) -> Option<String> {
    let (ago, took) = (store.last_commit_ms_ago?, store.last_commit_took_ms?);
    let head = evidence.ingestd.ingest_vitals()?.head;
    let before = evidence.ingestd.first_ingest_vitals()?.head;
    let rises = match head.saturating_sub(before) {
        _ if evidence.ingestd.looks() < 2 => String::new(),
        0 => ", head still".to_owned(),
        more => format!(", head rising, {more} meanwhile"),
    };
    Some(format!("the last commit ended {} ago and took {}{rises}", duration(ago), duration(took)))
}

fn is_same_path(a: &str, b: &str) -> bool {
    let resolved = |path: &str| std::path::Path::new(path).components().collect::<std::path::PathBuf>();
    resolved(a) == resolved(b)
}

fn sources(evidence: &Evidence) -> ProofEntry {
    let part = ProofPart::Sources;
    if evidence.ingestd.presence == Presence::NotAsked {
        return ProofEntry::not_asked(part, "the ingestion daemon was not asked for");
    }
    let reported = [evidence.ingestd.ingest_vitals(), evidence.ingestd.first_ingest_vitals()];
    let Some(sources) = reported.into_iter().flatten().find_map(|vitals| vitals.sources.as_ref()) else {
        return unseen(evidence, &evidence.ingestd, part);
    };
    let all: u64 = sources.actors.values().sum();
    let seen = format!("{all} sources, {} overdue", sources.overdue);
    let Some(feeds) = &sources.feeds else { return ProofEntry::proved(part, seen) };
    ProofEntry::proved(
        part,
        format!("{seen}, {} of {} that were visited have answered", feeds.succeeded, feeds.visited),
    )
}

fn process(evidence: &Evidence, daemon: &DaemonEvidence, part: ProofPart) -> ProofEntry {
    if daemon.presence == Presence::NotAsked {
        return ProofEntry::not_asked(part, "it was not asked for");
    }
    let Some(process) = daemon.process.get() else {
        let why = format!("{} cannot be seen from here: {}", daemon.name, safe(&daemon.found_by));
        return blind(evidence, daemon, part, why);
    };
    match &daemon.stacks {
        Part::Missing { missing, cause } if *cause != MissingCause::NotAsked => {
            let why = format!("the stacks of {} could not be read: {}", daemon.name, safe(missing));
            match daemon.may_end {
                true => ProofEntry::unknown(part, why, look_again(evidence)),
                false => ProofEntry::denied(part, why, look_with_rights(evidence)),
            }
        }
        _ => ProofEntry::proved(part, format!("pid {}, {} threads", process.pid, process.threads)),
    }
}

/// What was asked for, for the line of a verdict.
pub(super) fn scope(evidence: &Evidence) -> &'static str {
    match (evidence.target, evidence.ingestd.presence) {
        (Target::Both, _) => "newswire-ingestd and newswire-gateway",
        (Target::Pid, Presence::NotAsked) | (Target::Url, _) => GATEWAY,
        (Target::Pid, _) => INGESTD,
    }
}
