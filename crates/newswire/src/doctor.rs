//! `newswire doctor`: why does it hang, answered in one command, also while everything is frozen.
//!
//! It looks from outside first (the kernel's view of sockets and processes, plain HTTP) and asks the processes second,
//! each question with its own deadline, all at the same time. Whatever cannot be had is missing with a reason; a
//! [`verdict`](judge::judge) without any input or output of its own makes one verdict of the rest.

mod admin;
mod evidence;
mod gather;
pub(crate) mod http;
mod listener;
mod locate;
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
    /// The evidence and the verdict as one JSON object
    #[arg(long)]
    json: bool,
    /// Only /health, /ready, which processes run, and the verdict; at most 2 s, for health checks
    #[arg(long)]
    quick: bool,
    /// Look at this process alone
    #[arg(long, value_name = "N", conflicts_with = "url")]
    pid: Option<i32>,
    /// Look at a gateway from outside alone [default: gateway.listen of the configuration, and both processes]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// Do not take stacks
    #[arg(long)]
    no_stacks: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Prints what was found. JSON is one object, and its names stay:
///
/// ```text
/// { "verdict": {"code", "line", "next": [..], "exit"},
///   "evidence": {
///     "at" (RFC 3339), "took_ms", "version", "quick", "config" (path or null), "run_dir",
///     "http": {"address", "probes": [{"path","connect_ms","first_byte_ms","status","error"}], "ready": {..}},
///     "listener": {"address", "sockets": [{"inode","address","backlog","owners": [{"pid","name","command",
///                  "uptime_ms"}]}], "blind_to" (processes whose files this user may not see)},
///     "ingestd", "gateway": {
///       "name", "presence" ("running" | "absent" | "unknown" | "not-asked"), "found_by", "socket",
///       "process": {"pid","command","state","stopped","frozen","tracer","threads","states","open_files","rss_bytes",
///                   "memory","uptime_ms","cpu_ms","sampled_ms","cpu_sampled_ms","run_delay_ms","tasks"},
///       "health", "watch" (what the admin socket says), "late": [..], "unit" (systemd's view),
///       "stacks": {"from" ("inside" | "outside"), "took_ms","longest_pause_ms","threads": [..]},
///       "others": [{"pid","command"}] },
///     "store": {"path","free_bytes","total_bytes","free_inodes"} } }
/// ```
///
/// A part that could not be had is `{"missing": "why"}` in its place.
pub(crate) async fn run(arguments: DoctorArgs) -> anyhow::Result<Exit> {
    let wish = gather::GatherOptions {
        quick: arguments.quick,
        stacks: !arguments.no_stacks && !arguments.quick,
        whom: whom(&arguments)?,
    };
    let loaded = arguments.file.load()?;
    let evidence = gather::gather(&wish, &loaded).await;
    if let gather::DoctorTarget::Pid(pid) = wish.whom
        && evidence.daemons().all(|daemon| daemon.process.get().is_none())
    {
        return Err(UsageError(format!("--pid: there is no process {pid} that can be looked at")).into());
    }
    let verdict = verdict::verdict(&evidence);
    if arguments.json {
        let whole = json!({ "verdict": verdict, "evidence": evidence });
        out::stdout_line(&serde_json::to_string(&whole).context("write the evidence")?)?;
    } else {
        for line in show::lines(&evidence, &verdict, Paint::for_stdout()) {
            out::stdout_line(&line)?;
        }
    }
    Ok(verdict.exit())
}

fn whom(arguments: &DoctorArgs) -> anyhow::Result<gather::DoctorTarget> {
    let Some(url) = &arguments.url else {
        return Ok(arguments.pid.map_or(gather::DoctorTarget::Both, gather::DoctorTarget::Pid));
    };
    let wrong = |why: &str| UsageError(format!("--url: {why}"));
    if url.scheme() != "http" {
        return Err(wrong("the doctor speaks plain http; name the gateway behind the proxy").into());
    }
    let host = url.host_str().ok_or_else(|| wrong("a host is wanted"))?;
    Ok(gather::DoctorTarget::Url { host: host.to_owned(), port: url.port_or_known_default().unwrap_or(80) })
}
