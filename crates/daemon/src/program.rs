//! The command line of the daemons, defined once, so that what they parse is what manual pages and completions show.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args as _, FromArgMatches as _};

use crate::line_queue::print_last;

/// A daemon and its command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// The name of its binary.
    pub name: &'static str,
    /// One sentence for the help, without the final full stop.
    pub about: &'static str,
    /// Examples for the help and the manual page: a command line, and what it does.
    pub examples: &'static [(&'static str, &'static str)],
}

/// The ingestion daemon.
pub const INGESTD: Program = Program {
    name: "newswire-ingestd",
    about: "Visit feeds, record new items, and serve them to gateways on a Unix socket",
    examples: &[
        ("newswire-ingestd --config /etc/newswire/newswire.toml", "Run the daemon in the foreground"),
        ("newswire-ingestd --check", "Check the configuration and the files it names, and exit"),
        ("newswire-ingestd --accept-loss", "Begin an empty log, because the journal of the store is lost"),
    ],
};

/// The gateway.
pub const GATEWAY: Program = Program {
    name: "newswire-gateway",
    about: "Serve recorded items over HTTP as Server-Sent Events, with history, source health and a web page",
    examples: &[
        ("newswire-gateway --config /etc/newswire/newswire.toml", "Run the gateway in the foreground"),
        ("newswire-gateway --check", "Check the configuration and the files it names, and exit"),
    ],
};

#[derive(Debug, clap::Args)]
struct DaemonArguments {
    /// Configuration file [default: $NEWSWIRE_CONFIG, else /etc/newswire/newswire.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and the files it names, print what is wrong, and exit with 0 or 78
    #[arg(long)]
    check: bool,
    /// With --check: print the result on standard output, as one JSON object
    #[arg(long, requires = "check")]
    json: bool,
}

/// How `--check` prints its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutput {
    /// Lines on standard error, for people.
    Text,
    /// [`Findings`](crate::findings::Findings) on standard output, for programs.
    Json,
}

/// Whether a store whose journal is gone begins a new epoch, instead of being refused: for one start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossOfLog {
    /// The start is refused.
    #[default]
    Refused,
    /// The operator has ordered it.
    Accepted,
}

/// The option of the ingestion daemon that accepts it.
pub const ACCEPT_LOSS: &str = "--accept-loss";
const ACCEPT: &str = "accept-loss";

/// The parsed command line of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The file of `--config`, if given.
    pub config: Option<PathBuf>,
    /// Only check the configuration, and print the result in this form.
    pub check: Option<CheckOutput>,
    /// Always refused by the gateway.
    pub loss: LossOfLog,
}

impl Program {
    /// The definition of the command line, without the examples.
    #[must_use]
    pub fn command(self) -> clap::Command {
        let command = clap::Command::new(self.name)
            .version(env!("CARGO_PKG_VERSION")) // one version for the whole workspace
            .max_term_width(100);
        // Set after the arguments, whose doc comment would otherwise replace it.
        let command = DaemonArguments::augment_args(command).about(self.about);
        if self != INGESTD {
            return command;
        }
        let accept = clap::Arg::new(ACCEPT).long(ACCEPT).action(clap::ArgAction::SetTrue).help(
            "If the journal of the store is gone, begin an empty log with a new epoch at this start, instead of refusing it",
        );
        command.arg(accept)
    }

    /// Parses the command line of this process. `--help`, `--version` and mistakes end the process.
    #[must_use]
    pub fn parse_arguments(self) -> Invocation {
        let examples: String =
            self.examples.iter().map(|(line, text)| format!("\n  {line}\n      {text}")).collect();
        let command = self.command().after_help(format!("Examples:{examples}"));
        let mut matches = command.try_get_matches().unwrap_or_else(|error| refuse(&error));
        match DaemonArguments::from_arg_matches_mut(&mut matches) {
            Ok(DaemonArguments { config, check, json }) => {
                let output = if json { CheckOutput::Json } else { CheckOutput::Text };
                let is_accepted = self == INGESTD && matches.get_flag(ACCEPT);
                let loss = if is_accepted { LossOfLog::Accepted } else { LossOfLog::Refused };
                Invocation { config, check: check.then_some(output), loss }
            }
            Err(error) => refuse(&error),
        }
    }
}

/// Prints why the command line is refused, or the help or version that was asked for, and ends the process.
fn refuse(error: &clap::Error) -> ! {
    if !error.use_stderr() {
        error.exit();
    }
    let text = error.render();
    let text = if std::io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
    print_last(&text);
    std::process::exit(error.exit_code())
}
