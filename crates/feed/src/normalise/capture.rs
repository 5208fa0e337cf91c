//! Collects the text of one element.

use std::borrow::Cow;

use memchr::{memchr, memrchr};

use super::{draft::FeedText, meaning::Field};
use crate::{
    limits::FIELD_BYTES_MAX,
    text::{Reference, drop_forbidden, escape_into, reference},
};

/// How the characters and tags inside an element are interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextMode {
    /// Plain text: tags are dropped.
    Plain,
    /// HTML, escaped in XML: decoded text is markup, and so are tags.
    Html,
    /// XHTML: tags are markup, decoded text is text.
    Xhtml,
}

/// What the characters of an element encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextEncoding {
    /// Nothing: they are the text.
    None,
    /// Text (Atom 0.3 `mode="base64"`).
    Base64,
    /// An image or other file in base64: there is no text. Text whose type is wrong is kept.
    Binary,
}

/// An element whose text is being collected.
#[derive(Debug)]
pub(super) struct Capture<'a> {
    pub(super) field: Field,
    pub(super) mode: TextMode,
    pub(super) encoding: TextEncoding,
    pub(super) offset: usize,
    pub(super) truncated: bool,
    text: Cow<'a, str>,
}

impl<'a> Capture<'a> {
    pub(super) fn new(field: Field, mode: TextMode, encoding: TextEncoding, offset: usize) -> Self {
        Self { field, mode, encoding, offset, truncated: false, text: Cow::Borrowed("") }
    }

    /// Appends text of the document; not copied while it is the only text.
    pub(super) fn push(&mut self, text: &'a str) {
        if self.text.is_empty()
            && self.mode != TextMode::Xhtml
            && text.len() <= FIELD_BYTES_MAX
            && !self.truncated
        {
            self.text = Cow::Borrowed(text);
        } else {
            self.push_copy(text);
        }
    }

    fn push_copy(&mut self, text: &str) {
        if self.truncated {
            return;
        }
        let room = FIELD_BYTES_MAX.saturating_sub(self.text.len());
        self.truncated = text.len() > room;
        let text = crate::text::truncate(text, room);
        if self.mode == TextMode::Xhtml {
            escape_into(self.text.to_mut(), text);
        } else {
            self.text.to_mut().push_str(text);
        }
    }

    /// Appends a character; escaped HTML has one every few bytes.
    fn push_char(&mut self, c: char) {
        if self.mode != TextMode::Xhtml
            && self.text.len() + c.len_utf8() <= FIELD_BYTES_MAX
            && !self.truncated
        {
            self.text.to_mut().push(c);
        } else {
            self.push_copy(c.encode_utf8(&mut [0; 4]));
        }
    }

    /// Appends a reference by its name; returns false if it is unknown, which is kept as text.
    pub(super) fn push_reference(&mut self, name: &str) -> bool {
        match reference(name) {
            // U+FFFD results from numbers that are not characters.
            Some(Reference::Number(c)) if !is_xml(c) || c == char::REPLACEMENT_CHARACTER => return false,
            Some(found) => {
                let (first, second) = found.chars();
                self.push_char(first);
                second.into_iter().for_each(|second| self.push_char(second));
            }
            None => {
                self.push_copy("&");
                self.push_copy(name);
                self.push_copy(";");
                return false;
            }
        }
        true
    }

    /// Appends a start tag with the attributes to keep, or an end tag.
    pub(super) fn push_tag(&mut self, slash: &str, local: &str, attributes: &[(Cow<'_, str>, Cow<'_, str>)]) {
        if self.mode == TextMode::Plain
            || self.truncated
            || self.text.len() + local.len() + 3 > FIELD_BYTES_MAX
        {
            return;
        }
        let text = self.text.to_mut();
        text.push('<');
        text.push_str(slash);
        text.push_str(local);
        for (name, value) in attributes {
            text.push(' ');
            text.push_str(name);
            text.push_str("=\"");
            escape_into(text, value);
            text.push('"');
        }
        text.push('>');
    }

    /// The collected text, with line ends normalised as in XML.
    pub(super) fn finish(mut self) -> FeedText<'a> {
        if self.truncated && self.mode == TextMode::Html {
            let end = end_of_markup(&self.text);
            self.text.to_mut().truncate(end);
        }
        let text = if memchr(b'\r', self.text.as_bytes()).is_some() {
            Cow::Owned(self.text.replace("\r\n", "\n").replace('\r', "\n"))
        } else {
            self.text
        };
        let text = match self.encoding {
            TextEncoding::None => text,
            TextEncoding::Base64 => Cow::Owned(base64(&text).unwrap_or_default()),
            TextEncoding::Binary if is_base64(&text) => Cow::Borrowed(""),
            TextEncoding::Binary => text,
        };
        let value = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        };
        FeedText { value, html: self.mode != TextMode::Plain }
    }
}

/// Where truncated HTML ends, without the tag or the reference that was cut.
fn end_of_markup(html: &str) -> usize {
    const REFERENCE_BYTES_MAX: usize = 32;
    let bytes = html.as_bytes();
    let tag = memrchr(b'<', bytes).filter(|at| memchr(b'>', &bytes[*at..]).is_none());
    let near = bytes.len().saturating_sub(REFERENCE_BYTES_MAX);
    let reference = memrchr(b'&', &bytes[near..]).map(|at| near + at);
    let reference = reference.filter(|at| memchr(b';', &bytes[*at..]).is_none());
    tag.or(reference).unwrap_or(bytes.len())
}

/// Whether XML 1.0 allows the character in a reference.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{7e}' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        || c > '\u{ffff}'
}

/// Whether the text is base64 (RFC 4648) with padding, and not words.
fn is_base64(text: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b);
    let lines = || text.lines().map(|line| line.trim().as_bytes());
    lines().flatten().all(|b| is_digit(*b)) && lines().map(<[u8]>::len).sum::<usize>().is_multiple_of(4)
}

/// Decodes base64 (RFC 4648) to text; skips whitespace and replaces invalid UTF-8.
fn base64(text: &str) -> Option<String> {
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for b in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(drop_forbidden(String::from_utf8_lossy(&bytes)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_html_has_no_half_tag_and_no_half_reference() {
        for (html, whole) in [
            ("a <b>c</b> <a hr", "a <b>c</b> "),
            ("a &lt; b &am", "a &lt; b "),
            ("a < b &amp; <i>c</i> d", "a < b &amp; <i>c</i> d"),
            (
                "AT&T, and a long text after it that has no reference",
                "AT&T, and a long text after it that has no reference",
            ),
        ] {
            assert_eq!(&html[..end_of_markup(html)], whole);
        }
    }

    #[test]
    fn base64_is_read_with_or_without_padding() {
        assert_eq!(base64("PHA+SGVs\n bG88L3A+").as_deref(), Some("<p>Hello</p>"));
        assert_eq!(base64("SGk=").as_deref(), Some("Hi"));
        assert_eq!(base64("SGk").as_deref(), Some("Hi"));
        assert_eq!(base64("not base64!"), None);
    }

    #[test]
    fn words_are_not_base64() {
        assert!(is_base64("PHA+SGVs\n  bG88L3A+\n") && is_base64("SGk="));
        assert!(!is_base64("Some more words.") && !is_base64("four words of text") && !is_base64("SGk"));
    }
}
