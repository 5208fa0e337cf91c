//! What to do next. Every line can be carried out as it is: its commands exist, its paths are quoted, and it ends no process
//! that is not ours.

use super::{DaemonEvidence, Evidence, safe};
use crate::{
    doctor::{evidence::Target, locate::config_of, resources::namespaces::OtherPlace},
    out::whole,
};

/// A process that may belong to another configuration is never to be ended for that.
pub(super) fn by_itself(daemon: &DaemonEvidence) -> String {
    match daemon.pid() {
        Some(pid) => format!(
            "newswire doctor --pid {pid}   # or with --config, and the file that the process was started with"
        ),
        None => "name the file that the process was started with: newswire doctor --config FILE".to_owned(),
    }
}

/// The command that restarts a process which hangs: it may not end in order.
pub(super) fn restart(daemon: &DaemonEvidence) -> String {
    restarted_by(daemon, "kill -9")
}

/// How a process that hangs is restarted, if this user sees which one it is.
pub(super) fn end_hang(evidence: &Evidence, daemon: &DaemonEvidence) -> String {
    match (daemon.unit.get().is_some() || daemon.pid().is_some(), evidence.target) {
        (true, _) => restart(daemon),
        (false, Target::Url) => {
            "newswire doctor   # run it on the machine of the gateway: it names the process".to_owned()
        }
        (false, _) => look_with_rights(evidence),
    }
}

/// The command that restarts a process which can still end in order.
pub(super) fn restart_in_order(daemon: &DaemonEvidence) -> String {
    restarted_by(daemon, "kill")
}

fn restarted_by(daemon: &DaemonEvidence, kill: &str) -> String {
    let sudo = sudo(daemon);
    match (daemon.unit.get(), daemon.pid()) {
        (Some(unit), _) => format!("{sudo}systemctl restart {}", quoted(&unit.id)),
        // The first process of a container ends with it.
        (None, Some(1)) => format!(
            "docker restart CONTAINER, or kubectl delete pod POD   # the container of {}",
            daemon.name
        ),
        (None, Some(pid)) => format!("{sudo}{kill} {pid}   # then start {} as usual", daemon.name),
        (None, None) => start(daemon),
    }
}

/// The command that starts a process.
pub(super) fn start(daemon: &DaemonEvidence) -> String {
    match daemon.unit.get() {
        Some(unit) => format!("{}systemctl start {}", sudo(daemon), quoted(&unit.id)),
        None => format!("start {} as usual, or both with `newswire up`", daemon.name),
    }
}

/// What a command begins with that only root and the user of the process may run.
pub(super) fn sudo(daemon: &DaemonEvidence) -> &'static str {
    if daemon.may_end { "" } else { "sudo " }
}

/// Where to read why a process ended.
pub(super) fn exit_log_hint(daemon: &DaemonEvidence) -> String {
    match daemon.unit.get() {
        Some(unit) => format!("journalctl -u {} -n 50   # why it ended", quoted(&unit.id)),
        None => {
            format!("read the end of the log of {}; if that says nothing, `dmesg | grep -i oom`", daemon.name)
        }
    }
}

/// Looks at a process of another program, which only its owner may end.
pub(super) fn whose(pid: i32) -> String {
    format!("ps -o pid,ppid,user,lstart,args -p {pid}   # which program is it? End it as its owner does")
}

/// `newswire doctor` once more, with what was asked for.
pub(super) fn look_again(evidence: &Evidence) -> String {
    format!("{}   # again: the answer may have been late", doctor(evidence))
}

/// `newswire doctor` with the rights that it lacked.
pub(super) fn look_with_rights(evidence: &Evidence) -> String {
    let doctor = format!("sudo {}   # root may look at everything", doctor(evidence));
    match &evidence.run_dir_group {
        Some(group) => {
            format!("{doctor}; without root: sudo usermod -aG {} \"$USER\", then log in again", quoted(group))
        }
        None => doctor,
    }
}

/// A process in another container.
pub(super) fn other_place() -> String {
    "run the doctor where that process runs: docker exec CONTAINER newswire doctor, kubectl exec POD -c CONTAINER -- newswire \
     doctor; as root of the machine it sees all of them"
        .to_owned()
}

/// The doctor where a process runs whose network is another one.
pub(super) fn in_its_place(evidence: &Evidence, daemon: &DaemonEvidence, place: &OtherPlace) -> Vec<String> {
    let option =
        |config: Option<&str>| config.map_or_else(String::new, |file| format!(" --config {}", quoted(file)));
    let command = daemon.process.get().map(|process| process.command.as_str()).unwrap_or_default();
    let arguments: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
    let there = config_of(&arguments).filter(|file| file.starts_with('/'));
    let pid = daemon.pid().unwrap_or(0);
    let inner = daemon.process.get().and_then(|process| process.inner_pids.last().copied()).unwrap_or(pid);
    let here = match evidence.target {
        Target::Pid => format!(" --pid {pid}"),
        _ => option(evidence.config.as_deref()),
    };
    place.enter(pid, inner, &here, &option(there))
}

/// The tool that was installed with a process of another version.
pub(super) fn tool_of_its_version(daemon: &DaemonEvidence) -> String {
    match daemon.pid() {
        Some(pid) => format!(
            "\"$(dirname \"$(readlink -f /proc/{pid}/exe)\")\"/newswire doctor   # the tool of its version; or restart {} after an upgrade",
            daemon.name
        ),
        None => format!("restart {}, so that all three programs have one version", daemon.name),
    }
}

fn doctor(evidence: &Evidence) -> String {
    let quick = if evidence.quick { " --quick" } else { "" };
    let pid = evidence.daemons().find_map(DaemonEvidence::pid);
    match (evidence.target, pid, &evidence.config) {
        (Target::Pid, Some(pid), _) => format!("newswire doctor{quick} --pid {pid}"),
        (Target::Url, ..) => match evidence.http.get() {
            Some(http) => format!("newswire doctor{quick} --url http://{}/", safe(&http.address)),
            None => format!("newswire doctor{quick} --url URL"),
        },
        (_, _, Some(config)) => format!("newswire doctor{quick} --config {}", quoted(config)),
        _ => format!("newswire doctor{quick}"),
    }
}

/// A word for a shell.
pub(super) fn quoted(word: &str) -> String {
    let word = whole(word);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,=".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
