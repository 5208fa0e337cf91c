//! `newswire sources remove`: removes sources from the list, and so from the daemon.

use std::collections::{BTreeSet, HashSet};

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
    let (removed, missing) = choose(&file, &arguments);
    let mut is_complete = missing.is_empty();
    for category in &arguments.category {
        let wanted = category.to_lowercase();
        let is_own = file.catalogue.sources.iter().any(|source| source.category.to_lowercase() == wanted);
        let lists = lists_with(context, &file, &wanted).await;
        is_complete &= is_own && lists.is_empty();
        if !lists.is_empty() {
            out::stderr_line(&from_lists(category, &lists));
        } else if !is_own {
            orders::print_unknown_categories(std::slice::from_ref(category));
        }
    }
    for id in &missing {
        let place = match list_of(context, &file, id).await {
            Some((list, comes)) => format!(
                "{} {comes} the list {list}, and comes back with it: take it out of that list, or write it into {} with enabled = false",
                safe(id),
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

/// The list that a source comes from, and how sure that is; `None` if there is none.
async fn list_of(context: &CommandContext, file: &ListFile, id: &str) -> Option<(SourceId, &'static str)> {
    let lists = &file.catalogue.lists;
    if lists.is_empty() {
        return None;
    }
    match show::fetch_one(context, id).await {
        Ok(status) => status?.list.map(|list| (list, "comes from")),
        // The daemon does not run: the id says it.
        Err(_) => {
            let is_of = |list: &&FeedList| {
                id.strip_prefix(list.id.as_str()).is_some_and(|rest| rest.starts_with('-'))
            };
            lists.iter().find(is_of).map(|list| (list.id.clone(), "seems to come from"))
        }
    }
}

/// The lists whose sources have a category.
async fn lists_with(context: &CommandContext, file: &ListFile, wanted: &str) -> BTreeSet<String> {
    let lists = &file.catalogue.lists;
    if lists.is_empty() {
        return BTreeSet::new();
    }
    match show::fetch(context).await {
        Ok(sources) => sources
            .into_iter()
            .filter(|(_, source)| source.category.to_lowercase() == wanted)
            .filter_map(|(_, source)| source.list.map(|list| list.to_string()))
            .collect(),
        // The daemon does not run: the lists with this category for all of their sources.
        Err(_) => {
            let is_all = |category: &String| category.to_lowercase() == wanted;
            let has = |list: &&FeedList| list.category.as_ref().is_some_and(is_all);
            lists.iter().filter(has).map(|list| list.id.to_string()).collect()
        }
    }
}

fn from_lists(category: &str, lists: &BTreeSet<String>) -> String {
    let names = lists.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let lists = if lists.len() == 1 { "the list" } else { "the lists" };
    format!(
        "sources with the category {} come from {lists} {names} and stay: take them out there",
        safe(category)
    )
}

/// The ids to remove, each once, and those that are not in the list.
fn choose<'a>(file: &'a ListFile, arguments: &'a RemoveArgs) -> (Vec<&'a str>, Vec<&'a str>) {
    let sources = &file.catalogue.sources;
    let listed: HashSet<_> = sources.iter().map(|source| source.id.as_str()).collect();
    let (mut removed, mut missing) = (Vec::new(), Vec::new());
    for id in &arguments.ids {
        if listed.contains(id.as_str()) {
            removed.push(id.as_str());
        } else {
            missing.push(id.as_str());
        }
    }
    for category in &arguments.category {
        let wanted = category.to_lowercase();
        let is_in = |source: &&news::Source| source.category.to_lowercase() == wanted;
        removed.extend(sources.iter().filter(is_in).map(|source| source.id.as_str()));
    }
    let mut once = HashSet::new();
    removed.retain(|id| once.insert(*id));
    (removed, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_category_of_lists_names_them() {
        let told = |lists: &[&str]| from_lists("Tech", &lists.iter().map(ToString::to_string).collect());
        assert_eq!(
            told(&["planet"]),
            "sources with the category Tech come from the list planet and stay: take them out there"
        );
        assert!(told(&["b", "a"]).contains("the lists a, b and stay"));
    }
}
