//! Gathers the evidence: everything at the same time, each request with its own deadline.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::Duration,
};

use control::{HealthReport, WatchReport};
use daemon::{Clock, config::Loaded};
use news::Timestamp;
use tokio::time::Instant;

use super::{
    admin,
    evidence::{DaemonEvidence, Disk, Evidence, Presence},
    http, listener,
    locate::{self, GATEWAY, INGESTD, Instance, LocatedProcess},
    part::Part,
    process,
    systemd::SystemdUnits,
    threads,
};

/// How long each request to the public server may take.
const HTTP_WITHIN: Duration = Duration::from_secs(5);
/// The same with `--quick`.
const QUICK_WITHIN: Duration = Duration::from_millis(1500);

/// How long after a report that may show a hang the process is asked again.
const SECOND_LOOK_AFTER: Duration = Duration::from_millis(1_200);
/// The same with `--quick`; each report may take half a second.
const QUICK_SECOND_LOOK_AFTER: Duration = Duration::from_millis(300);

/// How long the file system may take to report its free space.
const DISK_WITHIN: Duration = Duration::from_secs(1);

/// What to gather.
pub(crate) struct GatherOptions {
    pub(crate) quick: bool,
    pub(crate) stacks: bool,
    pub(crate) target: DoctorTarget,
}

/// What to examine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DoctorTarget {
    /// Both processes of the configuration.
    Both,
    /// One process, whatever its configuration.
    Pid(i32),
    /// A gateway, from outside only.
    Url {
        /// A name or an address.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// Gathers all evidence.
pub(crate) async fn gather(options: &GatherOptions, loaded: &Loaded) -> Evidence {
    let began = Instant::now();
    let at = Timestamp::from_millis(Clock::system().now_millis()).to_string();
    let run_dir = absolute(&loaded.config.daemon.run_dir);
    let gateway_dir = loaded.config.gateway.admin_dir.as_deref().map(absolute);
    let has_own_dir = gateway_dir.is_some();
    let gateway_dir = gateway_dir.unwrap_or_else(|| run_dir.clone());
    let instance = Instance { run_dir, gateway_dir, config: loaded.file.clone() };
    let mut units = match (&options.target, options.quick) {
        (DoctorTarget::Url { .. }, _) | (_, true) => SystemdUnits::not_asked(),
        _ => SystemdUnits::query().await,
    };
    if has_own_dir {
        // The unit of that name may run the gateway beside this one.
        units = units.without(GATEWAY);
    }
    let [ingestd, gateway] = locate_both(&options.target, &instance, &units).await;
    let public = http_target(&options.target, loaded.config.gateway.listen, gateway.pid).await;
    let (http, listener, ingestd, gateway, store) = tokio::join!(
        probe_http(options, &public),
        examine_listener(options, &public),
        examine_daemon(options, INGESTD, ingestd, &instance, &units),
        examine_daemon(options, GATEWAY, gateway, &instance, &units),
        examine_disk(options, &loaded.config.store.path),
    );
    Evidence {
        at,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        version: env!("CARGO_PKG_VERSION"),
        quick: options.quick,
        config: loaded.file.as_ref().map(|file| file.display().to_string()),
        run_dir: instance.run_dir.display().to_string(),
        http,
        listener,
        ingestd,
        gateway,
        store,
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The daemon and the gateway.
async fn locate_both(
    target: &DoctorTarget,
    instance: &Instance,
    units: &SystemdUnits,
) -> [LocatedProcess; 2] {
    match target {
        DoctorTarget::Both => {
            let (a, b) = (units.of(INGESTD), units.of(GATEWAY));
            let (a, b) = tokio::join!(
                locate::locate(INGESTD, instance, a.get()),
                locate::locate(GATEWAY, instance, b.get())
            );
            [a, b]
        }
        DoctorTarget::Url { .. } => [LocatedProcess::not_asked(), LocatedProcess::not_asked()],
        DoctorTarget::Pid(pid) => {
            let given = LocatedProcess {
                presence: Presence::Running,
                pid: Some(*pid),
                how: "given by --pid".to_owned(),
                others: Vec::new(),
            };
            match locate::program_of(*pid) {
                Some(INGESTD) => [given, LocatedProcess::not_asked()],
                _ => [LocatedProcess::not_asked(), given],
            }
        }
    }
}

/// Where to send HTTP requests, and with which `Host`.
struct HttpTarget {
    host: String,
    /// An error if there is no address.
    address: Result<SocketAddr, String>,
}

/// The address of the gateway, which may differ from the configured one: an inherited socket, or any free port.
async fn http_target(target: &DoctorTarget, listen: SocketAddr, gateway: Option<i32>) -> HttpTarget {
    let host = "localhost".to_owned();
    if let DoctorTarget::Url { host, port } = target {
        let (name, port) = (host.trim_matches(['[', ']']).to_owned(), *port);
        let lookup = tokio::task::spawn_blocking(move || (name.as_str(), port).to_socket_addrs());
        let address = match tokio::time::timeout(HTTP_WITHIN, lookup).await {
            Ok(Ok(Ok(mut addresses))) => addresses.next().ok_or_else(|| "the name has no address".to_owned()),
            Ok(Ok(Err(error))) => Err(format!("look up {host}: {error}")),
            Ok(Err(_)) | Err(_) => Err(format!("look up {host}: timed out")),
        };
        return HttpTarget { host: format!("{host}:{port}"), address };
    }
    let held = gateway.map(listener::of).unwrap_or_default();
    let address = match (held.contains(&listen), held.first()) {
        (false, Some(elsewhere)) => Ok(*elsewhere),
        (_, None) if *target != DoctorTarget::Both => Err("the process listens on no port".to_owned()),
        (_, None) if listen.port() == 0 => {
            Err("gateway.listen has port 0 (any free port), and the gateway was not found".to_owned())
        }
        _ => Ok(listen),
    };
    HttpTarget { host, address }
}

async fn probe_http(options: &GatherOptions, target: &HttpTarget) -> Part<http::HttpProbes> {
    let address = match &target.address {
        Ok(address) => http::reachable(*address).to_string(),
        Err(why) => return Part::missing(why.clone()),
    };
    let (paths, limit): (&[_], _) = match options.quick {
        true => (&["/health", "/ready"], QUICK_WITHIN),
        false => (&["/", "/health", "/ready"], HTTP_WITHIN),
    };
    Part::Found(http::probe_all(&target.host, &address, paths, limit).await)
}

async fn examine_listener(options: &GatherOptions, target: &HttpTarget) -> Part<listener::ListenerReport> {
    match &target.address {
        Err(why) => Part::missing(why.clone()),
        Ok(address) if matches!(options.target, DoctorTarget::Url { .. }) && !address.ip().is_loopback() => {
            Part::missing("the address is not on this machine")
        }
        Ok(address) => {
            let address = *address;
            match tokio::task::spawn_blocking(move || listener::at(address)).await {
                Ok(listener) => Part::from_result(listener),
                Err(error) => Part::missing(error.to_string()),
            }
        }
    }
}

async fn examine_daemon(
    options: &GatherOptions,
    name: &'static str,
    found: LocatedProcess,
    instance: &Instance,
    units: &SystemdUnits,
) -> DaemonEvidence {
    let socket = match (&options.target, found.pid) {
        (DoctorTarget::Pid(_), Some(pid)) => listener::unix_of(pid)
            .into_iter()
            .find(|path| path.to_string_lossy().ends_with("-admin.sock"))
            .unwrap_or_default(),
        _ => instance.admin_socket(name),
    };
    let mut daemon = DaemonEvidence {
        name,
        presence: found.presence,
        found_by: found.how,
        socket: socket.display().to_string(),
        process: Part::missing("no process"),
        health: Part::missing("no process"),
        watch: Part::missing("no process"),
        late: Vec::new(),
        unit: units.of(name),
        stacks: Part::missing("no process"),
        others: found.others,
    };
    let Some(pid) = found.pid else { return daemon };
    let (process, (health, watch, late)) =
        tokio::join!(process::examine(pid, options.quick), query(options, &socket));
    (daemon.process, daemon.health, daemon.watch, daemon.late) = (process, health, watch, late);
    daemon.stacks = match options.stacks {
        // After the other evidence: capturing stacks from outside stops the threads for a moment.
        true => threads::capture(Some(pid), &socket, daemon.watch.get()).await,
        false => Part::not_asked(),
    };
    daemon
}

async fn query(
    options: &GatherOptions,
    socket: &Path,
) -> (Part<HealthReport>, Part<WatchReport>, Vec<admin::LateLoop>) {
    let within = if options.quick { QUICK_WITHIN } else { HTTP_WITHIN };
    let requests = async {
        let pause = if options.quick { QUICK_SECOND_LOOK_AFTER } else { SECOND_LOOK_AFTER };
        let (health, watch) = tokio::join!(admin::health(socket), admin::watch_twice(socket, pause, within));
        let late = match watch.get() {
            Some(watch) if !options.quick => admin::late_loops(socket, watch).await,
            _ => Vec::new(),
        };
        (health, watch, late)
    };
    tokio::time::timeout(within, requests).await.unwrap_or_else(|_| {
        let why = http::no_answer_within(within);
        (Part::timed_out(why.clone()), Part::timed_out(why), Vec::new())
    })
}

/// On a separate thread, because a system call on a dead network mount never returns.
async fn examine_disk(options: &GatherOptions, path: &Path) -> Part<Disk> {
    if options.target != DoctorTarget::Both {
        return Part::not_asked();
    }
    let path = absolute(path);
    let task = tokio::task::spawn_blocking(move || disk(&path));
    match tokio::time::timeout(DISK_WITHIN, task).await {
        Ok(Ok(disk)) => disk,
        Ok(Err(error)) => Part::missing(error.to_string()),
        Err(_) => {
            Part::timed_out(format!("{}: the file system may hang", http::no_answer_within(DISK_WITHIN)))
        }
    }
}

/// The file system of the store, or of its nearest parent directory that exists.
fn disk(path: &Path) -> Part<Disk> {
    let existing = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let size = match rustix::fs::statvfs(existing) {
        Ok(size) => size,
        Err(error) => return Part::missing(format!("{}: {error}", existing.display())),
    };
    Part::Found(Disk {
        path: path.display().to_string(),
        free_bytes: size.f_bavail.saturating_mul(size.f_frsize),
        total_bytes: size.f_blocks.saturating_mul(size.f_frsize),
        free_inodes: (size.f_files > 0).then_some(size.f_favail),
    })
}
