//! `newswire verify`: whether a running system keeps its promises, found out by using it.
//!
//! Six boxes, from the checklist of the system that this one replaces and from our own invariants. It is polite enough for
//! production: a bounded number of streams, of which few are open at once, one probe at a time, nothing written, and no
//! other machine unless told so.

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
    tail,
};

/// Arguments of `newswire verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Gateway to check [default: gateway.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// Streams open at the same time, at most 50
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u16).range(1..=50))]
    streams: u16,
    /// Streams opened and aborted in all, at most 1000
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=1000))]
    aborts: u16,
    /// How long a client listens, 1s to 5m; more than gateway.heartbeat, or nothing may come
    #[arg(long = "for", value_name = "DURATION", default_value = "12s", value_parser = listening)]
    listen_for: Duration,
    /// Check a gateway that is not on this machine's loopback
    #[arg(long)]
    any_host: bool,
    /// File with the read token, where the gateway asks for one
    #[arg(long, value_name = "FILE", env = "NEWSWIRE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Longest time that a client listens.
const LISTEN_MAX: Duration = Duration::from_secs(300);
/// Pairs of probes before anything is done to the gateway.
const IDLE_PAIRS: usize = 25;

fn listening(text: &str) -> Result<Duration, String> {
    let found = news::parse_duration(text).filter(|d| (Duration::from_secs(1)..=LISTEN_MAX).contains(d));
    found.ok_or_else(|| "a duration of 1s to 5m is wanted".to_owned())
}

pub(crate) async fn run(arguments: VerifyArgs) -> anyhow::Result<Exit> {
    let config = arguments.file.load()?.config;
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
    Ok(if report.failed() { Exit::Failure } else { Exit::Ok })
}

/// Where the gateway of this configuration is reached from here.
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
        let why = "is no http:// address; check the gateway itself, not the proxy in front of it";
        return Err(UsageError(format!("{url} {why}")));
    }
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if loopback || any_host {
        return Ok(());
    }
    let host = url.host_str().unwrap_or_default();
    Err(UsageError(format!("{host} is not this machine's loopback; --any-host checks it all the same")))
}

/// All boxes, in the order in which they are shown.
async fn check(
    gateway: &GatewayClient,
    config: &Config,
    url: &Url,
    arguments: &VerifyArgs,
) -> Vec<CheckResult> {
    let loops = WatchdogReports::look(config).await;
    let idle = probes::some(gateway, IDLE_PAIRS).await;
    let answers = idle.answers();
    if idle.answered() == 0 {
        let not = |name| CheckResult::skipped(name, "the gateway does not answer".to_owned());
        let names = [streams::NAME, probes::THROUGHOUT, browser_client::NAME, resume::NAME];
        let mut checks = vec![answers];
        checks.extend(names.map(not));
        checks.insert(3, loops.compare(&WatchdogReports::look(config).await));
        return checks;
    }
    let prober = ProbeLoop::start(gateway);
    let browser_client = BrowserClient::start(gateway).await;
    let listened = Instant::now();
    let resources = GatewayResources::find(config, url).await;
    let behind = streams::check(gateway, &resources, arguments.streams, arguments.aborts).await;
    tokio::time::sleep_until(listened + arguments.listen_for).await;
    let resume = resume::check(gateway).await;
    let heartbeat = resources.is_of_config().then_some(config.gateway.heartbeat);
    let browser_client = browser_client.end(heartbeat).await;
    let probes = prober.end().await;
    let loops = loops.compare(&WatchdogReports::look(config).await);
    vec![answers, behind, probes.throughout(&idle), loops, browser_client, resume]
}
