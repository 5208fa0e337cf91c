//! Whether a process lives in another place than this tool: a container, or namespaces of its own.

use serde::Serialize;

use super::kernel_files::KernelFiles;

/// The namespaces that differ from ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct OtherPlace {
    /// It has other process ids.
    pub(crate) pid: bool,
    /// Its addresses, and its sockets, are not ours.
    pub(crate) net: bool,
    /// Its paths are not ours.
    pub(crate) mnt: bool,
    /// The container, according to its control group.
    pub(crate) container: Option<ContainerName>,
}

/// How a container is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ContainerName {
    Docker(String),
    Podman(String),
    /// A pod of Kubernetes.
    Pod,
}

impl OtherPlace {
    /// `None` if it is in our namespaces, or this user may not see its own.
    pub(crate) fn of(files: &KernelFiles, pid: i32) -> Option<Self> {
        let link =
            |pid: &str, kind: &str| std::fs::read_link(files.at(format!("/proc/{pid}/ns/{kind}"))).ok();
        let differs = |kind: &str| {
            link(&pid.to_string(), kind).zip(link("self", kind)).is_some_and(|(its, ours)| its != ours)
        };
        let groups = files.text(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let place = Self {
            pid: differs("pid"),
            net: differs("net"),
            mnt: differs("mnt"),
            container: container(&groups),
        };
        (place.pid || place.net || place.mnt).then_some(place)
    }

    /// `its own process ids, network and files`
    pub(crate) fn describe(&self) -> String {
        let kinds = [(self.pid, "process ids"), (self.net, "network"), (self.mnt, "files")];
        let kinds: Vec<_> = kinds.into_iter().filter(|(differs, _)| *differs).map(|(_, kind)| kind).collect();
        let container = match &self.container {
            Some(ContainerName::Docker(id)) => format!(", Docker container {id}"),
            Some(ContainerName::Podman(id)) => format!(", Podman container {id}"),
            Some(ContainerName::Pod) => ", a pod of Kubernetes".to_owned(),
            None => String::new(),
        };
        format!("a place with other {}{container}", kinds.join(", "))
    }

    /// Commands that run the doctor in that place.
    pub(crate) fn enter(&self, pid: i32, sudo: &str) -> Vec<String> {
        let inside = match &self.container {
            Some(ContainerName::Docker(id)) => Some(format!("docker exec {id} newswire doctor")),
            Some(ContainerName::Podman(id)) => Some(format!("podman exec {id} newswire doctor")),
            Some(ContainerName::Pod) => {
                Some("kubectl debug -it POD --target=CONTAINER --image=IMAGE -- newswire doctor".to_owned())
            }
            None => None,
        };
        let flags: String = [(self.mnt, " -m"), (self.net, " -n"), (self.pid, " -p")]
            .into_iter()
            .filter_map(|(differs, flag)| differs.then_some(flag))
            .collect();
        let enter = format!("{sudo}nsenter -t {pid}{flags} newswire doctor");
        inside.into_iter().chain([enter]).collect()
    }
}

/// The container that a control group belongs to, by the names that the programs use that make them.
fn container(groups: &str) -> Option<ContainerName> {
    let parts = || groups.lines().flat_map(|line| line.split('/'));
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    let scope = |prefix: &str| {
        let id = |part: &str| part.strip_prefix(prefix)?.strip_suffix(".scope").map(short);
        parts().find_map(id)
    };
    if parts().any(|part| part.starts_with("kubepods")) {
        return Some(ContainerName::Pod);
    }
    let below_docker = || {
        let line = groups.lines().find_map(|line| line.split_once("/docker/"))?;
        line.1.split('/').next().filter(|id| is_id(id)).map(short)
    };
    scope("docker-")
        .or_else(below_docker)
        .map(ContainerName::Docker)
        .or_else(|| scope("libpod-").map(ContainerName::Podman))
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::KernelFixture, *};

    #[test]
    fn a_process_in_other_namespaces_is_entered_by_the_program_that_made_its_container() {
        let fixture = KernelFixture::new();
        let id = "0123456789ab".repeat(6).get(..64).unwrap().to_owned();
        let namespace = |pid: &str, kind: &str, number: u32| {
            fixture.folder(&format!("/proc/{pid}/ns"));
            let link = fixture.files().at(format!("/proc/{pid}/ns/{kind}"));
            std::os::unix::fs::symlink(format!("{kind}:[{number}]"), link).unwrap();
        };
        for kind in ["pid", "net", "mnt"] {
            namespace("self", kind, 1);
            namespace("7", kind, 1);
            namespace("8", kind, if kind == "pid" { 1 } else { 2 });
        }
        assert_eq!(OtherPlace::of(&fixture.files(), 7), None);
        fixture.write("/proc/8/cgroup", &format!("0::/system.slice/docker-{id}.scope\n"));
        let place = OtherPlace::of(&fixture.files(), 8).unwrap();
        assert_eq!(
            place.enter(8, "sudo "),
            ["docker exec 0123456789ab newswire doctor", "sudo nsenter -t 8 -m -n newswire doctor"]
        );
        assert_eq!(place.describe(), "a place with other network, files, Docker container 0123456789ab");
        fixture.write("/proc/8/cgroup", "0::/kubepods.slice/kubepods-pod7.slice/cri-containerd-1.scope\n");
        assert_eq!(OtherPlace::of(&fixture.files(), 8).unwrap().container, Some(ContainerName::Pod));
    }
}
