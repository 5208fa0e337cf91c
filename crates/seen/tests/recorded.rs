//! Items that were recorded elsewhere become known, and nothing else changes.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use news::{EventKind, Item, ItemEvidence, Timestamp};
use seen::{ItemStatus, RecordedItems, SeenSet};

struct Entry {
    guid: String,
    link: String,
    title: String,
    text: String,
}

fn entry(n: u32, text: &str) -> Entry {
    let link = format!("https://news.example/{n}");
    Entry { guid: link.clone(), link, title: format!("Article {n}"), text: format!("{text} {n}") }
}

/// The items of a document with these entries, the newest first; oldest first.
fn document(entries: &[Entry]) -> Vec<Item> {
    let mut rss = String::from("<rss version=\"2.0\"><channel><title>Feed</title>");
    for Entry { guid, link, title, text } in entries {
        write!(rss, "<item><guid>{guid}</guid><link>{link}</link><title>{title}</title>").unwrap();
        write!(rss, "<description>{text}</description>").unwrap();
        write!(rss, "<pubDate>Mon, 01 Jan 2024 00:00:00 GMT</pubDate></item>").unwrap();
    }
    rss.push_str("</channel></rss>");
    seen::oldest_first(feed::read(rss.as_bytes(), &feed::Hints::default()).unwrap().items)
}

fn at(s: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + s * 1000)
}

/// As the events of another log have them: without evidence, which is made of the item.
fn add(recorded: &mut RecordedItems, kind: EventKind, entries: &[Entry], first_seen: Timestamp) {
    for mut item in document(entries) {
        item.evidence = feed::evidence_of(&Item { evidence: ItemEvidence::default(), ..item.clone() });
        recorded.add(kind, &item, first_seen);
    }
}

fn recorded(kind: EventKind, entries: &[Entry], first_seen: Timestamp) -> RecordedItems {
    let mut recorded = RecordedItems::default();
    add(&mut recorded, kind, entries, first_seen);
    recorded
}

fn statuses(seen: &mut SeenSet, entries: &[Entry], s: i64) -> Vec<ItemStatus> {
    let classified = seen.classify(&document(entries), at(s)).items;
    // The newest first, as the entries.
    classified.iter().rev().map(|item| item.status).collect()
}

/// A set of articles 1 to 3.
fn three() -> SeenSet {
    let mut seen = SeenSet::default();
    statuses(&mut seen, &[entry(3, "Text"), entry(2, "Text"), entry(1, "Text")], 0);
    seen
}

/// Changed, and seen first at this time.
fn since(s: i64) -> ItemStatus {
    ItemStatus::Changed { first_seen: at(s) }
}

#[test]
fn an_item_that_was_recorded_elsewhere_is_known_with_the_time_at_which_it_was_seen_first() {
    let mut seen = three();
    let new = [entry(5, "Text"), entry(4, "Text")];
    assert!(seen.add_recorded(&recorded(EventKind::Item, &new, at(5))));
    assert!(!seen.add_recorded(&recorded(EventKind::Item, &new, at(6))), "it is known");
    let seen_now = [entry(6, "Text"), entry(5, "Text"), entry(4, "Edited"), entry(3, "Edited")];
    let expected = [ItemStatus::New, ItemStatus::Known, since(5), since(0)];
    assert_eq!(statuses(&mut seen, &seen_now, 10), expected);
    let mut decoded = SeenSet::decode(SeenSet::LAYOUT, &seen.encode()).unwrap();
    assert_eq!(statuses(&mut decoded, &seen_now, 11)[..2], [ItemStatus::Known; 2]);
}

#[test]
fn an_update_that_was_sent_elsewhere_is_not_sent_again_and_the_next_one_is() {
    let mut seen = three();
    let mut control = three();
    let edited = || [entry(3, "Edited"), entry(2, "Text"), entry(1, "Text")];
    assert_eq!(statuses(&mut control, &edited(), 10)[0], since(0));
    assert!(seen.add_recorded(&recorded(EventKind::Update, &edited()[..1], at(5))));
    assert!(!seen.add_recorded(&recorded(EventKind::Update, &edited()[..1], at(5))));
    assert_eq!(statuses(&mut seen, &edited(), 10), [ItemStatus::Known; 3]);
    let again = [entry(3, "Edited once more"), entry(2, "Text"), entry(1, "Text")];
    assert_eq!(statuses(&mut seen, &again, 20)[0], since(0));
    // An older document, as of a server that is behind, is a change of what readers have.
    let mut seen = three();
    seen.add_recorded(&recorded(EventKind::Update, &edited()[..1], at(5)));
    assert_eq!(statuses(&mut seen, &[entry(3, "Text"), entry(2, "Text")], 10)[0], since(0));
}

#[test]
fn an_event_that_is_older_than_what_is_known_changes_nothing() {
    let mut seen = three();
    statuses(&mut seen, &[entry(3, "Edited"), entry(2, "Text"), entry(1, "Text")], 10);
    let before = seen.encode();
    assert!(!seen.add_recorded(&recorded(EventKind::Item, &[entry(3, "Text")], at(0))));
    assert!(!seen.add_recorded(&recorded(EventKind::Update, &[entry(3, "Edited")], at(0))));
    assert_eq!(seen.encode(), before);
}

#[test]
fn an_article_that_each_of_two_stores_knows_under_another_guid_is_one_article() {
    let with_guid = |guid: &str| [Entry { guid: guid.to_owned(), ..entry(1, "Text") }];
    let mut seen = SeenSet::default();
    statuses(&mut seen, &with_guid("1"), 0);
    assert!(!seen.add_recorded(&recorded(EventKind::Item, &with_guid("2"), at(5))));
    assert_eq!(statuses(&mut seen, &with_guid("3"), 10), [ItemStatus::Known]);
    // Other articles with the same title are their own.
    let other = [Entry { title: entry(1, "Text").title, ..entry(2, "Other text") }];
    assert!(seen.add_recorded(&recorded(EventKind::Item, &other, at(5))));
}

#[test]
fn what_is_recorded_in_one_order_is_known_in_it_and_no_more_than_a_set_has() {
    let mut seen = three();
    let max = u32::try_from(SeenSet::ENTRIES_MAX).unwrap();
    let mut recorded = RecordedItems::default();
    let template = document(&[entry(0, "Text")]).remove(0);
    for n in 10..20 + max {
        let Entry { guid, link, title, .. } = entry(n, "Text");
        let mut item =
            Item { key: n.to_string(), guid: Some(guid), link: Some(link), title, ..template.clone() };
        item.evidence = feed::evidence_of(&item);
        recorded.add(EventKind::Item, &item, at(5));
    }
    assert!(seen.add_recorded(&recorded));
    assert_eq!(seen.item_count(), SeenSet::ENTRIES_MAX);
    let newest_and_oldest = [entry(19 + max, "Text"), entry(100, "Text"), entry(10, "Text")];
    let are_new =
        statuses(&mut seen, &newest_and_oldest, 10).into_iter().map(|status| status == ItemStatus::New);
    assert_eq!(are_new.collect::<Vec<_>>(), [false, false, true], "the oldest is forgotten");
}

#[test]
fn an_empty_set_to_which_all_events_are_added_knows_what_that_of_an_import_knows() {
    let items = [entry(3, "Text"), entry(2, "Text"), entry(1, "Text")];
    let recorded = recorded(EventKind::Item, &items, at(5));
    let mut seen = SeenSet::default();
    assert!(!seen.add_recorded(&RecordedItems::default()));
    assert!(seen.add_recorded(&recorded));
    assert_eq!(seen.encode(), recorded.into_set().encode());
}
