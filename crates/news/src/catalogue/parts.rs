//! A list of sources in several files: one that names the others, and those.
//!
//! ```toml
//! include = "sources.d/*.toml"   # or a list of these; relative to this file, and only here
//! ```
//!
//! All files together are one list: an id is unique in all of them, and so is a request, except within one file. Files are
//! found and read by the caller.

use std::collections::{HashMap, HashSet};

use notation::{Complaint, Complaints, shortened};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{CatalogueReader, IdPlace, type_of};
use crate::{Access, Catalogue, FeedUrl, SourceId};

/// Maximum number of patterns in `include`.
const PATTERNS_MAX: usize = 32;
/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 255;

/// A value of `include`: a relative path without `..`, whose last part may have `*`, `?` and `[…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncludePattern {
    /// The pattern, as written.
    pub pattern: String,
    /// Its line, for complaints.
    pub line: usize,
}

impl IncludePattern {
    /// Whether it can match several files, or none. Without wildcards it names a file, which must exist.
    #[must_use]
    pub fn has_wildcards(&self) -> bool {
        self.pattern.contains(['*', '?', '['])
    }

    /// The directory, which is empty for that of the main file, and the name.
    #[must_use]
    pub fn split(&self) -> (&str, &str) {
        self.pattern.rsplit_once('/').unwrap_or(("", &self.pattern))
    }
}

/// The files of a list, read one after the other; all mistakes of all of them are reported at once.
#[derive(Debug)]
pub struct CatalogueFiles {
    places: Vec<String>,
    files: Vec<Catalogue>,
    includes: Vec<IncludePattern>,
    ids: HashMap<SourceId, IdPlace>,
    list_ids: HashSet<SourceId>,
    complaints: Complaints,
}

impl CatalogueFiles {
    /// Reads the main file; complaints call it `place`.
    #[must_use]
    pub fn new(place: impl Into<String>, text: &str) -> Self {
        let mut files = Self {
            places: Vec::new(),
            files: Vec::new(),
            includes: Vec::new(),
            ids: HashMap::new(),
            list_ids: HashSet::new(),
            complaints: Complaints::default(),
        };
        files.add(place, text);
        files
    }

    /// What the main file includes, in its order.
    #[must_use]
    pub fn includes(&self) -> &[IncludePattern] {
        &self.includes
    }

    /// Reads an included file; complaints call it `place`.
    pub fn add(&mut self, place: impl Into<String>, text: &str) {
        self.places.push(place.into());
        let (document, errors) = DeTable::parse_recoverable(text);
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
        let mut reader = CatalogueReader {
            places: &self.places,
            breaks,
            complaints: Complaints::default(),
            ids: &mut self.ids,
            list_ids: &mut self.list_ids,
            includes: Vec::new(),
            table: "source",
        };
        for error in &errors {
            reader.complain(error.span().unwrap_or_default(), "", error.message());
        }
        let catalogue =
            if errors.is_empty() { reader.document(document.get_ref()) } else { Catalogue::default() };
        let CatalogueReader { complaints, mut includes, .. } = reader;
        self.includes.append(&mut includes);
        self.complaints.extend(complaints.in_file(self.places.last().map_or("", String::as_str)));
        self.files.push(catalogue);
    }

    /// Adds a complaint of the caller, such as one about a file that cannot be read.
    pub fn complain(&mut self, complaint: Complaint) {
        self.complaints.push(complaint);
    }

    /// The sources of each file, in the order in which the files were added.
    ///
    /// # Errors
    /// Everything that is wrong with the files, by file and line.
    pub fn finish(mut self) -> Result<Vec<Catalogue>, Complaints> {
        self.refuse_repetitions();
        self.complaints.or(self.files)
    }

    /// Refuses a request that two files have: the feed would be visited, and its items be sent, twice.
    fn refuse_repetitions(&mut self) {
        if self.files.len() < 2 {
            return;
        }
        let mut first: HashMap<(&FeedUrl, &Access), &SourceId> = HashMap::new();
        for source in self.files.iter().flat_map(|file| &file.sources) {
            let Some(place) = self.ids.get(&source.id) else { continue };
            let earlier = *first.entry((&source.url, &source.access)).or_insert(&source.id);
            let Some(other) = self.ids.get(earlier).filter(|other| other.file != place.file) else {
                continue;
            };
            self.complaints.push(Complaint {
                place: self.places[place.file].clone(),
                line: Some(place.line),
                key: "source.url".to_owned(),
                message: format!(
                    "source `{}` has the address of source `{earlier}` at {}:{}; remove one of them",
                    source.id, self.places[other.file], other.line
                ),
            });
        }
    }
}

impl CatalogueReader<'_> {
    pub(super) fn is_main(&self) -> bool {
        self.places.len() == 1
    }

    pub(super) fn include(&mut self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        if !self.is_main() {
            let message = "an included file includes no others; name them in the main file";
            self.complain(key.span(), "include", message);
            return;
        }
        match value.get_ref() {
            DeValue::Array(list) if list.len() > PATTERNS_MAX => {
                let message = format!("{} patterns are more than {PATTERNS_MAX}", list.len());
                self.complain(value.span(), "include", message);
            }
            DeValue::Array(list) => list.iter().for_each(|pattern| self.pattern(pattern)),
            _ => self.pattern(value),
        }
    }

    fn pattern(&mut self, value: &Spanned<DeValue<'_>>) {
        let Some(text) = value.get_ref().as_str() else {
            let found = type_of(value);
            let message =
                format!("expected a path such as \"sources.d/*.toml\", or a list of them, found {found}");
            self.complain(value.span(), "include", message);
            return;
        };
        let pattern = IncludePattern { pattern: text.to_owned(), line: self.line(&value.span()) };
        let (directory, name) = pattern.split();
        let mistake = if text.is_empty()
            || text.len() > PATTERN_BYTES_MAX
            || text.chars().any(char::is_control)
        {
            format!("expected 1 to {PATTERN_BYTES_MAX} bytes without control characters")
        } else if text.starts_with('/') || directory.split('/').any(|part| part == "..") || name == ".." {
            format!(
                "`{}` is not below the directory of this file; write a relative path without `..`",
                shortened(text)
            )
        } else if directory.contains(['*', '?', '[']) || name.contains("**") {
            format!("`{}`: only the name of a file may have wildcards, not its directory", shortened(text))
        } else if matches!(name, "" | ".") {
            format!("`{}` is a directory; write for example `{}/*.toml`", shortened(text), directory)
        } else {
            self.includes.push(pattern);
            return;
        };
        self.complain(value.span(), "include", mistake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: &str, path: &str) -> String {
        format!("[[source]]\nid = \"{id}\"\nurl = \"https://example.org/{path}\"\n")
    }

    fn complaints(main: &str, part: &str) -> Vec<String> {
        let mut files = CatalogueFiles::new("sources.toml", main);
        files.add("sources.d/b.toml", part);
        match files.finish() {
            Ok(_) => Vec::new(),
            Err(complaints) => complaints.into_iter().map(|complaint| complaint.to_string()).collect(),
        }
    }

    #[test]
    fn a_list_in_parts_is_one_list_in_the_order_of_its_files() {
        let main = format!("include = [\"sources.d/*.toml\", \"own.toml\"]\n{}", source("a", "a"));
        let mut files = CatalogueFiles::new("sources.toml", &main);
        let found: Vec<_> = files.includes().iter().map(|i| (i.split(), i.line, i.has_wildcards())).collect();
        assert_eq!(found, [(("sources.d", "*.toml"), 1, true), (("", "own.toml"), 1, false)]);
        files.add("sources.d/b.toml", &source("b", "b"));
        files.add("own.toml", "");
        let all: Catalogue = files.finish().unwrap().into_iter().collect();
        assert_eq!(all.sources.iter().map(|source| source.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(Catalogue::parse(&main).unwrap().sources.len(), 1, "by itself");
        let one = CatalogueFiles::new("", "include = \"x.toml\"\n");
        assert_eq!(one.includes(), [IncludePattern { pattern: "x.toml".to_owned(), line: 1 }]);
    }

    #[test]
    fn each_mistake_names_its_own_file_and_line() {
        let main = format!("{}{}", source("a", "a"), source("x", "x").replace("url", "uri"));
        let part = format!(
            "# part\n{}{}{}",
            source("a", "other"),
            source("b", "a"),
            source("c", "c") + "evry = \"1h\"\n"
        );
        let found = complaints(&main, &part);
        let starts = [
            "sources.toml:4: source.url: is missing",
            "sources.toml:6: source.uri: unknown key",
            "sources.d/b.toml:3: source.id: `a` is the id of the source at sources.toml:2 already",
            "sources.d/b.toml:11: source.evry: unknown key",
            "sources.d/b.toml:6: source.url: source `b` has the address of source `a` at sources.toml:2",
        ];
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (line, start) in found.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}\n{start}");
        }
    }

    #[test]
    fn one_address_may_be_requested_in_two_ways_and_twice_in_one_file() {
        let key = |value: &str| format!("{}headers = {{ X-Key = \"{value}\" }}\n", source(value, "a"));
        assert!(complaints(&key("k1"), &key("k2")).is_empty());
        assert_eq!(complaints(&key("k1"), &key("k1").replace("id = \"k1\"", "id = \"k2\"")).len(), 1);
        let twice = source("a", "a") + &source("b", "a");
        assert!(complaints(&twice, "").is_empty() && complaints("", &twice).is_empty());
        assert_eq!(complaints(&twice, &source("c", "a")).len(), 1);
    }

    #[test]
    fn an_include_is_a_path_below_the_directory_of_the_main_file() {
        for (wrong, why) in [
            ("3", "found an integer"),
            ("[\"a.toml\", true]", "found a boolean"),
            ("\"\"", "expected 1 to"),
            ("\"/etc/*.toml\"", "relative path"),
            ("\"../a.toml\"", "relative path"),
            ("\"a/../b.toml\"", "relative path"),
            ("\"a/..\"", "relative path"),
            ("\"*/a.toml\"", "only the name"),
            ("\"a/**.toml\"", "only the name"),
            ("\"sources.d/\"", "`sources.d/*.toml`"),
        ] {
            let found = complaints(&format!("\ninclude = {wrong}\n"), "");
            assert!(
                found.len() == 1 && found[0].starts_with("sources.toml:2: include: "),
                "{wrong}: {found:?}"
            );
            assert!(found[0].contains(why), "{found:?}");
        }
        let many = vec!["\"a.toml\""; PATTERNS_MAX + 1].join(", ");
        assert_eq!(complaints(&format!("include = [{many}]\n"), "").len(), 1);
    }

    #[test]
    fn only_the_main_file_includes_and_only_above_its_sources() {
        let found = complaints("", "include = \"c.toml\"\n");
        assert!(
            found[0].starts_with("sources.d/b.toml:1: include: an included file includes no others"),
            "{found:?}"
        );
        let found = complaints(&(source("a", "a") + "include = \"c.toml\"\n"), "");
        assert!(found[0].starts_with("sources.toml:4: source.include: write it at the top"), "{found:?}");
        let found = complaints("inclde = \"c.toml\"\n", "");
        assert!(found[0].contains("did you mean `include`?"), "{found:?}");
    }

    #[test]
    fn the_limit_counts_the_sources_of_all_files() {
        let list = |from: usize, to: usize| -> String {
            (from..to).map(|n| source(&n.to_string(), &n.to_string())).collect()
        };
        assert!(complaints(&list(0, 60_000), &list(60_000, 100_000)).is_empty());
        let found = complaints(&list(0, 60_000), &list(60_000, 100_001));
        assert!(
            found[0].starts_with("sources.d/b.toml:1: source: 100001 sources are more than 100000"),
            "{found:?}"
        );
    }
}
