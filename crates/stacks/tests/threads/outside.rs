//! Stacks of another process.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{sys::ptrace, unistd::Pid};
use rustix::process::{Signal, kill_process};

use crate::{
    assert_locations, assert_short_pauses,
    busy::{BusyProcess, named},
};

const TRACED_PID: &str = "STACKS_TEST_TRACED_PID";

fn states(pid: i32) -> Vec<char> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let state = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    tasks.filter_map(state).collect()
}

fn to_pid(pid: i32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(pid).unwrap()
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}");
}

#[test]
fn every_thread_is_named_by_function_file_and_line() {
    let busy = BusyProcess::start("spin");
    let capture = stacks::of_process(busy.pid()).unwrap();
    assert_eq!(capture.pid, busy.pid());
    assert_locations(&capture, true);
    assert_short_pauses(&capture);
    assert!(capture.threads.is_sorted_by_key(|thread| thread.tid));
}

#[test]
fn a_running_process_goes_on_and_its_calls_are_not_cut_short() {
    let mut busy = BusyProcess::start("spin");
    for _ in 0..5 {
        stacks::of_process(busy.pid()).unwrap();
    }
    assert!(!states(busy.pid()).iter().any(|state| matches!(state, 't' | 'T')));
    assert_eq!(busy.send("still there?"), "still there?");
    assert_eq!(busy.send("release"), "4"); // one byte read, and one more at each of three calls
    let spins = || {
        let capture = stacks::of_process(busy.pid()).unwrap();
        named(&capture, "spinning").state == 'R'
    };
    wait_until("it does not spin any more", spins);
}

#[test]
fn a_stopped_process_is_reported_and_stays_stopped() {
    let mut busy = BusyProcess::start("spin");
    kill_process(to_pid(busy.pid()), Signal::STOP).unwrap();
    wait_until("it does not stop", || states(busy.pid()).iter().all(|state| *state == 'T'));
    for _ in 0..2 {
        let capture = stacks::of_process(busy.pid()).unwrap();
        assert_locations(&capture, true);
        assert!(capture.threads.iter().all(|thread| thread.state == 'T'));
        wait_until("it was woken", || states(busy.pid()).iter().all(|state| *state == 'T'));
    }
    kill_process(to_pid(busy.pid()), Signal::CONT).unwrap();
    assert_eq!(busy.send("awake?"), "awake?");
}

#[test]
fn a_process_that_samples_itself_meanwhile_loses_no_signal() {
    let mut busy = BusyProcess::start("spin");
    let pid = busy.pid();
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
    let outside = thread::spawn(move || {
        let mut dumps = 0;
        while stopped.try_recv().is_err() {
            stacks::of_process(pid).unwrap();
            dumps += 1;
        }
        dumps
    });
    for _ in 0..3 {
        // Each thread handles its signal, even if it is being traced.
        assert_locations(&busy.inside(), true);
    }
    stop.send(()).unwrap();
    assert!(outside.join().unwrap() > 0);
}

#[test]
fn threads_that_end_meanwhile_are_no_error() {
    let busy = BusyProcess::start("short");
    for _ in 0..10 {
        let capture = stacks::of_process(busy.pid()).unwrap();
        assert_locations(&capture, false);
    }
}

#[test]
fn a_runtime_without_work_is_idle_and_a_job_of_its_pool_is_not() {
    let busy = BusyProcess::start("runtime");
    let all_idle = || {
        let capture = stacks::of_process(busy.pid()).unwrap();
        let of_runtime: Vec<_> = capture.threads.iter().filter(|thread| thread.name == "rt").collect();
        assert!(of_runtime.len() >= 4, "{capture:#?}");
        let (jobs, others): (Vec<_>, Vec<_>) = of_runtime.into_iter().partition(|thread| {
            thread.culprit().and_then(|frame| frame.function.as_deref()) == Some("threads::busy::job")
        });
        jobs.len() == 1 && !jobs[0].is_idle() && others.iter().all(|thread| thread.is_idle())
    };
    wait_until("the runtime does not come to rest", all_idle);
}

#[test]
fn a_second_tracer_gets_the_pid_of_the_first() {
    let busy = BusyProcess::start("");
    ptrace::seize(Pid::from_raw(busy.pid()), ptrace::Options::empty()).unwrap();
    let capture = stacks::of_process(busy.pid()).unwrap();
    let main = &capture.threads[0];
    let missing = main.missing.as_deref().unwrap();
    let us = format!("process {} (", std::process::id());
    assert!(missing.starts_with(&us) && missing.contains("already traces it"), "{missing}");
    assert!(main.frames.is_empty());
    // The other threads are not traced.
    assert_locations(&capture, false);
}

#[test]
fn without_permission_the_dump_has_proc_data_and_advice() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can change the user");
        return;
    }
    let busy = BusyProcess::start("");
    let pid = busy.pid();
    let nobody = rustix::process::Uid::from_raw(65534);
    // Only for this thread and those that it starts.
    let look = move || {
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        stacks::of_process(pid).unwrap()
    };
    let capture = thread::spawn(look).join().unwrap();
    let blocked = named(&capture, "blocked");
    assert_eq!(blocked.state, 'S');
    assert!(blocked.frames.is_empty());
    let missing = blocked.missing.as_deref();
    assert_eq!(missing, Some("the process belongs to user 0, not to user 65534; run as root"));
}

#[test]
fn what_does_not_exist_is_an_error() {
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    for pid in [ended.id().cast_signed(), 0, -1, i32::MAX] {
        let error = stacks::of_process(pid).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        assert_eq!(error.to_string(), format!("there is no process {pid}"));
    }
}

#[test]
fn tracing_its_own_process_is_an_error() {
    let capture = stacks::of_process(std::process::id().cast_signed()).unwrap();
    let missing = capture.threads[0].missing.as_deref().unwrap();
    assert!(missing.starts_with("a process cannot trace itself"), "{missing}");
}

/// Not a test: dumps a process until it is killed.
#[test]
#[ignore = "the process that the tests kill"]
fn tracing_process() {
    let Ok(pid) = std::env::var(TRACED_PID) else { return };
    loop {
        stacks::of_process(pid.parse().unwrap()).unwrap();
    }
}

#[test]
fn a_tracer_that_is_killed_leaves_nothing_stopped() {
    let mut busy = BusyProcess::start("spin");
    for round in 0..5 {
        let mut tracer = Command::new(std::env::current_exe().unwrap())
            .args(["outside::tracing_process", "--exact", "--ignored"])
            .env(TRACED_PID, busy.pid().to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        // Kill it in the middle of a dump, at a different point each time.
        while began.elapsed() < Duration::from_millis(200 + 37 * round) {
            thread::sleep(Duration::from_millis(1));
        }
        tracer.kill().unwrap();
        tracer.wait().unwrap();
        wait_until("left stopped", || !states(busy.pid()).iter().any(|state| matches!(state, 't' | 'T')));
    }
    assert_eq!(busy.send("still there?"), "still there?");
}
