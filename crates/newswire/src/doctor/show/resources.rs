//! What the kernel limits: only what is close to a limit, or not as it should be, has a line.

use super::{ReportWriter, bytes, duration};
use crate::{
    doctor::{
        evidence::{DaemonEvidence, Evidence},
        part::Part,
        resources::{
            pressure::Pressure, sockets::SocketState, store_placement::StorePlacement, task_limit::TaskBound,
        },
    },
    out::safe,
};

pub(super) fn show(page: &mut ReportWriter, daemon: &DaemonEvidence) {
    let resources = match &daemon.resources {
        Part::Found(resources) => resources,
        Part::Missing { missing, .. } => return page.missing("limits", missing),
    };
    if let Some(place) = &resources.place {
        page.normal("place", &safe(&place.describe()));
    }
    if let Some(frozen) = &resources.frozen {
        page.problem("frozen", &safe(&frozen.group));
    }
    for quota in &resources.cpu {
        let text = format!(
            "{:.1} % of a processor; throttled for {} of {}, control group {}",
            quota.quota_percent,
            duration(quota.throttled_ms),
            duration(quota.over_ms),
            safe(&quota.group)
        );
        page.line(quota.throttled_ms * 10 >= quota.over_ms * 3, "CPU quota", &text);
    }
    for limit in resources.memory.iter().filter(|limit| limit.at_limit + limit.killed_total > 0) {
        let text = format!(
            "{} of {}, {} times at the limit between the samples, {} processes ended by the kernel, control group {}",
            bytes(limit.used_bytes),
            bytes(limit.limit_bytes),
            limit.at_limit,
            limit.killed_total,
            safe(&limit.group)
        );
        page.line(limit.at_limit > 0, "memory", &text);
    }
    for limit in resources.tasks.iter().filter(|limit| limit.used * 10 >= limit.max.saturating_mul(9)) {
        let of = match &limit.bound {
            TaskBound::Group(group) => format!("control group {}", safe(group)),
            TaskBound::User(uid) => format!("user {uid}"),
            TaskBound::Machine(name) => (*name).to_owned(),
        };
        page.line(limit.is_reached(), "threads", &format!("{} of {}, {of}", limit.used, limit.max));
    }
    for thread in resources.still.iter().filter(|thread| thread.waits_for_disk()) {
        let call = thread.call.unwrap_or("the kernel");
        let file = thread.file.as_deref().map(|file| format!(" of {}", safe(file))).unwrap_or_default();
        let at = thread.kernel.as_deref().or(thread.wchan.as_deref()).map(safe).unwrap_or_default();
        let text = format!(
            "thread {} ({}) in {call}{file}, state {}: {at}",
            thread.tid,
            safe(&thread.name),
            thread.state
        );
        page.problem("waits", &text);
    }
    for socket in resources.sockets.iter().filter(|socket| socket.state != SocketState::InPlace) {
        let text = match &socket.state {
            SocketState::Replaced { by: Some((pid, program)) } => {
                format!("replaced by pid {pid} ({})", safe(program))
            }
            SocketState::Replaced { by: None } => "replaced by one on which no process listens".to_owned(),
            SocketState::Missing | SocketState::InPlace => "deleted".to_owned(),
        };
        page.problem("socket", &format!("{}: {text}", safe(&socket.path)));
    }
}

/// Other gateways, and the pressure of the machine.
pub(super) fn show_machine(page: &mut ReportWriter, evidence: &Evidence) {
    for other in &evidence.other_gateways {
        let text = format!("pid {}, {}: {}", other.pid, other.verdict, safe(&other.command));
        page.line(other.is_sick, "beside it", &text);
    }
    let Some(machine) = evidence.pressure.get() else { return };
    let parts = [("processors", machine.cpu), ("memory", machine.memory), ("disks", machine.io)];
    let percent = |(name, pressure): (&str, Option<Pressure>)| {
        let Pressure { some_percent, full_percent, .. } = pressure?;
        Some(format!("{name} {some_percent:.0} % (all threads {full_percent:.0} %)"))
    };
    let text: Vec<_> = parts.into_iter().filter_map(percent).collect();
    if !text.is_empty() {
        page.section("machine");
        page.normal("waiting for", &format!("{} of the last 10 s", text.join(", ")));
    }
}

pub(super) fn show_store(page: &mut ReportWriter, evidence: &Evidence) {
    if let Some(found) = evidence.file_system.get() {
        let refused = match (found.hangs, found.refused_after_ms) {
            (true, _) => ", takes no changes".to_owned(),
            (_, Some(ms)) => format!(", answers within {ms} ms"),
            (_, None) => String::new(),
        };
        let text = format!(
            "{} on {} at {}{refused}",
            safe(&found.kind),
            safe(&found.source),
            safe(&found.mount_point)
        );
        page.line(found.hangs, "mount", &text);
    }
    match &evidence.store_place {
        Part::Missing { missing, .. } => page.missing("place", missing),
        Part::Found(StorePlacement::InPlace) => {}
        Part::Found(StorePlacement::Deleted) => page.problem("place", "deleted"),
        Part::Found(StorePlacement::Renamed(to)) => {
            page.problem("place", &format!("renamed to {}", safe(to)))
        }
        Part::Found(StorePlacement::Absent) => page.problem("place", "no store is there"),
        Part::Found(StorePlacement::Unmounted { .. }) => page.problem("place", "not mounted any more"),
        Part::Found(StorePlacement::Covered) => page.problem("place", "hidden by another file system"),
    }
}
