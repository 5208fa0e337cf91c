//! The list of sources, `sources.toml`: read with every complaint at once.
//!
//! ```toml
//! [[source]]
//! id = "bbc"                                      # required: its name everywhere
//! url = "https://feeds.bbci.co.uk/news/rss.xml"   # required
//! name = "BBC News"                               # the rest may be left out
//! category = "general"
//! country = "GB"
//! language = "en"
//! tags = ["public"]
//! every = "15m"
//! timeout = "20s"
//! enabled = true
//! ```
//!
//! What a source may have of its own besides (`body_bytes_max`, `headers`, `basic_file`, …) is read in `own`.

mod own;

use std::{collections::HashMap, fmt::Write as _, ops::Range, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{Escaped, FeedUrl, Source, SourceId, parse_duration, write_duration};

/// The sources of one file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// No two have the same id.
    pub sources: Vec<Source>,
}

/// One thing wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Catalogue {
    /// Most sources in one file.
    pub const SOURCES_MAX: usize = 100_000;
    /// Most tags of one source.
    pub const TAGS_MAX: usize = 32;
    /// Longest name, in bytes.
    pub const TEXT_BYTES_MAX: usize = 200;
    /// Longest category or tag, in bytes: what a filter takes.
    pub const WORD_BYTES_MAX: usize = 64;

    /// Reads the text of a `sources.toml`.
    ///
    /// # Errors
    /// Every complaint that can be made about it, in the order of its lines; then nothing of it is used.
    pub fn parse(text: &str) -> Result<Self, Vec<Complaint>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
        let mut reader = CatalogueReader { breaks, complaints: Vec::new(), met: HashMap::new() };
        for error in &errors {
            reader.complain(error.span().unwrap_or_default(), error.message().to_owned());
        }
        let sources = if errors.is_empty() { reader.document(document.get_ref()) } else { Vec::new() };
        if reader.complaints.is_empty() {
            Ok(Self { sources })
        } else {
            reader.complaints.sort_by_key(|c| c.line);
            Err(reader.complaints)
        }
    }

    /// The same as a file, which [`Catalogue::parse`] reads back to the same catalogue.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for source in &self.sources {
            write_source(&mut out, source);
        }
        out
    }
}

struct CatalogueReader {
    /// Where the lines end: a file of 100,000 sources asks for its line numbers 100,000 times.
    breaks: Vec<usize>,
    complaints: Vec<Complaint>,
    /// Ids met so far, and their lines.
    met: HashMap<SourceId, usize>,
}

impl CatalogueReader {
    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.breaks.partition_point(|at| *at < span.start)
    }

    fn complain(&mut self, span: Range<usize>, message: String) {
        let line = self.line(&span);
        self.complaints.push(Complaint { line, message });
    }

    fn document(&mut self, document: &DeTable<'_>) -> Vec<Source> {
        let mut sources = Vec::new();
        for (key, value) in document {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("source", DeValue::Array(list)) => {
                    if list.len() > Catalogue::SOURCES_MAX {
                        self.complain(key.span(), format!("more than {} sources", Catalogue::SOURCES_MAX));
                        continue;
                    }
                    sources.extend(list.iter().filter_map(|entry| self.entry(entry)));
                }
                ("source", _) => self.complain(key.span(), "write [[source]], with two brackets".to_owned()),
                (other, _) => {
                    let message =
                        format!("unknown key `{}`: this file holds [[source]] tables only", Escaped(other));
                    self.complain(key.span(), message);
                }
            }
        }
        sources
    }

    /// One `[[source]]`; nothing when it has a fault, which has then been complained of.
    fn entry(&mut self, entry: &Spanned<DeValue<'_>>) -> Option<Source> {
        let DeValue::Table(table) = entry.get_ref() else {
            self.complain(entry.span(), "a source is a table: write [[source]]".to_owned());
            return None;
        };
        let before = self.complaints.len();
        let mut fields = Fields::default();
        for (key, value) in table {
            self.field(&mut fields, key, value);
        }
        for (missing, name) in [(fields.id.is_none(), "id"), (fields.url.is_none(), "url")] {
            if missing && !table.contains_key(name) {
                self.complain(entry.span(), format!("this source has no `{name}`"));
            }
        }
        self.check_credentials(&fields, entry);
        if self.complaints.len() > before {
            return None;
        }
        let mut source = Source::new(fields.id?, fields.url?);
        fields.rest.apply(&mut source);
        (source.body_bytes_max, source.access) = (fields.own.body_bytes_max, fields.own.access);
        Some(source)
    }

    fn field(
        &mut self,
        fields: &mut Fields,
        key: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let rest = &mut fields.rest;
        let name = key.get_ref().as_ref();
        match name {
            "id" => fields.id = self.id(value),
            "url" => {
                fields.url = self.string(name, value).and_then(|url| {
                    FeedUrl::try_new(url)
                        .map_err(|bad| self.complain(value.span(), format!("url: {bad}")))
                        .ok()
                });
            }
            "name" => rest.name = self.text(name, value),
            "category" => rest.category = self.word(name, value),
            "country" => rest.country = self.country(value),
            "language" => rest.language = self.language(value),
            "tags" => rest.tags = self.tags(value),
            "every" => {
                rest.every =
                    self.duration(name, value, Duration::from_secs(1), Duration::from_secs(30 * 86_400))
            }
            "timeout" => {
                rest.timeout = self.duration(name, value, Duration::from_secs(1), Duration::from_secs(300));
            }
            "enabled" => match value.get_ref().as_bool() {
                Some(enabled) => rest.enabled = Some(enabled),
                None => self.complain(value.span(), "enabled: true or false".to_owned()),
            },
            other => {
                if !self.own(&mut fields.own, key, value) {
                    const KNOWN: &str = "id url name category country language tags every timeout enabled";
                    let own = own::KEYS.join(" ");
                    let other = Escaped(other);
                    self.complain(key.span(), format!("unknown key `{other}`; a source has: {KNOWN} {own}"));
                }
            }
        }
    }

    fn id(&mut self, value: &Spanned<DeValue<'_>>) -> Option<SourceId> {
        let text = self.string("id", value)?;
        let id = match SourceId::try_new(text) {
            Ok(id) => id,
            Err(bad) => {
                self.complain(value.span(), format!("id `{}`: {bad}", Escaped(text)));
                return None;
            }
        };
        let line = self.line(&value.span());
        if let Some(first) = self.met.get(&id) {
            let message = format!("id `{id}` is taken by the source of line {first}");
            self.complain(value.span(), message);
            return None;
        }
        self.met.insert(id.clone(), line);
        Some(id)
    }

    fn string<'v>(&mut self, name: &str, value: &'v Spanned<DeValue<'_>>) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            let found = value.get_ref().type_str();
            self.complain(
                value.span(),
                format!("{name}: a text in quotes is wanted, this is of type {found}"),
            );
        }
        text
    }

    /// A text for people, on one line.
    fn text(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.string(name, value)?.trim();
        if text.is_empty() || text.len() > Catalogue::TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            let limit = Catalogue::TEXT_BYTES_MAX;
            self.complain(
                value.span(),
                format!("{name}: 1 to {limit} bytes without control characters are wanted"),
            );
            return None;
        }
        Some(text.to_owned())
    }

    /// A word by which clients filter, so it must survive a URL and a shell.
    fn word(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.text(name, value)?;
        let plain = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if plain && text.len() <= Catalogue::WORD_BYTES_MAX {
            return Some(text);
        }
        let wanted = "one word of letters, digits, - _ . of at most 64 bytes is wanted";
        self.complain(value.span(), format!("{name} `{}`: {wanted}", Escaped(&text)));
        None
    }

    fn country(&mut self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.string("country", value)?;
        if text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            return Some(text.to_owned());
        }
        let message =
            format!("country `{}`: two capital letters of ISO 3166-1 are wanted, such as GB", Escaped(text));
        self.complain(value.span(), message);
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
        let message = format!("language `{}`: a tag of BCP 47 is wanted, such as en or pt-BR", Escaped(text));
        self.complain(value.span(), message);
        None
    }

    fn tags(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        let DeValue::Array(list) = value.get_ref() else {
            self.complain(value.span(), "tags: a list of texts is wanted, such as [\"public\"]".to_owned());
            return None;
        };
        if list.len() > Catalogue::TAGS_MAX {
            self.complain(value.span(), format!("tags: at most {}", Catalogue::TAGS_MAX));
            return None;
        }
        list.iter().map(|tag| self.word("tags", tag)).collect()
    }

    fn duration(
        &mut self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        let found = value.get_ref().as_str().and_then(parse_duration);
        if let Some(duration) = found.filter(|d| (min..=max).contains(d)) {
            return Some(duration);
        }
        let message = format!(
            "{name}: a duration between {}s and {}s is wanted, written such as \"90s\" \"15m\" \"2h\"",
            min.as_secs(),
            max.as_secs()
        );
        self.complain(value.span(), message);
        None
    }
}

#[derive(Default)]
struct Fields {
    id: Option<SourceId>,
    url: Option<FeedUrl>,
    rest: Rest,
    own: own::Own,
}

/// What a source may leave out.
#[derive(Default)]
struct Rest {
    name: Option<String>,
    category: Option<String>,
    country: Option<String>,
    language: Option<String>,
    tags: Option<Vec<String>>,
    every: Option<Duration>,
    timeout: Option<Duration>,
    enabled: Option<bool>,
}

impl Rest {
    fn apply(self, source: &mut Source) {
        source.name = self.name.unwrap_or_else(|| source.id.as_str().to_owned());
        source.category = self.category.unwrap_or_else(|| Source::CATEGORY_DEFAULT.to_owned());
        source.country = self.country;
        source.language = self.language;
        source.tags = self.tags.unwrap_or_default();
        source.every = self.every;
        source.timeout = self.timeout;
        source.enabled = self.enabled.unwrap_or(true);
    }
}

fn write_source(out: &mut String, source: &Source) {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut line = |key: &str, value: String| {
        writeln!(out, "{key} = {value}").expect("a String takes everything");
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
    for (key, duration) in [("every", source.every), ("timeout", source.timeout)] {
        if let Some(duration) = duration {
            line(key, quoted(&write_duration(duration)));
        }
    }
    own::write(source, &mut line);
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
            enabled = false
            [[source]]
            id = "b"
            url = "http://example.org/b"
        "#;
        let catalogue = Catalogue::parse(text).unwrap();
        assert_eq!(catalogue.sources.len(), 2);
        assert_eq!(catalogue.sources[0].every, Some(Duration::from_secs(900)));
        assert_eq!(catalogue.sources[1].name, "b");
        assert_eq!(Catalogue::parse(&catalogue.to_toml()), Ok(catalogue));
    }

    #[test]
    fn twelve_mistakes_get_twelve_complaints_with_their_lines() {
        let text = "[[source]]\nid = \"A b\"\nurl = \"ftp://x/\"\nname = 3\ncategory = \"two words\"\ncountry = \"uk\"\n\
                    language = \"English\"\ntags = \"x\"\nevery = \"soon\"\ntimeout = \"0s\"\nenabled = \"yes\"\n\
                    colour = 1\n[[source]]\nid = \"b\"\n";
        let complaints = Catalogue::parse(text).unwrap_err();
        let lines: Vec<_> = complaints.iter().map(|c| c.line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], "{complaints:#?}");
    }

    #[test]
    fn an_id_is_given_once() {
        let one = "[[source]]\nid = \"a\"\nurl = \"https://example.org/\"\n";
        let complaints = Catalogue::parse(&format!("{one}{one}")).unwrap_err();
        assert_eq!(complaints.len(), 1);
        assert_eq!(complaints[0].line, 5);
        assert!(complaints[0].message.contains("line 2"));
    }

    #[test]
    fn a_file_that_is_no_toml_is_complained_of_line_by_line() {
        let complaints = Catalogue::parse("[[source]]\nid = \nurl = \"x\nname = \"n\"\n").unwrap_err();
        assert!(complaints.len() >= 2, "{complaints:?}");
        assert_eq!(complaints[0].line, 2);
    }
}
