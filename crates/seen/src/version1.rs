//! Entries that the first version wrote: recognised by its rules, so that an upgrade sends nothing again.
//!
//! It kept hashes of keys that depended on the other items of the document: the guid, or guid and link if several items
//! had the guid; the link without a guid; else the text. Items that it took for one are all known.

use std::{collections::HashMap, time::Duration};

use news::{Item, Timestamp, hash_prefix, stable_hash};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::{
    entry::{EntryIdentity, SeenEntry, hex},
    matching::{MatchReason, Matching},
};

/// How much older than the newest entry a dated item must be for the first version to have passed it over. Articles
/// appear in feeds some hours after their date, hardly ever a day.
const OLDER: Duration = Duration::from_secs(24 * 3600);

/// Query parameters that the first version left out.
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

/// Whether it is the first visit after the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VisitKind {
    Upgrade,
    Later,
}

/// What the first version knows of items that it has no entry of their own for.
#[derive(Debug, Default)]
pub(crate) struct Recognised {
    /// The key that the first version published for an item.
    pub(crate) keys: HashMap<usize, [u8; 16]>,
    /// Items that it took for one with another item, which has the entry, and when it saw that.
    pub(crate) known: HashMap<usize, Timestamp>,
}

/// Matches items with entries of the first version.
pub(crate) fn recognise(
    matching: &mut Matching<'_>,
    items: &[Item],
    entries: &[SeenEntry],
    visit: VisitKind,
) -> Recognised {
    let mut recognised = Recognised::default();
    let mut by_key = HashMap::new();
    let mut by_second = HashMap::new();
    for (n, entry) in entries.iter().enumerate() {
        if let EntryIdentity::Version1 { key_hash, second } = entry.identity {
            by_key.insert(key_hash, n);
            by_second.entry(second).or_insert(n);
        }
    }
    if by_key.is_empty() {
        return recognised;
    }
    let last_seen = entries.iter().map(|entry| entry.first_seen).max();
    // The first version kept the first of equal items, and feeds list the newest first.
    let unmatched: Vec<_> = matching.unmatched().rev().collect();
    for n in &unmatched {
        let found =
            keys(&items[*n], visit).into_iter().find_map(|key| Some((key, *by_key.get(&hash_of(key))?)));
        let Some((key, entry)) = found else { continue };
        if !matching.taken[entry] {
            matching.take(*n, entry, MatchReason::Version1);
            recognised.keys.insert(*n, key);
        } else if !is_newer(&items[*n], last_seen) {
            recognised.known.insert(*n, entries[entry].first_seen);
        }
    }
    for n in unmatched {
        let second = second(&items[n]).and_then(|second| by_second.get(&second));
        if let Some(entry) = second.filter(|entry| !matching.taken[**entry])
            && matching.found[n].is_none()
            && !recognised.known.contains_key(&n)
        {
            matching.take(n, *entry, MatchReason::Version1);
        }
    }
    recognised
}

/// At the first visit after the upgrade, finds the items that the first version passed over, or whose text it read in
/// another way: they are not sent as new.
pub(crate) fn pass_over(
    matching: &Matching<'_>,
    items: &[Item],
    entries: &[SeenEntry],
    recognised: &mut Recognised,
) {
    let last_seen = entries.iter().map(|entry| entry.first_seen).max();
    let Some(last_seen) = last_seen else { return };
    let mut without_address = entries
        .iter()
        .enumerate()
        .take(items.len())
        .filter(|(n, entry)| {
            !matching.taken[*n] && matches!(entry.identity, EntryIdentity::Version1 { second: 0, .. })
        })
        .count();
    for n in matching.unmatched() {
        let item = &items[n];
        let was_there = match item.published {
            Some(at) => at.plus(OLDER) < last_seen,
            // Its text was its key: one of those that are gone may be this one.
            None if item.guid.is_none() && item.link.is_none() && without_address > 0 => {
                without_address -= 1;
                true
            }
            None => false,
        };
        if was_there {
            recognised.known.entry(n).or_insert(last_seen);
        }
    }
}

fn is_newer(item: &Item, last_seen: Option<Timestamp>) -> bool {
    item.published.zip(last_seen).is_some_and(|(at, last_seen)| at > last_seen)
}

/// The keys that the first version may have computed for the item, the likeliest first. At the visit of the `upgrade` also
/// those of an item of which it saw a part only, because it lost what follows an unclosed element.
fn keys(item: &Item, visit: VisitKind) -> Vec<[u8; 16]> {
    let link = item.link.as_deref().map(plain_link);
    let is_upgrade = visit == VisitKind::Upgrade;
    let mut keys = Vec::new();
    if let Some(guid) = &item.guid {
        let second = link.as_deref().unwrap_or(&item.title);
        keys.extend([key(&["guid+", guid, second]), key(&["guid", guid])]);
    }
    if let Some(link) = link.as_deref().filter(|_| item.guid.is_none() || is_upgrade) {
        keys.push(key(&["link", link]));
    }
    if is_upgrade || keys.is_empty() {
        let content = item.content_html.as_deref().unwrap_or_default();
        keys.push(key(&["text", &item.title, &item.summary, content]));
    }
    if is_upgrade && !item.title.is_empty() {
        keys.push(key(&["text", &item.title, "", ""]));
    }
    keys
}

fn second(item: &Item) -> Option<u64> {
    let link = item.link.as_deref().map(plain_link)?;
    Some(hash_prefix(&digest(&["second", &link, &item.title])))
}

fn key(parts: &[&str]) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&digest(parts)[..16]);
    key
}

/// The first version stored the hash of a key as it was written.
fn hash_of(key: [u8; 16]) -> u64 {
    stable_hash(hex(key).as_bytes())
}

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
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
        let kept: Vec<_> = query.split('&').filter(|pair| !pair.is_empty() && !is_tracking(pair)).collect();
        let kept = kept.join("&");
        url.set_query(Some(kept.as_str()).filter(|q| !q.is_empty()));
    }
    url.into()
}
