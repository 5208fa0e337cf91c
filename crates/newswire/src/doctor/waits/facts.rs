//! What each sampled thread waits for, and who holds the other end.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use procfs::process::FDTarget;
use stacks::ThreadStack;

use super::{
    calls::{CallAim, aim},
    ends::{Channel, target_of},
    files,
    link::{HeldBy, HeldHow, WaitAccess, WaitsFor},
    locks::{self, HolderState, LockFrames, LockLook},
    sample::{KernelCall, SampledProcess, SampledThread, WaitSamples, process_of},
};
use crate::doctor::{evidence::DaemonEvidence, threads::ExaminedThread};

/// What the doctor knows about the threads of one of our processes.
pub(crate) struct KnownProcess {
    pub(crate) program: &'static str,
    pub(crate) pid: i32,
    threads: BTreeMap<i32, KnownThread>,
}

/// What the stacks and the process itself report about a thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownThread {
    pub(crate) loop_name: Option<String>,
    /// How long its loop has been stalled.
    pub(crate) stalled_ms: Option<u64>,
    /// Its frames are those of a thread that waits for work.
    pub(crate) idle: bool,
    /// It only observes the others.
    pub(crate) observes: bool,
    /// Whether its frames are known.
    pub(crate) seen: bool,
    pub(crate) at: Option<String>,
    lock_frames: LockFrames,
}

impl KnownProcess {
    pub(crate) fn of(daemon: &DaemonEvidence) -> Option<Self> {
        let pid = daemon.pid()?;
        let mut threads = BTreeMap::<i32, KnownThread>::new();
        for examined in daemon.stacks.get().into_iter().flat_map(|stacks| &stacks.threads) {
            threads.insert(examined.thread.tid, KnownThread::of(examined));
        }
        for l in daemon.watch.get().into_iter().flat_map(|watch| &watch.progress.loops).filter(|l| l.tid != 0)
        {
            let thread = threads.entry(l.tid).or_default();
            thread.loop_name = Some(l.name.clone());
            thread.stalled_ms = l.stalled.then_some(l.beat_ms_ago);
        }
        Some(Self { program: daemon.name, pid, threads })
    }

    /// A process of which only the stacks are known.
    #[cfg(test)]
    pub(crate) fn seen(program: &'static str, dump: stacks::StackDump) -> Self {
        let examined = |thread: ThreadStack| ExaminedThread {
            idle: thread.is_idle(),
            stalled: false,
            loop_name: None,
            work: None,
            culprit: None,
            thread,
        };
        let threads = dump.threads.into_iter().map(examined);
        let threads = threads.map(|examined| (examined.thread.tid, KnownThread::of(&examined))).collect();
        Self { program, pid: dump.pid, threads }
    }

    pub(crate) fn thread(&self, tid: i32) -> Option<&KnownThread> {
        self.threads.get(&tid)
    }
}

impl KnownThread {
    fn of(examined: &ExaminedThread) -> Self {
        let thread = &examined.thread;
        let idle = thread.is_idle();
        Self {
            loop_name: examined.loop_name.clone(),
            stalled_ms: None,
            idle: idle && !examined.stalled,
            observes: examined.idle && !idle,
            seen: !thread.frames.is_empty(),
            at: thread.culprit().and_then(|frame| frame.function.clone()),
            lock_frames: lock_frames(thread),
        }
    }
}

/// Whether the innermost frames are those of a lock of `parking_lot` or of the allocator.
fn lock_frames(thread: &ThreadStack) -> LockFrames {
    /// The allocator's functions are among the innermost.
    const INNERMOST: usize = 10;
    const ALLOCATOR: [&str; 9] = [
        "malloc",
        "calloc",
        "realloc",
        "free",
        "cfree",
        "posix_memalign",
        "_int_malloc",
        "_int_free",
        "__libc_free",
    ];
    let functions = thread.frames.iter().take(INNERMOST).filter_map(|frame| frame.function.as_deref());
    let mut found = LockFrames::default();
    for function in functions {
        found.parking_lot |= function.contains("parking_lot");
        found.allocator |= ALLOCATOR.contains(&function)
            || function.starts_with("__rustc::__rdl")
            || function.starts_with("arena_get")
            || function.starts_with("__libc_malloc");
    }
    found
}

/// What is known about all sampled threads.
pub(crate) struct WaitFacts {
    pub(crate) samples: Arc<WaitSamples>,
    pub(crate) known: Vec<KnownProcess>,
    waits: BTreeMap<(i32, i32), (WaitsFor, Option<HeldBy>)>,
}

impl WaitFacts {
    pub(crate) fn of(samples: &Arc<WaitSamples>, known: Vec<KnownProcess>) -> Self {
        let mut facts = Self { samples: Arc::clone(samples), known, waits: BTreeMap::new() };
        for process in samples.processes.values() {
            let is_ours = facts.known(process.pid).is_some();
            for thread in &process.threads {
                let wait = facts.wait_of(process, thread, is_ours);
                facts.waits.insert((process.pid, thread.tid), wait);
            }
            facts.find_holders(process);
        }
        facts
    }

    pub(crate) fn known(&self, pid: i32) -> Option<&KnownProcess> {
        self.known.iter().find(|known| known.pid == pid)
    }

    pub(crate) fn known_thread(&self, pid: i32, tid: i32) -> Option<&KnownThread> {
        self.known(pid)?.thread(tid)
    }

    pub(crate) fn wait(&self, pid: i32, tid: i32) -> (WaitsFor, Option<HeldBy>) {
        self.waits.get(&(pid, tid)).cloned().unwrap_or((WaitsFor::Nothing, None))
    }

    fn wait_of(
        &self,
        process: &SampledProcess,
        thread: &SampledThread,
        is_ours: bool,
    ) -> (WaitsFor, Option<HeldBy>) {
        let look = &thread.last;
        let wchan = look.wchan.clone();
        let frozen =
            wchan.as_deref().is_some_and(|at| at.contains("refrigerator") || at.contains("freezer_trap"));
        match look.state {
            't' if look.tracer != 0 => {
                let pid = process_of(look.tracer);
                (WaitsFor::Tracer, Some(HeldBy { pid, tid: None, how: HeldHow::Tracer }))
            }
            _ if frozen || process.frozen.is_some() => {
                (WaitsFor::Frozen { group: process.frozen.clone() }, None)
            }
            'T' | 't' => (WaitsFor::Signal, None),
            'S' | 'D' | 'I' => match look.call {
                Some(call) if call.number == -1 && look.state == 'D' => (WaitsFor::PageFault { wchan }, None),
                Some(call) => self.call_of(process.pid, thread, call, is_ours),
                None if look.state == 'D' => (disk(None, None, "", wchan, false), None),
                None => (WaitsFor::Kernel { call: None, wchan }, None),
            },
            _ => (WaitsFor::Nothing, None),
        }
    }

    fn call_of(
        &self,
        pid: i32,
        thread: &SampledThread,
        call: KernelCall,
        is_ours: bool,
    ) -> (WaitsFor, Option<HeldBy>) {
        let wchan = thread.last.wchan.clone();
        let in_file = |fd, name| file(pid, thread, fd, name);
        match aim(call.number) {
            CallAim::Word => {
                let found = self.lock_of(pid, thread.tid, call);
                let waits_for =
                    WaitsFor::Lock { address: format!("{:#x}", call.arguments[0]), lock: found.kind };
                let held_by = found.owner.map(|tid| HeldBy { pid, tid: Some(tid), how: HeldHow::Owner });
                (waits_for, held_by)
            }
            CallAim::Transfer(access) => self.transfer(pid, thread, call.fd(), access, is_ours),
            CallAim::File(name) => (in_file(Some(call.fd()), name), None),
            CallAim::Path(name, at) if thread.last.state == 'D' => {
                let path = at.and_then(|at| path_argument(pid, *call.arguments.get(at)?));
                let place = path.as_deref().and_then(|path| files::mount_at(pid, path));
                let frozen = files::waits_for_thaw(pid, thread.tid, wchan.as_deref());
                (disk(path, place, name, wchan, frozen), None)
            }
            CallAim::Events(name) => (WaitsFor::Events { call: name }, None),
            CallAim::Child => (WaitsFor::Child, None),
            CallAim::Memory if thread.last.state == 'D' => (WaitsFor::PageFault { wchan }, None),
            _ if thread.last.state == 'D' => (in_file(None, ""), None),
            _ => (WaitsFor::Kernel { call: Some(call.number), wchan }, None),
        }
    }

    fn transfer(
        &self,
        pid: i32,
        thread: &SampledThread,
        fd: i32,
        access: WaitAccess,
        is_ours: bool,
    ) -> (WaitsFor, Option<HeldBy>) {
        let other = |channel: &Channel, how| {
            let ends = self.samples.other_ends(channel, access);
            // A process that holds both ends is not what keeps its own threads.
            let holder = ends.into_iter().filter(|end| *end != pid).max_by_key(|end| self.is_our_pid(*end));
            holder.map(|pid| HeldBy { pid, tid: None, how })
        };
        match target_of(pid, fd) {
            Some(FDTarget::Pipe(inode)) => (
                WaitsFor::Pipe { inode: Some(inode), path: None, access },
                other(&Channel::Pipe(inode), HeldHow::OtherEnd),
            ),
            Some(FDTarget::Socket(inode)) => self.socket(pid, inode, access, other),
            Some(FDTarget::Path(path)) if files::is_terminal(&path) => {
                (WaitsFor::Terminal { path, access }, None)
            }
            Some(FDTarget::Path(path)) if files::is_fifo(pid, fd) => {
                let held_by = other(&Channel::Fifo(path.clone()), HeldHow::OtherEnd);
                (WaitsFor::Pipe { inode: None, path: Some(path), access }, held_by)
            }
            Some(FDTarget::Path(_)) if thread.last.state == 'D' || is_ours => {
                let name = if access == WaitAccess::Write { "write" } else { "read" };
                (file(pid, thread, Some(fd), name), None)
            }
            _ => (WaitsFor::Events { call: "read" }, None),
        }
    }

    fn is_our_pid(&self, pid: i32) -> bool {
        self.known(pid).is_some()
    }

    fn socket(
        &self,
        pid: i32,
        inode: u64,
        access: WaitAccess,
        other: impl Fn(&Channel, HeldHow) -> Option<HeldBy>,
    ) -> (WaitsFor, Option<HeldBy>) {
        if let Some(peer) = self.samples.peers.get(&inode) {
            let path = unix_path(pid, &[inode, *peer]);
            let waits_for =
                WaitsFor::UnixSocket { inode: Some(inode), peer_inode: Some(*peer), path, access };
            return (waits_for, other(&Channel::Socket(*peer), HeldHow::Peer));
        }
        if let Some((local, peer)) = tcp_addresses(pid, inode) {
            return (WaitsFor::Tcp { local, peer, access }, None);
        }
        if let Some(path) = unix_path(pid, &[inode]) {
            let path = Some(path);
            return (WaitsFor::UnixSocket { inode: Some(inode), peer_inode: None, path, access }, None);
        }
        (WaitsFor::Socket { inode, access }, None)
    }

    fn lock_of(&self, pid: i32, tid: i32, call: KernelCall) -> LockLook {
        let frames = self.known_thread(pid, tid).map(|thread| thread.lock_frames).unwrap_or_default();
        let words = |address, count| stacks::words(pid, address, count).unwrap_or_default();
        let threads = self.samples.processes.get(&pid);
        locks::look(&call, frames, words, |tid| threads.is_some_and(|p| p.thread(tid).is_some()))
    }

    /// Finds the likely holders of locks that do not name theirs, in one of our processes.
    fn find_holders(&mut self, process: &SampledProcess) {
        let pid = process.pid;
        if !self.is_our_pid(pid) {
            return;
        }
        let mut open = Vec::new();
        for thread in &process.threads {
            let known = self.known_thread(pid, thread.tid);
            let (waits_for, held_by) = self.wait(pid, thread.tid);
            let Some(call) = thread.last.call.filter(|_| matches!(waits_for, WaitsFor::Lock { .. })) else {
                continue;
            };
            let idle = known.is_some_and(|known| known.idle || known.observes && !waits_for.is_held());
            let unknown = !known.is_some_and(|known| known.seen) && !waits_for.is_held();
            if held_by.is_none() && !idle && !unknown {
                open.push((thread.tid, call, self.lock_of(pid, thread.tid, call)));
            }
        }
        let ranges: Vec<_> = open.iter().flat_map(|(_, _, look)| look.ranges.clone()).collect();
        if ranges.is_empty() {
            return;
        }
        let references = stacks::references(pid, &ranges).unwrap_or_default();
        for (tid, call, look) in open {
            let state = |other: i32| self.holder_state(process, other, tid, call.arguments[0]);
            let holder = locks::likely_holder(&look, &references, state);
            if let Some(wait) = self.waits.get_mut(&(pid, tid)) {
                wait.1 = holder.map(|tid| HeldBy { pid, tid: Some(tid), how: HeldHow::Likely });
            }
        }
    }

    /// `None` for a thread that waits for the same lock.
    fn holder_state(
        &self,
        process: &SampledProcess,
        tid: i32,
        waiter: i32,
        address: u64,
    ) -> Option<HolderState> {
        let thread = process.thread(tid).filter(|_| tid != waiter)?;
        let (waits_for, _) = self.wait(process.pid, tid);
        if let WaitsFor::Lock { address: other, .. } = &waits_for
            && *other == format!("{address:#x}")
        {
            return None;
        }
        let known = self.known_thread(process.pid, tid).cloned().unwrap_or_default();
        Some(match waits_for {
            _ if waits_for.is_held() || known.stalled_ms.is_some() => HolderState::Held,
            _ if known.idle => HolderState::Idle,
            WaitsFor::Nothing if thread.last.state == 'R' => HolderState::Runs,
            WaitsFor::Pipe { .. }
            | WaitsFor::UnixSocket { .. }
            | WaitsFor::Tcp { .. }
            | WaitsFor::Socket { .. }
            | WaitsFor::Terminal { .. }
            | WaitsFor::Child
                if known.seen =>
            {
                HolderState::Held
            }
            _ => HolderState::Other,
        })
    }
}

fn file(pid: i32, thread: &SampledThread, fd: Option<i32>, call: &'static str) -> WaitsFor {
    let path = fd.and_then(|fd| match target_of(pid, fd) {
        Some(FDTarget::Path(path)) => Some(path),
        _ => None,
    });
    let place = fd.and_then(|fd| files::mount_of(pid, fd));
    let wchan = thread.last.wchan.clone();
    let frozen = files::waits_for_thaw(pid, thread.tid, wchan.as_deref());
    disk(path, place, call, wchan, frozen)
}

/// A path in the memory of a process, as far as it is kept.
fn path_argument(pid: i32, address: u64) -> Option<PathBuf> {
    /// Longer paths are cut.
    const WORDS_MAX: usize = 64;
    let words = stacks::words(pid, address, WORDS_MAX).ok()?;
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word.to_le_bytes()).take_while(|byte| *byte != 0).collect();
    let path = PathBuf::from(String::from_utf8_lossy(&bytes).into_owned());
    let folder = procfs::process::Process::new(pid).ok()?.cwd().ok()?;
    (!bytes.is_empty()).then(|| folder.join(path))
}

fn disk(
    path: Option<PathBuf>,
    place: Option<files::MountPlace>,
    call: &'static str,
    wchan: Option<String>,
    frozen: bool,
) -> WaitsFor {
    let (mount, file_system) = place.map(|place| (place.mount, place.file_system)).unzip();
    WaitsFor::File { path, mount, file_system, frozen, call, wchan }
}

/// The path that one of these Unix sockets of the process's network is bound to.
fn unix_path(pid: i32, inodes: &[u64]) -> Option<PathBuf> {
    let sockets = procfs::process::Process::new(pid).ok()?.unix().ok()?;
    sockets.into_iter().filter(|socket| inodes.contains(&socket.inode)).find_map(|socket| socket.path)
}

/// Both addresses of a connection.
fn tcp_addresses(pid: i32, inode: u64) -> Option<(String, String)> {
    let process = procfs::process::Process::new(pid).ok()?;
    let all = process.tcp().into_iter().chain(process.tcp6()).flatten();
    let found = all.into_iter().find(|entry| entry.inode == inode)?;
    Some((found.local_address.to_string(), found.remote_address.to_string()))
}
