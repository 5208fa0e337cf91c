//! The promises about signals to an operator. The process is this test binary itself, started as a child with its role in
//! an environment variable.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use daemon::stop::{self, OperatorRequests};
use daemon::watch::Watch;
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "DAEMON_TEST_ROLE";

/// Handles its signals; in the role `stuck` it never does.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let say = |word: &'static str| Box::new(move || println!("{word}"));
        let requests = OperatorRequests {
            quit: say("quit"),
            usr1: say("louder"),
            usr2: say("quieter"),
            watch: Watch::new(),
        };
        let mut signals = stop::on_signals_with(requests).unwrap();
        println!("\nready");
        if role == "stuck" {
            let (_never, forever) = sync_channel::<()>(0);
            assert!(forever.recv().is_ok());
        }
        loop {
            tokio::select! {
                () = signals.stop.cancelled() => break,
                changed = signals.reload.changed() => {
                    changed.unwrap();
                    println!("reload {}", *signals.reload.borrow_and_update());
                }
            }
        }
        println!("stopped");
    });
}

/// A running child and its lines, ready for signals.
fn spawn(role: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    until(&mut lines, "ready");
    (child, lines)
}

fn until(lines: &mut Lines<BufReader<ChildStdout>>, wanted: &str) {
    assert!(lines.any(|line| line.unwrap() == wanted), "the child ended without `{wanted}`");
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn the_first_sigterm_or_sigint_requests_a_stop() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut child, mut lines) = spawn("willing");
        send(&child, signal);
        until(&mut lines, "stopped");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_sighup_requests_a_reload_and_nothing_else() {
    let (mut child, mut lines) = spawn("willing");
    send(&child, Signal::HUP);
    until(&mut lines, "reload 1");
    send(&child, Signal::HUP);
    until(&mut lines, "reload 2");
    send(&child, Signal::TERM);
    until(&mut lines, "stopped");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_other_signals_run_their_actions_even_in_a_stuck_process() {
    let (mut child, mut lines) = spawn("stuck");
    for (signal, word) in [(Signal::USR1, "louder"), (Signal::USR2, "quieter"), (Signal::QUIT, "quit")] {
        send(&child, signal);
        until(&mut lines, word);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_second_signal_ends_even_a_stuck_process() {
    let (mut child, _lines) = spawn("stuck");
    send(&child, Signal::TERM);
    // Those that follow within a moment are the same order; a later one is another.
    let end = loop {
        std::thread::sleep(Duration::from_millis(100));
        if let Some(end) = child.try_wait().unwrap() {
            break end;
        }
        send(&child, Signal::INT);
    };
    assert_eq!(end.code(), Some(1));
}
