//! How many threads a process may still start: the limits of its control groups, of its user and of the machine.

use procfs::process::{LimitValue, Process, all_processes};
use serde::Serialize;

use super::{
    group_tree::{GroupFolder, GroupTree},
    kernel_files::{KernelFiles, field_of},
};

/// What limits the number of threads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TaskBound {
    /// `pids.max` of this group.
    Group(String),
    /// `RLIMIT_NPROC`, which counts the threads of this user.
    User(u32),
    /// `kernel.threads-max` or `kernel.pid_max`, with its name.
    Machine(&'static str),
}

/// A limit that is reached or close.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TaskLimit {
    pub(crate) bound: TaskBound,
    pub(crate) used: u64,
    pub(crate) max: u64,
    /// Threads and processes that the kernel refused to start: between two samples, where it counts them.
    pub(crate) refused: u64,
}

impl TaskLimit {
    /// Whether no thread can be started now.
    pub(crate) fn is_reached(&self) -> bool {
        self.used >= self.max || self.refused > 0
    }

    /// The limits of a process.
    pub(crate) fn sample(files: &KernelFiles, tree: &GroupTree, pid: i32) -> Vec<Self> {
        let groups = tree.levels("pids").iter().filter_map(|level| of_group(files, level));
        groups.chain(of_user(pid)).chain(of_machine(files)).collect()
    }

    /// What was refused since an earlier sample. Both must have been at the limit: threads come and go.
    pub(crate) fn since(self, before: &[Self]) -> Self {
        let Some(was) = before.iter().find(|was| was.bound == self.bound) else {
            return Self { refused: 0, ..self };
        };
        Self { refused: self.refused.saturating_sub(was.refused), used: self.used.min(was.used), ..self }
    }
}

fn of_group(files: &KernelFiles, level: &GroupFolder) -> Option<TaskLimit> {
    let number = |name: &str| files.number(level.path.join(name));
    Some(TaskLimit {
        bound: TaskBound::Group(level.path.display().to_string()),
        used: number("pids.current")?,
        max: number("pids.max")?,
        refused: files
            .text(level.path.join("pids.events"))
            .and_then(|text| field_of(&text, "max"))
            .unwrap_or(0),
    })
}

/// `None` for root, whom the kernel does not hold to it, and where there is no limit.
fn of_user(pid: i32) -> Option<TaskLimit> {
    let process = Process::new(pid).ok()?;
    let LimitValue::Value(max) = process.limits().ok()?.max_processes.soft_limit else { return None };
    let user = process.status().ok()?.ruid;
    if user == 0 {
        return None;
    }
    let of_user = |process: &Process| process.uid().is_ok_and(|uid| uid == user);
    let threads =
        |process: Process| u64::try_from(process.stat().map_or(0, |stat| stat.num_threads)).unwrap_or(0);
    let used = all_processes().ok()?.flatten().filter(of_user).map(threads).sum();
    Some(TaskLimit { bound: TaskBound::User(user), used, max, refused: 0 })
}

fn of_machine(files: &KernelFiles) -> impl Iterator<Item = TaskLimit> {
    // `0.20 0.18 0.12 1/80 11206`: the fourth is running and all threads.
    let all = files
        .text("/proc/loadavg")
        .and_then(|text| text.split_whitespace().nth(3)?.split_once('/')?.1.parse::<u64>().ok());
    let limit = move |(name, path)| {
        let max = files.number(path)?;
        Some(TaskLimit { bound: TaskBound::Machine(name), used: all?, max, refused: 0 })
    };
    let limits = [
        ("kernel.threads-max", "/proc/sys/kernel/threads-max"),
        ("kernel.pid_max", "/proc/sys/kernel/pid_max"),
    ];
    limits.map(limit).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::KernelFixture, *};

    #[test]
    fn a_limit_counts_as_reached_if_it_was_in_both_samples_or_if_a_thread_was_refused() {
        let fixture = KernelFixture::hybrid();
        fixture.write("/proc/7/cgroup", "8:pids:/p\n0::/\n");
        let group = |name: &str, text: &str| fixture.write(&format!("/sys/fs/cgroup/pids/p/{name}"), text);
        group("pids.max", "20\n");
        group("pids.current", "20\n");
        group("pids.events", "max 3\n");
        let (files, tree) = (fixture.files(), GroupTree::of(&fixture.files(), 7));
        let sample = || TaskLimit::sample(&files, &tree, 7).remove(0);
        let full = [sample()];
        assert!(sample().since(&full).is_reached());
        group("pids.current", "19\n");
        let left = sample().since(&full);
        assert!(!left.is_reached(), "{left:?}");
        group("pids.events", "max 4\n");
        assert_eq!(sample().since(&full).refused, 1);
        assert!(sample().since(&full).is_reached());
        group("pids.max", "max\n");
        assert!(TaskLimit::sample(&files, &tree, 7).is_empty());
    }

    #[test]
    fn the_limits_of_the_machine_count_all_threads() {
        let fixture = KernelFixture::new();
        fixture.write("/proc/loadavg", "0.20 0.18 0.12 1/31999 11206\n");
        fixture.write("/proc/sys/kernel/pid_max", "32000\n");
        let limit = of_machine(&fixture.files()).next().unwrap();
        assert_eq!((limit.used, limit.max, limit.is_reached()), (31_999, 32_000, false));
    }
}
