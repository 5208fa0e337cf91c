//! All threads of some processes at two moments, a second apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use procfs::process::{FDTarget, Process, Syscall};

use super::{
    calls::{CallAim, aim},
    ends::{Channel, Ends, channel_of, target_of},
    files,
    link::WaitAccess,
    peers,
};
use crate::doctor::resources::{freezer::FrozenGroup, group_tree::GroupTree, kernel_files::KernelFiles};

/// Time between the two samples.
const SAMPLES_APART: Duration = Duration::from_millis(900);
/// Other processes that are looked at: those at the other ends, and those at their other ends.
const OTHERS_MAX: usize = 16;
/// How often the ends of what was found last are searched.
const ROUNDS_MAX: usize = 3;

/// A system call in which a thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelCall {
    /// -1 for a thread that is in the kernel without having called it, as in a page fault.
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
    sp: u64,
    pc: u64,
}

impl KernelCall {
    #[cfg(test)]
    pub(crate) fn futex(address: u64, operation: u64, value: u64) -> Self {
        let arguments = [address, operation, value, 0, 0, 0];
        Self { number: libc::SYS_futex, arguments, sp: 0, pc: 0 }
    }

    /// The descriptor that is its first argument.
    pub(crate) fn fd(&self) -> i32 {
        self.arguments.first().map_or(-1, |fd| (*fd as u32).cast_signed())
    }
}

/// A thread at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadLook {
    pub(crate) name: String,
    /// As in `/proc/PID/stat`.
    pub(crate) state: char,
    /// 0 for none.
    pub(crate) tracer: i32,
    /// How often it began to run.
    switches: u64,
    /// `None` if it runs, or this user may not know.
    pub(crate) call: Option<KernelCall>,
    pub(crate) wchan: Option<String>,
}

/// A thread at both moments.
#[derive(Clone, Debug)]
pub(crate) struct SampledThread {
    pub(crate) tid: i32,
    first: Option<ThreadLook>,
    pub(crate) last: ThreadLook,
}

impl SampledThread {
    /// Whether it is in the same wait in both samples, and has not run in between.
    pub(crate) fn is_still(&self) -> bool {
        self.last.state != 'R' && self.first.as_ref() == Some(&self.last)
    }
}

/// A process at both moments.
#[derive(Clone, Debug)]
pub(crate) struct SampledProcess {
    pub(crate) pid: i32,
    pub(crate) name: String,
    pub(crate) threads: Vec<SampledThread>,
    /// The bytes that it read between the samples; `None` if this user may not know.
    pub(crate) read_bytes: Option<u64>,
    /// The control group that is frozen.
    pub(crate) frozen: Option<String>,
}

impl SampledProcess {
    pub(crate) fn thread(&self, tid: i32) -> Option<&SampledThread> {
        self.threads.iter().find(|thread| thread.tid == tid)
    }
}

/// Everything that was sampled.
#[derive(Debug, Default)]
pub(crate) struct WaitSamples {
    pub(crate) processes: BTreeMap<i32, SampledProcess>,
    pub(crate) ends: Ends,
    /// The other end of each Unix socket in which a thread waits, by inode.
    pub(crate) peers: BTreeMap<u64, u64>,
    pub(crate) over_ms: u64,
}

type Looks = BTreeMap<i32, ThreadLook>;

impl WaitSamples {
    /// Blocks for a second.
    #[expect(clippy::disallowed_methods, reason = "on a thread for blocking work")]
    pub(crate) fn of(pids: &[i32]) -> Self {
        let began = std::time::Instant::now();
        let mut samples = Self::default();
        let mut firsts = BTreeMap::<i32, (Looks, Option<u64>)>::new();
        let mut searched = BTreeSet::new();
        let mut new: Vec<i32> = pids.to_vec();
        for _ in 0..ROUNDS_MAX {
            for pid in &new {
                firsts.insert(*pid, (looks(*pid), read_so_far(*pid)));
            }
            let channels = samples.channels(&firsts, &new);
            let wanted: BTreeSet<_> = channels.iter().map(|(_, other, _)| other.clone()).collect();
            let wanted: BTreeSet<_> = wanted.difference(&searched).cloned().collect();
            searched.extend(wanted.iter().cloned());
            samples.ends.extend(Ends::of(&wanted));
            let mut next = samples.others(&channels);
            next.extend(new.iter().filter_map(|pid| firsts.get(pid)).flat_map(|(looks, _)| tracers(looks)));
            next.retain(|pid| !firsts.contains_key(pid));
            new = next.into_iter().take(OTHERS_MAX.saturating_sub(firsts.len())).collect();
            if new.is_empty() {
                break;
            }
        }
        for pid in &new {
            firsts.insert(*pid, (looks(*pid), read_so_far(*pid)));
        }
        std::thread::sleep(SAMPLES_APART.saturating_sub(began.elapsed()).max(SAMPLES_APART / 2));
        for (pid, (mut before, read_before)) in firsts {
            let after = looks(pid).into_iter();
            let threads = after.map(|(tid, last)| SampledThread { tid, first: before.remove(&tid), last });
            let threads: Vec<_> = threads.collect();
            let name = threads.iter().find(|thread| thread.tid == pid).map(|main| main.last.name.clone());
            let read = read_before.zip(read_so_far(pid)).map(|(before, after)| after.saturating_sub(before));
            let process = SampledProcess {
                pid,
                name: name.unwrap_or_default(),
                threads,
                read_bytes: read,
                frozen: frozen_group(pid),
            };
            samples.processes.insert(pid, process);
        }
        samples.over_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        samples
    }

    /// The channels in which threads of these processes wait: the process, the end to look for, and the direction.
    fn channels(
        &mut self,
        firsts: &BTreeMap<i32, (Looks, Option<u64>)>,
        pids: &[i32],
    ) -> Vec<(i32, Channel, WaitAccess)> {
        let mut found = Vec::new();
        for (pid, (looks, _)) in firsts.iter().filter(|(pid, _)| pids.contains(pid)) {
            for call in looks.values().filter_map(|look| look.call) {
                let CallAim::Transfer(access) = aim(call.number) else { continue };
                match channel_of(*pid, call.fd()) {
                    Some(Channel::Socket(inode)) => {
                        let Ok(peer) = peers::of_unix(inode) else { continue };
                        self.peers.insert(inode, peer);
                        found.push((*pid, Channel::Socket(peer), access));
                    }
                    Some(channel) => found.push((*pid, channel, access)),
                    None => found.extend(fifo(*pid, call.fd()).map(|channel| (*pid, channel, access))),
                }
            }
        }
        found
    }

    /// The processes at the other ends.
    fn others(&self, channels: &[(i32, Channel, WaitAccess)]) -> Vec<i32> {
        let mut others = Vec::new();
        for (pid, channel, access) in channels {
            let holders = self.other_ends(channel, *access);
            for holder in holders.into_iter().filter(|holder| holder != pid) {
                if !others.contains(&holder) {
                    others.push(holder);
                }
            }
        }
        others
    }

    /// The processes that hold the end of a channel which a thread waits for.
    pub(crate) fn other_ends(&self, channel: &Channel, access: WaitAccess) -> Vec<i32> {
        match (channel, access) {
            (Channel::Socket(_), _) => self.ends.holders(channel).map(|end| end.pid).collect(),
            (_, WaitAccess::Write) => self.ends.readers(channel),
            (_, WaitAccess::Read) => self.ends.writers(channel),
        }
    }
}

fn fifo(pid: i32, fd: i32) -> Option<Channel> {
    match target_of(pid, fd)? {
        FDTarget::Path(path) if !files::is_terminal(&path) && files::is_fifo(pid, fd) => {
            Some(Channel::Fifo(path))
        }
        _ => None,
    }
}

fn looks(pid: i32) -> Looks {
    let Ok(tasks) = Process::new(pid).and_then(|process| process.tasks()) else { return Looks::new() };
    let one = |task: procfs::process::Task| {
        let (stat, status) = (task.stat().ok()?, task.status().ok()?);
        let call = match task.syscall() {
            Ok(Syscall::Blocked { syscall_number, argument_registers, stack_pointer, program_counter }) => {
                Some(KernelCall {
                    number: syscall_number,
                    arguments: argument_registers,
                    sp: stack_pointer,
                    pc: program_counter,
                })
            }
            _ => None,
        };
        let wchan = std::fs::read_to_string(format!("/proc/{pid}/task/{}/wchan", task.tid));
        let switches = [status.voluntary_ctxt_switches, status.nonvoluntary_ctxt_switches];
        let look = ThreadLook {
            name: stat.comm,
            state: stat.state,
            tracer: status.tracerpid,
            switches: switches.into_iter().flatten().sum(),
            call,
            wchan: wchan.ok().filter(|at| !at.is_empty() && at != "0"),
        };
        Some((task.tid, look))
    };
    tasks.flatten().filter_map(one).collect()
}

/// The processes that trace these threads; the kernel names a thread of theirs.
fn tracers(looks: &Looks) -> BTreeSet<i32> {
    let tracers: BTreeSet<_> = looks.values().map(|look| look.tracer).filter(|tracer| *tracer != 0).collect();
    tracers.into_iter().map(process_of).collect()
}

/// The process of a thread.
pub(crate) fn process_of(tid: i32) -> i32 {
    let status = Process::new(tid).and_then(|process| process.status());
    status.map_or(tid, |status| status.tgid)
}

fn read_so_far(pid: i32) -> Option<u64> {
    Some(Process::new(pid).ok()?.io().ok()?.rchar)
}

/// The control group that keeps a process from running.
fn frozen_group(pid: i32) -> Option<String> {
    let files = KernelFiles::below("/");
    FrozenGroup::of(&files, &GroupTree::of(&files, pid)).map(|frozen| frozen.group)
}
