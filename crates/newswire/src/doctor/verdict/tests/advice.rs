//! Advice can be followed: what looks like a command line is one, its subcommands and flags exist, and it ends only processes
//! of ours.

/// Commands that advice may name: of this package, of systemd, of Docker and Kubernetes, and of every Linux.
const COMMANDS: &[&str] = &[
    "wc",
    "echo",
    "mv",
    "sysctl",
    "prlimit",
    "fsfreeze",
    "ip",
    "umount",
    "gdb",
    "newswire-ingestd",
    "/usr/bin/newswire-ingestd",
    "/usr/bin/newswire-gateway",
    "runuser",
    "timeout",
    "bash",
    "tee",
    "vmstat",
    "nsenter",
    "namei",
    "nice",
    "ulimit",
    "findmnt",
    "ss",
    "lsof",
    "mount",
    "cat",
    "ping",
    "getent",
    "resolvectl",
    "newswire",
    "sudo",
    "systemctl",
    "journalctl",
    "timedatectl",
    "kill",
    "ps",
    "df",
    "du",
    "ls",
    "top",
    "dmesg",
    "iostat",
    "curl",
    "grep",
    "docker",
    "kubectl",
    "chronyc",
    "sort",
    "tail",
    "head",
    "awk",
    "sed",
    "uniq",
];
/// The first words of advice in prose.
const PROSE: &[&str] = &[
    "press", "start", "restart", "read", "raise", "lower", "report", "end", "give", "look", "name", "if",
    "ping,", "run", "free", "remove", "jq", "set", "wait",
];

/// Checks one line of advice; `ours` are the processes that it may end.
#[track_caller]
pub(super) fn check(step: &str, ours: &[i32]) {
    let (command, _comment) = step.split_once("   # ").unwrap_or((step, ""));
    let first = command.split_whitespace().next().unwrap_or_default().trim_end_matches(';');
    if first.starts_with("\"$(dirname") {
        return parse_newswire(&command[command.find("/newswire ").unwrap() + 1..]);
    }
    let is_known = COMMANDS.contains(&first) || first.starts_with("NEWSWIRE_");
    assert!(is_known || PROSE.contains(&first), "neither a command nor prose: {step}");
    if first.starts_with("NEWSWIRE_") {
        return parse_newswire(command.split_once(' ').unwrap().1);
    }
    if PROSE.contains(&first) {
        // A command in prose is in backquotes.
        return command.split('`').skip(1).step_by(2).for_each(|quoted| check(quoted, ours));
    }
    assert!(is_for_a_shell(command), "a quote is not closed: {step}");
    let parts = command.split("; ").flat_map(|part| part.split(" || ")).flat_map(|part| part.split(" | "));
    for part in parts.map(str::trim) {
        let part = part.strip_prefix("sudo ").unwrap_or(part);
        let part = part.split(" > ").next().unwrap_or(part);
        match part.split_whitespace().next() {
            Some("newswire") => parse_newswire(part),
            Some("kill") => {
                let pid: i32 = part.split_whitespace().next_back().unwrap().parse().unwrap();
                assert!(ours.contains(&pid), "it ends a process that is not ours: {step}");
            }
            Some("systemctl") => {
                assert!(
                    ["restart", "start", "stop", "thaw", "set-property"]
                        .iter()
                        .any(|word| part.contains(word)),
                    "{step}"
                )
            }
            Some(word) => assert!(COMMANDS.contains(&word), "{word} is no command: {step}"),
            None => panic!("an empty command: {step}"),
        }
    }
}

/// Whether every quote is closed.
fn is_for_a_shell(command: &str) -> bool {
    ['\'', '"'].iter().all(|quote| command.matches(*quote).count().is_multiple_of(2))
}

/// The command line of `newswire` as its parser reads it.
#[track_caller]
fn parse_newswire(command: &str) {
    let words = command.split_whitespace().map(|word| word.trim_matches('\''));
    if let Err(error) = crate::cli::definition().try_get_matches_from(words) {
        panic!("{command}: {error}");
    }
}
