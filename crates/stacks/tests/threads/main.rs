//! Stack dumps of a process with threads at known locations: from outside, from inside, and compared with gdb.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]
#![expect(clippy::disallowed_methods, reason = "dedicated threads that block on purpose")]

mod busy;
mod gdb;
mod inside;
mod outside;
mod references;

use std::time::Duration;

use stacks::StackDump;

use busy::{line_of, named};

/// A thread is stopped while its stack is copied, and not while the copy is unwound and named, which takes most of the time.
fn assert_short_pauses(capture: &StackDump) {
    let limit = Duration::from_millis(100).max(capture.took / 2);
    assert!(capture.longest_pause < limit, "{:?} of {:?}", capture.longest_pause, capture.took);
}

/// Checks function, file and line of each thread.
fn assert_locations(capture: &StackDump, spins: bool) {
    let mut locations = vec![
        ("blocked", "blocked", "here it reads"),
        ("lock", "at_the_lock", "here it waits for the lock"),
        ("asleep", "asleep", "here it sleeps"),
        ("inbox", "inbox", "here it waits for work"),
    ];
    if spins {
        locations.push(("spinning", "spinning", "here it spins"));
    }
    for (name, function, comment) in locations {
        let thread = named(capture, name);
        let frame = thread.culprit().unwrap_or_else(|| panic!("no frame to blame in {thread}"));
        assert_eq!(
            frame.function.as_deref(),
            Some(format!("threads::busy::{function}").as_str()),
            "{thread}"
        );
        assert_eq!(frame.file.as_deref(), Some("crates/stacks/tests/threads/busy.rs"), "{thread}");
        if name == "spinning" {
            // It may be caught at any line of the loop.
            assert!(frame.line.is_some_and(|line| line.abs_diff(line_of(comment)) <= 2), "{thread}");
        } else {
            assert_eq!(frame.line, Some(line_of(comment)), "{thread}");
        }
        assert_eq!(thread.missing, None, "{thread}");
        assert_eq!(thread.is_idle(), name == "inbox", "{thread}");
    }
    let blocked = named(capture, "blocked");
    let callers: Vec<_> = blocked
        .frames
        .iter()
        .filter_map(|frame| frame.function.as_deref()?.strip_prefix("threads::busy::"))
        .take(3)
        .collect();
    assert_eq!(callers, ["blocked", "middle", "outer"], "{blocked}");
    assert!(
        blocked.to_string().contains("    at threads::busy::middle (crates/stacks/tests/threads/busy.rs:")
    );
}
