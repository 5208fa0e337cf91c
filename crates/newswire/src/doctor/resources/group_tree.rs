//! The control groups of a process: for each controller the directory of its group, and those of the groups above it. Both
//! versions, also mixed, wherever they are mounted.

use std::path::{Component, Path, PathBuf};

use procfs::{
    FromRead as _, ProcessCGroups,
    process::{MountInfo, MountInfos},
};
use serde::Serialize;

use super::kernel_files::KernelFiles;

/// So many directories are looked at for a group whose path does not lead to it.
const SEARCHED_MAX: usize = 2_000;
/// Deeper groups are not nested in practice.
const LEVELS_MAX: usize = 32;

/// The version of control groups (cgroups(7)); their files differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) enum GroupVersion {
    #[serde(rename = "v1")]
    V1,
    #[default]
    #[serde(rename = "v2")]
    V2,
}

/// The directory of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupFolder {
    pub(crate) version: GroupVersion,
    pub(crate) path: PathBuf,
}

/// The groups of one process.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupTree {
    /// Controllers of version 1 and the levels of their groups, the group of the process first.
    v1: Vec<(Vec<String>, Vec<GroupFolder>)>,
    v2: Vec<GroupFolder>,
}

impl GroupTree {
    /// Reads `/proc/PID/cgroup`, and where the hierarchies are mounted. Empty if the kernel has no control groups, or none is
    /// mounted here.
    pub(crate) fn of(files: &KernelFiles, pid: i32) -> Self {
        let read = |path: String| std::fs::File::open(files.at(path)).ok();
        let groups =
            read(format!("/proc/{pid}/cgroup")).and_then(|file| ProcessCGroups::from_read(file).ok());
        let mounts =
            read("/proc/self/mountinfo".to_owned()).and_then(|file| MountInfos::from_read(file).ok());
        let (Some(groups), Some(mounts)) = (groups, mounts) else { return Self::default() };
        let mut tree = Self::default();
        for group in groups {
            let controllers: Vec<_> = group.controllers.into_iter().filter(|name| !name.is_empty()).collect();
            let is_v2 = group.hierarchy == 0 && controllers.is_empty();
            let version = if is_v2 { GroupVersion::V2 } else { GroupVersion::V1 };
            let is_mount_of = |mount: &&MountInfo| match version {
                GroupVersion::V2 => mount.fs_type == "cgroup2",
                GroupVersion::V1 => {
                    mount.fs_type == "cgroup"
                        && controllers.iter().any(|name| mount.super_options.contains_key(name))
                }
            };
            let folders: Vec<_> = mounts.0.iter().filter(is_mount_of).collect();
            let levels = levels(files, version, &folders, &group.pathname, pid);
            match version {
                GroupVersion::V1 => tree.v1.push((controllers, levels)),
                GroupVersion::V2 => tree.v2 = levels,
            }
        }
        tree
    }

    /// The group that a controller applies to the process, and the groups above it, up to the top that is visible here.
    pub(crate) fn levels(&self, controller: &str) -> &[GroupFolder] {
        self.version_1(controller).unwrap_or(&self.v2)
    }

    /// The same in version 1 only.
    pub(crate) fn version_1(&self, controller: &str) -> Option<&[GroupFolder]> {
        let has = |(controllers, _): &&(Vec<String>, _)| controllers.iter().any(|name| name == controller);
        self.v1.iter().find(has).map(|(_, levels)| levels.as_slice())
    }

    /// The same in version 2 only.
    pub(crate) fn version_2(&self) -> &[GroupFolder] {
        &self.v2
    }
}

fn levels(
    files: &KernelFiles,
    version: GroupVersion,
    mounts: &[&MountInfo],
    group: &str,
    pid: i32,
) -> Vec<GroupFolder> {
    let direct = mounts.iter().find_map(|mount| {
        let folder = mount.mount_point.join(below(Path::new(group), Path::new(&mount.root))?);
        files.at(&folder).is_dir().then_some((*mount, folder))
    });
    let found = direct.or_else(|| mounts.iter().find_map(|mount| Some((*mount, search(files, mount, pid)?))));
    let Some((mount, folder)) = found else { return Vec::new() };
    let up = folder.ancestors().take(LEVELS_MAX).take_while(|level| level.starts_with(&mount.mount_point));
    up.map(|level| GroupFolder { version, path: level.to_path_buf() }).collect()
}

/// The path of a group below the group that is mounted. Both are relative to the root of this control group namespace: a group
/// outside of it begins with `/..`.
fn below(group: &Path, mounted: &Path) -> Option<PathBuf> {
    let rest = group.strip_prefix(mounted).ok()?;
    rest.components().all(|part| matches!(part, Component::Normal(_))).then(|| rest.to_path_buf())
}

/// The directory below a mount that lists the process. The path of a group in another namespace does not lead there.
fn search(files: &KernelFiles, mount: &MountInfo, pid: i32) -> Option<PathBuf> {
    let mut folders = vec![mount.mount_point.clone()];
    let wanted = pid.to_string();
    for _ in 0..SEARCHED_MAX {
        let folder = folders.pop()?;
        if files.text(folder.join("cgroup.procs")).is_some_and(|text| text.lines().any(|line| line == wanted))
        {
            return Some(folder);
        }
        let entries = std::fs::read_dir(files.at(&folder)).into_iter().flatten().flatten();
        let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(inner.map(|entry| folder.join(entry.file_name())));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::KernelFixture, *};

    fn paths(levels: &[GroupFolder]) -> Vec<String> {
        levels.iter().map(|level| level.path.display().to_string()).collect()
    }

    #[test]
    fn a_controller_is_found_where_its_version_has_it_also_if_both_are_mounted() {
        let fixture = KernelFixture::hybrid();
        fixture.write("/proc/7/cgroup", "9:cpu,cpuacct:/a/b\n4:memory:/m\n1:name=systemd:/x\n0::/u\n");
        for folder in ["/sys/fs/cgroup/cpu/a/b", "/sys/fs/cgroup/memory/m", "/sys/fs/cgroup/unified/u"] {
            fixture.folder(folder);
        }
        let tree = GroupTree::of(&fixture.files(), 7);
        let cpu = ["/sys/fs/cgroup/cpu/a/b", "/sys/fs/cgroup/cpu/a", "/sys/fs/cgroup/cpu"];
        assert_eq!(paths(tree.levels("cpu")), cpu);
        assert_eq!(
            paths(tree.levels("io")),
            ["/sys/fs/cgroup/unified/u", "/sys/fs/cgroup/unified"],
            "a controller that version 1 does not have"
        );
        assert_eq!(tree.levels("memory")[0].version, GroupVersion::V1);
        assert!(tree.version_1("io").is_none());
    }

    #[test]
    fn a_group_is_found_in_another_namespace_and_below_another_mount_point() {
        let fixture = KernelFixture::new();
        let mount = |root: &str| format!("31 23 0:28 {root} /groups rw - cgroup2 cgroup rw\n");
        fixture.folder("/groups/web");
        fixture.write("/proc/self/mountinfo", &mount("/docker/c1"));
        fixture.write("/proc/7/cgroup", "0::/docker/c1/web\n");
        assert_eq!(paths(GroupTree::of(&fixture.files(), 7).levels("cpu")), ["/groups/web", "/groups"]);
        // Both outside of the namespace of the reader.
        fixture.write("/proc/self/mountinfo", &mount("/../.."));
        fixture.write("/proc/7/cgroup", "0::/../../web\n");
        assert_eq!(paths(GroupTree::of(&fixture.files(), 7).levels("cpu")), ["/groups/web", "/groups"]);
        // The names of the groups between the two are unknown: the group that has the process is.
        fixture.write("/proc/7/cgroup", "0::/../other\n");
        fixture.write("/groups/web/cgroup.procs", "6\n7\n");
        assert_eq!(paths(GroupTree::of(&fixture.files(), 7).levels("cpu")), ["/groups/web", "/groups"]);
        fixture.write("/groups/web/cgroup.procs", "6\n77\n");
        assert!(GroupTree::of(&fixture.files(), 7).levels("cpu").is_empty());
    }
}
