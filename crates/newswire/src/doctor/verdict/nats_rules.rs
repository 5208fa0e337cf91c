//! Rules about NATS, if it is the wire. Each decides by what the servers and the gateway say.

use control::watch::TaskWait;
use wire::nats::{NatsSurvey, SHARDS, SurveyProblemKind, SurveyedMember, SurveyedServer};

use super::{DoctorVerdict, Evidence, VerdictCode, duration, name_and_pid, safe};
use crate::out::whole;

/// Servers and followers that one line names.
const NAMED_MAX: usize = 3;
/// NATS confirms an event within milliseconds, and within seconds on a slow disk.
const UNCONFIRMED_MS: u64 = 10_000;
/// So many events of the log that NATS does not have are more than a burst.
const BEHIND_EVENTS: u64 = 1_000;

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

/// The daemon of this machine is connected, but its events come late.
pub(super) fn publishing_behind(evidence: &Evidence) -> Option<DoctorVerdict> {
    let survey = evidence.nats.get().filter(|survey| survey.problem.is_none())?;
    let daemon = &evidence.ingestd;
    let vitals = daemon.ingest_vitals()?;
    let outbox = daemon.latest()?.progress.tasks.iter().find(|task| is_outbox(task))?;
    let through = survey.outboxes.iter().find(|outbox| outbox.daemon == vitals.epoch).map(|o| o.through);
    let behind = through.map_or(0, |through| vitals.head.saturating_sub(through));
    let waits = outbox.waits_for.as_deref() == Some("a confirmation of NATS");
    let stuck = waits && outbox.since_ms_ago >= UNCONFIRMED_MS;
    let has_queue = |report: &control::WatchReport| {
        report
            .progress
            .tasks
            .iter()
            .any(|task| is_outbox(task) && task.queued.is_some_and(|queued| queued > 0))
    };
    if !stuck && !(behind > BEHIND_EVENTS && daemon.reports().all(has_queue)) {
        return None;
    }
    let who = name_and_pid(daemon);
    let mut line = match stuck {
        true => format!(
            "{who} is connected to NATS, but has got no confirmation of an event for {}",
            duration(outbox.since_ms_ago)
        ),
        false => format!("{who} publishes to NATS, but more slowly than it records"),
    };
    if behind > 0 {
        line.push_str(&format!(": {behind} of its events are not there yet"));
    }
    line.push_str("; clients get them late, and none is lost");
    let began = survey.epoch.as_ref().map(|epoch| safe(&epoch.began)).unwrap_or_default();
    let next = [
        "iostat -x 1 5   # on the machines of the NATS servers: each event waits for their disks".to_owned(),
        format!(
            "wait if the epoch is new (it began {began}): then the whole log is published again, and that ends by itself"
        ),
    ];
    Some(DoctorVerdict::new(VerdictCode::PublishingBehind, line, next))
}

fn is_outbox(task: &TaskWait) -> bool {
    task.name == "outbox"
}

/// Sources of a shared list are visited by no daemon, and will not be soon.
pub(super) fn shards_unvisited(evidence: &Evidence) -> Option<DoctorVerdict> {
    let survey = evidence.nats.get()?;
    let group = survey.groups.iter().find(|group| group.unvisited() > 0)?;
    let name = safe(&group.name);
    let gone: Vec<_> = group.members.iter().filter(|member| !member.is_live() && member.shards > 0).collect();
    let why = match (group.live().count(), gone.first()) {
        (0, _) => "no daemon of this group has a lease".to_owned(),
        (_, Some(member)) => format!(
            "{} has not renewed its lease for {}, and the others have not taken its shards",
            named(member),
            member.renewed_ms_ago.map_or_else(|| "long".to_owned(), duration)
        ),
        (live, None) => format!("the {live} daemons of this group do not take them"),
    };
    let line = format!(
        "the sources of {} of {SHARDS} shards of the group {name} are visited by no daemon: {why}",
        group.unvisited()
    );
    let next = [
        format!("start a daemon with ingestd.share_group = {:?} and the same list of sources", group.name),
        "newswire doctor   # on the machine of each daemon of the group: does it run, and has it its lease?"
            .to_owned(),
    ];
    Some(DoctorVerdict::new(VerdictCode::ShardsUnvisited, line, next))
}

/// Daemons that share a list have different ones: a source that only some have may be visited by none.
pub(super) fn lists_differ(evidence: &Evidence) -> Option<DoctorVerdict> {
    let group = evidence.nats.get()?.groups.iter().find(|group| group.lists_differ())?;
    let lists: Vec<_> = group.live().take(NAMED_MAX).map(list_of).collect();
    let line = format!(
        "the daemons of the group {} have different lists of sources: {}; a source that not all have is visited only if one \
         that has it owns its shard",
        safe(&group.name),
        lists.join(", ")
    );
    let next = [
        "read which list is right, and copy it (ingestd.sources, and the files that it includes) to the machines of the others"
            .to_owned(),
        "newswire reload   # on each of these machines, at about the same time".to_owned(),
    ];
    Some(DoctorVerdict::new(VerdictCode::ListsDiffer, line, next))
}

fn list_of(member: &SurveyedMember) -> String {
    let list = member.list.as_deref().map_or_else(|| "unknown".to_owned(), safe);
    format!("{} has {} sources (list {list})", named(member), member.listed)
}

/// `k3v9q2 on machine-a`
fn named(member: &SurveyedMember) -> String {
    let on = member.machine.as_deref().map(|machine| format!(" on {}", safe(machine))).unwrap_or_default();
    format!("{}{on}", safe(&member.daemon))
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
