//! JSON Feed 1.0 and 1.1 (<https://www.jsonfeed.org/version/1.1/>), parsed leniently: any field may be missing or have
//! a wrong type, ids may be numbers. Items are read one by one, so that a broken one costs itself only, and a truncated
//! document keeps the items before the break.

mod reader;
mod scan;

use news::{Author, Warning};
use serde_json::{Map, Value};

use self::reader::ReadFeed;
use super::{Context, HtmlMode, Parsed, RawItem, assemble::assemble, kept};
use crate::{
    dates,
    document::{FeedFormat, FeedInfo, Hints, Rhythm},
    error::FeedError,
    html::web_url,
    limits::{SUMMARY_BYTES_MAX, TITLE_BYTES_MAX},
    normalise::{FeedLink, FeedText},
    sniff::not_a_feed,
    text::fold,
};

/// A parsed JSON Feed.
pub(crate) struct JsonDocument {
    pub(crate) format: FeedFormat,
    pub(crate) parsed: Parsed,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) damaged: bool,
}

/// Parses JSON text.
pub(crate) fn read_json(text: &str, hints: &Hints<'_>, html: HtmlMode) -> Result<JsonDocument, FeedError> {
    let text = scan::scan(text)?;
    let ReadFeed { feed: partial, warnings, damaged } = reader::read(&text.text, text.repaired_at);
    let version = partial.text("version").unwrap_or_default();
    let named =
        ["version", "title", "home_page_url", "feed_url"].iter().any(|k| partial.top.contains_key(*k));
    let is_feed = version.contains("jsonfeed.org") || (partial.saw_items && named);
    if !is_feed {
        return Err(not_a_feed(if damaged { "a broken JSON document" } else { "a JSON document" }));
    }
    if damaged && partial.items.is_empty() {
        return Err(FeedError::Truncated);
    }
    let format = if version.contains("1.1") { FeedFormat::Json11 } else { FeedFormat::Json10 };
    Ok(JsonDocument { format, parsed: map(partial, hints, html), warnings, damaged })
}

fn map(partial: PartialFeed, hints: &Hints<'_>, html: HtmlMode) -> Parsed {
    let url = hints.url;
    let line = |key: &str, max| partial.text(key).map(|t| fold(&t, max)).filter(|t| !t.is_empty());
    let address = |key: &str| partial.text(key).and_then(|t| web_url(&t, url));
    let feed = FeedInfo {
        title: line("title", TITLE_BYTES_MAX),
        link: address("home_page_url"),
        description: line("description", SUMMARY_BYTES_MAX),
        language: line("language", 64),
        updated: None,
        image: address("icon").or_else(|| address("favicon")),
        ttl_s: None,
        hub: partial.top.get("hubs").and_then(Value::as_array).and_then(|hubs| {
            hubs.iter().filter_map(|h| string(h.get("url")?)).find_map(|h| web_url(&h, url))
        }),
        self_url: address("feed_url"),
    };
    let authors = authors(&partial.top);
    let dates: Vec<_> = partial.items.iter().map(|raw| raw.published.or(raw.updated)).collect();
    let count = partial.items.len();
    let language = feed.language.as_deref().or(hints.language);
    let context = Context { site: url, language, html };
    let items: Vec<_> = partial
        .items
        .into_iter()
        .zip(kept(&dates))
        .filter_map(|(raw, part)| Some((raw, part?)))
        .map(|(mut raw, part)| {
            if raw.authors.is_empty() {
                raw.authors.clone_from(&authors);
            }
            news::Item { part, ..assemble(raw, &context) }
        })
        .collect();
    let dropped = partial.dropped + count - items.len();
    Parsed { feed, items, rhythm: Rhythm::default(), rhythm_warnings: Vec::new(), dropped }
}

/// What has been read of the document so far.
#[derive(Debug, Default)]
struct PartialFeed {
    top: Map<String, Value>,
    items: Vec<RawItem<'static>>,
    saw_items: bool,
    dropped: usize,
}

impl PartialFeed {
    fn text(&self, key: &str) -> Option<String> {
        string(self.top.get(key)?)
    }
}

fn raw(item: &Map<String, Value>) -> RawItem<'static> {
    let text = |key: &str| item.get(key).and_then(string).filter(|t| !t.trim().is_empty());
    let language = text("language");
    let mut warnings = Vec::new();
    let mut date = |key: &str| {
        let text = text(key)?;
        let date = dates::parse(&text, language.as_deref());
        if date.is_none() {
            warnings.push(format!("the date \"{}\" is not understood", fold(&text, 60)));
        }
        date
    };
    let published = date("date_published");
    let updated = date("date_modified");
    RawItem {
        guid: text("id"),
        guid_is_link: true,
        title: text("title").map(FeedText::plain),
        links: ["url", "external_url"].into_iter().filter_map(text).collect(),
        summary: text("summary").map(FeedText::plain),
        content: text("content_html")
            .map(FeedText::html)
            .or_else(|| text("content_text").map(FeedText::plain)),
        authors: authors(item),
        categories: list(item, "tags").iter().filter_map(string).map(FeedText::plain).collect(),
        published,
        updated,
        language,
        images: ["image", "banner_image"].into_iter().filter_map(text).collect(),
        enclosures: list(item, "attachments").iter().filter_map(attachment).collect(),
        captions: list(item, "attachments").iter().filter_map(caption).collect(),
        warnings,
        ..RawItem::default()
    }
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    match object.get(key) {
        Some(Value::Array(values)) => values,
        Some(value) => std::slice::from_ref(value),
        None => &[],
    }
}

fn attachment(value: &Value) -> Option<FeedLink> {
    Some(FeedLink {
        href: string(value.get("url")?)?,
        rel: "enclosure".to_owned(),
        media_type: value.get("mime_type").and_then(string),
        length: value.get("size_in_bytes").and_then(string),
    })
}

/// The title of an attachment, with its address.
fn caption(value: &Value) -> Option<(String, FeedText<'static>)> {
    Some((string(value.get("url")?)?, FeedText::plain(string(value.get("title")?)?)))
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

/// A string, or a number as text.
fn string(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
