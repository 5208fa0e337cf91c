//! The section about NATS.

use wire::nats::{MonitoredServer, NatsSurvey, SHARDS, SurveyedGroup, SurveyedStream};

use super::{ReportWriter, bytes, duration};
use crate::{
    doctor::{evidence::Evidence, part::Part},
    out::safe,
};

/// A single server that writes to its disk less often is a problem, in milliseconds.
const SYNC_MS_MAX: u64 = 5_000;
/// Servers, readers and outboxes that are listed.
const LISTED_MAX: usize = 8;

pub(super) fn show(page: &mut ReportWriter, evidence: &Evidence) {
    let survey = match &evidence.nats {
        Part::Found(survey) => survey,
        missing if missing.is_missing_because(crate::doctor::part::MissingCause::NotAsked) => return,
        Part::Missing { missing, .. } => {
            page.section("nats");
            return page.missing("servers", missing);
        }
    };
    page.section("nats");
    for server in &survey.servers {
        match (&server.error, &server.version) {
            (Some(error), _) => page.problem("server", &format!("{}: {}", safe(&server.url), safe(error))),
            (None, version) => {
                let version = safe(version.as_deref().unwrap_or("unknown"));
                let took = server.answered_ms.unwrap_or_default();
                let text = format!("{} answers in {took} ms, nats-server {version}", safe(&server.url));
                page.line(server.is_too_old, "server", &text);
            }
        }
    }
    for server in survey.monitored.iter().take(LISTED_MAX) {
        show_monitored(page, survey, server);
    }
    if let Some(problem) = &survey.problem {
        page.problem("stream", &safe(&problem.text));
    }
    if let Some(stream) = &survey.stream {
        show_stream(page, stream);
        show_durability(page, survey, stream);
    }
    if let Some(epoch) = &survey.epoch {
        let text = format!("{} since {} ({})", epoch.epoch, safe(&epoch.began), epoch.reason.as_str());
        page.normal("epoch", &text);
    }
    for outbox in survey.outboxes.iter().take(LISTED_MAX) {
        page.normal(
            "daemon",
            &format!("{} has published its events up to {}", safe(&outbox.daemon), outbox.through),
        );
    }
    for group in survey.groups.iter().take(LISTED_MAX) {
        show_group(page, group);
    }
    for reader in survey.readers.iter().take(LISTED_MAX) {
        let description = reader.description.as_deref().unwrap_or(&reader.name);
        page.normal("reader", &format!("{}: {} events behind", safe(description), reader.behind));
    }
}

fn show_stream(page: &mut ReportWriter, stream: &SurveyedStream) {
    let leader = stream.leader.as_ref().map(|leader| format!(", led by {}", safe(leader)));
    let text = format!(
        "{}: events {} to {}, {}, replicas {}{}, duplicate window {} s",
        safe(&stream.name),
        stream.first,
        stream.last,
        bytes(stream.bytes),
        stream.replicas,
        leader.unwrap_or_default(),
        stream.duplicate_window_ms / 1000
    );
    page.normal("stream", &text);
    for follower in &stream.followers {
        let state = match (follower.is_offline, follower.is_current) {
            (true, _) => "offline",
            (false, true) => "current",
            (false, false) => "behind",
        };
        let is_problem = follower.is_offline || !follower.is_current;
        page.line(
            is_problem,
            "follower",
            &format!("{}: {state}, {} behind", safe(&follower.name), follower.behind),
        );
    }
    for difference in &stream.differences {
        page.normal("differs", &safe(difference));
    }
}

/// Who visits which part of a shared list.
fn show_group(page: &mut ReportWriter, group: &SurveyedGroup) {
    let (live, unvisited) = (group.live().count(), group.unvisited());
    let differ = if group.lists_differ() { ", whose lists of sources differ" } else { "" };
    let text = format!(
        "{}: {live} daemons share {SHARDS} shards{differ}; {} free, {unvisited} that no daemon visits",
        safe(&group.name),
        group.free
    );
    page.line(unvisited > 0 || group.lists_differ(), "group", &text);
    for member in group.members.iter().take(LISTED_MAX) {
        let lease = match member.renewed_ms_ago {
            Some(ms) if member.is_live() => format!("lease renewed {} ago", duration(ms)),
            Some(ms) => format!("no lease: it was renewed {} ago", duration(ms)),
            None => "no lease".to_owned(),
        };
        let text = format!(
            "{} on {}: {lease}, {} shards, visits {} of {} sources, list {}",
            safe(&member.daemon),
            safe(member.machine.as_deref().unwrap_or("an unknown machine")),
            member.shards,
            member.visited,
            member.listed,
            safe(member.list.as_deref().unwrap_or("unknown"))
        );
        page.line(!member.is_live(), "member", &text);
    }
}

/// What a server says of itself at its monitoring address.
fn show_monitored(page: &mut ReportWriter, survey: &NatsSurvey, server: &MonitoredServer) {
    if let Some(error) = &server.error {
        page.problem("monitor", &format!("{}: {}", safe(&server.url), safe(error)));
    }
    let Some(name) = &server.name else { return };
    let written = match server.sync_interval_ms {
        Some(0) => "confirms what is on its disk".to_owned(),
        Some(ms) => format!("writes to its disk every {}", duration(ms)),
        None => "does not say when it writes to its disk".to_owned(),
    };
    let of = |used: Option<u64>, max: Option<u64>| Some(format!("{} of {}", bytes(used?), bytes(max?)));
    let disk = of(server.disk_bytes, server.disk_bytes_max).unwrap_or_else(|| "unknown".to_owned());
    let reserved =
        server.disk_bytes_reserved.map_or_else(String::new, |b| format!(", {} reserved", bytes(b)));
    let copy = match (server.last, &survey.stream) {
        (Some(last), Some(stream)) if stream.last > last => {
            format!("; its copy ends at {last}, {} events behind", stream.last - last)
        }
        (Some(last), _) => format!("; its copy ends at {last}"),
        (None, _) => "; it has no copy of the stream".to_owned(),
    };
    page.normal("monitor", &format!("{} {written}; disk {disk}{reserved}{copy}", safe(name)));
}

/// What a cut of power may cost.
fn show_durability(page: &mut ReportWriter, survey: &NatsSurvey, stream: &SurveyedStream) {
    let longest = survey.monitored.iter().filter_map(|server| server.sync_interval_ms).max();
    let Some(ms) = longest else {
        return page.normal(
            "durability",
            "when the servers write to their disks was not asked: set wire.nats_monitor_urls to their monitoring addresses",
        );
    };
    let lost = "clients would be told reset, and daemons publish again what their logs have";
    match stream.replicas {
        _ if ms == 0 => page.normal("durability", "a cut of power loses no confirmed event"),
        1 => page.line(
            ms > SYNC_MS_MAX,
            "durability",
            &format!(
                "one replica: a cut of power loses up to {} of confirmed events; {lost}. Set `sync_interval: always` in the \
                 section jetstream of nats-server",
                duration(ms)
            ),
        ),
        replicas => page.normal(
            "durability",
            &format!(
                "{replicas} replicas: a cut of power loses up to {} of confirmed events if it takes {} servers at once; \
                 {lost}. If they have one power supply, set `sync_interval: always`",
                duration(ms),
                replicas / 2 + 1
            ),
        ),
    }
}
