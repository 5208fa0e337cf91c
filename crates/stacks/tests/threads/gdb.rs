//! Compares our dump with gdb's, if it is installed.

use std::{collections::BTreeMap, process::Command};

use crate::busy::BusyProcess;

const FUNCTIONS: &[&str] = &["blocked", "middle", "outer", "at_the_lock", "asleep", "inbox", "spinning"];

/// A function of the child without its path, and the line it is at.
type Location = (String, u32);

/// `#6 0x00.. in threads::busy::blocked::h0123 (..) at crates/.../busy.rs:30`, or the unqualified name.
fn location(line: &str) -> Option<Location> {
    let (head, line) = line.rsplit_once("/busy.rs:")?;
    let function = head.split(" (").next()?.rsplit(' ').next()?;
    let function = function.split("::").find(|part| FUNCTIONS.contains(part))?;
    Some((function.to_owned(), line.trim().parse().ok()?))
}

/// The child's own functions by thread, innermost first.
fn gdb_stacks(pid: i32) -> Option<BTreeMap<i32, Vec<Location>>> {
    let pid = pid.to_string();
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-p", &pid, "-ex", "thread apply all bt"])
        .env("DEBUGINFOD_URLS", "")
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut threads: BTreeMap<i32, Vec<Location>> = BTreeMap::new();
    let mut current = 0;
    for line in text.lines() {
        if line.starts_with("Thread ") {
            current = line.split_once("LWP ")?.1.split(')').next()?.parse().ok()?;
        } else if line.starts_with('#') && current != 0 {
            threads.entry(current).or_default().extend(location(line));
        }
    }
    threads.retain(|_, locations| !locations.is_empty());
    assert!(threads.len() >= 5, "gdb said nothing of use: {text}{}", String::from_utf8_lossy(&output.stderr));
    Some(threads)
}

#[test]
fn gdb_sees_the_same_functions_and_lines() {
    let busy = BusyProcess::start("spin");
    let Some(expected) = gdb_stacks(busy.pid()) else {
        eprintln!("SKIPPED: gdb is not installed; nothing was compared");
        return;
    };
    let capture = stacks::of_process(busy.pid()).unwrap();
    for (tid, mut expected) in expected {
        let thread = capture.threads.iter().find(|thread| thread.tid == tid).unwrap();
        let ours = thread.frames.iter().filter_map(|frame| {
            let function = frame.function.as_deref()?.strip_prefix("threads::busy::")?;
            FUNCTIONS.contains(&function).then(|| (function.to_owned(), frame.line.unwrap_or(0)))
        });
        let mut ours: Vec<Location> = ours.collect();
        if thread.name == "spinning" {
            // It runs on between the two dumps.
            for (_, line) in ours.iter_mut().chain(&mut expected) {
                *line = 0;
            }
        }
        assert_eq!(ours, expected, "{thread}");
    }
}
