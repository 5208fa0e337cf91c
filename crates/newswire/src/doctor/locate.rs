//! Locates the processes of an instance. A program name proves nothing, so a process belongs to the instance if it listens
//! on its admin socket; the kernel reports which process does, even if it is frozen. The other ways are for a missing socket,
//! for one that another program holds, for a user who may not enter the directory, and for a broken configuration.

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
    listener,
    presence::{OtherProcess, Presence},
    process,
    program::{self, INGESTD},
    systemd::SystemdUnit,
};
use crate::within;

/// How long connecting may take. It does not wait for the process, unless the queue of the socket is full.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// How long looking through the sockets of all processes may take.
const HOLDER_WITHIN: Duration = Duration::from_secs(1);
/// How long the file system of a configuration may take to resolve its path.
const RESOLVE_WITHIN: Duration = Duration::from_millis(250);

/// An installation: its sockets and its configuration.
pub(crate) struct Instance {
    /// Absolute.
    pub(crate) run_dir: PathBuf,
    /// The directory of the gateway's admin socket: `run_dir`, unless several gateways run beside the daemon.
    pub(crate) gateway_dir: PathBuf,
    pub(crate) config: Option<PathBuf>,
    /// Whether the configuration could be read and has no mistake. Else its directories may be wrong.
    pub(crate) is_whole: bool,
    /// Neither a configuration nor the directory of the sockets is here: the tool may be in a container of its own.
    pub(crate) is_bare: bool,
}

/// The process of one program, if it was found.
pub(crate) struct LocatedProcess {
    pub(crate) presence: Presence,
    pub(crate) pid: Option<i32>,
    pub(crate) how: String,
    pub(crate) others: Vec<OtherProcess>,
    /// A process of another program that listens on its admin socket.
    pub(crate) foreign: Option<OtherProcess>,
    /// Whether this user may not enter the directory of the sockets.
    pub(crate) denied: bool,
    /// Whether all processes of this machine are visible, and none of them runs this program.
    pub(crate) is_nowhere: bool,
}

impl LocatedProcess {
    fn at(pid: i32, how: impl Into<String>) -> Self {
        Self { presence: Presence::Running, pid: Some(pid), how: how.into(), ..Self::not_asked() }
    }

    pub(crate) fn given(pid: i32) -> Self {
        Self::at(pid, "given by --pid")
    }

    /// By the id in its public answer, although this user may not look at its sockets.
    pub(crate) fn that_answers(pid: i32, why: &str) -> Self {
        Self { denied: true, ..Self::at(pid, format!("answers at its address; {why}")) }
    }

    pub(crate) fn not_asked() -> Self {
        Self {
            presence: Presence::NotAsked,
            pid: None,
            how: "not asked".to_owned(),
            others: Vec::new(),
            foreign: None,
            denied: false,
            is_nowhere: false,
        }
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

/// The admin socket on which a process listens, by a path that leads to it from here.
pub(crate) fn admin_socket_of(pid: i32) -> Option<PathBuf> {
    let bound = listener::unix_of(pid).into_iter();
    let socket = bound.into_iter().find(|path| path.to_string_lossy().ends_with("-admin.sock"))?;
    Some(process::seen_by(pid, &socket))
}

/// Finds the process of a program.
pub(crate) async fn locate(
    program: &'static str,
    instance: &Instance,
    unit: Option<&SystemdUnit>,
) -> LocatedProcess {
    locate_running(program, instance, unit, |pid| program::of(pid) == Some(program)).await
}

/// What the sockets say about a process.
#[derive(Default)]
struct SocketFindings {
    /// It listens on one of them.
    listens: Option<(i32, String)>,
    /// Another program listens on the admin socket.
    foreign: Option<OtherProcess>,
    /// A process listens that the kernel does not name: it is in another pid namespace.
    is_unnamed: bool,
    denied: bool,
    why: Vec<String>,
}

async fn locate_running(
    program: &'static str,
    instance: &Instance,
    unit: Option<&SystemdUnit>,
    is_program: impl Fn(i32) -> bool,
) -> LocatedProcess {
    let named = by_name(program, instance);
    let same = named.iter().find(|(_, relation)| *relation == Relation::Same).map(|(other, _)| other.pid);
    if !instance.is_whole {
        if let Some(pid) = same {
            return LocatedProcess::at(pid, format!("runs {program} with this configuration"));
        }
        let near = named.iter().find(|(_, relation)| *relation == Relation::Near);
        let only = if named.len() == 1 { named.first() } else { None };
        if let Some((other, relation)) = near.or(only) {
            let how = match relation {
                Relation::Near => "with a configuration in the same folder",
                _ => "and is the only one on this machine",
            };
            return LocatedProcess::at(other.pid, format!("runs {program} {how}"));
        }
    }
    if let [(only, _)] = &named[..]
        && instance.is_bare
        && process::has_other_files(only.pid)
    {
        let how = format!("is the only {program} that can be seen from here, and has other files");
        return LocatedProcess::at(only.pid, how);
    }
    let found = probe_sockets(program, instance, is_program).await;
    let why = found.why.join(", ");
    let mut located = LocatedProcess {
        presence: if found.denied || found.is_unnamed { Presence::Unknown } else { Presence::Absent },
        how: why.clone(),
        foreign: found.foreign,
        denied: found.denied,
        is_nowhere: named.is_empty() && sees_all(),
        ..LocatedProcess::not_asked()
    };
    let main = unit.and_then(|unit| unit.main_pid).filter(|pid| Process::new(*pid).is_ok());
    let (pid, how) = if let Some((pid, how)) = found.listens {
        (pid, how)
    } else if let Some(pid) = main {
        (pid, format!("main process of its systemd unit; {why}"))
    } else if let Some(pid) = same {
        (pid, format!("runs {program} with this configuration; {why}"))
    } else {
        located.others = named.into_iter().map(|(other, _)| other).collect();
        return located;
    };
    (located.presence, located.pid, located.how) = (Presence::Running, Some(pid), how);
    located.others = named.into_iter().map(|(other, _)| other).filter(|other| other.pid != pid).collect();
    located
}

/// Connects to the sockets of a program, the admin socket first.
async fn probe_sockets(
    program: &'static str,
    instance: &Instance,
    is_program: impl Fn(i32) -> bool,
) -> SocketFindings {
    let mut found = SocketFindings::default();
    for socket in sockets(program) {
        let (name, path) = (socket.file_name(), instance.socket(*socket));
        match probe_socket(&path).await {
            Ok(listens) => {
                let (pid, how) = match listens {
                    Some(pid) => (Some(pid), format!("listens on {name}")),
                    None => (holder_of(path.clone()).await, format!("holds the inode of {name}")),
                };
                match pid {
                    Some(pid) if is_program(pid) => {
                        found.listens = Some((pid, how));
                        return found;
                    }
                    Some(pid) => {
                        let command =
                            Process::new(pid).map(|process| process::command(&process)).unwrap_or_default();
                        found.why.push(format!(
                            "{name} is held by pid {pid} ({command}), which is another program"
                        ));
                        found.foreign.get_or_insert(OtherProcess { pid, command });
                    }
                    None => {
                        found.is_unnamed = true;
                        found.why.push(format!(
                            "a process that cannot be seen from here listens on {name}, such as one in another container"
                        ));
                    }
                }
            }
            Err(error) => {
                found.denied |= error.kind() == io::ErrorKind::PermissionDenied;
                found.why.push(match error.kind() {
                    io::ErrorKind::NotFound => format!("there is no {name}"),
                    io::ErrorKind::ConnectionRefused => {
                        format!("no process listens on {name}: a killed process left it behind")
                    }
                    _ => format!("{name}: {error}"),
                });
            }
        }
    }
    found
}

async fn holder_of(socket: PathBuf) -> Option<i32> {
    within::later(HOLDER_WITHIN, move || listener::holder_of(&socket)).await.flatten()
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

/// Whether this user sees the processes of other users (`hidepid=` of proc(5)).
fn sees_all() -> bool {
    Process::new(1).is_ok_and(|first| first.stat().is_ok())
}

/// Whether a process belongs to the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// Its configuration or a socket of it is that of the instance.
    Same,
    /// Its configuration is another file in the same folder.
    Near,
    /// Its configuration is another one.
    Other,
    /// This user may not see which configuration it uses.
    Unclear,
}

/// The processes of this program, and whether each belongs to the instance.
fn by_name(program: &str, instance: &Instance) -> Vec<(OtherProcess, Relation)> {
    let running = all_processes().into_iter().flatten().flatten();
    let running = running.filter(|process| program::runs(process, program) && process.is_alive());
    running
        .map(|process| {
            let other = OtherProcess { pid: process.pid(), command: process::command(&process) };
            let bound = listener::unix_of(process.pid());
            let relation = match instance.is_whole && bound.contains(&instance.admin_socket(program)) {
                true => Relation::Same,
                false => relation(&process, instance),
            };
            (other, relation)
        })
        .collect()
}

/// Whether a process runs with the configuration of the instance, according to its command line and environment.
fn relation(process: &Process, instance: &Instance) -> Relation {
    let Some(arguments) = process::arguments(process.pid()) else { return Relation::Unclear };
    let folder = process.cwd().ok();
    let environment = within::through_memory(process.pid(), Process::environ);
    let config = match (config_of(&arguments), &environment) {
        (Some(named), _) => Some(PathBuf::from(named)),
        (None, None) => return Relation::Unclear,
        (None, Some(environment)) => environment.get(OsStr::new("NEWSWIRE_CONFIG")).map(PathBuf::from),
    };
    let config = match (config, &folder) {
        (Some(path), _) if path.is_absolute() => Some(path),
        (Some(path), Some(folder)) => Some(folder.join(path)),
        (Some(_), None) => return Relation::Unclear,
        (None, _) => {
            let system = PathBuf::from(daemon::config::SYSTEM_FILE);
            system.is_file().then_some(system)
        }
    };
    let same = match (config, &instance.config, folder) {
        (Some(theirs), Some(ours), _) if is_same_file(&theirs, ours) => true,
        (Some(theirs), Some(ours), _) if theirs.parent() == ours.parent() => return Relation::Near,
        (Some(_), Some(_), _) => false,
        // Without a file both use the built-in ./run.
        (None, None, Some(folder)) => is_same_file(&folder.join("run"), &instance.run_dir),
        (None, None, None) => return Relation::Unclear,
        _ => false,
    };
    if same { Relation::Same } else { Relation::Other }
}

/// `false` if a file system does not answer.
fn is_same_file(a: &Path, b: &Path) -> bool {
    if a == b {
        return true;
    }
    let (a, b) = (a.to_path_buf(), b.to_path_buf());
    let resolved = move || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    within::within(RESOLVE_WITHIN, resolved).unwrap_or(false)
}

/// `--config FILE` or `--config=FILE`.
pub(crate) fn config_of(arguments: &[String]) -> Option<&str> {
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

    use super::{super::program::GATEWAY, *};

    /// As [`super::locate`], but for a process that runs a test.
    async fn locate(
        program: &'static str,
        instance: &Instance,
        unit: Option<&SystemdUnit>,
    ) -> LocatedProcess {
        locate_running(program, instance, unit, |_| true).await
    }

    fn instance(folder: &Path) -> Instance {
        Instance {
            run_dir: folder.to_path_buf(),
            gateway_dir: folder.to_path_buf(),
            config: None,
            is_whole: true,
            is_bare: false,
        }
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

    #[tokio::test]
    async fn another_program_on_the_admin_socket_is_named_and_not_taken_for_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let instance = instance(folder.path());
        let _listener = UnixListener::bind(instance.admin_socket(GATEWAY)).unwrap();
        let found = super::locate(GATEWAY, &instance, None).await;
        assert_eq!((found.presence, found.pid), (Presence::Absent, None));
        assert_eq!(found.foreign.unwrap().pid, std::process::id().cast_signed());
        assert!(found.how.contains("is held by pid"), "{}", found.how);
    }
}
