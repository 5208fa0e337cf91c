//! Locates the processes of an instance. A program name proves nothing, so a process belongs to the instance if it listens
//! on its admin socket; the kernel reports which process does, even if it is frozen. The other ways are for a missing socket.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use control::ControlSocket;
use procfs::process::{Process, all_processes};
use tokio::{net::UnixStream, time::timeout};

use super::{
    evidence::{OtherProcess, Presence},
    listener, process,
    systemd::SystemdUnit,
    within,
};

/// How long connecting may take. It does not wait for the process, unless the queue of the socket is full.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// The name of the ingestion daemon.
pub(crate) const INGESTD: &str = "newswire-ingestd";
/// The name of the gateway.
pub(crate) const GATEWAY: &str = "newswire-gateway";

/// An installation: its sockets and its configuration.
pub(crate) struct Instance {
    /// Absolute.
    pub(crate) run_dir: PathBuf,
    /// The directory of the gateway's admin socket: `run_dir`, unless several gateways run beside the daemon.
    pub(crate) gateway_dir: PathBuf,
    pub(crate) config: Option<PathBuf>,
}

/// The process of one program, if it was found.
pub(crate) struct LocatedProcess {
    pub(crate) presence: Presence,
    pub(crate) pid: Option<i32>,
    pub(crate) how: String,
    pub(crate) others: Vec<OtherProcess>,
}

impl LocatedProcess {
    fn at(pid: i32, how: impl Into<String>) -> Self {
        Self { presence: Presence::Running, pid: Some(pid), how: how.into(), others: Vec::new() }
    }

    pub(crate) fn not_asked() -> Self {
        Self { presence: Presence::NotAsked, pid: None, how: "not asked".to_owned(), others: Vec::new() }
    }
}

impl Instance {
    /// The admin socket of a program.
    pub(crate) fn admin_socket(&self, program: &str) -> PathBuf {
        self.socket(sockets(program)[0])
    }

    fn socket(&self, socket: ControlSocket) -> PathBuf {
        socket.in_dir(if socket == ControlSocket::GatewayAdmin { &self.gateway_dir } else { &self.run_dir })
    }
}

/// The sockets of a program, the admin socket first.
fn sockets(program: &str) -> &'static [ControlSocket] {
    if program == INGESTD {
        &[ControlSocket::IngestdAdmin, ControlSocket::Ingestd]
    } else {
        &[ControlSocket::GatewayAdmin]
    }
}

/// Which of our programs a process runs.
pub(crate) fn program_of(pid: i32) -> Option<&'static str> {
    let process = Process::new(pid).ok()?;
    [INGESTD, GATEWAY].into_iter().find(|program| runs(&process, program))
}

/// Finds the process of a program.
pub(crate) async fn locate(
    program: &'static str,
    instance: &Instance,
    unit: Option<&SystemdUnit>,
) -> LocatedProcess {
    let mut why = Vec::new();
    let mut denied = false;
    for socket in sockets(program) {
        let name = socket.file_name();
        let socket = instance.socket(*socket);
        match probe_socket(&socket).await {
            Ok(Some(pid)) => return LocatedProcess::at(pid, format!("listens on {name}")),
            Ok(None) => {
                if let Some(pid) = listener::holder_of(&socket) {
                    return LocatedProcess::at(pid, format!("holds the inode of {name}"));
                }
                why.push(format!("an unknown process listens on {name}"));
                denied = true;
            }
            Err(error) => {
                denied |= error.kind() == io::ErrorKind::PermissionDenied;
                why.push(match error.kind() {
                    io::ErrorKind::NotFound => format!("there is no {name}"),
                    io::ErrorKind::ConnectionRefused => {
                        format!("no process listens on {name}: a killed process left it behind")
                    }
                    _ => format!("{name}: {error}"),
                });
            }
        }
    }
    if let Some(pid) = unit.and_then(|unit| unit.main_pid).filter(|pid| Process::new(*pid).is_ok()) {
        return LocatedProcess::at(pid, format!("main process of its systemd unit; {}", why.join(", ")));
    }
    let (same_instance, others) = by_name(program, instance);
    if let Some(pid) = same_instance {
        let mut found =
            LocatedProcess::at(pid, format!("runs {program} with this configuration; {}", why.join(", ")));
        found.others = others;
        return found;
    }
    let presence = if denied { Presence::Unknown } else { Presence::Absent };
    LocatedProcess { presence, pid: None, how: why.join(", "), others }
}

/// Connects to a socket; returns the process that listens, if the kernel reports it.
async fn probe_socket(socket: &Path) -> io::Result<Option<i32>> {
    match timeout(CONNECT_WITHIN, UnixStream::connect(socket)).await {
        // Its queue is full, so a process listens.
        Err(_) => Ok(None),
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Ok(Err(error)) => Err(error),
        Ok(Ok(stream)) => Ok(stream.peer_cred()?.pid().filter(|pid| *pid > 0)),
    }
}

/// The process of this program that runs with the configuration of the instance, and those that do not.
fn by_name(program: &str, instance: &Instance) -> (Option<i32>, Vec<OtherProcess>) {
    let (mut same_instance, mut others) = (None, Vec::new());
    for process in all_processes().into_iter().flatten().flatten().filter(|process| runs(process, program)) {
        if belongs_to(&process, instance) {
            same_instance = Some(process.pid());
        } else {
            others.push(OtherProcess { pid: process.pid(), command: process::command(&process) });
        }
    }
    (same_instance, others)
}

fn runs(process: &Process, program: &str) -> bool {
    // The path of a program that an update has replaced ends in " (deleted)".
    let named = |path: PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().trim_end_matches(" (deleted)") == program)
    };
    process.exe().map_or_else(
        |_| {
            let arguments = process::arguments(process.pid()).unwrap_or_default();
            arguments.first().is_some_and(|argument| named(argument.into()))
        },
        named,
    )
}

/// Whether a process runs with the configuration of the instance, according to its command line and environment.
fn belongs_to(process: &Process, instance: &Instance) -> bool {
    let (Ok(folder), Some(arguments)) = (process.cwd(), process::arguments(process.pid())) else {
        return false;
    };
    let variable = within::through_memory(process.pid(), Process::environ)
        .and_then(|all| all.get(OsStr::new("NEWSWIRE_CONFIG")).cloned());
    let config = config_of(&arguments).map(PathBuf::from).or_else(|| variable.map(PathBuf::from));
    let config = config.map(|path| folder.join(path)).or_else(|| {
        let system = PathBuf::from(daemon::config::SYSTEM_FILE);
        system.is_file().then_some(system)
    });
    match (config, &instance.config) {
        (Some(theirs), Some(ours)) => is_same_file(&theirs, ours),
        // Without a file both use the built-in ./run.
        (None, None) => is_same_file(&folder.join("run"), &instance.run_dir),
        _ => false,
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// `--config FILE` or `--config=FILE`.
fn config_of(arguments: &[String]) -> Option<&str> {
    let mut arguments = arguments.iter();
    arguments
        .find_map(|argument| match argument.strip_prefix("--config") {
            Some("") => Some(None),
            Some(rest) => rest.strip_prefix('=').map(Some),
            None => None,
        })?
        .or_else(|| arguments.next().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn instance(folder: &Path) -> Instance {
        Instance { run_dir: folder.to_path_buf(), gateway_dir: folder.to_path_buf(), config: None }
    }

    #[tokio::test]
    async fn a_gateway_with_its_own_admin_socket_is_not_taken_for_the_one_beside_it() {
        let (folder, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let _first = UnixListener::bind(instance(folder.path()).admin_socket(GATEWAY)).unwrap();
        let second = Instance { gateway_dir: own.path().to_path_buf(), ..instance(folder.path()) };
        assert_eq!(locate(GATEWAY, &second, None).await.presence, Presence::Absent);
        let _second = UnixListener::bind(second.admin_socket(GATEWAY)).unwrap();
        assert_eq!(locate(GATEWAY, &second, None).await.presence, Presence::Running);
        assert_eq!(second.admin_socket(INGESTD), folder.path().join("ingestd-admin.sock"));
    }

    fn arguments(arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(|argument| (*argument).to_owned()).collect()
    }

    #[test]
    fn a_configuration_is_named_in_two_ways() {
        assert_eq!(config_of(&arguments(&["p", "--config", "a.toml"])), Some("a.toml"));
        assert_eq!(config_of(&arguments(&["p", "--config=b.toml", "x"])), Some("b.toml"));
        assert_eq!(config_of(&arguments(&["p", "--configure", "x"])), None);
        assert_eq!(config_of(&arguments(&["p", "--config"])), None);
    }

    #[tokio::test]
    async fn the_process_that_listens_on_the_admin_socket_is_found_even_if_it_does_not_answer() {
        let folder = tempfile::tempdir().unwrap();
        let instance = instance(folder.path());
        let absent = locate(GATEWAY, &instance, None).await;
        assert_eq!(absent.presence, Presence::Absent);
        assert!(absent.how.contains("there is no gateway-admin.sock"), "{}", absent.how);
        let listener = UnixListener::bind(instance.admin_socket(GATEWAY)).unwrap();
        let found = locate(GATEWAY, &instance, None).await;
        assert_eq!((found.presence, found.pid), (Presence::Running, Some(std::process::id().cast_signed())));
        drop(listener);
        let killed = locate(GATEWAY, &instance, None).await;
        assert_eq!(killed.presence, Presence::Absent);
        assert!(killed.how.contains("killed"), "{}", killed.how);
    }

    #[tokio::test]
    async fn the_main_process_of_the_unit_is_found_when_the_sockets_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let instance = instance(folder.path());
        let me = std::process::id().cast_signed();
        let unit = SystemdUnit { main_pid: Some(me), ..SystemdUnit::default() };
        assert_eq!(locate(INGESTD, &instance, Some(&unit)).await.pid, Some(me));
    }
}
