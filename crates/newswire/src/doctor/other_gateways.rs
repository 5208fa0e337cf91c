//! The other gateways of the same ingestion daemon on this machine: those that are connected to its wire, and those whose
//! configuration names its socket. Each is examined as `newswire doctor --pid` does, so no kind of fault is overlooked.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use control::ControlSocket;
use daemon::Exit;
use procfs::process::{Process, all_processes};
use tokio::time::timeout;

use super::{
    evidence::{Evidence, OtherGateway},
    gather::{self, DoctorTarget, GatherOptions},
    listener,
    locate::{self, Instance},
    process,
    program::{self, GATEWAY, INGESTD},
    verdict, waits,
};
use crate::{config_file::ConfigInPart, within};

/// So many are examined.
const GATEWAYS_MAX: usize = 8;
/// How long looking through all processes may take.
const FOUND_WITHIN: Duration = Duration::from_secs(3);
/// How long examining them may take; they are examined at the same time.
const EXAMINED_WITHIN: Duration = Duration::from_secs(9);

/// Examines the gateways beside the one of this configuration, if the doctor was asked for everything.
pub(crate) async fn examine(options: &GatherOptions, config: &ConfigInPart) -> Vec<OtherGateway> {
    if options.target != DoctorTarget::Both || options.quick {
        return Vec::new();
    }
    let instance = gather::instance(config);
    let (own, daemon) =
        tokio::join!(locate::locate(GATEWAY, &instance, None), locate::locate(INGESTD, &instance, None));
    let found = within::later(FOUND_WITHIN, move || find(&instance, own.pid, daemon.pid)).await;
    let examined = found.unwrap_or_default().into_iter().map(|pid| examine_one(pid, config));
    futures_util::future::join_all(examined).await.into_iter().flatten().collect()
}

/// `None` if it does not answer the doctor's questions in time, or has ended.
async fn examine_one(pid: i32, config: &ConfigInPart) -> Option<OtherGateway> {
    let options = GatherOptions { quick: false, stacks: false, since: None, target: DoctorTarget::Pid(pid) };
    let evidence = timeout(EXAMINED_WITHIN, Box::pin(gather::gather(&options, config))).await.ok()?;
    of_evidence(pid, &evidence)
}

fn of_evidence(pid: i32, evidence: &Evidence) -> Option<OtherGateway> {
    let process = evidence.gateway.process.get()?;
    let verdict = verdict::conclude(evidence);
    Some(OtherGateway {
        pid,
        command: process.command.clone(),
        admin_socket: evidence.gateway.socket.clone(),
        verdict: verdict.code.as_str(),
        is_sick: matches!(verdict.exit(), Exit::Failure),
        line: verdict.line,
    })
}

fn find(instance: &Instance, own: Option<i32>, daemon: Option<i32>) -> Vec<i32> {
    let held = daemon.and_then(listener::held_by).unwrap_or_default();
    let others = all_processes().into_iter().flatten().flatten();
    let others = others.filter(|process| Some(process.pid()) != own && process.is_alive());
    let gateways = others.filter(|process| program::of(process.pid()) == Some(GATEWAY));
    let of_daemon =
        gateways.filter(|gateway| is_connected(gateway, &held) || is_configured(gateway, &instance.run_dir));
    of_daemon.map(|gateway| gateway.pid()).take(GATEWAYS_MAX).collect()
}

/// Whether a socket of a gateway is connected to one of these sockets of the daemon. Its configuration does not matter: it
/// may have changed since, or lead to the daemon by links.
fn is_connected(gateway: &Process, held: &BTreeSet<u64>) -> bool {
    let connected = listener::connected_unix_of(gateway);
    connected.into_iter().any(|inode| waits::peers::of_unix(inode).is_ok_and(|peer| held.contains(&peer)))
}

/// Whether the configuration of a gateway leads to the socket of the daemon, in the folders as that gateway sees them.
fn is_configured(gateway: &Process, run_dir: &Path) -> bool {
    let Some(its) = socket_of_daemon(gateway) else { return false };
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let is_same_folder = || {
        let folders = its.parent().map(identity).zip(Some(identity(run_dir)));
        folders.is_some_and(|(its, ours)| its.is_some() && its == ours)
    };
    let ours = identity(&ControlSocket::Ingestd.in_dir(run_dir));
    // A daemon that has ended has no socket.
    ours.is_some_and(|ours| identity(&its) == Some(ours)) || is_same_folder()
}

/// The socket of the ingestion daemon that a gateway connects to. `None` if its configuration cannot be read.
fn socket_of_daemon(gateway: &Process) -> Option<PathBuf> {
    let pid = gateway.pid();
    let (folder, arguments) = (gateway.cwd().ok()?, process::arguments(pid)?);
    let text = |text: std::ffi::OsString| text.into_string().ok();
    let environment = within::through_memory(pid, Process::environ)?.into_iter();
    let environment: Vec<_> =
        environment.filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
    let variable = environment.iter().find(|(name, _)| name == "NEWSWIRE_CONFIG").map(|(_, value)| value);
    let file = locate::config_of(&arguments).or(variable.map(String::as_str));
    let file = file.map(|file| process::seen_by(pid, &folder.join(file)));
    let settings = environment.iter().filter(|(name, _)| name != "NEWSWIRE_CONFIG").cloned();
    let config = daemon::config::load(file.as_deref(), settings).ok()?.config;
    Some(process::seen_by(pid, &ControlSocket::Ingestd.in_dir(folder.join(&config.daemon.run_dir))))
}
