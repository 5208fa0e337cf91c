//! HTML in feeds: conversion to plain text and back, sanitising, search for an image.
//!
//! All use [`lexer`], which is linear and builds no tree. [`sanitise`](fn@sanitise) passes only allowed tags to the HTML
//! parser of `ammonia`, whose cost is quadratic in depth, attributes and unclosed formatting, so that a feed cannot
//! trigger that.

mod lexer;
mod lines;
mod pictures;
mod sanitise;
mod srcset;
mod urls;

pub(crate) use lexer::{HtmlToken, Lexer, attributes};
pub(crate) use lines::{has_lines, paragraphs};
pub(crate) use sanitise::sanitise;
pub(crate) use urls::{is_canonical, resolve, web_url};

use self::pictures::{Picture, source_set};
use crate::text::{Folded, fold, unescape, unescape_attribute};
use memchr::memchr2;
use url::Url;

/// HTML as plain text on one line: tags removed, references decoded once, whitespace folded. If that leaves nothing, the
/// words of its pictures.
pub(crate) fn plain_text(html: &str, bytes_max: usize) -> String {
    if !may_be_markup(html) {
        return fold(html, bytes_max);
    }
    text_of(Lexer::new(html), html, bytes_max)
}

/// A title in HTML as plain text on one line: as [`plain_text`], but a tag that the title is about stays.
pub(crate) fn plain_title(html: &str, bytes_max: usize) -> String {
    if !html.contains('<') {
        return fold(&unescape(html), bytes_max);
    }
    let text = text_of(Lexer::of_title(html), html, bytes_max);
    if text.is_empty() && is_one_tag(html) { fold(html, bytes_max) } else { text }
}

/// Whether a title is the name of an element between angle brackets, and nothing else.
fn is_one_tag(title: &str) -> bool {
    let name = title.trim().strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    name.is_some_and(|name| {
        name.bytes().all(|b| b.is_ascii_alphanumeric()) && !["br", "hr", "wbr", "img"].contains(&name)
    })
}

fn text_of(lexer: Lexer<'_>, html: &str, bytes_max: usize) -> String {
    let mut text = Folded::new(bytes_max);
    for token in lexer {
        match token {
            HtmlToken::Text(raw) => text.push_str(&unescape(raw)),
            HtmlToken::Open { known, .. } | HtmlToken::Close { known, .. } if lexer::is_inline(known) => {}
            HtmlToken::Open { name, attributes, .. } => {
                let symbol = Picture::read(name, attributes).and_then(|picture| picture.symbol());
                text.push_str(symbol.as_deref().unwrap_or(" "));
            }
            HtmlToken::Close { .. } => text.push(' '),
        }
        if text.is_full() {
            break;
        }
    }
    let text = text.finish();
    if text.is_empty() { words_of_pictures(html, bytes_max) } else { text }
}

/// Descriptions and hover texts of the visible pictures.
fn words_of_pictures(html: &str, bytes_max: usize) -> String {
    let mut words = Folded::new(bytes_max);
    for token in Lexer::new(html) {
        let HtmlToken::Open { name, attributes, .. } = token else { continue };
        let Some(picture) = Picture::read(name, attributes) else { continue };
        for text in [picture.alt(), picture.title()] {
            words.push_str(&text);
            words.push(' ');
        }
    }
    words.finish()
}

/// Whether the text might contain a tag or a reference.
pub(crate) fn may_be_markup(html: &str) -> bool {
    memchr2(b'<', b'&', html.as_bytes()).is_some()
}

/// Whether the text contains a tag, or anything else that is not text.
pub(crate) fn has_markup(html: &str) -> bool {
    let mut text_bytes = 0;
    for token in Lexer::new(html) {
        text_bytes += match token {
            HtmlToken::Text(text) => text.len(),
            HtmlToken::Open { .. } | HtmlToken::Close { .. } => return true,
        };
    }
    text_bytes < html.len()
}

/// The first visible image: lazy images by their real URL, no tracking pixels. If there is none, the still of the first
/// video.
pub(crate) fn first_image(html: &str, base: Option<&Url>) -> Option<String> {
    let (mut still, mut source) = (None, None);
    for token in Lexer::new(html) {
        let HtmlToken::Open { name, attributes, .. } = token else { continue };
        if let Some(picture) = Picture::read(name, attributes) {
            let address = picture.address(base).or_else(|| source.take());
            if address.is_some() {
                return address;
            }
        }
        source = source.or_else(|| source_set(name, attributes, base));
        if still.is_none() && name.eq_ignore_ascii_case("video") {
            let mut posters = lexer::attributes(attributes).filter(|(n, _)| n.eq_ignore_ascii_case("poster"));
            still = posters.next().and_then(|(_, poster)| web_url(&unescape_attribute(poster), base));
        }
    }
    still.or(source)
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
            ("<p>a</p><object data='x'><p>rest</p>", "a rest"),
            ("<p>a <foo>b</foo> <x-y>c</x-y>d</p><circle r='1'>e</circle>", "a b cd e"),
            ("a<svg viewBox='0 0 1 1'><g><path d='M0'/></g><text>t</text></svg>b", "ab"),
            ("<math><mfrac><mi>a</mi><mn>2</mn></mfrac><annotation encoding='t'>x</annotation></math>", "a2"),
            ("by <http://x.example/a> and <a@x-y.example>", "by <http://x.example/a> and <a@x-y.example>"),
            (
                "good <img src='s.png' alt='\u{1f600}'> news <img src='x.png' alt='a chart'>",
                "good \u{1f600} news",
            ),
            (
                "<img src='1.gif' alt='ALT' title='hover &amp; text'><img src='2.gif' alt='b' title='b'>",
                "ALT hover & text b",
            ),
            ("Vec<T> and a < b", "Vec<T> and a < b"),
            ("<x onclick=alert(1)>y</x>", "y"),
            ("<svg/onload=alert(1)>q", "q"),
            ("a <b unclosed", "a <b unclosed"),
        ] {
            assert_eq!(plain_text(html, 1000), text, "{html}");
        }
    }

    #[test]
    fn a_title_about_a_tag_keeps_it() {
        for (title, text) in [
            ("What is <script type=\"module\"> and when to use it", "What is and when to use it"),
            ("Styling <select> &amp; <option> at last", "Styling <select> & <option> at last"),
            ("Firefox 23 ohne <blink>", "Firefox 23 ohne <blink>"),
            ("What does <!-- mean in HTML", "What does <!-- mean in HTML"),
            ("A <em>good</em> <b>day", "A good day"),
            ("<img src=x onerror=alert(1)>x", "x"),
            ("<p>", "<p>"),
            ("<br>", ""),
            ("<foo>x</foo>: Vec<T>", "x: Vec<T>"),
        ] {
            assert_eq!(plain_title(title, 1000), text, "{title}");
        }
        for piece in ["<div>", "<div></p>", "<select>x", "<!--", "<script>", "</div>"] {
            let _linear = plain_title(&format!("{}</div>", piece.repeat(20_000)), 1_000_000);
        }
    }

    #[test]
    fn markup_is_whatever_is_not_text() {
        for html in ["a<b>c", "a<!-- b -->", "<script>a</script>", "a<?b?>", "</p>"] {
            assert!(has_markup(html), "{html}");
        }
        for html in ["", "a &amp; b", "a < b", "Vec<T>", "a <!-- b"] {
            assert!(!has_markup(html), "{html}");
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
        assert_eq!(
            image("<video poster=p.jpg><img src=i.jpg>").as_deref(),
            Some("https://example.org/a/i.jpg")
        );
        assert_eq!(image("<video poster=p.jpg>").as_deref(), Some("https://example.org/a/p.jpg"));
    }

    #[test]
    fn src_is_one_address_and_srcset_a_list() {
        let image = |html: &str| first_image(html, None);
        for (html, address) in [
            ("src='https://cdn.example/w_100,c_limit/a.jpg'", "https://cdn.example/w_100,c_limit/a.jpg"),
            ("src='https://cdn.example/a b, c.jpg'", "https://cdn.example/a%20b,%20c.jpg"),
            ("src=' https://cdn.example/a.jpg '", "https://cdn.example/a.jpg"),
            ("src='https://cdn.example/?a=1&copy=2&amp;c=3'", "https://cdn.example/?a=1&copy=2&c=3"),
            ("data-src='https://cdn.example/w_100,h_5/a.jpg'", "https://cdn.example/w_100,h_5/a.jpg"),
            (
                "srcset='https://cdn.example/w_100,h_5/a.jpg 100w, https://cdn.example/b.jpg 200w'",
                "https://cdn.example/w_100,h_5/a.jpg",
            ),
            ("srcset='data:,x 1x, https://cdn.example/b.jpg 2x'", "https://cdn.example/b.jpg"),
            (
                "src='' data-srcset='https://cdn.example/a.jpg, https://cdn.example/b.jpg 2x'",
                "https://cdn.example/a.jpg",
            ),
        ] {
            assert_eq!(image(&format!("<img {html}>")).as_deref(), Some(address), "{html}");
        }
        let picture =
            "<picture><source data-srcset='https://cdn.example/a.webp 1x'><img src='data:,x'></picture>";
        assert_eq!(image(picture).as_deref(), Some("https://cdn.example/a.webp"));
        let alone = "<picture><source srcset='https://cdn.example/a.webp 1x'></picture>";
        assert_eq!(image(alone).as_deref(), Some("https://cdn.example/a.webp"));
    }
}
