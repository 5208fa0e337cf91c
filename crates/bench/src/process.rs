//! A server under test as a child process: pinned to CPUs, measured through `/proc`, terminated when dropped.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use tokio::time::Instant;

/// How long a server may take to exit before it is killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Which CPUs servers and clients use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuPartition {
    all: CpuSet,
    /// Servers use the first one and clients the others, so that they do not compete.
    split: bool,
}

#[derive(Clone, Copy, Debug)]
enum CpuRole {
    Server,
    Clients,
}

impl CpuPartition {
    /// Reads this process's affinity. A single CPU is shared.
    pub(crate) fn detect(shared: bool) -> anyhow::Result<Self> {
        let all = sched_getaffinity(None).context("read the CPU affinity")?;
        let cpus = Self { all, split: !shared && all.count() > 1 };
        cpus.move_thread_to(CpuRole::Clients)?;
        Ok(cpus)
    }

    /// The same CPUs, shared by servers and clients; this thread may use all of them from now on.
    pub(crate) fn shared(&self) -> anyhow::Result<Self> {
        sched_setaffinity(None, &self.all).context("set the CPU affinity")?;
        Ok(Self { all: self.all, split: false })
    }

    pub(crate) fn is_split(&self) -> bool {
        self.split
    }

    /// CPUs of a server.
    pub(crate) fn server_cpu_count(&self) -> u32 {
        if self.split { 1 } else { self.all.count() }
    }

    /// Moves this thread, and the processes it starts from now on.
    fn move_thread_to(&self, role: CpuRole) -> anyhow::Result<()> {
        if !self.split {
            return Ok(());
        }
        let mut ours = (0..CpuSet::MAX_CPU).filter(|cpu| self.all.is_set(*cpu));
        let mut wanted = CpuSet::new();
        match role {
            CpuRole::Server => wanted.set(ours.next().unwrap_or(0)),
            CpuRole::Clients => ours.skip(1).for_each(|cpu| wanted.set(cpu)),
        }
        sched_setaffinity(None, &wanted).context("set the CPU affinity")
    }
}

/// Raises the limit of open files to the maximum and returns it.
pub(crate) fn raise_open_files() -> anyhow::Result<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("raise the limit of open files")?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// A server and its workers; terminated when dropped.
pub(crate) struct ServerProcess {
    child: Child,
}

impl ServerProcess {
    /// Starts `command` on the CPUs of servers.
    pub(crate) fn start(command: &mut Command, cpus: &CpuPartition) -> anyhow::Result<Self> {
        cpus.move_thread_to(CpuRole::Server)?;
        let child = command.spawn().with_context(|| format!("start {:?}", command.get_program()));
        cpus.move_thread_to(CpuRole::Clients)?;
        Ok(Self { child: child? })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The ids of the process and its children.
    fn pids(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|child| child.parse().ok()).chain([id]).collect()
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let ticks = self.pids().into_iter().map(|id| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
            ticks(&stat).with_context(|| format!("read {stat:?}"))
        });
        // USER_HZ is 100 on all supported systems (`proc_pid_stat(5)`).
        Ok(Duration::from_millis(10 * ticks.sum::<anyhow::Result<u64>>()?))
    }

    /// Memory in bytes (PSS).
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let bytes = self.pids().into_iter().map(|id| {
            let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
            proportional(&rollup).with_context(|| format!("read {rollup:?}"))
        });
        bytes.sum()
    }

    /// Memory in bytes (RSS) of the process alone: now, and the most that it ever had.
    pub(crate) fn resident(&self) -> anyhow::Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let now = kilobytes(&status, "VmRSS:").context("read VmRSS")?;
        let most = kilobytes(&status, "VmHWM:").context("read VmHWM")?;
        Ok((now, most))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        signal(self.child.id(), Signal::TERM);
    }

    /// Sends SIGKILL and waits.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let pids = self.pids();
        self.terminate();
        let until = Instant::now() + EXIT_TIMEOUT;
        while self.is_running() && Instant::now() < until {
            pause(Duration::from_millis(5));
        }
        // Workers outlive a killed parent.
        if self.is_running() {
            pids.into_iter().for_each(|id| signal(id, Signal::KILL));
        }
        self.kill();
    }
}

fn signal(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // It may have exited by itself.
        kill_process(pid, signal).ok();
    }
}

/// Sleeps on this thread.
#[expect(clippy::disallowed_methods, reason = "a thread without an event loop")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Polls `ready` until it returns a value.
pub(crate) fn wait_for<T>(
    what: &str,
    within: Duration,
    mut ready: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let until = Instant::now() + within;
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        anyhow::ensure!(Instant::now() < until, "timed out after {within:?} waiting for {what}");
        pause(Duration::from_millis(5));
    }
}

/// Finds a program on the `PATH` or in `/usr/sbin`.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// `utime` and `stime` of `/proc/PID/stat`; a program's name may contain spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// `Pss` of `/proc/PID/smaps_rollup`, in bytes.
fn proportional(rollup: &str) -> Option<u64> {
    kilobytes(rollup, "Pss:")
}

/// A line such as `VmRSS:  12 kB`, in bytes.
fn kilobytes(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_and_memory_are_parsed_as_the_kernel_formats_them() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 9 9 20 0 1 0 5 6 7 8";
        assert_eq!(ticks(stat), Some(175));
        assert_eq!(ticks("7 (a) S 1"), None);
        let rollup = "00400000-7ff [rollup]\nRss:    9 kB\nPss:          1234 kB\nPss_Dirty: 5 kB\n";
        assert_eq!(proportional(rollup), Some(1234 * 1024));
        assert_eq!(proportional(""), None);
        let status = "Name:\tx\nVmHWM:\t  200 kB\nVmRSS:\t  100 kB\n";
        assert_eq!(
            (kilobytes(status, "VmRSS:"), kilobytes(status, "VmHWM:")),
            (Some(102_400), Some(204_800))
        );
    }
}
