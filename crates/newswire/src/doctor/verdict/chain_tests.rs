//! Verdicts that name the root of a chain of waits.

use super::*;
use crate::doctor::waits::{HeldBy, HeldHow, WaitLink, WaitsFor};

fn link(pid: i32, thread: &str, waits_for: WaitsFor, held_by: Option<HeldBy>) -> WaitLink {
    let process = match pid {
        INGESTD => "newswire-ingestd",
        GATEWAY => "newswire-gateway",
        _ => thread,
    };
    WaitLink {
        process: process.into(),
        pid,
        tid: Some(pid + 1),
        thread: thread.into(),
        ours: matches!(pid, INGESTD | GATEWAY),
        waits_for,
        held_by,
        still: true,
        at: None,
        root: false,
        says: format!("{thread} does not go on"),
    }
}

fn chain(process: &'static str, links: Vec<WaitLink>) -> WaitChain {
    WaitChain {
        process,
        since_ms: None,
        still: true,
        deadlock: false,
        also: Vec::new(),
        line: "one line".into(),
        links,
    }
}

fn held(pid: i32, how: HeldHow) -> Option<HeldBy> {
    Some(HeldBy { pid, tid: None, how })
}

fn pipe() -> WaitsFor {
    WaitsFor::Pipe { inode: Some(9), path: None, access: WaitAccess::Write }
}

/// A worker waits for a lock; its holder writes to a pipe; `less` does not read it.
fn blocked_by_less() -> WaitChain {
    let lock = WaitsFor::Lock { address: "0x7".into(), lock: LockKind::Mutex };
    let holder = Some(HeldBy { pid: GATEWAY, tid: Some(3), how: HeldHow::Likely });
    let links = vec![
        link(GATEWAY, "worker-0", lock, holder),
        link(GATEWAY, "watchdog", pipe(), held(812, HeldHow::OtherEnd)),
        link(812, "less", WaitsFor::Nothing, None),
    ];
    WaitChain { since_ms: Some(9_000), ..chain("newswire-gateway", links) }
}

#[test]
fn the_verdict_about_a_blocked_loop_names_the_root_of_its_chain() {
    let mut e = healthy();
    stall(&mut e.gateway, "worker-0", 9_000);
    e.waits = Part::Found(vec![blocked_by_less()]);
    let root = "; root: less does not go on";
    let verdict = expect(&e, VerdictCode::EventLoopBlocked, &["worker-0", root]);
    assert_eq!(verdict.line.matches("root:").count(), 1);
    // A chain that moves between the samples explains nothing.
    let moving = WaitChain { still: false, ..blocked_by_less() };
    e.waits = Part::Found(vec![moving]);
    assert!(!expect(&e, VerdictCode::EventLoopBlocked, &[]).line.contains("root:"));
    // Nor does the chain of a thread that no stalled loop waits for.
    let other = WaitChain { since_ms: None, ..blocked_by_less() };
    e.waits = Part::Found(vec![other]);
    assert!(!expect(&e, VerdictCode::EventLoopBlocked, &[]).line.contains("root:"));
    // Nor does that a thread waits for events.
    let events = WaitsFor::Events { call: "epoll_wait" };
    e.waits = Part::Found(vec![chain("newswire-gateway", vec![link(GATEWAY, "worker-0", events, None)])]);
    assert!(!expect(&e, VerdictCode::EventLoopBlocked, &[]).line.contains("root:"));
    // A healthy pair has no root.
    let mut e = healthy();
    e.waits = Part::Found(vec![blocked_by_less()]);
    assert!(!conclude(&e).line.contains("root:"));
}

#[test]
fn a_log_that_is_not_read_is_not_the_root_of_a_wait_for_something_else() {
    let mut e = healthy();
    let log = vec![
        link(GATEWAY, "log", pipe(), held(812, HeldHow::OtherEnd)),
        link(812, "less", WaitsFor::Nothing, None),
    ];
    e.waits = Part::Found(vec![chain("newswire-gateway", log)]);
    wire(&mut e).connected = false;
    assert!(!expect(&e, VerdictCode::WireCut, &[]).line.contains("root:"));
}

#[test]
fn one_thread_in_the_hands_of_a_debugger_explains_the_blocked_loop() {
    let mut e = healthy();
    stall(&mut e.gateway, "worker-0", 9_000);
    let debugger = || link(77, "gdb", WaitsFor::Events { call: "poll" }, None);
    let held_worker = || link(GATEWAY, "worker-0", WaitsFor::Tracer, held(77, HeldHow::Tracer));
    e.waits = Part::Found(vec![chain("newswire-gateway", vec![held_worker(), debugger()])]);
    let verdict =
        expect(&e, VerdictCode::HeldByDebugger, &["worker-0 of newswire-gateway (pid 200)", "pid 77 (gdb)"]);
    assert!(verdict.next.iter().all(|step| !step.contains("kill")), "{verdict:?}");
    // strace lets a thread go on again and again.
    let moves = WaitLink { still: false, ..held_worker() };
    e.waits = Part::Found(vec![chain("newswire-gateway", vec![moves, debugger()])]);
    expect(&e, VerdictCode::EventLoopBlocked, &[]);
    // On a busy machine it may take a second to.
    let runs = WaitLink { still: false, ..debugger() };
    e.waits = Part::Found(vec![chain("newswire-gateway", vec![held_worker(), runs])]);
    expect(&e, VerdictCode::EventLoopBlocked, &[]);
}

#[test]
fn a_tracer_that_cannot_write_its_output_is_not_the_root() {
    let mut e = healthy();
    let traced = link(INGESTD, "wire", WaitsFor::Tracer, held(77, HeldHow::Tracer));
    let tracer = link(77, "strace", pipe(), held(812, HeldHow::OtherEnd));
    let reader = link(812, "less", WaitsFor::Nothing, None);
    e.waits = Part::Found(vec![chain("newswire-ingestd", vec![traced, tracer, reader])]);
    let verdict =
        expect(&e, VerdictCode::HeldByDebugger, &["pid 77 (strace)", "; root: less does not go on"]);
    assert!(verdict.next[0].starts_with("read on where its output goes, in pid 812 (less)"), "{verdict:?}");
}
