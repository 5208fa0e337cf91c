//! NATS as the wire: what the servers say, and machines on which one of the two processes runs.

use news::Epoch;
use wire::nats::{
    EpochChange, EpochRecord, NatsSurvey, SurveyProblem, SurveyProblemKind, SurveyedFollower, SurveyedServer,
    SurveyedStream,
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
