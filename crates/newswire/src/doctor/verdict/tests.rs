//! Each verdict from made-up evidence, and which one takes precedence if two would fit.

mod watching;

use control::{
    GatewayVitals, HealthReport, IngestVitals, ProcessIdentity, ProcessVitals, WatchReport,
    watch::{
        LoopReport, ProgressReport, RecordingPauseReport, SourcesReport, TaskReport, WatchKind,
        WatchdogReport, WireReport,
    },
};
use serde_json::{Value, json};

mod advice;
use super::resource_tests::resources;
#[path = "chain_tests.rs"]
mod chain_tests;
mod nats;

use super::*;
use crate::doctor::{
    admin::LateLoop,
    evidence::{Configured, Disk, OtherProcess},
    http::{HttpProbe, HttpProbes, PublicHealth, Ready, ReadyWire},
    listener::{ListenerReport, Owner, Socket},
    log_end::{LogEnd, LogEndKind, LogEndReader},
    part::{MissingCause, Part},
    process::{ProcessSample, Task, Usage},
    resources::{
        ProcessResources, file_system::StoreFileSystem, freezer::FrozenGroup, group_tree::GroupVersion,
        pressure::Pressures, store_placement::StorePlacement,
    },
    show::BlackBoxDetail,
    started_as::StartedAs,
    systemd::SystemdUnit,
    threads::{ExaminedThread, Stacks},
    waits::{LockKind, WaitAccess, WaitChain},
};

const INGESTD: i32 = 100;
const GATEWAY: i32 = 200;

/// Both processes run without any problem.
pub(super) fn healthy() -> Evidence {
    let loops =
        vec![beating("worker-0", WatchKind::Worker, 201, 40), beating("pool", WatchKind::Pool, 0, 400)];
    let vitals = json!({
        "listen": "127.0.0.1:8700", "inherited": false, "clients": 3, "draining": false, "ring": null,
        "wire": {"connected": true, "reason": null, "heard_ms_ago": 900, "cursor": "k3-412"},
        "open_files": {"used": 20, "max": 1024}
    });
    let gateway = watch("newswire-gateway", GATEWAY, loops, vitals);
    let loops = vec![
        beating("arbiter", WatchKind::Arbiter, 101, 40),
        beating("recorder", WatchKind::Recorder, 102, 0),
    ];
    let vitals = json!({
        "epoch": "k3", "oldest": 1, "head": 412, "wire": {"subscribers": 1, "sent": "k3-412"},
        "actors": {"idle": 10, "fetching": 1}, "busiest": [], "overdue": 0, "outage": false,
        "store": {"path": "/d", "bytes": 1, "free_bytes": 1u64 << 40, "last_commit_took_ms": 4,
                  "last_commit_ms_ago": 100, "committing_ms": null, "queued": 0},
        "open_files": {"used": 20, "max": 1024}
    });
    let ingestd = watch("newswire-ingestd", INGESTD, loops, vitals);
    Evidence {
        at: "2026-01-02T03:04:05Z".into(),
        took_ms: 400,
        version: "1",
        is_root: true,
        quick: false,
        target: Target::Both,
        configured: Configured {
            listen: Some("127.0.0.1:8700".parse().unwrap()),
            store: Some("/d".into()),
            ..Configured::default()
        },
        run_dir_group: Some("newswire".into()),
        proof: Vec::new(),
        config: Some("/etc/newswire/newswire.toml".into()),
        run_dir: "/run/newswire".into(),
        http: Part::Found(answers(&[200, 200, 200])),
        listener: Part::Found(listener(&[(GATEWAY, "newswire-gatewa")])),
        ingestd: daemon("newswire-ingestd", INGESTD, ingestd),
        gateway: daemon("newswire-gateway", GATEWAY, gateway),
        store: Part::Found(Disk {
            path: "/d".into(),
            free_bytes: 1 << 40,
            total_bytes: 1 << 41,
            free_inodes: Some(1000),
        }),
        file_system: Part::Found(StoreFileSystem::default()),
        store_place: Part::Found(StorePlacement::InPlace),
        other_gateways: Vec::new(),
        nats: Part::not_asked(),
        pressure: Part::Found(Pressures::default()),
        waits: Part::Found(Vec::new()),
    }
}

pub(super) fn beating(name: &str, kind: WatchKind, tid: i32, beat_ms_ago: u64) -> LoopReport {
    LoopReport {
        name: name.into(),
        kind,
        tid,
        beat_ms_ago,
        lag_ms: 0,
        lag_ms_max: 0,
        stalled: false,
        work: None,
    }
}

fn identity(name: &str, pid: i32) -> ProcessIdentity {
    ProcessIdentity { name: name.into(), version: env!("CARGO_PKG_VERSION").into(), pid }
}

fn watch(name: &str, pid: i32, loops: Vec<LoopReport>, vitals: Value) -> WatchReport {
    let progress = ProgressReport {
        loops,
        watchdog: Some(WatchdogReport { tid: pid + 50, looked_ms_ago: 120, sampling: false }),
        ..ProgressReport::default()
    };
    let vitals = serde_json::from_value(vitals).unwrap();
    WatchReport { process: identity(name, pid), uptime_ms: 3_600_000, progress, vitals: Some(vitals) }
}

fn answers(statuses: &[u16; 3]) -> HttpProbes {
    let paths = ["/", "/health", "/ready"];
    let probe = |(path, status): (&'static str, &u16)| HttpProbe {
        path,
        connect_ms: Some(0.1),
        first_byte_ms: Some(0.4),
        status: Some(*status),
        error: None,
        timed_out: false,
        health: (path == "/health").then(|| PublicHealth {
            status: "ok".into(),
            name: "newswire-gateway".into(),
            version: "1".into(),
            pid: Some(GATEWAY),
            uptime_s: 3_600,
        }),
    };
    let wire = ReadyWire { connected: Some(true), heartbeat_age_ms: Some(900) };
    let ready = Ready { ready: true, wire, ..Ready::default() };
    HttpProbes {
        address: "127.0.0.1:8700".into(),
        probes: paths.into_iter().zip(statuses).map(probe).collect(),
        ready: Part::Found(ready),
    }
}

/// Probes without an answer: refused at once, or connected and timed out.
fn failed(error: &str, timed_out: bool) -> Part<HttpProbes> {
    let mut answers = answers(&[0, 0, 0]);
    for probe in &mut answers.probes {
        *probe = HttpProbe {
            path: probe.path,
            connect_ms: timed_out.then_some(0.1),
            error: Some(error.into()),
            timed_out,
            ..HttpProbe::default()
        };
    }
    answers.ready = Part::missing(error);
    Part::Found(answers)
}

fn unanswered() -> Part<HttpProbes> {
    failed("no answer within 5s", true)
}

pub(super) fn refused() -> Part<HttpProbes> {
    failed("Connection refused", false)
}

fn listener(owners: &[(i32, &str)]) -> ListenerReport {
    let owners = owners.iter().map(|(pid, name)| Owner {
        pid: *pid,
        name: (*name).into(),
        command: format!("/usr/bin/{name}"),
        uptime_ms: 3_600_000,
        program: name.starts_with("newswire-gatewa").then_some("newswire-gateway"),
    });
    let socket =
        Socket { inode: 7, address: "127.0.0.1:8700".into(), owners: owners.collect(), ..Socket::default() };
    ListenerReport { address: "127.0.0.1:8700".into(), sockets: vec![socket], blind_to: 0 }
}

fn daemon(name: &'static str, pid: i32, watch: WatchReport) -> DaemonEvidence {
    DaemonEvidence {
        name,
        presence: Presence::Running,
        found_by: "listens on its socket".into(),
        socket: "/run/newswire/x.sock".into(),
        process: Part::Found(ProcessSample {
            pid,
            state: 'S',
            threads: 9,
            uptime_ms: 3_600_000,
            sampled_ms: 300,
            open_files: Some(Usage { used: 20, max: 1024 }),
            ..ProcessSample::default()
        }),
        resources: Part::Found(ProcessResources { sampled_ms: 1_000, ..ProcessResources::default() }),
        health: Part::Found(HealthReport {
            process: identity(name, pid),
            uptime_ms: 3_600_000,
            status: "ok".into(),
        }),
        watch: Part::Found(watch),
        watch_later: Part::not_asked(),
        watched_for_ms: 0,
        watchdog_ran: Some(true),
        late: Vec::new(),
        unit: Part::missing("no systemd"),
        stacks: Part::not_asked(),
        black_box: Part::not_asked(),
        log_end: Part::not_asked(),
        others: Vec::new(),
        foreign: None,
        denied: false,
        may_end: true,
        started: StartedAs {
            command: [&*format!("/usr/bin/{name}"), "--config", "/etc/newswire/newswire.toml"]
                .map(str::to_owned)
                .to_vec(),
            ..StartedAs::default()
        },
    }
}

pub(super) fn kill(daemon: &mut DaemonEvidence) {
    daemon.presence = Presence::Absent;
    daemon.found_by = "no process listens on x.sock: a killed process left it behind".into();
    (daemon.process, daemon.health, daemon.watch) =
        (Part::missing("no process"), Part::missing("no process"), Part::missing("no process"));
}

pub(super) fn process(daemon: &mut DaemonEvidence) -> &mut ProcessSample {
    match &mut daemon.process {
        Part::Found(process) => process,
        Part::Missing { .. } => panic!("it is not running"),
    }
}

pub(super) fn watched(daemon: &mut DaemonEvidence) -> &mut WatchReport {
    match &mut daemon.watch {
        Part::Found(watch) => watch,
        Part::Missing { .. } => panic!("it is not watched"),
    }
}

fn gateway_vitals(evidence: &mut Evidence) -> &mut GatewayVitals {
    match watched(&mut evidence.gateway).vitals.as_mut().unwrap() {
        ProcessVitals::Gateway(vitals) => vitals,
        ProcessVitals::Ingest(_) => panic!("it is not a gateway"),
    }
}

pub(super) fn wire(evidence: &mut Evidence) -> &mut WireReport {
    gateway_vitals(evidence).wire.as_mut().unwrap()
}

pub(super) fn ingest_vitals(evidence: &mut Evidence) -> &mut IngestVitals {
    match watched(&mut evidence.ingestd).vitals.as_mut().unwrap() {
        ProcessVitals::Ingest(vitals) => vitals,
        ProcessVitals::Gateway(_) => panic!("it is not an ingestion daemon"),
    }
}

pub(super) fn sources(evidence: &mut Evidence) -> &mut SourcesReport {
    ingest_vitals(evidence).sources.as_mut().unwrap()
}

/// SIGSTOP: it runs and does not answer.
pub(super) fn stop(daemon: &mut DaemonEvidence) {
    let process = process(daemon);
    (process.state, process.stopped) = ('T', true);
    daemon.health = Part::timed_out("no answer within 2s");
    daemon.watch = Part::timed_out("no answer within 2s");
}

pub(super) fn stall(daemon: &mut DaemonEvidence, name: &str, ms: u64) {
    let stalled = watched(daemon).progress.loops.iter_mut().find(|l| l.name == name).unwrap();
    (stalled.stalled, stalled.beat_ms_ago) = (true, ms);
}

/// One thread that is at work.
pub(super) fn stacks(tid: i32, name: &str, culprit: &str) -> Stacks {
    let thread =
        json!({"tid": tid, "name": name, "state": "S", "wchan": null, "frames": [], "missing": null});
    Stacks {
        from: "outside",
        took_ms: 1,
        longest_pause_ms: 0,
        threads: vec![ExaminedThread {
            thread: serde_json::from_value(thread).unwrap(),
            idle: false,
            stalled: false,
            loop_name: None,
            work: None,
            culprit: Some(culprit.into()),
        }],
    }
}

fn ready(evidence: &mut Evidence, ready: bool, reasons: &[&str]) {
    let Part::Found(answers) = &mut evidence.http else { panic!("it was probed") };
    answers.ready = Part::Found(Ready {
        ready,
        reasons: reasons.iter().map(|r| (*r).to_owned()).collect(),
        ..Ready::default()
    });
}

#[track_caller]
pub(super) fn expect(evidence: &Evidence, code: VerdictCode, words: &[&str]) -> DoctorVerdict {
    let verdict = conclude(evidence);
    assert_eq!(verdict.code, code, "{verdict:?}");
    for word in words {
        assert!(verdict.line.contains(word), "{word:?} is not in {:?}", verdict.line);
    }
    assert!(code == VerdictCode::Healthy || !verdict.next.is_empty(), "{verdict:?}");
    verdict.next.iter().for_each(|step| advice::check(step, &[INGESTD, GATEWAY]));
    assert!(!verdict.line.contains('\n') && verdict.next.iter().all(|step| !step.contains('\n')));
    verdict
}

#[test]
fn only_healthy_and_slow_feeds_are_no_failure() {
    expect(&healthy(), VerdictCode::Healthy, &["newswire-ingestd and newswire-gateway run"]);
    assert_eq!((VerdictCode::Healthy.exit(), VerdictCode::SlowFeeds.exit()), (Exit::Ok, Exit::Ok));
    assert_eq!(
        (VerdictCode::WireCut.exit(), VerdictCode::ClockJumped.exit()),
        (Exit::Failure, Exit::Failure)
    );
}

#[test]
fn codes_are_the_same_in_json_and_text() {
    for code in [
        VerdictCode::Healthy,
        VerdictCode::SlowFeeds,
        VerdictCode::EventLoopBlocked,
        VerdictCode::DaemonStale,
        VerdictCode::OrphanListener,
    ] {
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
    let verdict = serde_json::to_value(conclude(&healthy())).unwrap();
    assert_eq!((&verdict["code"], &verdict["exit"]), (&json!("healthy"), &json!(0)));
}

#[test]
fn a_blocked_loop_is_reported_with_function_task_and_time() {
    let mut e = healthy();
    stall(&mut e.gateway, "worker-0", 12_000);
    let watch = &mut watched(&mut e.gateway).progress;
    watch.loops[0].work =
        Some(TaskReport { what: "GET /news".into(), of: "127.0.0.1:5".into(), since_ms_ago: 12_100 });
    watch.stalls = serde_json::from_value(json!([
        {"loop": "worker-0", "kind": "worker", "tid": 201, "began_ms_ago": 12_000, "lasted_ms": null, "work": null,
         "culprit": "gateway::x at crates/gateway/src/x.rs:12"},
        {"loop": "worker-0", "kind": "worker", "tid": 201, "began_ms_ago": 90_000, "lasted_ms": 5, "work": null,
         "culprit": "old"}
    ]))
    .unwrap();
    let words = [
        "worker-0 of newswire-gateway (pid 200)",
        "12s",
        "gateway::x at crates/gateway/src/x.rs:12",
        "GET /news of 127.0.0.1:5",
    ];
    let verdict = expect(&e, VerdictCode::EventLoopBlocked, &words);
    assert!(verdict.next.iter().any(|step| step.contains("kill -9 200")), "{:?}", verdict.next);
}

#[test]
fn without_a_report_of_the_watchdog_the_stack_names_the_function() {
    let mut e = healthy();
    stall(&mut e.ingestd, "arbiter", 3_000);
    let thread = serde_json::from_value(json!(
        {"tid": 101, "name": "arbiter", "state": "S", "wchan": null, "frames": [], "missing": null}
    ));
    e.ingestd.stacks = Part::Found(Stacks {
        from: "outside",
        took_ms: 1,
        longest_pause_ms: 0,
        threads: vec![ExaminedThread {
            thread: thread.unwrap(),
            idle: false,
            stalled: true,
            loop_name: None,
            work: None,
            culprit: Some("ingestd::y at y.rs:3".into()),
        }],
    });
    expect(&e, VerdictCode::EventLoopBlocked, &["arbiter of newswire-ingestd", "ingestd::y at y.rs:3"]);
}

#[test]
fn a_blocked_loop_takes_precedence_over_descriptors_and_waiting_clients() {
    let mut e = healthy();
    stall(&mut e.gateway, "worker-0", 60_000);
    process(&mut e.gateway).open_files = Some(Usage { used: 1024, max: 1024 });
    e.http = unanswered();
    expect(&e, VerdictCode::EventLoopBlocked, &["worker-0"]);
}

#[test]
fn a_loop_that_beats_again_is_not_blocked() {
    let mut e = healthy();
    stall(&mut e.ingestd, "arbiter", 46);
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_loop_without_a_processor_is_starved_and_not_blocked() {
    let mut e = healthy();
    stall(&mut e.gateway, "worker-0", 1_500);
    let task = Task { tid: 201, run_delay_ms: 290, ..Task::default() };
    process(&mut e.gateway).tasks.push(task);
    expect(&e, VerdictCode::WorkerStarved, &["no processor"]);
}

#[test]
fn a_gateway_that_accepts_connections_without_answering_is_blocked_even_if_it_reports_nothing() {
    let mut e = healthy();
    e.gateway.watch = Part::missing("GET /watch: status 404");
    e.http = unanswered();
    expect(&e, VerdictCode::EventLoopBlocked, &["does not answer", "GET /"]);
    // From outside only, too.
    e.gateway.presence = Presence::NotAsked;
    e.ingestd.presence = Presence::NotAsked;
    expect(&e, VerdictCode::EventLoopBlocked, &["does not answer"]);
}

#[test]
fn a_starved_worker_is_explained_by_its_own_work_by_the_machine_or_by_a_wait() {
    let late = |cpu_ms, run_delay_ms| LateLoop {
        name: "worker-0".into(),
        tid: 201,
        looks: 8,
        late: 5,
        worst_ms: 310,
        over_ms: 1_000,
        cpu_ms: Some(cpu_ms),
        run_delay_ms: Some(run_delay_ms),
        work: Some(TaskReport { what: "serving".into(), of: String::new(), since_ms_ago: 5 }),
    };
    let mut e = healthy();
    e.gateway.late = vec![late(900, 10)];
    expect(&e, VerdictCode::WorkerStarved, &["its own work took 900", "serving"]);
    e.gateway.late = vec![late(100, 700)];
    expect(&e, VerdictCode::WorkerStarved, &["the machine had no processor"]);
    e.gateway.late = vec![late(10, 1)];
    expect(&e, VerdictCode::WorkerStarved, &["waits inside its work"]);
    // Two samples of eight are too few.
    e.gateway.late = vec![LateLoop { late: 2, ..late(900, 10) }];
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn an_exhausted_pool_is_reported_with_its_longest_task() {
    let mut e = healthy();
    stall(&mut e.gateway, "pool", 5_000);
    watched(&mut e.gateway).progress.threads = serde_json::from_value(json!([
        {"tid": 9, "name": "b", "work": {"what": "parsing", "of": "bbc", "since_ms_ago": 9000}}
    ]))
    .unwrap();
    expect(&e, VerdictCode::BlockingPoolExhausted, &["1 threads are busy", "parsing of bbc for 9s"]);
}

#[test]
fn a_slow_commit_is_store_slow_unless_the_disk_is_full() {
    let mut e = healthy();
    ingest_vitals(&mut e).store.committing_ms = Some(4_000);
    expect(&e, VerdictCode::StoreSlow, &["4s so far"]);
    stall(&mut e.ingestd, "recorder", 4_500);
    expect(&e, VerdictCode::StoreSlow, &["4.5s so far"]);
    ingest_vitals(&mut e).store.free_bytes = Some(4096);
    expect(&e, VerdictCode::DiskFull, &["/d", "4.0 KiB left"]);
}

#[test]
fn a_recorder_that_works_again_is_not_slow_by_0_ms() {
    let mut e = healthy();
    stall(&mut e.ingestd, "recorder", 0);
    expect(&e, VerdictCode::Healthy, &[]);
    stall(&mut e.ingestd, "recorder", 1_200);
    expect(&e, VerdictCode::StoreSlow, &["1.2s so far"]);
    stall(&mut e.ingestd, "recorder", 0);
    ingest_vitals(&mut e).store.committing_ms = Some(3_000);
    expect(&e, VerdictCode::StoreSlow, &["3s so far"]);
}

#[test]
fn a_slow_commit_is_reported_for_a_minute_after_its_end() {
    let mut e = healthy();
    ingest_vitals(&mut e).store.last_commit_took_ms = Some(6_000);
    expect(&e, VerdictCode::StoreSlow, &["took 6s"]);
    ingest_vitals(&mut e).store.last_commit_ms_ago = Some(100_000);
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_log_that_could_not_be_read_is_reported_for_ten_minutes_and_before_the_wire_that_it_cuts() {
    let mut e = healthy();
    wire(&mut e).connected = false;
    expect(&e, VerdictCode::WireCut, &[]);
    ingest_vitals(&mut e).store.last_read_failure_ms_ago = Some(500_000);
    expect(&e, VerdictCode::LogUnreadable, &["/d", "8m ago", "all others are"]);
    wire(&mut e).connected = true;
    expect(&e, VerdictCode::LogUnreadable, &[]);
    ingest_vitals(&mut e).store.last_read_failure_ms_ago = Some(700_000);
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_full_disk_takes_precedence_over_the_daemon_that_it_ended() {
    let mut e = healthy();
    kill(&mut e.ingestd);
    e.store = Part::Found(Disk { path: "/d".into(), free_bytes: 0, total_bytes: 1 << 30, free_inodes: None });
    expect(&e, VerdictCode::DiskFull, &["newswire-ingestd does not run"]);
    let mut e = healthy();
    e.store = Part::Found(Disk {
        path: "/d".into(),
        free_bytes: 1 << 30,
        total_bytes: 1 << 31,
        free_inodes: Some(0),
    });
    let inodes = expect(&e, VerdictCode::DiskFull, &["no inodes"]);
    assert!(inodes.next[0].starts_with("df -i /d;"), "{inodes:?}");
}

#[test]
fn a_pause_of_recording_is_reported_unless_something_hangs() {
    let mut e = healthy();
    let mut pause = |reason: &str| {
        let (reason, detail) = (reason.to_owned(), "3 of 9 are free".to_owned());
        ingest_vitals(&mut e).recording_paused =
            vec![RecordingPauseReport { reason, since_ms_ago: 9_000, detail }];
        e.clone()
    };
    let full = pause("disk-space");
    expect(
        &full,
        VerdictCode::DiskFull,
        &["recording has been paused for 9s: 3 of 9 are free; what is recorded"],
    );
    let inodes = expect(&pause("disk-inodes"), VerdictCode::DiskFull, &["3 of 9 are free"]);
    assert!(inodes.next[0].starts_with("df -i /d;"), "{inodes:?}");
    expect(&pause("moon-phase"), VerdictCode::RecordingPaused, &["3 of 9 are free"]);
    // The remedy is at the end.
    let long = format!(
        "the store is a copy{}; if this is the original, `newswire log restore`",
        ", and so on".repeat(20)
    );
    let mut copied = healthy();
    ingest_vitals(&mut copied).recording_paused = vec![RecordingPauseReport {
        reason: "store-copied".to_owned(),
        since_ms_ago: 9_000,
        detail: long.clone(),
    }];
    expect(&copied, VerdictCode::RecordingPaused, &[&long]);
    let page = crate::doctor::show::lines(
        &copied,
        &conclude(&copied),
        BlackBoxDetail::Asked,
        crate::out::Paint::for_stdout(),
    )
    .join("\n");
    assert_eq!(page.matches(&long).count(), 2, "{page}");
    let mut hangs = full;
    ingest_vitals(&mut hangs).store.committing_ms = Some(4_000);
    expect(&hangs, VerdictCode::StoreSlow, &["4s so far"]);
}

#[test]
fn descriptors_are_exhausted_from_95_percent() {
    let mut e = healthy();
    process(&mut e.gateway).open_files = Some(Usage { used: 972, max: 1024 });
    expect(&e, VerdictCode::Healthy, &[]);
    process(&mut e.gateway).open_files = Some(Usage { used: 973, max: 1024 });
    // A gateway that cannot accept connections does not answer its clients.
    e.http = unanswered();
    expect(&e, VerdictCode::DescriptorsExhausted, &["973 of 1024"]);
}

#[test]
fn a_stopped_daemon_takes_precedence_over_the_silent_wire() {
    let mut e = healthy();
    stop(&mut e.ingestd);
    wire(&mut e).heard_ms_ago = Some(30_000);
    ready(&mut e, false, &["the ingestion daemon has been silent for 30s"]);
    let verdict = expect(&e, VerdictCode::DaemonStopped, &["pid 100"]);
    assert!(verdict.next[0].starts_with("kill -CONT 100"));
    wire(&mut e).connected = false;
    expect(&e, VerdictCode::DaemonStopped, &[]);
}

#[test]
fn a_frozen_gateway_is_stopped_and_not_dead() {
    let mut e = healthy();
    stop(&mut e.gateway);
    e.http = unanswered();
    expect(&e, VerdictCode::GatewayStopped, &["pid 200", "SIGSTOP"]);
    process(&mut e.gateway).tracer = Some(77);
    let verdict = expect(&e, VerdictCode::HeldByDebugger, &["debugger, pid 77"]);
    assert!(verdict.next[0].starts_with("end the debugger"), "{verdict:?}");
    let mut e = healthy();
    process(&mut e.gateway).frozen = true;
    expect(&e, VerdictCode::GatewayStopped, &["control group"]);
}

#[test]
fn two_stopped_processes_are_reported_in_one_verdict() {
    let mut e = healthy();
    stop(&mut e.gateway);
    stop(&mut e.ingestd);
    let verdict = expect(&e, VerdictCode::GatewayStopped, &["newswire-ingestd is stopped too"]);
    assert_eq!(verdict.next.len(), 2);
}

#[test]
fn a_dead_daemon_takes_precedence_over_the_cut_wire() {
    let mut e = healthy();
    kill(&mut e.ingestd);
    wire(&mut e).connected = false;
    expect(&e, VerdictCode::DaemonDead, &["killed", "still serves"]);
}

#[test]
fn a_dead_gateway_with_a_unit_is_started_with_systemctl() {
    let mut e = healthy();
    kill(&mut e.gateway);
    e.http = refused();
    e.listener =
        Part::Found(ListenerReport { address: "127.0.0.1:8700".into(), ..ListenerReport::default() });
    e.gateway.unit =
        Part::Found(SystemdUnit { id: "newswire-gateway.service".into(), ..SystemdUnit::default() });
    let verdict = expect(&e, VerdictCode::GatewayDead, &["newswire-gateway does not run"]);
    assert!(
        verdict.next.contains(&"systemctl start newswire-gateway.service".to_owned()),
        "{:?}",
        verdict.next
    );
}

#[test]
fn a_socket_that_systemd_holds_for_the_gateway_is_not_an_orphan() {
    let mut e = healthy();
    e.listener = Part::Found(listener(&[(1, "systemd"), (GATEWAY, "newswire-gatewa")]));
    expect(&e, VerdictCode::Healthy, &[]);
    kill(&mut e.gateway);
    e.http = unanswered();
    e.listener = Part::Found(listener(&[(1, "systemd")]));
    expect(&e, VerdictCode::GatewayDead, &[]);
}

#[test]
fn a_process_that_holds_the_port_of_a_dead_gateway_is_named() {
    let mut e = healthy();
    kill(&mut e.gateway);
    e.http = unanswered();
    let mut orphaned = listener(&[(300, "worker")]);
    orphaned.sockets[0].backlog = 5;
    e.listener = Part::Found(orphaned);
    let words =
        ["pid 300 (/usr/bin/worker, running for 60m)", "newswire-gateway does not run", "5 connections"];
    let verdict = expect(&e, VerdictCode::OrphanListener, &words);
    assert!(verdict.next[0].starts_with("ps ") && verdict.next[0].contains("-p 300 "), "{verdict:?}");
    assert!(verdict.next.iter().all(|step| !step.contains("kill")), "{verdict:?}");
    // Neither runs: the other process would prevent a start.
    kill(&mut e.ingestd);
    expect(&e, VerdictCode::OrphanListener, &[]);
}

#[test]
fn an_orphan_listener_is_reported_even_if_its_process_cannot_be_examined() {
    let mut e = healthy();
    kill(&mut e.gateway);
    e.http = unanswered();
    e.listener = Part::Found(ListenerReport { blind_to: 9, ..listener(&[]) });
    expect(&e, VerdictCode::OrphanListener, &["may not examine"]);
}

#[test]
fn a_process_that_shares_the_socket_with_the_gateway_is_not_an_orphan() {
    let mut e = healthy();
    e.listener = Part::Found(listener(&[(300, "worker"), (GATEWAY, "newswire-gatewa")]));
    expect(&e, VerdictCode::Healthy, &[]);
    e.listener = Part::Found(listener(&[(300, "worker")]));
    e.http = unanswered();
    expect(&e, VerdictCode::OrphanListener, &["newswire-gateway (pid 200) does not hold it"]);
}

#[test]
fn if_neither_runs_a_process_of_another_instance_is_suggested() {
    let mut e = healthy();
    kill(&mut e.gateway);
    kill(&mut e.ingestd);
    e.http = refused();
    e.listener = Part::Found(ListenerReport::default());
    e.gateway.others = vec![OtherProcess { pid: 77, command: "newswire-gateway --config b.toml".into() }];
    let verdict = expect(&e, VerdictCode::NotRunning, &["/etc/newswire/newswire.toml"]);
    assert!(verdict.next[0].contains("--pid 77"), "{:?}", verdict.next);
}

#[test]
fn a_cut_wire_between_running_processes_is_reported_with_its_reason() {
    let mut e = healthy();
    let wire = wire(&mut e);
    (wire.connected, wire.reason) = (false, Some("Permission denied".into()));
    expect(&e, VerdictCode::WireCut, &["Permission denied", "although both run"]);
}

#[test]
fn a_running_daemon_with_a_silent_wire_is_stale() {
    let mut e = healthy();
    wire(&mut e).heard_ms_ago = Some(9_000);
    expect(&e, VerdictCode::DaemonStale, &["received nothing from it for 9s"]);
}

#[test]
fn a_daemon_that_visits_no_source_although_many_are_overdue_is_stale() {
    let mut e = healthy();
    let reported = sources(&mut e);
    reported.overdue = 8;
    reported.actors = [("idle".to_owned(), 10)].into();
    expect(&e, VerdictCode::DaemonStale, &["8 of 10 sources are overdue"]);
    sources(&mut e).actors.insert("fetching".into(), 1);
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_process_that_has_just_started_is_neither_cut_nor_dead() {
    let mut e = healthy();
    process(&mut e.ingestd).uptime_ms = 2_000;
    wire(&mut e).connected = false;
    ready(&mut e, false, &["the wire is not connected: not connected yet"]);
    expect(&e, VerdictCode::Healthy, &["newswire-ingestd (pid 100) started 2s ago", "not connected yet"]);
    let mut e = healthy();
    process(&mut e.gateway).uptime_ms = 300;
    e.http = refused();
    e.listener = Part::Found(ListenerReport::default());
    expect(&e, VerdictCode::Healthy, &["started 300ms ago"]);
    process(&mut e.gateway).uptime_ms = 300_000;
    expect(&e, VerdictCode::GatewayDead, &["runs but does not listen"]);
}

#[test]
fn a_draining_gateway_is_healthy() {
    let mut e = healthy();
    gateway_vitals(&mut e).draining = true;
    ready(&mut e, false, &["draining"]);
    expect(&e, VerdictCode::Healthy, &["draining", "3 clients"]);
}

#[test]
fn a_clock_jump_is_reported_for_ten_minutes_unless_there_is_something_worse() {
    let mut e = healthy();
    let clock = &mut watched(&mut e.ingestd).progress.clock;
    (clock.jumps, clock.last_ms, clock.last_ms_ago) = (1, Some(-3_600_000), Some(300_000));
    expect(&e, VerdictCode::ClockJumped, &["back by 60m 5m ago"]);
    watched(&mut e.ingestd).progress.clock.last_ms_ago = Some(700_000);
    expect(&e, VerdictCode::Healthy, &[]);
    watched(&mut e.ingestd).progress.clock.last_ms_ago = Some(1_000);
    stall(&mut e.gateway, "worker-0", 2_000);
    expect(&e, VerdictCode::EventLoopBlocked, &[]);
}

#[test]
fn slow_feeds_are_not_a_hang() {
    let mut e = healthy();
    let busiest = json!([
        {"source": "bbc", "activity": "fetching", "since_ms_ago": 25_000, "waiting_for": null},
        {"source": "host", "activity": "waiting", "since_ms_ago": 26_000, "waiting_for": "its host"},
        {"source": "dw", "activity": "fetching", "since_ms_ago": 6_000, "waiting_for": null},
        {"source": "quick", "activity": "fetching", "since_ms_ago": 600, "waiting_for": null}
    ]);
    sources(&mut e).busiest = serde_json::from_value(busiest).unwrap();
    expect(&e, VerdictCode::SlowFeeds, &["no hang: 2 feeds are slow, the slowest bbc for 25s"]);
    ingest_vitals(&mut e).outage = true;
    expect(&e, VerdictCode::FeedsFailing, &["network"]);
    stall(&mut e.ingestd, "arbiter", 2_000);
    expect(&e, VerdictCode::EventLoopBlocked, &[]);
}

/// This user may not enter the directory of the sockets.
fn hide(daemon: &mut DaemonEvidence) {
    kill(daemon);
    daemon.presence = Presence::Unknown;
    daemon.found_by = "gateway-admin.sock: Permission denied".into();
    let denied = || Part::Missing { missing: "no permission to connect".into(), cause: MissingCause::Denied };
    (daemon.health, daemon.denied, daemon.may_end) = (denied(), true, false);
    daemon.watch = Part::Missing { missing: "no permission to connect".into(), cause: MissingCause::Denied };
}

#[test]
fn a_user_who_may_look_at_nothing_is_told_what_would_let_him_and_not_that_all_is_well() {
    let mut e = healthy();
    hide(&mut e.ingestd);
    hide(&mut e.gateway);
    e.listener = Part::Found(ListenerReport { blind_to: 9, ..listener(&[]) });
    let verdict =
        expect(&e, VerdictCode::Unknown, &["a newswire-gateway answers", "no permission to connect"]);
    assert_eq!(verdict.exit(), Exit::Unknown);
    let rights = &verdict.next[0];
    assert!(rights.contains("sudo newswire doctor") && rights.contains("usermod -aG newswire"), "{rights}");
    e.run_dir_group = None;
    assert!(!conclude(&e).next[0].contains("usermod"), "no group may enter");
    // What every user may see is a fault all the same.
    ready(&mut e, false, &["the wire is not connected: x"]);
    let Part::Found(answers) = &mut e.http else { panic!() };
    let Part::Found(ready) = &mut answers.ready else { panic!() };
    ready.wire.connected = Some(false);
    expect(&e, VerdictCode::WireCut, &["cannot see whether newswire-ingestd runs"]);
}

#[test]
fn a_command_of_newswire_names_the_configuration_that_was_examined() {
    let mut e = healthy();
    e.config = Some("/srv/wire#1.toml".into());
    stall(&mut e.gateway, "worker-0", 4_000);
    let verdict = expect(&e, VerdictCode::EventLoopBlocked, &[]);
    assert!(
        verdict.next[0].starts_with("newswire bundle --since 30m --config '/srv/wire#1.toml'   # first"),
        "{verdict:?}"
    );
    // Of one process, its own.
    e.target = Target::Pid;
    e.ingestd.presence = Presence::NotAsked;
    e.ingestd.process = Part::not_asked();
    let verdict = expect(&e, VerdictCode::EventLoopBlocked, &[]);
    assert!(verdict.next[0].contains("--config /etc/newswire/newswire.toml"), "{verdict:?}");
}

#[test]
fn where_no_systemd_started_a_process_it_is_started_as_it_was() {
    let mut e = healthy();
    stall(&mut e.gateway, "worker-0", 4_000);
    let step = |e: &Evidence| conclude(e).next.swap_remove(1);
    let start = "/usr/bin/newswire-gateway --config /etc/newswire/newswire.toml";
    assert!(
        step(&e).starts_with(&format!("kill -9 200; tail --pid=200 -f /dev/null; {start}   #")),
        "{}",
        step(&e)
    );
    e.gateway.started.folder = Some("/srv/a b".into());
    assert!(step(&e).contains(&format!("; (cd '/srv/a b' && {start})   #")), "{}", step(&e));
    e.gateway.started.folder = None;
    e.gateway.started.user = Some("wire".into());
    assert!(step(&e).contains(&format!("; runuser -u wire -- {start}   #")), "{}", step(&e));
    e.gateway.may_end = false;
    let denied = step(&e);
    assert!(
        denied.starts_with("sudo kill") && denied.contains(&format!("; sudo -u wire {start}   #")),
        "{denied}"
    );
    e.gateway.started.variables = vec!["NEWSWIRE_LOG__LEVEL".into()];
    assert!(step(&e).contains("set NEWSWIRE_LOG__LEVEL as before"), "{}", step(&e));
    e.gateway.started.parent = Some(OtherProcess { pid: 9, command: "newswire".into() });
    e.gateway.started.by_up = true;
    assert_eq!(step(&e), "sudo kill -9 200   # newswire up (pid 9) then starts it again");
}

#[test]
fn what_only_root_may_do_is_told_to_others_with_sudo() {
    let mut e = healthy();
    (e.is_root, e.gateway.may_end) = (false, false);
    process(&mut e.gateway).frozen = true;
    resources(&mut e.gateway).frozen =
        Some(FrozenGroup { group: "/sys/fs/cgroup/a b".into(), version: GroupVersion::V2 });
    let verdict = expect(&e, VerdictCode::GatewayStopped, &[]);
    // What follows `>` is opened by the shell of the user.
    assert!(
        verdict.next[0].starts_with("echo 0 | sudo tee '/sys/fs/cgroup/a b/cgroup.freeze'   #"),
        "{verdict:?}"
    );
    let mut e = healthy();
    (e.is_root, e.gateway.may_end) = (false, false);
    process(&mut e.gateway).open_files = Some(Usage { used: 1_024, max: 1_024 });
    process(&mut e.gateway).open_files_hard_max = Some(4_096);
    let verdict = expect(&e, VerdictCode::DescriptorsExhausted, &[]);
    assert!(
        verdict.next[0].starts_with("sudo ls") && verdict.next[1].starts_with("sudo prlimit"),
        "{verdict:?}"
    );
}

/// The parts of the proof that are unknown.
fn unknown(evidence: &Evidence) -> Vec<&'static str> {
    let entries = proof::prove(evidence).into_iter().filter(|entry| entry.is_unknown());
    entries
        .inspect(|entry| assert!(entry.remedy.is_some(), "{entry:?}"))
        .map(|entry| entry.part.as_str())
        .collect()
}

/// Its watchdog does not run, and the report is too old to say so.
fn stop_watchdog(daemon: &mut DaemonEvidence) {
    watched(daemon).progress.watchdog = None;
    daemon.watchdog_ran = Some(false);
}

#[track_caller]
fn expect_unknown(evidence: &Evidence, parts: &[&str], words: &[&str]) {
    assert_eq!(unknown(evidence), parts);
    expect(evidence, VerdictCode::Unknown, words);
}

#[test]
fn each_missing_part_of_the_proof_makes_the_verdict_unknown() {
    assert!(unknown(&healthy()).is_empty(), "{:?}", proof::prove(&healthy()));
    // An answer that is not that of a gateway.
    let mut e = healthy();
    let Part::Found(http) = &mut e.http else { panic!() };
    http.probes[1].health = None;
    expect_unknown(&e, &["address"], &["does not answer as newswire-gateway"]);
    // The answer of another process.
    let mut e = healthy();
    let Part::Found(http) = &mut e.http else { panic!() };
    http.probes[1].health.as_mut().unwrap().pid = Some(300);
    expect_unknown(&e, &["address"], &["process 300 answers"]);
    process(&mut e.gateway).inner_pids = vec![300];
    expect(&e, VerdictCode::Healthy, &[]);
    // Another address than the configured one.
    let mut e = healthy();
    e.configured.listen = Some("127.0.0.1:9000".parse().unwrap());
    expect_unknown(&e, &["address"], &["gateway.listen is 127.0.0.1:9000"]);
    gateway_vitals(&mut e).inherited = true;
    expect(&e, VerdictCode::Healthy, &[]);
    // Reports.
    for cause in
        [MissingCause::OtherVersion, MissingCause::TimedOut, MissingCause::Other, MissingCause::Denied]
    {
        let mut e = healthy();
        e.ingestd.watch = Part::Missing { missing: "x".into(), cause };
        let parts = ["ingestd-report", "wire", "store", "sources"];
        expect_unknown(&e, &parts, &["the report of newswire-ingestd could not be read: x"]);
    }
    let mut e = healthy();
    watched(&mut e.gateway).vitals = None;
    expect_unknown(&e, &["gateway-report", "wire"], &["did not put its diagnostics together"]);
    let mut e = healthy();
    stop_watchdog(&mut e.gateway);
    expect_unknown(&e, &["gateway-watchdog"], &["the watchdog of newswire-gateway does not look"]);
    let mut e = healthy();
    e.gateway.foreign = Some(OtherProcess { pid: 9, command: "nc -lU".into() });
    expect_unknown(&e, &["gateway-report"], &["pid 9 (nc -lU), another program, holds"]);
}

#[test]
fn the_wire_and_the_store_must_be_those_of_this_daemon() {
    let mut e = healthy();
    wire(&mut e).cursor = Some("other-412".into());
    expect_unknown(&e, &["wire"], &["other-412", "the log k3"]);
    let mut e = healthy();
    ingest_vitals(&mut e).wire.subscribers = 0;
    expect_unknown(&e, &["wire"], &[]);
    let mut e = healthy();
    wire(&mut e).cursor = None;
    expect_unknown(&e, &["wire"], &["none of the 412 events"]);
    ingest_vitals(&mut e).head = 0;
    expect(&e, VerdictCode::Healthy, &[]);
    let mut e = healthy();
    ingest_vitals(&mut e).store.path = "/other".into();
    expect_unknown(&e, &["store"], &["writes /other, but store.path is /d"]);
    let mut e = healthy();
    ingest_vitals(&mut e).store.last_commit_ms_ago = None;
    expect_unknown(&e, &["store"], &["nothing was written"]);
}

#[test]
fn slow_feeds_and_a_start_need_their_proof_too() {
    let mut e = healthy();
    let busy =
        json!([{"source": "bbc", "activity": "fetching", "since_ms_ago": 25_000, "waiting_for": null}]);
    sources(&mut e).busiest = serde_json::from_value(busy).unwrap();
    expect(&e, VerdictCode::SlowFeeds, &[]);
    stop_watchdog(&mut e.gateway);
    expect(&e, VerdictCode::Unknown, &["what was seen: no hang"]);
    // A process that has just started cannot show everything; a user without rights never can.
    let mut e = healthy();
    process(&mut e.ingestd).uptime_ms = 2_000;
    watched(&mut e.ingestd).vitals = None;
    expect(&e, VerdictCode::Healthy, &[]);
    e.gateway.watch = Part::Missing { missing: "x".into(), cause: MissingCause::Denied };
    expect(&e, VerdictCode::Unknown, &[]);
}

#[test]
fn what_was_not_asked_for_is_not_unknown() {
    let mut e = healthy();
    for daemon in [&mut e.ingestd, &mut e.gateway] {
        kill(daemon);
        daemon.presence = Presence::NotAsked;
    }
    (e.target, e.quick) = (Target::Url, true);
    e.listener = Part::missing("the address is not on this machine");
    expect(&e, VerdictCode::Healthy, &["newswire-gateway runs", "according to its answers"]);
    ready(&mut e, false, &["no events yet"]);
    expect_unknown(&e, &["wire"], &["the gateway is not ready: no events yet"]);

    // The health check of a container: a gateway is well while the daemon is down.
    let mut e = healthy();
    kill(&mut e.ingestd);
    e.ingestd.presence = Presence::NotAsked;
    (e.target, e.quick) = (Target::Pid, true);
    wire(&mut e).connected = false;
    ready(&mut e, false, &["the wire is not connected"]);
    expect(&e, VerdictCode::Healthy, &["newswire-gateway runs", "the other process was not asked for"]);
    e.quick = false;
    expect(&e, VerdictCode::WireCut, &[]);
}

/// A second look at a daemon, a second later.
fn look_again(daemon: &mut DaemonEvidence) {
    let mut later = watched(daemon).clone();
    for l in &mut later.progress.loops {
        l.beat_ms_ago = if l.stalled { l.beat_ms_ago + 1_000 } else { l.beat_ms_ago };
    }
    (daemon.watch_later, daemon.watched_for_ms) = (Part::Found(later), 1_000);
}

fn later(daemon: &mut DaemonEvidence) -> &mut WatchReport {
    let Part::Found(later) = &mut daemon.watch_later else { panic!("it was looked at once") };
    later
}

#[test]
fn a_stall_is_reported_if_it_is_still_there_at_the_second_look() {
    let mut e = healthy();
    stall(&mut e.gateway, "worker-0", 12_000);
    look_again(&mut e.gateway);
    expect(&e, VerdictCode::EventLoopBlocked, &["for 13s", "still so at a second look after 1s"]);
    let moved = &mut later(&mut e.gateway).progress.loops[0];
    (moved.stalled, moved.beat_ms_ago) = (false, 40);
    expect(&e, VerdictCode::WorkerStarved, &["was blocked for 12s", "moved again within 1s"]);
    stall(&mut e.gateway, "worker-0", 1_200);
    expect(&e, VerdictCode::Healthy, &[]);
    // A stall that begins at the first look is there at the second.
    let mut e = healthy();
    look_again(&mut e.gateway);
    let stalled = &mut later(&mut e.gateway).progress.loops[0];
    (stalled.stalled, stalled.beat_ms_ago) = (true, 1_100);
    expect(&e, VerdictCode::EventLoopBlocked, &[]);
}

#[test]
fn counters_are_said_to_be_still_or_moving() {
    let mut e = healthy();
    ingest_vitals(&mut e).store.committing_ms = Some(3_000);
    look_again(&mut e.ingestd);
    let later = &mut later(&mut e.ingestd).vitals;
    let Some(ProcessVitals::Ingest(vitals)) = later else { panic!() };
    (vitals.store.committing_ms, vitals.store.last_commit_ms_ago) = (Some(4_000), Some(1_100));
    expect(&e, VerdictCode::StoreSlow, &["has taken 4s so far", "no commit ended meanwhile: still"]);
    let Part::Found(WatchReport { vitals: Some(ProcessVitals::Ingest(vitals)), .. }) =
        &mut e.ingestd.watch_later
    else {
        panic!()
    };
    // The slow commit has ended, and the next one has begun: as slow as one that does not end.
    (vitals.store.committing_ms, vitals.store.last_commit_ms_ago) = (Some(400), Some(450));
    ingest_vitals(&mut e).store.last_commit_ms_ago = Some(3_100);
    expect(&e, VerdictCode::StoreSlow, &["commits end meanwhile: moving"]);

    // Sources that are overdue at the first look only are being visited.
    let mut e = healthy();
    let reported = sources(&mut e);
    reported.overdue = 8;
    reported.actors = [("idle".to_owned(), 10)].into();
    look_again(&mut e.ingestd);
    expect(&e, VerdictCode::DaemonStale, &["8 of 10", "still so at a second look"]);
    let Part::Found(WatchReport { vitals: Some(ProcessVitals::Ingest(vitals)), .. }) =
        &mut e.ingestd.watch_later
    else {
        panic!()
    };
    vitals.sources.as_mut().unwrap().actors.insert("fetching".into(), 1);
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_broken_configuration_is_the_verdict_unless_there_is_something_worse() {
    let mut e = healthy();
    e.configured.complaints =
        vec!["a.toml:3: gateway.listen: expected x".into(), "a.toml:9: unknown key".into()];
    let words = ["gateway.listen: expected x; a.toml:9: unknown key", "run and make progress"];
    let verdict = expect(&e, VerdictCode::ConfigurationBroken, &words);
    assert_eq!(verdict.next[0], "newswire config check --config /etc/newswire/newswire.toml");
    stop_watchdog(&mut e.gateway);
    expect(&e, VerdictCode::ConfigurationBroken, &["cannot tell whether all is well"]);
    stall(&mut e.gateway, "worker-0", 3_000);
    expect(&e, VerdictCode::EventLoopBlocked, &["besides, the configuration is broken: a.toml:3"]);
}

#[test]
fn a_gateway_of_another_configuration_on_the_port_is_named_and_never_to_be_killed() {
    let mut e = healthy();
    e.listener = Part::Found(listener(&[(300, "newswire-gatewa")]));
    let verdict =
        expect(&e, VerdictCode::OtherGateway, &["pid 300", "the one of this configuration (pid 200)"]);
    assert!(verdict.next[0].starts_with("newswire doctor --pid 300"), "{verdict:?}");
    assert!(verdict.next.iter().all(|step| !step.contains("kill") || !step.contains("300")), "{verdict:?}");
    kill(&mut e.gateway);
    expect(&e, VerdictCode::OtherGateway, &["the one of this configuration does not run"]);
    e.http = unanswered();
    expect(&e, VerdictCode::OtherGateway, &[]);
}

#[test]
fn a_gateway_that_answers_over_the_socket_of_systemd_may_have_no_network_of_its_own() {
    let mut e = healthy();
    let place = crate::doctor::resources::namespaces::OtherPlace { net: true, ..Default::default() };
    let Part::Found(resources) = &mut e.gateway.resources else { panic!("it was examined") };
    resources.place = Some(place);
    expect(&e, VerdictCode::Healthy, &[]);
    e.http = refused();
    e.listener = Part::Found(ListenerReport::default());
    expect(&e, VerdictCode::Unknown, &["runs in a place with other network"]);
}

#[test]
fn a_loop_that_runs_and_does_not_beat_is_blocked_even_if_it_gets_little_processor() {
    let mut e = healthy();
    stall(&mut e.gateway, "worker-0", 9_000);
    process(&mut e.gateway).tasks.push(Task { tid: 201, cpu_ms: 12, run_delay_ms: 288, ..Task::default() });
    expect(&e, VerdictCode::EventLoopBlocked, &["worker-0"]);
}

#[test]
fn a_user_who_may_not_end_a_process_is_told_to_use_sudo() {
    let mut e = healthy();
    stop(&mut e.ingestd);
    e.ingestd.may_end = false;
    let verdict = expect(&e, VerdictCode::DaemonStopped, &[]);
    assert!(verdict.next[0].starts_with("sudo kill -CONT 100"), "{verdict:?}");
}

#[test]
fn text_of_a_process_cannot_control_the_terminal() {
    let mut e = healthy();
    let wire = wire(&mut e);
    (wire.connected, wire.reason) = (false, Some("\u{1b}[31m\nVERDICT healthy: x".into()));
    let verdict = expect(&e, VerdictCode::WireCut, &[]);
    assert!(!verdict.line.contains('\u{1b}'), "{:?}", verdict.line);
}

#[test]
fn a_start_does_not_excuse_a_report_of_another_form() {
    let mut e = healthy();
    let process = match &mut e.gateway.process {
        Part::Found(process) => process,
        Part::Missing { .. } => panic!("it was sampled"),
    };
    process.uptime_ms = 500;
    let missing = "GET /watch: the answer is not JSON".to_owned();
    e.gateway.watch = Part::Missing { missing, cause: MissingCause::OtherVersion };
    e.gateway.watch_later = Part::not_asked();
    expect(&e, VerdictCode::Unknown, &["the answer is not JSON"]);
    let missing = "no answer in time".to_owned();
    e.gateway.watch = Part::Missing { missing, cause: MissingCause::TimedOut };
    expect(&e, VerdictCode::Unknown, &["no answer in time"]);
    e.gateway.health = Part::timed_out("no answer in time");
    e.gateway.watch = Part::timed_out("no answer in time");
    assert_ne!(conclude(&e).code, VerdictCode::Unknown, "it may still start");
}

#[test]
fn an_unreadable_report_of_another_version_is_unknown_and_one_without_newer_fields_is_read() {
    let mut e = healthy();
    let missing = "newswire-gateway is version 9.1.0, this tool is 0.1.0: missing field `clients`".to_owned();
    e.gateway.watch = Part::Missing { missing, cause: MissingCause::OtherVersion };
    let verdict = expect(&e, VerdictCode::Unknown, &["version 9.1.0, this tool is 0.1.0"]);
    assert!(verdict.next[0].contains("/proc/200/exe"), "{verdict:?}");
    // Its /health has no pid and the kernel shows no watchdog.
    let mut e = healthy();
    let Part::Found(http) = &mut e.http else { panic!() };
    http.probes[1].health.as_mut().unwrap().pid = None;
    e.gateway.watchdog_ran = None;
    watched(&mut e.gateway).progress.watchdog = None;
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_process_that_was_killed_in_a_stall_is_dead_and_its_black_box_names_the_frame() {
    let blocked = "worker-0 had been blocked for 12s in gateway::read at src/read.rs:7";
    let mut evidence = healthy();
    kill(&mut evidence.gateway);
    evidence.http = refused();
    evidence.listener = Part::missing("none");
    evidence.gateway.black_box = Part::Found(crate::black_box::tests::killed_in_a_stall());
    let verdict = conclude(&evidence);
    assert_eq!(verdict.code, VerdictCode::GatewayDead);
    assert!(verdict.line.contains("it was killed 5s ago in the middle of a stall"), "{}", verdict.line);
    assert!(verdict.line.contains(blocked), "{}", verdict.line);
    kill(&mut evidence.ingestd);
    let verdict = conclude(&evidence);
    assert_eq!(verdict.code, VerdictCode::NotRunning);
    assert!(verdict.line.contains(blocked), "{}", verdict.line);
    // Of a process that runs, the box is only asked if it does not answer.
    let mut evidence = healthy();
    evidence.gateway.black_box = Part::Found(crate::black_box::tests::killed_in_a_stall());
    assert_eq!(conclude(&evidence).code, VerdictCode::Healthy);
}

#[test]
fn a_log_that_cannot_be_written_names_who_does_not_read_it_and_blames_no_one_else() {
    let mut e = healthy();
    let log = |blocked_ms, failing: Value| {
        let log = json!({
            "output": "stderr", "queued_bytes": 1 << 20, "queued_bytes_max": 1 << 20, "dropped": 664,
            "blocked_ms": blocked_ms, "failing": failing
        });
        serde_json::from_value(log).unwrap()
    };
    let untaken = |ms| control::watch::LogReport { untaken_ms: ms, ..log(0, Value::Null) };
    watched(&mut e.gateway).progress.log = Some(untaken(4_000));
    expect(&e, VerdictCode::Healthy, &[]);
    watched(&mut e.gateway).progress.log = Some(untaken(18_000));
    expect(
        &e,
        VerdictCode::LogBlocked,
        &["the thread log of newswire-gateway (pid 200) has taken no line for 18s"],
    );
    watched(&mut e.gateway).progress.log = Some(log(66_000, Value::Null));
    expect(
        &e,
        VerdictCode::LogBlocked,
        &["newswire-gateway (pid 200)", "standard error", "for 66s", "664 lines were"],
    );
    let end = |kind, target: &str, readers| Part::Found(LogEnd { kind, target: target.into(), readers });
    let less = LogEndReader { pid: 812, name: "less".into() };
    e.gateway.log_end = end(LogEndKind::Pipe, "pipe:[7]", vec![less]);
    let verdict = expect(&e, VerdictCode::LogBlocked, &["pipe:[7], and pid 812 (less) does not read it"]);
    assert!(verdict.next[0].starts_with("ps -o pid,ppid,stat,user,args -p 812 "), "{verdict:?}");
    assert!(!verdict.next.iter().any(|step| step.contains("kill 812")), "it is not ours");
    e.gateway.log_end = end(LogEndKind::Terminal, "/dev/pts/3", Vec::new());
    let verdict = expect(&e, VerdictCode::LogBlocked, &["the terminal /dev/pts/3, which is stopped"]);
    assert!(verdict.next[0].starts_with("press Ctrl-Q"), "{verdict:?}");

    let full = json!({"error": "No space left on device (os error 28)", "lasted_ms": 9_000});
    watched(&mut e.gateway).progress.log = Some(log(0, full.clone()));
    e.gateway.log_end = end(LogEndKind::File, "/var/log/x.log", Vec::new());
    let refused = "for 9s: /var/log/x.log refuses it: No space left on device";
    let verdict = expect(&e, VerdictCode::LogBlocked, &[refused]);
    assert!(verdict.next[0].starts_with("df -h "), "{verdict:?}");

    watched(&mut e.gateway).progress.log = Some(log(1_900, Value::Null));
    expect(&e, VerdictCode::Healthy, &[]);
    watched(&mut e.gateway).progress.log = Some(log(66_000, Value::Null));
    stall(&mut e.ingestd, "arbiter", 2_000);
    expect(&e, VerdictCode::EventLoopBlocked, &[]);
}
