//! The memory that a control group may use, and how often it came to its limit.

use serde::Serialize;

use super::{
    group_tree::{GroupFolder, GroupTree, GroupVersion},
    kernel_files::{KernelFiles, field_of},
};

/// Version 1 writes a number near 2^63 where there is no limit.
const NO_LIMIT: u64 = 1 << 62;

/// A group with a limit, and what the kernel counted between two samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct MemoryLimit {
    pub(crate) group: String,
    pub(crate) version: GroupVersion,
    pub(crate) used_bytes: u64,
    /// Without what the kernel can drop or write back: it stays, or goes to swap.
    pub(crate) anonymous_bytes: u64,
    /// The smaller of the limits that slow it down (`memory.high`) and that end a process (`memory.max`).
    pub(crate) limit_bytes: u64,
    /// How often it came to the limit between the samples.
    pub(crate) at_limit: u64,
    /// It has none left, and its processes wait for some instead of being ended (version 1 only).
    pub(crate) is_out: bool,
    /// Reads from the disk of what had been in memory, between the samples.
    pub(crate) major_faults: u64,
    /// Processes that the kernel has ended between the samples, and since the group exists.
    pub(crate) killed: u64,
    pub(crate) killed_total: u64,
}

impl MemoryLimit {
    /// The group of the process and those above it, as far as they have a limit.
    pub(crate) fn sample(files: &KernelFiles, tree: &GroupTree) -> Vec<Self> {
        let one = |level: &GroupFolder| match level.version {
            GroupVersion::V2 => version_2(files, level),
            GroupVersion::V1 => version_1(files, level),
        };
        tree.levels("memory").iter().filter_map(one).collect()
    }

    /// What was counted since an earlier sample.
    pub(crate) fn since(self, before: &[Self]) -> Self {
        let was = before.iter().find(|was| was.group == self.group);
        let grown = |now: u64, count: fn(&Self) -> u64| now.saturating_sub(was.map_or(now, count));
        Self {
            at_limit: grown(self.at_limit, |was| was.at_limit),
            major_faults: grown(self.major_faults, |was| was.major_faults),
            killed: grown(self.killed, |was| was.killed),
            ..self
        }
    }
}

fn version_2(files: &KernelFiles, level: &GroupFolder) -> Option<MemoryLimit> {
    let folder = &level.path;
    let limits = ["memory.high", "memory.max"].map(|name| files.number(folder.join(name)));
    let events = files.text(folder.join("memory.events")).unwrap_or_default();
    let stat = files.text(folder.join("memory.stat")).unwrap_or_default();
    let event = |name: &str| field_of(&events, name).unwrap_or(0);
    let killed = event("oom_kill");
    Some(MemoryLimit {
        group: folder.display().to_string(),
        version: level.version,
        used_bytes: files.number(folder.join("memory.current"))?,
        anonymous_bytes: field_of(&stat, "anon").unwrap_or(0),
        limit_bytes: limits.into_iter().flatten().min()?,
        at_limit: event("high") + event("max"),
        is_out: false,
        major_faults: field_of(&stat, "pgmajfault").unwrap_or(0),
        killed,
        killed_total: killed,
    })
}

fn version_1(files: &KernelFiles, level: &GroupFolder) -> Option<MemoryLimit> {
    let folder = &level.path;
    let number = |name: &str| files.number(folder.join(name));
    let limit = number("memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT)?;
    let stat = files.text(folder.join("memory.stat")).unwrap_or_default();
    let killed = files.field(folder.join("memory.oom_control"), "oom_kill").unwrap_or(0);
    Some(MemoryLimit {
        group: folder.display().to_string(),
        version: level.version,
        used_bytes: number("memory.usage_in_bytes")?,
        anonymous_bytes: field_of(&stat, "total_rss").unwrap_or(0),
        limit_bytes: limit,
        at_limit: number("memory.failcnt").unwrap_or(0),
        is_out: files.field(folder.join("memory.oom_control"), "under_oom") == Some(1),
        major_faults: field_of(&stat, "total_pgmajfault").unwrap_or(0),
        killed,
        killed_total: killed,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::KernelFixture, *};

    #[test]
    fn a_group_above_may_have_the_limit_and_its_events_are_counted() {
        let fixture = KernelFixture::v2();
        fixture.write("/proc/7/cgroup", "0::/pod/c\n");
        fixture.write("/sys/fs/cgroup/pod/c/memory.max", "max\n");
        fixture.write("/sys/fs/cgroup/pod/c/memory.current", "50\n");
        let pod = |name: &str, text: &str| fixture.write(&format!("/sys/fs/cgroup/pod/{name}"), text);
        pod("memory.max", "200\n");
        pod("memory.high", "100\n");
        pod("memory.current", "99\n");
        pod("memory.stat", "anon 90\nfile 9\npgmajfault 1000\n");
        pod("memory.events", "low 0\nhigh 7\nmax 1\noom 2\noom_kill 2\noom_group_kill 0\n");
        let (files, tree) = (fixture.files(), GroupTree::of(&fixture.files(), 7));
        let before = MemoryLimit::sample(&files, &tree);
        pod("memory.events", "low 0\nhigh 27\nmax 1\noom 2\noom_kill 3\noom_group_kill 0\n");
        let [limit] = MemoryLimit::sample(&files, &tree).try_into().unwrap();
        let limit = limit.since(&before);
        assert_eq!((limit.group.as_str(), limit.limit_bytes), ("/sys/fs/cgroup/pod", 100));
        assert_eq!((limit.at_limit, limit.major_faults), (20, 0));
        assert_eq!((limit.killed, limit.killed_total), (1, 3));
    }

    #[test]
    fn version_1_without_a_limit_is_left_out() {
        let fixture = KernelFixture::hybrid();
        fixture.write("/proc/7/cgroup", "4:memory:/m\n0::/\n");
        fixture.write("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "9223372036854771712\n");
        fixture.write("/sys/fs/cgroup/memory/m/memory.usage_in_bytes", "4096\n");
        let tree = GroupTree::of(&fixture.files(), 7);
        assert!(MemoryLimit::sample(&fixture.files(), &tree).is_empty());
        fixture.write("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "8192\n");
        fixture.write(
            "/sys/fs/cgroup/memory/m/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 1\noom_kill 4\n",
        );
        let [limit] = MemoryLimit::sample(&fixture.files(), &tree).try_into().unwrap();
        assert_eq!((limit.limit_bytes, limit.used_bytes, limit.killed_total), (8192, 4096, 4));
        assert!(limit.is_out);
    }
}
