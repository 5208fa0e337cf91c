//! `newswire sources remove`: removes sources from the list, and so from the daemon.

use std::collections::{BTreeSet, HashSet};

use clap::Args;
use daemon::Exit;
use news::{Catalogue, FeedList, SourceId, SourceStatus};
use sources::ListOnDisk;

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
    let listed = ask(context, &arguments).await;
    let file = ListFile::open(&context.list)?;
    let lists = &file.catalogue.lists;
    let (removed, missing) = choose(&file.catalogue, &arguments);
    let mut is_complete = missing.is_empty();
    for category in &arguments.category {
        let wanted = category.to_lowercase();
        let is_own = file.catalogue.sources.iter().any(|source| source.category.to_lowercase() == wanted);
        let with_it = lists_with(lists, listed.as_deref(), &wanted);
        is_complete &= is_own && with_it.is_empty();
        if !with_it.is_empty() {
            out::stderr_line(&from_lists(category, &with_it));
        } else if !is_own {
            orders::print_unknown_categories(std::slice::from_ref(category));
        }
    }
    for id in &missing {
        let place = match list_of(lists, listed.as_deref(), id) {
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

/// The sources of lists, as the daemon has them; `None` if it does not answer, or if they do not matter. It is asked once, and
/// before the list is locked: a daemon that hangs keeps no other command from changing it.
async fn ask(context: &CommandContext, arguments: &RemoveArgs) -> Option<Vec<SourceStatus>> {
    // A mistake is reported when the list is locked.
    let catalogue = ListOnDisk::read_or_empty(&context.list).ok()?.into_catalogue();
    let is_asked = !arguments.category.is_empty() || !choose(&catalogue, arguments).1.is_empty();
    if catalogue.lists.is_empty() || !is_asked {
        return None;
    }
    let sources = show::fetch(context).await.ok()?;
    Some(sources.into_iter().map(|(_, source)| source).filter(|source| source.list.is_some()).collect())
}

/// The list that a source comes from, and how sure that is; `None` if there is none.
fn list_of(
    lists: &[FeedList],
    listed: Option<&[SourceStatus]>,
    id: &str,
) -> Option<(SourceId, &'static str)> {
    match listed {
        Some(listed) => {
            let source = listed.iter().find(|source| source.id.as_str() == id)?;
            source.list.clone().map(|list| (list, "comes from"))
        }
        // The id says it.
        None => {
            let is_of = |list: &&FeedList| {
                id.strip_prefix(list.id.as_str()).is_some_and(|rest| rest.starts_with('-'))
            };
            lists.iter().find(is_of).map(|list| (list.id.clone(), "seems to come from"))
        }
    }
}

/// The lists whose sources have a category.
fn lists_with(lists: &[FeedList], listed: Option<&[SourceStatus]>, wanted: &str) -> BTreeSet<String> {
    match listed {
        Some(listed) => listed
            .iter()
            .filter(|source| source.category.to_lowercase() == wanted)
            .filter_map(|source| source.list.as_ref().map(ToString::to_string))
            .collect(),
        // Those with this category for all of their sources.
        None => {
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
fn choose<'a>(catalogue: &'a Catalogue, arguments: &'a RemoveArgs) -> (Vec<&'a str>, Vec<&'a str>) {
    let sources = &catalogue.sources;
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
    use control::ControlClient;
    use daemon::config::Config;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn the_daemon_is_asked_once_and_while_other_commands_may_change_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let (list, socket) = (folder.path().join("sources.toml"), folder.path().join("socket"));
        let text = "[[list]]\nid = \"planet\"\nfile = \"planet.opml\"\n[[source]]\nid = \"a\"\nurl = \"https://a.example/\"\n";
        std::fs::write(&list, text).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let context = CommandContext { config: Config::default(), daemon: ControlClient::new(socket), list };
        let arguments = RemoveArgs {
            ids: ["x1", "x2", "planet-a"].map(str::to_owned).to_vec(),
            category: vec!["x".to_owned(), "y".to_owned()],
        };
        let mut asked = 0;
        let daemon = async {
            loop {
                let connection = listener.accept().await.unwrap();
                asked += 1;
                assert!(ListFile::open(&context.list).is_ok(), "it is locked");
                drop(connection);
            }
        };
        let exit = tokio::select! {
            exit = run(&context, arguments) => exit.unwrap(),
            () = daemon => unreachable!("it serves for ever"),
        };
        assert_eq!((exit, asked), (Exit::Failure, 1));
        assert_eq!(std::fs::read_to_string(&context.list).unwrap(), text);
    }

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
