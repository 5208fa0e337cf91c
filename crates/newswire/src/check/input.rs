//! What an input of `newswire check` names: a file, an address, or a source of the list.

use std::{path::Path, sync::Arc};

use daemon::config::Config;
use news::{FeedList, FeedUrl, ListMark, Source, SourceId};
use sources::lists::ListCopies;

use crate::{address, config::read_catalogue, out::safe};

/// Names a source also where a file has its id as a name.
const SOURCE_PREFIX: &str = "source:";
/// Ends of the names of files, which no host has.
const FILE_ENDINGS: [&str; 10] = ["xml", "rss", "rdf", "atom", "json", "opml", "html", "htm", "txt", "gz"];

/// What to check.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CheckInput {
    /// A file, or standard input.
    File,
    /// The first of these addresses that has a server.
    Addresses(Vec<FeedUrl>),
    /// A source of the list, visited as the daemon does.
    Source(Box<Source>),
}

/// Finds out what an input names. In this order: standard input, `source:ID`, an address with its scheme, an existing file, a
/// source of the list, an address without its scheme.
///
/// # Errors
/// What it could have been, and the remedy.
pub(super) fn find(input: &str, config: &Config) -> Result<CheckInput, String> {
    if let Some(id) = input.strip_prefix(SOURCE_PREFIX) {
        return source(id, config);
    }
    let is_path = input == "-" || input.starts_with(['/', '.']) || Path::new(input).exists();
    let has_scheme = input.contains("://") || has_prefix(input, "feed:") || input.starts_with('<');
    if is_path && !has_scheme {
        return Ok(CheckInput::File);
    }
    if has_scheme {
        return addresses(input);
    }
    if SourceId::try_new(input).is_ok() {
        return source(input, config);
    }
    let ending = input.rsplit_once('.').map_or("", |(_, ending)| ending);
    if !input.contains(['/', ':']) && FILE_ENDINGS.contains(&ending.to_ascii_lowercase().as_str()) {
        return Ok(CheckInput::File);
    }
    addresses(input)
}

fn has_prefix(input: &str, prefix: &str) -> bool {
    input.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn addresses(input: &str) -> Result<CheckInput, String> {
    address::candidates(input).map(CheckInput::Addresses).map_err(|bad| bad.to_string())
}

fn source(id: &str, config: &Config) -> Result<CheckInput, String> {
    let list = &config.ingestd.sources;
    let place = list.display();
    let catalogue = read_catalogue(list).map_err(|bad| {
        format!("there is no file {}, and the list of sources cannot be read: {bad}", safe(id))
    })?;
    let is_of =
        |list: &&FeedList| id.strip_prefix(list.id.as_str()).is_some_and(|rest| rest.starts_with('-'));
    let is_own = catalogue.sources.iter().any(|source| source.id.as_str() == id);
    if !is_own && let Some(source) = listed(id, &catalogue.lists, &ListCopies::new(&config.store.path)) {
        return Ok(CheckInput::Source(Box::new(source)));
    }
    if let Some(list) = catalogue.lists.iter().find(is_of)
        && !is_own
    {
        return Err(format!(
            "{place} has no source {id}; if the list {0} has it, `newswire sources show {id}` shows its address, which `newswire check` takes",
            list.id
        ));
    }
    let found = catalogue.sources.into_iter().find(|source| source.id.as_str() == id);
    found.map(|source| CheckInput::Source(Box::new(source))).ok_or_else(|| {
        format!(
            "there is neither a file {0} nor a source {0} in {place}; `newswire sources list` shows all ids",
            safe(id)
        )
    })
}

/// A source of a list, from the copies of the daemon if they can be read.
fn listed(id: &str, lists: &[FeedList], copies: &ListCopies) -> Option<Source> {
    lists.iter().filter(|list| list.enabled).find_map(|list| {
        let sources = copies.sources(&list.id).ok()?;
        let source = sources.into_iter().find(|source| source.id.as_str() == id)?;
        let is_trusted = copies.memory(&list.id).is_ok_and(|memory| memory.is_trusted);
        let mark = ListMark { id: list.id.clone(), is_trusted };
        let category = list.category.clone().unwrap_or(source.category);
        Some(Source { list: Some(Arc::new(mark)), category, ..source })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_one_thing_and_a_mistake_says_what_it_could_have_been() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("sources.toml");
        std::fs::write(&list, "[[source]]\nid = \"bbc\"\nurl = \"https://example.org/bbc\"\n").unwrap();
        let mut config = Config::default();
        config.ingestd.sources = list;
        let find = |input: &str| super::find(input, &config);
        for file in ["-", "/etc/hostname", "./missing", "missing.xml", "feed.RSS", "Cargo.toml"] {
            assert_eq!(find(file), Ok(CheckInput::File), "{file}");
        }
        for (input, first) in [
            ("https://example.org/feed", "https://example.org/feed"),
            ("feed://example.org/a", "https://example.org/a"),
            ("example.org/feed.xml", "https://example.org/feed.xml"),
            ("example.org", "https://example.org/"),
            ("localhost:8000", "https://localhost:8000/"),
        ] {
            let Ok(CheckInput::Addresses(urls)) = find(input) else { panic!("{input}") };
            assert_eq!(urls[0].secret().as_str(), first);
        }
        for input in ["bbc", "source:bbc"] {
            let Ok(CheckInput::Source(source)) = find(input) else { panic!("{input}") };
            assert_eq!(source.id.as_str(), "bbc");
        }
        let missing = find("cnn").unwrap_err();
        assert!(
            missing.contains("neither a file cnn nor a source cnn in ") && missing.contains("sources list")
        );
        assert!(find("ftp://example.org/").is_err());
    }

    #[test]
    fn a_source_of_a_list_is_found_in_the_copy_of_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        (config.ingestd.sources, config.store.path) =
            (folder.path().join("sources.toml"), folder.path().join("store"));
        let list =
            "[[list]]\nid = \"planet\"\nurl = \"https://example.org/planet.opml\"\ncategory = \"tech\"\n";
        std::fs::write(&config.ingestd.sources, list).unwrap();
        let without_copy = find("planet-a", &config).unwrap_err();
        assert!(
            without_copy.contains("`newswire sources show planet-a` shows its address"),
            "{without_copy}"
        );
        let text = "[[source]]\nid = \"planet-a\"\nurl = \"https://example.org/a\"\n";
        let sources = news::Catalogue::parse(text).unwrap().sources;
        let list = SourceId::try_new("planet").unwrap();
        ListCopies::new(&config.store.path).lock().write_sources(&list, sources).unwrap();
        let Ok(CheckInput::Source(source)) = find("planet-a", &config) else { panic!("not found") };
        assert_eq!(source.url.secret().as_str(), "https://example.org/a");
        assert_eq!(source.category, "tech");
        assert!(source.has_foreign_address(), "fetch.allow does not count for it");
        assert!(find("planet-b", &config).is_err());
    }
}
