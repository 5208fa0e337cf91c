//! The other gateways of the same ingestion daemon on this machine: each has its own `gateway.admin_dir`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use control::ControlSocket;
use procfs::process::{Process, all_processes};
use tokio::time::timeout;

use super::{SAMPLE_WITHIN, freezer::FrozenGroup, group_tree::GroupTree, kernel_files::KernelFiles};
use crate::doctor::{
    admin,
    evidence::{OtherGateway, OtherGatewayState},
    locate,
    part::Part,
    process, program,
};
use crate::within;

/// So many are looked at.
const GATEWAYS_MAX: usize = 16;
/// How long each may take to answer at its admin socket. Another thread than those that serve answers there.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_500);
/// A gateway that has run for less may still be starting.
const STARTING_MS: u64 = 10_000;

/// A process that runs the gateway, before it is asked.
struct FoundGateway {
    pid: i32,
    uptime_ms: u64,
    admin_socket: PathBuf,
    is_stopped: bool,
    is_frozen: bool,
}

/// Looks at the gateways that belong to the ingestion daemon with this `run_dir`, except for one.
pub(crate) async fn examine(run_dir: &Path, except: Option<i32>) -> Vec<OtherGateway> {
    let run_dir = run_dir.to_path_buf();
    let found = within::later(SAMPLE_WITHIN, move || find(&run_dir, except)).await.unwrap_or_default();
    let asked = found.into_iter().map(ask);
    futures_util::future::join_all(asked).await
}

fn find(run_dir: &Path, except: Option<i32>) -> Vec<FoundGateway> {
    let Ok(run_dir) = run_dir.canonicalize() else { return Vec::new() };
    let others =
        all_processes().into_iter().flatten().flatten().filter(|process| Some(process.pid()) != except);
    let gateways = others.filter(|process| program::of(process.pid()) == Some(program::GATEWAY));
    gateways.filter_map(|process| of_daemon(&process, &run_dir)).take(GATEWAYS_MAX).collect()
}

/// `None` if it belongs to another daemon, or its configuration cannot be read.
fn of_daemon(process: &Process, run_dir: &Path) -> Option<FoundGateway> {
    let (folder, arguments) = (process.cwd().ok()?, process::arguments(process.pid())?);
    let text = |text: std::ffi::OsString| text.into_string().ok();
    let environment = within::through_memory(process.pid(), Process::environ)?.into_iter();
    let environment: Vec<_> =
        environment.filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
    let variable = environment.iter().find(|(name, _)| name == "NEWSWIRE_CONFIG").map(|(_, value)| value);
    let file = locate::config_of(&arguments).or(variable.map(String::as_str));
    let file = file.map(|file| folder.join(file));
    let settings = environment.iter().filter(|(name, _)| name != "NEWSWIRE_CONFIG").cloned();
    let config = daemon::config::load(file.as_deref(), settings).ok()?.config;
    let its_run_dir = folder.join(&config.daemon.run_dir);
    (its_run_dir.canonicalize().ok()? == run_dir).then_some(())?;
    let admin_dir = config.gateway.admin_dir.map_or(its_run_dir, |own| folder.join(own));
    let stat = process.stat().ok()?;
    let (files, pid) = (KernelFiles::below("/"), process.pid());
    Some(FoundGateway {
        pid,
        uptime_ms: process::uptime_ms(&stat),
        admin_socket: ControlSocket::GatewayAdmin.in_dir(&admin_dir),
        is_stopped: matches!(stat.state, 'T' | 't'),
        is_frozen: FrozenGroup::of(&files, &GroupTree::of(&files, pid)).is_some(),
    })
}

async fn ask(found: FoundGateway) -> OtherGateway {
    let pid = found.pid;
    let command = within::later(SAMPLE_WITHIN, move || {
        Process::new(pid).map(|process| process::command(&process)).ok()
    });
    OtherGateway {
        pid,
        command: command.await.flatten().unwrap_or_default(),
        admin_socket: found.admin_socket.display().to_string(),
        state: state(&found).await,
    }
}

async fn state(found: &FoundGateway) -> OtherGatewayState {
    if found.is_stopped {
        return OtherGatewayState::Stopped;
    }
    if found.is_frozen {
        return OtherGatewayState::Frozen;
    }
    let is_starting = found.uptime_ms < STARTING_MS;
    let watch = match timeout(ANSWER_WITHIN, admin::watch(&found.admin_socket)).await {
        Ok(Part::Found(watch)) => watch,
        _ if is_starting => return OtherGatewayState::Starting,
        Ok(Part::Missing { .. }) => return OtherGatewayState::Unknown,
        Err(_) => return OtherGatewayState::Silent,
    };
    if let Some(stalled) = watch.progress.loops.iter().find(|one| one.stalled) {
        return OtherGatewayState::Stalled(stalled.name.clone());
    }
    let wire = watch.vitals.as_ref().and_then(|vitals| vitals.gateway()?.wire.as_ref());
    match wire.is_some_and(|wire| !wire.connected) {
        true if is_starting => OtherGatewayState::Starting,
        true => OtherGatewayState::WireCut,
        false => OtherGatewayState::Healthy,
    }
}
