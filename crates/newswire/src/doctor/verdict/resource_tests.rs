//! The verdicts about what the kernel limits or withholds, from made-up evidence.

use control::watch::{DiskWorkPhase, DiskWorkReport, SlowDiskReport};

use super::{
    tests::{expect, healthy, ingest_vitals, kill, process, refused, stall, stop},
    *,
};
use crate::doctor::evidence::OtherGateway;
use crate::doctor::part::Part;
use crate::doctor::resources::{
    ProcessResources,
    cpu_quota::CpuQuota,
    file_system::StoreFileSystem,
    freezer::FrozenGroup,
    group_tree::GroupVersion,
    memory_limit::MemoryLimit,
    namespaces::OtherPlace,
    pressure::{Pressure, Pressures},
    sockets::{SocketPlace, SocketState},
    still_threads::StillThread,
    store_placement::StorePlacement,
    task_limit::{TaskBound, TaskLimit},
};

pub(super) fn resources(daemon: &mut DaemonEvidence) -> &mut ProcessResources {
    match &mut daemon.resources {
        Part::Found(resources) => resources,
        Part::Missing { .. } => panic!("they were sampled"),
    }
}

fn throttle(daemon: &mut DaemonEvidence, throttled_ms: u64) {
    let periods = throttled_ms / 100;
    resources(daemon).cpu = vec![CpuQuota {
        group: "/sys/fs/cgroup/system.slice/newswire-gateway.service".into(),
        version: GroupVersion::V2,
        quota_percent: 3.0,
        periods: 10,
        throttled_periods: periods,
        throttled_ms,
        over_ms: 1_000,
    }];
}

fn still(tid: i32, state: char) -> StillThread {
    StillThread { tid, name: "t".into(), state, ..StillThread::default() }
}

#[test]
fn a_quota_explains_loops_that_are_late_and_slow_commits() {
    let mut e = healthy();
    throttle(&mut e.gateway, 970);
    let words = ["newswire-gateway.service", "3 % of a processor", "970ms of the last 1s", "9 of 10 periods"];
    let verdict = expect(&e, VerdictCode::Throttled, &words);
    assert!(
        verdict.next[0].starts_with("systemctl set-property newswire-gateway.service CPUQuota="),
        "{verdict:?}"
    );
    stall(&mut e.gateway, "worker-0", 40_000);
    ingest_vitals(&mut e).store.committing_ms = Some(4_000);
    expect(&e, VerdictCode::Throttled, &[]);
    // Its thread sleeps: it does not wait for processor time.
    resources(&mut e.gateway).still = vec![still(201, 'S')];
    expect(&e, VerdictCode::EventLoopBlocked, &["worker-0"]);
}

#[test]
fn a_process_that_is_throttled_now_and_then_is_healthy() {
    let mut e = healthy();
    throttle(&mut e.gateway, 200);
    resources(&mut e.gateway).cpu[0].quota_percent = 50.0;
    expect(&e, VerdictCode::Healthy, &[]);
    resources(&mut e.gateway).cpu[0].quota_percent = 1.0;
    expect(&e, VerdictCode::Throttled, &["1 % of a processor"]);
    throttle(&mut e.gateway, 0);
    resources(&mut e.gateway).cpu[0].quota_percent = 1.0;
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_disk_that_a_throttled_thread_waits_for_is_the_worse_fault() {
    let mut e = healthy();
    throttle(&mut e.ingestd, 970);
    resources(&mut e.ingestd).still = vec![still(102, 'D')];
    expect(&e, VerdictCode::DiskStalled, &["state D"]);
}

#[test]
fn the_frozen_group_and_what_continues_it_are_named() {
    let mut e = healthy();
    stop(&mut e.gateway);
    super::tests::process(&mut e.gateway).stopped = false;
    resources(&mut e.gateway).frozen =
        Some(FrozenGroup { group: "/sys/fs/cgroup/freezer/f".into(), version: GroupVersion::V1 });
    let verdict =
        expect(&e, VerdictCode::GatewayStopped, &["frozen by its control group /sys/fs/cgroup/freezer/f"]);
    assert!(
        verdict.next[0].starts_with("echo THAWED > /sys/fs/cgroup/freezer/f/freezer.state"),
        "{verdict:?}"
    );
    assert!(verdict.next.iter().all(|step| !step.contains("kill")), "{verdict:?}");
}

#[test]
fn a_group_at_its_memory_limit_is_short_only_if_it_cannot_drop_what_it_has() {
    let mut e = healthy();
    let limit = MemoryLimit {
        group: "/sys/fs/cgroup/m".into(),
        used_bytes: 100 << 20,
        limit_bytes: 100 << 20,
        anonymous_bytes: 20 << 20,
        at_limit: 50,
        ..MemoryLimit::default()
    };
    resources(&mut e.ingestd).memory = vec![limit.clone()];
    expect(&e, VerdictCode::Healthy, &[]);
    resources(&mut e.ingestd).memory = vec![MemoryLimit { anonymous_bytes: 95 << 20, ..limit.clone() }];
    let verdict =
        expect(&e, VerdictCode::MemoryPressure, &["newswire-ingestd", "100 MiB of 100 MiB", "50 times"]);
    assert!(verdict.next[0].contains("/sys/fs/cgroup/m/memory.high"), "{verdict:?}");
    resources(&mut e.ingestd).memory = vec![MemoryLimit { major_faults: 900, ..limit.clone() }];
    expect(&e, VerdictCode::MemoryPressure, &[]);
    resources(&mut e.ingestd).memory = vec![MemoryLimit { at_limit: 0, killed: 1, killed_total: 2, ..limit }];
    expect(&e, VerdictCode::MemoryPressure, &["has ended 2 processes"]);
}

#[test]
fn a_machine_in_which_nothing_runs_for_want_of_memory_is_named() {
    let mut e = healthy();
    let memory = Pressure { some_percent: 90.0, full_percent: 60.0, some_ms: 900, full_ms: 700 };
    e.pressure = Part::Found(Pressures { memory: Some(memory), ..Pressures::default() });
    expect(&e, VerdictCode::MemoryPressure, &["60 % of the last 10 s"]);
    let over = Pressure { full_ms: 0, ..memory };
    e.pressure = Part::Found(Pressures { memory: Some(over), ..Pressures::default() });
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_process_that_cannot_start_threads_is_reported_with_the_limit() {
    let mut e = healthy();
    let limit = |bound| TaskLimit { bound, used: 20, max: 20, refused: 0 };
    resources(&mut e.gateway).tasks = vec![limit(TaskBound::Group("/sys/fs/cgroup/pids/p".into()))];
    let verdict = expect(&e, VerdictCode::TasksExhausted, &["/sys/fs/cgroup/pids/p has 20 of 20 threads"]);
    assert!(verdict.next[0].starts_with("echo max > /sys/fs/cgroup/pids/p/pids.max"), "{verdict:?}");
    resources(&mut e.gateway).tasks = vec![limit(TaskBound::User(998))];
    let verdict = expect(&e, VerdictCode::TasksExhausted, &["user 998", "RLIMIT_NPROC"]);
    assert!(verdict.next[0].starts_with("prlimit --pid 200 --nproc"), "{verdict:?}");
    resources(&mut e.gateway).tasks =
        vec![TaskLimit { used: 19, ..limit(TaskBound::Machine("kernel.pid_max")) }];
    expect(&e, VerdictCode::Healthy, &[]);
}

#[test]
fn a_stalled_disk_is_named_with_its_mount_and_what_waits() {
    let mut e = healthy();
    e.file_system = Part::Found(StoreFileSystem {
        mount_point: "/srv".into(),
        source: "/dev/sdb1".into(),
        kind: "ext4".into(),
        hangs: true,
        ..StoreFileSystem::default()
    });
    let verdict =
        expect(&e, VerdictCode::DiskStalled, &["ext4 on /dev/sdb1, mounted at /srv", "takes no changes"]);
    assert!(verdict.next[0].starts_with("fsfreeze --unfreeze /srv"), "{verdict:?}");
    let Part::Found(file_system) = &mut e.file_system else { panic!() };
    file_system.hangs = false;
    let store = &mut ingest_vitals(&mut e).store;
    store.slow_disk =
        Some(SlowDiskReport { count: 1, total_ms: 3_000, slowest_ms: 3_000, slowest_ms_ago: 9_000 });
    expect(&e, VerdictCode::Healthy, &[]);
    let store = &mut ingest_vitals(&mut e).store;
    store.slow_disk =
        Some(SlowDiskReport { count: 3, total_ms: 9_000, slowest_ms: 3_100, slowest_ms_ago: 9_000 });
    expect(
        &e,
        VerdictCode::DiskStalled,
        &["for 3 writes or syncs in the last minute", "3.1s for the slowest"],
    );
    let store = &mut ingest_vitals(&mut e).store;
    (store.slow_disk, store.disk) =
        (None, Some(DiskWorkReport { phase: DiskWorkPhase::Sync, since_ms: 1_400 }));
    expect(&e, VerdictCode::DiskStalled, &["has taken 1.4s so far to sync a commit"]);
    ingest_vitals(&mut e).store.disk = None;
    let waits = StillThread {
        call: Some("fdatasync"),
        file: Some("/d/journal/00000001.journal".into()),
        wchan: Some("jbd2_log_wait_commit".into()),
        ..still(102, 'S')
    };
    for elsewhere in ["/var/log/x", "/data/x"] {
        resources(&mut e.ingestd).still = vec![StillThread { file: Some(elsewhere.into()), ..waits.clone() }];
        expect(&e, VerdictCode::Healthy, &[]);
    }
    resources(&mut e.ingestd).still = vec![waits];
    expect(&e, VerdictCode::DiskStalled, &["in fdatasync of /d/journal", "jbd2_log_wait_commit"]);
}

#[test]
fn a_commit_that_hangs_without_the_disk_stays_a_slow_store() {
    let mut e = healthy();
    ingest_vitals(&mut e).store.committing_ms = Some(9_000);
    expect(&e, VerdictCode::StoreSlow, &["9s so far"]);
}

fn unmounted(device: Option<&str>) -> StorePlacement {
    StorePlacement::Unmounted { mount_point: Some("/mnt".into()), device: device.map(str::to_owned) }
}

#[test]
fn a_lost_store_is_reported_with_what_brings_it_back() {
    let mut e = healthy();
    for (place, words, step) in [
        (StorePlacement::Deleted, "is deleted", "newswire log restore COPY"),
        (StorePlacement::Renamed("/moved".into()), "is at /moved now", "mv -T /moved /d"),
        (unmounted(None), "is not mounted any more", "mount /mnt "),
        (unmounted(Some("/dev/sdb1")), "is not mounted any more", "mount /dev/sdb1 /mnt "),
        (StorePlacement::Covered, "another file system", "umount \"$(findmnt"),
    ] {
        e.store_place = Part::Found(place);
        let verdict = expect(&e, VerdictCode::StoreGone, &[words]);
        assert!(verdict.next.iter().any(|next| next.contains(step)), "{verdict:?}");
        assert!(verdict.next.iter().all(|next| !next.contains("kill -9")), "{verdict:?}");
    }
    stall(&mut e.gateway, "worker-0", 2_000);
    expect(&e, VerdictCode::EventLoopBlocked, &[]);
}

#[test]
fn a_daemon_that_ended_because_its_store_is_gone_needs_the_store_first() {
    let mut e = healthy();
    kill(&mut e.ingestd);
    e.store_place = Part::Found(StorePlacement::InPlace);
    expect(&e, VerdictCode::DaemonDead, &[]);
    e.store_place = Part::Found(StorePlacement::Absent);
    let verdict = expect(&e, VerdictCode::StoreGone, &["is not in /d any more"]);
    assert!(verdict.next[0].starts_with("findmnt -T /;"), "{verdict:?}");
    // It has never run: there is nothing to be gone.
    super::tests::wire(&mut e).cursor = None;
    expect(&e, VerdictCode::DaemonDead, &[]);
}

#[test]
fn lost_sockets_are_reported_and_a_foreign_process_on_one_is_never_killed() {
    let mut e = healthy();
    let socket = |state| SocketPlace { path: "/run/newswire/gateway-admin.sock".into(), state };
    resources(&mut e.gateway).sockets = vec![socket(SocketState::Missing)];
    expect(&e, VerdictCode::RunDirGone, &["gateway-admin.sock is deleted"]);
    let by = Some((812, "nc".to_owned()));
    resources(&mut e.gateway).sockets = vec![socket(SocketState::Replaced { by })];
    let verdict = expect(&e, VerdictCode::RunDirGone, &["was replaced by pid 812 (nc)"]);
    assert!(verdict.next.iter().all(|step| !step.contains("812")), "{verdict:?}");
}

#[test]
fn a_block_is_found_from_outside_if_the_sockets_are_gone() {
    let mut e = healthy();
    let sockets = vec![SocketPlace { path: "/run/x.sock".into(), state: SocketState::Missing }];
    resources(&mut e.ingestd).sockets = sockets;
    e.ingestd.watch = Part::missing("there is no x.sock");
    e.ingestd.stacks = Part::Found(super::tests::stacks(100, "newswire-ingest", "ingestd::run at run.rs:7"));
    expect(&e, VerdictCode::RunDirGone, &[]);
    resources(&mut e.ingestd).still = vec![still(100, 'S')];
    expect(&e, VerdictCode::EventLoopBlocked, &["ingestd::run at run.rs:7", "x.sock is deleted"]);
}

#[test]
fn a_sick_gateway_beside_this_one_is_named() {
    let mut e = healthy();
    let other = |verdict, is_sick| OtherGateway {
        pid: 300,
        command: "newswire-gateway".into(),
        admin_socket: "/b".into(),
        verdict,
        is_sick,
        line: "worker-0 of it is blocked".into(),
    };
    e.other_gateways = vec![other("healthy", false), other("unknown", false)];
    expect(&e, VerdictCode::Healthy, &[]);
    e.other_gateways.push(other("event-loop-blocked", true));
    let words = ["pid 300", "event-loop-blocked: worker-0 of it is blocked"];
    let verdict = expect(&e, VerdictCode::OtherGateway, &words);
    assert_eq!(verdict.next, ["newswire doctor --pid 300   # all about that one, and what to do"]);
}

#[test]
fn a_gateway_in_another_network_is_not_judged_from_here() {
    let mut e = healthy();
    resources(&mut e.gateway).place = Some(OtherPlace { net: true, mnt: true, ..OtherPlace::default() });
    // Its port is published here.
    expect(&e, VerdictCode::Healthy, &[]);
    e.http = refused();
    let verdict = expect(&e, VerdictCode::Unknown, &["other network, files"]);
    assert_eq!(
        verdict.next,
        [
            "sudo nsenter -t 200 -m -n newswire doctor",
            "sudo nsenter -t 200 -n newswire doctor --pid 200   # this process only; if the tool is not installed there"
        ]
    );
    // That it has just started explains a lack that passes, and this one does not.
    process(&mut e.ingestd).uptime_ms = 300;
    let verdict = expect(&e, VerdictCode::Unknown, &["other network, files"]);
    assert!(verdict.next[0].starts_with("sudo nsenter"), "{verdict:?}");
    process(&mut e.ingestd).uptime_ms = 3_600_000;
    assert_eq!(verdict.exit(), Exit::Unknown);
    stall(&mut e.gateway, "worker-0", 5_000);
    expect(&e, VerdictCode::EventLoopBlocked, &["worker-0"]);
    stop(&mut e.gateway);
    expect(&e, VerdictCode::GatewayStopped, &[]);
}
