//! The verdicts when what watches is stuck itself.

use control::watch::{ListenerProbe, ObserverReport, TaskWait};

use super::*;
use crate::doctor::resources::still_threads::StillThread;

/// The stack of the thread `tid`.
fn captured(daemon: &mut DaemonEvidence, tid: i32, name: &str, culprit: &str) {
    let thread =
        json!({"tid": tid, "name": name, "state": "S", "wchan": null, "frames": [], "missing": null});
    daemon.stacks = Part::Found(Stacks {
        from: "inside",
        took_ms: 1,
        longest_pause_ms: 0,
        threads: vec![ExaminedThread {
            thread: serde_json::from_value(thread).unwrap(),
            idle: false,
            stalled: true,
            loop_name: None,
            work: None,
            culprit: Some(culprit.into()),
        }],
    });
}

fn probe(evidence: &mut Evidence, name: &str, waiting_ms: Option<u64>) {
    let error = waiting_ms.map(|_| "no answer within 5 s".to_owned());
    watched(&mut evidence.gateway).progress.listeners.push(ListenerProbe {
        name: name.into(),
        kind: WatchKind::Front,
        address: "127.0.0.1:8700".into(),
        answered_ms_ago: Some(waiting_ms.unwrap_or(900)),
        took_ms: Some(1),
        waiting_ms,
        missing: false,
        error,
    });
}

fn silence_watchdog(daemon: &mut DaemonEvidence, ms: u64) -> i32 {
    let watchdog = watched(daemon).progress.watchdog.as_mut().unwrap();
    watchdog.looked_ms_ago = ms;
    watchdog.tid
}

#[test]
fn a_watchdog_that_does_not_look_is_reported_with_its_function() {
    let mut e = healthy();
    let tid = silence_watchdog(&mut e.ingestd, 2_900);
    expect(&e, VerdictCode::Healthy, &[]);
    silence_watchdog(&mut e.ingestd, 19_000);
    watched(&mut e.ingestd).progress.watchdog.as_mut().unwrap().sampling = true;
    expect(&e, VerdictCode::Healthy, &[]);
    silence_watchdog(&mut e.ingestd, 66_000);
    captured(&mut e.ingestd, tid, "watchdog", "daemon::logs::write at logs.rs:7");
    let words = [
        "the watchdog of newswire-ingestd (pid 100) has not looked for 66s",
        "in daemon::logs::write at logs.rs:7",
    ];
    expect(&e, VerdictCode::EventLoopBlocked, &words);
}

#[test]
fn with_the_watchdog_stuck_a_loop_is_judged_by_its_own_beat_and_comes_first() {
    let mut e = healthy();
    watched(&mut e.ingestd).progress.loops[0].beat_ms_ago = 61_000;
    expect(&e, VerdictCode::Healthy, &[]);
    silence_watchdog(&mut e.ingestd, 60_000);
    expect(
        &e,
        VerdictCode::EventLoopBlocked,
        &["arbiter of newswire-ingestd (pid 100) has been blocked for 61s"],
    );
}

#[test]
fn with_the_watchdog_stuck_a_commit_is_judged_by_its_own_time() {
    let mut e = healthy();
    watched(&mut e.ingestd).progress.loops[1].beat_ms_ago = 61_000;
    silence_watchdog(&mut e.ingestd, 60_000);
    let verdict = conclude(&e);
    assert!(verdict.code != VerdictCode::Healthy, "{verdict:?}");
}

#[test]
fn a_pool_is_not_blamed_for_a_watchdog_that_sends_it_no_probes() {
    let mut e = healthy();
    watched(&mut e.gateway).progress.loops[1].beat_ms_ago = 60_000;
    silence_watchdog(&mut e.gateway, 60_000);
    expect(&e, VerdictCode::EventLoopBlocked, &["the watchdog of newswire-gateway"]);
}

#[test]
fn vitals_that_cannot_be_read_are_reported_with_their_thread() {
    let mut e = healthy();
    let watch = watched(&mut e.gateway);
    watch.vitals = None;
    watch.progress.observers = vec![ObserverReport { name: "vitals".into(), tid: 7, since_ms_ago: 40_000 }];
    captured(&mut e.gateway, 7, "vitals", "gateway::state at state.rs:3");
    let words = ["the thread vitals of newswire-gateway (pid 200)", "40s", "in gateway::state at state.rs:3"];
    expect(&e, VerdictCode::EventLoopBlocked, &words);
}

#[test]
fn stacks_may_take_seconds() {
    let mut e = healthy();
    let observers = &mut watched(&mut e.gateway).progress.observers;
    observers.push(ObserverReport { name: "stacks".into(), tid: 7, since_ms_ago: 9_000 });
    expect(&e, VerdictCode::Healthy, &[]);
    watched(&mut e.gateway).progress.observers[0].since_ms_ago = 16_000;
    expect(&e, VerdictCode::EventLoopBlocked, &["the thread stacks of newswire-gateway"]);
}

#[test]
fn a_listener_without_an_answer_to_its_own_process_is_reported_though_every_loop_beats() {
    let mut e = healthy();
    probe(&mut e, "clients", None);
    expect(&e, VerdictCode::Healthy, &[]);
    probe(&mut e, "clients", Some(4_000));
    expect(&e, VerdictCode::Healthy, &[]);
    probe(&mut e, "clients", Some(21_000));
    let words =
        ["newswire-gateway (pid 200) has had no answer at its own socket 127.0.0.1:8700 (clients) for 21s"];
    expect(&e, VerdictCode::EventLoopBlocked, &words);
}

#[test]
fn a_socket_file_that_was_removed_is_no_hang() {
    let mut e = healthy();
    probe(&mut e, "admin", Some(60_000));
    watched(&mut e.gateway).progress.listeners[0].missing = true;
    let verdict = conclude(&e);
    assert!(verdict.code != VerdictCode::EventLoopBlocked, "{verdict:?}");
}

#[test]
fn whatever_may_be_a_hang_is_looked_at_twice() {
    let second = |change: &dyn Fn(&mut Evidence)| {
        let mut e = healthy();
        change(&mut e);
        crate::doctor::second_look::needs_second_look(watched(&mut e.gateway))
    };
    assert!(!second(&|_| {}));
    assert!(second(&|e| watched(&mut e.gateway).vitals = None));
    assert!(second(&|e| {
        silence_watchdog(&mut e.gateway, 10_000);
    }));
    assert!(second(&|e| probe(e, "clients", Some(10_000))));
}

#[test]
fn a_task_that_waits_although_something_is_queued_for_it_is_named_with_what_it_waits_for() {
    let mut e = healthy();
    let task = TaskWait {
        name: "replays".into(),
        waits_for: Some("answers of the daemon".into()),
        idle: false,
        since_ms_ago: 31_000,
        steps: 7,
        queued: Some(0),
        capacity: Some(64),
    };
    watched(&mut e.gateway).progress.tasks.push(task);
    expect(&e, VerdictCode::Healthy, &[]);
    let change = |e: &mut Evidence, queued, since_ms_ago| {
        let task = &mut watched(&mut e.gateway).progress.tasks[0];
        (task.queued, task.since_ms_ago) = (Some(queued), since_ms_ago);
    };
    change(&mut e, 12, 9_000);
    expect(&e, VerdictCode::Healthy, &[]);
    change(&mut e, 12, 31_000);
    assert!(crate::doctor::second_look::needs_second_look(watched(&mut e.gateway)));
    let words =
        ["the task replays of newswire-gateway (pid 200)", "answers of the daemon for 31s", "12 of 64"];
    expect(&e, VerdictCode::EventLoopBlocked, &words);
    change(&mut e, 0, 61_000);
    expect(&e, VerdictCode::EventLoopBlocked, &["answers of the daemon for 61s"]);
    let later = watched(&mut e.gateway).clone();
    e.gateway.watch_later = Part::Found(later);
    expect(&e, VerdictCode::EventLoopBlocked, &["answers of the daemon for 61s"]);
    // The process was stopped for a minute: the wait of the first report is over.
    watched(&mut e.gateway).progress.tasks[0].steps -= 1;
    expect(&e, VerdictCode::Healthy, &[]);
    e.gateway.watch_later = Part::not_asked();
    watched(&mut e.gateway).progress.tasks[0].idle = true;
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_thread_that_works_for_the_operator_and_stands_still_is_named_with_what_is_lost() {
    let stand_still = |name: &str, kind, quick| {
        let mut e = healthy();
        e.quick = quick;
        let thread = LoopReport { stalled: true, ..beating(name, kind, 250, 30_000) };
        watched(&mut e.gateway).progress.loops.push(thread);
        e
    };
    let e = stand_still("signals", WatchKind::Signals, false);
    let words = ["the thread signals of newswire-gateway (pid 200) has made no progress for 30s", "SIGTERM"];
    expect(&e, VerdictCode::EventLoopBlocked, &words);
    let e = stand_still("black-box", WatchKind::Helper, false);
    expect(&e, VerdictCode::EventLoopBlocked, &["black-box", "clients and feeds do not wait for it"]);
    let mut e = stand_still("prober", WatchKind::Prober, false);
    watched(&mut e.gateway).progress.loops.last_mut().unwrap().stalled = false;
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_black_box_that_is_not_written_is_told_unless_its_process_has_ended() {
    let mut e = healthy();
    let mut black_box = crate::black_box::tests::killed_in_a_stall();
    (black_box.last.running, black_box.last.written_ms_ago) = (true, 900);
    e.ingestd.black_box = Part::Found(black_box.clone());
    let still = |name: &str| StillThread { name: name.into(), state: 'S', ..StillThread::default() };
    let Part::Found(resources) = &mut e.ingestd.resources else { panic!("they were sampled") };
    resources.still = vec![still("black-box")];
    expect(&e, VerdictCode::Healthy, &[]);
    black_box.last.written_ms_ago = 9_000;
    e.ingestd.black_box = Part::Found(black_box.clone());
    expect(&e, VerdictCode::EventLoopBlocked, &["black-box of newswire-ingestd", "written nothing for 9s"]);
    // The thread runs, and its file takes nothing.
    let Part::Found(resources) = &mut e.ingestd.resources else { panic!("they were sampled") };
    resources.still = vec![still("log")];
    expect(&e, VerdictCode::Healthy, &[]);
    // The file is that of an earlier run.
    black_box.last.running = false;
    e.ingestd.black_box = Part::Found(black_box);
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_socket_that_its_own_process_cannot_reach_any_more_is_told_and_one_late_probe_is_not() {
    let mut e = healthy();
    let probed = |kind, answered_ms_ago, error: Option<&str>| ListenerProbe {
        name: "wire".into(),
        kind,
        address: "/run/newswire/ingestd.sock".into(),
        answered_ms_ago: Some(answered_ms_ago),
        took_ms: Some(1),
        waiting_ms: None,
        missing: false,
        error: error.map(str::to_owned),
    };
    let refused = Some("no probe could be sent: Permission denied");
    for (kind, ms, error) in [
        (WatchKind::Wire, 3_000, refused),
        (WatchKind::Wire, 12_000, None),
        // A machine without free ports, or descriptors, says nothing about the listener.
        (WatchKind::Front, 12_000, refused),
    ] {
        watched(&mut e.ingestd).progress.listeners = vec![probed(kind, ms, error)];
        expect(&e, VerdictCode::Healthy, &[]);
    }
    watched(&mut e.ingestd).progress.listeners = vec![probed(WatchKind::Wire, 12_000, refused)];
    let words = ["newswire-ingestd (pid 100)", "/run/newswire/ingestd.sock for 12s", "Permission denied"];
    expect(&e, VerdictCode::RunDirGone, &words);
}
