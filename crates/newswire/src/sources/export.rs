//! `newswire sources export`: writes the list as OPML, with the pauses if the daemon is running.

use std::{collections::HashMap, fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use daemon::Exit;
use sources::opml;

use super::{CommandContext, show};
use crate::{
    config::read_catalogue,
    out::{self, safe},
};

/// Arguments of `newswire sources export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// File to write; - or none: standard output
    #[arg(value_name = "FILE|-")]
    opml: Option<PathBuf>,
    /// Keep user names, passwords and keys in URLs, headers, and proxies with a password
    #[arg(long)]
    with_secrets: bool,
}

pub(super) async fn run(context: &CommandContext, arguments: ExportArgs) -> anyhow::Result<Exit> {
    let catalogue = read_catalogue(&context.list)?;
    let pauses = match show::fetch(context).await {
        Ok(sources) => sources.into_iter().filter_map(|(_, s)| Some((s.id, s.paused?))).collect(),
        Err(error) => {
            out::stderr_line(&format!(
                "pauses are not exported, because only the running daemon knows them: {error:#}"
            ));
            HashMap::new()
        }
    };
    if !catalogue.lists.is_empty() {
        let ids: Vec<_> = catalogue.lists.iter().map(|list| list.id.as_str()).collect();
        out::stderr_line(&format!(
            "the feeds of lists are not exported, because the lists have them, and [[list]] tables are not either: {}",
            ids.join(", ")
        ));
    }
    let (text, left_out) = opml::write(&catalogue, &pauses, arguments.with_secrets);
    for opml::LeftOut { id, secrets, files, same_as } in left_out {
        if !secrets.is_empty() {
            let secrets = secrets.join(" and ");
            out::stderr_line(&format!("{id}: left out {secrets}; --with-secrets keeps secrets"));
        }
        if !files.is_empty() {
            let files = files.join(", ");
            out::stderr_line(&format!("{id}: what is in its files ({files}) is not exported; copy them"));
        }
        if let Some(same) = same_as {
            out::stderr_line(&format!(
                "{id}: in this export it has the address and the request settings of {same}; `import` adds {same} only"
            ));
        }
    }
    match arguments.opml.filter(|path| path.as_os_str() != "-") {
        Some(path) => {
            let mut options = fs::OpenOptions::new();
            // With secrets, a new file is readable by its owner only.
            options.mode(if arguments.with_secrets { 0o600 } else { 0o666 });
            let file = options.write(true).create(true).truncate(true).open(&path);
            file.and_then(|mut file| file.write_all(text.as_bytes()))
                .with_context(|| format!("write {}", safe(&path.display().to_string())))?;
        }
        None => out::stdout_line(text.trim_end())?,
    }
    Ok(Exit::Ok)
}
