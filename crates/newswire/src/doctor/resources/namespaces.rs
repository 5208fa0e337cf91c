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
    /// Whether the doctor is run by root, who may enter.
    #[serde(skip)]
    pub(crate) by_root: bool,
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
            by_root: rustix::process::geteuid().is_root(),
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

    /// Commands that run the doctor in that place, with these options if it has our files, and those if it has its own.
    /// `inner` is the process id there.
    pub(crate) fn enter(&self, pid: i32, inner: i32, here: &str, there: &str) -> Vec<String> {
        let inside = match &self.container {
            Some(ContainerName::Docker(id)) => Some(format!("docker exec {id} newswire doctor")),
            Some(ContainerName::Podman(id)) => Some(format!("podman exec {id} newswire doctor")),
            Some(ContainerName::Pod) => Some("kubectl exec POD -c CONTAINER -- newswire doctor".to_owned()),
            None => None,
        };
        let debug = format!(
            "kubectl debug -it POD --target=CONTAINER --image=IMAGE -- newswire doctor --pid {inner}   # if its image lacks the tool"
        );
        let debug = (self.container == Some(ContainerName::Pod)).then_some(debug);
        let sudo = if self.by_root { "" } else { "sudo " };
        let network = if self.net { " -n" } else { "" };
        // Process ids have a meaning only together with the /proc of that place, which is one of its files.
        let ids = if self.pid { " -p" } else { "" };
        let by_id = format!("{sudo}nsenter -t {pid}{network} newswire doctor --pid {pid}");
        let enter = match self.mnt {
            false => vec![format!("{sudo}nsenter -t {pid}{network} newswire doctor{here}")],
            true => vec![
                format!("{sudo}nsenter -t {pid} -m{network}{ids} newswire doctor{there}"),
                format!("{by_id}   # this process only; if the tool is not installed there"),
            ],
        };
        inside.into_iter().chain(debug).chain(enter).collect()
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
        let place = OtherPlace { by_root: false, ..OtherPlace::of(&fixture.files(), 8).unwrap() };
        assert_eq!(
            place.enter(8, 1, " --config a", " --config b"),
            [
                "docker exec 0123456789ab newswire doctor",
                "sudo nsenter -t 8 -m -n newswire doctor --config b",
                "sudo nsenter -t 8 -n newswire doctor --pid 8   # this process only; if the tool is not installed there"
            ]
        );
        // With our /proc, its process ids would be taken for ours.
        let place = OtherPlace { pid: true, mnt: false, container: None, by_root: true, ..place };
        assert_eq!(
            place.enter(8, 1, " --config a", " --config b"),
            ["nsenter -t 8 -n newswire doctor --config a"]
        );
        let place = OtherPlace::of(&fixture.files(), 8).unwrap();
        assert_eq!(place.describe(), "a place with other network, files, Docker container 0123456789ab");
        fixture.write("/proc/8/cgroup", "0::/kubepods.slice/kubepods-pod7.slice/cri-containerd-1.scope\n");
        let place = OtherPlace::of(&fixture.files(), 8).unwrap();
        assert_eq!(place.container, Some(ContainerName::Pod));
        assert!(place.enter(8, 1, "", "")[1].contains("newswire doctor --pid 1 "), "{place:?}");
    }
}
