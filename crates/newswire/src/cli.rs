//! The command line.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use daemon::{Exit, config::Loaded};

use crate::{bundle, check, config, doctor, logs, manual, out, reload, sources, tail, up, verify};

/// A self-hosted news wire: feeds in, Server-Sent Events out.
#[derive(Debug, Parser)]
#[command(name = "newswire", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run both daemons here, with their logs, until Ctrl-C
    Up(up::Arguments),
    /// Print items as they arrive; comes back by itself
    Tail(tail::Arguments),
    /// Fetch or read feeds and show what would be made of them; stores nothing
    Check(check::Arguments),
    /// Why does it hang? One verdict from everything that can be seen, also while all is frozen
    Doctor(Box<doctor::Arguments>),
    /// Look at the configuration
    Config(config::Arguments),
    /// Have both daemons read their configuration again; says what changed and what waits for a restart
    Reload(reload::Arguments),
    /// Look at the sources, and change the list of them
    Sources(sources::Arguments),
    /// Check a running system: it answers, leaks nothing, blocks nowhere, resumes exactly; safe in production
    Verify(verify::Arguments),
    /// Everything that helps to find a fault, in one archive without secrets; works with everything down
    Bundle(bundle::Arguments),
    /// Read the journal of both daemons by source, level and time; group what went wrong; change the level
    Logs(logs::Arguments),
    /// Write the manual pages and shell completions of all three programs, for packages
    #[command(hide = true)]
    Manual(manual::Arguments),
}

/// The definition of the command line.
pub(crate) fn definition() -> clap::Command {
    Arguments::command()
}

/// `--config`, wherever a command reads the configuration.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file [default: $NEWSWIRE_CONFIG, else /etc/newswire/newswire.toml if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

/// The configuration is wrong: printed as it is, and the command ends with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misconfigured(pub(crate) String);

impl ConfigFile {
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        daemon::config::load(self.config.as_deref(), daemon::config::environment())
            .map_err(|complaints| Misconfigured(complaints.to_string()).into())
    }
}

/// Runs one command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        // Help and version come this way too; clap knows where to print what, and its number for a mistake is ours.
        Err(error) => error.exit(),
    };
    match carry_out(arguments.command) {
        Ok(exit) => exit.into(),
        Err(error) if out::is_closed(&error) => Exit::Ok.into(),
        Err(error) => {
            let usage = error.is::<Misconfigured>();
            for line in format!("{error:#}").lines() {
                out::complain(&format!("newswire: {line}"));
            }
            if usage { Exit::Usage.into() } else { Exit::Failure.into() }
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<Exit> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let exit = match command {
        Command::Up(arguments) => runtime.block_on(up::run(arguments)),
        Command::Tail(arguments) => runtime.block_on(tail::run(arguments)),
        Command::Check(arguments) => runtime.block_on(check::run(arguments)),
        Command::Doctor(arguments) => runtime.block_on(doctor::run(*arguments)),
        Command::Config(arguments) => config::run(arguments),
        Command::Reload(arguments) => runtime.block_on(reload::run(arguments)),
        Command::Sources(arguments) => runtime.block_on(sources::run(arguments)),
        Command::Verify(arguments) => runtime.block_on(verify::run(arguments)),
        Command::Bundle(arguments) => runtime.block_on(bundle::run(arguments)),
        Command::Logs(arguments) => runtime.block_on(logs::run(arguments)),
        Command::Manual(arguments) => manual::run(&arguments),
    };
    // Threads of libc's resolver may still wait for an answer that nobody wants any more.
    runtime.shutdown_background();
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_reads_durations_in_one_grammar() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        for line in [
            "newswire sources pause a --for",
            "newswire sources add https://a.example/ --every",
            "newswire logs triage --journal --since",
            "newswire bundle --since",
        ] {
            assert!(parse(&format!("{line} 1h30m")).is_ok(), "{line}");
            let bad = parse(&format!("{line} soon")).unwrap_err().to_string();
            assert!(bad.contains("`soon` is not a duration; write it like"), "{bad}");
            let short = parse(&format!("{line} 500ms")).unwrap_err().to_string();
            assert!(short.contains("500ms is outside 1s to 10000d"), "{short}");
        }
        assert!(parse("newswire verify --for 1m30s").is_ok());
        assert!(
            parse("newswire verify --for 6m").unwrap_err().to_string().contains("6m is outside 1s to 5m")
        );
    }
}
