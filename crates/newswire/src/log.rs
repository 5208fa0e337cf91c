//! `newswire log`: the files of the log. Nothing here opens the store: what is read is the journal, and it is not changed.

mod copies;
mod events;
mod import;
mod output;
mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use daemon::{Exit, config::Config};
use store::tools::ToolError;

use crate::{
    config_file::{ConfigFile, UsageError},
    out::{self, whole},
};

/// Arguments of `newswire log`.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
    #[command(flatten)]
    file: ConfigFile,
    /// Folder of the store; for verify, stats and export also that of a backup [default: store.path]
    #[arg(long, value_name = "DIR", global = true)]
    store: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// Read all segments, check every checksum, and compare them with what other files know of the log; changes nothing, and
    /// may run beside the daemon
    Verify(show::VerifyLogArgs),
    /// Show how many events and bytes each source has; changes nothing, and may run beside the daemon
    Stats(show::StatsArgs),
    /// Write the events as NDJSON, one per line, each exactly as the `data:` of the stream; changes nothing, and may run
    /// beside the daemon: it ends at the last event that is whole on disk
    Export(events::ExportLogArgs),
    /// Make a store of exported events: it has a new epoch, and ids are numbered from 1. What the sources show and the file
    /// has does not come again. An event that the file has twice comes once, so that exports may overlap. It can come again if a source changes guids and links at each visit, or shows more than the
    /// 32,768 newest items; an item that was published before the oldest line and is still shown comes, too
    Import(import::ImportLogArgs),
    /// Write all events that can be found in the files of a damaged store, of this or an earlier version, as NDJSON for
    /// `import`; changes nothing. Items that retention had removed may be among them
    Salvage(events::SalvageArgs),
    /// Copy the log to a folder, also of the running daemon; only what has changed since the last time is copied
    Backup(copies::BackupArgs),
    /// Put a backup or a copied store in place of the store, or decide about a store that is a copy. The daemon must be
    /// stopped. The log begins a new epoch: clients that were ahead of the copy are answered with `reset` and miss nothing
    /// silently. A copy that is not whole is refused
    Restore(copies::RestoreArgs),
}

/// What all commands here need.
struct LogFiles {
    config: Config,
    store: PathBuf,
    /// The store is not the one of the configuration.
    is_other: bool,
}

pub(crate) async fn run(arguments: LogArgs) -> anyhow::Result<Exit> {
    // If sled panics on the copy of itself that `verify` opens, the journal is checked without it: that panic is not shown.
    daemon::panics::expect_if(store::is_in_sled);
    daemon::panics::install();
    let config = arguments.file.load()?.config;
    let is_other = arguments.store.as_ref().is_some_and(|store| *store != config.store.path);
    let store = arguments.store.unwrap_or_else(|| config.store.path.clone());
    let files = LogFiles { config, store, is_other };
    match arguments.command {
        LogCommand::Verify(arguments) => show::verify(&files, &arguments),
        LogCommand::Stats(arguments) => show::stats(&files, &arguments),
        LogCommand::Export(arguments) => events::export(&files, &arguments),
        LogCommand::Import(arguments) => import::import(&files, &arguments),
        LogCommand::Salvage(arguments) => events::salvage(&arguments),
        LogCommand::Backup(arguments) => copies::backup(&files, &arguments).await,
        LogCommand::Restore(arguments) => copies::restore(&files, &arguments),
    }
}

/// A number of things: `1 event`, `3 events`.
fn counted(number: u64, thing: &str) -> String {
    out::count(usize::try_from(number).unwrap_or(usize::MAX), thing)
}

/// What the command ends with.
fn failed(error: ToolError) -> anyhow::Error {
    match error {
        ToolError::Output(error) => error.into(),
        ToolError::NoStore(_)
        | ToolError::NotEmpty(_)
        | ToolError::NothingThere(_)
        | ToolError::IsTheStore(_)
        | ToolError::NoParent(_)
        | ToolError::InsideStore { .. }
        | ToolError::OtherEpoch { .. }
        | ToolError::AboveHead { .. }
        | ToolError::OtherLog { .. } => UsageError(whole(&error.to_string())).into(),
        // The text has its sources.
        error => anyhow::Error::msg(whole(&error.to_string())),
    }
}
