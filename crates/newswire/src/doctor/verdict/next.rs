//! What to do next. Every line can be carried out as it is: its commands exist, its paths are quoted, and it ends no process
//! that is not ours.

use super::{DaemonEvidence, Evidence, safe};
use crate::{
    doctor::{
        evidence::Target,
        locate::config_of,
        resources::namespaces::{ContainerName, OtherPlace},
    },
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
    if let Some(unit) = daemon.unit.get() {
        return format!("{sudo}systemctl restart {}", quoted(&unit.id));
    }
    let Some(pid) = daemon.pid() else { return start(daemon) };
    if let Some(container) = restarted_container(daemon, pid) {
        return container;
    }
    let started = &daemon.started;
    match &started.parent {
        Some(up) if started.by_up => {
            format!("{sudo}{kill} {pid}   # newswire up (pid {}) then starts it again", up.pid)
        }
        parent => {
            let parent = parent.as_ref().map(|parent| {
                format!("; leave that out if {} (pid {}) starts it", safe(&parent.command), parent.pid)
            });
            let (wait, start) = (wait_for_end(pid), as_it_was_started(daemon));
            format!(
                "{sudo}{kill} {pid}; {wait}; {start}   # and start it as it was{}{}",
                with_variables(daemon),
                parent.unwrap_or_default()
            )
        }
    }
}

/// A process of a container ends with it, and is started with it.
fn restarted_container(daemon: &DaemonEvidence, pid: i32) -> Option<String> {
    let place = daemon.resources.get().and_then(|resources| resources.place.as_ref());
    match place.and_then(|place| place.container.as_ref()) {
        Some(ContainerName::Docker(id)) => Some(format!("docker restart {id}")),
        Some(ContainerName::Podman(id)) => Some(format!("podman restart {id}")),
        Some(ContainerName::Pod) => {
            Some("kubectl delete pod POD   # its pod; another one takes its place".to_owned())
        }
        // The first process of a container, seen from inside or from outside.
        None => (pid == 1 || place.is_some_and(|place| place.pid)).then(|| {
            format!(
                "docker restart CONTAINER, or kubectl delete pod POD   # the container of {}",
                daemon.name
            )
        }),
    }
}

/// The command that ends a process in order and waits for its end.
pub(super) fn stop(daemon: &DaemonEvidence) -> Option<String> {
    let sudo = sudo(daemon);
    match (daemon.unit.get(), daemon.pid()) {
        (Some(unit), _) => Some(format!("{sudo}systemctl stop {}", quoted(&unit.id))),
        (None, Some(pid)) => Some(format!("{sudo}kill {pid}; {}", wait_for_end(pid))),
        (None, None) => None,
    }
}

fn wait_for_end(pid: i32) -> String {
    format!("tail --pid={pid} -f /dev/null")
}

/// The command that starts a process.
pub(super) fn start(daemon: &DaemonEvidence) -> String {
    match daemon.unit.get() {
        Some(unit) => format!("{}systemctl start {}", sudo(daemon), quoted(&unit.id)),
        None => {
            format!("{}   # or as it is usually started{}", as_it_was_started(daemon), with_variables(daemon))
        }
    }
}

/// The command line of a process, with its user and its working directory.
pub(super) fn as_it_was_started(daemon: &DaemonEvidence) -> String {
    let words: Vec<_> = daemon.started.command.iter().map(|word| quoted(word)).collect();
    let command = as_its_user(daemon, &words.join(" "));
    match &daemon.started.folder {
        Some(folder) => format!("(cd {} && {command})", quoted(folder)),
        None => command,
    }
}

/// A command that only the user of a process should run: the files that it makes are his.
pub(super) fn as_its_user(daemon: &DaemonEvidence, command: &str) -> String {
    match &daemon.started.user {
        None => command.to_owned(),
        // Where there is no sudo, root needs none.
        Some(user) if daemon.may_end && !user.starts_with('#') => {
            format!("runuser -u {} -- {command}", quoted(user))
        }
        Some(user) => format!("sudo -u {} {command}", quoted(user)),
    }
}

fn with_variables(daemon: &DaemonEvidence) -> String {
    match daemon.started.variables.as_slice() {
        [] => String::new(),
        names => format!("; set {} as before", names.join(", ")),
    }
}

/// What a command begins with that only root and the user of the process may run.
pub(super) fn sudo(daemon: &DaemonEvidence) -> &'static str {
    if daemon.may_end { "" } else { "sudo " }
}

/// What a command begins with that only root may run.
pub(super) fn as_root(evidence: &Evidence) -> &'static str {
    if evidence.is_root { "" } else { "sudo " }
}

/// Writes a value to a file of the kernel, which only root may do. The shell of the user opens what follows `>`.
pub(super) fn write(evidence: &Evidence, value: &str, file: &str) -> String {
    let file = quoted(file);
    match evidence.is_root {
        true => format!("echo {value} > {file}"),
        false => format!("echo {value} | sudo tee {file}"),
    }
}

/// Shows why a process ended.
pub(super) fn exit_log_hint(daemon: &DaemonEvidence) -> String {
    match daemon.unit.get() {
        Some(unit) => format!("journalctl -u {} -n 50   # why it ended", quoted(&unit.id)),
        None => "newswire doctor --since 10m   # what it did last, from its black box; its log may say more"
            .to_owned(),
    }
}

/// Whether the disk is busy. Not every machine has iostat.
pub(super) fn busy_disk() -> String {
    "iostat -x 1 3 || vmstat -w 1 3   # is the disk busy (%util), do threads wait for it (wa, b)?".to_owned()
}

/// The last messages of the kernel, which some machines show to root only.
pub(super) fn kernel_messages(evidence: &Evidence) -> String {
    format!("{}dmesg | tail   # errors of the disk", as_root(evidence))
}

/// Commands of `newswire` that read no configuration.
const WITHOUT_CONFIGURATION: [&str; 2] = ["logs", "manual"];
/// What the command line of a step may begin with that runs `newswire`.
const LAUNCHERS: [&str; 5] = ["newswire", "sudo", "runuser", "timeout", "nsenter"];

/// A step whose command of `newswire` names the configuration that was examined: without it, it would look at another one.
pub(super) fn with_configuration(evidence: &Evidence, step: String) -> String {
    let Some(config) = configuration(evidence) else { return step };
    let end = ["   # ", " | ", " > ", "; "].iter().filter_map(|end| step.find(end)).min();
    let (command, rest) = step.split_at(end.unwrap_or(step.len()));
    let words: Vec<_> = command.split(' ').collect();
    let is_command =
        words.first().is_some_and(|first| LAUNCHERS.contains(first) || first.starts_with("NEWSWIRE_"));
    // The files of a container are others.
    let is_elsewhere = words.contains(&"-m");
    let is_named = words.iter().any(|word| ["--config", "--pid", "--url"].contains(word));
    let mut after = words.iter().skip_while(|word| **word != "newswire");
    let reads_it = after.nth(1).is_some_and(|command| !WITHOUT_CONFIGURATION.contains(command));
    match is_command && reads_it && !is_named && !is_elsewhere {
        true => format!("{command} --config {}{rest}", quoted(config)),
        false => step,
    }
}

/// The file of the configuration that was examined.
fn configuration(evidence: &Evidence) -> Option<&str> {
    match evidence.target {
        Target::Both => evidence.config.as_deref(),
        Target::Url => None,
        Target::Pid => {
            let examined = evidence.daemons().find(|daemon| daemon.pid().is_some())?;
            let mut words = examined.started.command.iter().skip_while(|word| *word != "--config");
            words.nth(1).map(String::as_str)
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
