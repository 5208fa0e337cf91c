//! Detects the kind of a document, and the feeds that an HTML page links to.

mod embedded;

pub(crate) use embedded::{EmbeddedFeed, embedded_feed};

use news::without_feed_scheme;
use url::Url;

use crate::{
    error::FeedError,
    html::{self, HtmlToken, Lexer, web_url},
    text::unescape_attribute,
};

/// How much of a page is searched for links to feeds, in bytes.
const PAGE_BYTES_MAX: usize = 512 << 10;
/// Maximum number of feeds that are listed of a page.
const FEEDS_MAX: usize = 16;

/// The kind of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    Empty,
    Json,
    Html,
    /// Markup other than HTML.
    Xml,
    Text,
}

/// Detects the kind by the first characters.
pub(crate) fn kind(text: &str) -> DocumentKind {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c.is_control());
    match text.chars().next() {
        None => DocumentKind::Empty,
        Some('{' | '[') => DocumentKind::Json,
        Some(_) => first_tag(text),
    }
}

/// Detects the kind by the first tag that is not a comment, declaration or processing instruction.
fn first_tag(text: &str) -> DocumentKind {
    const HTML: [&str; 15] = [
        "html", "head", "body", "title", "meta", "link", "script", "style", "div", "p", "pre", "h1", "table",
        "center", "span",
    ];
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = match rest.as_bytes() {
            [b'!', b'-', b'-', ..] => "-->",
            [b'!' | b'?', ..] => {
                if rest.get(..13).is_some_and(|d| d.eq_ignore_ascii_case("!doctype html")) {
                    return DocumentKind::Html;
                }
                ">"
            }
            [b, ..] if b.is_ascii_alphabetic() || *b == b'_' => {
                let end =
                    rest.find(|c: char| c.is_whitespace() || matches!(c, '>' | '/')).unwrap_or(rest.len());
                let is_html = HTML.iter().any(|h| h.eq_ignore_ascii_case(&rest[..end]));
                return if is_html { DocumentKind::Html } else { DocumentKind::Xml };
            }
            _ => continue,
        };
        rest = rest.find(end).map_or("", |n| &rest[n + end.len()..]);
    }
    DocumentKind::Text
}

/// The error for a known binary format, detected by its first bytes.
pub(crate) fn binary_error(bytes: &[u8]) -> Option<FeedError> {
    const KNOWN: [(&[u8], &str); 9] = [
        (b"\x89PNG", "an image"),
        (b"\xff\xd8\xff", "an image"),
        (b"GIF8", "an image"),
        (b"RIFF", "a media file"),
        (b"ID3", "an audio file"),
        (b"OggS", "a media file"),
        (b"%PDF", "a PDF document"),
        (b"\x1f\x8b", "compressed data"),
        (b"PK\x03\x04", "a ZIP archive"),
    ];
    KNOWN.iter().find(|(mark, _)| bytes.starts_with(mark)).map(|(_, what)| not_a_feed(what))
}

/// The error for a document that is not a feed.
pub(crate) fn not_a_feed(looks_like: &str) -> FeedError {
    FeedError::NotAFeed { looks_like: looks_like.to_owned(), feeds: Vec::new() }
}

/// The error for text without a root element.
pub(crate) fn no_root_error(text: &str) -> FeedError {
    match kind(text) {
        DocumentKind::Empty => not_a_feed("empty"),
        DocumentKind::Json => not_a_feed("a JSON document"),
        DocumentKind::Html => not_a_feed("an HTML page"),
        DocumentKind::Xml => FeedError::Truncated,
        DocumentKind::Text => not_a_feed("plain text"),
    }
}

/// The error for an HTML page.
pub(crate) fn html_page_error(text: &str, url: Option<&Url>) -> FeedError {
    FeedError::NotAFeed { looks_like: "an HTML page".to_owned(), feeds: linked_feeds(text, url) }
}

/// The feeds that a page links to (`<link rel="alternate">`), relative to its `<base href>` if it has one.
fn linked_feeds(text: &str, url: Option<&Url>) -> Vec<String> {
    let page = crate::text::truncate(text, PAGE_BYTES_MAX);
    let base = base(page, url);
    let mut feeds = Vec::new();
    for tag in Lexer::new(page) {
        let HtmlToken::Open { known: Some("link"), attributes, .. } = tag else { continue };
        let is_alternate =
            attribute(attributes, "rel").is_some_and(|rel| rel.to_ascii_lowercase().contains("alternate"));
        let media_type = attribute(attributes, "type").unwrap_or_default().to_ascii_lowercase();
        let is_feed = ["rss", "atom", "feed+json", "rdf"].iter().any(|t| media_type.contains(t));
        if is_alternate
            && is_feed
            && let Some(feed) = attribute(attributes, "href").and_then(|href| feed_url(&href, base.as_ref()))
            && !feeds.contains(&feed)
        {
            feeds.push(feed);
        }
        if feeds.len() == FEEDS_MAX {
            break;
        }
    }
    feeds
}

/// The base of the links of a page: the first `<base>` with an `href` counts, for links before it, too (HTML section 4.2.3).
fn base(page: &str, url: Option<&Url>) -> Option<Url> {
    let href = Lexer::new(page).find_map(|tag| match tag {
        HtmlToken::Open { known: Some("base"), attributes, .. } => attribute(attributes, "href"),
        _ => None,
    });
    let base = href.and_then(|href| web_url(&href, url)).and_then(|base| Url::parse(&base).ok());
    base.or_else(|| url.cloned())
}

/// The address of a feed, also in the forms `feed:https://…` and `feed://…`; the latter has the scheme of the page.
fn feed_url(href: &str, base: Option<&Url>) -> Option<String> {
    let href = href.trim();
    let rest = without_feed_scheme(href);
    let is_relative = rest.len() < href.len() && !rest.starts_with('/') && !rest.contains("://");
    if is_relative { web_url(&format!("//{rest}"), base) } else { web_url(rest, base) }
}

/// The first attribute of this name, with its references decoded.
fn attribute(attributes: &str, name: &str) -> Option<String> {
    let found = html::attributes(attributes).find(|(n, _)| n.eq_ignore_ascii_case(name));
    found.map(|(_, value)| unescape_attribute(value).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_recognised_by_its_first_tag() {
        assert_eq!(kind(" \u{feff}\n"), DocumentKind::Empty);
        assert_eq!(kind(" {\"a\":1}"), DocumentKind::Json);
        assert_eq!(kind("<?xml version='1.0'?><!-- <html> --><rss/>"), DocumentKind::Xml);
        assert_eq!(kind("<!DOCTYPE HTML><x>"), DocumentKind::Html);
        assert_eq!(kind("<!-- c --><HTML lang=en>"), DocumentKind::Html);
        assert_eq!(kind("junk <rss>"), DocumentKind::Xml);
        assert_eq!(kind("no tag at all"), DocumentKind::Text);
    }

    #[test]
    fn the_feeds_of_a_page_are_listed() {
        let url = Url::parse("https://example.org/blog/").unwrap();
        let html = "<html><head><link rel=stylesheet href=x.css>\
            <LINK REL='alternate' TYPE='application/rss+xml' HREF='feed.xml?a=1&amp;b=2'>\
            <link rel=alternate type=application/atom+xml href=/atom>\
            <link rel=alternate type=text/html hreflang=de href=/de>\
            <link rel=alternate type=application/rss+xml href='javascript:alert(1)'>";
        let FeedError::NotAFeed { looks_like, feeds } = html_page_error(html, Some(&url)) else {
            panic!("another error")
        };
        assert_eq!(looks_like, "an HTML page");
        assert_eq!(feeds, ["https://example.org/blog/feed.xml?a=1&b=2", "https://example.org/atom"]);
    }

    fn links(html: &str) -> Vec<String> {
        let url = Url::parse("https://example.org/blog/").unwrap();
        linked_feeds(html, Some(&url))
    }

    fn link(href: &str) -> String {
        format!("<link rel=alternate type=application/rss+xml href='{href}'>")
    }

    #[test]
    fn the_links_of_a_page_are_relative_to_its_base() {
        let feed = link("feed.xml");
        for (base, expected) in [
            ("", "https://example.org/blog/feed.xml"),
            ("<base href='/news/'>", "https://example.org/news/feed.xml"),
            (
                "<BASE target=_top><base HREF=\"http://other.example/a/b?c\" />",
                "http://other.example/a/feed.xml",
            ),
            ("<base href='//other.example/&#97;/'>", "https://other.example/a/feed.xml"),
            ("<base href='x/'><base href='/second/'>", "https://example.org/blog/x/feed.xml"),
            ("<!-- <base href='/comment/'> -->", "https://example.org/blog/feed.xml"),
            ("<script>'<base href=\"/script/\">'</script>", "https://example.org/blog/feed.xml"),
            ("<base href='javascript:alert(1)'>", "https://example.org/blog/feed.xml"),
            ("<base href='data:text/html,x'>", "https://example.org/blog/feed.xml"),
            ("<base href=''>", "https://example.org/blog/feed.xml"),
            ("<basefont href='/x/'>", "https://example.org/blog/feed.xml"),
        ] {
            assert_eq!(links(&format!("<html><head>{base}{feed}")), [expected], "{base}");
            assert_eq!(links(&format!("<html><head>{feed}{base}")), [expected], "{base} after the link");
        }
        let absolute = "https://x.example/feed";
        assert_eq!(links(&format!("<html><base href='/news/'>{}", link(absolute))), [absolute]);
        assert!(links(&format!("<html><!-- {feed} -->")).is_empty(), "a comment is no link");
    }

    #[test]
    fn the_link_of_a_feed_may_have_the_scheme_feed() {
        for (href, expected) in [
            ("feed:http://x.example/f", "http://x.example/f"),
            ("FEED:https://x.example/f", "https://x.example/f"),
            ("feed://x.example/f", "https://x.example/f"),
            (" feed:feed://x.example/f", "https://x.example/f"),
            ("feeds:x.example/f", "https://x.example/f"),
            ("feed:/f", "https://example.org/f"),
            ("feed.xml", "https://example.org/blog/feed.xml"),
            ("feed", "https://example.org/blog/feed"),
        ] {
            assert_eq!(links(&format!("<html>{}", link(href))), [expected], "{href}");
        }
        for href in ["feed:javascript:alert(1)", "feed:", "feed://", "feed:ftp://x.example/f"] {
            assert!(links(&format!("<html>{}", link(href))).is_empty(), "{href}");
        }
    }
}
