//! A process as the kernel sees it. Needs no answer of the process, so it works for a frozen one.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use procfs::process::{LimitValue, Process as Proc, Stat};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    part::Part,
    resources::{freezer::FrozenGroup, group_tree::GroupTree, kernel_files::KernelFiles},
};
use crate::within;

/// Time between the two samples that show how much it runs and waits for a processor.
const SAMPLE: Duration = Duration::from_millis(300);
/// Longest command line that is shown, in characters.
const COMMAND_CHARS_MAX: usize = 300;

/// What the kernel knows about a process.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ProcessSample {
    pub(crate) pid: i32,
    /// Its ids in the pid namespaces that it is in, that of a container last; empty if it is in no other one.
    pub(crate) inner_pids: Vec<i32>,
    pub(crate) command: String,
    /// Of the main thread: R running, S sleeping, D waiting for the disk, T stopped, t traced, Z zombie.
    pub(crate) state: char,
    /// In both samples, and it did not run in between: by a signal such as SIGSTOP, or by a debugger.
    pub(crate) stopped: bool,
    /// How often the main thread began to run.
    #[serde(skip)]
    pub(crate) switches: u64,
    /// By its control group (`docker pause`, `systemctl freeze`).
    pub(crate) frozen: bool,
    pub(crate) tracer: Option<i32>,
    pub(crate) threads: u64,
    pub(crate) states: ThreadStates,
    pub(crate) open_files: Option<Usage>,
    /// Up to here its user may raise the limit of open files.
    pub(crate) open_files_hard_max: Option<u64>,
    pub(crate) rss_bytes: u64,
    /// Of its control group.
    pub(crate) memory: Option<Usage>,
    pub(crate) uptime_ms: u64,
    /// Since its start.
    pub(crate) cpu_ms: u64,
    pub(crate) sampled_ms: u64,
    pub(crate) cpu_sampled_ms: u64,
    /// Ready to run and without a processor, all threads together.
    pub(crate) run_delay_ms: u64,
    /// The threads that ran or waited for a processor between the samples, and those that neither run nor sleep.
    pub(crate) tasks: Vec<Task>,
}

/// How much of something is used, and its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    pub(crate) used: u64,
    pub(crate) max: u64,
}

/// Threads of a process by the letter of their state (proc_pid_stat(5)).
pub(crate) type ThreadStates = BTreeMap<char, u32>;

/// One thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Task {
    pub(crate) tid: i32,
    pub(crate) name: String,
    pub(crate) state: char,
    pub(crate) cpu_ms: u64,
    pub(crate) run_delay_ms: u64,
}

/// Processor time of a thread since its start, and how long it was ready without a processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTimes {
    pub(crate) cpu_ms: u64,
    pub(crate) run_delay_ms: u64,
}

/// How long the watchdog of a process may take to run: it looks every 250 ms.
const WATCHDOG_WITHIN: Duration = Duration::from_millis(1_200);
const WATCHDOG_LOOK_EVERY: Duration = Duration::from_millis(50);
/// The name of its thread.
const WATCHDOG: &str = "watchdog";

/// Whether the watchdog of a process runs, as the kernel counts: it begins to wait again and again. A loop that never waits
/// does not count. `None` if it has no such thread, or has ended.
pub(crate) async fn watchdog_runs(pid: i32) -> Option<bool> {
    let thread =
        Proc::new(pid).ok()?.tasks().ok()?.flatten().find(|t| t.stat().is_ok_and(|s| s.comm == WATCHDOG))?;
    let waits = || thread.status().ok()?.voluntary_ctxt_switches;
    let before = waits()?;
    let until = Instant::now() + WATCHDOG_WITHIN;
    while Instant::now() < until {
        sleep(WATCHDOG_LOOK_EVERY).await;
        if waits()? > before {
            return Some(true);
        }
    }
    Some(false)
}

pub(crate) fn thread_times(pid: i32, tid: i32) -> Option<CpuTimes> {
    let stat = Proc::new(pid).ok()?.task_from_tid(tid).ok()?.schedstat().ok()?;
    Some(CpuTimes { cpu_ms: stat.sum_exec_runtime / 1_000_000, run_delay_ms: stat.run_delay / 1_000_000 })
}

/// The command line. `None` if it cannot be read, also because its memory is locked.
pub(crate) fn arguments(pid: i32) -> Option<Vec<String>> {
    within::through_memory(pid, Proc::cmdline)
}

/// Whether the root of a process, or its mounts, are others than those of this tool, as in another container.
pub(crate) fn has_other_files(pid: i32) -> bool {
    let link = |of: &str, name: &str| std::fs::read_link(format!("/proc/{of}/{name}")).ok();
    let pid = pid.to_string();
    let differs = |name: &str| link(&pid, name).is_some_and(|its| Some(its) != link("self", name));
    differs("ns/mnt") || differs("root")
}

/// A path as a process sees it, by a name that leads to the same file from here.
pub(crate) fn seen_by(pid: i32, path: &Path) -> PathBuf {
    match has_other_files(pid) {
        false => path.to_owned(),
        true => {
            Path::new("/proc").join(pid.to_string()).join("root").join(path.strip_prefix("/").unwrap_or(path))
        }
    }
}

/// The command line, as one line.
pub(crate) fn command(process: &Proc) -> String {
    let arguments = arguments(process.pid()).unwrap_or_default().join(" ");
    let command =
        if arguments.is_empty() { process.stat().map(|s| s.comm).unwrap_or_default() } else { arguments };
    command.chars().take(COMMAND_CHARS_MAX).collect()
}

/// The process that a thread belongs to; its own id, if it is a process.
pub(crate) fn process_of(thread: i32) -> Option<i32> {
    Some(Proc::new(thread).ok()?.status().ok()?.tgid)
}

pub(crate) fn uptime_ms(stat: &Stat) -> u64 {
    let now = procfs::Current::current().map_or(0.0, |uptime: procfs::Uptime| uptime.uptime);
    let started = stat.starttime as f64 / procfs::ticks_per_second() as f64;
    ((now - started).max(0.0) * 1000.0) as u64
}

/// Samples a process twice, [`SAMPLE`] apart; once if `quick`.
pub(crate) async fn examine(pid: i32, quick: bool) -> Part<ProcessSample> {
    let first = match sample(pid) {
        Ok(first) => first,
        Err(error) => return Part::missing(format!("process {pid}: {error}")),
    };
    let (mut process, before) = first;
    // A tracer such as strace stops the process at each system call, and lets it go on.
    if quick && !(process.stopped && process.tracer.is_some()) {
        return Part::Found(process);
    }
    sleep(SAMPLE).await;
    let Ok((again, after)) = sample(pid) else {
        return Part::missing(format!("process {pid} ended meanwhile"));
    };
    process.stopped = process.stopped && again.stopped && process.switches == again.switches;
    process.sampled_ms = again.uptime_ms.saturating_sub(process.uptime_ms);
    process.tasks = difference(&before, &after);
    process.cpu_sampled_ms = process.tasks.iter().map(|task| task.cpu_ms).sum();
    process.run_delay_ms = process.tasks.iter().map(|task| task.run_delay_ms).sum();
    process.tasks.retain(|task| task.cpu_ms + task.run_delay_ms > 0 || !matches!(task.state, 'R' | 'S'));
    Part::Found(process)
}

/// What each thread did between two samples, the busiest first.
fn difference(before: &[Task], after: &[Task]) -> Vec<Task> {
    let before: HashMap<_, _> = before.iter().map(|task| (task.tid, task)).collect();
    let grown = |task: &Task| {
        let (cpu, delay) = before.get(&task.tid).map_or((0, 0), |b| (b.cpu_ms, b.run_delay_ms));
        Task {
            cpu_ms: task.cpu_ms.saturating_sub(cpu),
            run_delay_ms: task.run_delay_ms.saturating_sub(delay),
            ..task.clone()
        }
    };
    let mut tasks: Vec<_> = after.iter().map(grown).collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(task.cpu_ms + task.run_delay_ms));
    tasks
}

fn sample(pid: i32) -> procfs::ProcResult<(ProcessSample, Vec<Task>)> {
    let process = Proc::new(pid)?;
    let stat = process.stat()?;
    let status = process.status().ok();
    let tasks = tasks(&process);
    let mut states = ThreadStates::new();
    for task in &tasks {
        *states.entry(task.state).or_default() += 1;
    }
    let group = group_of(&process);
    let switches = status.as_ref().map(|s| [s.voluntary_ctxt_switches, s.nonvoluntary_ctxt_switches]);
    let facts = ProcessSample {
        pid,
        inner_pids: status
            .as_ref()
            .and_then(|status| status.nspid.clone())
            .into_iter()
            .flatten()
            .skip(1)
            .collect(),
        command: command(&process),
        state: stat.state,
        stopped: matches!(stat.state, 'T' | 't'),
        switches: switches.into_iter().flatten().flatten().sum(),
        frozen: is_frozen(pid),
        tracer: status.as_ref().map(|status| status.tracerpid).filter(|tracer| *tracer != 0),
        threads: u64::try_from(stat.num_threads).unwrap_or(0),
        states,
        open_files: open_files(&process),
        open_files_hard_max: process.limits().ok().map(|limits| number(limits.max_open_files.hard_limit)),
        rss_bytes: stat.rss.saturating_mul(procfs::page_size()),
        memory: group.as_ref().and_then(|group| memory_of(group)),
        uptime_ms: uptime_ms(&stat),
        cpu_ms: (stat.utime + stat.stime) * 1000 / procfs::ticks_per_second().max(1),
        ..ProcessSample::default()
    };
    Ok((facts, tasks))
}

fn tasks(process: &Proc) -> Vec<Task> {
    let one = |task: procfs::process::Task| {
        let (stat, times) = (task.stat().ok()?, task.schedstat().ok());
        Some(Task {
            tid: task.tid,
            name: stat.comm,
            state: stat.state,
            cpu_ms: times.as_ref().map_or(0, |t| t.sum_exec_runtime / 1_000_000),
            run_delay_ms: times.as_ref().map_or(0, |t| t.run_delay / 1_000_000),
        })
    };
    process.tasks().into_iter().flatten().flatten().filter_map(one).collect()
}

/// `None` for processes of other users, whose files only root may count.
fn open_files(process: &Proc) -> Option<Usage> {
    let used = u64::try_from(process.fd_count().ok()?).ok()?;
    Some(Usage { used, max: number(process.limits().ok()?.max_open_files.soft_limit) })
}

fn number(limit: LimitValue) -> u64 {
    match limit {
        LimitValue::Value(max) => max,
        LimitValue::Unlimited => u64::MAX,
    }
}

/// The directory of its control group (version 2).
fn group_of(process: &Proc) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = PathBuf::from(format!("/sys/fs/cgroup{path}"));
    folder.is_dir().then_some(folder)
}

/// In either version of control groups.
fn is_frozen(pid: i32) -> bool {
    let files = KernelFiles::below("/");
    FrozenGroup::of(&files, &GroupTree::of(&files, pid)).is_some()
}

fn memory_of(group: &Path) -> Option<Usage> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse().ok();
    Some(Usage { used: number("memory.current")?, max: number("memory.max")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_process_is_described_as_it_is() {
        let sampled = examine(std::process::id().cast_signed(), false).await;
        let sampled = sampled.get().unwrap();
        assert!(
            !sampled.stopped && sampled.tracer.is_none() && sampled.threads >= 1 && sampled.rss_bytes > 0
        );
        let files = sampled.open_files.unwrap();
        assert!(files.used >= 3 && files.max >= files.used);
        assert!(sampled.sampled_ms >= 200 && sampled.command.contains("newswire"), "{sampled:?}");
    }

    #[tokio::test]
    async fn a_process_that_does_not_exist_is_missing() {
        assert!(examine(i32::MAX, true).await.get().is_none());
    }

    #[test]
    fn the_work_of_threads_is_the_difference_of_two_samples() {
        let task =
            |tid, cpu_ms, run_delay_ms| Task { tid, cpu_ms, run_delay_ms, state: 'S', ..Task::default() };
        let did =
            difference(&[task(1, 100, 5), task(2, 7, 7)], &[task(1, 110, 5), task(2, 7, 300), task(3, 2, 0)]);
        assert_eq!(did, [task(2, 0, 293), task(1, 10, 0), task(3, 2, 0)]);
    }
}
