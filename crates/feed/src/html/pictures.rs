//! Pictures and embedded documents in HTML: their addresses and words.

use std::borrow::Cow;

use url::Url;

use super::{lexer, srcset::candidates, urls::web_url};
use crate::text::{fold, unescape_attribute};

/// Longest description or hover text of a picture that is kept, in bytes.
const WORDS_BYTES_MAX: usize = 1 << 10;

/// Longest description that stands for a character, in bytes.
const SYMBOL_BYTES_MAX: usize = 32;

/// Attributes with the URL of an image, best first: lazy images have a placeholder in `src`.
const SOURCES: [(&[&str], Source); 4] = [
    (&["data-src", "data-lazy-src", "data-original"], Source::Address),
    (&["src"], Source::Address),
    (&["srcset"], Source::Set),
    (&["data-srcset"], Source::Set),
];

/// What an attribute contains.
#[derive(Clone, Copy)]
enum Source {
    /// One URL, whatever characters it has (HTML section 4.8.3).
    Address,
    /// A list of URLs (HTML section 4.8.4.2).
    Set,
}

/// A visible picture as written.
#[derive(Debug, Default)]
pub(super) struct Picture<'a> {
    sources: [Option<&'a str>; SOURCES.len()],
    alt: &'a str,
    title: &'a str,
}

impl<'a> Picture<'a> {
    /// Reads a tag; `None` if it is not a picture or a tracking pixel.
    pub(super) fn read(name: &str, attributes: &'a str) -> Option<Self> {
        if !["img", "image", "amp-img"].iter().any(|n| n.eq_ignore_ascii_case(name)) {
            return None;
        }
        let mut picture = Self::default();
        for (name, value) in lexer::attributes(attributes) {
            let is = |other: &&str| name.eq_ignore_ascii_case(other);
            if is_dot(name, value) {
                return None;
            }
            if let Some(slot) = SOURCES.iter().position(|(names, _)| names.iter().any(is)) {
                picture.sources[slot].get_or_insert(value);
            } else if is(&"alt") {
                picture.alt = value;
            } else if is(&"title") {
                picture.title = value;
            }
        }
        Some(picture)
    }

    /// Its address: absolute, `http` or `https`.
    pub(super) fn address(&self, base: Option<&Url>) -> Option<String> {
        self.sources.iter().zip(SOURCES).find_map(|(value, (_, source))| {
            let value = unescape_attribute((*value)?);
            match source {
                Source::Address => web_url(&value, base),
                Source::Set => candidates(&value).find_map(|candidate| web_url(candidate, base)),
            }
        })
    }

    /// Its description (`alt`), plain text.
    pub(super) fn alt(&self) -> String {
        words(self.alt)
    }

    /// Its hover text (`title`), unless that is the description again.
    pub(super) fn title(&self) -> String {
        if self.title.trim() == self.alt.trim() { String::new() } else { words(self.title) }
    }

    /// The character that it stands for, as a smiley does.
    pub(super) fn symbol(&self) -> Option<String> {
        let alt = self.alt();
        let is_symbol = |c: char| !c.is_ascii() && !c.is_alphanumeric();
        Some(alt).filter(|alt| !alt.is_empty() && alt.len() <= SYMBOL_BYTES_MAX && alt.chars().all(is_symbol))
    }
}

/// The address that a `<source>` of `<picture>` has, for an `<img>` that has none.
pub(super) fn source_set(name: &str, attributes: &str, base: Option<&Url>) -> Option<String> {
    if !name.eq_ignore_ascii_case("source") {
        return None;
    }
    let set = get(attributes, "srcset").or_else(|| get(attributes, "data-srcset"))?;
    candidates(&set).find_map(|candidate| web_url(candidate, base))
}

/// A video or other document that a page embeds.
#[derive(Debug)]
pub(super) struct Embedded {
    /// Absolute, `http` or `https`.
    pub(super) address: String,
    /// Plain text, may be empty.
    pub(super) title: String,
}

impl Embedded {
    pub(super) fn read(name: &str, attributes: &str, base: Option<&Url>) -> Option<Self> {
        const VIDEOS: [(&str, &str, &str); 4] = [
            ("lite-youtube", "videoid", "https://www.youtube.com/watch?v="),
            ("amp-youtube", "data-videoid", "https://www.youtube.com/watch?v="),
            ("lite-vimeo", "videoid", "https://vimeo.com/"),
            ("amp-vimeo", "data-videoid", "https://vimeo.com/"),
        ];
        const ADDRESSES: [(&str, &[&str]); 10] = [
            ("amp-audio", &["src"]),
            ("amp-iframe", &["src"]),
            ("amp-video", &["src"]),
            ("audio", &["data-src", "src"]),
            ("embed", &["data-src", "src"]),
            ("iframe", &["data-src", "data-lazy-src", "src"]),
            ("object", &["data"]),
            ("param", &["value"]),
            ("source", &["src"]),
            ("video", &["data-src", "src"]),
        ];
        if let Some((_, id, site)) = VIDEOS.iter().find(|(n, ..)| n.eq_ignore_ascii_case(name)) {
            let id = get(attributes, id)?;
            let is_id = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
            return is_id.then(|| Self { address: format!("{site}{id}"), title: title_of(attributes) });
        }
        let (name, names) = ADDRESSES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        if lexer::attributes(attributes).any(|(n, value)| is_dot(n, value))
            || (*name == "param" && !names_a_movie(attributes))
        {
            return None;
        }
        let address = names.iter().find_map(|n| web_url(&get(attributes, n)?, base))?;
        Some(Self { address, title: title_of(attributes) })
    }
}

fn title_of(attributes: &str) -> String {
    get(attributes, "title").map(|t| fold(&t, WORDS_BYTES_MAX)).unwrap_or_default()
}

/// Whether a parameter of `<object>` has the address of what it plays.
fn names_a_movie(attributes: &str) -> bool {
    let name = get(attributes, "name").unwrap_or_default();
    ["movie", "src", "url", "filename"].iter().any(|n| name.trim().eq_ignore_ascii_case(n))
}

fn get<'a>(attributes: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let mut found = lexer::attributes(attributes).filter(|(n, _)| n.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| unescape_attribute(value))
}

/// Whether an attribute makes it so small that it only counts readers.
fn is_dot(name: &str, value: &str) -> bool {
    matches!(value, "0" | "1" | "0px" | "1px")
        && (name.eq_ignore_ascii_case("width") || name.eq_ignore_ascii_case("height"))
}

fn words(value: &str) -> String {
    fold(&unescape_attribute(value), WORDS_BYTES_MAX)
}
