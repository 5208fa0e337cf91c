//! `newswire sources export`: the list as OPML, with the pauses of the daemon when it runs.

use std::{collections::HashMap, fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use daemon::Exit;

use super::{CommandContext, opml, show};
use crate::{
    config::read_catalogue,
    out::{self, safe},
};

/// Arguments of `newswire sources export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Where to write it [default: standard output]
    #[arg(value_name = "FILE")]
    opml: Option<PathBuf>,
    /// Keep user names, passwords and keys that are part of an address
    #[arg(long)]
    with_secrets: bool,
}

pub(super) async fn run(context: &CommandContext, arguments: ExportArgs) -> anyhow::Result<Exit> {
    let catalogue = read_catalogue(&context.list)?;
    let pauses = match show::fetch(context).await {
        Ok(sources) => sources.into_iter().filter_map(|(_, s)| Some((s.id, s.paused?))).collect(),
        Err(error) => {
            out::stderr_line(&format!(
                "pauses are left out, as only the running daemon knows them: {error:#}"
            ));
            HashMap::new()
        }
    };
    let (text, stripped) = opml::write(&catalogue, &pauses, arguments.with_secrets);
    for id in stripped {
        out::stderr_line(&format!(
            "{id}: its address was written without its secrets; --with-secrets keeps them"
        ));
    }
    match arguments.opml {
        Some(path) => {
            let mut options = fs::OpenOptions::new();
            // With secrets in it, a new file is for its owner alone.
            options.mode(if arguments.with_secrets { 0o600 } else { 0o666 });
            let file = options.write(true).create(true).truncate(true).open(&path);
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .with_context(|| format!("write {}", safe(&path.display().to_string())))?;
        }
        None => out::stdout_line(text.trim_end())?,
    }
    Ok(Exit::Ok)
}
