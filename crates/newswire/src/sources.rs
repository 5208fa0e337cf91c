//! `newswire sources`: the list of sources, and their state in the running daemon.
//!
//! The list is a file that people edit, too: a change here leaves the rest of it as it is, and then the daemon is asked to
//! reload it. Orders to visit, pause and resume go to the daemon only.

mod add;
mod export;
mod file;
mod handover;
mod import;
mod lists;
mod options;
mod orders;
mod refresh;
mod remove;
mod show;
mod turns;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use control::{ControlClient, ControlSocket};
use daemon::{Clock, Exit, config::Config};
use news::Timestamp;

use crate::config_file::ConfigFile;

/// Arguments of `newswire sources`.
#[derive(Debug, Args)]
pub(crate) struct SourcesArgs {
    #[command(subcommand)]
    command: SourcesCommand,
    #[command(flatten)]
    file: ConfigFile,
    /// List of sources to read and change [default: ingestd.sources]
    #[arg(long, value_name = "FILE", global = true)]
    sources: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum SourcesCommand {
    /// List all sources with their health, those with the most failures first
    List(show::ListArgs),
    /// Show everything about one source
    Show(show::ShowArgs),
    /// Visit sources now; requests stay conditional and within the limits per host
    Refresh(refresh::RefreshArgs),
    /// Stop visiting sources for a time or until they are resumed; survives restarts
    Pause(orders::PauseArgs),
    /// Resume paused sources
    Resume(orders::ResumeArgs),
    /// Add a feed to the list, by its address or by that of a page that links to it; fetches it once, and hands it over to
    /// newswire-ingestd
    Add(Box<add::AddArgs>),
    /// Remove sources from the list, each with the comment directly above it; a comment above an empty line stays
    Remove(remove::RemoveArgs),
    /// Add the feeds of an OPML file to the list, except those that it contains already, by address and request settings
    Import(import::ImportArgs),
    /// List the lists of feeds that the daemon reads by itself ([[list]]), or have it read some now
    Lists(lists::ListsArgs),
    /// Write the list as OPML, from which `import` restores it
    Export(export::ExportArgs),
}

/// How long the daemon may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Largest answer: the list of 100,000 sources.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What all commands here need.
struct CommandContext {
    config: Config,
    daemon: ControlClient,
    /// The list of sources.
    list: PathBuf,
}

pub(crate) async fn run(arguments: SourcesArgs) -> anyhow::Result<Exit> {
    let config = arguments.file.load()?.config;
    let daemon = ControlClient::new(config.socket(ControlSocket::Ingestd))
        .deadline(ANSWER_WITHIN)
        .body_bytes_max(ANSWER_BYTES_MAX);
    let list = arguments.sources.unwrap_or_else(|| config.ingestd.sources.clone());
    let context = CommandContext { config, daemon, list };
    match arguments.command {
        SourcesCommand::List(list) => show::list(&context, list).await,
        SourcesCommand::Show(show) => show::show(&context, show).await,
        SourcesCommand::Refresh(order) => refresh::refresh(&context, order).await,
        SourcesCommand::Pause(order) => orders::pause(&context, order).await,
        SourcesCommand::Resume(order) => orders::resume(&context, order).await,
        SourcesCommand::Add(arguments) => add::run(&context, *arguments).await,
        SourcesCommand::Remove(arguments) => remove::run(&context, arguments).await,
        SourcesCommand::Lists(arguments) => lists::run(&context, arguments).await,
        SourcesCommand::Import(arguments) => import::run(&context, arguments).await,
        SourcesCommand::Export(arguments) => export::run(&context, arguments).await,
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(Clock::system().now_millis())
}
