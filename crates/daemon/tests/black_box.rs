//! What a process is promised about its black box: it never waits for it, and finds in it what was before.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use control::black_box::{BlackBoxContents, BlackBoxEvent, previous};
use daemon::black_box::{self, BlackBox, BlackBoxEnd, BlackBoxOptions};
use daemon::watch::{Watch, WatchKind};
use daemon::{Clock, logs, work};

const BYTES: u64 = 256 * 1024;
/// Only a hang takes longer.
const WITHIN: Duration = Duration::from_secs(60);

struct RunDir(tempfile::TempDir);

impl RunDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("run").join("gateway.blackbox")
    }

    fn make(&self) -> PathBuf {
        std::fs::create_dir_all(self.path().parent().unwrap()).unwrap();
        self.path()
    }

    fn options(&self) -> BlackBoxOptions {
        BlackBoxOptions { path: self.path(), bytes: BYTES, program: "newswire-gateway".into() }
    }

    fn start(&self) -> (BlackBox, BlackBoxEnd) {
        BlackBox::start(self.options(), || || ()).unwrap()
    }
}

fn read(path: &Path) -> BlackBoxContents {
    BlackBoxContents::read(path).unwrap()
}

fn log(text: &str) -> BlackBoxEvent {
    BlackBoxEvent::Log { level: "ERROR".into(), text: text.into() }
}

fn has(path: &Path, event: &BlackBoxEvent) -> bool {
    let contents = BlackBoxContents::read(path);
    contents.is_ok_and(|contents| contents.records.iter().any(|record| record.event == *event))
}

#[expect(clippy::disallowed_methods, reason = "a test waits for another thread")]
fn wait_for(what: &str, is_true: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(began.elapsed() < WITHIN, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends a run, and waits until its end is in the file: on a busy machine the process itself does not wait that long.
fn end_run(end: BlackBoxEnd, exit: u8, path: &Path) {
    end.end(exit);
    wait_for("the end is written", || {
        let is_end = |event: &BlackBoxEvent| matches!(event, BlackBoxEvent::Ended { .. });
        let contents = BlackBoxContents::read(path);
        contents.is_ok_and(|contents| contents.records.iter().any(|record| is_end(&record.event)))
    });
    // The next run takes the place only after the thread of this one has closed its file; a process that ended has.
    wait_for("the file is closed", || std::fs::File::open(path).is_ok_and(|file| file.try_lock().is_ok()));
}

#[test]
fn what_happened_is_in_the_file_without_the_end_of_the_process_and_its_last_error_with_it() {
    let run_dir = RunDir::new();
    let path = run_dir.make();
    let (black_box, end) = run_dir.start();
    black_box.record(log("the disk is on fire"));
    wait_for("the record is written while the process runs", || has(&path, &log("the disk is on fire")));
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (BYTES, 0o640));
    end_run(end, 74, &path);
    let contents = read(&path);
    assert_eq!(contents.header.pid, std::process::id().cast_signed());
    let last = contents.records.last().unwrap();
    let ended = BlackBoxEvent::Ended { exit: 74, error: Some("the disk is on fire".into()) };
    assert_eq!(last.event, ended);
    assert!(
        last.boot_ms >= contents.header.started_boot_ms && last.wall_ms >= contents.header.started_wall_ms
    );
    assert!(contents.pulse.is_some());
}

#[test]
fn the_file_never_grows_and_keeps_the_newest() {
    let run_dir = RunDir::new();
    let path = run_dir.make();
    let (black_box, end) = run_dir.start();
    for round in 0..20 {
        for n in 0..200 {
            black_box.record(log(&format!("{round} {n} {}", "x".repeat(300))));
        }
        wait_for("the round is written", || has(&path, &log(&format!("{round} 199 {}", "x".repeat(300)))));
    }
    end_run(end, 0, &path);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), BYTES);
    assert!(read(&path).records[0].seq > 1_000, "the oldest are gone");
}

#[test]
fn recording_never_waits_and_what_does_not_fit_is_counted() {
    let run_dir = RunDir::new();
    let path = run_dir.make();
    let (black_box, end) = run_dir.start();
    // Far more than the thread takes meanwhile.
    let pushed = 200_000_u64;
    for _ in 0..pushed {
        black_box.record(BlackBoxEvent::Ready);
    }
    let dropped = black_box.dropped();
    assert!(dropped > 0);
    wait_for("the thread has taken the rest", || {
        let told = |event: &BlackBoxEvent| match event {
            BlackBoxEvent::Dropped { records } => *records,
            _ => 0,
        };
        let contents = BlackBoxContents::read(&path);
        contents
            .is_ok_and(|contents| contents.records.iter().map(|record| told(&record.event)).sum::<u64>() > 0)
    });
    end_run(end, 0, &path);
    wait_for("the pulse has the count", || read(&path).pulse.is_some_and(|pulse| pulse.dropped >= dropped));
}

#[test]
fn the_file_of_the_run_before_is_kept_and_starts_that_fail_do_not_displace_it() {
    let run_dir = RunDir::new();
    let path = run_dir.make();
    let run = |text: &str, is_ready: bool| {
        let (black_box, end) = run_dir.start();
        black_box.record(log(text));
        if is_ready {
            black_box.ready();
        }
        wait_for("the run is written", || {
            let is_marked = || BlackBoxContents::read(&path).is_ok_and(|run| run.header.ready == is_ready);
            has(&path, &log(text)) && is_marked()
        });
        end_run(end, u8::from(!is_ready), &path);
    };
    run("first", true);
    run("second", true);
    assert!(has(&path, &log("second")) && has(&previous(&path), &log("first")));
    assert!(read(&path).header.ready);
    run("it cannot bind", false);
    run("it still cannot", false);
    assert!(has(&path, &log("it still cannot")) && has(&previous(&path), &log("second")));
    run("third", true);
    assert!(has(&previous(&path), &log("second")), "the failed start is not worth more");
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(files, 2, "no more than two files, however many runs");
}

#[test]
fn two_processes_with_one_run_dir_do_not_write_into_one_file() {
    let run_dir = RunDir::new();
    let path = run_dir.make();
    let (first, first_end) = run_dir.start();
    first.record(log("of the first"));
    wait_for("the first writes", || has(&path, &log("of the first")));
    let (second, second_end) = run_dir.start();
    second.record(log("of the second"));
    wait_for("the second is refused", || second.failed_writes() > 0);
    second_end.end(75);
    first.record(log("again of the first"));
    wait_for("the first still writes", || has(&path, &log("again of the first")));
    first_end.end(0);
    assert!(!has(&path, &log("of the second")) && !previous(&path).exists());
}

#[test]
fn a_deleted_run_dir_is_counted_stops_nothing_and_is_used_again_when_it_is_back() {
    let run_dir = RunDir::new();
    let path = run_dir.path();
    let (black_box, end) = run_dir.start();
    black_box.record(log("before there is a directory"));
    run_dir.make();
    wait_for("the start is written once the directory is there", || {
        has(&path, &log("before there is a directory"))
    });
    let directory = path.parent().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    wait_for("the loss is counted", || black_box.failed_writes() > 0);
    black_box.record(log("while it is gone"));
    run_dir.make();
    wait_for("the file is there again", || path.exists());
    black_box.record(log("after it is back"));
    wait_for("it is written", || has(&path, &log("after it is back")));
    end_run(end, 0, &path);
    assert!(std::fs::metadata(&path).unwrap().size() == BYTES);
}

#[test]
fn a_file_that_another_program_truncates_is_made_anew() {
    let run_dir = RunDir::new();
    let path = run_dir.make();
    let (black_box, end) = run_dir.start();
    black_box.record(log("before"));
    wait_for("the record is written", || has(&path, &log("before")));
    std::fs::File::create(&path).unwrap();
    wait_for("the loss is counted", || black_box.failed_writes() > 0);
    wait_for("a record is written again", || {
        black_box.record(log("after"));
        has(&path, &log("after"))
    });
    end.end(0);
}

#[test]
fn a_file_that_is_not_ours_is_left_alone() {
    let run_dir = RunDir::new();
    let path = run_dir.make();
    let elsewhere = run_dir.0.path().join("precious");
    std::fs::write(&elsewhere, "precious").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let (black_box, end) = run_dir.start();
    wait_for("it is refused", || black_box.failed_writes() > 0);
    end.end(0);
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "precious");
    assert!(path.is_symlink());
}

/// The only test that makes a black box that of its process.
#[test]
fn lines_of_the_log_long_tasks_and_stalls_are_recorded() {
    let run_dir = RunDir::new();
    let path = run_dir.make();
    let end = black_box::install(run_dir.options(), || || ()).unwrap();
    let (subscriber, _kept) = logs::capture("debug", Clock::system()).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(target: "daemon", items = 3, "recorded items");
        tracing::debug!(target: "daemon", "a detail");
        tracing::warn!("{}", "long ".repeat(1_000));
    });
    let watch = Watch::new();
    let _watchdog = watch.start(None, || ()).unwrap();
    let thread = watch.busy_thread("recorder", WatchKind::Recorder);
    {
        let _busy = thread.during("committing", "3 visits");
        let has_stall = |contents: &BlackBoxContents| {
            contents.records.iter().any(|record| matches!(record.event, BlackBoxEvent::StallBegan(_)))
        };
        // The thread makes the file, a moment later.
        let is_told = || BlackBoxContents::read(&path).is_ok_and(|contents| has_stall(&contents));
        wait_for("the stall is recorded while it lasts", is_told);
    }
    drop(work::on("parsing", "quick"));
    wait_for("the end of the stall is recorded", || {
        let ended = |event: &BlackBoxEvent| matches!(event, BlackBoxEvent::StallEnded { .. });
        read(&path).records.iter().any(|record| ended(&record.event))
    });
    end_run(end, 0, &path);
    let contents = read(&path);
    assert!(contents.pulse.unwrap().watchdog_boot_ms.is_some());
    let lines = contents.records.iter().filter_map(|record| match &record.event {
        BlackBoxEvent::Log { level, text } => Some((level.to_string(), text.to_string())),
        _ => None,
    });
    let lines: Vec<_> = lines.filter(|(_, text)| !text.contains("an event loop")).collect();
    assert_eq!(lines[0], ("INFO".to_owned(), "recorded items items=3".to_owned()));
    assert_eq!(lines[1].0, "WARN");
    assert!(lines[1].1.chars().count() <= 601 && lines[1].1.ends_with('…'), "{}", lines[1].1);
    assert_eq!(lines.len(), 2, "details and lines below the level are not recorded: {lines:?}");
    let tasks = contents.records.iter().filter_map(|record| match &record.event {
        BlackBoxEvent::Task { what, of, ms, .. } => Some((what.to_string(), of.to_string(), *ms)),
        _ => None,
    });
    let tasks: Vec<_> = tasks.collect();
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    assert_eq!((tasks[0].0.as_str(), tasks[0].1.as_str()), ("committing", "3 visits"));
    assert!(tasks[0].2 >= 1_000, "it lasted for at least the time that makes a stall");
    let stall = contents.records.iter().find_map(|record| match &record.event {
        BlackBoxEvent::StallBegan(stall) => Some(stall),
        _ => None,
    });
    assert_eq!(stall.unwrap().work.as_deref(), Some("committing of 3 visits"));
}
