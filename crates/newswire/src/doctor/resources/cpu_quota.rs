//! The processor time that a control group may use (`cpu.max`, `CPUQuota=`), and how long it was throttled for.

use serde::Serialize;

use super::{
    group_tree::{GroupFolder, GroupTree, GroupVersion},
    kernel_files::{KernelFiles, field_of},
};

/// A group with a quota, and what the kernel counted between two samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct CpuQuota {
    pub(crate) group: String,
    pub(crate) version: GroupVersion,
    /// Of one processor, in percent.
    pub(crate) quota_percent: f64,
    /// Enforcement periods that passed while it had something to run, and those at whose end it was throttled.
    pub(crate) periods: u64,
    pub(crate) throttled_periods: u64,
    /// Summed over the processors.
    pub(crate) throttled_ms: u64,
    pub(crate) over_ms: u64,
}

impl CpuQuota {
    /// Above it and the group of the process, each level with a quota.
    pub(crate) fn sample(files: &KernelFiles, tree: &GroupTree) -> Vec<Self> {
        tree.levels("cpu").iter().filter_map(|level| sample(files, level)).collect()
    }

    /// What was counted since an earlier sample.
    pub(crate) fn since(self, before: &[Self], over_ms: u64) -> Self {
        let was = before.iter().find(|was| was.group == self.group);
        let grown = |now: u64, count: fn(&Self) -> u64| now.saturating_sub(was.map_or(now, count));
        Self {
            periods: grown(self.periods, |was| was.periods),
            throttled_periods: grown(self.throttled_periods, |was| was.throttled_periods),
            throttled_ms: grown(self.throttled_ms, |was| was.throttled_ms),
            over_ms,
            ..self
        }
    }
}

fn sample(files: &KernelFiles, level: &GroupFolder) -> Option<CpuQuota> {
    let folder = &level.path;
    let (quota, period) = match level.version {
        GroupVersion::V2 => {
            let text = files.text(folder.join("cpu.max"))?;
            let (quota, period) = text.trim().split_once(' ')?;
            // `max` is no number: there is no quota.
            (quota.parse::<u32>().ok()?, period.parse::<u32>().ok()?)
        }
        GroupVersion::V1 => {
            let number = |name: &str| files.text(folder.join(name))?.trim().parse::<u32>().ok();
            // -1 is no quota.
            (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
        }
    };
    let stat = files.text(folder.join("cpu.stat"))?;
    let count = |name: &str| field_of(&stat, name).unwrap_or(0);
    let throttled_ms = match level.version {
        GroupVersion::V2 => count("throttled_usec") / 1_000,
        GroupVersion::V1 => count("throttled_time") / 1_000_000,
    };
    Some(CpuQuota {
        group: folder.display().to_string(),
        version: level.version,
        quota_percent: f64::from(quota) * 100.0 / f64::from(period.max(1)),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_ms,
        over_ms: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::KernelFixture, *};

    #[test]
    fn throttling_is_counted_between_two_samples_also_by_a_group_above() {
        let fixture = KernelFixture::v2();
        fixture.write("/proc/7/cgroup", "0::/system.slice/a.service\n");
        let own = "/sys/fs/cgroup/system.slice/a.service";
        fixture.write(&format!("{own}/cpu.max"), "max 100000\n");
        fixture.write(&format!("{own}/cpu.stat"), "usage_usec 5\nnr_periods 0\n");
        let above = "/sys/fs/cgroup/system.slice";
        fixture.write(&format!("{above}/cpu.max"), "3000 100000\n");
        let stat = |n: u64| format!("nr_periods {n}\nnr_throttled {n}\nthrottled_usec {}\n", n * 97_000);
        fixture.write(&format!("{above}/cpu.stat"), &stat(50));
        let (files, tree) = (fixture.files(), GroupTree::of(&fixture.files(), 7));
        let before = CpuQuota::sample(&files, &tree);
        fixture.write(&format!("{above}/cpu.stat"), &stat(60));
        let [quota] = CpuQuota::sample(&files, &tree).try_into().unwrap();
        let counted = CpuQuota {
            group: above.to_owned(),
            version: GroupVersion::V2,
            quota_percent: 3.0,
            periods: 10,
            throttled_periods: 10,
            throttled_ms: 970,
            over_ms: 1_000,
        };
        assert_eq!(quota.since(&before, 1_000), counted);
    }

    #[test]
    fn version_1_has_other_names_and_units() {
        let fixture = KernelFixture::hybrid();
        fixture.write("/proc/7/cgroup", "1:cpu,cpuacct:/q\n0::/\n");
        fixture.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
        fixture.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        fixture.write("/sys/fs/cgroup/cpu/q/cpu.cfs_quota_us", "1000\n");
        fixture.write("/sys/fs/cgroup/cpu/q/cpu.cfs_period_us", "100000\n");
        fixture.write(
            "/sys/fs/cgroup/cpu/q/cpu.stat",
            "nr_periods 9\nnr_throttled 8\nthrottled_time 792000000\n",
        );
        let [quota] =
            CpuQuota::sample(&fixture.files(), &GroupTree::of(&fixture.files(), 7)).try_into().unwrap();
        assert_eq!((quota.quota_percent, quota.throttled_ms, quota.version), (1.0, 792, GroupVersion::V1));
        assert_eq!(quota.since(&[], 1_000).throttled_periods, 0, "a first sample says nothing about now");
    }
}
