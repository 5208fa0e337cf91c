//! Who an item is: step 5 of an item's life.
//!
//! A key stays the same from visit to visit: the guid; without one the link, freed of its fragment and of what
//! trackers add; without that the title and content. The content hash says whether the article changed. Never
//! here: the time of the visit, chance, or a date.

use std::collections::HashMap;

use news::Item;
use sha2::{Digest, Sha256};
use url::Url;

/// Names of query parameters that say who sent the reader, not what is read.
const TRACKING: [&str; 20] = [
    "fbclid",
    "gclid",
    "dclid",
    "msclkid",
    "yclid",
    "igshid",
    "mc_cid",
    "mc_eid",
    "_ga",
    "_gl",
    "cmpid",
    "ocid",
    "wt_mc",
    "xtor",
    "at_medium",
    "at_campaign",
    "ns_mchannel",
    "ns_source",
    "ns_campaign",
    "ftag",
];

/// Gives each item its key. Items of one guid that lead to different places are kept apart by their links; of those
/// that are the same in both, the first stays. Gives the number that was left out.
pub(crate) fn assign(items: &mut Vec<Item>) -> usize {
    let mut guids: HashMap<String, (Option<String>, bool)> = HashMap::new();
    for item in items.iter() {
        let Some(guid) = &item.guid else { continue };
        let second = second(item);
        guids
            .entry(guid.clone())
            .and_modify(|(first, apart)| *apart |= *first != second)
            .or_insert((second, false));
    }
    let mut met = std::collections::HashSet::new();
    let before = items.len();
    items.retain_mut(|item| {
        let apart = item.guid.as_ref().is_some_and(|g| guids.get(g).is_some_and(|(_, apart)| *apart));
        item.key = key(item, apart);
        met.insert(item.key.clone())
    });
    before - items.len()
}

fn key(item: &Item, apart: bool) -> String {
    match (&item.guid, &item.link) {
        (Some(guid), _) if !apart => hash(&["guid", guid]),
        (Some(guid), _) => hash(&["guid+", guid, &second(item).unwrap_or_default()]),
        (None, Some(link)) => hash(&["link", &plain_link(link)]),
        (None, None) => {
            hash(&["text", &item.title, &item.summary, item.content_html.as_deref().unwrap_or_default()])
        }
    }
}

/// What tells items of the same guid apart: the link, else the title.
fn second(item: &Item) -> Option<String> {
    item.link.as_deref().map(plain_link).or_else(|| Some(item.title.clone()).filter(|t| !t.is_empty()))
}

/// 16 bytes of SHA-256 as 32 hexadecimal digits.
fn hash(parts: &[&str]) -> String {
    use std::fmt::Write as _;
    digest(parts).iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

/// Parts are hashed with their lengths, so that none can pass for another's end.
fn digest<S: AsRef<str>>(parts: &[S]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn first_eight(digest: [u8; 32]) -> u64 {
    u64::from_le_bytes([
        digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7],
    ])
}

/// Changes when the article does: its title, link, summary, content or enclosures.
pub(crate) fn content_hash(item: &Item) -> u64 {
    let mut parts = vec![
        item.title.as_str(),
        item.link.as_deref().unwrap_or_default(),
        &item.summary,
        item.content_html.as_deref().unwrap_or_default(),
    ];
    parts.extend(item.enclosures.iter().map(|e| e.url.as_str()));
    first_eight(digest(&parts))
}

/// A second key for feeds whose guids change from visit to visit: the plain link and the title. Nothing for items
/// without a link.
#[must_use]
pub fn second_key(item: &Item) -> Option<u64> {
    let link = item.link.as_deref()?;
    Some(first_eight(digest(&["second", &plain_link(link), &item.title])))
}

/// How much of a document is new to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Novelty {
    /// Items in the document.
    pub items: usize,
    /// Items whose key was never met in this source.
    pub new_keys: usize,
    /// Of those, items whose [`second_key`] was met.
    pub known_anyway: usize,
}

/// Whether the source gave its old items new guids: at least four of five are new although most of those were met
/// under another guid. Then items are to be matched by [`second_key`].
#[must_use]
pub fn is_flapping(novelty: Novelty) -> bool {
    let Novelty { items, new_keys, known_anyway } = novelty;
    items > 0 && new_keys * 5 >= items * 4 && known_anyway * 2 > new_keys
}

/// A link without fragment and tracking; scheme and host as they are.
fn plain_link(link: &str) -> String {
    let Ok(mut url) = Url::parse(link) else { return link.to_owned() };
    url.set_fragment(None);
    if let Some(query) = url.query() {
        let is_tracking = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
            name.starts_with("utm_") || TRACKING.contains(&name.as_str())
        };
        let kept: Vec<&str> =
            query.split('&').filter(|pair| !pair.is_empty() && !is_tracking(pair)).collect();
        let kept = kept.join("&");
        url.set_query(Some(kept.as_str()).filter(|q| !q.is_empty()));
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(guid: &str, link: &str, title: &str) -> Item {
        let some = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
        Item { guid: some(guid), link: some(link), title: title.to_owned(), ..Item::default() }
    }

    fn keys(mut items: Vec<Item>) -> Vec<String> {
        assign(&mut items);
        items.into_iter().map(|i| i.key).collect()
    }

    #[test]
    fn the_guid_is_the_key_whatever_else_changes() {
        let a = keys(vec![item("g", "http://x.example/1", "one")]);
        assert_eq!(a, keys(vec![item("g", "http://x.example/2", "two")]));
        assert_ne!(a, keys(vec![item("h", "http://x.example/1", "one")]));
        assert_eq!(a[0].len(), 32);
    }

    #[test]
    fn a_link_is_the_key_without_fragment_and_tracking() {
        let a = keys(vec![item("", "http://x.example/1?a=1", "one")]);
        for link in [
            "http://x.example/1?a=1#frag",
            "http://x.example/1?utm_source=rss&a=1&fbclid=9",
            "http://x.example/1?a=1&",
        ] {
            assert_eq!(a, keys(vec![item("", link, "other")]), "{link}");
        }
        assert_ne!(a, keys(vec![item("", "http://x.example/1?a=2", "one")]));
    }

    #[test]
    fn without_guid_and_link_the_text_is_the_key() {
        assert_eq!(keys(vec![item("", "", "one")]), keys(vec![item("", "", "one")]));
        assert_ne!(keys(vec![item("", "", "one")]), keys(vec![item("", "", "two")]));
    }

    #[test]
    fn one_guid_for_all_items_does_not_make_them_one() {
        let all = keys(vec![item("g", "http://x.example/1", "a"), item("g", "http://x.example/2", "b")]);
        assert_eq!(all.len(), 2);
        assert_ne!(all[0], all[1]);
        let turned = keys(vec![item("g", "http://x.example/2", "b"), item("g", "http://x.example/1", "a")]);
        assert_eq!(turned, [all[1].clone(), all[0].clone()]);
    }

    #[test]
    fn the_first_of_two_equals_stays() {
        let mut items = vec![item("g", "http://x.example/1", "a"), item("g", "http://x.example/1#x", "b")];
        assert_eq!(assign(&mut items), 1);
        assert_eq!(items[0].title, "a");
    }

    #[test]
    fn a_change_of_the_article_changes_its_hash_and_a_date_does_not() {
        let a = item("g", "http://x.example/1", "a");
        let mut b = a.clone();
        b.published = Some(news::Timestamp::from_millis(5));
        b.authors.push(news::Author::default());
        assert_eq!(content_hash(&a), content_hash(&b));
        b.summary.push('x');
        assert_ne!(content_hash(&a), content_hash(&b));
    }

    #[test]
    fn flapping_needs_four_of_five_new_and_known_by_their_links() {
        let flaps = |items, new_keys, known_anyway| is_flapping(Novelty { items, new_keys, known_anyway });
        assert!(flaps(10, 8, 8) && flaps(10, 10, 6));
        assert!(!flaps(10, 7, 7) && !flaps(10, 10, 5) && !flaps(10, 10, 0) && !flaps(0, 0, 0));
    }
}
