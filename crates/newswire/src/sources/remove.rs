//! `newswire sources remove`: out of the list, and out of the daemon.

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
    /// Their ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub(super) async fn run(context: &CommandContext, arguments: RemoveArgs) -> anyhow::Result<Exit> {
    let file = ListFile::open(&context.list)?;
    let there: HashSet<_> = file.catalogue.sources.iter().map(|source| source.id.as_str()).collect();
    let wanted: HashSet<_> = arguments.ids.iter().map(String::as_str).collect();
    let mut exit = Exit::Ok;
    for id in &arguments.ids {
        if !there.contains(id.as_str()) {
            out::stderr_line(&format!("{} is not in {}", safe(id), file.path().display()));
            exit = Exit::Failure;
        }
    }
    if wanted.is_disjoint(&there) {
        return Ok(exit);
    }
    let text = Catalogue::remove_from(&file.text, &wanted).map_err(|complaints| {
        let line = |c: &news::Complaint| format!("{}:{}: {}", file.path().display(), c.line, c.message);
        UsageError(complaints.iter().map(line).collect::<Vec<_>>().join("\n"))
    })?;
    let left: Vec<_> =
        file.catalogue.sources.iter().filter(|source| !wanted.contains(source.id.as_str())).collect();
    let reread = Catalogue::parse(&text).unwrap_or_default();
    anyhow::ensure!(
        reread.sources.iter().eq(left),
        "{} is written in a way that is not understood well enough to change it: take them out by hand",
        file.path().display()
    );
    file.replace(&text)?;
    for id in arguments.ids.iter().filter(|id| there.contains(id.as_str())) {
        out::stdout_line(&format!("{id} is removed"))?;
    }
    match orders::reload(context).await?.tell(file.path()) {
        Exit::Ok => Ok(exit),
        other => Ok(other),
    }
}
