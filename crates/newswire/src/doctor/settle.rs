//! What a user without rights can still know: whether a process runs that he may not look at.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::evidence::{DaemonEvidence, Evidence, Presence, Target};

/// A heartbeat is due on the wire every 2 s; the end of the daemon closes the wire at once.
const HEARD_MS: u64 = 4_000;
/// Permission of the group to enter a directory.
const GROUP_ENTERS: u32 = 0o010;

/// A process that this user may not look at is absent if all processes of this machine are visible, none of them runs its
/// program, and what every user may see says the same: the address refuses connections, or the gateway has lost the daemon.
/// `is_nowhere` is that of the ingestion daemon and of the gateway.
pub(super) fn presence(evidence: &mut Evidence, is_nowhere: [bool; 2]) {
    let is_hidden = |daemon: &DaemonEvidence| daemon.presence == Presence::Unknown && daemon.denied;
    if evidence.target != Target::Both {
        return;
    }
    let http = evidence.http.get();
    let refused = http.is_some_and(|http| http.probes.iter().all(|probe| probe.connect_ms.is_none()));
    if is_nowhere[1] && refused && is_hidden(&evidence.gateway) {
        settle(
            &mut evidence.gateway,
            "no process of that name runs on this machine, and its address refuses connections",
        );
    }
    let lost = http.and_then(|http| http.ready.get()).and_then(|ready| ready.wire.connected) == Some(false);
    let is_gateway_absent = evidence.gateway.presence == Presence::Absent;
    if is_nowhere[0] && (lost || is_gateway_absent) && is_hidden(&evidence.ingestd) {
        settle(&mut evidence.ingestd, "no process of that name runs on this machine");
    }
}

/// A daemon from which the gateway has just heard runs, in a place that cannot be seen from here.
pub(super) fn daemon_elsewhere(evidence: &mut Evidence) {
    let wire = evidence.gateway.gateway_vitals().and_then(|vitals| vitals.wire.as_ref());
    let is_heard =
        wire.is_some_and(|wire| wire.connected && wire.heard_ms_ago.is_some_and(|ms| ms <= HEARD_MS));
    let daemon = &mut evidence.ingestd;
    if is_heard && daemon.presence == Presence::Absent {
        daemon.presence = Presence::Unknown;
        daemon.found_by = format!(
            "the gateway hears it, but no process that can be seen from here is it; {}",
            daemon.found_by
        );
    }
}

/// With a wire between machines, a process that has never run here runs elsewhere, unless neither of them is here.
pub(super) fn other_machines(evidence: &mut Evidence) {
    // The file of a process that has run here is still there.
    let never_ran =
        |daemon: &DaemonEvidence| daemon.presence == Presence::Absent && daemon.black_box.get().is_none();
    let Evidence { ingestd, gateway, .. } = evidence;
    let (daemon_is_here, gateway_is_here) =
        (ingestd.presence != Presence::Absent, gateway.presence != Presence::Absent);
    for (daemon, other_is_here) in [(ingestd, gateway_is_here), (gateway, daemon_is_here)] {
        if other_is_here && never_ran(daemon) {
            daemon.presence = Presence::NotAsked;
            "wire.transport is \"nats\", and it has never run on this machine"
                .clone_into(&mut daemon.found_by);
        }
    }
}

fn settle(daemon: &mut DaemonEvidence, why: &str) {
    daemon.presence = Presence::Absent;
    daemon.found_by = format!("{why}; {}", daemon.found_by);
}

/// The name of the group that may enter a directory.
pub(super) fn group_that_may_enter(folder: &Path) -> Option<String> {
    let folder = fs::metadata(folder).ok()?;
    let id = folder.gid().to_string();
    let groups = fs::read_to_string("/etc/group").ok()?;
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    })?;
    (folder.mode() & GROUP_ENTERS != 0 && name != "root").then_some(name)
}

/// Whether this user may send signals to a process, or start it.
pub(super) fn may_end(pid: Option<i32>) -> bool {
    let me = rustix::process::geteuid();
    let user = pid.and_then(|pid| fs::metadata(format!("/proc/{pid}")).ok()).map(|process| process.uid());
    me.is_root() || user.is_some_and(|user| user == me.as_raw())
}
