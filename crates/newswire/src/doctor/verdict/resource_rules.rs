//! Rules about what the kernel limits or withholds: processor time, memory, threads, the disk, the files of the store and the
//! sockets; and about processes in other places.

use std::path::Path;

use control::watch::{DiskWorkPhase, SlowDiskReport};

use super::{
    DaemonEvidence, DoctorVerdict, Evidence, Presence, VerdictCode, bundle, bytes, duration, name_and_pid,
    next::{
        as_it_was_started, as_its_user, as_root, busy_disk, in_its_place, kernel_messages, quoted, restart,
        restart_in_order, start, stop, sudo, write,
    },
    safe,
    stalled::gateway_serves,
};
use crate::doctor::evidence::OtherGateway;
use crate::doctor::resources::{
    cpu_quota::CpuQuota,
    file_system::StoreFileSystem,
    group_tree::GroupVersion,
    memory_limit::MemoryLimit,
    namespaces::OtherPlace,
    pressure::Pressure,
    sockets::SocketState,
    still_threads::StillThread,
    store_placement::StorePlacement,
    task_limit::{TaskBound, TaskLimit},
};

/// A group that was throttled for less than this part of the time between the samples still gets what it needs.
const THROTTLED_PERCENT: u64 = 30;
/// A quota of less than this part of a processor keeps a process from answering, however seldom it is throttled.
const SMALL_QUOTA_PERCENT: f64 = 10.0;
/// For so long of a second at least.
const SMALL_QUOTA_MS: u64 = 20;
/// A loop that has made no progress for longer, and whose thread sleeps, is blocked by something else than its quota.
const BLOCKED_BEYOND_QUOTA_MS: u64 = 10_000;
/// A group that is full of memory which the kernel cannot drop.
const MEMORY_FULL_PERCENT: u64 = 80;
/// So many reads of what had been in memory, in a second, mean that it does not fit any more.
const MAJOR_FAULTS_MANY: u64 = 50;
/// No thread did anything but wait for memory, in percent.
const MEMORY_STALL_PERCENT: u64 = 20;
/// Work of the disk that takes longer shows that it is stalled.
const DISK_STALLED_MS: u64 = 1_000;
/// Slow work of the last minute: so often, and so long altogether. Less may be a busy machine.
const DISK_SLOW_OFTEN: u64 = 2;
const DISK_SLOW_TOTAL_MS: u64 = 4_000;

/// The quota explains loops that are late, requests without an answer and slow commits.
pub(super) fn throttled(evidence: &Evidence) -> Option<DoctorVerdict> {
    let quota = |daemon: &'_ DaemonEvidence| {
        let quota = daemon.resources.get()?.cpu.first().filter(|quota| is_throttled(quota)).cloned()?;
        (!is_blocked_beyond_quota(daemon)).then_some(quota)
    };
    let throttled = evidence.daemons().filter_map(|daemon| Some((daemon, quota(daemon)?)));
    let (daemon, quota) = throttled.max_by_key(|(_, quota)| quota.throttled_ms)?;
    let line = format!(
        "the CPU quota of control group {}, {} % of a processor, throttled {} for {} of the last {}, in {} of {} periods",
        safe(&quota.group),
        percent(quota.quota_percent),
        name_and_pid(daemon),
        duration(quota.throttled_ms.min(quota.over_ms)),
        duration(quota.over_ms),
        quota.throttled_periods,
        quota.periods
    );
    Some(DoctorVerdict::new(VerdictCode::Throttled, line, more_processor(evidence, &quota)))
}

fn is_throttled(quota: &CpuQuota) -> bool {
    let by_time = quota.throttled_periods * 2 >= quota.periods.max(1)
        && quota.throttled_ms * 100 >= quota.over_ms.saturating_mul(THROTTLED_PERCENT)
        && quota.throttled_ms > 0;
    by_time || quota.quota_percent < SMALL_QUOTA_PERCENT && quota.throttled_ms >= SMALL_QUOTA_MS
}

/// A thread that waits for its quota can run. One that sleeps or waits for a disk while its loop stalls for long does not wait
/// for it.
fn is_blocked_beyond_quota(daemon: &DaemonEvidence) -> bool {
    let still = |tid: i32| still(daemon).iter().find(|thread| thread.tid == tid);
    let loops = daemon.watch.get().map(|watch| watch.progress.loops.as_slice()).unwrap_or_default();
    let mut stalled = loops.iter().filter(|one| one.stalled && one.beat_ms_ago >= BLOCKED_BEYOND_QUOTA_MS);
    stalled.any(|one| still(one.tid).is_some())
        || self::still(daemon).iter().any(|thread| thread.state == 'D')
}

fn still(daemon: &DaemonEvidence) -> &[StillThread] {
    daemon.resources.get().map(|resources| resources.still.as_slice()).unwrap_or_default()
}

fn percent(percent: f64) -> String {
    if percent < 10.0 {
        format!("{percent:.1}").trim_end_matches(".0").to_owned()
    } else {
        format!("{percent:.0}")
    }
}

/// The systemd unit or container that a control group was made for.
enum GroupOwner<'a> {
    Unit(&'a str),
    Docker(&'a str),
    Pod,
    Unknown,
}

fn owner_of(group: &str) -> GroupOwner<'_> {
    let mut parts = group.rsplit('/');
    let (name, parent) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match name.strip_prefix("docker-").and_then(|name| name.strip_suffix(".scope")) {
        Some(id) => GroupOwner::Docker(id.get(..12).unwrap_or(id)),
        None if parent == "docker" => GroupOwner::Docker(name.get(..12).unwrap_or(name)),
        None if group.contains("/kubepods") => GroupOwner::Pod,
        None if [".service", ".slice", ".scope"].iter().any(|end| name.ends_with(end)) => {
            GroupOwner::Unit(name)
        }
        None => GroupOwner::Unknown,
    }
}

fn more_processor(evidence: &Evidence, quota: &CpuQuota) -> Vec<String> {
    let (group, root) = (safe(&quota.group), as_root(evidence));
    let raise = match (owner_of(&group), quota.version) {
        (GroupOwner::Unit(unit), _) => {
            format!("{root}systemctl set-property {} CPUQuota=   # or a larger one", quoted(unit))
        }
        (GroupOwner::Docker(id), _) => format!("{root}docker update --cpus 2 {id}   # or more"),
        (GroupOwner::Pod, _) => "raise resources.limits.cpu of the container of the pod".to_owned(),
        (GroupOwner::Unknown, GroupVersion::V2) => {
            let file = format!("{}/cpu.max", quota.group);
            format!("{}   # or a larger quota", write(evidence, "max", &file))
        }
        (GroupOwner::Unknown, GroupVersion::V1) => {
            let file = format!("{}/cpu.cfs_quota_us", quota.group);
            format!("{}   # or a larger quota", write(evidence, "-1", &file))
        }
    };
    vec![raise, "newswire doctor   # again, after 10 s".to_owned()]
}

/// The kernel reclaims memory of the group again and again, and everything waits for that.
pub(super) fn memory_pressure(evidence: &Evidence) -> Option<DoctorVerdict> {
    let limit = |daemon: &'_ DaemonEvidence| {
        let resources = daemon.resources.get()?;
        resources.memory.iter().find(|limit| limit.killed > 0 || is_short(limit)).cloned()
    };
    if let Some((daemon, limit)) = evidence.daemons().find_map(|daemon| Some((daemon, limit(daemon)?))) {
        return Some(short_of_memory(evidence, daemon, &limit));
    }
    let stalls = |daemon: &DaemonEvidence| {
        let resources = daemon.resources.get()?;
        resources.pressure.memory.filter(|memory| is_stalled(memory, resources.sampled_ms))
    };
    if let Some((daemon, memory)) = evidence.daemons().find_map(|daemon| Some((daemon, stalls(daemon)?))) {
        let line = format!(
            "the control group of {} waited for memory and did nothing else for {:.0} % of the last 10 s",
            name_and_pid(daemon),
            memory.full_percent
        );
        return Some(DoctorVerdict::new(VerdictCode::MemoryPressure, line, what_uses_memory()));
    }
    let memory = evidence.pressure.get()?.memory?;
    let sampled_ms = evidence.daemons().find_map(|daemon| Some(daemon.resources.get()?.sampled_ms))?;
    is_stalled(&memory, sampled_ms).then(|| {
        let line = format!(
            "the machine is short of memory: for {:.0} % of the last 10 s all that ran waited for it",
            memory.full_percent
        );
        DoctorVerdict::new(VerdictCode::MemoryPressure, line, what_uses_memory())
    })
}

fn is_short(limit: &MemoryLimit) -> bool {
    let is_full =
        limit.anonymous_bytes.saturating_mul(100) >= limit.limit_bytes.saturating_mul(MEMORY_FULL_PERCENT);
    let is_reclaimed = limit.at_limit > 0 && (is_full || limit.major_faults >= MAJOR_FAULTS_MANY);
    limit.is_out || is_reclaimed
}

/// Over 10 s, and still: between the samples too.
fn is_stalled(memory: &Pressure, sampled_ms: u64) -> bool {
    memory.full_percent >= MEMORY_STALL_PERCENT as f64
        && memory.full_ms * 100 >= sampled_ms.saturating_mul(MEMORY_STALL_PERCENT)
}

fn what_uses_memory() -> Vec<String> {
    vec![
        "ps -eo pid,rss,comm --sort -rss | head   # what uses the memory?".to_owned(),
        "newswire doctor   # again, when less is used".to_owned(),
    ]
}

fn short_of_memory(evidence: &Evidence, daemon: &DaemonEvidence, limit: &MemoryLimit) -> DoctorVerdict {
    let (group, root) = (safe(&limit.group), as_root(evidence));
    let limited = match (limit.is_out, limit.at_limit) {
        (true, _) => ", and its threads wait until some is free".to_owned(),
        (false, 0) => String::new(),
        (false, n) => format!(", and came to its limit {n} times between two samples"),
    };
    let killed = match limit.killed_total {
        0 => String::new(),
        n => format!("; the kernel has ended {n} processes of this group because of it"),
    };
    let line = format!(
        "{} is short of memory: control group {group} uses {} of {}{limited}{killed}",
        name_and_pid(daemon),
        bytes(limit.used_bytes),
        bytes(limit.limit_bytes)
    );
    let raise = match (owner_of(&group), limit.version) {
        (GroupOwner::Unit(unit), _) => {
            format!(
                "{root}systemctl set-property {} MemoryHigh=infinity MemoryMax=infinity   # or larger limits",
                quoted(unit)
            )
        }
        (GroupOwner::Docker(id), _) => {
            format!("{root}docker update --memory 2g --memory-swap -1 {id}   # or more")
        }
        (GroupOwner::Pod, _) => "raise resources.limits.memory of the container of the pod".to_owned(),
        (GroupOwner::Unknown, GroupVersion::V2) => {
            let [high, max] = ["memory.high", "memory.max"]
                .map(|name| write(evidence, "max", &format!("{}/{name}", limit.group)));
            format!("{high}; {max}   # or larger limits")
        }
        (GroupOwner::Unknown, GroupVersion::V1) => {
            let file = format!("{}/memory.limit_in_bytes", limit.group);
            format!("{}   # or a larger limit", write(evidence, "-1", &file))
        }
    };
    let again = "newswire doctor   # again: what failed for want of memory may need a restart".to_owned();
    DoctorVerdict::new(VerdictCode::MemoryPressure, line, [raise, again])
}

/// The process cannot start threads: its pools do not grow, and blocking work waits.
pub(super) fn tasks_exhausted(evidence: &Evidence) -> Option<DoctorVerdict> {
    let reached = |daemon: &'_ DaemonEvidence| {
        daemon.resources.get()?.tasks.iter().find(|limit| limit.is_reached()).cloned()
    };
    let (daemon, limit) = evidence.daemons().find_map(|daemon| Some((daemon, reached(daemon)?)))?;
    let TaskLimit { bound, used, max, refused } = limit;
    let refusals =
        if refused > 0 { format!("; {refused} were refused between two samples") } else { String::new() };
    let (pid, root) = (daemon.pid().unwrap_or(0), as_root(evidence));
    let (of, raise) = match bound {
        TaskBound::Group(group) => {
            let raise = match owner_of(&group) {
                GroupOwner::Unit(unit) => {
                    format!("{root}systemctl set-property {} TasksMax=infinity   # or more", quoted(unit))
                }
                GroupOwner::Docker(id) => format!("{root}docker update --pids-limit -1 {id}   # or more"),
                GroupOwner::Pod => "raise the limit on process ids of the pods of this node".to_owned(),
                GroupOwner::Unknown => {
                    let file = format!("{group}/pids.max");
                    format!("{}   # or more", write(evidence, "max", &file))
                }
            };
            let group = safe(&group);
            (format!("its control group {group} has {used} of {max} threads (pids.max)"), raise)
        }
        TaskBound::User(uid) => (
            format!("user {uid} has {used} of {max} threads (RLIMIT_NPROC)"),
            format!(
                "{root}prlimit --pid {pid} --nproc=unlimited   # and LimitNPROC= or `ulimit -u` for the next start"
            ),
        ),
        TaskBound::Machine(name) => (
            format!("the machine has {used} of {max} threads ({name})"),
            format!(
                "{root}sysctl -w {name}={}   # and find what starts so many: ps -eLf | wc -l",
                max.saturating_mul(2)
            ),
        ),
    };
    let line = format!("{} cannot start threads: {of}{refusals}", name_and_pid(daemon));
    let look = format!("ls /proc/{pid}/task | wc -l   # how many of them are its own?");
    Some(DoctorVerdict::new(VerdictCode::TasksExhausted, line, [raise, look]))
}

/// The disk of the store takes no writes, or takes seconds for each.
pub(super) fn disk_stalled(evidence: &Evidence) -> Option<DoctorVerdict> {
    let daemon = &evidence.ingestd;
    let why = hung_file_system(evidence)
        .or_else(|| waiting_thread(evidence))
        .or_else(|| work_in_progress(daemon))?;
    Some(stalled(evidence, &why))
}

/// The disk answers at this moment, and took seconds again and again in the last minute.
pub(super) fn disk_slow(evidence: &Evidence) -> Option<DoctorVerdict> {
    let slow = evidence.ingestd.ingest_vitals()?.store.slow_disk?;
    (slow.count >= DISK_SLOW_OFTEN && slow.total_ms >= DISK_SLOW_TOTAL_MS)
        .then(|| stalled(evidence, &slow_work(slow)))
}

fn stalled(evidence: &Evidence, why: &str) -> DoctorVerdict {
    let file_system = evidence.file_system.get();
    let (place, next) = describe_file_system(evidence, file_system);
    let io = evidence.pressure.get().and_then(|machine| machine.io).filter(|io| io.some_percent >= 1.0);
    let io = io.map(|io| {
        format!("; threads of this machine waited for disks in {:.0} % of the last 10 s", io.some_percent)
    });
    let line = format!("{place} {why}{}; what is recorded is still served", io.unwrap_or_default());
    DoctorVerdict::new(VerdictCode::DiskStalled, line, next)
}

fn describe_file_system(evidence: &Evidence, file_system: Option<&StoreFileSystem>) -> (String, Vec<String>) {
    let mut next = vec![busy_disk(), kernel_messages(evidence)];
    let Some(StoreFileSystem { mount_point, source, kind, hangs, .. }) = file_system else {
        return ("the disk of the store".to_owned(), next);
    };
    let (mount, source, kind) = (safe(mount_point), safe(source), safe(kind));
    if *hangs {
        next.insert(
            0,
            format!(
                "{}fsfreeze --unfreeze {}   # if it is frozen; a snapshot may be under way",
                as_root(evidence),
                quoted(mount_point)
            ),
        );
    }
    (format!("the disk of the store ({kind} on {source}, mounted at {mount})"), next)
}

fn hung_file_system(evidence: &Evidence) -> Option<String> {
    evidence.file_system.get().filter(|file_system| file_system.hangs)?;
    let waits = waiting_thread(evidence).map(|thread| format!("; it {thread}")).unwrap_or_default();
    Some(format!("takes no changes: it is frozen, or it hangs{waits}"))
}

/// A thread of the ingestion daemon that was in the same call on a file of the store in both samples.
fn waiting_thread(evidence: &Evidence) -> Option<String> {
    let daemon = &evidence.ingestd;
    let store = evidence.store.get().map(|disk| disk.path.clone());
    let store = daemon.ingest_vitals().map(|vitals| vitals.store.path.clone()).or(store);
    let is_of_store = |thread: &&StillThread| match &thread.file {
        Some(file) => store.as_ref().is_some_and(|store| Path::new(file).starts_with(store)),
        None => thread.state == 'D',
    };
    let waiting = still(daemon).iter().filter(|thread| thread.waits_for_disk()).filter(is_of_store);
    let thread = waiting.min_by_key(|thread| thread.call.is_none())?;
    let call = thread.call.map(|call| format!(" in {call}")).unwrap_or_default();
    let file = thread.file.as_deref().map(|file| format!(" of {}", safe(file))).unwrap_or_default();
    let wchan =
        thread.wchan.as_deref().map(|at| format!(", kernel function {}", safe(at))).unwrap_or_default();
    let at = format!("thread {} ({})", thread.tid, safe(&thread.name));
    Some(format!(
        "keeps {at} of {} waiting{call}{file} (state {}{wchan})",
        name_and_pid(daemon),
        thread.state
    ))
}

/// As the writer of the store measures it.
fn work_in_progress(daemon: &DaemonEvidence) -> Option<String> {
    let store = &daemon.ingest_vitals()?.store;
    let work = store.disk.filter(|work| work.since_ms >= DISK_STALLED_MS)?;
    let phase = match work.phase {
        DiskWorkPhase::Write => "to write a commit",
        DiskWorkPhase::Sync => "to sync a commit",
        DiskWorkPhase::Sled => "to write the table of the sources",
    };
    let before = store.slow_disk.map(|slow| format!(", and {}", slow_work(slow))).unwrap_or_default();
    Some(format!("has taken {} so far {phase}{before}", duration(work.since_ms)))
}

fn slow_work(SlowDiskReport { count, total_ms, slowest_ms, slowest_ms_ago }: SlowDiskReport) -> String {
    format!(
        "took {} for {count} writes or syncs in the last minute, {} for the slowest, {} ago",
        duration(total_ms),
        duration(slowest_ms),
        duration(slowest_ms_ago)
    )
}

/// A process that cannot be asked, and whose thread waits inside its work in both samples.
pub(super) fn blocked_from_outside(evidence: &Evidence) -> Option<DoctorVerdict> {
    let blocked = |daemon: &'_ DaemonEvidence| {
        daemon.watch.get().is_none().then_some(())?;
        let (pid, stacks) = (daemon.pid()?, daemon.stacks.get()?);
        let is_loop =
            |tid: i32, name: &str| tid == pid || LOOP_THREADS.iter().any(|known| name.starts_with(known));
        let is_still = |tid: i32| still(daemon).iter().any(|thread| thread.tid == tid);
        let mut threads = stacks.threads.iter().filter(|thread| !thread.idle && thread.culprit.is_some());
        threads.find(|one| is_loop(one.thread.tid, &one.thread.name) && is_still(one.thread.tid)).cloned()
    };
    let (daemon, thread) = evidence.daemons().find_map(|daemon| Some((daemon, blocked(daemon)?)))?;
    let line = format!(
        "thread {} ({}) of {} is blocked in {}; the process cannot be asked: {}",
        thread.thread.tid,
        safe(&thread.thread.name),
        name_and_pid(daemon),
        safe(thread.culprit.as_deref().unwrap_or_default()),
        unreachable(daemon)
    );
    let next = [bundle(), restart(daemon), "report this function as a bug".to_owned()];
    Some(DoctorVerdict::new(VerdictCode::EventLoopBlocked, line, next))
}

/// Threads on which everything else waits; the main thread is one too.
const LOOP_THREADS: [&str; 4] = ["wire", "worker", "arbiter", "actix-"];

fn unreachable(daemon: &DaemonEvidence) -> String {
    let lost = lost_sockets(daemon).next();
    lost.unwrap_or_else(|| format!("its admin socket {} does not answer", safe(&daemon.socket)))
}

/// The store is not where the configuration says. What is written from now on is lost at the next start.
pub(super) fn store_gone(evidence: &Evidence) -> Option<DoctorVerdict> {
    let daemon = &evidence.ingestd;
    let place = evidence.store_place.get()?;
    let path = daemon.ingest_vitals().map(|vitals| vitals.store.path.clone());
    let path = path.or_else(|| evidence.store.get().map(|disk| disk.path.clone()))?;
    let (what, next) = match place {
        StorePlacement::InPlace | StorePlacement::Absent => return None,
        StorePlacement::Deleted => ("is deleted".to_owned(), restored(daemon)),
        StorePlacement::Renamed(to) => (
            format!("is at {} now", safe(to)),
            // An empty folder in its place is replaced; without -T it would go into that folder.
            vec![format!("{}mv -T {} {}", sudo(daemon), quoted(to), quoted(&path)), restart_in_order(daemon)],
        ),
        StorePlacement::Unmounted { mount_point, device } => {
            let at = quoted(mount_point.as_deref().unwrap_or(&path));
            let device = device.as_deref().map(|device| format!("{} ", quoted(device))).unwrap_or_default();
            let mount = format!(
                "{}mount {device}{at}   # or as it was mounted before; see /etc/fstab",
                as_root(evidence)
            );
            ("is not mounted any more".to_owned(), vec![mount, restart_in_order(daemon)])
        }
        StorePlacement::Covered => (
            "is hidden: another file system is mounted over it".to_owned(),
            vec![
                format!("findmnt -T {}   # what hides it", quoted(&path)),
                format!("{}umount \"$(findmnt -n -o TARGET -T {})\"", as_root(evidence), quoted(&path)),
                restart_in_order(daemon),
            ],
        ),
    };
    let path = safe(&path);
    let line = format!(
        "the store of {}, {path}, {what}: the daemon writes to files that no start will find",
        name_and_pid(daemon)
    );
    Some(DoctorVerdict::new(VerdictCode::StoreGone, line, next))
}

/// What the gateway still has is saved before the daemon ends; a copy can be put in place only after that.
fn restored(daemon: &DaemonEvidence) -> Vec<String> {
    let save = "timeout 60 newswire tail --since 7d --json > saved.jsonl; wc -l saved.jsonl   # first: what the gateway still has";
    let restore =
        "newswire log restore COPY   # a backup or another copy of the store; without one, leave this out";
    let steps =
        [Some(save.to_owned()), stop(daemon), Some(as_its_user(daemon, restore)), Some(start(daemon))];
    steps.into_iter().flatten().collect()
}

/// The daemon has ended because its store is gone, and no start helps. The gateway has had events from it.
pub(super) fn store_gone_and_daemon_dead(evidence: &Evidence) -> Option<DoctorVerdict> {
    let daemon = &evidence.ingestd;
    (daemon.presence == Presence::Absent).then_some(())?;
    (*evidence.store_place.get()? == StorePlacement::Absent).then_some(())?;
    evidence.gateway.gateway_vitals()?.wire.as_ref()?.cursor.as_ref()?;
    let path = &evidence.store.get()?.path;
    let line = format!(
        "newswire-ingestd does not run, and its store is not in {} any more: it was deleted, renamed or unmounted while the \
         daemon ran{}",
        safe(path),
        gateway_serves(evidence)
    );
    let parent = std::path::Path::new(path).parent().unwrap_or(std::path::Path::new("/"));
    let parent = quoted(&parent.display().to_string());
    let next = [
        format!(
            "findmnt -T {parent}; ls -la {parent}   # is its file system mounted? Is the store beside it? Put it back first"
        ),
        as_its_user(daemon, "newswire log restore COPY   # or a backup of it, if it is lost"),
        start(daemon),
    ];
    Some(DoctorVerdict::new(VerdictCode::StoreGone, line, next))
}

/// Clients are served on, but no tool and no gateway can connect.
pub(super) fn run_dir_gone(evidence: &Evidence) -> Option<DoctorVerdict> {
    let sick: Vec<_> = evidence.daemons().filter(|daemon| lost_sockets(daemon).next().is_some()).collect();
    let first = sick.first()?;
    let lost: Vec<_> = sick.iter().flat_map(|daemon| lost_sockets(daemon)).collect();
    let line = format!(
        "{} runs, but {}: it cannot be asked or connected to any more",
        name_and_pid(first),
        lost.join("; ")
    );
    let next = sick.iter().map(|daemon| makes_sockets_anew(daemon));
    Some(DoctorVerdict::new(VerdictCode::RunDirGone, line, next))
}

/// A process that serves its clients is not to be killed; a person restarts it when that suits.
fn makes_sockets_anew(daemon: &DaemonEvidence) -> String {
    match daemon.unit.get() {
        Some(_) => format!("{}   # it makes its sockets anew", restart_in_order(daemon)),
        None => format!(
            "restart {} when it suits, as it was started: `{}`; it makes its sockets anew",
            daemon.name,
            as_it_was_started(daemon)
        ),
    }
}

fn lost_sockets(daemon: &DaemonEvidence) -> impl Iterator<Item = String> {
    let sockets = daemon.resources.get().map(|resources| resources.sockets.as_slice()).unwrap_or_default();
    sockets.iter().filter_map(|socket| {
        let path = safe(&socket.path);
        match &socket.state {
            SocketState::InPlace => None,
            SocketState::Missing => Some(format!("its socket {path} is deleted")),
            SocketState::Replaced { by: None } => {
                Some(format!("its socket {path} was replaced by one that is dead"))
            }
            SocketState::Replaced { by: Some((pid, program)) } => {
                Some(format!("its socket {path} was replaced by pid {pid} ({})", safe(program)))
            }
        }
    })
}

/// A gateway beside the one of this configuration.
pub(super) fn other_gateway(evidence: &Evidence) -> Option<DoctorVerdict> {
    let OtherGateway { pid, command, verdict, line, .. } =
        evidence.other_gateways.iter().find(|other| other.is_sick)?;
    let line =
        format!("another gateway of this daemon, pid {pid} ({}), is sick: {verdict}: {line}", safe(command));
    let examine = format!("newswire doctor --pid {pid}   # all about that one, and what to do");
    Some(DoctorVerdict::new(VerdictCode::OtherGateway, line, [examine]))
}

/// The place of a process whose addresses are not those of this tool.
pub(super) fn other_network(daemon: &DaemonEvidence) -> Option<&OtherPlace> {
    daemon.resources.get()?.place.as_ref().filter(|place| place.net)
}

/// A gateway that can neither be asked nor connected to from here.
pub(super) fn out_of_reach(evidence: &Evidence) -> Option<DoctorVerdict> {
    if evidence.gateway.watch.get().is_some() { None } else { elsewhere(evidence) }
}

/// A gateway in another network cannot be judged by the answers at the same address of this one.
pub(super) fn elsewhere(evidence: &Evidence) -> Option<DoctorVerdict> {
    let daemon = &evidence.gateway;
    let place = other_network(daemon)?;
    let answers = evidence.http.get().is_some_and(|http| http.is_ours());
    let is_held = daemon.process.get().is_some_and(|process| process.stopped || process.frozen);
    if answers || is_held || daemon.resources.get()?.frozen.is_some() {
        return None;
    }
    let line = format!(
        "{} runs in {}: from here it does not answer, and its sockets cannot be seen",
        name_and_pid(daemon),
        place.describe()
    );
    Some(DoctorVerdict::new(VerdictCode::Unknown, line, in_its_place(evidence, daemon, place)))
}
