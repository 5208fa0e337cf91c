//! `newswire sources`: the list of sources, and what the running daemon says about them.
//!
//! The list is a file that people edit too: every change here keeps the rest of it as it is, and then asks the daemon
//! over its socket to read it again. Orders to visit and to pause go to the daemon alone.

mod add;
mod export;
mod file;
mod import;
mod opml;
mod orders;
mod remove;
mod show;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use daemon::{Clock, Exit, config::Config};
use news::Timestamp;
use wire::{Endpoint, PeerClient};

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
    /// Every source with its health, the unhealthy ones first
    List(show::ListArgs),
    /// One source, in full
    Show(show::ShowArgs),
    /// Visit sources now: still conditional, still within the bounds of their hosts
    Refresh(orders::RefreshArgs),
    /// Stop visiting sources, until a date or until they are resumed; survives restarts
    Pause(orders::PauseArgs),
    /// End the pause of sources
    Resume(orders::ResumeArgs),
    /// Add a feed, or the feed that a page names, to the list; visits it once
    Add(add::AddArgs),
    /// Take sources out of the list
    Remove(remove::RemoveArgs),
    /// Add the feeds of an OPML file to the list; those that are known are left alone
    Import(import::ImportArgs),
    /// Write the list as OPML, which `import` reads back to the same list
    Export(export::ExportArgs),
}

/// How long the daemon may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Largest answer: the list of 100,000 sources.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What to look at when the daemon does not answer.
const RUNNING: &str = "is newswire-ingestd running, and daemon.run_dir the same?";

/// What every command here works with.
struct CommandContext {
    config: Config,
    daemon: PeerClient,
    /// The list of sources.
    list: PathBuf,
}

pub(crate) async fn run(arguments: SourcesArgs) -> anyhow::Result<Exit> {
    let config = arguments.file.load()?.config;
    let daemon = PeerClient::try_new(Endpoint::Socket(config.daemon.run_dir.join("ingestd.sock")))?;
    let list = arguments.sources.unwrap_or_else(|| config.ingestd.sources.clone());
    let context = CommandContext { config, daemon, list };
    match arguments.command {
        SourcesCommand::List(list) => show::list(&context, list).await,
        SourcesCommand::Show(show) => show::show(&context, show).await,
        SourcesCommand::Refresh(order) => orders::refresh(&context, order).await,
        SourcesCommand::Pause(order) => orders::pause(&context, order).await,
        SourcesCommand::Resume(order) => orders::resume(&context, order).await,
        SourcesCommand::Add(arguments) => add::run(&context, arguments).await,
        SourcesCommand::Remove(arguments) => remove::run(&context, arguments).await,
        SourcesCommand::Import(arguments) => import::run(&context, arguments).await,
        SourcesCommand::Export(arguments) => export::run(&context, arguments).await,
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(Clock::system().now_millis())
}
