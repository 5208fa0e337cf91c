//! The sentences about links and chains.

use std::path::Path;

use super::{
    facts::WaitFacts,
    link::{HeldHow, LockKind, WaitAccess, WaitChain, WaitLink, WaitsFor},
};
use crate::{doctor::show::duration, out::safe};

/// Between two links.
const BECAUSE: &str = " <- ";

/// Writes the sentences of all links, and the line of the chain.
pub(crate) fn write(facts: &WaitFacts, chain: &mut WaitChain) {
    let (since_ms, deadlock) = (chain.since_ms, chain.deadlock);
    let mut sentences = Vec::new();
    for at in 0..chain.links.len() {
        let before = at.checked_sub(1).and_then(|before| chain.links.get(before));
        let Some(link) = chain.links.get(at) else { break };
        let mut says = format!("{} {}", who(link, before), does(facts, link, before, since_ms));
        if deadlock && link.root {
            says.push_str(if chain.links.len() == 1 { " that it holds itself" } else { ": a deadlock" });
        }
        sentences.push(says);
    }
    for (link, says) in chain.links.iter_mut().zip(&sentences) {
        link.says.clone_from(says);
    }
    if let Some(first) = sentences.first_mut() {
        first.push_str(&others(&chain.also));
    }
    if let Some(waits) = on_behalf(chain) {
        sentences.insert(0, waits.to_owned());
    }
    chain.line = sentences.join(BECAUSE);
}

/// Further threads that wait as the first does.
fn others(also: &[String]) -> String {
    /// More are counted.
    const NAMED: usize = 3;
    let names: Vec<_> = also.iter().take(NAMED).map(|name| safe(name)).collect();
    match (names.is_empty(), also.len().saturating_sub(NAMED)) {
        (true, _) => String::new(),
        (false, 0) => format!(", as {} do", names.join(", ")),
        (false, more) => format!(", as {} and {more} more do", names.join(", ")),
    }
}

/// Who waits for the first thread of a chain, if it serves others.
fn on_behalf(chain: &WaitChain) -> Option<&'static str> {
    let first = chain.links.first()?;
    let serves = |names: &[&str]| names.iter().any(|name| first.thread.starts_with(name));
    match chain.process {
        "newswire-gateway" if first.tid.is_none() && first.waits_for.is_held() => Some("clients wait"),
        "newswire-gateway" if serves(&["worker", "front", "intake", "accept"]) => Some("clients wait"),
        "newswire-ingestd" if first.tid.is_none() => Some("visits and gateways wait"),
        "newswire-ingestd" if serves(&["recorder", "arbiter", "main", "sled"]) => Some("visits wait"),
        "newswire-ingestd" if serves(&["wire"]) => Some("gateways wait"),
        _ => None,
    }
}

fn who(link: &WaitLink, before: Option<&WaitLink>) -> String {
    let likely = match before.and_then(|before| before.held_by.as_ref()).map(|held| held.how) {
        Some(HeldHow::Likely) => "likely ",
        _ => "",
    };
    let (process, pid) = (safe(&link.process), link.pid);
    match (link.ours, link.tid) {
        (true, Some(_)) if before.is_none_or(|before| before.pid == pid) => {
            format!("{likely}{}", safe(&link.thread))
        }
        (true, Some(_)) => format!("{likely}{} of {process} (pid {pid})", safe(&link.thread)),
        (true, None) if link.thread == "intake" => "intake".to_owned(),
        (true, None) => format!("{process} (pid {pid})"),
        (false, _) => format!("pid {pid} ({process})"),
    }
}

fn does(facts: &WaitFacts, link: &WaitLink, before: Option<&WaitLink>, since_ms: Option<u64>) -> String {
    if link.tid.is_none()
        && !link.waits_for.is_held()
        && let Some(before) = before
    {
        return holds(facts, link, before, since_ms);
    }
    let text = match &link.waits_for {
        WaitsFor::Lock { lock: LockKind::Allocator, .. } => "waits for the lock of the allocator".to_owned(),
        WaitsFor::Lock { lock: LockKind::Other, .. } => "waits for another thread".to_owned(),
        WaitsFor::Lock { .. } => "waits for a lock".to_owned(),
        WaitsFor::Pipe { path, access, .. } => {
            let pipe =
                path.as_deref().map_or("a pipe".to_owned(), |path| format!("the pipe {}", shown(path)));
            let alone = match (access, &link.held_by) {
                (WaitAccess::Write, None) => ", and no other process is known to read it",
                _ => "",
            };
            format!("{} {pipe}{alone}", verb(*access))
        }
        WaitsFor::UnixSocket { path, access, .. } => {
            let socket = path
                .as_deref()
                .map_or("a Unix socket".to_owned(), |path| format!("the socket {}", shown(path)));
            if link.tid.is_none() && before.is_none() {
                format!("hears nothing from {socket}")
            } else {
                format!("{} {socket}", verb(*access))
            }
        }
        WaitsFor::Tcp { peer, access, .. } => format!("{} the connection with {}", verb(*access), safe(peer)),
        WaitsFor::Socket { access, .. } => format!("{} a socket", verb(*access)),
        WaitsFor::Terminal { path, access } => format!("{} the terminal {}", verb(*access), shown(path)),
        WaitsFor::File { path, mount, file_system, frozen, call, .. } => {
            file(path.as_deref(), mount.as_deref(), file_system.as_deref(), *frozen, call)
        }
        WaitsFor::PageFault { .. } => {
            "waits for a page of its memory, or for the lock of its memory".to_owned()
        }
        WaitsFor::Tracer => "is held by a debugger".to_owned(),
        WaitsFor::Signal => "is stopped by a signal".to_owned(),
        WaitsFor::Frozen { group } => match group {
            Some(group) => format!("is frozen with its control group {}", safe(group)),
            None => "is frozen with its control group".to_owned(),
        },
        WaitsFor::Child => "waits for a child".to_owned(),
        WaitsFor::Events { call } => format!("waits ({call})"),
        WaitsFor::Kernel { wchan, .. } => match wchan {
            Some(wchan) => format!("waits in the kernel ({})", safe(wchan)),
            None => "waits in the kernel".to_owned(),
        },
        WaitsFor::Nothing => "runs".to_owned(),
    };
    match link.at.as_deref().filter(|_| link.ours) {
        Some(at) => format!("{text} in {}", safe(at)),
        None => text,
    }
}

/// What the process at the other end fails to do.
fn holds(facts: &WaitFacts, link: &WaitLink, before: &WaitLink, since_ms: Option<u64>) -> String {
    let process = facts.samples.processes.get(&link.pid);
    // It must have done nothing for as long as the first thread of the chain waits.
    let over = duration(since_ms.unwrap_or(0).max(facts.samples.over_ms));
    let reads = process.and_then(|process| process.read_bytes).is_some_and(|bytes| bytes > 0);
    match &before.waits_for {
        WaitsFor::Tracer => "is the debugger".to_owned(),
        WaitsFor::Pipe { access: WaitAccess::Write, .. } if reads => "reads, but too slowly".to_owned(),
        WaitsFor::Pipe { access: WaitAccess::Write, .. } => format!("has not read for {over}"),
        WaitsFor::UnixSocket { access: WaitAccess::Write, .. }
        | WaitsFor::Tcp { access: WaitAccess::Write, .. }
            if !reads =>
        {
            format!("has not read for {over}")
        }
        WaitsFor::Pipe { access: WaitAccess::Read, .. }
        | WaitsFor::UnixSocket { access: WaitAccess::Read, .. } => "sends nothing".to_owned(),
        _ => "does not go on".to_owned(),
    }
}

fn verb(access: WaitAccess) -> &'static str {
    match access {
        WaitAccess::Read => "reads from",
        WaitAccess::Write => "writes to",
    }
}

fn shown(path: &Path) -> String {
    safe(&path.display().to_string())
}

fn file(
    path: Option<&Path>,
    mount: Option<&Path>,
    file_system: Option<&str>,
    frozen: bool,
    call: &str,
) -> String {
    let on = match (mount, file_system) {
        (Some(mount), Some(kind)) => format!("the file system of {} ({})", shown(mount), safe(kind)),
        _ => "a file system or its disk".to_owned(),
    };
    let frozen = if frozen { ", which is frozen" } else { "" };
    let path = path.map(|path| format!(": {call} of {}", shown(path))).unwrap_or_default();
    format!("waits for {on}{frozen}{path}")
}
