//! `newswire sources remove`: removes sources from the list, and so from the daemon.

use std::collections::HashSet;

use clap::Args;
use daemon::Exit;
use news::{FeedList, SourceId};

use super::{CommandContext, file::ListFile, orders, show};
use crate::out::{self, safe};

/// Arguments of `newswire sources remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Ids of the sources
    #[arg(required_unless_present = "category", value_name = "ID")]
    ids: Vec<String>,
    /// Remove all sources of this category; may be given several times
    #[arg(long, value_name = "CATEGORY")]
    category: Vec<String>,
}

pub(super) async fn run(context: &CommandContext, arguments: RemoveArgs) -> anyhow::Result<Exit> {
    let file = ListFile::open(&context.list)?;
    let (removed, missing, is_complete) = choose(&file, &arguments);
    for id in &missing {
        let place = match list_of(context, &file, id).await {
            Some(list) => format!(
                "{id} comes from the list {list}, and comes back with it: take it out of that list, or write it into {} with enabled = false",
                file.path().display()
            ),
            None => format!("{} is not in {}", safe(id), file.path().display()),
        };
        out::stderr_line(&place);
    }
    let exit = if is_complete { Exit::Ok } else { Exit::Failure };
    if removed.is_empty() {
        return Ok(exit);
    }
    file.remove(&removed.iter().copied().collect())?;
    for id in &removed {
        out::stdout_line(&format!("removed {id}"))?;
    }
    match orders::reload(context).await?.print(file.path()) {
        Exit::Ok => Ok(exit),
        other => Ok(other),
    }
}

/// The list that a source comes from; `None` if there is none.
async fn list_of(context: &CommandContext, file: &ListFile, id: &str) -> Option<SourceId> {
    let lists = &file.catalogue.lists;
    if lists.is_empty() {
        return None;
    }
    match show::fetch_one(context, id).await {
        Ok(status) => status?.list,
        // The daemon does not run: the id says it.
        Err(_) => {
            let is_of = |list: &&FeedList| {
                id.strip_prefix(list.id.as_str()).is_some_and(|rest| rest.starts_with('-'))
            };
            lists.iter().find(is_of).map(|list| list.id.clone())
        }
    }
}

/// The ids to remove, each once; those that are not in the list; and whether all that was named is in it. Unknown categories
/// are told.
fn choose<'a>(file: &'a ListFile, arguments: &'a RemoveArgs) -> (Vec<&'a str>, Vec<&'a str>, bool) {
    let sources = &file.catalogue.sources;
    let listed: HashSet<_> = sources.iter().map(|source| source.id.as_str()).collect();
    let (mut removed, mut missing, mut is_complete) = (Vec::new(), Vec::new(), true);
    for id in &arguments.ids {
        if listed.contains(id.as_str()) {
            removed.push(id.as_str());
        } else {
            missing.push(id.as_str());
            is_complete = false;
        }
    }
    for category in &arguments.category {
        let wanted = category.to_lowercase();
        let before = removed.len();
        let is_in = |source: &&news::Source| source.category.to_lowercase() == wanted;
        removed.extend(sources.iter().filter(is_in).map(|source| source.id.as_str()));
        if removed.len() == before {
            is_complete &= !orders::print_unknown_categories(std::slice::from_ref(category));
        }
    }
    let mut once = HashSet::new();
    removed.retain(|id| once.insert(*id));
    (removed, missing, is_complete)
}
