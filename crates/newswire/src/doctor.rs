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
mod mounts;
mod nats;
mod other_gateways;
mod part;
mod presence;
mod process;
mod program;
mod proof_entry;
mod resources;
mod second_look;
mod settle;
mod show;
mod started_as;
mod systemd;
mod threads;
mod verdict;
mod waits;

use anyhow::Context as _;
use clap::Args;
use daemon::{Exit, config::Config};
use procfs::process::Process;
use serde_json::json;
use url::Url;

use std::time::Duration;

use self::evidence::Target;
use crate::{
    config_file::{ConfigFile, ConfigInPart, UsageError},
    logs,
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
    /// Also print what both processes did in this time, from their black boxes, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = logs::since, conflicts_with = "url")]
    since: Option<Duration>,
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
///     "at" (RFC 3339), "took_ms", "version", "is_root", "quick", "target" ("both" | "pid" | "url"), "config" (path or null),
///     "configured": {"listen","store","complaints": [..],"unreadable"}, "run_dir", "run_dir_group",
///     "proof": [{"part", "state" ("proved" | "unknown" | "not-asked"), "why", "remedy"}],
///     "http": {"address", "probes": [{"path","connect_ms","first_byte_ms","status","error","health"}], "ready": {..}},
///     "listener": {"address", "sockets": [{"inode","address","backlog","owners": [{"pid","name","command",
///                  "uptime_ms","program"}]}], "blind_to" (number of processes whose files this user may not see)},
///     "ingestd", "gateway": {
///       "name", "presence" ("running" | "absent" | "unknown" | "not-asked"), "found_by", "socket",
///       "process": {"pid","inner_pids","command","state","stopped","frozen","tracer","threads","states","open_files",
///                   "open_files_hard_max","rss_bytes",
///                   "memory","uptime_ms","cpu_ms","sampled_ms","cpu_sampled_ms","run_delay_ms","tasks"},
///       "resources": {"sampled_ms","frozen","cpu","memory","tasks","pressure","still"} (control groups, limits and
///                     threads that did not run, sampled twice),
///       "health", "watch" (answers of the admin socket), "watch_later" (a second later), "watched_for_ms",
///       "watchdog_ran", "late": [..], "unit" (systemd's view), "foreign" (another program at its admin socket),
///       "denied" (this user may not enter the directory), "may_end" (he may send it signals),
///       "started": {"command": [..],"folder","user","variables": [..],"parent","by_up"} (how it was started, or would be),
///       "stacks": {"from" ("inside" | "outside"), "took_ms","longest_pause_ms","threads": [..]},
///       "black_box": {"path","process": {"pid","version","started_wall_ms","boot_id",..},"running","written_ms_ago",
///                     "watchdog_looked_ms_before","dropped","damaged","end": {"how","exit","error"},"stalls": [..],
///                     "records": [{"at","ms_ago","seq","event",..}],"previous" (the same of the run before, or null)},
///       "log_end": {"kind","target","readers": [{"pid","name"}]} (only if the output of its log takes no lines),
///       "others": [{"pid","command"}] },
///     "store": {"path","free_bytes","total_bytes","free_inodes"},
///     "nats" (if it is the wire): {"servers","stream","problem": {"kind","text"},"epoch","outboxes",
///         "monitored","groups","readers"},
///     "pressure" (PSI of the machine): {"cpu","memory","io"},
///     "waits": [{"process", "since_ms", "still", "deadlock", "also" (threads that wait for the same), "line",
///                "links": [{"process","pid","tid" (null for the whole process),"thread","ours","waits_for": {"kind",..},
///                           "held_by": {"pid","tid","how"} or null,"still","at","root" (true for the last),"says"}]}] } }
/// ```
///
/// An unavailable part is `{"missing": "why"}`.
pub(crate) async fn run(arguments: DoctorArgs) -> anyhow::Result<Exit> {
    let options = gather::GatherOptions {
        quick: arguments.quick,
        stacks: !arguments.no_stacks && !arguments.quick,
        since: arguments.since,
        target: target(&arguments)?,
    };
    if let gather::DoctorTarget::Pid(pid) = options.target {
        refuse_foreign(pid)?;
    }
    let config = arguments.file.load_in_part();
    let (mut evidence, mut others) = tokio::join!(
        Box::pin(gather::gather(&options, &config)),
        Box::pin(other_gateways::examine(&options, &config)),
    );
    others.retain(|other| Some(other.pid) != evidence.gateway.pid());
    evidence.other_gateways = others;
    // A file that was deleted while they run is no mistake on the command line.
    if evidence.target == Target::Both && evidence.daemons().all(|daemon| !daemon.is_running()) {
        arguments.file.refuse_missing()?;
    }
    if let gather::DoctorTarget::Pid(pid) = options.target
        && evidence.daemons().all(|daemon| daemon.process.get().is_none())
    {
        return Err(UsageError(format!("--pid: process {pid} does not exist or may not be examined")).into());
    }
    evidence.proof = verdict::proof::prove(&evidence);
    let verdict = verdict::conclude(&evidence);
    if arguments.json {
        let report = json!({ "verdict": verdict, "evidence": evidence });
        out::stdout_line(&serde_json::to_string(&report).context("write the evidence")?)?;
    } else {
        let detail =
            arguments.since.map_or(show::BlackBoxDetail::IfItTellsMore, |_| show::BlackBoxDetail::Asked);
        for line in show::lines(&evidence, &verdict, detail, Paint::for_stdout()) {
            out::stdout_line(&line)?;
        }
    }
    Ok(verdict.exit())
}

/// The configuration with the directories and the address of the running processes, if what is written cannot be relied on:
/// a broken configuration takes no tool away. Returns how they were found, if they were.
pub(crate) async fn config_of_running(config: &ConfigInPart) -> (Config, Vec<String>) {
    let mut values = config.loaded.config.clone();
    let mut found = Vec::new();
    if config.is_whole() {
        return (values, found);
    }
    let instance = gather::instance(config);
    for program in [program::INGESTD, program::GATEWAY] {
        let located = locate::locate(program, &instance, None).await;
        let Some(pid) = located.pid else { continue };
        let Some(folder) = locate::admin_socket_of(pid).and_then(|socket| Some(socket.parent()?.to_owned()))
        else {
            continue;
        };
        found.push(format!(
            "{program} (pid {pid}): {}; its sockets are in {}",
            located.how,
            folder.display()
        ));
        match program {
            program::INGESTD => values.daemon.run_dir = folder,
            _ => {
                if let Some(address) = listener::of(pid).first() {
                    values.gateway.listen = *address;
                }
                values.gateway.admin_dir = Some(folder);
            }
        }
    }
    (values, found)
}

/// A process that runs another program cannot be healthy as one of ours.
fn refuse_foreign(pid: i32) -> Result<(), UsageError> {
    let Ok(process) = Process::new(pid) else {
        return Err(UsageError(format!("--pid: process {pid} does not exist or may not be examined")));
    };
    if let Some(process) = process::process_of(pid).filter(|process| *process != pid) {
        return Err(UsageError(format!(
            "--pid: {pid} is a thread of process {process}; ask for --pid {process}"
        )));
    }
    match program::of(pid) {
        Some(_) => Ok(()),
        None => Err(UsageError(format!(
            "--pid: process {pid} runs `{}`, which is neither {} nor {}",
            out::safe(&process::command(&process)),
            program::INGESTD,
            program::GATEWAY
        ))),
    }
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
