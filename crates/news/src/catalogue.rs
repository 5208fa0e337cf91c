//! The list of sources, `sources.toml`: all mistakes are reported at once.
//!
//! ```toml
//! [[source]]
//! id = "bbc"                                      # required: its name everywhere
//! url = "https://feeds.bbci.co.uk/news/rss.xml"   # required
//! name = "BBC News"                               # all others are optional
//! category = "general"
//! country = "GB"
//! language = "en"
//! tags = ["public"]
//! every = "15m"
//! fresh = "ignore"
//! timeout = "20s"
//! timeout_first_byte = "15s"
//! enabled = true
//! ```
//!
//! The keys about requests (`body_bytes_max`, `headers`, `basic_file`, …) are read in `request`. A list may have parts in
//! other files, which `include` names: see `parts`.

mod lists;
mod parts;
mod request;

pub use lists::{FeedList, ListOrigin, ListStatus};
pub use parts::{CatalogueFiles, IncludePattern};

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    io,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use notation::{Complaint, Complaints, parse_duration_within, shortened, suggestion, write_duration};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{FeedUrl, ProxyUrl, Source, SourceId};

/// The keys of a source that [`request`] does not read.
const KEYS: [&str; 12] = [
    "id",
    "url",
    "name",
    "category",
    "country",
    "language",
    "tags",
    "every",
    "timeout",
    "timeout_first_byte",
    "enabled",
    "fresh",
];
/// Limits of `every`.
const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
/// Limits of `timeout` and `timeout_first_byte`.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

/// The sources of a list, in the order of its file or files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// No two have the same id.
    pub sources: Vec<Source>,
    /// Lists of feeds, whose feeds are sources as well once they were read. No two have the same id.
    pub lists: Vec<FeedList>,
}

impl Catalogue {
    /// Maximum number of sources in a list.
    pub const SOURCES_MAX: usize = 100_000;
    /// Maximum number of tags of one source.
    pub const TAGS_MAX: usize = 32;
    /// Longest name, in bytes.
    pub const TEXT_BYTES_MAX: usize = 200;
    /// Longest category or tag, in bytes: the limit of a filter.
    pub const WORD_BYTES_MAX: usize = 64;

    /// Reads the text of a `sources.toml`, without the files that it includes; [`CatalogueFiles`] reads those, too.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of its lines; the caller names the file with
    /// [`Complaints::in_file`].
    pub fn parse(text: &str) -> Result<Self, Complaints> {
        CatalogueFiles::new("", text).finish().map(|files| files.into_iter().collect())
    }

    /// The complaint about a file that could not be read because of `error`.
    #[must_use]
    pub fn unreadable(place: &str, error: &io::Error) -> Complaint {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "make it readable for this user, or run this as another user",
            io::ErrorKind::NotFound => {
                "set ingestd.sources to an existing file, or create this one with [[source]] tables"
            }
            _ => "set ingestd.sources to a text file with [[source]] tables",
        };
        let message = format!("cannot read the list of sources: {error}; {remedy}");
        Complaint { place: place.to_owned(), line: None, key: String::new(), message }
    }

    /// The keys that a source may have.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        KEYS.into_iter().chain(request::KEYS)
    }

    /// Makes a proxy that of every source without a choice of its own. What is requested, and so
    /// [`Source::request_hash`], depends on it.
    pub fn inherit_proxy(&mut self, proxy: Option<&ProxyUrl>) {
        self.sources.iter_mut().for_each(|source| source.inherit_proxy(proxy));
    }

    /// The text of the file; [`Catalogue::parse`] returns the same catalogue from it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for source in &self.sources {
            write_source(&mut out, source);
        }
        out
    }
}

/// All sources, in the order of the files.
impl FromIterator<Catalogue> for Catalogue {
    fn from_iter<I: IntoIterator<Item = Self>>(files: I) -> Self {
        let mut all = Self::default();
        for file in files {
            all.sources.extend(file.sources);
            all.lists.extend(file.lists);
        }
        all
    }
}

/// Where an id is: the number of the file, and the line.
#[derive(Clone, Copy, Debug)]
struct IdPlace {
    file: usize,
    line: usize,
}

struct CatalogueReader<'a> {
    /// The names of the files so far; the last one is read here.
    places: &'a [String],
    /// Offsets of the line ends: a file of 100,000 sources needs 100,000 line numbers.
    breaks: Vec<usize>,
    complaints: Complaints,
    /// The ids of all files so far.
    ids: &'a mut HashMap<SourceId, IdPlace>,
    /// The ids of the lists of all files so far.
    list_ids: &'a mut HashSet<SourceId>,
    includes: Vec<IncludePattern>,
    /// The kind of table that is read: `source` or `list`.
    table: &'static str,
}

impl CatalogueReader<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.breaks.partition_point(|at| *at < span.start)
    }

    /// `key` is the whole path, `source.url`; empty for a syntax error.
    fn complain(&mut self, span: Range<usize>, key: &str, message: impl Into<String>) {
        let line = Some(self.line(&span));
        let complaint =
            Complaint { place: String::new(), line, key: key.to_owned(), message: message.into() };
        self.complaints.push(complaint);
    }

    /// About the value of a key of a source or list.
    fn refuse(&mut self, value: &Spanned<DeValue<'_>>, name: &str, message: impl Into<String>) {
        self.complain(value.span(), &format!("{}.{name}", self.table), message);
    }

    fn document(&mut self, document: &DeTable<'_>) -> Catalogue {
        let Catalogue { mut sources, mut lists } = Catalogue::default();
        for (key, value) in document {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("source", DeValue::Array(list)) => {
                    let total = self.ids.len() + list.len();
                    if total > Catalogue::SOURCES_MAX {
                        let message = format!("{total} sources are more than {}", Catalogue::SOURCES_MAX);
                        self.complain(key.span(), "source", message);
                        continue;
                    }
                    sources.extend(list.iter().filter_map(|entry| self.entry(entry)));
                }
                ("source", _) => {
                    self.complain(key.span(), "source", "write [[source]], with two brackets");
                }
                ("list", _) => lists.extend(self.lists(key, value)),
                ("include", _) => self.include(key, value),
                (other, _) => {
                    let has = if self.is_main() {
                        "`include`, [[source]] and [[list]] tables"
                    } else {
                        "[[source]] and [[list]] tables only"
                    };
                    let known: &[&str] = &["source", "list", "include"];
                    let known = if self.is_main() { known } else { &known[..2] };
                    let hint = suggestion(other, known.iter().copied());
                    self.complain(key.span(), other, format!("unknown key; this file has {has}{hint}"));
                }
            }
        }
        Catalogue { sources, lists }
    }

    /// One `[[source]]`; `None` after a complaint about it.
    fn entry(&mut self, entry: &Spanned<DeValue<'_>>) -> Option<Source> {
        let DeValue::Table(table) = entry.get_ref() else {
            let message = format!("expected a table, found {}; write [[source]]", type_of(entry));
            self.complain(entry.span(), "source", message);
            return None;
        };
        let before = self.complaints.list().len();
        let mut fields = SourceFields::default();
        for (key, value) in table {
            self.field(&mut fields, key, value);
        }
        for name in ["id", "url"] {
            if !table.contains_key(name) {
                self.refuse(entry, name, "is missing; each source needs one");
            }
        }
        self.check_credentials(fields.url.as_ref(), &fields.request.access, entry);
        if self.complaints.list().len() > before {
            return None;
        }
        let mut source = Source::new(fields.id?, fields.url?);
        fields.optional.apply(&mut source);
        let request::RequestFields { body_bytes_max, new_bytes_max, access } = fields.request;
        (source.body_bytes_max, source.new_bytes_max, source.access) =
            (body_bytes_max, new_bytes_max, access);
        Some(source)
    }

    fn field(
        &mut self,
        fields: &mut SourceFields,
        key: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let optional = &mut fields.optional;
        let name = key.get_ref().as_ref();
        match name {
            "id" => fields.id = self.id(value),
            "url" => {
                fields.url = self.string(name, value).and_then(|url| {
                    FeedUrl::try_new(url).map_err(|bad| self.refuse(value, name, bad.to_string())).ok()
                });
            }
            "name" => optional.name = self.text(name, value),
            "category" => optional.category = self.word(name, value),
            "country" => optional.country = self.country(value),
            "language" => optional.language = self.language(value),
            "tags" => optional.tags = self.tags(value),
            "every" => optional.every = self.duration(name, value, EVERY),
            "timeout" => optional.timeout = self.duration(name, value, TIMEOUT),
            "timeout_first_byte" => optional.timeout_first_byte = self.duration(name, value, TIMEOUT),
            "fresh" => optional.ignores_freshness = self.fresh(value),
            "enabled" => match value.get_ref().as_bool() {
                Some(enabled) => optional.enabled = Some(enabled),
                None => self.refuse(value, name, format!("expected true or false, found {}", type_of(value))),
            },
            other => {
                if !self.request_key(&mut fields.request, key, value) {
                    self.complain(key.span(), &format!("source.{other}"), unknown(other));
                }
            }
        }
    }

    fn id(&mut self, value: &Spanned<DeValue<'_>>) -> Option<SourceId> {
        let text = self.string("id", value)?;
        let id = match SourceId::try_new(text) {
            Ok(id) => id,
            Err(bad) => {
                self.refuse(value, "id", format!("`{}` is not an id: {bad}", shortened(text)));
                return None;
            }
        };
        let place = IdPlace { file: self.places.len() - 1, line: self.line(&value.span()) };
        if let Some(first) = self.ids.get(&id) {
            let first = match first.file == place.file {
                true => format!("on line {}", first.line),
                false => format!("at {}:{}", self.places[first.file], first.line),
            };
            self.refuse(value, "id", format!("`{id}` is the id of the source {first} already"));
            return None;
        }
        self.ids.insert(id.clone(), place);
        Some(id)
    }

    fn string<'v>(&mut self, name: &str, value: &'v Spanned<DeValue<'_>>) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.refuse(value, name, format!("expected a string, found {}", type_of(value)));
        }
        text
    }

    /// A text on one line.
    fn text(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.string(name, value)?.trim();
        if text.is_empty() || text.len() > Catalogue::TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            let limit = Catalogue::TEXT_BYTES_MAX;
            self.refuse(value, name, format!("expected 1 to {limit} bytes without control characters"));
            return None;
        }
        Some(text.to_owned())
    }

    /// A word that clients filter by, so it must need no escaping in a URL or a shell.
    fn word(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.text(name, value)?;
        let plain = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if plain && text.len() <= Catalogue::WORD_BYTES_MAX {
            return Some(text);
        }
        let (text, limit) = (shortened(&text), Catalogue::WORD_BYTES_MAX);
        let message =
            format!("`{text}` is not one word of letters, digits, `-`, `_` and `.` of at most {limit} bytes");
        self.refuse(value, name, message);
        None
    }

    fn country(&mut self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.string("country", value)?;
        if text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            return Some(text.to_owned());
        }
        let text = shortened(text);
        let message =
            format!("`{text}` is not a country; write two capital letters of ISO 3166-1, such as `GB`");
        self.refuse(value, "country", message);
        None
    }

    fn language(&mut self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.string("language", value)?;
        let mut parts = text.split('-');
        let first = parts
            .next()
            .is_some_and(|p| (2..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_lowercase()));
        if first && parts.all(|p| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()))
        {
            return Some(text.to_owned());
        }
        let text = shortened(text);
        let message = format!("`{text}` is not a language; write a BCP 47 tag such as `en` or `pt-BR`");
        self.refuse(value, "language", message);
        None
    }

    fn fresh(&mut self, value: &Spanned<DeValue<'_>>) -> Option<bool> {
        match self.string("fresh", value)? {
            "ignore" => Some(true),
            text => {
                let message =
                    format!("expected \"ignore\", found `{}`; leave the key out otherwise", shortened(text));
                self.refuse(value, "fresh", message);
                None
            }
        }
    }

    fn tags(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        let DeValue::Array(list) = value.get_ref() else {
            self.refuse(value, "tags", format!("expected a list of strings, found {}", type_of(value)));
            return None;
        };
        if list.len() > Catalogue::TAGS_MAX {
            let message = format!("{} tags are more than {}", list.len(), Catalogue::TAGS_MAX);
            self.refuse(value, "tags", message);
            return None;
        }
        list.iter().map(|tag| self.word("tags", tag)).collect()
    }

    fn duration(
        &mut self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let Some(text) = value.get_ref().as_str() else {
            let (min, max) = (write_duration(*bounds.start()), write_duration(*bounds.end()));
            let found = type_of(value);
            let message =
                format!("expected a duration between {min} and {max} such as \"90s\", found {found}");
            self.refuse(value, name, message);
            return None;
        };
        parse_duration_within(text, bounds).map_err(|bad| self.refuse(value, name, bad.to_string())).ok()
    }
}

/// The type of a value. The value itself may be a secret.
fn type_of(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The message about a key that a source does not have.
fn unknown(name: &str) -> String {
    if name == "include" {
        return "write it at the top of the main file, above the first [[source]]".to_owned();
    }
    match suggestion(name, Catalogue::keys()).as_str() {
        "" => format!("unknown key; a source has {}", Catalogue::keys().collect::<Vec<_>>().join(", ")),
        hint => format!("unknown key{hint}"),
    }
}

#[derive(Default)]
struct SourceFields {
    id: Option<SourceId>,
    url: Option<FeedUrl>,
    optional: OptionalFields,
    request: request::RequestFields,
}

/// Optional keys of a source.
#[derive(Default)]
struct OptionalFields {
    name: Option<String>,
    category: Option<String>,
    country: Option<String>,
    language: Option<String>,
    tags: Option<Vec<String>>,
    every: Option<Duration>,
    timeout: Option<Duration>,
    timeout_first_byte: Option<Duration>,
    enabled: Option<bool>,
    ignores_freshness: Option<bool>,
}

impl OptionalFields {
    fn apply(self, source: &mut Source) {
        source.name = self.name.unwrap_or_else(|| source.id.as_str().to_owned());
        source.category = self.category.unwrap_or_else(|| Source::CATEGORY_DEFAULT.to_owned());
        source.country = self.country;
        source.language = self.language;
        source.tags = self.tags.unwrap_or_default();
        source.every = self.every;
        source.timeout = self.timeout;
        source.timeout_first_byte = self.timeout_first_byte;
        source.enabled = self.enabled.unwrap_or(true);
        source.ignores_freshness = self.ignores_freshness.unwrap_or_default();
    }
}

fn write_source(out: &mut String, source: &Source) {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut line = |key: &str, value: String| {
        writeln!(out, "{key} = {value}").expect("writing to a String never fails");
    };
    line("\n[[source]]\nid", quoted(source.id.as_str()));
    line("url", quoted(source.url.secret().as_str()));
    line("name", quoted(&source.name));
    line("category", quoted(&source.category));
    if let Some(country) = &source.country {
        line("country", quoted(country));
    }
    if let Some(language) = &source.language {
        line("language", quoted(language));
    }
    if !source.tags.is_empty() {
        line("tags", format!("[{}]", source.tags.iter().map(|t| quoted(t)).collect::<Vec<_>>().join(", ")));
    }
    let durations = [
        ("every", source.every),
        ("timeout", source.timeout),
        ("timeout_first_byte", source.timeout_first_byte),
    ];
    for (key, duration) in durations {
        if let Some(duration) = duration {
            line(key, quoted(&write_duration(duration)));
        }
    }
    if source.ignores_freshness {
        line("fresh", quoted("ignore"));
    }
    request::write(source, &mut line);
    if !source.enabled {
        line("enabled", "false".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalogue_reads_back_as_it_was_written() {
        let text = r#"
            [[source]]
            id = "a"
            url = "https://example.org/a?x=1"
            name = "A \"quoted\" name"
            category = "world"
            country = "GB"
            language = "pt-BR"
            tags = ["x", "y"]
            every = "15m"
            timeout = "20s"
            timeout_first_byte = "15s"
            fresh = "ignore"
            enabled = false
            [[source]]
            id = "b"
            url = "http://example.org/b"
        "#;
        let catalogue = Catalogue::parse(text).unwrap();
        assert_eq!(catalogue.sources.len(), 2);
        assert_eq!(catalogue.sources[0].every, Some(Duration::from_secs(900)));
        assert_eq!(catalogue.sources[1].name, "b");
        let ignoring = catalogue.sources.iter().map(|source| source.ignores_freshness);
        assert_eq!(ignoring.collect::<Vec<_>>(), [true, false]);
        assert_eq!(Catalogue::parse(&catalogue.to_toml()), Ok(catalogue));
    }

    #[test]
    fn twelve_mistakes_get_twelve_complaints_with_their_lines() {
        let text = "[[source]]\nid = \"A b\"\nurl = \"ftp://x/\"\nname = 3\ncategory = \"two words\"\ncountry = \"uk\"\n\
                    language = \"English\"\ntags = \"x\"\nevery = \"soon\"\ntimeout = \"0s\"\nenabled = \"yes\"\n\
                    colour = 1\n[[source]]\nid = \"b\"\n";
        let complaints = Catalogue::parse(text).unwrap_err();
        let lines: Vec<_> = complaints.list().iter().filter_map(|c| c.line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], "{complaints:#?}");
    }

    #[test]
    fn an_id_is_unique() {
        let one = "[[source]]\nid = \"a\"\nurl = \"https://example.org/\"\n";
        let complaints = Catalogue::parse(&format!("{one}{one}")).unwrap_err();
        let complaints = complaints.list();
        assert_eq!(complaints.len(), 1);
        assert_eq!(complaints[0].line, Some(5));
        assert!(complaints[0].message.contains("line 2"));
    }

    #[test]
    fn a_file_that_is_not_toml_is_reported_line_by_line() {
        let complaints = Catalogue::parse("[[source]]\nid = \nurl = \"x\nname = \"n\"\n").unwrap_err();
        let complaints = complaints.list();
        assert!(complaints.len() >= 2, "{complaints:?}");
        assert_eq!(complaints[0].line, Some(2));
    }

    #[test]
    fn a_complaint_names_file_line_and_key_in_the_voice_of_the_configuration() {
        let source = "[[source]]\nid = \"a\"\nurl = \"https://example.org/\"\n";
        for (wrong, shown) in [
            (
                "every = 900",
                "source.every: expected a duration between 1s and 30d such as \"90s\", found an integer",
            ),
            (
                "every = \"soon\"",
                "source.every: `soon` is not a duration; write it like `250ms`, `30s`, `1h30m` or `3d`",
            ),
            ("every = \"31d\"", "source.every: 31d is outside 1s to 30d"),
            ("timeout = \"0\"", "source.timeout: 0 is outside 1s to 5m"),
            ("timeout_first_byte = \"6m\"", "source.timeout_first_byte: 6m is outside 1s to 5m"),
            ("name = 3", "source.name: expected a string, found an integer"),
            ("tags = \"x\"", "source.tags: expected a list of strings, found a string"),
            ("enabled = \"yes\"", "source.enabled: expected true or false, found a string"),
            (
                "fresh = \"always\"",
                "source.fresh: expected \"ignore\", found `always`; leave the key out otherwise",
            ),
            ("evry = \"15m\"", "source.evry: unknown key; did you mean `every`?"),
            (
                "country = \"uk\"",
                "source.country: `uk` is not a country; write two capital letters of ISO 3166-1, such as `GB`",
            ),
        ] {
            let complaints = Catalogue::parse(&format!("{source}{wrong}\n")).unwrap_err();
            assert_eq!(complaints.in_file("sources.toml").to_string(), format!("sources.toml:4: {shown}"));
        }
        let unknown = Catalogue::parse("[[source]]\n[sources]\n").unwrap_err().in_file("s.toml").to_string();
        assert!(unknown.contains("s.toml:1: source.url: is missing; each source needs one"), "{unknown}");
        assert!(
            unknown.contains("s.toml:2: sources: unknown key") && unknown.contains("`source`?"),
            "{unknown}"
        );
    }

    #[test]
    fn an_interval_may_be_written_in_several_units() {
        let text = "[[source]]\nid = \"a\"\nurl = \"https://example.org/\"\nevery = \"1h30m\"\n";
        let catalogue = Catalogue::parse(text).unwrap();
        assert_eq!(catalogue.sources[0].every, Some(Duration::from_secs(5_400)));
        assert_eq!(Catalogue::parse(&catalogue.to_toml()), Ok(catalogue));
    }
}
