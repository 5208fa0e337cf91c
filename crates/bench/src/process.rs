//! A server under test as its system sees it: started on its own processors, measured through `/proc`, ended.

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

/// How long a server may take to end before it is killed.
const GOODBYE: Duration = Duration::from_secs(3);

/// Who uses which processors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seats {
    all: CpuSet,
    /// Servers have the first one and clients the others, so that neither measures the other.
    apart: bool,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Server,
    Clients,
}

impl Seats {
    /// What we were given; shared by all where there is only one.
    pub(crate) fn of_ours(shared: bool) -> anyhow::Result<Self> {
        let all = sched_getaffinity(None).context("ask which processors are ours")?;
        let seats = Self { all, apart: !shared && all.count() > 1 };
        seats.sit(Side::Clients)?;
        Ok(seats)
    }

    pub(crate) fn are_apart(&self) -> bool {
        self.apart
    }

    /// Processors that a server has.
    pub(crate) fn of_a_server(&self) -> u32 {
        if self.apart { 1 } else { self.all.count() }
    }

    /// Moves this thread, and what it starts from now on.
    fn sit(&self, side: Side) -> anyhow::Result<()> {
        if !self.apart {
            return Ok(());
        }
        let mut ours = (0..CpuSet::MAX_CPU).filter(|cpu| self.all.is_set(*cpu));
        let mut wanted = CpuSet::new();
        match side {
            Side::Server => wanted.set(ours.next().unwrap_or(0)),
            Side::Clients => ours.skip(1).for_each(|cpu| wanted.set(cpu)),
        }
        sched_setaffinity(None, &wanted).context("choose processors")
    }
}

/// As many open files as the system lets us have.
pub(crate) fn raise_open_files() -> anyhow::Result<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("raise the limit of open files")?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// A server and its workers; ended when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on the servers' processors.
    pub(crate) fn start(command: &mut Command, seats: &Seats) -> anyhow::Result<Self> {
        seats.sit(Side::Server)?;
        let child = command.spawn().with_context(|| format!("start {:?}", command.get_program()));
        seats.sit(Side::Clients)?;
        Ok(Self { child: child? })
    }

    /// The process and its children.
    fn family(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|child| child.parse().ok()).chain([id]).collect()
    }

    /// Processor time so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let ticks = self.family().into_iter().map(|id| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
            ticks(&stat).with_context(|| format!("read {stat:?}"))
        });
        // USER_HZ is 100 on every Linux that we run on (`proc_pid_stat(5)`).
        Ok(Duration::from_millis(10 * ticks.sum::<anyhow::Result<u64>>()?))
    }

    /// Memory in bytes, shared pages by share.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let bytes = self.family().into_iter().map(|id| {
            let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
            proportional(&rollup).with_context(|| format!("read {rollup:?}"))
        });
        bytes.sum()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM.
    pub(crate) fn tell_to_stop(&self) {
        signal(self.child.id(), Signal::TERM);
    }

    /// SIGKILL, and its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let family = self.family();
        self.tell_to_stop();
        let until = Instant::now() + GOODBYE;
        while self.is_running() && Instant::now() < until {
            pause(Duration::from_millis(5));
        }
        // Workers outlive a parent that is killed.
        if self.is_running() {
            family.into_iter().for_each(|id| signal(id, Signal::KILL));
        }
        self.kill();
    }
}

fn signal(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        kill_process(pid, signal).ok();
    }
}

/// Waits on this thread, which has nothing else to do.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, no arbiter")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Waits until `ready` gives something.
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
        anyhow::ensure!(Instant::now() < until, "waited {within:?} for {what}");
        pause(Duration::from_millis(5));
    }
}

/// A program in the folders of `PATH`, and where Debian keeps servers.
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// `utime` and `stime` of `/proc/PID/stat`; a program's name may have spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// `Pss` of `/proc/PID/smaps_rollup`, in bytes.
fn proportional(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
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
    }
}
