//! Rules about the presence of the processes: not running, stopped, another one on the port, starting, draining.

use super::{
    DaemonEvidence, DoctorVerdict, Evidence, Presence, VerdictCode, bundle, bytes, duration, last_words,
    name_and_pid,
    next::{
        as_its_user, as_root, exit_log_hint, look_with_rights, quoted, restart, restart_in_order, start,
        sudo, whose, write,
    },
    resource_rules::{elsewhere, other_network},
    safe,
    stalled::gateway_serves,
    stalled_before,
};
use crate::doctor::{
    evidence::Target,
    listener::Owner,
    program::GATEWAY,
    resources::freezer::{FrozenGroup, Thaw},
};
use crate::{black_box::RunEnd, out::whole};
use daemon::Exit;

/// A process that has run for less may still be starting.
const STARTING_MS: u64 = 10_000;
/// The reason of a pause of a daemon whose lease NATS does not confirm.
const NO_LEASE: &str = "no-lease";
/// So many processes of other configurations are named.
const OTHERS_MAX: usize = 3;
/// With less free disk space nothing can be recorded safely: the size of a segment of the store, and a reserve.
const FREE_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// A process that is no gateway holds the port: the kernel accepts connections, and they are never answered.
pub(super) fn orphan_listener(evidence: &Evidence) -> Option<DoctorVerdict> {
    let listener = evidence.listener.get()?;
    if evidence.gateway.presence == Presence::NotAsked || listener.sockets.is_empty() || answers(evidence) {
        return None;
    }
    // What publishes the port of a container is not the gateway.
    if other_network(&evidence.gateway).is_some() {
        return None;
    }
    let owners = foreign_owners(evidence)?;
    let address = safe(&listener.address);
    let waiting = match listener.backlog() {
        0 => String::new(),
        n => format!("; {n} connections wait for an answer"),
    };
    let gateway = evidence.gateway.pid();
    let gateway_state = match gateway {
        Some(pid) => format!("newswire-gateway (pid {pid}) does not hold it"),
        None => "newswire-gateway does not run".to_owned(),
    };
    if owners.iter().any(|owner| owner.program.is_some()) {
        return None;
    }
    if let Some(owner) = owners.first() {
        let line = format!("{} holds {address}, and {gateway_state}{waiting}", describe(owner));
        let then = match gateway {
            Some(_) => restart(&evidence.gateway),
            None => start(&evidence.gateway),
        };
        return Some(DoctorVerdict::new(VerdictCode::OrphanListener, line, [whose(owner.pid), then]));
    }
    let systemd = listener.owners().iter().any(|owner| owner.is_systemd());
    if systemd || gateway.is_some() || evidence.gateway.presence != Presence::Absent {
        return None;
    }
    let uid = listener.sockets.first().map_or(0, |socket| socket.uid);
    let line = format!(
        "a process of user {uid} that this user may not examine holds {address}, and {gateway_state}{waiting}"
    );
    Some(DoctorVerdict::new(VerdictCode::OrphanListener, line, [look_with_rights(evidence)]))
}

/// Who holds the port, if the gateway does not.
fn foreign_owners(evidence: &Evidence) -> Option<Vec<&Owner>> {
    let owners = evidence.listener.get()?.owners();
    let gateway = evidence.gateway.pid();
    let is_held = owners.iter().any(|owner| Some(owner.pid) == gateway);
    (!is_held).then(|| owners.into_iter().filter(|owner| !owner.is_systemd()).collect())
}

/// A gateway of another configuration holds the port.
pub(super) fn other_gateway(evidence: &Evidence) -> Option<DoctorVerdict> {
    if evidence.target != Target::Both {
        return None;
    }
    let owners = foreign_owners(evidence)?;
    let owner = owners.iter().find(|owner| owner.program == Some(GATEWAY));
    if owner.is_none() && (!answers(evidence) || evidence.gateway.presence != Presence::Absent) {
        return None;
    }
    let address = safe(&evidence.listener.get()?.address);
    let other = owner.map_or_else(|| "a newswire-gateway".to_owned(), |owner| describe(owner));
    let gateway_state = match evidence.gateway.pid() {
        Some(pid) => format!("the one of this configuration (pid {pid}) does not hold it"),
        None => "the one of this configuration does not run".to_owned(),
    };
    let line = format!("{other}, a gateway of another configuration, holds {address}, and {gateway_state}");
    let examine = owner.map(|owner| format!("newswire doctor --pid {}   # the other gateway", owner.pid));
    let next = examine.into_iter().chain([
        "newswire config show | grep gateway.listen   # two gateways need two addresses: change one of them"
            .to_owned(),
        match evidence.gateway.pid() {
            Some(_) => restart_in_order(&evidence.gateway),
            None => start(&evidence.gateway),
        },
    ]);
    Some(DoctorVerdict::new(VerdictCode::OtherGateway, line, next))
}

fn describe(owner: &Owner) -> String {
    let since = duration(owner.uptime_ms);
    format!("pid {} ({}, running for {since})", owner.pid, safe(&owner.command))
}

/// Neither process runs.
pub(super) fn not_running(evidence: &Evidence) -> Option<DoctorVerdict> {
    if evidence.daemons().any(|daemon| daemon.presence != Presence::Absent) || answers(evidence) {
        return None;
    }
    let config = evidence.config.as_deref().map_or("the built-in configuration".to_owned(), safe);
    let mut line = format!("neither process runs with {config} (sockets in {})", safe(&evidence.run_dir));
    for daemon in evidence.daemons() {
        if let Some(ending) = daemon.black_box.get().and_then(|report| report.last.ending()) {
            line.push_str(&format!("; {}: {ending}", daemon.name));
        }
    }
    let mut next: Vec<_> = evidence
        .daemons()
        .flat_map(|daemon| daemon.others.iter().map(move |other| (daemon, other)))
        .take(OTHERS_MAX)
        .map(|(daemon, other)| {
            format!(
                "newswire doctor --pid {}   # another {}: {}",
                other.pid,
                daemon.name,
                safe(&other.command)
            )
        })
        .collect();
    match evidence.daemons().all(|daemon| daemon.unit.get().is_some()) {
        true => next.extend(evidence.daemons().flat_map(|daemon| [start(daemon), exit_log_hint(daemon)])),
        false => next.extend([
            match &evidence.config {
                Some(config) => {
                    as_its_user(&evidence.ingestd, &format!("newswire up --config {}", quoted(config)))
                }
                None => as_its_user(&evidence.ingestd, "newswire up"),
            } + "   # or start both as they are usually started",
            "if they should be running: name their configuration, `newswire doctor --config FILE`".to_owned(),
        ]),
    }
    Some(DoctorVerdict::new(VerdictCode::NotRunning, line, next))
}

pub(super) fn gateway_stopped(evidence: &Evidence) -> Option<DoctorVerdict> {
    let line = stopped(&evidence.gateway)? + &stalled_before(&evidence.gateway);
    let too = if stopped(&evidence.ingestd).is_some() { "; newswire-ingestd is stopped too" } else { "" };
    let mut next = continue_steps(evidence, &evidence.gateway);
    if !too.is_empty() {
        next.extend(continue_steps(evidence, &evidence.ingestd));
    }
    Some(DoctorVerdict::new(VerdictCode::GatewayStopped, format!("{line}{too}"), next))
}

pub(super) fn daemon_stopped(evidence: &Evidence) -> Option<DoctorVerdict> {
    let line = stopped(&evidence.ingestd)? + &stalled_before(&evidence.ingestd);
    let line = format!("{line}{}", gateway_serves(evidence));
    Some(DoctorVerdict::new(VerdictCode::DaemonStopped, line, continue_steps(evidence, &evidence.ingestd)))
}

fn stopped(daemon: &DaemonEvidence) -> Option<String> {
    let process = daemon.process.get()?;
    let who = name_and_pid(daemon);
    match process.tracer {
        Some(tracer) if process.stopped => Some(format!("{who} is stopped by a debugger, pid {tracer}")),
        _ if process.stopped => Some(format!(
            "{who} is stopped by a signal (SIGSTOP, or a terminal); the kernel does not record who sent it and when"
        )),
        _ if let Some(frozen) = frozen(daemon) => {
            Some(format!("{who} is frozen by its control group {}", safe(&frozen.group)))
        }
        _ if process.frozen => Some(format!("{who} is frozen by its control group")),
        _ => None,
    }
}

fn frozen(daemon: &DaemonEvidence) -> Option<&FrozenGroup> {
    daemon.resources.get()?.frozen.as_ref()
}

/// The command that lets a frozen group run again.
fn thaw(evidence: &Evidence, frozen: &FrozenGroup) -> String {
    let root = as_root(evidence);
    match frozen.thaw() {
        Thaw::Docker(id) => format!("{root}docker unpause {id}"),
        Thaw::Podman(id) => format!("{root}podman unpause {id}"),
        Thaw::Unit(unit) => format!("{root}systemctl thaw {}", quoted(&unit)),
        Thaw::File { value, path } => write(evidence, value, &path),
    }
}

fn continue_steps(evidence: &Evidence, daemon: &DaemonEvidence) -> Vec<String> {
    let Some(process) = daemon.process.get() else { return Vec::new() };
    match (process.tracer, process.frozen) {
        (Some(tracer), _) if process.stopped => vec![format!(
            "ps -o pid,ppid,user,lstart,args -p {tracer}   # the debugger: detach it in its own terminal, or end it as its owner does"
        )],
        _ if let Some(frozen) = frozen(daemon) => {
            vec![format!("{}   # it continues where it stopped", thaw(evidence, frozen))]
        }
        (_, true) => vec![match daemon.unit.get() {
            Some(unit) => format!("{}systemctl thaw {}", sudo(daemon), quoted(&unit.id)),
            None => "docker unpause CONTAINER   # or: systemctl thaw UNIT".to_owned(),
        }],
        _ => vec![format!("{}kill -CONT {}   # it continues where it stopped", sudo(daemon), process.pid)],
    }
}

/// Also if a process is not running: the full disk may have ended it, and would again.
pub(super) fn disk_full(evidence: &Evidence) -> Option<DoctorVerdict> {
    let disk = evidence.store.get();
    let reported = evidence.ingestd.ingest_vitals().map(|vitals| &vitals.store);
    let path = reported.map(|store| store.path.clone()).or_else(|| disk.map(|disk| disk.path.clone()))?;
    let free = reported.and_then(|store| store.free_bytes).or_else(|| disk.map(|disk| disk.free_bytes));
    let free = free.filter(|free| *free < FREE_BYTES_MIN);
    let inodes = disk.and_then(|disk| disk.free_inodes).filter(|inodes| *inodes == 0);
    let (what, mut next) = match (free, inodes) {
        (Some(free), _) => (format!("has {} left", bytes(free)), free_space(evidence, &path)),
        (None, Some(_)) => ("has no inodes left".to_owned(), free_inodes(evidence, &path)),
        (None, None) => return None,
    };
    let dead =
        if evidence.ingestd.presence == Presence::Absent { "; newswire-ingestd does not run" } else { "" };
    let line = format!("the disk of {} {what}: nothing can be recorded{dead}", safe(&path));
    next.extend((!dead.is_empty()).then(|| start(&evidence.ingestd)));
    Some(DoctorVerdict::new(VerdictCode::DiskFull, line, next))
}

/// What uses the space, on the whole file system: seldom the store alone.
fn free_space(evidence: &Evidence, store: &str) -> Vec<String> {
    vec![
        format!(
            "df -h {0}; du -xh --max-depth=2 {0} | sort -h | tail   # free some space",
            quoted(file_system_of(evidence, store))
        ),
        "lower store.retention_bytes if the store itself uses most of it".to_owned(),
    ]
}

fn free_inodes(evidence: &Evidence, store: &str) -> Vec<String> {
    let place = quoted(file_system_of(evidence, store));
    vec![format!("df -i {place}; du --inodes -x {place} | sort -n | tail   # remove some files")]
}

fn file_system_of<'a>(evidence: &'a Evidence, store: &'a str) -> &'a str {
    let mount = evidence.file_system.get().map(|found| found.mount_point.as_str());
    mount.filter(|mount| !mount.is_empty() && store.starts_with(mount)).unwrap_or(store)
}

/// No visits begin, although the daemon runs. A hang explains more: a pause of recording keeps no client waiting.
pub(super) fn recording_paused(evidence: &Evidence) -> Option<DoctorVerdict> {
    // A pause that was over at the second look is over.
    let vitals = evidence.ingestd.ingest_vitals()?;
    let first = vitals.recording_paused.first()?;
    // A lease that NATS does not confirm has its cause there.
    if vitals.recording_paused.iter().all(|pause| pause.reason == NO_LEASE)
        && evidence.nats.get().is_some_and(|survey| survey.problem.is_some())
    {
        return None;
    }
    let since = duration(first.since_ms_ago);
    let line = format!(
        "recording has been paused for {since}: {}; what is recorded is still served",
        whole(&first.detail)
    );
    Some(match first.reason.as_str() {
        "disk-space" => {
            DoctorVerdict::new(VerdictCode::DiskFull, line, free_space(evidence, &vitals.store.path))
        }
        "disk-inodes" => {
            DoctorVerdict::new(VerdictCode::DiskFull, line, free_inodes(evidence, &vitals.store.path))
        }
        reason => {
            let next =
                format!("look up {} in deploy/OPERATIONS.md, section Recording is paused", safe(reason));
            DoctorVerdict::new(VerdictCode::RecordingPaused, line, [next])
        }
    })
}

/// Whether a gateway of ours answers, even if its process may not be examined.
fn answers(evidence: &Evidence) -> bool {
    evidence.http.get().is_some_and(|http| http.is_ours())
}

pub(super) fn gateway_dead(evidence: &Evidence) -> Option<DoctorVerdict> {
    let gateway = &evidence.gateway;
    let refused = evidence.http.get().is_some_and(|http| http.probes.iter().all(|p| p.connect_ms.is_none()));
    match gateway.presence {
        Presence::Absent if !answers(evidence) => {
            let line =
                format!("newswire-gateway does not run: {}{}", safe(&gateway.found_by), last_words(gateway));
            Some(DoctorVerdict::new(VerdictCode::GatewayDead, line, [exit_log_hint(gateway), start(gateway)]))
        }
        Presence::NotAsked if refused && evidence.target != Target::Both => {
            let address = evidence.http.get().map(|http| safe(&http.address)).unwrap_or_default();
            let line = format!("no process listens on {address}");
            Some(DoctorVerdict::new(
                VerdictCode::GatewayDead,
                line,
                ["newswire doctor   # run it on the machine of the gateway".to_owned()],
            ))
        }
        // It has been running for long without listening, so it will not start to.
        Presence::Running
            if refused
                && !is_starting(gateway)
                && has_no_listener(evidence)
                && other_network(gateway).is_none() =>
        {
            let address = evidence.listener.get().map(|listener| safe(&listener.address)).unwrap_or_default();
            let line = format!("{} runs but does not listen on {address}", name_and_pid(gateway));
            Some(DoctorVerdict::new(VerdictCode::GatewayDead, line, [bundle(), restart(gateway)]))
        }
        _ => None,
    }
}

fn has_no_listener(evidence: &Evidence) -> bool {
    evidence.listener.get().is_some_and(|listener| listener.sockets.is_empty())
}

pub(super) fn daemon_dead(evidence: &Evidence) -> Option<DoctorVerdict> {
    let ingestd = &evidence.ingestd;
    if ingestd.presence != Presence::Absent {
        return None;
    }
    let line = format!(
        "newswire-ingestd does not run: {}{}{}",
        safe(&ingestd.found_by),
        last_words(ingestd),
        gateway_serves(evidence)
    );
    let end = ingestd.black_box.get().map(|report| &report.last.end);
    let lost_its_log = matches!(end, Some(RunEnd::Ended { exit, .. }) if *exit == Exit::Io.code());
    let look = evidence.store.get().filter(|_| lost_its_log).map(|store| {
        let path = quoted(&store.path);
        format!("findmnt -T {path}; ls -la {path}   # is it the store that the daemon had? Put it back before the start")
    });
    let next = [Some(exit_log_hint(ingestd)), look, Some(start(ingestd))];
    Some(DoctorVerdict::new(VerdictCode::DaemonDead, line, next.into_iter().flatten()))
}

/// A draining gateway ends by itself; that is not a hang.
pub(super) fn draining(evidence: &Evidence) -> Option<DoctorVerdict> {
    let vitals = evidence.gateway.gateway_vitals();
    let ready = evidence.http.get().and_then(|http| http.ready.get());
    if !vitals.is_some_and(|vitals| vitals.draining) && !ready.is_some_and(|ready| ready.draining) {
        return None;
    }
    let clients = vitals.map(|vitals| vitals.clients);
    let left = clients.map(|clients| format!(", {clients} clients left")).unwrap_or_default();
    let line = format!("{} is draining{left}, and ends by itself", name_and_pid(&evidence.gateway));
    let next = ["newswire doctor   # again, after the time of gateway.drain".to_owned()];
    Some(DoctorVerdict::new(VerdictCode::Healthy, line, next).passing())
}

pub(super) fn starting(evidence: &Evidence) -> Option<DoctorVerdict> {
    let young = evidence.daemons().find(|daemon| daemon.is_running() && is_starting(daemon))?;
    let ready = evidence.http.get()?.ready.get();
    // A gateway that is ready has finished starting.
    if ready.is_some_and(|ready| ready.ready) {
        return None;
    }
    // A network that cannot be seen does not pass as a start does.
    if let Some(elsewhere) = elsewhere(evidence) {
        return Some(elsewhere);
    }
    let reasons = ready.map(|ready| safe(&ready.reasons.join("; "))).unwrap_or_default();
    let wait = if reasons.is_empty() { "not ready yet".to_owned() } else { reasons };
    let line =
        format!("{} started {} ago: {wait}", name_and_pid(young), duration(young.uptime_ms().unwrap_or(0)));
    Some(
        DoctorVerdict::new(VerdictCode::Healthy, line, ["newswire doctor   # again, in 10 s".to_owned()])
            .passing(),
    )
}

pub(super) fn is_starting(daemon: &DaemonEvidence) -> bool {
    daemon.uptime_ms().is_some_and(|uptime| uptime < STARTING_MS)
}
