//! What is told about runs, from made-up files.

use std::path::PathBuf;

use control::{
    black_box::{BlackBoxPulse, FORMAT},
    watch::WatchKind,
};

use super::*;

const NOW: u64 = 1_000_000;

fn moment() -> Moment {
    Moment { wall_ms: 1_767_323_045_678, boot_ms: NOW, boot_id: "this".into() }
}

/// A file whose records happened at these moments before now, in milliseconds.
fn contents(events: &[(u64, BlackBoxEvent)]) -> BlackBoxContents {
    let now = moment();
    let header = BlackBoxHeader {
        format: FORMAT,
        program: "newswire-gateway".into(),
        version: "1.2.3".into(),
        pid: 7,
        started_wall_ms: now.wall_ms - 900_000,
        started_boot_ms: NOW - 900_000,
        boot_id: now.boot_id.clone(),
        run: 1,
        ring_bytes: 1,
        ready: true,
    };
    let record = |(n, (ago, event)): (usize, &(u64, BlackBoxEvent))| BlackBoxRecord {
        seq: n as u64,
        wall_ms: now.wall_ms - ago.cast_signed(),
        boot_ms: NOW - ago,
        event: event.clone(),
    };
    let records = events.iter().enumerate().map(record).collect();
    BlackBoxContents { header, pulse: None, records, damaged: 0 }
}

fn stall(name: &str) -> BlackBoxEvent {
    BlackBoxEvent::StallBegan(Box::new(StallBeginning {
        name: name.into(),
        kind: WatchKind::Worker,
        tid: 8,
        silent_ms: 1_000,
        work: Some("GET /x of 192.0.2.1".into()),
        culprit: Some("gateway::read at src/read.rs:7".into()),
        stack: None,
    }))
}

fn report(contents: BlackBoxContents, since: Option<Duration>) -> RunReport {
    RunReport::new(PathBuf::from("/run/x"), contents, false, &moment(), since)
}

fn ending(events: &[(u64, BlackBoxEvent)]) -> String {
    report(contents(events), None).ending().unwrap()
}

fn signal(name: &'static str) -> BlackBoxEvent {
    BlackBoxEvent::Signal { name: name.into() }
}

/// A gateway that was killed 5 s ago, after a stall of 12 s.
pub(crate) fn killed_in_a_stall() -> BlackBoxReport {
    let events = [(16_000, stall("worker-0")), (5_000, BlackBoxEvent::Ready)];
    BlackBoxReport { last: report(contents(&events), None), previous: None }
}

#[test]
fn a_death_in_a_stall_names_the_frame_the_work_and_how_long_it_had_lasted() {
    let events = [(16_000, stall("worker-0")), (15_000, stall("worker-1")), (5_000, BlackBoxEvent::Ready)];
    let expected = "it was killed 5s ago in the middle of a stall: worker-0 had been blocked for 12s in \
                    gateway::read at src/read.rs:7, working on GET /x of 192.0.2.1";
    assert_eq!(ending(&events), expected);
    let over = BlackBoxEvent::StallEnded { name: "worker-0".into(), lasted_ms: 2_000 };
    let events = [(16_000, stall("worker-0")), (14_000, over)];
    assert_eq!(
        ending(&events),
        "it was killed or crashed; its last record is 14s old, and nothing was stalled then"
    );
}

#[test]
fn the_last_pulse_is_the_time_of_death() {
    let mut contents = contents(&[(16_000, stall("worker-0"))]);
    contents.pulse = Some(BlackBoxPulse { boot_ms: NOW - 2_000, ..BlackBoxPulse::default() });
    let report = report(contents, None);
    assert_eq!((report.written_ms_ago, report.stalls[0].lasted_ms), (2_000, 15_000));
}

#[test]
fn an_end_in_order_one_with_an_error_and_one_during_a_stop_are_told_apart() {
    let ended = |exit, error: Option<&str>| BlackBoxEvent::Ended { exit, error: error.map(Into::into) };
    assert_eq!(ending(&[(3_000, signal("SIGTERM")), (2_000, ended(0, None))]), "it stopped in order 2s ago");
    let failed = ended(74, Some("cannot write \u{1b}[31mthe log"));
    let expected = "it ended 2s ago with exit code 74: cannot write \\u{1b}[31mthe log";
    assert_eq!(ending(&[(2_000, failed)]), expected, "and it controls no terminal");
    let expected = "it was killed 2s ago, while it stopped because of SIGTERM";
    assert_eq!(ending(&[(2_000, signal("SIGTERM"))]), expected);
}

#[test]
fn a_start_of_the_machine_is_not_a_death_of_the_process() {
    let mut contents = contents(&[(2_000, BlackBoxEvent::Ready)]);
    contents.header.boot_id = "another".into();
    let report = report(contents, None);
    assert_eq!(report.end, RunEnd::MachineRestarted);
    assert_eq!(report.written_ms_ago, 2_000, "by the wall clock, because the other one began anew");
}

#[test]
fn a_set_clock_changes_no_age_and_its_jump_is_told() {
    let mut contents = contents(&[(30_000, BlackBoxEvent::Ready), (2_000, signal("SIGHUP"))]);
    // The wall clock was set ahead by a day between the two.
    contents.records[0].wall_ms -= 86_400_000;
    let report = report(contents, None);
    let ages: Vec<_> = report.records.iter().map(|timed| timed.ms_ago).collect();
    assert_eq!(ages, [30_000, 2_000]);
    let jump = TimedRecord {
        record: BlackBoxRecord {
            event: BlackBoxEvent::ClockJumped { ms: 86_400_000 },
            ..report.records[0].record.clone()
        },
        ..report.records[0].clone()
    };
    assert!(describe(&jump).ends_with("the wall clock was set ahead by 24h"), "{}", describe(&jump));
}

#[test]
fn the_minute_before_the_end_is_told_or_what_was_asked_for_and_never_more_than_a_bound() {
    let events: Vec<_> = (0..3_000).rev().map(|n| (100_000 + n * 100, BlackBoxEvent::Ready)).collect();
    let minute = report(contents(&events), None);
    assert_eq!(minute.records.len(), 601);
    assert_eq!(minute.records.last().unwrap().ms_ago, 100_000, "the newest is the last");
    assert_eq!(report(contents(&events), Some(Duration::from_secs(110))).records.len(), 101);
    let all = report(contents(&events), Some(Duration::from_secs(3_600)));
    assert_eq!(all.records.len(), RECORDS_MAX);
    assert_eq!(all.records.last().unwrap().ms_ago, 100_000);
}

#[test]
fn a_process_with_the_same_pid_that_started_at_another_time_is_another_one() {
    let boot = Moment::now();
    let mut header = contents(&[]).header;
    header.pid = std::process::id().cast_signed();
    header.boot_id.clone_from(&boot.boot_id);
    header.started_boot_ms = boot.boot_ms;
    assert!(is_running(&header, None, &boot), "this process has just started");
    header.started_boot_ms = boot.boot_ms.saturating_sub(600_000);
    assert!(!is_running(&header, None, &boot));
}

#[test]
fn a_process_in_a_pid_namespace_of_its_own_is_the_one_of_its_file() {
    let mut unshare = std::process::Command::new("unshare");
    // It ends with its input.
    unshare.args(["--pid", "--fork", "cat"]).stdin(std::process::Stdio::piped());
    let mut unshare = match unshare.stderr(std::process::Stdio::null()).spawn() {
        Ok(child) => child,
        Err(why) => return eprintln!("SKIPPED: unshare: {why}"),
    };
    let children = format!("/proc/{0}/task/{0}/children", unshare.id());
    // It has one, or ends because this user may not do so.
    let inside = loop {
        let Ok(text) = std::fs::read_to_string(&children) else {
            return eprintln!("SKIPPED: this kernel does not list the children of a process");
        };
        match (text.split_whitespace().next(), unshare.try_wait().unwrap()) {
            (Some(pid), _) => break pid.parse::<i32>().unwrap(),
            (None, Some(_)) => return eprintln!("SKIPPED: this user may make no pid namespace"),
            (None, None) => std::thread::yield_now(),
        }
    };
    let (mut header, now) = (contents(&[]).header, Moment::now());
    (header.pid, header.started_boot_ms) = (1, now.boot_ms);
    header.boot_id.clone_from(&now.boot_id);
    let found = is_running(&header, Some(inside), &now);
    drop(unshare.stdin.take());
    unshare.wait().unwrap();
    assert!(found, "its id is 1 in there");
    let other = std::process::id().cast_signed();
    assert!(!is_running(&header, Some(other), &now), "this process is another one");
}

#[test]
fn a_file_with_any_numbers_is_told_as_far_as_it_goes() {
    let any = [u64::MAX, 0, u64::MAX / 2];
    let events = any.iter().enumerate().flat_map(|(n, ms)| {
        let ms = *ms;
        let name: std::sync::Arc<str> = format!("worker-{n}").into();
        let beginning = StallBeginning {
            name: name.clone(),
            kind: WatchKind::Worker,
            tid: i32::MIN,
            silent_ms: ms,
            work: None,
            culprit: None,
            stack: None,
        };
        [
            BlackBoxEvent::StallBegan(Box::new(beginning)),
            BlackBoxEvent::StallContinues { name, silent_ms: ms },
            BlackBoxEvent::ClockJumped { ms: i64::MIN },
            BlackBoxEvent::ProcessPaused { ms },
            BlackBoxEvent::Commit { visits: ms, queued: ms, ms },
            BlackBoxEvent::Stacks { threads: Vec::new(), idle: ms },
            BlackBoxEvent::Dropped { records: ms },
        ]
    });
    let events: Vec<_> = events.collect();
    for boot_id in ["this", "another"] {
        for (started, wall_ms) in [(u64::MAX, i64::MAX), (0, i64::MIN)] {
            let mut contents = contents(&[]);
            contents.header.boot_id = boot_id.into();
            (contents.header.started_boot_ms, contents.header.pid) = (started, 1);
            contents.damaged = u64::MAX;
            contents.pulse = Some(BlackBoxPulse {
                boot_ms: started,
                wall_ms,
                dropped: u64::MAX,
                ..BlackBoxPulse::default()
            });
            let record = |(n, event): (usize, &BlackBoxEvent)| BlackBoxRecord {
                seq: u64::MAX,
                wall_ms: if n.is_multiple_of(2) { i64::MAX } else { i64::MIN },
                boot_ms: any[n % any.len()],
                event: event.clone(),
            };
            contents.records = events.iter().enumerate().map(record).collect();
            assert!(!is_running(&contents.header, None, &moment()));
            let report = report(contents, Some(Duration::MAX));
            assert_eq!((report.records.len(), report.stalls.len()), (events.len(), any.len()));
            assert!(
                report.records.iter().all(|timed| !describe(timed).is_empty()) && report.ending().is_some()
            );
        }
    }
}

#[test]
fn no_more_stalls_are_kept_than_a_bound() {
    let events: Vec<_> = (0..3 * STALLS_MAX).map(|n| (1_000, stall(&format!("worker-{n}")))).collect();
    assert_eq!(report(contents(&events), None).stalls.len(), STALLS_MAX);
}

#[test]
fn what_comes_from_outside_is_escaped_in_every_line() {
    let hostile = "a\u{1b}[31m\nb";
    let at = report(contents(&[(1, BlackBoxEvent::Ready)]), None).records[0].clone();
    let events = [
        BlackBoxEvent::VisitBegan { source: hostile.into() },
        BlackBoxEvent::VisitEnded { source: hostile.into(), outcome: hostile.into(), ms: 1 },
        BlackBoxEvent::Task { thread: hostile.into(), what: hostile.into(), of: hostile.into(), ms: 1 },
        BlackBoxEvent::Log { level: hostile.into(), text: hostile.into() },
        BlackBoxEvent::Ended { exit: 1, error: Some(hostile.into()) },
        stall(hostile),
    ];
    for event in events {
        let line =
            describe(&TimedRecord { record: BlackBoxRecord { event, ..at.record.clone() }, ..at.clone() });
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}
