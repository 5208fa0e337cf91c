//! The feeds that are sources because a list has them.

use std::{collections::HashMap, io};

use news::{Catalogue, FeedUrl, SourceId};

use super::copies::ListCopies;
use crate::known::{KnownFeeds, address_key};

/// A feed that is a source because a list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFeed {
    /// The list.
    pub list: SourceId,
    /// The id of the source. A source of the files that replaces it keeps its state with this id only.
    pub id: SourceId,
}

/// The feeds of lists by their addresses.
#[derive(Debug, Default)]
pub struct ListedFeeds(HashMap<String, ListedFeed>);

impl ListedFeeds {
    /// Those that the copies of the lists of a catalogue have, as [`super::merge`] takes them; and the lists whose copies
    /// cannot be read.
    #[must_use]
    pub fn read(catalogue: &Catalogue, copies: &ListCopies) -> (Self, Vec<(SourceId, io::Error)>) {
        let own = KnownFeeds::new(catalogue);
        let (mut feeds, mut unread) = (HashMap::new(), Vec::new());
        for list in catalogue.lists.iter().filter(|list| list.enabled) {
            let sources = copies.sources(&list.id).unwrap_or_else(|error| {
                unread.push((list.id.clone(), error));
                Vec::new()
            });
            for source in sources {
                if own.feed(&source.url).is_none() && !own.has_id(&source.id) {
                    let feed = ListedFeed { list: list.id.clone(), id: source.id };
                    feeds.entry(address_key(&source.url)).or_insert(feed);
                }
            }
        }
        (Self(feeds), unread)
    }

    /// The feed with this address.
    #[must_use]
    pub fn get(&self, url: &FeedUrl) -> Option<&ListedFeed> {
        self.0.get(&address_key(url))
    }
}

#[cfg(test)]
mod tests {
    use news::Source;

    use super::*;

    #[test]
    fn a_feed_of_lists_is_found_by_its_whole_address_whatever_the_scheme() {
        let store = tempfile::tempdir().unwrap();
        let copies = ListCopies::new(store.path());
        let id = |text: &str| SourceId::try_new(text).unwrap();
        let url = |text: &str| FeedUrl::try_new(text).unwrap();
        let write = |list: &str, feeds: &[(&str, &str)]| {
            let sources = feeds.iter().map(|(source, address)| Source::new(id(source), url(address)));
            copies.lock().write_sources(&id(list), sources.collect()).unwrap();
        };
        let channel = |id: &str| format!("https://video.example/feed?channel_id={id}");
        let [one, two, three] = ["UC1", "UC2", "UC3"].map(channel);
        write(
            "planet",
            &[("planet-one", &one), ("planet-own", "https://own.example/"), ("taken", "https://x.example/")],
        );
        write("later", &[("later-one", &one.replace("https", "http")), ("later-two", &two)]);
        write("off", &[("off-three", &three)]);
        let list = |id: &str, more: &str| format!("[[list]]\nid = \"{id}\"\nfile = \"{id}.opml\"\n{more}");
        let source = |id: &str, url: &str| format!("[[source]]\nid = \"{id}\"\nurl = \"{url}\"\n");
        let text = list("planet", "")
            + &list("later", "")
            + &list("none", "")
            + &list("off", "enabled = false\n")
            + &source("mine", "http://own.example/")
            + &source("taken", "https://taken.example/");
        let catalogue = Catalogue::parse(&text).unwrap();
        let (listed, unread) = ListedFeeds::read(&catalogue, &copies);
        assert!(unread.is_empty(), "a list without a copy has no feeds: {unread:?}");
        let found =
            |address: &str| listed.get(&url(address)).map(|feed| format!("{} {}", feed.list, feed.id));
        for address in [one.clone(), one.replace("https", "http"), one + "#x"] {
            assert_eq!(found(&address).as_deref(), Some("planet planet-one"), "{address}");
        }
        assert_eq!(found(&two).as_deref(), Some("later later-two"));
        for address in [&channel("UC4"), &three, "https://own.example/", "https://x.example/"] {
            assert_eq!(found(address), None, "{address}");
        }
        // What is imported keeps the id that it has in a list, unless it has one of its own.
        let text = format!(
            "<opml xmlns:newswire='urn:newswire:opml'><outline text='a' xmlUrl='{}'/><outline text='b' xmlUrl='{two}' \
             newswire:id='b'/><outline text='third' xmlUrl='{three}'/></opml>",
            channel("UC1").replace("https", "http")
        );
        let opml = feed::opml::read_opml(text.as_bytes()).unwrap();
        let plan = crate::opml::plan_with_requests(&opml, &catalogue, None, &listed);
        let ids: Vec<_> = plan.added.iter().map(|added| added.source.id.as_str()).collect();
        assert_eq!(ids, ["planet-one", "b", "third"]);
        std::fs::write(store.path().join("lists/later.toml"), "damaged").unwrap();
        let (listed, unread) = ListedFeeds::read(&catalogue, &copies);
        assert_eq!((unread.len(), unread[0].0.as_str()), (1, "later"));
        assert!(listed.get(&url(&channel("UC1"))).is_some());
    }
}
