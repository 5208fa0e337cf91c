//! Which control group keeps a process from running (`docker pause`, `systemctl freeze`).

use serde::Serialize;

use super::{
    group_tree::{GroupFolder, GroupTree, GroupVersion},
    kernel_files::KernelFiles,
};

/// The group that is frozen: that of the process, or one above it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FrozenGroup {
    pub(crate) group: String,
    pub(crate) version: GroupVersion,
}

impl FrozenGroup {
    /// `None` if the process may run.
    pub(crate) fn of(files: &KernelFiles, tree: &GroupTree) -> Option<Self> {
        let v1 = tree.version_1("freezer").unwrap_or_default();
        version_2(files, tree.version_2()).or_else(|| version_1(files, v1))
    }

    /// What lets it run again.
    pub(crate) fn thaw(&self) -> Thaw {
        let name = self.group.rsplit('/').next().unwrap_or_default();
        let id = |prefix: &str| Some(name.strip_prefix(prefix)?.trim_end_matches(".scope").to_owned());
        let parent = self.group.rsplit('/').nth(1).unwrap_or_default();
        if let Some(id) = id("docker-").or_else(|| (parent == "docker").then(|| name.to_owned())) {
            return Thaw::Docker(short(&id).to_owned());
        }
        if let Some(id) = id("libpod-") {
            return Thaw::Podman(short(&id).to_owned());
        }
        match self.version {
            GroupVersion::V2 if [".service", ".slice", ".scope"].iter().any(|end| name.ends_with(end)) => {
                Thaw::Unit(name.to_owned())
            }
            GroupVersion::V2 => Thaw::File { value: "0", path: format!("{}/cgroup.freeze", self.group) },
            GroupVersion::V1 => Thaw::File { value: "THAWED", path: format!("{}/freezer.state", self.group) },
        }
    }
}

/// What lets a frozen group run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thaw {
    /// Docker paused this container.
    Docker(String),
    /// Podman paused this container.
    Podman(String),
    /// systemd made the group for this unit.
    Unit(String),
    /// A value in a file of the group.
    File { value: &'static str, path: String },
}

/// As `docker ps` shows it.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// A group below a frozen one is frozen too; the one that was ordered to is at the top.
fn version_2(files: &KernelFiles, levels: &[GroupFolder]) -> Option<FrozenGroup> {
    let own = levels.first()?;
    (files.field(own.path.join("cgroup.events"), "frozen") == Some(1)).then_some(())?;
    let is_ordered = |level: &&GroupFolder| files.number(level.path.join("cgroup.freeze")) == Some(1);
    Some(frozen(levels.iter().rev().find(is_ordered).unwrap_or(own)))
}

fn version_1(files: &KernelFiles, levels: &[GroupFolder]) -> Option<FrozenGroup> {
    let own = levels.first()?;
    // FREEZING lasts while a thread of it is in the kernel.
    let state = files.text(own.path.join("freezer.state"))?;
    matches!(state.trim(), "FROZEN" | "FREEZING").then_some(())?;
    let is_ordered = |level: &&GroupFolder| files.number(level.path.join("freezer.self_freezing")) == Some(1);
    Some(frozen(levels.iter().rev().find(is_ordered).unwrap_or(own)))
}

fn frozen(level: &GroupFolder) -> FrozenGroup {
    FrozenGroup { group: level.path.display().to_string(), version: level.version }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::KernelFixture, *};

    fn frozen_group(fixture: &KernelFixture) -> Option<FrozenGroup> {
        FrozenGroup::of(&fixture.files(), &GroupTree::of(&fixture.files(), 7))
    }

    #[test]
    fn the_group_that_was_ordered_to_freeze_is_named_in_version_2() {
        let fixture = KernelFixture::v2();
        fixture.write("/proc/7/cgroup", "0::/system.slice/a.service\n");
        let write = |group: &str, name: &str, text: &str| {
            fixture.write(&format!("/sys/fs/cgroup/{group}/{name}"), text)
        };
        write("system.slice/a.service", "cgroup.events", "populated 1\nfrozen 0\n");
        write("system.slice/a.service", "cgroup.freeze", "0\n");
        write("system.slice", "cgroup.freeze", "0\n");
        assert_eq!(frozen_group(&fixture), None);
        write("system.slice/a.service", "cgroup.events", "populated 1\nfrozen 1\n");
        write("system.slice", "cgroup.freeze", "1\n");
        assert_eq!(frozen_group(&fixture).unwrap().thaw(), Thaw::Unit("system.slice".into()));
        write("system.slice", "cgroup.freeze", "0\n");
        write("system.slice/a.service", "cgroup.freeze", "1\n");
        assert_eq!(frozen_group(&fixture).unwrap().thaw(), Thaw::Unit("a.service".into()));
    }

    #[test]
    fn the_group_that_was_ordered_to_freeze_is_named_in_version_1() {
        let fixture = KernelFixture::hybrid();
        fixture.write("/proc/7/cgroup", "3:freezer:/above/own\n0::/\n");
        let write = |group: &str, name: &str, text: &str| {
            fixture.write(&format!("/sys/fs/cgroup/freezer/{group}/freezer.{name}"), text)
        };
        write("above/own", "state", "THAWED\n");
        assert_eq!(frozen_group(&fixture), None);
        write("above/own", "state", "FROZEN\n");
        write("above/own", "self_freezing", "0\n");
        write("above", "self_freezing", "1\n");
        let path = "/sys/fs/cgroup/freezer/above/freezer.state".to_owned();
        let thaw = Thaw::File { value: "THAWED", path };
        assert_eq!(frozen_group(&fixture).unwrap().thaw(), thaw);
    }

    #[test]
    fn a_container_is_continued_by_the_program_that_paused_it() {
        let thaw = |group: &str| FrozenGroup { group: group.to_owned(), version: GroupVersion::V2 }.thaw();
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            thaw(&format!("/sys/fs/cgroup/system.slice/docker-{id}.scope")),
            Thaw::Docker("0123456789ab".into())
        );
        assert_eq!(thaw(&format!("/sys/fs/cgroup/docker/{id}")), Thaw::Docker("0123456789ab".into()));
        assert_eq!(
            thaw(&format!("/sys/fs/cgroup/machine.slice/libpod-{id}.scope")),
            Thaw::Podman("0123456789ab".into())
        );
        let path = "/sys/fs/cgroup/own/cgroup.freeze".to_owned();
        assert_eq!(thaw("/sys/fs/cgroup/own"), Thaw::File { value: "0", path });
    }
}
