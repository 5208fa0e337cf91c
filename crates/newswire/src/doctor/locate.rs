//! Which process is which. A name alone proves nothing, so a process is ours when it listens at our admin socket; the
//! kernel tells who does, also when the process is frozen. The other ways are for when that socket is gone.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use procfs::process::{Process, all_processes};
use tokio::{net::UnixStream, time::timeout};

use super::{
    evidence::{OtherProcess, Presence},
    listener, process,
    systemd::SystemdUnit,
};

/// Connecting does not wait for the process, unless its queue is full.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// The names of the sockets in `daemon.run_dir`, of each program, the admin socket first.
const SOCKETS: [(&str, &[&str]); 2] =
    [(INGESTD, &["ingestd-admin.sock", "ingestd.sock"]), (GATEWAY, &["gateway-admin.sock"])];
/// The name of the ingestion daemon.
pub(crate) const INGESTD: &str = "newswire-ingestd";
/// The name of the gateway.
pub(crate) const GATEWAY: &str = "newswire-gateway";

/// Where processes of ours are looked for.
pub(crate) struct Instance {
    /// Absolute.
    pub(crate) run_dir: PathBuf,
    pub(crate) config: Option<PathBuf>,
}

/// What was found of one program.
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

/// The admin socket of a program.
pub(crate) fn admin_socket(run_dir: &Path, program: &str) -> PathBuf {
    run_dir.join(sockets(program).first().copied().unwrap_or_default())
}

fn sockets(program: &str) -> &'static [&'static str] {
    SOCKETS.iter().find(|(name, _)| *name == program).map_or(&[], |(_, sockets)| sockets)
}

/// The program that a process runs, when it is one of ours.
pub(crate) fn program_of(pid: i32) -> Option<&'static str> {
    let process = Process::new(pid).ok()?;
    [INGESTD, GATEWAY].into_iter().find(|program| runs(&process, program))
}

/// Finds the process of a program.
pub(crate) async fn locate(
    program: &'static str,
    ours: &Instance,
    unit: Option<&SystemdUnit>,
) -> LocatedProcess {
    let mut why = Vec::new();
    let mut denied = false;
    for name in sockets(program) {
        let socket = ours.run_dir.join(name);
        match probe_socket(&socket).await {
            Ok(Some(pid)) => return LocatedProcess::at(pid, format!("listens at {name}")),
            Ok(None) => {
                if let Some(pid) = listener::holder_of(&socket) {
                    return LocatedProcess::at(pid, format!("holds {name}, by its inode"));
                }
                why.push(format!("somebody unknown listens at {name}"));
                denied = true;
            }
            Err(error) => {
                denied |= error.kind() == io::ErrorKind::PermissionDenied;
                why.push(match error.kind() {
                    io::ErrorKind::NotFound => format!("there is no {name}"),
                    io::ErrorKind::ConnectionRefused => {
                        format!("nobody listens at {name}: left behind by one that was killed")
                    }
                    _ => format!("{name}: {error}"),
                });
            }
        }
    }
    if let Some(pid) = unit.and_then(|unit| unit.main_pid).filter(|pid| Process::new(*pid).is_ok()) {
        return LocatedProcess::at(pid, format!("systemd's main process; {}", why.join(", ")));
    }
    let (fitting, others) = by_name(program, ours);
    if let Some(pid) = fitting {
        let mut found =
            LocatedProcess::at(pid, format!("runs {program} with this configuration; {}", why.join(", ")));
        found.others = others;
        return found;
    }
    let presence = if denied { Presence::Unknown } else { Presence::Absent };
    LocatedProcess { presence, pid: None, how: why.join(", "), others }
}

/// Connects; gives the process that listens, as far as the system tells.
async fn probe_socket(socket: &Path) -> io::Result<Option<i32>> {
    match timeout(CONNECT_WITHIN, UnixStream::connect(socket)).await {
        // Its queue is full, so somebody is behind it.
        Err(_) => Ok(None),
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Ok(Err(error)) => Err(error),
        Ok(Ok(stream)) => Ok(stream.peer_cred()?.pid().filter(|pid| *pid > 0)),
    }
}

/// The process of that name that was started with our configuration, and those that were not.
fn by_name(program: &str, ours: &Instance) -> (Option<i32>, Vec<OtherProcess>) {
    let (mut fitting, mut others) = (None, Vec::new());
    for process in all_processes().into_iter().flatten().flatten().filter(|process| runs(process, program)) {
        if fits(&process, ours) {
            fitting = Some(process.pid());
        } else {
            others.push(OtherProcess { pid: process.pid(), command: process::command(&process) });
        }
    }
    (fitting, others)
}

fn runs(process: &Process, program: &str) -> bool {
    // A program that was replaced by an update is called "name (deleted)".
    let named = |path: PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().trim_end_matches(" (deleted)") == program)
    };
    process.exe().map_or_else(
        |_| process.cmdline().is_ok_and(|words| words.first().is_some_and(|word| named(word.into()))),
        named,
    )
}

/// Whether a process was started with our configuration, as far as its command line and environment tell.
fn fits(process: &Process, ours: &Instance) -> bool {
    let (Ok(folder), Ok(words)) = (process.cwd(), process.cmdline()) else { return false };
    let variable = process.environ().ok().and_then(|all| all.get(OsStr::new("NEWSWIRE_CONFIG")).cloned());
    let config = config_of(&words).map(PathBuf::from).or_else(|| variable.map(PathBuf::from));
    let config = config.map(|path| folder.join(path)).or_else(|| {
        let system = PathBuf::from(daemon::config::SYSTEM_FILE);
        system.is_file().then_some(system)
    });
    match (config, &ours.config) {
        (Some(theirs), Some(ours)) => same(&theirs, ours),
        // Without a file both have the built-in ./run.
        (None, None) => same(&folder.join("run"), &ours.run_dir),
        _ => false,
    }
}

fn same(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// `--config FILE` or `--config=FILE`.
fn config_of(words: &[String]) -> Option<&str> {
    let mut words = words.iter();
    words
        .find_map(|word| match word.strip_prefix("--config") {
            Some("") => Some(None),
            Some(rest) => rest.strip_prefix('=').map(Some),
            None => None,
        })?
        .or_else(|| words.next().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_configuration_is_named_in_two_ways() {
        assert_eq!(config_of(&words(&["p", "--config", "a.toml"])), Some("a.toml"));
        assert_eq!(config_of(&words(&["p", "--config=b.toml", "x"])), Some("b.toml"));
        assert_eq!(config_of(&words(&["p", "--configure", "x"])), None);
        assert_eq!(config_of(&words(&["p", "--config"])), None);
    }

    #[tokio::test]
    async fn whoever_listens_at_the_admin_socket_is_found_without_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let ours = Instance { run_dir: folder.path().to_path_buf(), config: None };
        let absent = locate(GATEWAY, &ours, None).await;
        assert_eq!(absent.presence, Presence::Absent);
        assert!(absent.how.contains("there is no gateway-admin.sock"), "{}", absent.how);
        let listener = UnixListener::bind(admin_socket(folder.path(), GATEWAY)).unwrap();
        let found = locate(GATEWAY, &ours, None).await;
        assert_eq!((found.presence, found.pid), (Presence::Running, Some(std::process::id().cast_signed())));
        drop(listener);
        let killed = locate(GATEWAY, &ours, None).await;
        assert_eq!(killed.presence, Presence::Absent);
        assert!(killed.how.contains("killed"), "{}", killed.how);
    }

    #[tokio::test]
    async fn what_systemd_calls_the_main_process_is_found_when_the_sockets_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let ours = Instance { run_dir: folder.path().to_path_buf(), config: None };
        let me = std::process::id().cast_signed();
        let unit = SystemdUnit { main_pid: Some(me), ..SystemdUnit::default() };
        assert_eq!(locate(INGESTD, &ours, Some(&unit)).await.pid, Some(me));
    }
}
