//! Lists of feeds that the daemon reads again by itself.
//!
//! ```toml
//! [[list]]
//! id = "planet"                               # required: begins the ids of its sources
//! url = "https://example.org/planet.opml"     # this or `file`, relative to the main file
//! every = "1d"                                # how often it is read
//! category = "tech"                           # of all its sources; default: their folders in the list
//! enabled = true
//! ```
//!
//! The keys of a source about requests (`headers`, `proxy`, …) are about the request for the list.

use std::{fmt, path::PathBuf, time::Duration};

use notation::suggestion;
use serde::{Deserialize, Serialize};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{CatalogueReader, EVERY, SourceFields, request, type_of};
use crate::{Access, FeedUrl, SourceId, Timestamp, access::HashedSettings};

/// The keys of a list that [`request`] does not read.
const KEYS: [&str; 6] = ["id", "url", "file", "every", "category", "enabled"];
/// Keys of [`request`] that are about feeds only.
const NO_KEYS: [&str; 2] = ["body_bytes_max", "new_bytes_max"];
/// Interval between two reads, if `every` is not set.
const EVERY_DEFAULT: Duration = Duration::from_secs(86_400);
/// Longest path of a file, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// A list of feeds in OPML whose feeds are sources for as long as they are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedList {
    /// Its name; the ids of its sources begin with it.
    pub id: SourceId,
    /// Where it is.
    pub origin: ListOrigin,
    /// Interval between two reads; never shorter than `fetch.interval_min`.
    pub every: Duration,
    /// The category of all its sources. `None`: the folder of each in the list.
    pub category: Option<String>,
    /// The request settings for the list itself.
    pub access: Access,
    /// Whether it is read. A list that is not has no sources.
    pub enabled: bool,
}

/// Where a list of feeds is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListOrigin {
    /// On a server.
    Url(FeedUrl),
    /// On disk, relative to the directory of the main file of the catalogue.
    File(PathBuf),
}

impl FeedList {
    /// Maximum number of lists in one file.
    pub const LISTS_MAX: usize = 1000;
    /// Longest id of a list, in bytes: the ids of its sources begin with it.
    pub const ID_BYTES_MAX: usize = 32;

    /// Hash of what a read of it depends on: where it is, and its request settings, but not what is in their files. What is
    /// known about its answers belongs to it.
    #[must_use]
    pub fn reading_hash(&self) -> u64 {
        let mut hashed = self.origin.hashed();
        self.access.write_into(&mut hashed);
        hashed.hash()
    }

    /// Hash of where it is.
    #[must_use]
    pub fn origin_hash(&self) -> u64 {
        self.origin.hashed().hash()
    }
}

impl ListOrigin {
    fn hashed(&self) -> HashedSettings {
        let mut hashed = HashedSettings::default();
        match self {
            Self::Url(url) => hashed.add("url", url.secret().as_str()),
            Self::File(path) => hashed.add("file", path.as_os_str().as_encoded_bytes()),
        }
        hashed
    }
}

/// Without secrets.
impl fmt::Display for ListOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A list and its state: an element of `GET /lists`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStatus {
    /// From the catalogue.
    pub id: SourceId,
    /// Its address without secrets, or its file.
    pub origin: String,
    /// Seconds between two reads.
    pub every_s: u64,
    /// Whether it is read.
    pub enabled: bool,
    /// Its sources: the feeds that it had when it was taken last, without those that are listed elsewhere.
    pub sources: u64,
    /// Feeds of it that other parts of the catalogue have already.
    pub known: u64,
    /// Outlines of it that are no feed.
    pub refused: u64,
    /// When it was read last, with or without success.
    pub last_read: Option<Timestamp>,
    /// When it was taken last, or had not changed.
    pub last_success: Option<Timestamp>,
    /// When it is read next; `None` if it is not.
    pub next_read: Option<Timestamp>,
    /// What the read that has begun waits for.
    pub waiting_for: Option<String>,
    /// Reads in a row after which its old sources stayed.
    pub failures: u32,
    /// Why; also why not all of its feeds are sources.
    pub error: Option<String>,
}

impl ListStatus {
    /// Whether its sources are not what it has.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.enabled && self.error.is_some()
    }
}

impl CatalogueReader<'_> {
    /// All `[[list]]` tables.
    pub(super) fn lists(
        &mut self,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Vec<FeedList> {
        match value.get_ref() {
            DeValue::Array(list) if list.len() > FeedList::LISTS_MAX => {
                let message = format!("{} lists are more than {}", list.len(), FeedList::LISTS_MAX);
                self.complain(key.span(), "list", message);
                Vec::new()
            }
            DeValue::Array(list) => list.iter().filter_map(|entry| self.list(entry)).collect(),
            _ => {
                self.complain(key.span(), "list", "write [[list]], with two brackets");
                Vec::new()
            }
        }
    }

    fn list(&mut self, entry: &Spanned<DeValue<'_>>) -> Option<FeedList> {
        let DeValue::Table(table) = entry.get_ref() else {
            let message = format!("expected a table, found {}; write [[list]]", type_of(entry));
            self.complain(entry.span(), "list", message);
            return None;
        };
        self.table = "list";
        let before = self.complaints.list().len();
        let list = self.list_table(entry, table);
        self.table = "source";
        list.filter(|_| self.complaints.list().len() == before)
    }

    fn list_table(&mut self, entry: &Spanned<DeValue<'_>>, table: &DeTable<'_>) -> Option<FeedList> {
        let (mut id, mut origin, mut every, mut category, mut enabled) = (None, None, None, None, true);
        let mut fields = SourceFields::default();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match name {
                "id" => id = self.list_id(value),
                "url" => origin = self.list_url(value).map(ListOrigin::Url),
                "file" => origin = self.list_file(value).map(ListOrigin::File),
                "every" => every = self.duration(name, value, EVERY),
                "category" => category = self.word(name, value),
                "enabled" => match value.get_ref().as_bool() {
                    Some(given) => enabled = given,
                    None => {
                        self.refuse(value, name, format!("expected true or false, found {}", type_of(value)));
                    }
                },
                other => {
                    if NO_KEYS.contains(&other) || !self.request_key(&mut fields.request, key, value) {
                        self.complain(key.span(), &format!("list.{other}"), unknown(other));
                    }
                }
            }
        }
        if !table.contains_key("id") {
            self.refuse(entry, "id", "is missing; each list needs one");
        }
        if table.contains_key("url") == table.contains_key("file") {
            self.refuse(entry, "url", "a list needs either `url` or `file`");
        }
        if table.contains_key("file") && fields.request.access != Access::default() {
            self.refuse(
                entry,
                "file",
                "a list in a file is not requested; remove the keys about its request",
            );
        }
        let url = match &origin {
            Some(ListOrigin::Url(url)) => Some(url),
            _ => None,
        };
        self.check_credentials(url, &fields.request.access, entry);
        let every = every.unwrap_or(EVERY_DEFAULT);
        Some(FeedList { id: id?, origin: origin?, every, category, access: fields.request.access, enabled })
    }

    fn list_id(&mut self, value: &Spanned<DeValue<'_>>) -> Option<SourceId> {
        let text = self.string("id", value)?;
        let id = SourceId::try_new(text).ok().filter(|id| id.as_str().len() <= FeedList::ID_BYTES_MAX);
        if id.is_none() {
            let message = format!(
                "the id of a list must be 1 to {} characters of a-z, 0-9, - and _, and begin with a letter or a digit",
                FeedList::ID_BYTES_MAX
            );
            self.refuse(value, "id", message);
        }
        let id = id?;
        if !self.list_ids.insert(id.clone()) {
            self.refuse(value, "id", format!("`{id}` is the id of another list"));
            return None;
        }
        Some(id)
    }

    fn list_url(&mut self, value: &Spanned<DeValue<'_>>) -> Option<FeedUrl> {
        let url = FeedUrl::try_new(self.string("url", value)?);
        url.map_err(|_| {
            let message = "the address of a list must be a complete http:// or https:// URL of at most 2048 bytes, of which a \
                           letter such as é takes 6";
            self.refuse(value, "url", message);
        })
        .ok()
    }

    fn list_file(&mut self, value: &Spanned<DeValue<'_>>) -> Option<PathBuf> {
        let text = self.string("file", value)?;
        if text.is_empty() || text.len() > PATH_BYTES_MAX || text.contains('\0') {
            self.refuse(
                value,
                "file",
                format!("expected the path of an OPML file, 1 to {PATH_BYTES_MAX} bytes"),
            );
            return None;
        }
        Some(PathBuf::from(text))
    }
}

/// The message about a key that a list does not have.
fn unknown(name: &str) -> String {
    let keys = || KEYS.into_iter().chain(request::KEYS.into_iter().filter(|key| !NO_KEYS.contains(key)));
    match suggestion(name, keys()).as_str() {
        "" => format!("unknown key; a list has {}", keys().collect::<Vec<_>>().join(", ")),
        hint => format!("unknown key{hint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;

    fn complaints(text: &str) -> Vec<String> {
        let complaints = Catalogue::parse(text).unwrap_err();
        complaints.into_iter().map(|complaint| complaint.to_string()).collect()
    }

    #[test]
    fn a_list_has_an_address_or_a_file_and_request_settings() {
        let text = "[[list]]\nid = \"planet\"\nurl = \"https://example.org/p.opml\"\nevery = \"6h\"\ncategory = \"tech\"\n\
                    proxy = \"http://proxy.example:3128\"\n\
                    [[list]]\nid = \"own\"\nfile = \"own.opml\"\nenabled = false\n\
                    [[source]]\nid = \"planet\"\nurl = \"https://example.org/f\"\n";
        let Catalogue { sources, lists } = Catalogue::parse(text).unwrap();
        assert_eq!((sources.len(), lists.len()), (1, 2));
        assert_eq!(lists[0].every, Duration::from_secs(6 * 3600));
        assert!(lists[0].access.proxy.is_some() && lists[0].category.as_deref() == Some("tech"));
        assert_eq!(lists[1].origin, ListOrigin::File(PathBuf::from("own.opml")));
        assert!(!lists[1].enabled && lists[1].every == EVERY_DEFAULT);
    }

    #[test]
    fn the_answers_of_a_list_belong_to_its_address_and_its_request_settings() {
        let hash = |keys: &str| {
            let list = Catalogue::parse(&format!("[[list]]\nid = \"a\"\n{keys}\n")).unwrap().lists.remove(0);
            (list.reading_hash(), list.origin.to_string(), list.origin_hash())
        };
        let plain = hash("url = \"https://u:TOPSECRET@example.org/p?key=TOPSECRET\"");
        assert_eq!(plain.1, "https://…@example.org/p?key=…");
        assert_eq!(
            hash(
                "url = \"https://u:TOPSECRET@example.org/p?key=TOPSECRET\"\nevery = \"1h\"\ncategory = \"x\""
            ),
            plain
        );
        for (other, is_there) in [
            ("url = \"https://example.org/q\"", false),
            ("url = \"https://u:TOPSECRET@example.org/p?key=TOPSECRET\"\nuser_agent = \"x\"", true),
            ("file = \"p\"", false),
        ] {
            assert_ne!(hash(other).0, plain.0, "{other}");
            assert_eq!(hash(other).2 == plain.2, is_there, "{other}");
        }
    }

    #[test]
    fn a_mistake_in_request_settings_of_a_list_names_the_list() {
        let text = "[[list]]\nid = \"a\"\nurl = \"https://u:p@example.org/p\"\nbasic_file = \"b\"\nbearer_file = \"c\"\n\
                    headers = { Host = \"x\" }\nproxy = \"p\"\n[[source]]\nid = \"s\"\n\
                    url = \"https://u:p@example.org/f\"\nbasic_file = \"b\"\nbearer_file = \"c\"\nheaders = { Host = \"x\" }\n";
        let found = complaints(text);
        for part in [
            "1: list: has credentials in its url and in a file",
            "5: list.bearer_file: a list may have a basic_file or a bearer_file",
            "6: list.headers: `Host` cannot be set",
            "7: list.proxy:",
            "8: source: has credentials in its url and in a file",
            "12: source.bearer_file: a source may have a basic_file or a bearer_file",
            "13: source.headers: `Host` cannot be set",
        ] {
            assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:#?}");
        }
        assert_eq!(found.len(), 7, "{found:#?}");
    }

    #[test]
    fn every_mistake_names_the_list_its_line_and_the_remedy() {
        let text = "[[list]]\nurl = \"ftp://example.org/SECRET\"\nfile = \"a\"\nevery = \"0s\"\ncategry = \"x\"\n\
                    [[list]]\nid = \"a b\"\n[[list]]\nid = \"c\"\nfile = \"c\"\n[[list]]\nid = \"c\"\nfile = \"\"\n\
                    [[list]]\nid = \"d\"\nfile = \"d\"\nuser_agent = \"x\"\nbody_bytes_max = 2000\n";
        let found = complaints(text);
        for part in [
            "1: list.id: is missing",
            "1: list.url: a list needs either",
            "2: list.url: the address of a list",
            "4: list.every:",
            "5: list.categry: unknown key; did you mean `category`",
            "7: list.id: the id of a list must be",
            "12: list.id: `c` is the id of another list",
            "13: list.file: expected the path",
            "14: list.file: a list in a file is not requested",
            "18: list.body_bytes_max: unknown key",
        ] {
            assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:#?}");
        }
        assert!(!found.iter().any(|line| line.contains("SECRET")), "{found:?}");
    }
}
