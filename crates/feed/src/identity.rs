//! Step 5 of the life of an item: its identity.
//!
//! The key of an item is the same on every visit. It is derived from the guid; without one from the link, without fragment
//! and tracking parameters; without that from title and content. The content hash tells whether the article has changed.
//! Never here: the time of the visit, randomness, or a date.

use std::collections::{HashMap, HashSet};

use news::Item;
use sha2::{Digest, Sha256};
use url::Url;

use crate::html::is_canonical;

/// Query parameters for tracking, which do not identify the article.
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

/// Sets the key and hashes of each item. Items with the same guid but different links have different keys; of items with
/// the same key, the first is kept. Returns the number of dropped items.
pub(crate) fn assign(items: &mut Vec<Item>) -> usize {
    let links: Vec<_> = items.iter().map(|item| item.link.as_deref().map(plain_link)).collect();
    let ambiguous = ambiguous(items, &links);
    let mut seen = HashSet::new();
    let before = items.len();
    let mut links_and_flags = links.iter().map(Option::as_deref).zip(ambiguous);
    items.retain_mut(|item| {
        let (link, ambiguous) = links_and_flags.next().unwrap_or_default();
        item.key = key(item, link, ambiguous);
        item.second_key = link.map(|link| news::hash_prefix(&digest(&["second", link, &item.title])));
        item.content_hash = content_hash(item, link);
        seen.insert(item.key.clone())
    });
    before - items.len()
}

/// For each item, whether its guid is ambiguous: another item has the same guid and a different link.
fn ambiguous(items: &[Item], links: &[Option<String>]) -> Vec<bool> {
    let mut guids: HashMap<&str, (Option<&str>, bool)> = HashMap::with_capacity(items.len());
    for (item, link) in items.iter().zip(links) {
        let Some(guid) = &item.guid else { continue };
        let second = second(item, link.as_deref());
        guids
            .entry(guid)
            .and_modify(|(first, ambiguous)| *ambiguous |= *first != second)
            .or_insert((second, false));
    }
    let is_apart = |guid: &str| guids.get(guid).is_some_and(|(_, ambiguous)| *ambiguous);
    items.iter().map(|item| item.guid.as_deref().is_some_and(is_apart)).collect()
}

/// `link` is a result of [`plain_link`], here and below.
fn key(item: &Item, link: Option<&str>, ambiguous: bool) -> String {
    match (&item.guid, link) {
        (Some(guid), _) if !ambiguous => hash(&["guid", guid]),
        (Some(guid), _) => hash(&["guid+", guid, second(item, link).unwrap_or_default()]),
        (None, Some(link)) => hash(&["link", link]),
        (None, None) => {
            hash(&["text", &item.title, &item.summary, item.content_html.as_deref().unwrap_or_default()])
        }
    }
}

/// What distinguishes items with the same guid: the link, else the title.
fn second<'a>(item: &'a Item, link: Option<&'a str>) -> Option<&'a str> {
    link.or(Some(item.title.as_str()).filter(|t| !t.is_empty()))
}

/// 16 bytes of SHA-256 as 32 hexadecimal digits.
fn hash(parts: &[&str]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
    digest(parts).iter().take(16).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Parts are hashed with their lengths, so that different splits give different hashes.
fn digest<S: AsRef<str>>(parts: &[S]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Changes with the article: its title, link, summary, content or enclosures.
fn content_hash(item: &Item, link: Option<&str>) -> u64 {
    let content = item.content_html.as_deref().unwrap_or_default();
    let mut parts = vec![item.title.as_str(), link.unwrap_or_default(), &item.summary, content];
    parts.extend(item.enclosures.iter().map(|e| e.url.as_str()));
    news::hash_prefix(&digest(&parts))
}

/// A link without fragment and tracking; scheme and host as they are.
fn plain_link(link: &str) -> String {
    if is_canonical(link) && !link.contains(['?', '#']) {
        return link.to_owned();
    }
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
    fn the_first_of_two_equal_items_is_kept() {
        let mut items = vec![item("g", "http://x.example/1", "a"), item("g", "http://x.example/1#x", "b")];
        assert_eq!(assign(&mut items), 1);
        assert_eq!(items[0].title, "a");
    }

    #[test]
    fn a_change_of_the_article_changes_its_hash_and_a_date_does_not() {
        let hash = |item: &Item| {
            let mut items = vec![item.clone()];
            assign(&mut items);
            items[0].content_hash
        };
        let a = item("g", "http://x.example/1", "a");
        let mut b = a.clone();
        b.published = Some(news::Timestamp::from_millis(5));
        b.authors.push(news::Author::default());
        assert_eq!(hash(&a), hash(&b));
        b.summary.push('x');
        assert_ne!(hash(&a), hash(&b));
    }

    #[test]
    fn a_link_key_does_not_depend_on_guid_or_tracking_parameters() {
        let second = |guid, link, title| {
            let mut items = vec![item(guid, link, title)];
            assign(&mut items);
            items[0].second_key
        };
        let a = second("1", "http://x.example/1", "a");
        assert!(a.is_some());
        assert_eq!(a, second("2", "http://x.example/1?utm_source=x#y", "a"));
        assert_ne!(a, second("1", "http://x.example/1", "b"));
        assert_eq!(second("1", "", "a"), None);
    }

    #[test]
    fn tracking_parameters_do_not_change_the_article() {
        let hash = |link: &str| content_hash(&item("g", link, "a"), Some(plain_link(link).as_str()));
        assert_eq!(hash("http://x.example/1"), hash("http://x.example/1?utm_campaign=tuesday"));
        assert_ne!(hash("http://x.example/1"), hash("http://x.example/2"));
    }
}
