//! Canonical XML: flat, in a fixed order, with customary prefixes, every date in RFC 3339.

use news::{Author, Timestamp};

use super::draft::{Draft, FeedSide, ItemSide, Link, Person, Words};
use crate::{
    document::Format,
    html::plain_text,
    limits::TITLE_BYTES_MAX,
    text::{escape, escape_into},
};

const RSS_HEAD: &str = "<rss version=\"2.0\" xmlns:content=\"http://purl.org/rss/1.0/modules/content/\" \
     xmlns:dc=\"http://purl.org/dc/elements/1.1/\" \
     xmlns:sy=\"http://purl.org/rss/1.0/modules/syndication/\">\n<channel>\n";
const ATOM_HEAD: &str = "<feed xmlns=\"http://www.w3.org/2005/Atom\">\n";

/// Writes items as they end; the feed itself comes last and is put in front.
#[derive(Debug, Default)]
pub(super) struct Writer {
    items: String,
}

impl Writer {
    /// An item as RSS 2.0.
    pub(super) fn item(&mut self, draft: Draft) -> ItemSide {
        let out = &mut self.items;
        out.push_str("<item>\n");
        html(out, "title", draft.title.get());
        let links: Vec<&Link> = draft.links.iter().filter(|l| l.rel.is_empty()).collect();
        if let Some(link) = links.first() {
            text(out, "link", &link.href);
        }
        html(out, "description", draft.summary.get());
        let mut persons = Vec::new();
        for person in draft.best_authors() {
            if person.email.is_empty() && person.uri.is_empty() {
                text(out, "dc:creator", &escape(&person.name));
            } else {
                persons.push(author(person));
            }
        }
        for category in &draft.categories {
            html(out, "category", Some(category));
        }
        if let Some(comments) = draft.comments.get() {
            text(out, "comments", comments);
        }
        if let Some(enclosure) = draft.enclosures.first() {
            tag(
                out,
                "enclosure",
                &[
                    ("url", &enclosure.href),
                    ("length", enclosure.length.as_deref().unwrap_or_default()),
                    ("type", enclosure.media_type.as_deref().unwrap_or_default()),
                ],
            );
        }
        if let Some((id, permalink)) = draft.id.get() {
            out.push_str(if *permalink { "<guid>" } else { "<guid isPermaLink=\"false\">" });
            escape_into(out, id);
            out.push_str("</guid>\n");
        }
        date(out, "pubDate", draft.published.get());
        html(out, "content:encoded", draft.content.get());
        out.push_str("</item>\n");
        side(draft, persons)
    }

    /// An entry as Atom 1.0.
    pub(super) fn entry(&mut self, draft: Draft) -> ItemSide {
        let out = &mut self.items;
        out.push_str("<entry>\n");
        if let Some((id, _)) = draft.id.get() {
            text(out, "id", id);
        }
        words(out, "title", draft.title.get());
        date(out, "updated", draft.updated.get());
        for person in draft.best_authors() {
            write_person(out, person);
        }
        for category in &draft.categories {
            let plain = if category.html {
                plain_text(&category.value, TITLE_BYTES_MAX)
            } else {
                category.value.clone()
            };
            if !plain.is_empty() {
                tag(out, "category", &[("term", &plain)]);
            }
        }
        for link in draft.links.iter().chain(&draft.enclosures) {
            write_link(out, link);
        }
        date(out, "published", draft.published.get());
        words(out, "summary", draft.summary.get());
        words(out, "content", draft.content.get());
        out.push_str("</entry>\n");
        side(draft, Vec::new())
    }

    /// The whole document.
    pub(super) fn finish(self, feed: Draft, format: Format) -> (String, FeedSide) {
        let atom = format.is_atom();
        let mut out = String::with_capacity(self.items.len() + 1024);
        out.push_str(if atom { ATOM_HEAD } else { RSS_HEAD });
        if atom {
            head_of_atom(&mut out, &feed)
        } else {
            head_of_rss(&mut out, &feed)
        }
        out.push_str(&self.items);
        out.push_str(if atom { "</feed>\n" } else { "</channel>\n</rss>\n" });
        let side = FeedSide {
            updated: feed.updated.get().copied().or(feed.published.get().copied()),
            images: feed.best_images(),
            language: feed.language.get().cloned(),
            links: feed.links,
            base: feed.base,
        };
        (out, side)
    }
}

fn head_of_rss(out: &mut String, feed: &Draft) {
    html(out, "title", feed.title.get());
    if let Some(link) = feed.links.iter().find(|l| l.rel.is_empty()) {
        text(out, "link", &link.href);
    }
    html(out, "description", feed.summary.get());
    if let Some(language) = feed.language.get() {
        text(out, "language", language);
    }
    date(out, "pubDate", feed.published.get());
    date(out, "lastBuildDate", feed.updated.get());
    if let Some(ttl) = feed.ttl.get() {
        text(out, "ttl", ttl);
    }
    list(out, "skipHours", "hour", &feed.skip_hours);
    list(out, "skipDays", "day", &feed.skip_days);
    if let Some(period) = feed.update_period.get() {
        text(out, "sy:updatePeriod", &period.to_ascii_lowercase());
    }
    if let Some(frequency) = feed.update_frequency.get() {
        text(out, "sy:updateFrequency", frequency);
    }
}

fn head_of_atom(out: &mut String, feed: &Draft) {
    words(out, "title", feed.title.get());
    words(out, "subtitle", feed.summary.get());
    if let Some((id, _)) = feed.id.get() {
        text(out, "id", id);
    }
    date(out, "updated", feed.updated.get());
    for person in feed.best_authors() {
        write_person(out, person);
    }
    for link in &feed.links {
        write_link(out, link);
    }
}

fn side(draft: Draft, authors: Vec<Author>) -> ItemSide {
    ItemSide {
        updated: draft.updated.get().copied(),
        images: draft.best_images(),
        language: draft.language.get().cloned(),
        links: draft.links,
        enclosures: draft.enclosures,
        authors,
        base: draft.base,
        content_base: draft.content_base,
        warnings: draft.warnings,
    }
}

fn author(person: &Person) -> Author {
    let some = |s: &String| Some(s.clone()).filter(|s| !s.is_empty());
    Author { name: some(&person.name), email: some(&person.email), url: some(&person.uri) }
}

fn text(out: &mut String, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    begin(out, name);
    escape_into(out, value);
    end(out, name);
}

fn begin(out: &mut String, name: &str) {
    out.push('<');
    out.push_str(name);
    out.push('>');
}

fn end(out: &mut String, name: &str) {
    out.push_str("</");
    out.push_str(name);
    out.push_str(">\n");
}

/// RSS knows HTML only: plain text is made such.
fn html(out: &mut String, name: &str, words: Option<&Words>) {
    match words {
        Some(Words { value, html: true }) => text(out, name, value),
        Some(Words { value, html: false }) => text(out, name, &escape(value)),
        None => {}
    }
}

/// Atom knows both.
fn words(out: &mut String, name: &str, words: Option<&Words>) {
    let Some(words) = words.filter(|w| !w.value.is_empty()) else { return };
    out.push('<');
    out.push_str(name);
    out.push_str(if words.html { " type=\"html\">" } else { " type=\"text\">" });
    escape_into(out, &words.value);
    end(out, name);
}

fn date(out: &mut String, name: &str, date: Option<&Timestamp>) {
    if let Some(date) = date {
        text(out, name, &date.to_string());
    }
}

fn tag(out: &mut String, name: &str, attributes: &[(&str, &str)]) {
    out.push('<');
    out.push_str(name);
    for (key, value) in attributes {
        out.push(' ');
        out.push_str(key);
        out.push_str("=\"");
        escape_into(out, value);
        out.push('"');
    }
    out.push_str("/>\n");
}

fn list(out: &mut String, outer: &str, inner: &str, values: &[String]) {
    if !values.is_empty() {
        begin(out, outer);
        for value in values {
            text(out, inner, value);
        }
        end(out, outer);
    }
}

fn write_person(out: &mut String, person: &Person) {
    begin(out, "author");
    text(out, "name", &person.name);
    text(out, "email", &person.email);
    text(out, "uri", &person.uri);
    end(out, "author");
}

fn write_link(out: &mut String, link: &Link) {
    let rel = if link.rel.is_empty() { "alternate" } else { &link.rel };
    let mut attributes = vec![("href", link.href.as_str()), ("rel", rel)];
    attributes.extend(link.media_type.as_deref().map(|t| ("type", t)));
    attributes.extend(link.length.as_deref().map(|l| ("length", l)));
    tag(out, "link", &attributes);
}
