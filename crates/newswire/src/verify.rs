//! `newswire verify`: runs six checks against a running gateway, as its clients would use it.
//!
//! The checks come from the invariants and from the checklist of the system that newswire replaced. They are safe in
//! production: a bounded number of streams, few of them open at once, one probe at a time, nothing is written, and no other
//! machine is contacted unless `--any-host` is given.

mod browser_client;
mod gateway;
mod loops;
mod probes;
mod report;
mod resources;
mod resume;
mod streams;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use daemon::{Exit, config::Config};
use notation::{BadDuration, parse_duration_within};
use tokio::time::Instant;
use url::{Host, Url};

use self::{
    browser_client::BrowserClient,
    gateway::GatewayClient,
    loops::WatchdogReports,
    probes::ProbeLoop,
    report::{CheckResult, VerifyReport},
    resources::GatewayResources,
};
use crate::{
    config_file::{ConfigFile, UsageError},
    doctor, out, tail,
};

/// Arguments of `newswire verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Gateway to check [default: gateway.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// Streams to open at the same time, at most 50
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u16).range(1..=50))]
    streams: u16,
    /// Streams to open and abort in total, at most 1000
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=1000))]
    aborts: u16,
    /// How long to listen to a stream, 1s to 5m; should be longer than gateway.heartbeat
    #[arg(long = "for", value_name = "DURATION", default_value = "12s", value_parser = listening)]
    listen_for: Duration,
    /// Allow a gateway that is not on the loopback interface of this machine
    #[arg(long)]
    any_host: bool,
    /// File with a read token, if the gateway requires one
    #[arg(long, value_name = "FILE", env = "NEWSWIRE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Longest time to listen.
const LISTEN_MAX: Duration = Duration::from_secs(300);
/// How long everything may take but listening, if that is longer than [`ALL_WITHIN`] allows.
const BESIDE_LISTENING: Duration = Duration::from_secs(12);
/// When the checks of streams end, however many answers are missing; what ends then takes [`END_WITHIN`] each.
const ALL_WITHIN: Duration = Duration::from_secs(20);
const END_WITHIN: Duration = Duration::from_secs(2);
/// Pairs of probes while the gateway is idle.
const IDLE_PAIRS: usize = 25;

fn listening(text: &str) -> Result<Duration, BadDuration> {
    parse_duration_within(text, Duration::from_secs(1)..=LISTEN_MAX)
}

pub(crate) async fn run(arguments: VerifyArgs) -> anyhow::Result<Exit> {
    let part = arguments.file.load_in_part();
    let (config, found) = doctor::config_of_running(&part).await;
    if found.is_empty() {
        arguments.file.refuse_missing()?;
    }
    for line in part.complaints.iter().chain(&part.unreadable).chain(&found) {
        out::stderr_line(&format!("newswire: {line}"));
    }
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => listen_url(&config)?,
    };
    check_url(&url, arguments.any_host)?;
    let token = arguments.token_file.as_deref().map(tail::read_token).transpose()?;
    let gateway = GatewayClient::connect(&url, token.as_deref()).await?;
    let began = Instant::now();
    let checks = check(&gateway, &config, &url, &arguments).await;
    let report = VerifyReport { url: gateway.to_string(), took: began.elapsed(), checks };
    report.print(arguments.json)?;
    Ok(report.exit())
}

/// The URL of the configured gateway, as seen from this machine.
fn listen_url(config: &Config) -> anyhow::Result<Url> {
    let mut listen = config.gateway.listen;
    if listen.ip().is_unspecified() {
        listen.set_ip(if listen.is_ipv4() {
            IpAddr::from([127, 0, 0, 1])
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    Url::parse(&format!("http://{listen}/")).context("make a URL of gateway.listen")
}

fn check_url(url: &Url, any_host: bool) -> Result<(), UsageError> {
    if url.scheme() != "http" {
        let why = "is not an http:// URL; name the gateway itself, not the proxy in front of it";
        return Err(UsageError(format!("{url} {why}")));
    }
    if is_loopback(url) || any_host {
        return Ok(());
    }
    let host = url.host_str().unwrap_or_default();
    Err(UsageError(format!("{host} is not on the loopback interface; --any-host checks it anyway")))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Runs all checks; returns them in the order in which they are shown.
async fn check(
    gateway: &GatewayClient,
    config: &Config,
    url: &Url,
    arguments: &VerifyArgs,
) -> Vec<CheckResult> {
    let deadline = Instant::now() + ALL_WITHIN.max(arguments.listen_for + BESIDE_LISTENING);
    let loops = WatchdogReports::fetch(config).await;
    let idle = probes::run_pairs(gateway, IDLE_PAIRS).await;
    let answers = idle.answers();
    if idle.answered() == 0 {
        let skipped = |name| CheckResult::skipped(name, "the gateway does not answer".to_owned());
        let names = [streams::NAME, probes::THROUGHOUT, browser_client::NAME, resume::NAME];
        let mut checks = vec![answers];
        checks.extend(names.map(skipped));
        checks.insert(3, loops.compare(&WatchdogReports::fetch(config).await, true));
        return checks;
    }
    let probe_loop = ProbeLoop::start(gateway);
    let (browser_client, resources) =
        tokio::join!(BrowserClient::start(gateway), GatewayResources::locate(config, url));
    let listening_since = Instant::now();
    let leaks =
        streams::check(gateway, &resources, arguments.streams, arguments.aborts, deadline - END_WITHIN);
    let leaks = by(deadline, streams::NAME, leaks).await;
    tokio::time::sleep_until(deadline.min(listening_since + arguments.listen_for)).await;
    let resume = by(deadline + END_WITHIN, resume::NAME, resume::check(gateway)).await;
    let heartbeat = resources.is_of_config().then_some(config.gateway.heartbeat);
    let browser_client = browser_client.end(heartbeat).await;
    let probes = probe_loop.end().await;
    let loops = loops.compare(&WatchdogReports::fetch(config).await, resources.is_expected());
    vec![answers, leaks, probes.throughout(&idle), loops, browser_client, resume]
}

/// A check that ends in time. One that does not has failed: it waits for answers of the gateway. What it had opened is closed.
async fn by(deadline: Instant, name: &'static str, check: impl Future<Output = CheckResult>) -> CheckResult {
    match tokio::time::timeout_at(deadline, check).await {
        Ok(result) => result,
        Err(_) => {
            let reason = "it waited for answers of the gateway until the time for all checks was over";
            CheckResult::failed(name, reason.to_owned(), serde_json::json!({}))
        }
    }
}
