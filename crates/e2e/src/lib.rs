//! End-to-end tests: the real programs between a fake web server and fake clients.
//!
//! Nothing here uses the product's own code for what it checks: [`Origin`] is a web server on a bare socket, because it
//! must be able to misbehave; [`http`] and [`sse`] are independent decoders, so that an encoder fault of the product is not
//! hidden by the same fault in its decoder; [`faults`] compares what was published with what arrived.
//!
//! What must never happen here: a test that waits without a deadline, a process that outlives its test, a check that
//! passes because it examined nothing.

mod browser;
pub mod crash_sweep;
mod delivery;
pub mod disk;
mod external_program;
mod forward_proxy;
pub mod http;
mod hub;
mod kills;
mod latency_control;
mod load_balancer;
mod mute_relay;
mod nats;
mod nats_run;
mod origin;
mod process;
mod reverse_proxy;
pub mod scenario;
pub mod sse;
mod stack;
mod stream_audit;
mod subscriber;
mod workload;

use std::time::Duration;

use tokio::time::Instant;

pub use self::{
    browser::{Browser, BrowserKind, on_path},
    delivery::{Published, faults},
    external_program::ExternalProgram,
    forward_proxy::{ForwardProxy, ProxiedRequest},
    hub::{HubRequest, TestHub},
    kills::{KillMoment, KillReport, KillRun, KillStep},
    latency_control::{LatencyControl, LatencyReport},
    load_balancer::{BalancerKind, LoadBalancer},
    mute_relay::MuteRelay,
    nats::{
        NatsApi, NatsCluster, NatsNetwork, NatsPath, NatsServer, PathState, Starved, nats_server_program,
        old_nats_server_program,
    },
    nats_run::{FaultRow, NatsFault, NatsRun, NatsRunSize},
    origin::{Behaviour, DocumentFormat, FeedShape, Origin, Request},
    process::{Binary, ChildProcess, StartOptions},
    reverse_proxy::{ProxyKind, ReverseProxy},
    stack::{TestSource, TestStack, Transport, free_address},
    stream_audit::{DeliveryTotals, KnownEvents, StreamAudit},
    subscriber::{Hops, RecordedEvent, StreamConnection, TestSubscriber},
    workload::{Workload, WorkloadPublisher},
};

/// Polls every 20 ms until `probe` returns a value or the deadline has passed.
///
/// # Errors
/// If the deadline passes; the error names `what`.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let until = Instant::now() + deadline;
    loop {
        if let Some(value) = probe().await {
            return Ok(value);
        }
        anyhow::ensure!(Instant::now() < until, "timed out after {deadline:?} waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The folder of real feeds named by `NEWSWIRE_CORPUS`; reports a skipped test and returns `None` if it is not set.
#[must_use]
pub fn corpus() -> Option<std::path::PathBuf> {
    let folder = std::env::var_os("NEWSWIRE_CORPUS").map(std::path::PathBuf::from);
    if folder.is_none() {
        log_line("SKIPPED: NEWSWIRE_CORPUS is not set");
    }
    folder
}

/// Prints a line for the person who reads the output of a test.
#[expect(clippy::print_stderr, reason = "output of tests and of the torture run")]
pub fn log_line(line: &str) {
    eprintln!("{line}");
}
