//! The command line.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use daemon::{Exit, config::Loaded};

use crate::{bundle, check, config, doctor, logs, manual, out, reload, sources, tail, up, verify};

/// A self-hosted news wire: feeds in, Server-Sent Events out.
#[derive(Debug, Parser)]
#[command(name = "newswire", version, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run both daemons here, with their logs, until Ctrl-C
    Up(up::UpArgs),
    /// Print items as they arrive; comes back by itself
    Tail(tail::TailArgs),
    /// Fetch or read feeds and show what would be made of them; stores nothing
    Check(check::CheckArgs),
    /// Why does it hang? One verdict from everything that can be seen, also while all is frozen
    Doctor(Box<doctor::DoctorArgs>),
    /// Look at the configuration
    Config(config::ConfigArgs),
    /// Have both daemons read their configuration again; says what changed and what waits for a restart
    Reload(reload::ReloadArgs),
    /// Look at the sources, and change the list of them
    Sources(sources::SourcesArgs),
    /// Check a running system: it answers, leaks nothing, blocks nowhere, resumes exactly; safe in production
    Verify(verify::VerifyArgs),
    /// Everything that helps to find a fault, in one archive without secrets; works with everything down
    Bundle(bundle::BundleArgs),
    /// Read the journal of both daemons by source, level and time; group what went wrong; change the level
    Logs(logs::LogsArgs),
    /// Write the manual pages and shell completions of all three programs, for packages
    #[command(hide = true)]
    Manual(manual::ManualArgs),
}

/// The definition of the command line.
pub(crate) fn definition() -> clap::Command {
    CommandLine::command()
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
pub(crate) struct UsageError(pub(crate) String);

impl ConfigFile {
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        daemon::config::load(self.config.as_deref(), daemon::config::environment())
            .map_err(|complaints| UsageError(complaints.to_string()).into())
    }
}

/// Runs one command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match CommandLine::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        // Help and version come this way too; clap knows where to print what, and its number for a mistake is ours.
        Err(error) => error.exit(),
    };
    match run_command(arguments.command) {
        Ok(exit) => exit.into(),
        Err(error) if out::is_closed(&error) => Exit::Ok.into(),
        Err(error) => {
            let usage = error.is::<UsageError>();
            for line in format!("{error:#}").lines() {
                out::complain(&format!("newswire: {line}"));
            }
            if usage { Exit::Usage.into() } else { Exit::Failure.into() }
        }
    }
}

fn run_command(command: Command) -> anyhow::Result<Exit> {
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
