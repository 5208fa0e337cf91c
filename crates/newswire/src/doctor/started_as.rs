//! How a process was started, so that it can be started again in the same way where no systemd does it.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use daemon::{PARENT_VARIABLE, program::ACCEPT_LOSS};
use procfs::process::Process;
use serde::Serialize;

use super::{presence::OtherProcess, process::arguments, program};
use crate::within;

/// What the kernel appends to the path of a program that an update has replaced.
const DELETED: &str = " (deleted)";
/// Variables of the environment that configure our programs begin so.
const VARIABLES: &str = "NEWSWIRE_";
/// The program whose child starts again by itself.
const UP: &str = "newswire";
/// Programs that start another one once, at the order of a person: how a process was started, not what starts it again.
const STARTS_ONCE: [&str; 12] =
    ["sh", "bash", "dash", "zsh", "fish", "ash", "busybox", "sudo", "su", "tmux", "screen", "systemd"];

/// How a process was started, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StartedAs {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Its working directory, if that is not the one of this tool: paths of the configuration may be relative to it.
    pub(crate) folder: Option<String>,
    /// The user it runs as, if that is another one than the user of this tool.
    pub(crate) user: Option<String>,
    /// Names of the variables of its environment that configure it; their values may be secret.
    pub(crate) variables: Vec<String>,
    /// The process that started it, and may start it again when it ends.
    pub(crate) parent: Option<OtherProcess>,
    /// Whether that is `newswire up`, which does.
    pub(crate) by_up: bool,
}

impl StartedAs {
    /// Of a process that runs, as far as this user may see.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let process = Process::new(pid).ok()?;
        let mut command = arguments(pid).filter(|arguments| !arguments.is_empty())?;
        // What follows `--accept-loss` was decided for one start.
        command.retain(|argument| argument != ACCEPT_LOSS);
        if let (Ok(path), Some(first)) = (process.exe(), command.first_mut()) {
            let path = path.display().to_string();
            *first = path.strip_suffix(DELETED).unwrap_or(&path).to_owned();
        }
        let ours = std::env::current_dir().ok();
        let folder = process.cwd().ok().filter(|its| Some(its) != ours.as_ref());
        let parent = process.stat().ok().and_then(|stat| Process::new(stat.ppid).ok());
        let by_up = parent.as_ref().is_some_and(|parent| program::runs(parent, UP));
        Some(Self {
            command,
            folder: folder.map(|folder| folder.display().to_string()),
            user: other_user(format!("/proc/{pid}")),
            variables: variables(pid),
            parent: parent.and_then(|parent| may_start_again(&parent)),
            by_up,
        })
    }

    /// Of a process that does not run: with the configuration that was named, as the user who owns the directory of its
    /// sockets.
    pub(crate) fn of_the_absent(name: &str, config: Option<&Path>, run_dir: &Path) -> Self {
        let config = config.map(|config| ["--config".to_owned(), config.display().to_string()]);
        Self {
            command: std::iter::once(name.to_owned()).chain(config.into_iter().flatten()).collect(),
            user: other_user(run_dir),
            ..Self::default()
        }
    }
}

/// The name of the owner, unless that is the user of this tool.
fn other_user(owned: impl AsRef<Path>) -> Option<String> {
    let id = fs::metadata(owned).ok()?.uid();
    if id == rustix::process::geteuid().as_raw() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id.to_string()).then(|| name.to_owned())
    });
    Some(named.unwrap_or_else(|| format!("#{id}")))
}

fn variables(pid: i32) -> Vec<String> {
    let all = within::through_memory(pid, Process::environ).unwrap_or_default();
    let names = all.keys().filter_map(|name| name.to_str());
    let mut names: Vec<_> = names
        .filter(|name| name.starts_with(VARIABLES) && *name != PARENT_VARIABLE)
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// The parent, unless it is the first process of the machine or a program that starts another one only once.
fn may_start_again(parent: &Process) -> Option<OtherProcess> {
    let name = parent.stat().ok()?.comm;
    (parent.pid() > 1 && !STARTS_ONCE.contains(&name.as_str()))
        .then(|| OtherProcess { pid: parent.pid(), command: name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_is_started_again_with_its_own_program_and_arguments() {
        let mut waits = std::process::Command::new("sh");
        waits.stdin(std::process::Stdio::piped());
        waits
            .args(["-c", "read line", "sh", "--accept-loss"])
            .current_dir("/")
            .env("NEWSWIRE_X__Y", "secret");
        // On a busy machine a process is given up whose command line does not come in time.
        let started = std::iter::repeat_with(|| {
            let mut child = waits.spawn().unwrap();
            let started = StartedAs::of(child.id().cast_signed());
            child.kill().unwrap();
            child.wait().unwrap();
            started
        });
        let started = started.take(100).flatten().next().unwrap();
        assert!(started.command[0].starts_with('/'), "{started:?}");
        assert_eq!(started.command[1..], ["-c", "read line", "sh"]);
        assert_eq!((started.folder.as_deref(), started.user), (Some("/"), None));
        assert!(started.variables.contains(&"NEWSWIRE_X__Y".to_owned()), "{:?}", started.variables);
        assert_eq!(started.parent.unwrap().pid, std::process::id().cast_signed());
    }

    #[test]
    fn a_process_that_does_not_run_is_started_with_its_configuration() {
        let started =
            StartedAs::of_the_absent("newswire-x", Some(Path::new("/c.toml")), Path::new("/absent"));
        assert_eq!(started.command, ["newswire-x", "--config", "/c.toml"]);
    }
}
