//! Rules about NATS, if it is the wire. Each decides by what the servers and the gateway say.

use wire::nats::{NatsSurvey, SurveyProblemKind, SurveyedServer};

use super::{DoctorVerdict, Evidence, VerdictCode, safe};
use crate::out::whole;

/// Servers and followers that one line names.
const NAMED_MAX: usize = 3;

/// The stream cannot be used: no server answers, or what they have does not fit.
pub(super) fn nats_unusable(evidence: &Evidence) -> Option<DoctorVerdict> {
    let survey = evidence.nats.get()?;
    let problem = survey.problem.as_ref()?;
    let text = whole(&problem.text);
    if problem.kind == SurveyProblemKind::NotConnected {
        // The gateway is connected: then the fault is between this tool and the servers.
        if is_heard(evidence) {
            return None;
        }
        let line = format!("no server of wire.nats_urls answers: {text}{}", clients_stay(evidence));
        return Some(DoctorVerdict::new(VerdictCode::NatsUnreachable, line, reach(survey)));
    }
    let next = match problem.kind {
        SurveyProblemKind::NoStream | SurveyProblemKind::NoEpoch => {
            "newswire doctor   # on the machine of an ingestion daemon: does it run, and reach NATS?".to_owned()
        }
        SurveyProblemKind::NoAnswer => {
            "start the servers of the NATS cluster that do not run; more than half of those that keep the stream must"
                .to_owned()
        }
        _ => "read deploy/OPERATIONS.md, section NATS".to_owned(),
    };
    let line = format!("NATS cannot carry events: {text}{}", clients_stay(evidence));
    Some(DoctorVerdict::new(VerdictCode::NatsUnusable, line, [next]))
}

/// It works, but the next failure may stop it.
pub(super) fn nats_degraded(evidence: &Evidence) -> Option<DoctorVerdict> {
    let survey = evidence.nats.get()?;
    let silent: Vec<_> = survey.servers.iter().filter(|server| server.error.is_some()).collect();
    let followers = survey.stream.iter().flat_map(|stream| &stream.followers);
    let away: Vec<_> = followers.filter(|follower| follower.is_offline || !follower.is_current).collect();
    if silent.is_empty() && away.is_empty() {
        return None;
    }
    let mut facts: Vec<_> = away
        .iter()
        .take(NAMED_MAX)
        .map(|follower| {
            let state = if follower.is_offline { "is offline" } else { "is behind" };
            format!(
                "server {} of the stream {state} ({} operations behind)",
                safe(&follower.name),
                follower.behind
            )
        })
        .collect();
    facts
        .extend(silent.iter().take(NAMED_MAX).map(|server| format!("{} does not answer", safe(&server.url))));
    let line = format!("events flow, but NATS has lost its reserve: {}", facts.join("; "));
    let mut next = reach(survey);
    next.push("look at the log of that nats-server; the stream catches up by itself once it runs".to_owned());
    Some(DoctorVerdict::new(VerdictCode::NatsDegraded, line, next))
}

fn is_heard(evidence: &Evidence) -> bool {
    let wire = evidence.gateway.gateway_vitals().and_then(|vitals| vitals.wire.as_ref());
    wire.is_some_and(|wire| wire.connected)
}

fn clients_stay(evidence: &Evidence) -> &'static str {
    match evidence.gateway.is_running() {
        true => "; clients of this gateway stay connected and get what was missed once it works again",
        false => "",
    }
}

/// How to look at the servers that do not answer.
fn reach(survey: &NatsSurvey) -> Vec<String> {
    let silent = survey.servers.iter().filter(|server| server.error.is_some());
    silent.take(NAMED_MAX).map(look_at).collect()
}

fn look_at(server: &SurveyedServer) -> String {
    let address = server.url.rsplit(['@', '/']).next().unwrap_or_default();
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "4222"));
    let host = host.trim_matches(['[', ']']);
    format!(
        "timeout 3 bash -c {}   # can it be reached from here? If not: does nats-server run there?",
        super::next::quoted(&format!("echo > /dev/tcp/{host}/{port}"))
    )
}
