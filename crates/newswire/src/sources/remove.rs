//! `newswire sources remove`: removes sources from the list, and so from the daemon.

use std::collections::HashSet;

use clap::Args;
use daemon::Exit;

use super::{CommandContext, file::ListFile, orders};
use crate::out::{self, safe};

/// Arguments of `newswire sources remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Ids of the sources
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub(super) async fn run(context: &CommandContext, arguments: RemoveArgs) -> anyhow::Result<Exit> {
    let file = ListFile::open(&context.list)?;
    let listed: HashSet<_> = file.catalogue.sources.iter().map(|source| source.id.as_str()).collect();
    let removed: HashSet<_> = arguments.ids.iter().map(String::as_str).collect();
    let mut exit = Exit::Ok;
    for id in &arguments.ids {
        if !listed.contains(id.as_str()) {
            out::stderr_line(&format!("{} is not in {}", safe(id), file.path().display()));
            exit = Exit::Failure;
        }
    }
    if removed.is_disjoint(&listed) {
        return Ok(exit);
    }
    file.remove(&removed)?;
    for id in arguments.ids.iter().filter(|id| listed.contains(id.as_str())) {
        out::stdout_line(&format!("removed {id}"))?;
    }
    match orders::reload(context).await?.print(file.path()) {
        Exit::Ok => Ok(exit),
        other => Ok(other),
    }
}
