//! NATS as the wire: what the servers say, and machines on which one of the two processes runs.

use control::watch::TaskWait;
use news::Epoch;
use wire::nats::{
    EpochChange, EpochRecord, MonitoredServer, NatsSurvey, SurveyProblem, SurveyProblemKind,
    SurveyedFollower, SurveyedGroup, SurveyedMember, SurveyedOutbox, SurveyedServer, SurveyedStream,
};

use super::*;
use crate::doctor::settle;

fn server(url: &str, error: Option<&str>) -> SurveyedServer {
    SurveyedServer {
        url: url.into(),
        name: None,
        version: error.is_none().then(|| "2.15.1".into()),
        answered_ms: error.is_none().then_some(1),
        payload_bytes_max: None,
        error: error.map(Into::into),
        is_too_old: false,
    }
}

fn survey() -> NatsSurvey {
    NatsSurvey {
        servers: vec![server("nats://a:4222", None), server("nats://b:4222", None)],
        monitored: Vec::new(),
        stream: Some(SurveyedStream {
            name: "newswire".into(),
            replicas: 3,
            leader: Some("a".into()),
            followers: vec![follower(true, false), follower(true, false)],
            first: 1,
            last: 412,
            messages: 412,
            bytes: 1,
            duplicate_window_ms: 120_000,
            differences: Vec::new(),
        }),
        problem: None,
        epoch: Some(EpochRecord {
            epoch: Epoch::try_new("k3").unwrap(),
            created: "1".into(),
            first: 1,
            began: "2026-01-02T03:04:05Z".into(),
            reason: EpochChange::NewStream,
        }),
        outboxes: Vec::new(),
        groups: Vec::new(),
        readers: Vec::new(),
    }
}

fn follower(is_current: bool, is_offline: bool) -> SurveyedFollower {
    SurveyedFollower { name: "c".into(), is_current, is_offline, behind: 0 }
}

fn concluded(survey: NatsSurvey, change: impl FnOnce(&mut Evidence)) -> DoctorVerdict {
    let mut evidence = Evidence { nats: Part::Found(survey), ..healthy() };
    change(&mut evidence);
    evidence.proof = proof::prove(&evidence);
    let verdict = conclude(&evidence);
    verdict.next.iter().for_each(|step| advice::check(step, &[INGESTD, GATEWAY]));
    verdict
}

fn disconnected(evidence: &mut Evidence) {
    let vitals = &mut evidence.gateway.watch;
    let Part::Found(report) = vitals else { panic!("a report") };
    let Some(ProcessVitals::Gateway(vitals)) = &mut report.vitals else { panic!("of a gateway") };
    let wire = vitals.wire.as_mut().unwrap();
    wire.connected = false;
}

fn problem(kind: SurveyProblemKind) -> Option<SurveyProblem> {
    Some(SurveyProblem { kind, text: "it says so".into() })
}

#[test]
fn with_a_whole_cluster_the_stream_is_proved_and_the_verdict_is_healthy() {
    let verdict = concluded(survey(), |_| {});
    assert_eq!(verdict.code, VerdictCode::Healthy, "{}", verdict.line);
    let other = EpochRecord { epoch: Epoch::try_new("other").unwrap(), ..survey().epoch.unwrap() };
    let verdict = concluded(NatsSurvey { epoch: Some(other), ..survey() }, |_| {});
    assert_eq!(verdict.code, VerdictCode::Unknown, "the gateway serves another epoch: {}", verdict.line);
}

#[test]
fn a_machine_with_one_of_the_two_processes_is_healthy() {
    for is_gateway in [true, false] {
        let verdict = concluded(survey(), |evidence| {
            let daemon = if is_gateway { &mut evidence.ingestd } else { &mut evidence.gateway };
            *daemon = absent(daemon);
            if !is_gateway {
                evidence.http = Part::Found(refused());
                evidence.listener = Part::Found(unheld());
            }
            settle::other_machines(evidence);
        });
        assert_eq!(verdict.code, VerdictCode::Healthy, "gateway {is_gateway}: {}", verdict.line);
    }
    // Neither is here: that is said.
    let verdict = concluded(survey(), |evidence| {
        evidence.ingestd = absent(&evidence.ingestd);
        evidence.gateway = absent(&evidence.gateway);
        evidence.http = Part::Found(refused());
        evidence.listener = Part::Found(unheld());
        settle::other_machines(evidence);
    });
    assert_eq!(verdict.code, VerdictCode::NotRunning, "{}", verdict.line);
}

fn absent(daemon: &DaemonEvidence) -> DaemonEvidence {
    let missing = || "no process".to_owned();
    DaemonEvidence {
        presence: Presence::Absent,
        process: Part::missing(missing()),
        resources: Part::missing(missing()),
        health: Part::missing(missing()),
        watch: Part::missing(missing()),
        watch_later: Part::not_asked(),
        black_box: Part::missing("no such file"),
        stacks: Part::missing(missing()),
        ..daemon.clone()
    }
}

fn unheld() -> ListenerReport {
    ListenerReport { sockets: Vec::new(), ..listener(&[]) }
}

fn refused() -> HttpProbes {
    let mut probes = answers(&[200, 200, 200]);
    for probe in &mut probes.probes {
        (probe.connect_ms, probe.status, probe.health) = (None, None, None);
        probe.error = Some("connection refused".into());
    }
    probes.ready = Part::missing("connection refused");
    probes
}

#[test]
fn what_keeps_nats_from_carrying_events_is_named() {
    let unusable = [
        SurveyProblemKind::WrongServer,
        SurveyProblemKind::NoStream,
        SurveyProblemKind::NoEpoch,
        SurveyProblemKind::DoesNotFit,
        SurveyProblemKind::NoAnswer,
        SurveyProblemKind::Unreadable,
    ];
    for kind in unusable {
        let verdict = concluded(NatsSurvey { problem: problem(kind), ..survey() }, disconnected);
        assert_eq!(verdict.code, VerdictCode::NatsUnusable, "{kind:?}: {}", verdict.line);
        assert!(verdict.line.contains("it says so"), "{}", verdict.line);
    }
    let away = NatsSurvey {
        servers: vec![server("nats://a:4222", Some("refused")), server("tls://[::1]:4223", Some("refused"))],
        problem: problem(SurveyProblemKind::NotConnected),
        stream: None,
        epoch: None,
        ..survey()
    };
    let verdict = concluded(away.clone(), disconnected);
    assert_eq!(verdict.code, VerdictCode::NatsUnreachable, "{}", verdict.line);
    assert!(verdict.next[0].contains("/dev/tcp/a/4222") && verdict.next[1].contains("/dev/tcp/::1/4223"));
    let verdict = concluded(away, |_| {});
    assert_eq!(verdict.code, VerdictCode::NatsDegraded, "the gateway is connected: {}", verdict.line);
}

#[test]
fn a_lost_reserve_is_a_fault_of_its_own() {
    let offline = SurveyedStream { followers: vec![follower(false, true)], ..survey().stream.unwrap() };
    let verdict = concluded(NatsSurvey { stream: Some(offline), ..survey() }, |_| {});
    assert_eq!(
        (verdict.code, verdict.exit()),
        (VerdictCode::NatsDegraded, Exit::Failure),
        "{}",
        verdict.line
    );
    assert!(verdict.line.contains("server c of the stream is offline"), "{}", verdict.line);
    let servers = vec![server("nats://a:4222", None), server("nats://b:4222", Some("refused"))];
    let verdict = concluded(NatsSurvey { servers, ..survey() }, |_| {});
    assert_eq!(verdict.code, VerdictCode::NatsDegraded, "{}", verdict.line);
    assert!(verdict.line.contains("nats://b:4222 does not answer"), "{}", verdict.line);
}

/// What the outbox of the daemon waits for, and how much of its log NATS has.
fn outbox(evidence: &mut Evidence, waits_for: &str, since_ms_ago: u64, queued: u64) {
    let task = TaskWait {
        name: "outbox".into(),
        waits_for: Some(waits_for.into()),
        idle: waits_for != "a confirmation of NATS",
        since_ms_ago,
        steps: 7,
        queued: Some(queued),
        capacity: Some(16_384),
    };
    watched(&mut evidence.ingestd).progress.tasks = vec![task];
}

fn published(through: u64) -> NatsSurvey {
    let outboxes = vec![SurveyedOutbox { daemon: "k3".into(), through }];
    NatsSurvey { outboxes, ..survey() }
}

#[test]
fn publishing_that_lags_is_named_and_is_no_blocked_task() {
    let code = |through, head, waits_for: &'static str, since_ms_ago, queued| {
        let verdict = concluded(published(through), |evidence| {
            ingest_vitals(evidence).head = head;
            outbox(evidence, waits_for, since_ms_ago, queued);
        });
        (verdict.code, verdict.line)
    };
    let confirmation = "a confirmation of NATS";
    let (behind, line) = code(400, 412, confirmation, 12_000, 12);
    assert_eq!(behind, VerdictCode::PublishingBehind, "{line}");
    assert!(line.contains("no confirmation of an event for 12s: 12 of its events"), "{line}");
    // Nothing is late: a confirmation that takes a while, a burst, an outbox that has all.
    for (through, waits_for, since_ms_ago, queued) in
        [(1_388, confirmation, 4_000, 12), (500, confirmation, 100, 900), (1_400, "an event", 3_600_000, 0)]
    {
        let (code, line) = code(through, 1_400, waits_for, since_ms_ago, queued);
        assert_eq!(code, VerdictCode::Healthy, "{through} of 1400: {line}");
    }
    let (slow, line) = code(400, 9_400, confirmation, 3, 9_000);
    assert_eq!(slow, VerdictCode::PublishingBehind, "{line}");
    assert!(line.contains("more slowly than it records: 9000 of its events"), "{line}");
    // While NATS is away, that is the verdict, and no task is held up.
    let away = NatsSurvey { problem: problem(SurveyProblemKind::NoAnswer), ..published(400) };
    let verdict = concluded(away, |evidence| {
        outbox(evidence, "NATS", 600_000, 12);
        disconnected(evidence);
    });
    assert_eq!(verdict.code, VerdictCode::NatsUnusable, "{}", verdict.line);
}

fn member(daemon: &str, list: &str, renewed_ms_ago: Option<u64>) -> SurveyedMember {
    SurveyedMember {
        daemon: daemon.into(),
        machine: Some(format!("machine-{daemon}")),
        list: Some(list.into()),
        listed: 9,
        visited: 4,
        shards: 2048,
        renewed_ms_ago,
    }
}

fn group(members: Vec<SurveyedMember>) -> NatsSurvey {
    let group = SurveyedGroup { name: "main".into(), members, free: 0, changed_ms_ago: Some(90_000) };
    NatsSurvey { groups: vec![group], ..survey() }
}

#[test]
fn shards_that_no_daemon_visits_and_lists_that_differ_are_faults() {
    let both = group(vec![member("a", "1", Some(900)), member("b", "1", Some(1_900))]);
    assert_eq!(concluded(both, |_| {}).code, VerdictCode::Healthy);
    let gone = group(vec![member("a", "1", Some(900)), member("b", "1", Some(120_000))]);
    let verdict = concluded(gone, |_| {});
    assert_eq!(
        (verdict.code, verdict.exit()),
        (VerdictCode::ShardsUnvisited, Exit::Failure),
        "{}",
        verdict.line
    );
    assert!(verdict.line.contains("2048 of 4096 shards of the group main"), "{}", verdict.line);
    assert!(verdict.line.contains("b on machine-b has not renewed its lease for 2m"), "{}", verdict.line);
    let none = group(vec![member("a", "1", None), member("b", "1", Some(120_000))]);
    let verdict = concluded(none, |_| {});
    assert!(
        verdict.line.contains("4096 of 4096") && verdict.line.contains("no daemon of this group"),
        "{}",
        verdict.line
    );
    let differ = group(vec![member("a", "1", Some(900)), member("b", "2", Some(900))]);
    let verdict = concluded(differ, |_| {});
    assert_eq!(verdict.code, VerdictCode::ListsDiffer, "{}", verdict.line);
    assert!(
        verdict.line.contains("a on machine-a has 9 sources (list 1), b on machine-b has"),
        "{}",
        verdict.line
    );
}

#[test]
fn a_lease_that_nats_does_not_confirm_has_its_cause_there() {
    let pause = |evidence: &mut Evidence| {
        ingest_vitals(evidence).recording_paused = vec![RecordingPauseReport {
            reason: "no-lease".to_owned(),
            since_ms_ago: 9_000,
            detail: "NATS has not confirmed its lease".to_owned(),
        }];
    };
    let away = NatsSurvey { problem: problem(SurveyProblemKind::NoAnswer), ..survey() };
    let verdict = concluded(away, |evidence| {
        pause(evidence);
        disconnected(evidence);
    });
    assert_eq!(verdict.code, VerdictCode::NatsUnusable, "{}", verdict.line);
    assert_eq!(concluded(survey(), pause).code, VerdictCode::RecordingPaused);
}

/// The report about NATS.
fn report(survey: NatsSurvey) -> String {
    let evidence = Evidence { nats: Part::Found(survey), ..healthy() };
    let paint = crate::out::Paint::for_stdout();
    crate::doctor::show::lines(&evidence, &conclude(&evidence), BlackBoxDetail::Asked, paint).join("\n")
}

#[test]
fn the_report_says_what_a_cut_of_power_of_nats_would_cost() {
    let durability = |replicas, sync_interval_ms: Option<u64>| {
        let stream = SurveyedStream { replicas, ..survey().stream.unwrap() };
        let server = |last| MonitoredServer {
            url: "http://a:8222".into(),
            name: Some("a".into()),
            sync_interval_ms,
            last: Some(last),
            ..MonitoredServer::default()
        };
        let monitored = if sync_interval_ms.is_some() { vec![server(412), server(400)] } else { Vec::new() };
        report(NatsSurvey { monitored, stream: Some(stream), ..survey() })
    };
    assert!(durability(1, None).contains("was not asked: set wire.nats_monitor_urls"));
    let risky = durability(1, Some(120_000));
    let line = risky.lines().find(|line| line.contains("durability")).unwrap();
    assert!(
        line.contains("!!") && line.contains("up to 2m") && line.contains("sync_interval: always"),
        "{line}"
    );
    assert!(risky.contains("its copy ends at 400, 12 events behind"), "{risky}");
    let safe = durability(1, Some(0));
    assert!(safe.contains("a cut of power loses no confirmed event"), "{safe}");
    let three = durability(3, Some(120_000));
    let line = three.lines().find(|line| line.contains("durability")).unwrap();
    assert!(!line.contains("!!") && line.contains("takes 2 servers at once"), "{line}");
}

#[test]
fn the_report_says_who_visits_which_part_of_a_shared_list() {
    let page = report(group(vec![member("a", "1", Some(900)), member("b", "2", Some(120_000))]));
    for part in [
        "main: 1 daemons share 4096 shards",
        "2048 that no daemon visits",
        "a on machine-a: lease renewed",
        "2048 shards, visits 4 of 9 sources, list 1",
        "b on machine-b: no lease: it was renewed 2m",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}
