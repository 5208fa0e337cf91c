//! Makes the chains: from each thread that waits to the thread or process that holds the other end, until one waits for
//! nothing that is known.

use std::path::PathBuf;

use super::{
    facts::WaitFacts,
    link::{HeldBy, HeldHow, WaitAccess, WaitChain, WaitLink, WaitsFor},
    sample::SampledProcess,
    says,
};
use crate::doctor::evidence::DaemonEvidence;

/// Links of one chain.
const LINKS_MAX: usize = 12;
/// Chains that are kept: the first explain most.
const CHAINS_MAX: usize = 24;
/// The wire has a heartbeat every two seconds; after this much silence the gateway waits for it.
const WIRE_SILENT_MS: u64 = 5_000;

/// The gateway waits for the ingestion daemon, although no thread of it does.
pub(crate) struct SilentWire {
    gateway: (&'static str, i32),
    ingestd: (&'static str, i32),
    socket: PathBuf,
    since_ms: Option<u64>,
}

/// Whether the gateway hears nothing from the daemon.
pub(crate) fn silent_wire([ingestd, gateway]: [&DaemonEvidence; 2]) -> Option<SilentWire> {
    let wire = gateway.gateway_vitals()?.wire.as_ref()?;
    let silent = wire.heard_ms_ago.filter(|ms| *ms > WIRE_SILENT_MS);
    if wire.connected && silent.is_none() {
        return None;
    }
    let admin = PathBuf::from(&ingestd.socket);
    Some(SilentWire {
        gateway: (gateway.name, gateway.pid()?),
        ingestd: (ingestd.name, ingestd.pid()?),
        socket: control::ControlSocket::Ingestd.in_dir(admin.parent()?),
        since_ms: silent,
    })
}

/// A thread, or any thread of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WaitNode {
    pid: i32,
    tid: Option<i32>,
}

/// All chains, those that explain most first.
pub(crate) fn all(facts: &WaitFacts, cut: Option<&SilentWire>) -> Vec<WaitChain> {
    let mut chains: Vec<WaitChain> = Vec::new();
    for known in &facts.known {
        let Some(process) = facts.samples.processes.get(&known.pid) else { continue };
        let starts: Vec<_> = match is_held_as_a_whole(facts, process) {
            true => vec![WaitNode { pid: process.pid, tid: None }],
            false => {
                let threads = process.threads.iter().filter(|thread| begins(facts, process, thread.tid));
                threads.map(|thread| WaitNode { pid: process.pid, tid: Some(thread.tid) }).collect()
            }
        };
        chains.extend(starts.into_iter().map(|start| chain(facts, known.program, start)));
    }
    chains.retain(|chain| chain.explains() && (chain.still || chain.since_ms.is_some()));
    // The chain of a thread that another one waits for says nothing more.
    let inner: Vec<_> = chains
        .iter()
        .flat_map(|chain| chain.links.iter().skip(1).filter(|_| !chain.deadlock))
        .map(|link| (link.pid, link.tid))
        .collect();
    chains.retain(|chain| chain.links.first().is_some_and(|first| !inner.contains(&(first.pid, first.tid))));
    chains.sort_by_key(|chain| {
        std::cmp::Reverse((chain.still && chain.explains(), chain.since_ms, chain.links.len()))
    });
    let mut chains = merged(chains);
    chains.iter_mut().for_each(|chain| says::write(facts, chain));
    if let Some(cut) = cut {
        chains.extend(wire_chain(facts, cut, &chains));
    }
    chains.truncate(CHAINS_MAX);
    chains
}

/// Makes one chain of those that differ in their first thread only.
fn merged(chains: Vec<WaitChain>) -> Vec<WaitChain> {
    let mut merged = Vec::<WaitChain>::new();
    for chain in chains {
        let same = |known: &&mut WaitChain| {
            let [Some(a), Some(b)] = [known.links.first(), chain.links.first()] else { return false };
            let rest = (known.links.get(1..), known.still, known.deadlock)
                == (chain.links.get(1..), chain.still, chain.deadlock);
            rest && a.pid == b.pid
                && a.waits_for == b.waits_for
                && a.held_by == b.held_by
                && a.held_by.is_some()
        };
        match merged.iter_mut().find(same) {
            Some(known) => {
                known.since_ms = known.since_ms.max(chain.since_ms);
                known.also.extend(chain.links.into_iter().next().map(|first| first.thread));
            }
            None => merged.push(chain),
        }
    }
    merged
}

/// Every thread is stopped or frozen.
fn is_held_as_a_whole(facts: &WaitFacts, process: &SampledProcess) -> bool {
    let held = |tid| {
        matches!(
            facts.wait(process.pid, tid).0,
            WaitsFor::Tracer | WaitsFor::Signal | WaitsFor::Frozen { .. }
        )
    };
    let mut threads =
        process.threads.iter().filter(|thread| !matches!(thread.last.state, 'Z' | 'X')).peekable();
    threads.peek().is_some() && threads.all(|thread| held(thread.tid))
}

/// Whether a chain begins at a thread.
fn begins(facts: &WaitFacts, process: &SampledProcess, tid: i32) -> bool {
    let (waits_for, _) = facts.wait(process.pid, tid);
    let known = facts.known_thread(process.pid, tid).cloned().unwrap_or_default();
    match waits_for {
        _ if known.stalled_ms.is_some() => true,
        // What the kernel holds, it holds whatever the frames say.
        WaitsFor::Tracer | WaitsFor::Signal | WaitsFor::Frozen { .. } => true,
        _ if known.idle => false,
        _ if waits_for.is_held() => true,
        WaitsFor::Nothing | WaitsFor::Events { .. } | WaitsFor::Kernel { .. } => false,
        _ => known.seen && !known.observes,
    }
}

fn chain(facts: &WaitFacts, program: &'static str, start: WaitNode) -> WaitChain {
    let (links, deadlock) = walk(facts, start);
    let stalled = |link: &WaitLink| {
        let tid = link.tid.unwrap_or(link.pid);
        facts.known_thread(link.pid, tid).and_then(|known| known.stalled_ms)
    };
    let since_ms = links.iter().filter_map(stalled).max();
    let (line, also) = (String::new(), Vec::new());
    finish(facts, WaitChain { process: program, since_ms, still: false, deadlock, also, links, line })
}

/// Marks the root and writes the sentences.
fn finish(facts: &WaitFacts, mut chain: WaitChain) -> WaitChain {
    let count = chain.links.len();
    for (at, link) in chain.links.iter_mut().enumerate() {
        link.root = at + 1 == count;
    }
    // The holder at the end may do other things meanwhile.
    let waiting = chain.links.iter().filter(|link| link.waits_for != WaitsFor::Nothing);
    chain.still = waiting.filter(|link| link.ours).all(|link| link.still);
    says::write(facts, &mut chain);
    chain
}

fn walk(facts: &WaitFacts, start: WaitNode) -> (Vec<WaitLink>, bool) {
    let (mut links, mut node) = (Vec::<WaitLink>::new(), start);
    while links.len() < LINKS_MAX {
        let link = link(facts, node);
        let next = link.held_by.as_ref().map(|held| next_node(facts, held));
        links.push(link);
        let Some(next) = next else { return (links, false) };
        if links.iter().any(|link| link.pid == next.pid && link.tid == next.tid) {
            return (links, true);
        }
        node = next;
    }
    (links, false)
}

/// The thread of a process that is most likely the one to act.
fn next_node(facts: &WaitFacts, held: &HeldBy) -> WaitNode {
    let whole = WaitNode { pid: held.pid, tid: held.tid };
    let Some(process) = facts.samples.processes.get(&held.pid).filter(|_| held.tid.is_none()) else {
        return whole;
    };
    if is_held_as_a_whole(facts, process) {
        return whole;
    }
    let waiting = process.threads.iter().filter(|thread| {
        let known = facts.known_thread(process.pid, thread.tid).cloned().unwrap_or_default();
        let is_held = facts.wait(process.pid, thread.tid).0.is_held() && thread.is_still();
        (is_held || known.stalled_ms.is_some()) && !known.idle
    });
    let stalled = |tid| facts.known_thread(process.pid, tid).and_then(|known| known.stalled_ms);
    let worst = waiting.max_by_key(|thread| (stalled(thread.tid), thread.tid == process.pid));
    WaitNode { pid: held.pid, tid: worst.map(|thread| thread.tid) }
}

fn link(facts: &WaitFacts, node: WaitNode) -> WaitLink {
    let process = facts.samples.processes.get(&node.pid);
    let tid = node.tid.unwrap_or(node.pid);
    let thread = process.and_then(|process| process.thread(tid));
    let known = facts.known_thread(node.pid, tid);
    let (waits_for, held_by) = facts.wait(node.pid, tid);
    let whole = node.tid.is_none();
    // What the main thread of another process does is not what it is waited for.
    let held_by = held_by.filter(|_| !whole || waits_for.is_held());
    let program = facts.known(node.pid).map(|known| known.program);
    let name = process.map(|process| process.name.clone()).unwrap_or_default();
    let loop_name = known.and_then(|known| known.loop_name.clone());
    let thread_name = loop_name.or_else(|| thread.map(|thread| thread.last.name.clone()));
    WaitLink {
        process: program.map_or(name, str::to_owned),
        pid: node.pid,
        tid: node.tid,
        thread: thread_name.unwrap_or_default(),
        ours: program.is_some(),
        still: thread.is_some_and(|thread| thread.is_still()),
        at: known.filter(|_| !whole).and_then(|known| known.at.clone()),
        waits_for,
        held_by,
        root: false,
        says: String::new(),
    }
}

/// The gateway's wait for the daemon, followed by what the daemon waits for.
fn wire_chain(facts: &WaitFacts, cut: &SilentWire, chains: &[WaitChain]) -> Option<WaitChain> {
    let of_daemon = chains.iter().filter(|chain| chain.process == cut.ingestd.0);
    let is_wire = |chain: &&WaitChain| chain.links.first().is_some_and(|first| first.thread.contains("wire"));
    let rest =
        of_daemon.clone().find(is_wire).or_else(|| of_daemon.clone().find(|chain| chain.explains()))?;
    let first = WaitLink {
        process: cut.gateway.0.to_owned(),
        pid: cut.gateway.1,
        tid: None,
        thread: "intake".to_owned(),
        ours: true,
        waits_for: WaitsFor::UnixSocket {
            inode: None,
            peer_inode: None,
            path: Some(cut.socket.clone()),
            access: WaitAccess::Read,
        },
        held_by: Some(HeldBy { pid: cut.ingestd.1, tid: None, how: HeldHow::Peer }),
        still: true,
        at: None,
        root: false,
        says: String::new(),
    };
    let mut links = vec![first];
    links.extend(rest.links.iter().cloned());
    let chain = WaitChain {
        process: cut.gateway.0,
        since_ms: rest.since_ms.max(cut.since_ms),
        still: rest.still,
        deadlock: rest.deadlock,
        also: Vec::new(),
        links,
        line: String::new(),
    };
    Some(finish(facts, chain))
}
