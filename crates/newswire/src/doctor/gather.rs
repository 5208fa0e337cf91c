//! Gathers the evidence: everything at once, each question with its own deadline.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::Duration,
};

use daemon::{Clock, config::Loaded};
use news::Timestamp;
use tokio::time::Instant;

use super::{
    admin,
    evidence::{DaemonEvidence, Disk, Evidence, Part, Presence},
    http, listener,
    locate::{self, GATEWAY, INGESTD, Instance, LocatedProcess},
    process,
    systemd::SystemdUnits,
    threads,
};

/// How long each request of the public server may take.
const HTTP_WITHIN: Duration = Duration::from_secs(5);
/// The same with `--quick`.
const QUICK_WITHIN: Duration = Duration::from_millis(1500);

/// How long the file system may take to say how full it is.
const DISK_WITHIN: Duration = Duration::from_secs(1);

/// What is wanted.
pub(crate) struct GatherOptions {
    pub(crate) quick: bool,
    pub(crate) stacks: bool,
    pub(crate) whom: DoctorTarget,
}

/// Whom it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DoctorTarget {
    /// Both processes of the configuration.
    Both,
    /// One process, whatever its configuration.
    Pid(i32),
    /// A gateway, from outside.
    Url {
        /// A name or an address.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// Looks at everything.
pub(crate) async fn gather(wish: &GatherOptions, loaded: &Loaded) -> Evidence {
    let began = Instant::now();
    let at = Timestamp::from_millis(Clock::system().now_millis()).to_string();
    let ours = Instance { run_dir: absolute(&loaded.config.daemon.run_dir), config: loaded.file.clone() };
    let units = match (&wish.whom, wish.quick) {
        (DoctorTarget::Url { .. }, _) | (_, true) => SystemdUnits::unasked(),
        _ => SystemdUnits::ask().await,
    };
    let [ingestd, gateway] = who(&wish.whom, &ours, &units).await;
    let target = target(&wish.whom, loaded.config.gateway.listen, gateway.pid).await;
    let (http, listener, ingestd, gateway, store) = tokio::join!(
        ask_http(wish, &target),
        look_at_listener(wish, &target),
        look_at_daemon(wish, INGESTD, ingestd, &ours, &units),
        look_at_daemon(wish, GATEWAY, gateway, &ours, &units),
        look_at_disk(wish, &loaded.config.store.path),
    );
    Evidence {
        at,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        version: env!("CARGO_PKG_VERSION"),
        quick: wish.quick,
        config: loaded.file.as_ref().map(|file| file.display().to_string()),
        run_dir: ours.run_dir.display().to_string(),
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
async fn who(whom: &DoctorTarget, ours: &Instance, units: &SystemdUnits) -> [LocatedProcess; 2] {
    match whom {
        DoctorTarget::Both => {
            let (a, b) = (units.of(INGESTD), units.of(GATEWAY));
            let (a, b) =
                tokio::join!(locate::locate(INGESTD, ours, a.get()), locate::locate(GATEWAY, ours, b.get()));
            [a, b]
        }
        DoctorTarget::Url { .. } => [LocatedProcess::not_asked(), LocatedProcess::not_asked()],
        DoctorTarget::Pid(pid) => {
            let named = LocatedProcess {
                presence: Presence::Running,
                pid: Some(*pid),
                how: "named by --pid".to_owned(),
                others: Vec::new(),
            };
            match locate::program_of(*pid) {
                Some(INGESTD) => [named, LocatedProcess::not_asked()],
                _ => [LocatedProcess::not_asked(), named],
            }
        }
    }
}

/// Where HTTP is asked, and under which name.
struct HttpTarget {
    host: String,
    /// Nothing when there is nobody to ask.
    address: Result<SocketAddr, String>,
}

/// A gateway may listen elsewhere than its configuration says: at an inherited socket, or at any free port.
async fn target(whom: &DoctorTarget, listen: SocketAddr, gateway: Option<i32>) -> HttpTarget {
    let host = "localhost".to_owned();
    if let DoctorTarget::Url { host, port } = whom {
        let (name, port) = (host.trim_matches(['[', ']']).to_owned(), *port);
        let looked_up = tokio::task::spawn_blocking(move || (name.as_str(), port).to_socket_addrs());
        let address = match tokio::time::timeout(HTTP_WITHIN, looked_up).await {
            Ok(Ok(Ok(mut addresses))) => addresses.next().ok_or_else(|| "the name has no address".to_owned()),
            Ok(Ok(Err(error))) => Err(format!("look up {host}: {error}")),
            Ok(Err(_)) | Err(_) => Err(format!("look up {host}: no answer")),
        };
        return HttpTarget { host: format!("{host}:{port}"), address };
    }
    let held = gateway.map(listener::of).unwrap_or_default();
    let address = match (held.contains(&listen), held.first()) {
        (false, Some(elsewhere)) => Ok(*elsewhere),
        (_, None) if *whom != DoctorTarget::Both => Err("the process listens at no port".to_owned()),
        (_, None) if listen.port() == 0 => {
            Err("gateway.listen is any free port, and nobody knows which".to_owned())
        }
        _ => Ok(listen),
    };
    HttpTarget { host, address }
}

async fn ask_http(wish: &GatherOptions, target: &HttpTarget) -> Part<http::HttpProbes> {
    let address = match &target.address {
        Ok(address) => http::reachable(*address).to_string(),
        Err(why) => return Part::missing(why.clone()),
    };
    let (paths, limit): (&[_], _) = match wish.quick {
        true => (&["/health", "/ready"], QUICK_WITHIN),
        false => (&["/", "/health", "/ready"], HTTP_WITHIN),
    };
    Part::Found(http::ask_all(&target.host, &address, paths, limit).await)
}

async fn look_at_listener(wish: &GatherOptions, target: &HttpTarget) -> Part<listener::Listener> {
    match &target.address {
        Err(why) => Part::missing(why.clone()),
        Ok(address) if matches!(wish.whom, DoctorTarget::Url { .. }) && !address.ip().is_loopback() => {
            Part::missing("it is not on this machine")
        }
        Ok(address) => {
            let address = *address;
            match tokio::task::spawn_blocking(move || listener::at(address)).await {
                Ok(found) => found.into(),
                Err(error) => Part::missing(error.to_string()),
            }
        }
    }
}

async fn look_at_daemon(
    wish: &GatherOptions,
    name: &'static str,
    found: LocatedProcess,
    ours: &Instance,
    units: &SystemdUnits,
) -> DaemonEvidence {
    let socket = match (&wish.whom, found.pid) {
        (DoctorTarget::Pid(_), Some(pid)) => listener::unix_of(pid)
            .into_iter()
            .find(|path| path.to_string_lossy().ends_with("-admin.sock"))
            .unwrap_or_default(),
        _ => locate::admin_socket(&ours.run_dir, name),
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
    let (process, (health, watch, late)) = tokio::join!(process::look(pid, wish.quick), ask(wish, &socket));
    (daemon.process, daemon.health, daemon.watch, daemon.late) = (process, health, watch, late);
    daemon.stacks = match wish.stacks {
        // After the look at the process: taking stacks from outside stops its threads for a moment.
        true => threads::take(Some(pid), &socket, daemon.watch.get()).await,
        false => Part::missing("not asked"),
    };
    daemon
}

async fn ask(
    wish: &GatherOptions,
    socket: &Path,
) -> (Part<admin::Health>, Part<admin::Watch>, Vec<super::evidence::LateLoop>) {
    let within = if wish.quick { QUICK_WITHIN } else { HTTP_WITHIN };
    let asked = async {
        let (health, watch) = tokio::join!(admin::health(socket), admin::watch(socket));
        let late = match watch.get() {
            Some(watch) if !wish.quick => admin::late_loops(socket, watch).await,
            _ => Vec::new(),
        };
        (health, watch, late)
    };
    tokio::time::timeout(within, asked).await.unwrap_or_else(|_| {
        let why = format!("{} {within:?}", http::NO_ANSWER);
        (Part::missing(why.clone()), Part::missing(why), Vec::new())
    })
}

/// On a thread apart, because a mount whose server is gone answers nobody.
async fn look_at_disk(wish: &GatherOptions, path: &Path) -> Part<Disk> {
    if wish.whom != DoctorTarget::Both {
        return Part::missing("not asked");
    }
    let path = absolute(path);
    let looked = tokio::task::spawn_blocking(move || disk(&path));
    match tokio::time::timeout(DISK_WITHIN, looked).await {
        Ok(Ok(disk)) => disk,
        Ok(Err(error)) => Part::missing(error.to_string()),
        Err(_) => Part::missing(format!("{} {DISK_WITHIN:?}: does the file system hang?", http::NO_ANSWER)),
    }
}

/// The file system of the store, or of the nearest folder above it that exists.
fn disk(path: &Path) -> Part<Disk> {
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let size = match rustix::fs::statvfs(there) {
        Ok(size) => size,
        Err(error) => return Part::missing(format!("{}: {error}", there.display())),
    };
    Part::Found(Disk {
        path: path.display().to_string(),
        free_bytes: size.f_bavail.saturating_mul(size.f_frsize),
        total_bytes: size.f_blocks.saturating_mul(size.f_frsize),
        free_inodes: (size.f_files > 0).then_some(size.f_favail),
    })
}
