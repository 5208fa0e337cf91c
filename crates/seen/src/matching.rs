//! Which entry of the seen set is which item: one to one, by strong evidence first.
//!
//! Each step runs over all items before the next one, so that an item that only resembles an entry never takes it from
//! the item that it belongs to. A part that several items of a document have, such as one link for all releases of a
//! changelog, is no evidence by itself.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
};

use crate::{
    entry::{EntryIdentity, SeenEntry, Traits},
    filter::ValueFilter,
};

/// A set of the parts of the evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EvidenceParts(u16);

const GUID: EvidenceParts = EvidenceParts(1);
const LINK: EvidenceParts = EvidenceParts(2);
const TITLE: EvidenceParts = EvidenceParts(4);
const TEXT: EvidenceParts = EvidenceParts(8);
pub(crate) const DATE: EvidenceParts = EvidenceParts(16);
/// The link without its host.
const PATH: EvidenceParts = EvidenceParts(32);
/// The link without query and fragment.
const PAGE: EvidenceParts = EvidenceParts(64);
/// Neither has a date.
const UNDATED: EvidenceParts = EvidenceParts(128);
/// Neither has a guid.
const NO_GUID: EvidenceParts = EvidenceParts(256);
/// Both guids are their links with another fragment: they count the versions of an article.
const VERSIONS: EvidenceParts = EvidenceParts(512);
/// Neither has a link.
const NO_LINK: EvidenceParts = EvidenceParts(1024);
/// Title and text together; one of them may be missing.
const WORDS: EvidenceParts = EvidenceParts(2048);

/// The words without numbers and signs.
const SHAPE: EvidenceParts = EvidenceParts(4096);

const NAMES: [(EvidenceParts, &str); 13] = [
    (GUID, "guid"),
    (LINK, "link"),
    (PATH, "link without host"),
    (PAGE, "link without query"),
    (TITLE, "title"),
    (TEXT, "text"),
    (DATE, "date"),
    (UNDATED, "no date"),
    (NO_GUID, "no guid"),
    (VERSIONS, "version in the guid"),
    (NO_LINK, "no link"),
    (WORDS, "all words"),
    (SHAPE, "all words without numbers"),
];

impl EvidenceParts {
    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Their names, the strongest first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(part, _)| self.has(*part)).map(|(_, name)| *name)
    }

    /// The parts that differ between two versions of an item: guid, link, title, text or date.
    pub(crate) fn that_differ(a: &Traits, b: &Traits) -> Self {
        let all = [GUID, LINK, TITLE, TEXT, DATE];
        all.into_iter().filter(|part| part.of(a) != part.of(b)).fold(Self(0), Self::and)
    }

    /// The value of one part; 0 if there is none.
    fn of(self, traits: &Traits) -> u64 {
        match self {
            GUID => traits.guid,
            LINK => traits.link,
            TITLE => traits.title,
            TEXT => traits.text,
            DATE => traits.date.into(),
            PATH => traits.path.into(),
            PAGE => traits.page.into(),
            UNDATED => (traits.date == 0).into(),
            NO_GUID => (traits.guid == 0).into(),
            NO_LINK => (traits.link == 0).into(),
            WORDS => traits.version().into(),
            _ => traits.guid_follows_link.into(),
        }
    }
}

/// By what an item was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchReason {
    /// These parts of the evidence were equal.
    Equal(EvidenceParts),
    /// The key of the first version, which wrote the entry.
    Version1,
}

impl fmt::Display for MatchReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(parts) => f.write_str(&parts.names().collect::<Vec<_>>().join(" + ")),
            Self::Version1 => f.write_str("the key of an earlier version of newswire"),
        }
    }
}

/// What is done if several items or several entries have the same evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Several {
    /// They are equal to a reader: the first takes the first.
    InOrder,
    /// None is matched.
    Unmatched,
}

/// The entries that a step looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Those of the newest document, then all.
    All,
    /// As `All`, but an older entry with another guid is another item.
    OlderWithoutGuid,
    /// Those of the newest document: the item takes the place of one that is gone.
    Newest,
    /// As `Newest`, if most items of the document have another identity than those of the newest one: what one item
    /// alone repeats is a recurring article.
    Replaced,
    /// As `Newest`, if the guid of the item was that of another one: it numbers the places of a list.
    Renumbered,
    /// As `Newest`, if both documents have several items.
    Several,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    equal: EvidenceParts,
    /// The part that must be an item's own, in the document and in the one before; 0 if none.
    own: EvidenceParts,
    several: Several,
    scope: Scope,
}

const fn step(equal: EvidenceParts, own: EvidenceParts, scope: Scope) -> Step {
    Step { equal, own, several: Several::Unmatched, scope }
}

const fn in_order(equal: EvidenceParts) -> Step {
    Step { equal, own: EvidenceParts(0), several: Several::InOrder, scope: Scope::All }
}

const ANY: EvidenceParts = EvidenceParts(0);
const LINK_TITLE: EvidenceParts = LINK.and(TITLE);
const PATH_TITLE: EvidenceParts = PATH.and(TITLE);
const PAGE_TITLE: EvidenceParts = PAGE.and(TITLE);

/// So many items have moved if guids are places; fewer may be values that have changed hands, as rates do.
const MOVED_MIN: usize = 3;
/// A document of so many items can be made up anew.
const RENEWED_MIN: usize = 3;

const DAY_S: u32 = 24 * 3600;

/// A document of so many items can show that its dates mean nothing; in a shorter one all may be replaced by others.
const REDATED_MIN: usize = 5;

/// The same guid.
const BY_GUID: [Step; 8] = [
    in_order(GUID.and(LINK_TITLE)),
    step(LINK_TITLE.and(TEXT), LINK, Scope::Renumbered),
    step(LINK_TITLE.and(DATE), LINK, Scope::Renumbered),
    step(GUID.and(TITLE), ANY, Scope::All),
    step(GUID.and(LINK), LINK, Scope::All),
    step(GUID.and(TEXT), ANY, Scope::All),
    step(GUID.and(DATE), ANY, Scope::All),
    step(GUID, GUID, Scope::All),
];

/// No guid, or another one.
const BY_OTHER_EVIDENCE: [Step; 27] = [
    in_order(LINK_TITLE.and(TEXT)),
    step(LINK_TITLE.and(DATE), ANY, Scope::All),
    // The site has moved to another host.
    step(PATH_TITLE.and(TEXT), ANY, Scope::All),
    step(PATH_TITLE.and(DATE), ANY, Scope::All),
    // The query has a session id or counts readers.
    step(PAGE_TITLE.and(TEXT), ANY, Scope::All),
    step(PAGE_TITLE.and(DATE), ANY, Scope::All),
    // All addresses are other ones.
    step(TITLE.and(TEXT).and(DATE), ANY, Scope::All),
    // Something was edited, too.
    step(LINK_TITLE, LINK, Scope::OlderWithoutGuid),
    step(LINK.and(VERSIONS), LINK, Scope::Newest),
    step(LINK.and(TEXT), LINK, Scope::OlderWithoutGuid),
    step(LINK.and(DATE), LINK, Scope::OlderWithoutGuid),
    step(PATH_TITLE, PATH, Scope::Newest),
    step(PATH.and(TEXT), PATH, Scope::Newest),
    step(PAGE_TITLE, PAGE, Scope::Newest),
    step(PAGE.and(TEXT), PAGE, Scope::Newest),
    step(TITLE.and(DATE), TITLE, Scope::Newest),
    step(TITLE.and(TEXT).and(UNDATED), TITLE, Scope::Newest),
    step(PAGE_TITLE.and(UNDATED), TITLE, Scope::Newest),
    // The page of an article that is one of several, edited and dated anew.
    step(LINK.and(NO_GUID), LINK, Scope::Several),
    // Nothing but the link tells whether it was edited or replaced.
    step(LINK.and(UNDATED).and(NO_GUID), LINK, Scope::All),
    // Neither guid nor link, and another picture or date.
    step(WORDS.and(NO_GUID).and(NO_LINK), WORDS, Scope::All),
    step(WORDS.and(NO_LINK).and(PAGE), PAGE, Scope::Newest),
    // Everything but the words is made up at each visit. Words that are a title alone, such as that of a comic strip, are
    // too few if the links are other ones.
    step(TITLE.and(TEXT).and(WORDS), WORDS, Scope::Replaced),
    step(WORDS.and(PAGE), WORDS, Scope::Replaced),
    step(WORDS.and(NO_LINK), WORDS, Scope::Replaced),
    step(TEXT.and(UNDATED).and(WORDS), WORDS, Scope::Replaced),
    step(TITLE.and(DATE).and(NO_LINK), ANY, Scope::Replaced),
];

/// The entry of an item, and by what it was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) entry: usize,
    pub(crate) reason: MatchReason,
}

/// Items and entries on their way to each other.
#[derive(Debug)]
pub(crate) struct Matching<'a> {
    items: &'a [Traits],
    entries: &'a [SeenEntry],
    newest: usize,
    /// One for each item.
    pub(crate) found: Vec<Option<Match>>,
    /// One for each entry: whether an item has taken it.
    pub(crate) taken: Vec<bool>,
    /// Items without an entry.
    open_items: Vec<usize>,
    /// Entries without an item that share some evidence with one of `open_items`.
    open_entries: Vec<usize>,
    /// What several items of one document have: the part and its value.
    shared: HashSet<(EvidenceParts, u64)>,
    /// Link, title and text that several items of one document have which have no guid: only their dates tell them apart.
    repeated: HashSet<[u64; 3]>,
    /// The guids of the newest document.
    guids: HashSet<u64>,
    /// An item has the guid that another one had.
    is_renumbered: bool,
    /// Most items of the document, and more than one, are not found under their guid or as they were.
    is_replaced: bool,
}

impl<'a> Matching<'a> {
    /// `newest` entries, from the first, were in the newest document.
    pub(crate) fn new(items: &'a [Traits], entries: &'a [SeenEntry], newest: usize) -> Self {
        let mut matching = Self {
            items,
            entries,
            newest,
            found: vec![None; items.len()],
            taken: vec![false; entries.len()],
            open_items: (0..items.len()).collect(),
            open_entries: Vec::new(),
            shared: HashSet::new(),
            repeated: HashSet::new(),
            guids: HashSet::new(),
            is_renumbered: false,
            is_replaced: false,
        };
        matching.match_unchanged(|traits| {
            let [guid, link, title, text, page, date] =
                [GUID, LINK, TITLE, TEXT, PAGE, DATE].map(|part| part.of(traits));
            Some([guid, link, title, text, page, date, own_media(traits)])
        });
        if !matching.open_items.is_empty() {
            matching.repeated = matching.repeated_words();
            matching.guids = entries[..newest].iter().filter_map(SeenEntry::traits).map(|t| t.guid).collect();
            matching.match_redated();
            matching.open_entries = matching.related_entries();
            matching.shared = matching.shared_parts();
        }
        matching
    }

    /// Matches what is the same article under the same guid.
    pub(crate) fn by_guid(&mut self) {
        if self.has_moved_places() {
            self.run(step(WORDS, WORDS, Scope::Renumbered));
        }
        BY_GUID.iter().for_each(|step| self.run(*step));
    }

    /// Whether guids are the places of a list: most items have the words of an entry under another one of the guids.
    fn has_moved_places(&self) -> bool {
        let mut guids: HashMap<u32, u64> = HashMap::new();
        let newest = self.entries[..self.newest].iter().filter_map(SeenEntry::traits);
        guids.extend(newest.map(|traits| (traits.version(), traits.guid)));
        let has_moved = |item: &&usize| {
            let item = &self.items[**item];
            let is_own = !self.shared.contains(&(WORDS, item.version().into()));
            is_own
                && self.guids.contains(&item.guid)
                && guids.get(&item.version()).is_some_and(|guid| *guid != 0 && *guid != item.guid)
        };
        let moved = self.open_items.iter().filter(has_moved).count();
        moved >= MOVED_MIN && moved * 2 >= self.items.len()
    }

    /// Matches what has another guid or none.
    pub(crate) fn by_other_evidence(&mut self) {
        let others = self.unmatched().count();
        self.is_replaced = others > 1 && others * 2 > self.items.len();
        BY_OTHER_EVIDENCE.iter().for_each(|step| self.run(*step));
    }

    /// Matches what has neither guid nor link, and words that count. `shapes` has those of the items that have no entry.
    pub(crate) fn by_shape(&mut self, shapes: &HashMap<usize, u32>) {
        if !self.is_replaced {
            return;
        }
        let is_nameless = |traits: &&Traits| traits.guid == 0 && traits.link == 0;
        let shape_and_date = |traits: Option<&Traits>, shape: u32| {
            let traits = traits.filter(|_| shape != 0).filter(is_nameless)?;
            Some((shape, traits.date))
        };
        let of_item = |item: &usize| shape_and_date(Some(&self.items[*item]), shapes[item]);
        let items = shapes.keys().filter_map(|item| Some((*item, of_item(item)?))).collect();
        self.match_own(items, |entry| shape_and_date(entry.traits(), entry.shape), SHAPE);
    }

    /// Whether nearly all items of the document have no entry, and there are several.
    pub(crate) fn is_renewed(&self) -> bool {
        let items = self.items.len();
        items >= RENEWED_MIN && self.unmatched().count() * 5 >= items * 4
    }

    /// Matches by the title alone, and by the words without numbers: of a source that makes up everything else at each
    /// visit.
    pub(crate) fn by_words_alone(&mut self, shapes: &HashMap<usize, u32>) {
        let some = |value: u64| Some(value).filter(|value| *value != 0);
        let title = |item: usize| Some((item, some(self.items[item].title)?));
        let titles = self.unmatched().filter_map(title).collect();
        self.match_own(titles, |entry| some(entry.traits()?.title), TITLE);
        let shape = |item: usize| Some((item, some(shapes.get(&item).copied().unwrap_or(0).into())?));
        let shapes = self.unmatched().filter_map(shape).collect();
        self.match_own(shapes, |entry| some(entry.shape.into()), SHAPE);
    }

    /// Matches items with entries of the newest document by a value that one item and one entry have. What several have,
    /// such as the words of release 1 and release 2 without their numbers, tells nothing.
    fn match_own<V: Eq + Hash>(
        &mut self,
        items: Vec<(usize, V)>,
        of: impl Fn(&SeenEntry) -> Option<V>,
        reason: EvidenceParts,
    ) {
        let mut sides: HashMap<V, (Vec<usize>, Vec<usize>)> = HashMap::new();
        for (item, value) in items {
            sides.entry(value).or_default().0.push(item);
        }
        for (n, entry) in self.entries[..self.newest].iter().enumerate() {
            if let Some((_, entries)) = of(entry).and_then(|value| sides.get_mut(&value)) {
                entries.push(n);
            }
        }
        for (items, entries) in sides.into_values() {
            if let ([item], [entry]) = (items.as_slice(), entries.as_slice())
                && !self.taken[*entry]
            {
                self.take(*item, *entry, MatchReason::Equal(reason));
            }
        }
    }

    /// Whether items without an entry may be recognised by their shape.
    pub(crate) fn wants_shapes(&self) -> bool {
        self.is_replaced
            && self.unmatched().any(|item| self.items[item].guid == 0 && self.items[item].link == 0)
    }

    /// The items that have no entry.
    pub(crate) fn unmatched(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.open_items.iter().copied().filter(|item| self.found[*item].is_none())
    }

    pub(crate) fn take(&mut self, item: usize, entry: usize, reason: MatchReason) {
        self.found[item] = Some(Match { entry, reason });
        self.taken[entry] = true;
    }

    /// What did not change but for its date, unless the date is what tells it from others.
    fn match_redated(&mut self) {
        let repeated = std::mem::take(&mut self.repeated);
        self.match_unchanged(|traits| {
            // With neither guid nor link, media and date tell items with equal words apart.
            let is_nameless = traits.guid == 0 && traits.link == 0;
            let is_told_by_date =
                is_nameless || (traits.guid == 0 && repeated.contains(&linked_words(traits)));
            (!is_told_by_date).then(|| {
                let [guid, link, title, text] = [GUID, LINK, TITLE, TEXT].map(|part| part.of(traits));
                [guid, link, title, text, own_media(traits)]
            })
        });
        self.repeated = repeated;
    }

    /// What is as it was in the evidence that `whole` takes: most of what a known source has.
    fn match_unchanged<const N: usize>(&mut self, whole: impl Fn(&Traits) -> Option<[u64; N]>) {
        let reason = MatchReason::Equal(GUID.and(LINK_TITLE).and(TEXT));
        let mut wanted: HashMap<_, Vec<usize>> = HashMap::with_capacity(self.open_items.len());
        for n in self.open_items.iter().rev() {
            if let Some(whole) = whole(&self.items[*n]) {
                wanted.entry(whole).or_default().push(*n);
            }
        }
        let folded =
            |whole: &[u64; N]| whole.iter().fold(0, |folded: u64, part| folded.rotate_left(9) ^ part);
        let filter = ValueFilter::of(wanted.keys().map(folded));
        for (n, entry) in self.entries.iter().enumerate() {
            let whole = entry.traits().filter(|_| !self.taken[n]).and_then(&whole);
            let whole = whole.filter(|whole| filter.may_have(folded(whole)));
            if let Some(item) = whole.and_then(|whole| wanted.get_mut(&whole)?.pop()) {
                self.take(item, n, reason);
            }
        }
        self.open_items.retain(|item| self.found[*item].is_none());
    }

    fn repeated_words(&self) -> HashSet<[u64; 3]> {
        let mut repeated = HashSet::new();
        let entries = self.entries[..self.newest].iter().filter_map(SeenEntry::traits).collect();
        for document in [self.items.iter().collect::<Vec<_>>(), entries] {
            let mut once = HashSet::with_capacity(document.len());
            let words = document.into_iter().filter(|traits| traits.guid == 0).map(linked_words);
            repeated.extend(words.filter(|words| !once.insert(*words)));
        }
        repeated
    }

    fn related_entries(&self) -> Vec<usize> {
        let parts = [GUID, LINK, TITLE, TEXT, PATH, PAGE];
        let values = |traits: &Traits| parts.map(|part| (part, part.of(traits)));
        let open = self.open_items.iter().flat_map(|item| values(&self.items[*item]));
        let known: HashSet<_> = open.filter(|(_, value)| *value != 0).collect();
        let filter = ValueFilter::of(known.iter().map(|(_, value)| *value));
        let is_known = |value: &(EvidenceParts, u64)| filter.may_have(value.1) && known.contains(value);
        let is_related = |traits: Option<&Traits>| traits.is_some_and(|t| values(t).iter().any(is_known));
        (0..self.entries.len()).filter(|n| !self.taken[*n] && is_related(self.entries[*n].traits())).collect()
    }

    fn shared_parts(&self) -> HashSet<(EvidenceParts, u64)> {
        let mut shared = HashSet::new();
        let entries = self.entries[..self.newest].iter().filter_map(SeenEntry::traits);
        for part in [GUID, LINK, TITLE, PATH, PAGE, WORDS] {
            for document in [self.items.iter().collect::<Vec<_>>(), entries.clone().collect()] {
                let mut once = HashSet::with_capacity(document.len());
                let values = document.into_iter().map(|traits| part.of(traits));
                shared.extend(values.filter(|value| !once.insert(*value)).map(|value| (part, value)));
            }
        }
        shared
    }

    fn run(&mut self, step: Step) {
        self.open_items.retain(|item| self.found[*item].is_none());
        self.open_entries.retain(|entry| !self.taken[*entry]);
        if self.open_items.is_empty() || self.open_entries.is_empty() {
            return;
        }
        let is_wanted = match step.scope {
            Scope::Replaced => self.is_replaced,
            Scope::Several => self.items.len() > 1 && self.newest > 1,
            _ => true,
        };
        if !is_wanted {
            return;
        }
        let newest = self.newest;
        self.join(step, |n, _| n < newest);
        match step.scope {
            Scope::All => self.join(step, |_, _| true),
            Scope::OlderWithoutGuid => self.join(step, |_, traits| traits.guid == 0),
            Scope::Newest | Scope::Replaced | Scope::Renumbered | Scope::Several => {}
        }
    }

    /// Matches items with those entries that `is_in_scope` accepts.
    fn join(&mut self, step: Step, is_in_scope: impl Fn(usize, &Traits) -> bool) {
        let mut wanted: HashMap<Joint, (Vec<usize>, Vec<usize>)> = HashMap::new();
        for item in self.open_items.iter().filter(|item| self.found[**item].is_none()) {
            if let Some(joint) = self.joint(step, &self.items[*item]) {
                wanted.entry(joint).or_default().0.push(*item);
            }
        }
        if wanted.is_empty() {
            return;
        }
        for entry in self.open_entries.iter().filter(|entry| !self.taken[**entry]) {
            let EntryIdentity::Known { traits, .. } = &self.entries[*entry].identity else { continue };
            if is_in_scope(*entry, traits)
                && let Some(joint) = self.joint(step, traits)
                && let Some((_, entries)) = wanted.get_mut(&joint)
            {
                entries.push(*entry);
            }
        }
        for (items, entries) in wanted.into_values() {
            if step.several == Several::InOrder || (items.len(), entries.len()) == (1, 1) {
                for (item, entry) in items.into_iter().zip(entries) {
                    if self.may_be_same(step, item, entry) {
                        self.take(item, entry, MatchReason::Equal(step.equal));
                        self.is_renumbered |= step.scope == Scope::Renumbered;
                    }
                }
            }
        }
    }

    /// Whether the rest of the evidence allows it that an item with another identity is the one of the entry. What a
    /// publisher does to an address, it does to most items at once; a single item with another address, or with another
    /// date, that repeats the words of one that has gone is a new article: a programme, an answer, an alert.
    fn may_be_same(&self, step: Step, item: usize, entry: usize) -> bool {
        let item = &self.items[item];
        let Some(entry) = self.entries[entry].traits() else { return true };
        if step.scope == Scope::Renumbered {
            return self.guids.contains(&item.guid) && (item.date == entry.date || step.equal.has(LINK));
        }
        if step.equal == GUID && self.is_another_story(item, entry) {
            return false;
        }
        let is_redated = item.date != 0 && entry.date != 0 && item.date != entry.date;
        let has_other_media = item.media != 0 && entry.media != 0 && item.media != entry.media;
        let is_told_by_date = has_other_media || self.repeated.contains(&linked_words(item));
        if is_redated && item.guid == 0 && entry.guid == 0 && is_told_by_date {
            return false;
        }
        let is_own =
            |part: EvidenceParts| step.equal.has(part) && !self.shared.contains(&(part, part.of(item)));
        let by_own_link = is_own(LINK);
        let is_identified = [GUID, VERSIONS].iter().any(|part| step.equal.has(*part))
            || (by_own_link && item.guid == 0 && entry.guid == 0);
        if is_identified {
            return true;
        }
        if is_redated {
            return self.is_replaced && self.items.len() >= REDATED_MIN;
        }
        let have_other_guids = item.guid != 0 && entry.guid != 0;
        let by_own_page = is_own(LINK) || is_own(PATH) || (is_own(PAGE) && !have_other_guids);
        // A day alone, and a title that may be that of each edition, are no article.
        let by_moment =
            step.equal.has(DATE) && (step.equal != TITLE.and(DATE) || !item.date.is_multiple_of(DAY_S));
        self.is_replaced || by_own_page || by_moment
    }

    /// Whether nothing but the guid is the same. A guid that is the link names the page, whatever it has.
    fn is_another_story(&self, item: &Traits, entry: &Traits) -> bool {
        let is_named_by_guid =
            |traits: &Traits| traits.link == 0 || traits.guid == traits.link || traits.guid_follows_link;
        let all_differ = [LINK, TITLE, TEXT].iter().all(|part| part.of(item) != part.of(entry));
        let is_redated = item.date != 0 && entry.date != 0 && item.date != entry.date;
        all_differ
            && !is_named_by_guid(item)
            && !is_named_by_guid(entry)
            && (is_redated || (self.is_renumbered && item.date == entry.date))
    }

    /// What must be equal; `None` if a part is missing, or shared although it must not be.
    fn joint(&self, step: Step, traits: &Traits) -> Option<Joint> {
        if step.own != ANY && self.shared.contains(&(step.own, step.own.of(traits))) {
            return None;
        }
        let mut joint = [0; 3];
        let parts = NAMES.iter().map(|(part, _)| *part).filter(|part| step.equal.has(*part));
        for (value, part) in joint.iter_mut().zip(parts) {
            *value = part.of(traits);
            if *value == 0 {
                return None;
            }
        }
        Some(joint)
    }
}

/// The media that tell an item without guid from others with its words.
fn own_media(traits: &Traits) -> u64 {
    if traits.guid == 0 { traits.media.into() } else { 0 }
}

fn linked_words(traits: &Traits) -> [u64; 3] {
    [LINK, TITLE, TEXT].map(|part| part.of(traits))
}

/// The values of the parts that a step compares, at most three.
type Joint = [u64; 3];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_compares_more_parts_than_a_joint_has() {
        for step in BY_GUID.iter().chain(&BY_OTHER_EVIDENCE) {
            let parts = step.equal.names().count();
            assert!((1..=3).contains(&parts), "{step:?}");
            assert!(step.own == ANY || step.equal.has(step.own), "{step:?}");
        }
    }

    #[test]
    fn a_reason_names_its_parts() {
        assert_eq!(MatchReason::Equal(GUID.and(LINK_TITLE)).to_string(), "guid + link + title");
    }
}
