//! Examples of every command, written once: for its `--help` and for the EXAMPLES section of its man page.

use clap::Command;
use daemon::program::{GATEWAY, INGESTD};

/// A command line, and what it does.
pub(crate) type Example = (&'static str, &'static str);

/// The examples by the full name of the command.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "newswire",
        &[
            (
                "newswire up --demo",
                "Try newswire with made-up feeds; needs no network and stores nothing permanently",
            ),
            ("newswire check https://example.org/feed.xml", "See what newswire makes of a feed"),
            ("newswire doctor", "Find out why something hangs"),
        ],
    ),
    (
        "newswire up",
        &[
            (
                "newswire up",
                "Run both daemons with the built-in list of sources; the page is at http://127.0.0.1:8700/",
            ),
            ("newswire up --demo", "Run them with made-up feeds from this machine"),
            (
                "newswire up --sources my.toml --data-dir ./news --listen 127.0.0.1:9000",
                "Use your own list, store and address",
            ),
        ],
    ),
    (
        "newswire tail",
        &[
            ("newswire tail", "Print the last 10 items, then new ones as they arrive"),
            (
                "newswire tail --category science --since 2h",
                "Start with the science items of the last two hours",
            ),
            (
                "newswire tail --json --url http://news.example:8700/",
                "Print events of another gateway as JSON lines",
            ),
        ],
    ),
    (
        "newswire check",
        &[
            (
                "newswire check https://example.org/feed.xml",
                "Fetch a feed and show its items, its warnings and when the daemon would visit it next",
            ),
            (
                "newswire check --diff old.xml new.xml",
                "Show what a visit would send if the feed was old.xml before and is new.xml now",
            ),
            (
                "newswire check --json --content-type application/rss+xml -",
                "Read standard input as if a server had sent it with this type, and print the result as JSON",
            ),
        ],
    ),
    (
        "newswire doctor",
        &[
            ("newswire doctor", "Show all evidence, the next steps and the verdict of both processes"),
            ("newswire doctor --quick", "A health check that ends within 2 s"),
            ("newswire doctor --json --pid 4711", "Examine one process and print everything as JSON"),
        ],
    ),
    (
        "newswire config",
        &[
            ("newswire config check", "Report every mistake before a start or a reload"),
            ("newswire config show", "Show every value in force and its origin"),
        ],
    ),
    (
        "newswire config check",
        &[
            ("newswire config check", "Check the configuration and every file that it names"),
            (
                "newswire config check --config new.toml --sources new-sources.toml",
                "Check files before they replace the current ones",
            ),
        ],
    ),
    (
        "newswire config show",
        &[
            (
                "newswire config show",
                "Print key, value, origin, and whether a reload or a restart applies a change",
            ),
            ("newswire config show --json", "Print the same as JSON"),
        ],
    ),
    (
        "newswire config default",
        &[
            ("newswire config default", "Print the default configuration with comments"),
            ("newswire config default > newswire.toml", "Start your own configuration file"),
        ],
    ),
    (
        "newswire reload",
        &[
            ("newswire reload", "Apply changes of the configuration and of the list of sources"),
            ("newswire reload --json", "Print the answer of each daemon as JSON"),
        ],
    ),
    (
        "newswire sources",
        &[
            ("newswire sources list --failing", "List the sources whose last visit failed"),
            ("newswire sources add https://example.org/", "Add the feed that a page links to"),
            ("newswire sources refresh bbc dw", "Visit two sources now"),
        ],
    ),
    (
        "newswire sources list",
        &[
            ("newswire sources list --quiet", "List the sources that answer, but seem to have stopped"),
            (
                "newswire sources list --failing --category science",
                "List the failing sources of one category",
            ),
            ("newswire sources list --json", "Print what the daemon reports as JSON"),
        ],
    ),
    (
        "newswire sources show",
        &[
            ("newswire sources show bbc", "Show everything that the daemon knows about a source"),
            ("newswire sources show bbc --json", "Print the same as JSON"),
        ],
    ),
    (
        "newswire sources refresh",
        &[
            ("newswire sources refresh bbc dw", "Visit two sources now"),
            ("newswire sources refresh --failing", "Visit the sources whose last visit failed"),
            (
                "newswire sources refresh --category science --full",
                "Have the servers send the documents of one category whole, once",
            ),
        ],
    ),
    (
        "newswire sources pause",
        &[
            ("newswire sources pause bbc --for 2h", "Do not visit a source for two hours"),
            (
                "newswire sources pause bbc dw --reason maintenance",
                "Pause two sources until they are resumed, and say why",
            ),
            ("newswire sources pause --category sport --for 1d", "Pause a whole category for a day"),
        ],
    ),
    (
        "newswire sources resume",
        &[
            ("newswire sources resume bbc", "Visit a paused source again"),
            ("newswire sources resume bbc dw", "Visit two paused sources again"),
            ("newswire sources resume --category sport", "Visit the paused sources of a category again"),
        ],
    ),
    (
        "newswire sources add",
        &[
            (
                "newswire sources add example.org/feed.xml",
                "Add a feed; its title becomes its name and its id",
            ),
            (
                "newswire sources add https://example.org/ --id example --category science --tag physics",
                "Add the feed that a page links to, with your own id, category and tag",
            ),
            (
                "newswire sources add http://127.0.0.1:8000/feed --allow-private --every 1m",
                "Add a feed of this machine and visit it every minute",
            ),
        ],
    ),
    (
        "newswire sources remove",
        &[
            ("newswire sources remove bbc", "Remove a source from the list; recorded items stay"),
            ("newswire sources remove bbc dw", "Remove two sources"),
        ],
    ),
    (
        "newswire sources import",
        &[
            ("newswire sources import feeds.opml --dry-run", "Show what would be added"),
            ("newswire sources import feeds.opml", "Add the feeds that are not in the list yet"),
            (
                "newswire sources import - --category blogs",
                "Read OPML from standard input and put all feeds into one category",
            ),
        ],
    ),
    (
        "newswire sources lists",
        &[
            (
                "newswire sources lists",
                "List the lists of feeds, when each was read, and what keeps it from being taken",
            ),
            ("newswire sources lists planet --read", "Read a list now"),
            (
                "newswire sources lists planet --take",
                "Read it now, and take it although most of its feeds are gone",
            ),
        ],
    ),
    (
        "newswire sources export",
        &[
            ("newswire sources export", "Print the list as OPML"),
            (
                "newswire sources export --with-secrets backup.opml",
                "Write it to a file, with the passwords and keys in its addresses",
            ),
        ],
    ),
    (
        "newswire verify",
        &[
            ("newswire verify", "Check the gateway of the configuration; takes about 15 s"),
            ("newswire verify --for 1m --aborts 500", "Listen for a minute, and abort 500 streams"),
            ("newswire verify --url http://10.0.0.5:8700/ --any-host", "Check a gateway on another machine"),
        ],
    ),
    (
        "newswire log",
        &[
            ("newswire log verify", "Check every checksum of the log"),
            ("newswire log backup /var/backups/newswire", "Back up the log of the running daemon"),
            (
                "newswire log restore /var/backups/newswire",
                "Put the backup in place, after newswire-ingestd was stopped",
            ),
        ],
    ),
    (
        "newswire log verify",
        &[
            ("newswire log verify", "Name every damaged place, and what is lost with it"),
            ("newswire log verify --json --store /var/backups/newswire", "Check a backup, for a program"),
        ],
    ),
    (
        "newswire log stats",
        &[
            ("newswire log stats", "Show what the 20 largest sources have"),
            ("newswire log stats --json", "Print what every source has as JSON"),
        ],
    ),
    (
        "newswire log export",
        &[
            ("newswire log export events.ndjson", "Write all events to a file"),
            ("newswire log export --source bbc --after k3v9q2-412", "Print the later events of a source"),
        ],
    ),
    (
        "newswire log import",
        &[
            ("newswire log import events.ndjson", "Make the store of the configuration, which must be empty"),
            (
                "newswire log import - --store ./new --json",
                "Make another one of standard input, and print what it has as JSON",
            ),
        ],
    ),
    (
        "newswire log salvage",
        &[
            (
                "newswire log salvage data.damaged events.ndjson",
                "Write what can be read to a file, for import",
            ),
            ("newswire log salvage data.damaged > events.ndjson", "Do the same through standard output"),
        ],
    ),
    (
        "newswire log backup",
        &[
            ("newswire log backup /var/backups/newswire", "Copy what has changed since the last time"),
            ("newswire log backup - > newswire.tar", "Write an archive"),
        ],
    ),
    (
        "newswire log restore",
        &[
            ("newswire log restore /var/backups/newswire", "Put a backup in place, with a new epoch"),
            ("newswire log restore", "Have a copied store begin a new epoch where it is"),
            (
                "newswire log restore --same-epoch",
                "Accept a copied store as the original, because that is gone",
            ),
        ],
    ),
    (
        "newswire bundle",
        &[
            ("newswire bundle", "Write newswire-bundle-TIME.tar.gz with the logs of the last 30 minutes"),
            (
                "newswire bundle --since 2h --output incident.tar.gz",
                "Go back two hours, and choose the name of the file",
            ),
            ("newswire bundle --log newswire.log", "Include a log file where there is no journal"),
        ],
    ),
    (
        "newswire logs",
        &[
            ("newswire logs --follow", "Follow the logs of both daemons"),
            ("newswire logs --source bbc --since 1h", "Show the last hour of one source"),
            (
                "newswire logs --unit gateway --level warn -n 50",
                "Show the last 50 warnings and errors of the gateway",
            ),
        ],
    ),
    (
        "newswire logs triage",
        &[
            ("newswire logs triage --journal --since 2h", "Group what went wrong in the last two hours"),
            ("newswire logs triage newswire.log --top 10", "Show the ten worst groups of a log file"),
        ],
    ),
    (
        "newswire logs level",
        &[
            ("newswire logs level", "Show the level of each daemon"),
            (
                "newswire logs level debug --unit ingestd",
                "Log more of the ingestion daemon, until it restarts",
            ),
            ("newswire logs level info,ingestd=debug", "Set a level, and another for one module"),
        ],
    ),
    (INGESTD.name, INGESTD.examples),
    (GATEWAY.name, GATEWAY.examples),
];

/// The examples of a command, such as `newswire sources add`.
pub(crate) fn of(command: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == command).map_or(&[], |(_, examples)| examples)
}

/// Adds the examples to the help of a command and of all commands below it.
pub(crate) fn add_to_help(command: Command) -> Command {
    let name = command.get_name().to_owned();
    add_below(command, &name)
}

fn add_below(command: Command, path: &str) -> Command {
    let names: Vec<_> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = names.into_iter().fold(command, |command, name| {
        let path = format!("{path} {name}");
        command.mut_subcommand(name, |below| add_below(below, &path))
    });
    match of(path) {
        [] => command,
        examples => command.after_help(help(examples)),
    }
}

fn help(examples: &[Example]) -> String {
    let lines = examples.iter().map(|(line, text)| format!("  {line}\n      {text}"));
    format!("Examples:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use daemon::program::{GATEWAY, INGESTD};

    use super::*;
    use crate::cli;

    fn names(command: &Command, path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            names(below, &format!("{path} {}", below.get_name()), found);
        }
    }

    #[test]
    fn every_command_has_two_or_three_examples_and_shows_them_in_its_help() {
        let mut commands = Vec::new();
        names(&cli::definition(), "newswire", &mut commands);
        for name in commands {
            assert!((2..=3).contains(&of(&name).len()), "{name} has {} examples", of(&name).len());
            let words = name.split(' ').chain(["--help"]);
            let help = add_to_help(cli::definition()).try_get_matches_from(words).unwrap_err().to_string();
            assert!(help.contains(of(&name)[0].0), "{name}: {help}");
        }
    }

    #[test]
    fn every_example_is_a_command_line_that_parses() {
        for (command, examples) in EXAMPLES {
            for (line, _) in *examples {
                assert!(
                    line.starts_with(command) || *command == "newswire",
                    "{line} is not an example of {command}"
                );
                let words = line.split(' ').take_while(|word| *word != ">");
                let definition = match command.split(' ').next() {
                    Some("newswire-ingestd") => INGESTD.command(),
                    Some("newswire-gateway") => GATEWAY.command(),
                    _ => cli::definition(),
                };
                let parsed = definition.try_get_matches_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }
}
