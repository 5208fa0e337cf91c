//! An upgrade sends nothing again. `version1/` has small feeds, for each the seen set that the first version stored after
//! it had visited it (`.seen`), and the keys and titles of the events that it recorded (`.keys`).
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use news::{Item, Timestamp};
use seen::{BadSeenSet, Classification, ItemStatus, SeenSet};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/version1")
}

/// The feeds, by name, with what the first version stored.
fn stored() -> BTreeMap<String, (String, SeenSet)> {
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let feeds = files.filter(|file| file.extension().is_some_and(|e| e == "xml" || e == "json"));
    let feeds: BTreeMap<_, _> = feeds
        .map(|file| {
            let seen = SeenSet::decode(1, &fs::read(file.with_extension("seen")).unwrap()).unwrap();
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            (name, (fs::read_to_string(file).unwrap(), seen))
        })
        .collect();
    assert!(feeds.len() >= 12, "every feed is there");
    feeds
}

fn items(document: &str) -> Vec<Item> {
    seen::oldest_first(feed::read(document.as_bytes(), &feed::Hints::default()).unwrap().items)
}

/// A visit after the upgrade.
fn visit(seen: &mut SeenSet, document: &str) -> Classification {
    let classification = seen.classify(&items(document), Timestamp::from_millis(1_900_000_000_000));
    *seen = SeenSet::decode(SeenSet::LAYOUT, &seen.encode()).unwrap();
    classification
}

#[test]
fn the_visits_after_an_upgrade_send_nothing() {
    for (name, (document, mut seen)) in stored() {
        let first = visit(&mut seen, &document);
        assert!(first.changed, "{name}: it is written in the new layout");
        assert_eq!(first.count(ItemStatus::Known), first.items.len(), "{name}: {:?}", first.items);
        let second = visit(&mut seen, &document);
        assert_eq!(second.count(ItemStatus::Known), second.items.len(), "{name}: {:?}", second.items);
        assert!(!second.changed, "{name}");
    }
}

#[test]
fn an_update_after_the_upgrade_has_the_key_that_was_published_before_it() {
    for (name, (document, mut seen)) in stored() {
        let published = fs::read_to_string(folder().join(format!("{name}.keys"))).unwrap();
        let published: BTreeMap<_, _> = published
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(key, title)| (title, key))
            .collect();
        let first = visit(&mut seen, &document);
        let mut kept = 0;
        for (item, classified) in items(&document).iter().zip(&first.items) {
            kept += usize::from(published.get(item.title.as_str()) == Some(&classified.key.as_str()));
        }
        // Text is read better than before, which gives notes without guid and link another key.
        if !matches!(name.as_str(), "texts" | "texts-dated") {
            assert!(kept * 2 >= published.len() && kept > 0, "{name}: {kept} of {}", published.len());
        }
    }
    let (document, mut seen) = stored().remove("opaque-guids").unwrap();
    let key = visit(&mut seen, &document).items[0].key.clone();
    let edited = visit(&mut seen, &document.replace("Report 1", "Report 1, corrected"));
    assert!(matches!(edited.items[0].status, ItemStatus::Changed { .. }), "{edited:?}");
    assert_eq!((&edited.items[0].key, edited.count(ItemStatus::Known)), (&key, 3));
}

#[test]
fn an_item_that_is_new_at_the_first_visit_after_an_upgrade_is_sent() {
    let newer = "<item><guid>new</guid><link>https://site.example/new</link><title>New</title>";
    for dated in ["", "<pubDate>Fri, 01 Jan 2027 00:00:00 GMT</pubDate>"] {
        for (name, (document, mut seen)) in stored() {
            let Some((head, tail)) = document.split_once("<item>") else { continue };
            let first = visit(&mut seen, &format!("{head}{newer}{dated}</item><item>{tail}"));
            assert_eq!(first.count(ItemStatus::New), 1, "{name}: {:?}", first.items);
        }
    }
}

#[test]
fn an_item_that_returns_after_the_upgrade_is_known() {
    let (document, mut seen) = stored().remove("opaque-guids").unwrap();
    let all: Vec<_> = document.split_inclusive("</item>").collect();
    let part = format!("{}{}", all[0], all[all.len() - 1]);
    assert_eq!(visit(&mut seen, &part).items.len(), 1);
    let returned = visit(&mut seen, &document);
    assert_eq!(returned.count(ItemStatus::Known), 4, "{:?}", returned.items);
}

#[test]
fn another_layout_is_refused() {
    assert_eq!(SeenSet::decode(4, &[]).unwrap_err(), BadSeenSet::Layout(4));
    assert_eq!(SeenSet::decode(0, &[]).unwrap_err(), BadSeenSet::Layout(0));
}
