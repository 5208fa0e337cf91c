//! The section about NATS.

use wire::nats::SurveyedStream;

use super::{ReportWriter, bytes};
use crate::{
    doctor::{evidence::Evidence, part::Part},
    out::safe,
};

/// Readers and outboxes that are listed.
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
    if let Some(problem) = &survey.problem {
        page.problem("stream", &safe(&problem.text));
    }
    if let Some(stream) = &survey.stream {
        show_stream(page, stream);
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
    if stream.replicas == 1 {
        page.normal(
            "durability",
            "one replica: set `sync_interval: always` on the server, or it may lose \
            acknowledged events with its power",
        );
    }
}
