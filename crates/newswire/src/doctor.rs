//! `newswire doctor`: diagnoses a hang, even while both processes are frozen. `doctor/README.md` explains the verdicts.
//!
//! It gathers evidence from outside (the kernel's view of sockets and processes, plain HTTP) and from the processes
//! themselves, all at the same time, each request with its own deadline. Unavailable parts have a reason. Then
//! [`conclude`](verdict::conclude), which does no I/O, makes one verdict of the evidence.

mod admin;
mod evidence;
mod gather;
pub(crate) mod http;
mod listener;
mod locate;
mod log_end;
mod part;
mod process;
mod show;
mod systemd;
mod threads;
mod verdict;

use anyhow::Context as _;
use clap::Args;
use daemon::Exit;
use serde_json::json;
use url::Url;

use crate::{
    config_file::{ConfigFile, UsageError},
    out::{self, Paint},
};

/// Arguments of `newswire doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print the evidence and the verdict as one JSON object
    #[arg(long)]
    json: bool,
    /// Check only which processes run, /health and /ready; takes at most 2 s (for health checks)
    #[arg(long)]
    quick: bool,
    /// Examine only this process
    #[arg(long, value_name = "N", conflicts_with = "url")]
    pid: Option<i32>,
    /// Examine only what a gateway answers at this URL [default: both processes of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// Do not capture the stacks of threads
    #[arg(long)]
    no_stacks: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Prints evidence and verdict. The JSON is one object, and its names are stable:
///
/// ```text
/// { "verdict": {"code", "line", "next": [..], "exit"},
///   "evidence": {
///     "at" (RFC 3339), "took_ms", "version", "quick", "config" (path or null), "run_dir",
///     "http": {"address", "probes": [{"path","connect_ms","first_byte_ms","status","error"}], "ready": {..}},
///     "listener": {"address", "sockets": [{"inode","address","backlog","owners": [{"pid","name","command",
///                  "uptime_ms"}]}], "blind_to" (number of processes whose files this user may not see)},
///     "ingestd", "gateway": {
///       "name", "presence" ("running" | "absent" | "unknown" | "not-asked"), "found_by", "socket",
///       "process": {"pid","command","state","stopped","frozen","tracer","threads","states","open_files","rss_bytes",
///                   "memory","uptime_ms","cpu_ms","sampled_ms","cpu_sampled_ms","run_delay_ms","tasks"},
///       "health", "watch" (answers of the admin socket), "late": [..], "unit" (systemd's view),
///       "stacks": {"from" ("inside" | "outside"), "took_ms","longest_pause_ms","threads": [..]},
///       "log_end": {"kind","target","readers": [{"pid","name"}]} (only if the output of its log takes no lines),
///       "others": [{"pid","command"}] },
///     "store": {"path","free_bytes","total_bytes","free_inodes"} } }
/// ```
///
/// An unavailable part is `{"missing": "why"}`.
pub(crate) async fn run(arguments: DoctorArgs) -> anyhow::Result<Exit> {
    let options = gather::GatherOptions {
        quick: arguments.quick,
        stacks: !arguments.no_stacks && !arguments.quick,
        target: target(&arguments)?,
    };
    let loaded = arguments.file.load()?;
    let evidence = Box::pin(gather::gather(&options, &loaded)).await;
    if let gather::DoctorTarget::Pid(pid) = options.target
        && evidence.daemons().all(|daemon| daemon.process.get().is_none())
    {
        return Err(UsageError(format!("--pid: process {pid} does not exist or may not be examined")).into());
    }
    let verdict = verdict::conclude(&evidence);
    if arguments.json {
        let report = json!({ "verdict": verdict, "evidence": evidence });
        out::stdout_line(&serde_json::to_string(&report).context("write the evidence")?)?;
    } else {
        for line in show::lines(&evidence, &verdict, Paint::for_stdout()) {
            out::stdout_line(&line)?;
        }
    }
    Ok(verdict.exit())
}

fn target(arguments: &DoctorArgs) -> anyhow::Result<gather::DoctorTarget> {
    let Some(url) = &arguments.url else {
        return Ok(arguments.pid.map_or(gather::DoctorTarget::Both, gather::DoctorTarget::Pid));
    };
    let wrong = |why: &str| UsageError(format!("--url: {why}"));
    if url.scheme() != "http" {
        return Err(
            wrong("expected an http:// URL; name the gateway itself, not the proxy in front of it").into()
        );
    }
    let host = url.host_str().ok_or_else(|| wrong("expected a URL with a host"))?;
    Ok(gather::DoctorTarget::Url { host: host.to_owned(), port: url.port_or_known_default().unwrap_or(80) })
}
