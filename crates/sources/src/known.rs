//! The feeds and ids that a list of sources has already.

use std::collections::{HashMap, HashSet};

use news::{Access, Catalogue, FeedUrl, Source, SourceId};

/// The feeds and ids in use.
///
/// Two sources are the same if their addresses and their request settings are: one address may be requested with two keys.
#[derive(Clone, Debug, Default)]
pub struct KnownFeeds {
    /// By address, those without request settings.
    plain: HashMap<String, SourceId>,
    /// By address, the first one with request settings.
    special: HashMap<String, SourceId>,
    /// All with request settings.
    requests: HashMap<(String, Access), SourceId>,
    ids: HashSet<SourceId>,
    /// The next number to try for an id in use; a hostile list would make us count from 2 each time.
    next: HashMap<String, usize>,
}

impl KnownFeeds {
    /// Those of a catalogue.
    #[must_use]
    pub fn new(catalogue: &Catalogue) -> Self {
        Self::of(&catalogue.sources)
    }

    pub(crate) fn of(sources: &[Source]) -> Self {
        let mut known = Self::default();
        sources.iter().for_each(|source| known.insert(source));
        known
    }

    /// The source with this address, preferably one without request settings.
    #[must_use]
    pub fn feed(&self, url: &FeedUrl) -> Option<&SourceId> {
        let address = address_key(url);
        self.plain.get(&address).or_else(|| self.special.get(&address))
    }

    /// The source with this address and these request settings.
    #[must_use]
    pub fn request(&self, url: &FeedUrl, access: &Access) -> Option<&SourceId> {
        if *access == Access::default() {
            self.plain.get(&address_key(url))
        } else {
            self.requests.get(&(address_key(url), access_key(access)))
        }
    }

    /// Whether a source has this id.
    #[must_use]
    pub fn has_id(&self, id: &SourceId) -> bool {
        self.ids.contains(id)
    }

    pub(crate) fn insert(&mut self, source: &Source) {
        let (address, id) = (address_key(&source.url), &source.id);
        if source.access == Access::default() {
            self.plain.entry(address).or_insert_with(|| id.clone());
        } else {
            self.special.entry(address.clone()).or_insert_with(|| id.clone());
            self.requests.entry((address, access_key(&source.access))).or_insert_with(|| id.clone());
        }
        self.ids.insert(id.clone());
    }

    /// An unused id, made from the name, else from the host. Deterministic for the same list and catalogue.
    pub fn free_id(&mut self, wanted: Option<&str>, name: Option<&str>, url: &FeedUrl) -> SourceId {
        let host = url.host().trim_start_matches("www.");
        let slugs = [name, Some(host)].into_iter().flatten().map(slug);
        let base = wanted.filter(|id| SourceId::try_new(id).is_ok()).map(str::to_owned);
        let base = base.or_else(|| slugs.into_iter().find(|s| s.len() > 1)).unwrap_or("feed".to_owned());
        let try_new = |id: &str| SourceId::try_new(id).expect("a slug begins with a letter or digit");
        let first = try_new(&base);
        if !self.ids.contains(&first) {
            return first;
        }
        let next = self.next.entry(base.clone()).or_insert(2);
        loop {
            let end = format!("-{next}");
            *next += 1;
            let id = try_new(&format!("{}{end}", &base[..base.len().min(SourceId::LENGTH_MAX - end.len())]));
            if !self.ids.contains(&id) {
                return id;
            }
        }
    }
}

/// A key that is equal for two URLs of one feed: the scheme, a fragment and an empty query do not matter.
pub(crate) fn address_key(url: &FeedUrl) -> String {
    let mut url = url.secret().clone();
    url.set_fragment(None);
    if url.query() == Some("") {
        url.set_query(None);
    }
    url.as_str().split_once("://").map_or_else(String::new, |(_, rest)| rest.to_owned())
}

/// Equal for request settings that make the same request: case and order of the names of headers do not matter.
fn access_key(access: &Access) -> Access {
    let mut access = access.clone();
    for (name, _) in &mut access.headers {
        name.make_ascii_lowercase();
    }
    access.headers.sort();
    access
}

/// Lower-case ASCII letters and digits, with `-` between words; may be empty.
fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut slug = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    slug.truncate(SourceId::LENGTH_MAX);
    slug.trim_end_matches('-').to_owned()
}
