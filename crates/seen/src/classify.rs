//! The seen set of a source: classifies the items of each of its documents, and remembers them.
//!
//! A sled key per guid would cost about 170 bytes of disk and 145 bytes of memory each; a bounded list in one value does
//! not. The list has every item of the newest document, then the most recently seen ones.

use std::collections::{HashMap, HashSet};

use std::time::Duration;

use news::{DocumentPart, Item, Timestamp};

use crate::{
    damping::{KnownItem, UpdateAction, cooled, damp},
    delta,
    entry::{
        BadSeenSet, EntryIdentity, Layout, SeenEntry, Traits, decode, decode_version1, decode_version2,
        encode, hex, key_bytes,
    },
    filter::ValueFilter,
    matching::{DATE, EvidenceParts, Match, MatchReason, Matching},
    shape::shape_of,
    version1::{self, Recognised, VisitKind},
};

/// Maximum number of new items per visit of a source whose guids flap from visit to visit, besides those with a later date
/// than all before; rarely are more of them genuinely new.
const FLAPPING_NEW_MAX: usize = 20;

/// Documents that have nothing but new items, one right after the other, are the same items made up anew, if no more time
/// is between them.
const RENEWED_MAX: Duration = Duration::from_secs(6 * 3600);

/// The items that a source had so far.
#[derive(Clone, Debug, Default)]
pub struct SeenSet {
    pub(crate) layout: Layout,
    /// It was written by the first version, and no document was classified since.
    is_upgrade: bool,
}

/// How an item compares with the seen set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemStatus {
    /// It was never seen.
    New,
    /// Its title or text has changed.
    Changed {
        /// When it was seen first.
        first_seen: Timestamp,
    },
    /// As it was.
    Known,
    /// Its title or text has changed, as at most visits: the update is absorbed.
    Absorbed,
    /// New, but over the limit for a source whose guids flap: classified again at the next visit.
    Held,
}

/// What was found about one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// How it compares.
    pub status: ItemStatus,
    /// The key that was published first, or is to be: 32 hexadecimal digits.
    pub key: String,
    /// By what it was recognised; `None` if it was not.
    pub matched: Option<MatchReason>,
    /// What differs from how it was seen last: guid, link, title, text or date.
    pub differs: EvidenceParts,
}

/// How a document compares with the seen set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classification {
    /// One for each item.
    pub items: Vec<Classified>,
    /// Whether the seen set must be written.
    pub changed: bool,
    /// The source has changed the guids of its items.
    pub flapping: bool,
    /// Something waits to be sent by a later visit, even if the document does not change: new items that are held, or
    /// updates that were absorbed.
    pub waiting: bool,
    /// Entries of items that are no longer in the document, removed because there are more than
    /// [`SeenSet::ENTRIES_MAX`]. If such an item appears again, it is new.
    pub forgotten: usize,
    /// The entries before, of the items that had one; for [`SeenSet::defer`].
    replaced: Vec<Option<SeenEntry>>,
}

impl Classification {
    /// How many items have this status.
    #[must_use]
    pub fn count(&self, status: ItemStatus) -> usize {
        self.items.iter().filter(|item| item.status == status).count()
    }
}

/// Feeds list the newest item first, the log needs the oldest first. Dates decide if every item has one.
#[must_use]
pub fn oldest_first(mut items: Vec<Item>) -> Vec<Item> {
    items.reverse();
    if items.iter().all(|i| i.published.is_some()) {
        items.sort_by_key(|i| i.published);
    }
    items
}

impl SeenSet {
    pub(crate) fn of(layout: Layout) -> Self {
        Self { layout, is_upgrade: false }
    }

    /// Maximum number of entries of a source: those of the newest document, then the most recently seen ones. A feed that
    /// shows a window of more items than these in turn sends items again that it had. A full set has 2.5 MB.
    pub const ENTRIES_MAX: usize = 32_768;

    /// The layout that [`SeenSet::encode`] writes.
    pub const LAYOUT: u8 = 3;

    /// Reads a set of this layout or of an earlier one.
    ///
    /// # Errors
    /// [`BadSeenSet`] if the bytes are not what was written.
    pub fn decode(layout: u8, bytes: &[u8]) -> Result<Self, BadSeenSet> {
        match layout {
            1 => {
                let entries = decode_version1(bytes)?;
                let layout = Layout { newest: entries.len(), entries, ..Layout::default() };
                Ok(Self { is_upgrade: !layout.entries.is_empty(), layout })
            }
            2 => Ok(Self { layout: decode_version2(bytes)?, is_upgrade: false }),
            Self::LAYOUT => Ok(Self { layout: decode(bytes)?, is_upgrade: false }),
            other => Err(BadSeenSet::Layout(other)),
        }
    }

    /// How many items it has.
    #[must_use]
    pub fn item_count(&self) -> usize {
        self.layout.entries.len()
    }

    /// 76 bytes per item.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.layout)
    }

    /// What must be stored beside a set as it was before a visit to have this one: about 100 bytes for each new item, and a
    /// few for each that changed or moved, however many there are.
    #[must_use]
    pub fn delta_from(&self, before: &Self) -> Vec<u8> {
        delta::between(Self::LAYOUT, &before.layout, &self.layout)
    }

    /// Makes this set what it was after later visits. Each delta was made from the set as the one before it left it.
    ///
    /// # Errors
    /// [`BadSeenSet`] if they are not what was written, or not of this set, which then is as it was.
    pub fn apply_deltas<'a>(&mut self, deltas: impl IntoIterator<Item = &'a [u8]>) -> Result<(), BadSeenSet> {
        let mut deltas = deltas.into_iter().peekable();
        if deltas.peek().is_some() {
            self.layout = delta::apply(Self::LAYOUT, &self.layout, deltas)?;
            // The first version wrote none.
            self.is_upgrade = false;
        }
        Ok(())
    }

    /// Notes visits that found the document unchanged: what waits for its items to be quiet counts them.
    pub fn pass_unchanged(&mut self, visits: u32) {
        let newest = self.layout.newest;
        for entry in &mut self.layout.entries[..newest] {
            entry.heat = cooled(entry.heat, visits);
        }
        self.layout.damping = self.layout.damping.and_then(|damping| damping.after_quiet(visits));
        if visits > 0 {
            (self.layout.renewed_at, self.layout.is_flapping) = (None, false);
        }
    }

    /// Classifies the items of one document, oldest first, and adds them.
    pub fn classify(&mut self, items: &[Item], now: Timestamp) -> Classification {
        let traits: Vec<_> = items.iter().map(Traits::of).collect();
        let is_upgrade = std::mem::take(&mut self.is_upgrade);
        let visit = if is_upgrade { VisitKind::Upgrade } else { VisitKind::Later };
        let before = std::mem::take(&mut self.layout);
        let entries = &before.entries;
        let mut matching = Matching::new(&traits, entries, before.newest);
        matching.by_guid();
        let mut recognised = version1::recognise(&mut matching, items, entries, visit);
        matching.by_other_evidence();
        let is_renewed = !entries.is_empty() && !is_upgrade && matching.is_renewed();
        let mut shapes = HashMap::new();
        if is_renewed || matching.wants_shapes() {
            shapes.extend(matching.unmatched().map(|n| (n, shape_of(&items[n]))));
            matching.by_shape(&shapes);
        }
        if is_renewed && before.renewed_at.is_some_and(|at| now.since(at) < RENEWED_MAX) {
            matching.by_words_alone(&shapes);
        }
        self.layout.renewed_at = is_renewed.then_some(now);
        if is_upgrade {
            version1::pass_over(&matching, items, entries, &mut recognised);
        }
        let mut found: Vec<_> =
            (0..items.len()).map(|n| compare(n, items, &traits, entries, &matching, &recognised)).collect();
        for (n, found) in found.iter_mut().enumerate().filter(|(_, found)| found.shape == 0) {
            let shape = shapes.get(&n).copied();
            found.shape = shape.or_else(|| found.wants_shape().then(|| shape_of(&items[n]))).unwrap_or(0);
        }
        if before.is_without_middle {
            pass_over_middle(items, &mut found, now);
        }
        self.layout.is_without_middle = items.iter().any(|item| item.part != DocumentPart::Whole);
        let flapping = !entries.is_empty() && is_flapping(&found);
        // Guids that have changed once are no reason: what is held then may leave the feed before the next visit.
        if flapping && before.is_flapping {
            hold(&mut found, entries);
        }
        self.layout.is_flapping = flapping;
        set_keys(&mut found, entries);
        self.layout.damping = before.damping;
        self.absorb(&mut found, now);
        let replaced = matching.found.iter().map(|found| found.map(|found| entries[found.entry])).collect();
        let kept = found.iter().filter(|found| found.status != ItemStatus::Held);
        let mut after: Vec<_> = kept.map(|found| found.entry(now)).collect();
        self.layout.newest = after.len();
        let older = entries.iter().zip(&matching.taken).filter(|(_, taken)| !**taken);
        after.extend(older.map(|(entry, _)| *entry));
        let kept = Self::ENTRIES_MAX.max(self.layout.newest);
        let forgotten = after.len().saturating_sub(kept);
        after.truncate(kept);
        self.layout.entries = after;
        let changed = is_upgrade || self.layout != before;
        let waiting = found.iter().any(|found| found.status == ItemStatus::Held || found.is_unsent());
        Classification {
            items: found.into_iter().map(Found::classified).collect(),
            changed,
            flapping,
            waiting,
            forgotten,
            replaced,
        }
    }

    /// Forgets the items from number `from` on that were just classified as new or changed: they are not recorded now, and
    /// the next document with them classifies them again. The others stay as they were classified.
    pub fn defer(&mut self, classification: &Classification, from: usize) {
        let mut older = std::mem::take(&mut self.layout.entries);
        let mut entries = older.drain(..self.layout.newest);
        let mut newest = Vec::with_capacity(entries.len());
        let items = classification.items.iter().zip(&classification.replaced).enumerate();
        for (n, (item, replaced)) in items.filter(|(_, (item, _))| item.status != ItemStatus::Held) {
            let Some(entry) = entries.next() else { break };
            match item.status {
                ItemStatus::New if n >= from => {}
                ItemStatus::Changed { .. } if n >= from => newest.push(replaced.unwrap_or(entry)),
                _ => newest.push(entry),
            }
        }
        drop(entries);
        self.layout.newest = newest.len();
        newest.append(&mut older);
        self.layout.entries = newest;
        // The items that are new once more were not made up anew.
        self.layout.renewed_at = None;
    }

    fn absorb(&mut self, found: &mut [Found], now: Timestamp) {
        let is_compared = |found: &&mut Found| {
            matches!(found.status, ItemStatus::Known | ItemStatus::Changed { .. })
                && matches!(found.matched, Some(MatchReason::Equal(_)))
        };
        let mut compared: Vec<_> = found.iter_mut().filter(is_compared).collect();
        let known = |found: &&mut Found| {
            let has_changed = found.status != ItemStatus::Known;
            KnownItem {
                heat: found.heat,
                counts: found.counts,
                has_changed,
                has_returned: has_changed && found.before == found.traits.version(),
                is_counter: has_changed && found.shape == found.last_shape && !found.is_next_version,
                is_unsent: found.is_unsent(),
                action: UpdateAction::Nothing,
            }
        };
        let mut known: Vec<_> = compared.iter().map(known).collect();
        damp(&mut self.layout.damping, &mut known, now);
        for (found, known) in compared.iter_mut().zip(known) {
            (found.heat, found.counts) = (known.heat, known.counts);
            if known.has_changed {
                found.before = found.last_version;
            }
            found.status = match (known.action, found.first_seen) {
                (UpdateAction::Send, Some(first_seen)) => {
                    found.sent = found.traits.version();
                    ItemStatus::Changed { first_seen }
                }
                (UpdateAction::Absorb, _) => ItemStatus::Absorbed,
                _ => ItemStatus::Known,
            };
        }
    }
}

/// An item, and what its entry will have.
#[derive(Debug)]
struct Found {
    status: ItemStatus,
    key: [u8; 16],
    matched: Option<MatchReason>,
    differs: EvidenceParts,
    /// It has an entry under another guid, or without a guid under another link.
    has_moved: bool,
    /// Its guid counts its versions, and has counted.
    is_next_version: bool,
    /// `None` for a new item.
    first_seen: Option<Timestamp>,
    traits: Traits,
    heat: u8,
    counts: bool,
    /// The version that was seen at the last visit, and the one before that.
    last_version: u32,
    before: u32,
    /// The version that readers have.
    sent: u32,
    /// 0 if it is not known.
    shape: u32,
    last_shape: u32,
}

impl Found {
    fn entry(&self, now: Timestamp) -> SeenEntry {
        SeenEntry {
            identity: EntryIdentity::Known { key: self.key, traits: self.traits },
            first_seen: self.first_seen.unwrap_or(now),
            heat: self.heat,
            counts: self.counts,
            before: self.before,
            sent: self.sent,
            shape: self.shape,
        }
    }

    /// Whether its shape must be read, which costs a pass over its text: that of a new item hardly ever tells anything.
    fn wants_shape(&self) -> bool {
        match self.status {
            ItemStatus::Changed { .. } => true,
            ItemStatus::New => self.traits.guid == 0 && self.traits.link == 0,
            _ => false,
        }
    }

    /// Readers do not have it as it is.
    fn is_unsent(&self) -> bool {
        self.sent != self.traits.version()
    }

    fn classified(self) -> Classified {
        Classified { status: self.status, key: hex(self.key), matched: self.matched, differs: self.differs }
    }
}

fn compare(
    n: usize,
    items: &[Item],
    traits: &[Traits],
    entries: &[SeenEntry],
    matching: &Matching<'_>,
    recognised: &Recognised,
) -> Found {
    let traits = traits[n];
    let mut found = Found {
        status: ItemStatus::New,
        key: recognised.keys.get(&n).copied().unwrap_or_else(|| key_bytes(&items[n].key)),
        matched: None,
        differs: EvidenceParts::default(),
        has_moved: false,
        is_next_version: false,
        first_seen: None,
        traits,
        heat: 0,
        counts: false,
        last_version: 0,
        before: 0,
        sent: traits.version(),
        shape: 0,
        last_shape: 0,
    };
    if let Some(first_seen) = recognised.known.get(&n) {
        found.status = ItemStatus::Known;
        found.matched = Some(MatchReason::Version1);
        found.first_seen = Some(*first_seen);
    }
    let Some(Match { entry, reason }) = matching.found[n] else { return found };
    let SeenEntry { identity, first_seen, heat, counts, before: version_before, sent, shape } =
        entries[entry];
    found.status = ItemStatus::Known;
    found.matched = Some(reason);
    found.first_seen = Some(first_seen);
    if let EntryIdentity::Known { key, traits: before } = identity {
        found.key = key;
        (found.heat, found.counts) = (heat, counts);
        (found.last_version, found.before) = (before.version(), version_before);
        found.differs = EvidenceParts::that_differ(&before, &traits);
        found.has_moved = before.guid != traits.guid || (traits.guid == 0 && before.link != traits.link);
        found.is_next_version = before.guid != traits.guid && traits.guid_follows_link;
        found.sent = if sent == 0 { before.version() } else { sent };
        found.last_shape = shape;
        if (before.title, before.text) == (traits.title, traits.text) {
            found.shape = shape;
        } else {
            found.status = ItemStatus::Changed { first_seen };
        }
    }
    found
}

/// Of a document whose middle is left out, as that of the one before was, finds the items that were in the middle then, and
/// are not now because items were added or removed at an end. What is new is at an end, never between the middle and a
/// known item. They are not sent.
fn pass_over_middle(items: &[Item], found: &mut [Found], now: Timestamp) {
    let of = |part| (0..items.len()).filter(move |n| items[*n].part == part);
    // The oldest come first, which of undated ones are the last: from the middle to the ends.
    let head: Vec<_> = of(DocumentPart::Head).collect();
    let tail: Vec<_> = of(DocumentPart::Tail).rev().collect();
    for from_middle in [head, tail] {
        let is_known = |n: &usize| found[*n].status != ItemStatus::New;
        let moved = from_middle.iter().position(is_known).unwrap_or(0);
        for n in &from_middle[..moved] {
            (found[*n].status, found[*n].first_seen) = (ItemStatus::Known, Some(now));
        }
    }
}

/// Detects whether the source has changed the guids of its items, or the links that it has instead: at least four of five
/// are other ones, although most of those items are known.
fn is_flapping(found: &[Found]) -> bool {
    let moved = found.iter().filter(|found| found.has_moved).count();
    let fresh = moved + new_of(found);
    fresh * 5 >= found.len() * 4 && moved * 2 > fresh
}

/// The newest of the new items are accepted, the older ones are held back: they may be known ones whose evidence is that of
/// others. What is dated later than all that was there before is none of these.
fn hold(found: &mut [Found], entries: &[SeenEntry]) {
    let latest = entries.iter().filter_map(SeenEntry::traits).map(|traits| traits.date).max().unwrap_or(0);
    let known = found.iter().filter(|found| found.status != ItemStatus::New);
    let redated = known.clone().filter(|found| found.differs.has(DATE)).count();
    let are_dates_kept = latest != 0 && redated * 5 <= known.count();
    let is_in_doubt = |found: &&mut Found| {
        found.status == ItemStatus::New && !(are_dates_kept && found.traits.date > latest)
    };
    let mut in_doubt: Vec<_> = found.iter_mut().filter(is_in_doubt).collect();
    let held = in_doubt.len().saturating_sub(FLAPPING_NEW_MAX);
    for found in in_doubt.iter_mut().take(held) {
        found.status = ItemStatus::Held;
    }
}

fn new_of(found: &[Found]) -> usize {
    found.iter().filter(|found| found.status == ItemStatus::New).count()
}

/// An item without an entry may look like an older one did before it was edited: it gets a key of its own.
fn set_keys(found: &mut [Found], entries: &[SeenEntry]) {
    let known = |entry: &SeenEntry| match entry.identity {
        EntryIdentity::Known { key, .. } => Some(key),
        EntryIdentity::Version1 { .. } => None,
    };
    let keyless = found.iter_mut().filter(|found| !matches!(found.matched, Some(MatchReason::Equal(_))));
    let keyless: Vec<_> = keyless.collect();
    let short = |key: &[u8; 16]| u64::from_le_bytes(*key.first_chunk().expect("a key has 16 bytes"));
    let filter = ValueFilter::of(keyless.iter().map(|found| short(&found.key)));
    let mut keys: HashSet<_> =
        entries.iter().filter_map(known).filter(|key| filter.may_have(short(key))).collect();
    for found in keyless {
        while !keys.insert(found.key) {
            found.key = key_bytes(&hex(found.key).to_uppercase());
            // The filter does not know this one.
            if entries.iter().any(|entry| known(entry) == Some(found.key)) {
                keys.insert(found.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_item_comes_first() {
        let item = |key: &str, ms: Option<i64>| Item {
            key: key.into(),
            published: ms.map(Timestamp::from_millis),
            ..Item::default()
        };
        let keys = |items| oldest_first(items).into_iter().map(|i| i.key).collect::<String>();
        assert_eq!(keys(vec![item("c", Some(3)), item("a", Some(1)), item("b", Some(2))]), "abc");
        assert_eq!(keys(vec![item("c", None), item("b", Some(9)), item("a", None)]), "abc");
    }
}
