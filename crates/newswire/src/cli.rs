//! The command line: parsed, run, and its error printed.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use daemon::{Exit, line_queue::print_last};

use crate::{
    bundle, check, config, config_file::UsageError, doctor, examples, log, logs, manual, out, reload,
    sources, tail, up, verify,
};

/// A self-hosted news wire: feeds in, Server-Sent Events out
#[derive(Debug, Parser)]
#[command(name = "newswire", version, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run both daemons in the foreground and print their logs, until Ctrl-C
    Up(up::UpArgs),
    /// Print items as they arrive; reconnects and resumes by itself
    Tail(tail::TailArgs),
    /// Fetch or read feeds and show what newswire makes of them, without storing anything
    Check(check::CheckArgs),
    /// Diagnose a hang: gather evidence from outside the processes and print one verdict; works while both are frozen
    Doctor(Box<doctor::DoctorArgs>),
    /// Check or show the configuration
    Config(config::ConfigArgs),
    /// Make both daemons read their configuration again, and show what changed and what needs a restart
    Reload(reload::ReloadArgs),
    /// List, add, remove, pause and refresh sources
    Sources(sources::SourcesArgs),
    /// Run six checks against a running gateway: answers, leaks, blocked loops, exact resumption; safe in production
    Verify(verify::VerifyArgs),
    /// Check, count, export, import, salvage, back up and restore the log on disk
    Log(log::LogArgs),
    /// Collect a support bundle with secrets removed; works while both daemons are down
    Bundle(bundle::BundleArgs),
    /// Read the journal of both daemons, group their warnings and errors, change the log level
    Logs(logs::LogsArgs),
    /// Write the man pages and shell completions of all three programs, for packagers
    #[command(hide = true)]
    Manual(manual::ManualArgs),
}

/// The definition of the command line, without the examples.
pub(crate) fn definition() -> clap::Command {
    CommandLine::command()
}

/// Runs one command line.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = examples::add_to_help(definition())
        .try_get_matches_from(arguments)
        .and_then(|matches| CommandLine::from_arg_matches(&matches));
    let command = match parsed {
        Ok(CommandLine { command }) => command,
        // Help and version arrive here too; clap prints each to the right stream, and its exit code for a mistake is ours.
        Err(error) => error.exit(),
    };
    match run_command(command) {
        Ok(exit) => exit.into(),
        Err(error) if out::is_closed(&error) => Exit::Ok.into(),
        Err(error) => {
            let text: String =
                format!("{error:#}").lines().map(|line| format!("newswire: {line}\n")).collect();
            print_last(&text);
            if error.is::<UsageError>() { Exit::Usage.into() } else { Exit::Failure.into() }
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
        Command::Log(arguments) => runtime.block_on(log::run(arguments)),
        Command::Bundle(arguments) => runtime.block_on(bundle::run(arguments)),
        Command::Logs(arguments) => runtime.block_on(logs::run(arguments)),
        Command::Manual(arguments) => manual::run(&arguments),
    };
    // A thread of libc's resolver may still be waiting for an answer that is no longer needed.
    runtime.shutdown_background();
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_reads_durations_in_one_grammar() {
        let parse = |line: &str| CommandLine::try_parse_from(line.split(' '));
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
        let bad = parse("newswire tail --since 1.5h").unwrap_err();
        assert_eq!(bad.exit_code(), 2);
        assert!(bad.to_string().contains("'1.5h'") && bad.to_string().contains("such as 90m"), "{bad}");
        assert!(parse("newswire verify --for 1m30s").is_ok());
        assert!(
            parse("newswire verify --for 6m").unwrap_err().to_string().contains("6m is outside 1s to 5m")
        );
    }
}
