//! The fake outside world, and the stories that the real programs live through in it.
//!
//! Nothing here uses the product's own code for what it checks: [`Origin`] is a web server on a bare socket, because it
//! must be able to behave badly; [`http`] and [`sse`] are readers of their own, so that a fault of the product's encoder
//! cannot hide behind the same fault in its decoder; [`faults`] compares what was published with what arrived.
//!
//! What must never happen here: a test that waits without a deadline, a process that outlives its test, a check that
//! passes because nothing was looked at.

mod browser;
pub mod http;
mod hub;
mod listener;
mod oracle;
mod origin;
mod prober;
mod process;
pub mod sse;
mod stack;
pub mod story;
mod subscriber;

use std::time::Duration;

use tokio::time::Instant;

pub use self::{
    browser::{Browser, on_path},
    hub::{Asked, Hub},
    listener::Listener,
    oracle::{Published, faults},
    origin::{Behaviour, Format, Origin, Request},
    prober::{Probe, Prober, Report},
    process::{Manner, Process, Program},
    stack::{SourceEntry, Stack, free_address},
    subscriber::{Connection, Record, Subscriber},
};

/// Asks again and again, each 20 ms, until there is an answer or the deadline has passed.
///
/// # Errors
/// When the deadline passes: names what was waited for.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut question: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let until = Instant::now() + deadline;
    loop {
        if let Some(answer) = question().await {
            return Ok(answer);
        }
        anyhow::ensure!(Instant::now() < until, "waited {deadline:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The folder of real feeds named by `NEWSWIRE_CORPUS`; says loudly that its test was skipped when there is none.
#[must_use]
pub fn corpus() -> Option<std::path::PathBuf> {
    let folder = std::env::var_os("NEWSWIRE_CORPUS").map(std::path::PathBuf::from);
    if folder.is_none() {
        say("SKIPPED: NEWSWIRE_CORPUS is not set");
    }
    folder
}

/// One line to the person who reads the test's output.
#[expect(clippy::print_stderr, reason = "tests and the torture run speak to a person, on the standard error")]
pub fn say(line: &str) {
    eprintln!("{line}");
}
