//! Step 5 of the life of an item: its identity.
//!
//! The key of an item is a function of this item alone: of its guid, its link as it is compared, and its title; without
//! a guid or a title also of its text; without a guid also of its date and its enclosures; with neither guid nor link of the
//! addresses of its media instead, if it has any. Items that differ in one of them are different items, whatever stands beside them.
//! Whether an item of the next visit is the same one, edited or moved, is found by its evidence (crate `seen`), and it
//! then keeps the key that was published first.
//! Never here: the time of the visit or randomness.

mod address;
mod words;

use std::collections::HashSet;

use address::ComparedAddress;
use news::{Item, ItemEvidence, Timestamp, stable_hash};
use sha2::{Digest, Sha256};
use words::{hash_of_body, hash_of_line};

/// Sets the key and the evidence of each item. Of items with the same key, the first is kept. Returns the number of
/// dropped items.
pub(crate) fn assign(items: &mut Vec<Item>) -> usize {
    let mut seen = HashSet::with_capacity(items.len());
    let before = items.len();
    items.retain_mut(|item| {
        let (guid, link) = addresses(item);
        item.evidence = evidence(item, guid.as_ref(), link.as_ref());
        item.key = key(item, guid.as_ref(), link.as_ref());
        seen.insert(item.key.clone())
    });
    before - items.len()
}

/// The evidence of an item that was recorded: a function of what its JSON has.
#[must_use]
pub fn evidence_of(item: &Item) -> ItemEvidence {
    let (guid, link) = addresses(item);
    evidence(item, guid.as_ref(), link.as_ref())
}

/// The guid and the link as they are compared.
fn addresses(item: &Item) -> (Option<ComparedAddress>, Option<ComparedAddress>) {
    (item.guid.as_deref().map(compared_guid), item.link.as_deref().map(ComparedAddress::of))
}

/// A guid that is an address is compared like one: a site that moves to https changes its permalinks.
fn compared_guid(guid: &str) -> ComparedAddress {
    if guid.starts_with("http://") || guid.starts_with("https://") {
        ComparedAddress::of(guid)
    } else {
        ComparedAddress::opaque(guid)
    }
}

fn evidence(item: &Item, guid: Option<&ComparedAddress>, link: Option<&ComparedAddress>) -> ItemEvidence {
    let follows = |guid: &ComparedAddress, link: &ComparedAddress| {
        guid.full() != link.full() && guid.without_fragment() == link.without_fragment()
    };
    ItemEvidence {
        guid: guid.map_or(0, |guid| hash(guid.full())),
        link: link.map_or(0, |link| hash(link.full())),
        path: link.map_or(0, |link| hash(link.without_host())),
        page: link.map_or_else(|| media_page(item), |link| hash(link.page())),
        title: hash_of_line(&item.title),
        text: hash_of_body(item.content_html.as_deref().unwrap_or_default(), &item.summary),
        media: media(item),
        guid_follows_link: guid.zip(link).is_some_and(|(guid, link)| follows(guid, link)),
    }
}

fn media(item: &Item) -> u64 {
    let urls = item.enclosures.iter().map(|enclosure| &enclosure.url);
    urls.fold(0, |all, url| hash(&format!("{all:x} {}", ComparedAddress::of(url).path())))
}

/// The addresses of the media of an item that has neither guid nor link, without their queries, which may be signatures;
/// 0 if there are none.
fn media_page(item: &Item) -> u64 {
    if item.guid.is_some() || item.link.is_some() {
        return 0;
    }
    let media = item.enclosures.iter().map(|enclosure| &enclosure.url).chain(&item.image);
    media.fold(0, |pages, url| hash(&format!("{pages:x} {}", ComparedAddress::of(url).page())))
}

/// 16 bytes of SHA-256 as 32 hexadecimal digits. Parts are hashed with their lengths, so that different splits differ.
fn key(item: &Item, guid: Option<&ComparedAddress>, link: Option<&ComparedAddress>) -> String {
    let mut hasher = Sha256::new();
    for part in [guid, link].map(|address| address.map_or("", ComparedAddress::full)) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(item.evidence.title.to_le_bytes());
    if guid.is_none() || item.evidence.title == 0 {
        hasher.update(item.evidence.text.to_le_bytes());
    }
    if guid.is_none() {
        let date = item.published.map_or(0, Timestamp::millis);
        let has_media = link.is_none() && item.evidence.page != 0;
        let (media, date) = if has_media { (item.evidence.page, 0) } else { (0, date) };
        let media = if link.is_some() { item.evidence.media } else { media };
        hasher.update(media.to_le_bytes());
        hasher.update(date.to_le_bytes());
    }
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
    hasher.finalize().iter().take(16).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// 0 only for what is empty.
fn hash(text: &str) -> u64 {
    if text.is_empty() { 0 } else { stable_hash(text.as_bytes()).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(guid: &str, link: &str, title: &str) -> Item {
        let some = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
        Item { guid: some(guid), link: some(link), title: title.to_owned(), ..Item::default() }
    }

    fn with_text(item: Item, text: &str) -> Item {
        Item { summary: text.to_owned(), ..item }
    }

    fn keys(mut items: Vec<Item>) -> Vec<String> {
        assign(&mut items);
        items.into_iter().map(|i| i.key).collect()
    }

    #[test]
    fn the_key_of_an_item_does_not_depend_on_its_neighbours() {
        let all = [
            item("g", "http://x.example/1", "one"),
            item("g", "http://x.example/1", "two"),
            item("g", "http://x.example/2", "one"),
            item("", "http://x.example/1", "one"),
            item("", "http://x.example/1#a", "one"),
            item("", "", "one"),
            with_text(item("", "", "one"), "text"),
            with_text(item("", "http://x.example/1", "one"), "text"),
            with_text(item("h", "http://x.example/1", ""), "Good morning"),
            with_text(item("h", "http://x.example/1", ""), "Another story"),
        ];
        let together = keys(all.to_vec());
        assert_eq!(together.len(), all.len(), "different items are different");
        for (alone, together) in all.iter().zip(&together) {
            assert_eq!(&keys(vec![alone.clone()])[0], together, "{alone:?}");
        }
        let turned = keys(all.iter().rev().cloned().collect());
        assert!(turned.iter().rev().eq(&together));
        assert!(together.iter().all(|key| key.len() == 32));
    }

    #[test]
    fn items_without_guid_and_link_are_told_apart_by_their_media_or_dates() {
        let same = with_text(item("", "", "one"), "text");
        let media = |n: usize, signature: &str| {
            let url = format!("http://cdn.example/{n}.mp3?sig={signature}");
            Item { enclosures: vec![news::Enclosure { url, ..Default::default() }], ..same.clone() }
        };
        let image =
            |n: usize| Item { image: Some(format!("http://cdn.example/{n}.jpg?w=80")), ..same.clone() };
        let dated = |n: i64| Item { published: Some(Timestamp::from_millis(n)), ..same.clone() };
        let five = |one: &dyn Fn(u8) -> Item| keys((1..6).map(one).collect());
        assert_eq!(five(&|n| media(n.into(), "a")).len(), 5);
        assert_eq!(five(&|n| media(n.into(), "a")), five(&|n| media(n.into(), "b")), "without the query");
        assert_eq!(five(&|n| image(n.into())).len(), 5);
        assert_eq!(five(&|n| dated(n.into())).len(), 5);
        let with_date = |n: i64| Item { published: Some(Timestamp::from_millis(n)), ..media(1, "a") };
        assert_eq!(five(&|n| with_date(n.into())).len(), 1, "media are enough");
        let with_link = |n: u8| Item { link: Some("http://x.example/1".to_owned()), ..image(n.into()) };
        assert_eq!(five(&with_link).len(), 1, "so is a link");
    }

    #[test]
    fn a_move_to_https_and_trackers_do_not_change_the_key() {
        let key = |guid, link| keys(vec![item(guid, link, "one")]).remove(0);
        let before = key("http://x.example/1", "http://x.example/1");
        assert_eq!(key("https://x.example/1", "https://www.x.example/1/?utm_source=rss"), before);
        assert_ne!(key("http://x.example/1?p=1", "http://x.example/1"), before);
        assert_ne!(key("HTTP is a guid", "http://x.example/1"), key("Http is a guid", "http://x.example/1"));
    }

    #[test]
    fn of_two_equal_items_the_first_is_kept() {
        let first = item("g", "http://x.example/1", "a");
        let mut items = vec![first.clone(), item("g", "https://x.example/1/", "a"), first];
        assert_eq!((assign(&mut items), items.len()), (2, 1));
        assert_eq!(items[0].link.as_deref(), Some("http://x.example/1"));
    }

    #[test]
    fn evidence_says_when_a_guid_counts_the_versions_of_its_link() {
        let follows = |guid, link| {
            let mut items = vec![item(guid, link, "a")];
            assign(&mut items);
            items[0].evidence.guid_follows_link
        };
        assert!(follows("https://x.example/1#2", "https://x.example/1"));
        assert!(follows("https://x.example/1", "http://www.x.example/1#comments"));
        assert!(!follows("https://x.example/1", "https://x.example/1"));
        assert!(!follows("https://x.example/2#1", "https://x.example/1"));
    }

    #[test]
    fn evidence_of_the_text_changes_with_what_is_read() {
        let evidence = |item: Item| {
            let mut items = vec![item];
            assign(&mut items);
            items[0].evidence
        };
        let before = with_text(item("g", "http://x.example/1", "a"), "About it");
        let mut after = before.clone();
        after.published = Some(news::Timestamp::from_millis(5));
        after.image = Some("https://cdn.example/1.jpg".to_owned());
        after
            .enclosures
            .push(news::Enclosure { url: "https://x.example/a.mp3?sig=1".to_owned(), ..Default::default() });
        let but_media = |item: &Item| ItemEvidence { media: 0, ..evidence(item.clone()) };
        assert_eq!(but_media(&before), but_media(&after));
        assert_ne!(evidence(before.clone()), evidence(after.clone()));
        after.content_html = Some("<p>About it, and more</p>".to_owned());
        assert_ne!(evidence(before).text, evidence(after).text);
    }
}
