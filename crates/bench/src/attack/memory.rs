//! The memory of a process as its cgroup counts it (`MemoryMax=`), about: pages of the process, and what the kernel holds
//! for its sockets.
//!
//! The kernel's part is read by `ss`, because a cgroup of its own needs rights that a benchmark should not need.

use std::{
    fs,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::Instant;

use crate::process::pause;

/// Between two readings of the process's pages.
const EVERY: Duration = Duration::from_millis(100);
/// Between two readings of the sockets: with thousands of them it takes a while.
const SOCKETS_EVERY: Duration = Duration::from_secs(1);
/// Kernel objects of a TCP socket besides its buffers (socket, inode, dentry, file, epoll item), about, in bytes.
const SOCKET_BYTES: u64 = 4096;

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// Resident pages.
    pub(crate) pages: u64,
    /// Sockets with their buffers; 0 without `ss`.
    pub(crate) sockets: u64,
}

impl MemoryUse {
    pub(crate) fn total(self) -> u64 {
        self.pages + self.sockets
    }

    /// Reads both.
    pub(crate) fn read(pid: u32, port: u16) -> anyhow::Result<Self> {
        Ok(Self { pages: resident(pid)?, sockets: sockets(port).unwrap_or(0) })
    }
}

/// Watches a process until it is stopped.
pub(crate) struct MemoryWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<MemoryUse>>,
}

impl MemoryWatch {
    /// Watches the process `pid`, whose clients connect to `port`.
    pub(crate) fn start(pid: u32, port: u16) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            let (mut peak, mut sockets_now) = (MemoryUse::default(), 0);
            let mut sockets_at = Instant::now();
            while !stopped.load(Relaxed) {
                if sockets_at <= Instant::now() {
                    sockets_now = sockets(port).unwrap_or(0);
                    sockets_at = Instant::now() + SOCKETS_EVERY;
                }
                let now = MemoryUse { pages: resident(pid)?, sockets: sockets_now };
                if now.total() > peak.total() {
                    peak = now;
                }
                pause(EVERY);
            }
            Ok(peak)
        };
        let thread = thread::Builder::new().name("memory".into()).spawn(run)?;
        Ok(Self { stop, thread })
    }

    /// The largest use so far.
    pub(crate) fn stop(self) -> anyhow::Result<MemoryUse> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the watching thread panicked"))?
    }
}

fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read the server's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the server has ended")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("read the server's memory")?;
    Ok(kib * 1024)
}

/// Memory of all sockets with this local port; `None` without `ss`.
fn sockets(port: u16) -> Option<u64> {
    let mut ss = Command::new("ss");
    ss.args(["-tamnH", &format!("sport = :{port}")]).stdin(Stdio::null());
    let listed = ss.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&listed.stdout).split("skmem:(").skip(1).map(socket_bytes).sum())
}

/// The memory of a socket from the text after `skmem:(` (`ss(8)`): what it has received (`r`), what it is to send (`w`),
/// and what is reserved for either (`f`).
fn socket_bytes(skmem: &str) -> u64 {
    let fields = skmem.split(')').next().unwrap_or_default().split(',');
    let counted = fields.filter_map(|field| {
        let digits = field.find(|c: char| c.is_ascii_digit())?;
        let (name, value) = field.split_at(digits);
        matches!(name, "r" | "w" | "f").then(|| value.parse::<u64>().ok()).flatten()
    });
    SOCKET_BYTES + counted.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_socket_is_what_ss_prints() {
        let line = "r1000,rb131072,t10,tb87040,f24,w300,o0,bl0,d0) ESTAB 0 0";
        assert_eq!(socket_bytes(line), 4096 + 1000 + 24 + 300);
        assert_eq!(socket_bytes(""), 4096);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident(std::process::id()).unwrap() > 100_000);
    }
}
