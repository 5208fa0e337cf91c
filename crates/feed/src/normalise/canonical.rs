//! Writes canonical XML: flat, in a fixed order, with the usual prefixes, all dates in RFC 3339.

use memchr::{memchr3, memmem};
use news::{Author, Timestamp};

use super::draft::{Draft, FeedExtras, FeedLink, FeedText, ItemExtras, Person};
use crate::{
    document::FeedFormat,
    html::plain_title,
    limits::TITLE_BYTES_MAX,
    text::{escape, escape_into},
};

const RSS_HEAD: &str = "<rss version=\"2.0\" xmlns:content=\"http://purl.org/rss/1.0/modules/content/\" \
     xmlns:dc=\"http://purl.org/dc/elements/1.1/\" \
     xmlns:sy=\"http://purl.org/rss/1.0/modules/syndication/\">\n<channel>\n";
const ATOM_HEAD: &str = "<feed xmlns=\"http://www.w3.org/2005/Atom\">\n";

/// Writes items as they end; the feed itself is inserted before them at the end.
#[derive(Debug, Default)]
pub(super) struct CanonicalWriter {
    items: String,
}

impl CanonicalWriter {
    /// Writes an item as RSS 2.0.
    pub(super) fn item<'a>(&mut self, draft: Draft<'a>) -> ItemExtras<'a> {
        let out = &mut self.items;
        out.push_str("<item>\n");
        html_text(out, "title", draft.title.get());
        if let Some(link) = own_link(&draft) {
            text(out, "link", &link.href);
        }
        let mut persons = Vec::new();
        for person in draft.best_authors() {
            if person.email.is_empty() && person.uri.is_empty() {
                text(out, "dc:creator", &escape(&person.name));
            } else {
                persons.push(author(person));
            }
        }
        for category in &draft.categories {
            html_text(out, "category", Some(category));
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
            write(out, id);
            out.push_str("</guid>\n");
        }
        date(out, "pubDate", draft.published.get());
        // An item whose text is all it has must not become an empty one.
        out.push_str(if out.ends_with("<item>\n") { "<description/>\n</item>\n" } else { "</item>\n" });
        let permalink = draft.relative_permalink().map(str::to_owned);
        let mut side = side(draft, persons);
        side.permalink = permalink;
        side.summary = side.summary.map(FeedText::into_html);
        side.content = side.content.map(FeedText::into_html);
        side
    }

    /// Writes an entry as Atom 1.0.
    pub(super) fn entry<'a>(&mut self, draft: Draft<'a>) -> ItemExtras<'a> {
        let out = &mut self.items;
        out.push_str("<entry>\n");
        if let Some((id, _)) = draft.id.get() {
            text(out, "id", id);
        }
        typed_text(out, "title", draft.title.get());
        date(out, "updated", draft.updated.get());
        for person in draft.best_authors() {
            write_person(out, person);
        }
        for category in &draft.categories {
            let plain = if category.html {
                plain_title(&category.value, TITLE_BYTES_MAX)
            } else {
                category.value.clone().into_owned()
            };
            if !plain.is_empty() {
                tag(out, "category", &[("term", &plain)]);
            }
        }
        for link in draft.links.iter().chain(&draft.enclosures) {
            write_link(out, link);
        }
        date(out, "published", draft.published.get());
        out.push_str(if out.ends_with("<entry>\n") { "<summary/>\n</entry>\n" } else { "</entry>\n" });
        side(draft, Vec::new())
    }

    /// Returns the whole document.
    pub(super) fn finish(self, mut feed: Draft<'_>, format: FeedFormat) -> (String, FeedExtras) {
        let atom = format.is_atom();
        let mut head = String::from(if atom { ATOM_HEAD } else { RSS_HEAD });
        if atom {
            head_of_atom(&mut head, &feed)
        } else {
            head_of_rss(&mut head, &feed)
        }
        let mut out = self.items;
        out.insert_str(0, &head);
        out.push_str(if atom { "</feed>\n" } else { "</channel>\n</rss>\n" });
        let side = FeedExtras {
            images: feed.best_images(),
            updated: feed.updated.take().or(feed.published.take()),
            language: feed.language.take(),
            links: feed.links,
            base: feed.base,
            update_period: feed.update_period.take(),
        };
        (out, side)
    }
}

/// The link of RSS itself. Of several the last one counts, as in the crate `rss`, gofeed and feedparser.
fn own_link<'d>(draft: &'d Draft<'_>) -> Option<&'d FeedLink> {
    draft.links.iter().rfind(|l| l.rel.is_empty())
}

fn head_of_rss(out: &mut String, feed: &Draft<'_>) {
    html_text(out, "title", feed.title.get());
    if let Some(link) = own_link(feed) {
        text(out, "link", &link.href);
    }
    html_text(out, "description", feed.summary.get());
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

fn head_of_atom(out: &mut String, feed: &Draft<'_>) {
    typed_text(out, "title", feed.title.get());
    typed_text(out, "subtitle", feed.summary.get());
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

fn side<'a>(mut draft: Draft<'a>, authors: Vec<Author>) -> ItemExtras<'a> {
    ItemExtras {
        images: draft.best_images(),
        summary: draft.summary.take(),
        content: draft.content.take(),
        updated: draft.updated.take(),
        language: draft.language.take(),
        links: draft.links,
        enclosures: draft.enclosures,
        captions: draft.captions,
        authors,
        base: draft.base,
        content_base: draft.content_base,
        warnings: draft.warnings,
        permalink: None,
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
    write(out, value);
    end(out, name);
}

/// Writes the text of an element, as CDATA if it would need escaping: parsers read that in one piece.
fn write(out: &mut String, text: &str) {
    if memchr3(b'&', b'<', b'>', text.as_bytes()).is_none() {
        out.push_str(text);
        return;
    }
    out.push_str("<![CDATA[");
    let mut from = 0;
    for end in memmem::find_iter(text.as_bytes(), "]]>") {
        out.push_str(&text[from..end]);
        out.push_str("]]]]><![CDATA[");
        from = end + 2;
    }
    out.push_str(&text[from..]);
    out.push_str("]]>");
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

/// Writes text as HTML, for RSS.
fn html_text(out: &mut String, name: &str, content: Option<&FeedText<'_>>) {
    match content {
        Some(FeedText { value, html: true }) => text(out, name, value),
        Some(FeedText { value, html: false }) => text(out, name, &escape(value)),
        None => {}
    }
}

/// Writes text with its type, for Atom.
fn typed_text(out: &mut String, name: &str, content: Option<&FeedText<'_>>) {
    let Some(content) = content.filter(|w| !w.value.is_empty()) else { return };
    out.push('<');
    out.push_str(name);
    out.push_str(if content.html { " type=\"html\">" } else { " type=\"text\">" });
    write(out, &content.value);
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

fn write_link(out: &mut String, link: &FeedLink) {
    let rel = if link.rel.is_empty() { "alternate" } else { &link.rel };
    let mut attributes = vec![("href", link.href.as_str()), ("rel", rel)];
    attributes.extend(link.media_type.as_deref().map(|t| ("type", t)));
    attributes.extend(link.length.as_deref().map(|l| ("length", l)));
    tag(out, "link", &attributes);
}
