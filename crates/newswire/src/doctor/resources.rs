//! The resources of a process as the kernel counts them: control groups of both versions, pressure, limits on threads, and the
//! threads that wait in the kernel. Everything that counts is sampled twice.
//!
//! ```text
//! /proc/PID/cgroup, mountinfo ─► group_tree ─► cpu_quota, memory_limit, task_limit, freezer, pressure
//! /proc/PID/task ─► still_threads
//! ```

pub(crate) mod cpu_quota;
pub(crate) mod file_system;
#[cfg(test)]
mod fixture;
pub(crate) mod freezer;
pub(crate) mod group_tree;
pub(crate) mod kernel_files;
pub(crate) mod memory_limit;
pub(crate) mod namespaces;
pub(crate) mod pressure;
pub(crate) mod sockets;
pub(crate) mod still_threads;
pub(crate) mod store_placement;
pub(crate) mod task_limit;

use std::time::Duration;

use tokio::time::Instant;

use serde::Serialize;
use tokio::time::sleep;

use self::{
    cpu_quota::CpuQuota, freezer::FrozenGroup, group_tree::GroupTree, kernel_files::KernelFiles,
    memory_limit::MemoryLimit, namespaces::OtherPlace, pressure::Pressures, sockets::SocketPlace,
    still_threads::StillThread, task_limit::TaskLimit,
};
use super::part::Part;
use crate::within;

/// Time between the two samples: ten of the periods in which the kernel enforces a quota.
const SAMPLE: Duration = Duration::from_millis(1_000);
/// The same with `--quick`.
const QUICK_SAMPLE: Duration = Duration::from_millis(500);
/// How long a sample may take: a file of the kernel may wait for a lock of the process that it describes. Otherwise it takes
/// milliseconds, and seconds only on a machine that is overloaded, where its result matters most.
pub(crate) const SAMPLE_WITHIN: Duration = Duration::from_millis(3_000);
/// The same with `--quick`.
const QUICK_WITHIN: Duration = Duration::from_millis(600);

/// What limits a process, and how often it came to its limits between two samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ProcessResources {
    pub(crate) sampled_ms: u64,
    /// In both samples.
    pub(crate) frozen: Option<FrozenGroup>,
    /// The groups with a quota, the most throttled first.
    pub(crate) cpu: Vec<CpuQuota>,
    pub(crate) memory: Vec<MemoryLimit>,
    pub(crate) tasks: Vec<TaskLimit>,
    /// Of its own group.
    pub(crate) pressure: Pressures,
    /// Threads that did not run between the samples.
    pub(crate) still: Vec<StillThread>,
    /// If it is not in our namespaces.
    pub(crate) place: Option<OtherPlace>,
    /// On which it listens.
    pub(crate) sockets: Vec<SocketPlace>,
}

/// One sample.
struct ResourceSample {
    at: Instant,
    frozen: Option<FrozenGroup>,
    cpu: Vec<CpuQuota>,
    memory: Vec<MemoryLimit>,
    tasks: Vec<TaskLimit>,
    pressure: Pressures,
}

impl ResourceSample {
    fn take(files: &KernelFiles, pid: i32) -> Self {
        let tree = GroupTree::of(files, pid);
        // At the top it is the pressure of the machine.
        let own = tree.version_2().split_last().and_then(|(_, below_top)| below_top.first());
        Self {
            at: Instant::now(),
            frozen: FrozenGroup::of(files, &tree),
            cpu: CpuQuota::sample(files, &tree),
            memory: MemoryLimit::sample(files, &tree),
            tasks: TaskLimit::sample(files, &tree, pid),
            pressure: own.map(|own| Pressures::of_group(files, &own.path)).unwrap_or_default(),
        }
    }

    /// With what was counted since an earlier sample.
    fn since(self, before: &Self) -> ProcessResources {
        let over = self.at.saturating_duration_since(before.at);
        let sampled_ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
        let mut cpu: Vec<_> =
            self.cpu.into_iter().map(|quota| quota.since(&before.cpu, sampled_ms)).collect();
        cpu.sort_by_key(|quota| std::cmp::Reverse(quota.throttled_ms));
        ProcessResources {
            sampled_ms,
            frozen: self.frozen.filter(|frozen| before.frozen.as_ref() == Some(frozen)),
            cpu,
            memory: self.memory.into_iter().map(|limit| limit.since(&before.memory)).collect(),
            tasks: self.tasks.into_iter().map(|limit| limit.since(&before.tasks)).collect(),
            pressure: self.pressure.since(&before.pressure),
            ..ProcessResources::default()
        }
    }
}

/// Samples the resources of a process twice.
pub(crate) async fn examine(pid: i32, quick: bool) -> Part<ProcessResources> {
    let within = if quick { QUICK_WITHIN } else { SAMPLE_WITHIN };
    let counted = async {
        let take = || within::later(within, move || ResourceSample::take(&KernelFiles::below("/"), pid));
        let before = take().await?;
        sleep(if quick { QUICK_SAMPLE } else { SAMPLE }).await;
        Some(take().await?.since(&before))
    };
    // On their own: reading all threads of a process takes the longest, and the groups must not be missing because of it.
    let (counted, still, place) = tokio::join!(
        counted,
        still_threads(pid, quick, within),
        within::later(within, move || OtherPlace::of(&KernelFiles::below("/"), pid)),
    );
    let Some(mut resources) = counted else { return Part::timed_out(late(within)) };
    (resources.still, resources.place) = (still, place.flatten());
    if !resources.place.as_ref().is_some_and(|place| place.net) {
        resources.sockets = sockets::places(pid).await;
    }
    Part::Found(resources)
}

/// None if they cannot be read in time.
async fn still_threads(pid: i32, quick: bool, within: Duration) -> Vec<StillThread> {
    let take = || within::later(within, move || still_threads::marks(pid));
    let Some(before) = take().await else { return Vec::new() };
    sleep(if quick { QUICK_SAMPLE } else { SAMPLE }).await;
    let Some(after) = take().await else { return Vec::new() };
    let still = within::later(within, move || still_threads::still(pid, &before, &after));
    still.await.unwrap_or_default()
}

/// Samples the pressure of the machine twice.
pub(crate) async fn pressure_of_machine(quick: bool) -> Part<Pressures> {
    let within = if quick { QUICK_WITHIN } else { SAMPLE_WITHIN };
    let take = || within::later(within, || Pressures::of_machine(&KernelFiles::below("/")));
    let Some(before) = take().await else { return Part::timed_out(late(within)) };
    sleep(if quick { QUICK_SAMPLE } else { SAMPLE }).await;
    match take().await {
        Some(after) => Part::Found(after.since(&before)),
        None => Part::timed_out(late(within)),
    }
}

fn late(within: Duration) -> String {
    format!("the kernel did not report it within {within:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_process_is_neither_frozen_nor_without_threads() {
        let found = examine(std::process::id().cast_signed(), true).await;
        let found = found.get().unwrap();
        assert!(found.sampled_ms >= 400 && found.frozen.is_none(), "{found:?}");
        assert!(found.tasks.iter().any(|limit| limit.max > 0), "{found:?}");
    }
}
