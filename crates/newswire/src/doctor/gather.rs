//! Gathers the evidence: everything at the same time, each request with its own deadline.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::Duration,
};

use daemon::Clock;
use news::Timestamp;
use tokio::time::{Instant, sleep_until};

use crate::black_box::{self, BlackBoxReport};

use super::{
    admin,
    evidence::{Configured, DaemonEvidence, Disk, Evidence, Presence, Target},
    http, listener,
    locate::{self, Instance, LocatedProcess},
    log_end, nats,
    part::{MissingCause, Part},
    process,
    program::{self, GATEWAY, INGESTD},
    resources::{
        self, file_system::StoreFileSystem, kernel_files::KernelFiles, pressure::Pressures,
        store_placement::StorePlacement,
    },
    second_look::is_silent,
    settle,
    started_as::StartedAs,
    systemd::SystemdUnits,
    threads, waits,
};
use crate::{config_file::ConfigInPart, within};

/// How long each request to the public server may take.
const HTTP_WITHIN: Duration = Duration::from_secs(5);
/// The same with `--quick`.
const QUICK_WITHIN: Duration = Duration::from_millis(1500);

/// Time between the two reports of a process.
const SECOND_LOOK_AFTER: Duration = Duration::from_secs(1);
/// The same with `--quick`, after a report that may show a hang.
const QUICK_SECOND_LOOK_AFTER: Duration = Duration::from_millis(300);
/// When the stacks are complete at the latest, after the processes were found.
const STACKS_UNTIL: Duration = Duration::from_millis(8_200);
/// How long looking through the sockets of all processes may take.
const LISTENER_WITHIN: Duration = Duration::from_secs(3);
/// How long the file system may take to report its free space.
const DISK_WITHIN: Duration = Duration::from_secs(1);

/// What to gather.
pub(crate) struct GatherOptions {
    pub(crate) quick: bool,
    pub(crate) stacks: bool,
    /// How far back the black boxes are read; `None`: the last minute.
    pub(crate) since: Option<Duration>,
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

impl DoctorTarget {
    fn kind(&self) -> Target {
        match self {
            Self::Both => Target::Both,
            Self::Pid(_) => Target::Pid,
            Self::Url { .. } => Target::Url,
        }
    }
}

/// The directories of the configuration. They may be wrong if it is broken.
pub(crate) fn instance(config: &ConfigInPart) -> Instance {
    let run_dir = absolute(&config.loaded.config.daemon.run_dir);
    let gateway_dir = config.loaded.config.gateway.admin_dir.as_deref().map(absolute);
    let gateway_dir = gateway_dir.unwrap_or_else(|| run_dir.clone());
    Instance {
        run_dir,
        gateway_dir,
        config: config.loaded.file.as_deref().map(absolute),
        is_whole: config.is_whole(),
        is_bare: is_bare(config),
    }
}

/// Whether neither a configuration nor the directory of the sockets is here, as in a container for debugging.
fn is_bare(config: &ConfigInPart) -> bool {
    config.loaded.file.is_none() && !config.loaded.config.daemon.run_dir.exists()
}

/// Gathers all evidence.
pub(crate) async fn gather(options: &GatherOptions, config: &ConfigInPart) -> Evidence {
    let began = Instant::now();
    let at = Timestamp::from_millis(Clock::system().now_millis()).to_string();
    let loaded = &config.loaded;
    let instance = instance(config);
    let mut units = match (&options.target, options.quick) {
        (DoctorTarget::Url { .. }, _) | (_, true) => SystemdUnits::not_asked(),
        (DoctorTarget::Pid(pid), _) => SystemdUnits::query().await.that_run(*pid),
        _ => SystemdUnits::query().await,
    };
    if loaded.config.gateway.admin_dir.is_some() {
        // The unit of that name may run the gateway beside this one.
        units = units.without(GATEWAY);
    }
    let [ingestd, gateway] = locate_both(&options.target, &instance, &units).await;
    let is_nowhere = [ingestd.is_nowhere, gateway.is_nowhere];
    let public = http_target(&options.target, loaded.config.gateway.listen, gateway.pid).await;
    let ingestd_pid = ingestd.pid;
    let store_path =
        resources::store_placement::path_of(ingestd_pid.or(gateway.pid), &loaded.config.store.path);
    let daemons = examine_daemons(options, [ingestd, gateway], &instance, &units);
    let (http, listener, (ingestd, mut gateway, waits), store, file_system, pressure, complaints, nats) = tokio::join!(
        probe_http(options, &public),
        examine_listener(options, &public),
        daemons,
        examine_disk(options, &loaded.config.store.path),
        examine_file_system(options, ingestd_pid, &store_path),
        examine_pressure(options),
        complaints(options, config, ingestd_pid.is_some()),
        nats::examine(options, config),
    );
    // A user who may not look at the sockets still sees which process answers.
    if let Some(answers) = gateway_that_answers(&gateway, &http) {
        gateway = Box::pin(examine_daemon(options, GATEWAY, answers, &instance, &units)).await;
        capture_stacks(options, &mut gateway, began + STACKS_UNTIL).await;
    }
    let run_dir = instance.run_dir.clone();
    let (store_place, run_dir_group) = tokio::join!(
        examine_store_place(options, &ingestd, &store_path),
        within::later(DISK_WITHIN, move || settle::group_that_may_enter(&run_dir)),
    );
    let mut evidence = Evidence {
        at,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        version: env!("CARGO_PKG_VERSION"),
        is_root: rustix::process::geteuid().is_root(),
        quick: options.quick,
        target: options.target.kind(),
        config: loaded.file.as_ref().map(|file| file.display().to_string()),
        configured: configured(options, config, complaints),
        run_dir: instance.run_dir.display().to_string(),
        run_dir_group: run_dir_group.flatten(),
        proof: Vec::new(),
        http,
        listener,
        ingestd,
        gateway,
        store,
        file_system,
        store_place,
        other_gateways: Vec::new(),
        nats,
        pressure,
        waits,
    };
    settle::presence(&mut evidence, is_nowhere);
    settle::daemon_elsewhere(&mut evidence);
    if nats::is_wire(&loaded.config) {
        settle::other_machines(&mut evidence);
    }
    evidence
}

/// Both processes, and what their threads wait for.
async fn examine_daemons(
    options: &GatherOptions,
    [ingestd, gateway]: [LocatedProcess; 2],
    instance: &Instance,
    units: &SystemdUnits,
) -> (DaemonEvidence, DaemonEvidence, Part<Vec<waits::WaitChain>>) {
    let began = Instant::now();
    let pids: Vec<_> = [ingestd.pid, gateway.pid].into_iter().flatten().collect();
    let sample = async { if options.quick { Part::not_asked() } else { waits::sample(pids).await } };
    let (mut ingestd, mut gateway, samples) = tokio::join!(
        examine_daemon(options, INGESTD, ingestd, instance, units),
        examine_daemon(options, GATEWAY, gateway, instance, units),
        sample,
    );
    // After the other evidence: capturing stacks from outside stops the threads for a moment.
    let until = began + STACKS_UNTIL;
    tokio::join!(capture_stacks(options, &mut ingestd, until), capture_stacks(options, &mut gateway, until));
    let waits = waits::examine(samples, [&ingestd, &gateway]).await;
    (ingestd, gateway, waits)
}

async fn capture_stacks(options: &GatherOptions, daemon: &mut DaemonEvidence, until: Instant) {
    let pid = daemon.pid();
    if pid.is_some() || daemon.watch.get().is_some() {
        daemon.stacks = match options.stacks {
            true => threads::capture(pid, Path::new(&daemon.socket), daemon.watch.get(), until).await,
            false => Part::not_asked(),
        };
    }
}

/// The gateway by the id in its public answer, if it could not be found otherwise because this user may not look.
fn gateway_that_answers(gateway: &DaemonEvidence, http: &Part<http::HttpProbes>) -> Option<LocatedProcess> {
    let pid = http.get()?.health()?.pid?;
    let is_hidden = gateway.presence == Presence::Unknown && gateway.denied;
    (is_hidden && program::of(pid) == Some(GATEWAY))
        .then(|| LocatedProcess::that_answers(pid, &gateway.found_by))
}

fn configured(options: &GatherOptions, config: &ConfigInPart, complaints: Vec<String>) -> Configured {
    if options.target != DoctorTarget::Both {
        return Configured::default();
    }
    let values = (config.is_whole() && !is_bare(config)).then_some(&config.loaded.config);
    Configured {
        listen: values.map(|config| config.gateway.listen).filter(|listen| listen.port() != 0),
        store: values.map(|config| absolute(&config.store.path).display().to_string()),
        complaints,
        unreadable: config.unreadable.clone(),
    }
}

/// What is wrong with the configuration, and with the list of sources if that can be read, or is missing where the daemon
/// runs.
async fn complaints(options: &GatherOptions, config: &ConfigInPart, is_here: bool) -> Vec<String> {
    if options.target != DoctorTarget::Both {
        return Vec::new();
    }
    let mut complaints = config.complaints.clone();
    if options.quick {
        return complaints;
    }
    let list = config.loaded.config.ingestd.sources.clone();
    let name = list.display().to_string();
    let read =
        within::later(DISK_WITHIN, move || asks_for(&list, is_here).then(|| crate::config::read_list(&list)));
    match read.await {
        Some(Some(Err(wrong))) => complaints.extend(wrong.to_string().lines().map(str::to_owned)),
        Some(_) => {}
        None => complaints.push(format!(
            "{name}: the list of sources cannot be read in time; it is no regular file, or its file system does not answer"
        )),
    }
    complaints
}

/// A list that this user may not read is not wrong, nor is one that is missing where the daemon does not run.
fn asks_for(list: &Path, is_here: bool) -> bool {
    match std::fs::File::open(list) {
        Ok(_) => true,
        Err(error) => is_here && error.kind() == std::io::ErrorKind::NotFound,
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
            let given = LocatedProcess::given(*pid);
            match program::of(*pid) {
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
        let lookup = within::later(HTTP_WITHIN, move || (name.as_str(), port).to_socket_addrs());
        let address = match lookup.await {
            Some(Ok(mut addresses)) => addresses.next().ok_or_else(|| "the name has no address".to_owned()),
            Some(Err(error)) => Err(format!("look up {host}: {error}")),
            None => Err(format!("look up {host}: timed out")),
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
            match within::later(LISTENER_WITHIN, move || listener::at(address)).await {
                Some(listener) => Part::from_result(listener),
                None => Part::timed_out(http::no_answer_within(LISTENER_WITHIN)),
            }
        }
    }
}

fn admin_socket(options: &GatherOptions, name: &str, pid: Option<i32>, instance: &Instance) -> PathBuf {
    let configured = || instance.admin_socket(name);
    let Some(pid) = pid else { return configured() };
    // The directory of a broken configuration may be wrong, and its path may lead to another one where the process runs.
    let is_there =
        instance.is_whole && !instance.is_bare && (!process::has_other_files(pid) || configured().exists());
    match (&options.target, is_there) {
        (DoctorTarget::Pid(_), _) => locate::admin_socket_of(pid).unwrap_or_default(),
        (_, true) => configured(),
        (_, false) => locate::admin_socket_of(pid).unwrap_or_else(configured),
    }
}

/// How a process was started, or is to be if it does not run.
fn started_as(name: &str, pid: Option<i32>, instance: &Instance) -> StartedAs {
    let absent = || StartedAs::of_the_absent(name, instance.config.as_deref(), &instance.run_dir);
    pid.and_then(StartedAs::of).unwrap_or_else(absent)
}

async fn examine_daemon(
    options: &GatherOptions,
    name: &'static str,
    found: LocatedProcess,
    instance: &Instance,
    units: &SystemdUnits,
) -> DaemonEvidence {
    let socket = admin_socket(options, name, found.pid, instance);
    let is_asked = found.presence != Presence::NotAsked;
    let mut daemon = DaemonEvidence {
        name,
        presence: found.presence,
        found_by: found.how,
        socket: socket.display().to_string(),
        process: Part::missing("no process"),
        resources: Part::missing("no process"),
        health: Part::missing("no process"),
        watch: Part::missing("no process"),
        watch_later: Part::not_asked(),
        watched_for_ms: 0,
        watchdog_ran: None,
        late: Vec::new(),
        unit: units.of(name),
        stacks: Part::missing("no process"),
        black_box: Part::not_asked(),
        log_end: Part::not_asked(),
        others: found.others,
        foreign: found.foreign,
        denied: found.denied,
        may_end: settle::may_end(found.pid),
        started: started_as(name, found.pid, instance),
    };
    if !is_asked {
        return daemon;
    }
    if found.pid.is_none() && found.presence == Presence::Absent {
        daemon.black_box = read_black_box(options, name, daemon.presence, &socket, None).await;
        return daemon;
    }
    let from_outside = async {
        match found.pid {
            Some(pid) => tokio::join!(
                process::examine(pid, options.quick),
                resources::examine(pid, options.quick),
                process::watchdog_runs(pid)
            ),
            None => {
                let unseen = || "its process cannot be seen from here";
                (Part::missing(unseen()), Part::missing(unseen()), None)
            }
        }
    };
    let black_box = read_black_box(options, name, daemon.presence, &socket, found.pid);
    let asked = async {
        match &daemon.foreign {
            // The answers would be those of the other program.
            Some(foreign) => {
                let why = format!("pid {}, another program, holds {}", foreign.pid, socket.display());
                (daemon.health, daemon.watch) = (Part::missing(why.clone()), Part::missing(why));
            }
            None => query(options, &socket, &mut daemon).await,
        }
    };
    let ((process, resources, watchdog_ran), (), black_box) = tokio::join!(from_outside, asked, black_box);
    (daemon.process, daemon.resources, daemon.watchdog_ran) = (process, resources, watchdog_ran);
    daemon.black_box = black_box;
    if daemon.black_box.get().is_some_and(is_silent) && daemon.latest().is_some() {
        // A process that was stopped for a moment writes again.
        daemon.black_box = read_black_box(options, name, daemon.presence, &socket, found.pid).await;
    }
    if let Some(pid) = found.pid
        && daemon.latest().and_then(log_end::trouble).is_some()
    {
        daemon.log_end = log_end::examine(pid).await;
    }
    daemon
}

/// Asks a process for its reports: the second one about a second after the first.
async fn query(options: &GatherOptions, socket: &Path, daemon: &mut DaemonEvidence) {
    let within = if options.quick { QUICK_WITHIN } else { HTTP_WITHIN };
    let began = Instant::now();
    let watch = async {
        match options.quick {
            true => admin::watch_again_if_needed(socket, QUICK_SECOND_LOOK_AFTER, within).await,
            false => admin::watch(socket).await,
        }
    };
    let requests = async { tokio::join!(admin::health(socket), watch) };
    let (health, watch) = tokio::time::timeout(within, requests).await.unwrap_or_else(|_| {
        let why = http::no_answer_within(within);
        (Part::timed_out(why.clone()), Part::timed_out(why))
    });
    let is_late = watch.is_missing_because(MissingCause::TimedOut) && health.get().is_some();
    let looked = Instant::now();
    if !options.quick && (watch.get().is_some() || is_late) {
        let second = async {
            sleep_until(began + SECOND_LOOK_AFTER).await;
            admin::watch(socket).await
        };
        let late = async {
            match watch.get() {
                Some(watch) => admin::late_loops(socket, watch).await,
                None => Vec::new(),
            }
        };
        (daemon.watch_later, daemon.late) = tokio::join!(second, late);
        daemon.watched_for_ms = u64::try_from(looked.elapsed().as_millis()).unwrap_or(u64::MAX);
    }
    (daemon.health, daemon.watch) = (health, watch);
    if is_late && daemon.watch_later.get().is_some() {
        daemon.watch = std::mem::replace(&mut daemon.watch_later, Part::not_asked());
    }
}

/// Where the store is mounted, and whether its file system takes changes.
async fn examine_file_system(
    options: &GatherOptions,
    pid: Option<i32>,
    store: &Path,
) -> Part<StoreFileSystem> {
    if options.target != DoctorTarget::Both {
        return Part::not_asked();
    }
    let path = store.to_path_buf();
    let found = within::later(resources::SAMPLE_WITHIN, move || {
        let existing = path.canonicalize().unwrap_or(path);
        StoreFileSystem::of(&KernelFiles::below("/"), pid, &existing)
    });
    let Some(Some(mut found)) = found.await else {
        return Part::missing("the kernel did not report its mount");
    };
    // A health check is repeated every few seconds: each would leave a process behind while the file system is frozen.
    if !options.quick {
        found.probe(store).await;
    }
    Part::Found(found)
}

/// Whether the running daemon has its store open where it should be. What the daemon reports itself counts, else what is
/// configured, from which its environment may differ.
async fn examine_store_place(
    options: &GatherOptions,
    daemon: &DaemonEvidence,
    configured: &Path,
) -> Part<StorePlacement> {
    let Some(pid) = daemon.pid() else {
        return match daemon.presence {
            Presence::Absent if options.target == DoctorTarget::Both => store_of_the_dead(configured).await,
            _ => Part::missing("no process"),
        };
    };
    let reported = daemon.ingest_vitals().map(|vitals| PathBuf::from(&vitals.store.path));
    if reported.is_none() && options.target != DoctorTarget::Both {
        return Part::missing("the daemon does not say where its store is");
    }
    let is_certain = reported.is_some();
    let store = reported.unwrap_or_else(|| configured.to_path_buf());
    match within::later(resources::SAMPLE_WITHIN, move || StorePlacement::of(pid, &store)).await {
        Some(Ok(StorePlacement::Renamed(to))) if !is_certain => {
            Part::missing(format!("the daemon has a store at {to} open, and does not say which is its own"))
        }
        Some(place) => Part::from_result(place),
        None => Part::timed_out("its file system did not answer in time"),
    }
}

async fn store_of_the_dead(configured: &Path) -> Part<StorePlacement> {
    let store = configured.to_path_buf();
    match within::later(resources::SAMPLE_WITHIN, move || StorePlacement::without_daemon(&store)).await {
        Some(place) => Part::from_result(place),
        None => Part::timed_out("its file system did not answer in time"),
    }
}

async fn examine_pressure(options: &GatherOptions) -> Part<Pressures> {
    match options.target {
        DoctorTarget::Url { .. } => Part::not_asked(),
        _ => resources::pressure_of_machine(options.quick).await,
    }
}

/// The file is next to the admin socket. A quick check of a process that runs does not need it.
async fn read_black_box(
    options: &GatherOptions,
    name: &str,
    presence: Presence,
    socket: &Path,
    found: Option<i32>,
) -> Part<BlackBoxReport> {
    let is_asked = presence != Presence::NotAsked && !(options.quick && presence == Presence::Running);
    if !is_asked || socket.as_os_str().is_empty() {
        return Part::not_asked();
    }
    let file =
        if name == GATEWAY { control::black_box::GATEWAY_FILE } else { control::black_box::INGESTD_FILE };
    Part::from_result(black_box::read(socket.with_file_name(file), options.since, found).await)
}

/// On a separate thread, because a system call on a dead network mount never returns.
async fn examine_disk(options: &GatherOptions, path: &Path) -> Part<Disk> {
    if options.target != DoctorTarget::Both {
        return Part::not_asked();
    }
    let path = absolute(path);
    within::later(DISK_WITHIN, move || disk(&path)).await.unwrap_or_else(|| {
        Part::timed_out(format!("{}: the file system may hang", http::no_answer_within(DISK_WITHIN)))
    })
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

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::config_file::ConfigFile;

    #[tokio::test]
    async fn a_list_of_sources_that_cannot_be_opened_in_time_keeps_nothing_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let (file, list) = (folder.path().join("newswire.toml"), folder.path().join("sources.toml"));
        std::fs::write(&file, format!("[ingestd]\nsources = \"{}\"\n", list.display())).unwrap();
        // To open a pipe waits for its other end, as a network disk waits for its server.
        mknodat(CWD, &list, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let options = GatherOptions { quick: false, stacks: false, since: None, target: DoctorTarget::Both };
        let config = ConfigFile { config: Some(file) }.load_in_part();
        let found = complaints(&options, &config, true).await;
        assert!(found.len() == 1 && found[0].contains("cannot be read in time"), "{found:?}");
        std::fs::remove_file(&list).unwrap();
        assert_eq!(complaints(&options, &config, false).await, Vec::<String>::new());
        assert_eq!(complaints(&options, &config, true).await.len(), 1, "the daemon would not start again");
    }
}
