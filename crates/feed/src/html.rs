//! HTML in feeds: conversion to plain text, sanitising, search for an image.
//!
//! All three use [`lexer`], which is linear and builds no tree. [`sanitise`](fn@sanitise) passes only allowed tags to the
//! HTML parser of `ammonia`, whose cost is quadratic in depth, attributes and unclosed formatting, so that a feed cannot
//! trigger that.

mod lexer;
mod sanitise;
mod urls;

pub(crate) use lexer::{HtmlToken, Lexer, attributes};
pub(crate) use sanitise::sanitise;
pub(crate) use urls::{is_canonical, resolve, web_url};

use crate::text::{Folded, fold, unescape};
use memchr::memchr2;
use url::Url;

/// HTML as plain text on one line: tags removed, references decoded once, whitespace folded.
pub(crate) fn plain_text(html: &str, bytes_max: usize) -> String {
    if !may_be_markup(html) {
        return fold(html, bytes_max);
    }
    let mut text = Folded::new(bytes_max);
    for token in Lexer::new(html) {
        match token {
            HtmlToken::Text(raw) => text.push_str(&unescape(raw)),
            HtmlToken::Open { name, source, attributes } if !lexer::is_markup(name, attributes) => {
                text.push_str(source)
            }
            HtmlToken::Close { name, source } if !lexer::is_markup(name, "") => text.push_str(source),
            HtmlToken::Open { name, .. } | HtmlToken::Close { name, .. } => {
                if !lexer::is_inline(name) {
                    text.push(' ');
                }
            }
        }
        if text.is_full() {
            break;
        }
    }
    text.finish()
}

/// Whether the text might contain a tag or a reference.
pub(crate) fn may_be_markup(html: &str) -> bool {
    memchr2(b'<', b'&', html.as_bytes()).is_some()
}

/// Whether the text contains a tag or a reference.
pub(crate) fn has_markup(html: &str) -> bool {
    Lexer::new(html).any(|token| match token {
        HtmlToken::Text(_) => false,
        HtmlToken::Open { name, attributes, .. } => lexer::is_markup(name, attributes),
        HtmlToken::Close { name, .. } => lexer::is_markup(name, ""),
    })
}

/// Attributes with the URL of an image, best first: lazy images have a placeholder in `src`.
const SOURCES: [&[&str]; 4] =
    [&["data-src", "data-lazy-src", "data-original"], &["src"], &["srcset"], &["data-srcset"]];

/// The first visible image: lazy images by their real URL, no tracking pixels.
pub(crate) fn first_image(html: &str, base: Option<&Url>) -> Option<String> {
    Lexer::new(html).find_map(|token| {
        let HtmlToken::Open { name, attributes, .. } = token else { return None };
        if !name.eq_ignore_ascii_case("img") {
            return None;
        }
        let mut addresses = [None; 4];
        for (name, value) in lexer::attributes(attributes) {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if matches!(value, "0" | "1") && (is("width") || is("height")) {
                return None;
            }
            if let Some(slot) = SOURCES.iter().position(|names| names.iter().any(|n| is(n))) {
                addresses[slot].get_or_insert(value);
            }
        }
        addresses.into_iter().flatten().find_map(|address| {
            let address = unescape(address);
            web_url(address.split([' ', ',']).find(|a| !a.is_empty())?, base)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_has_no_tags_and_decodes_once() {
        for (html, text) in [
            ("a <b>bold</b> move", "a bold move"),
            ("<p>one</p><p>two</p>", "one two"),
            ("H<sub>2</sub>O", "H2O"),
            ("a<br/>b", "a b"),
            ("AT&amp;T &lt;b&gt; &amp;amp;", "AT&T <b> &amp;"),
            ("x<script>alert(1)</script>y<style>p{}</style>z", "xyz"),
            ("x<!-- <b> -->y", "xy"),
            ("Vec<T> and a < b", "Vec<T> and a < b"),
            ("<x onclick=alert(1)>y</x>", "y</x>"),
            ("<svg/onload=alert(1)>q", "q"),
            ("a <b unclosed", "a <b unclosed"),
        ] {
            assert_eq!(plain_text(html, 1000), text, "{html}");
        }
    }

    #[test]
    fn the_first_image_is_a_real_one() {
        let base = Url::parse("https://example.org/a/").unwrap();
        let image = |html| first_image(html, Some(&base));
        assert_eq!(image("<p><IMG alt=x src='b.png'>").as_deref(), Some("https://example.org/a/b.png"));
        assert_eq!(
            image("<img src='data:image/gif;base64,R0' data-src=/c.jpg>").as_deref(),
            Some("https://example.org/c.jpg")
        );
        assert_eq!(
            image("<img src=//p.example/x width=1 height=1><img src=//q.example/y>").as_deref(),
            Some("https://q.example/y")
        );
        assert_eq!(image("<img src='javascript:alert(1)'>"), None);
    }
}
