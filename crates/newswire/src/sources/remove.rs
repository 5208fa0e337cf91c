//! `newswire sources remove`: removes sources from the list, and so from the daemon.

use std::collections::HashSet;

use clap::Args;
use daemon::Exit;
use news::Catalogue;

use super::{CommandContext, file::ListFile, orders};
use crate::{
    config_file::UsageError,
    out::{self, safe},
};

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
    let text = Catalogue::remove_from(&file.text, &removed)
        .map_err(|complaints| UsageError(complaints.in_file(file.path().display()).to_string()))?;
    let left: Vec<_> =
        file.catalogue.sources.iter().filter(|source| !removed.contains(source.id.as_str())).collect();
    let reread = Catalogue::parse(&text).unwrap_or_default();
    anyhow::ensure!(
        reread.sources.iter().eq(left),
        "{} is written in a form that cannot be changed safely; remove the sources with an editor",
        file.path().display()
    );
    file.replace(&text)?;
    for id in arguments.ids.iter().filter(|id| listed.contains(id.as_str())) {
        out::stdout_line(&format!("removed {id}"))?;
    }
    match orders::reload(context).await?.print(file.path()) {
        Exit::Ok => Ok(exit),
        other => Ok(other),
    }
}
