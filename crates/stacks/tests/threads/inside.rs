//! Stacks of this process.

use std::{sync::mpsc, thread, time::Duration};

use stacks::{SelfSampler, StackFrame};

use crate::{assert_locations, assert_short_pauses, busy::BusyProcess, outside::wait_until};

#[test]
fn every_thread_is_named_by_function_file_and_line() {
    let capture = BusyProcess::start("spin").inside();
    assert_locations(&capture, true);
    assert_short_pauses(&capture);
}

#[test]
fn a_process_that_may_not_be_traced_can_sample_itself() {
    let mut busy = BusyProcess::start("undumpable");
    assert_locations(&busy.inside(), false);
}

#[test]
fn calls_that_wait_are_not_cut_short() {
    let mut busy = BusyProcess::start("spin");
    for _ in 0..3 {
        busy.inside();
    }
    assert_locations(&busy.inside(), true);
    assert_eq!(busy.send("release"), "4"); // one byte read, and one more at each of three calls
}

#[test]
fn threads_that_end_meanwhile_are_no_error() {
    let mut busy = BusyProcess::start("short");
    for _ in 0..3 {
        assert_locations(&busy.inside(), false);
    }
}

#[test]
fn the_sampling_thread_is_excluded_and_an_ended_one_is_none() {
    let inside = SelfSampler::install().unwrap();
    let (send, received) = mpsc::sync_channel(1);
    let short = thread::spawn(move || send.send(rustix::thread::gettid().as_raw_nonzero().get()));
    let tid = received.recv().unwrap();
    short.join().unwrap().unwrap();
    for _ in 0..30_000 {
        // The kernel removes a thread a little after it was joined.
        if !std::path::Path::new(&format!("/proc/self/task/{tid}")).exists() {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(inside.one(tid), None);
    let me = rustix::thread::gettid().as_raw_nonzero().get();
    assert!(inside.all().threads.iter().all(|thread| thread.tid != me));
}

#[test]
fn it_can_be_installed_again() {
    SelfSampler::install().unwrap();
    SelfSampler::install().unwrap();
}

#[test]
fn several_threads_may_sample_at_once() {
    let inside = SelfSampler::install().unwrap();
    let (_keep, wait) = mpsc::sync_channel::<()>(1);
    let waiting = thread::Builder::new().name("waiting".to_owned()).spawn(move || wait.recv()).unwrap();
    let receives = |frame: &StackFrame| {
        frame.function.as_deref().is_some_and(|function| function.contains("mpsc::Receiver"))
    };
    let is_waiting = || {
        let threads = inside.all().threads;
        threads.iter().any(|thread| thread.name == "waiting" && thread.frames.iter().any(receives))
    };
    // A new thread is not at its location at once.
    wait_until("the thread waits", is_waiting);
    let ask = || {
        for _ in 0..3 {
            assert!(is_waiting());
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(ask);
        }
    });
    drop(_keep);
    assert!(waiting.join().unwrap().is_err());
}
