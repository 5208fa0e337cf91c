//! JSON Feed 1.0 and 1.1 (<https://www.jsonfeed.org/version/1.1/>), leniently: any field may have a wrong type or
//! be missing, ids may be numbers. Items are taken one by one, so that a document that breaks off keeps those
//! before the break.

mod scan;

use std::fmt;

use news::{Author, Warning};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Context, Html, Parsed, Raw, assemble::assemble, kept};
use crate::{
    dates,
    document::{FeedFormat, FeedInfo, Hints, Rhythm},
    error::FeedError,
    html::web_url,
    limits::{ITEMS_READ_MAX, SUMMARY_BYTES_MAX, TITLE_BYTES_MAX},
    normalise::{Link, Words},
    sniff::not_a_feed,
    text::fold,
};

/// A JSON Feed as read.
pub(crate) struct Json {
    pub(crate) format: FeedFormat,
    pub(crate) parsed: Parsed,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) damaged: bool,
}

/// Reads JSON text.
pub(crate) fn read_json(text: &str, hints: &Hints<'_>, html: Html) -> Result<Json, FeedError> {
    let text = scan::scan(text)?;
    let mut found = Found::default();
    let mut warnings = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(&text);
    let end = reader.deserialize_any(FeedVisitor(&mut found));
    if let Err(e) = &end {
        warnings.push(Warning {
            line: u32::try_from(e.line()).ok(),
            column: u32::try_from(e.column()).ok(),
            message: format!(
                "reading ended here: {}",
                e.to_string().split(" at line").next().unwrap_or_default()
            ),
        });
    }
    let version = found.text("version").unwrap_or_default();
    let named = ["version", "title", "home_page_url", "feed_url"].iter().any(|k| found.top.contains_key(*k));
    let is_feed = version.contains("jsonfeed.org") || (found.saw_items && named);
    if !is_feed {
        return Err(not_a_feed(if end.is_ok() { "a JSON document" } else { "a broken JSON document" }));
    }
    if end.is_err() && found.items.is_empty() {
        return Err(FeedError::Truncated);
    }
    let format = if version.contains("1.1") { FeedFormat::Json11 } else { FeedFormat::Json10 };
    Ok(Json { format, parsed: map(found, hints, html), warnings, damaged: end.is_err() })
}

fn map(found: Found, hints: &Hints<'_>, html: Html) -> Parsed {
    let url = hints.url;
    let line = |key: &str, max| found.text(key).map(|t| fold(&t, max)).filter(|t| !t.is_empty());
    let address = |key: &str| found.text(key).and_then(|t| web_url(&t, url));
    let feed = FeedInfo {
        title: line("title", TITLE_BYTES_MAX),
        link: address("home_page_url"),
        description: line("description", SUMMARY_BYTES_MAX),
        language: line("language", 64),
        updated: None,
        image: address("icon").or_else(|| address("favicon")),
        ttl_s: None,
        hub: found.top.get("hubs").and_then(Value::as_array).and_then(|hubs| {
            hubs.iter().filter_map(|h| string(h.get("url")?)).find_map(|h| web_url(&h, url))
        }),
        self_url: address("feed_url"),
    };
    let authors = authors(&found.top);
    let dates: Vec<_> = found.items.iter().map(|raw| raw.published.or(raw.updated)).collect();
    let count = found.items.len();
    let language = feed.language.as_deref().or(hints.language);
    let context = Context { site: url, language, html };
    let items: Vec<_> = found
        .items
        .into_iter()
        .zip(kept(&dates))
        .filter(|(_, kept)| *kept)
        .map(|(mut raw, _)| {
            if raw.authors.is_empty() {
                raw.authors.clone_from(&authors);
            }
            assemble(raw, &context)
        })
        .collect();
    let dropped = found.dropped + count - items.len();
    Parsed { feed, items, rhythm: Rhythm::default(), dropped }
}

/// What of the document was met so far.
#[derive(Default)]
struct Found {
    top: Map<String, Value>,
    items: Vec<Raw<'static>>,
    saw_items: bool,
    dropped: usize,
}

impl Found {
    fn text(&self, key: &str) -> Option<String> {
        string(self.top.get(key)?)
    }
}

struct FeedVisitor<'f>(&'f mut Found);

impl<'de> Visitor<'de> for FeedVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a feed")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        const WANTED: [&str; 11] = [
            "version",
            "title",
            "home_page_url",
            "feed_url",
            "description",
            "icon",
            "favicon",
            "author",
            "authors",
            "language",
            "hubs",
        ];
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                map.next_value_seed(ItemsSeed(self.0))?;
            } else if WANTED.contains(&key.as_str()) {
                let value = map.next_value()?;
                self.0.top.insert(key, value);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

struct ItemsSeed<'f>(&'f mut Found);

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.saw_items = true;
        while self.0.items.len() < ITEMS_READ_MAX {
            match seq.next_element::<Value>()? {
                Some(Value::Object(item)) => self.0.items.push(raw(&item)),
                Some(_) => {}
                None => return Ok(()),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            self.0.dropped += 1;
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

fn raw(item: &Map<String, Value>) -> Raw<'static> {
    let text = |key: &str| item.get(key).and_then(string).filter(|t| !t.trim().is_empty());
    let mut warnings = Vec::new();
    let mut date = |key: &str| {
        let text = text(key)?;
        let date = dates::parse(&text);
        if date.is_none() {
            warnings.push(format!("\"{}\" is no date", fold(&text, 60)));
        }
        date
    };
    let published = date("date_published");
    let updated = date("date_modified");
    Raw {
        guid: text("id"),
        guid_is_link: true,
        title: text("title").map(Words::plain),
        links: ["url", "external_url"].into_iter().filter_map(text).collect(),
        summary: text("summary").map(Words::plain),
        content: text("content_html").map(Words::html).or_else(|| text("content_text").map(Words::plain)),
        authors: authors(item),
        categories: list(item, "tags").iter().filter_map(string).map(Words::plain).collect(),
        published,
        updated,
        language: text("language"),
        images: ["image", "banner_image"].into_iter().filter_map(text).collect(),
        enclosures: list(item, "attachments").iter().filter_map(attachment).collect(),
        warnings,
        ..Raw::default()
    }
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    match object.get(key) {
        Some(Value::Array(values)) => values,
        Some(value) => std::slice::from_ref(value),
        None => &[],
    }
}

fn attachment(value: &Value) -> Option<Link> {
    Some(Link {
        href: string(value.get("url")?)?,
        rel: "enclosure".to_owned(),
        media_type: value.get("mime_type").and_then(string),
        length: value.get("size_in_bytes").and_then(string),
    })
}

/// `authors` of version 1.1, else `author` of version 1.0.
fn authors(object: &Map<String, Value>) -> Vec<Author> {
    let person = |value: &Value| match value {
        Value::Object(person) => {
            let get = |key: &str| person.get(key).and_then(string).filter(|t| !t.is_empty());
            Some(Author { name: get("name"), email: None, url: get("url") })
        }
        other => Some(Author { name: Some(string(other)?), ..Author::default() }),
    };
    let all: Vec<Author> = list(object, "authors").iter().filter_map(person).collect();
    if all.is_empty() { list(object, "author").iter().filter_map(person).collect() } else { all }
}

/// A text, or a number as it was written.
fn string(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
