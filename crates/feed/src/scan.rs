//! Limits of XML, checked in one linear pass before parsing.
//!
//! Checks elements, attributes, namespace declarations and the DOCTYPE against their limits, removes control characters,
//! escapes each `<` that does not begin markup, and finds the elements that are never closed. Depth is checked in
//! [`crate::normalise`], where elements are balanced, also before parsing. Never here: recursion, or a second pass over
//! the same bytes.

use std::borrow::Cow;

use memchr::{memchr, memchr2_iter, memmem};

use crate::{
    error::FeedError,
    limits::{ATTRIBUTES_MAX, DEPTH_MAX, DOCTYPE_BYTES_MAX, ELEMENTS_MAX, NAMESPACES_MAX, WARNINGS_MAX},
    text::windows_1252,
};

const CDATA: &str = "<![CDATA[";
/// What a parser of HTML makes of it (HTML section 13.2.5.42), with its `]]` before the end of the comment.
const CDATA_IN_COMMENT: &str = "<!--[CDATA[";
/// How many open elements are always searched for the start tag of an end tag.
const OPEN_SEARCHED_MIN: usize = 2 * DEPTH_MAX;
/// How many are searched in vain in a document; after that only the innermost are, and what is between a start tag further
/// out and its end tag counts as closed. Those that are found are no longer open, and cost nothing more.
const SEARCHED_IN_VAIN_MAX: usize = 8_000_000;

/// Text within the limits, with repairs.
#[derive(Debug)]
pub(crate) struct Scanned<'a> {
    pub(crate) text: Cow<'a, str>,
    /// The repairs, with offsets into `text`; at most [`WARNINGS_MAX`].
    pub(crate) repairs: Vec<(usize, String)>,
    /// The offsets into `text` of start tags without an end tag, ascending.
    pub(crate) unclosed: Vec<usize>,
}

/// Checks the limits of XML text and repairs it.
pub(crate) fn scan(text: &str) -> Result<Scanned<'_>, FeedError> {
    let before = text;
    let text = drop_control_characters(text);
    let mut scanner = Scanner {
        text: &text,
        elements: 0,
        repaired: String::new(),
        copied: 0,
        repairs: Vec::new(),
        open: Vec::new(),
        search_left: SEARCHED_IN_VAIN_MAX,
        is_endless: [false; 2],
        unclosed: Vec::new(),
    };
    if let Cow::Owned(clean) = &text {
        let first = before.bytes().zip(clean.bytes()).position(|(a, b)| a != b).unwrap_or(clean.len());
        scanner.repairs.push((first, "control characters were removed or replaced".to_owned()));
    }
    scanner.run()?;
    let Scanner { mut repaired, copied, repairs, open, mut unclosed, .. } = scanner;
    unclosed.extend(open.iter().map(|(_, offset)| *offset));
    unclosed.sort_unstable();
    if copied == 0 {
        return Ok(Scanned { text, repairs, unclosed });
    }
    repaired.push_str(&text[copied..]);
    Ok(Scanned { text: Cow::Owned(repaired), repairs, unclosed })
}

/// The line of a byte offset, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> u32 {
    let lines = text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count();
    u32::try_from(lines + 1).unwrap_or(u32::MAX)
}

/// Block size of the search for control characters, in bytes.
const BLOCK_BYTES: usize = 256;

/// Removes characters that XML 1.0 does not allow (section 2.2), and replaces C1 controls by the characters of windows-1252
/// that they stand for.
fn drop_control_characters(text: &str) -> Cow<'_, str> {
    let bad_byte = |b: u8| (b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r')) || b == 0x7f;
    let bad = |c: char| {
        (u32::from(c) < 0x80 && bad_byte(c as u8)) || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{feff}')
    };
    let bytes = text.as_bytes();
    // No early exit within a block, so that the compiler can vectorise the loop.
    let has_control = |block: &[u8]| block.iter().fold(false, |found, b| found | bad_byte(*b));
    let is_bad = |at: usize| {
        matches!(
            bytes[at..],
            [0xc2, 0x80..=0x9f, ..] | [0xef, 0xbb, 0xbf, ..] | [0xef, 0xbf, 0xbe | 0xbf, ..]
        )
    };
    if bytes.chunks(BLOCK_BYTES).any(has_control) || memchr2_iter(0xc2, 0xef, bytes).any(is_bad) {
        Cow::Owned(text.chars().filter(|c| !bad(*c)).map(|c| windows_1252(c).unwrap_or(c)).collect())
    } else {
        Cow::Borrowed(text)
    }
}

struct Scanner<'a> {
    text: &'a str,
    elements: usize,
    /// The repaired text so far; empty until the first repair.
    repaired: String,
    /// The offset up to which `text` has been copied to `repaired`.
    copied: usize,
    repairs: Vec<(usize, String)>,
    /// The names of open elements and the offsets of their tags in the repaired text, the innermost last.
    open: Vec<(&'a str, usize)>,
    /// How many of them may still be searched in vain.
    search_left: usize,
    /// No comment, or CDATA section, has an end from here on.
    is_endless: [bool; 2],
    /// The same offsets of elements that an end tag of an outer one has ended.
    unclosed: Vec<usize>,
}

impl<'a> Scanner<'a> {
    fn run(&mut self) -> Result<(), FeedError> {
        let text = self.text;
        let mut at = 0;
        while let Some(found) = memchr(b'<', &text.as_bytes()[at..]) {
            let start = at + found;
            let rest = &text[start..];
            at = if is_tag(rest) {
                let at_output = self.repaired.len() + start - self.copied;
                let end = self.tag(start)?;
                if self.is_link_before_address(start, end) {
                    self.repair(end - 2, "", "an empty <link/> before an address was read as its start tag");
                    self.open.push(("link", at_output));
                } else {
                    self.balance(start, end, at_output);
                }
                end
            } else if rest.starts_with(CDATA_IN_COMMENT) {
                self.cdata_in_comment(start)
            } else if rest.starts_with("<!--") {
                self.past_or_text(start, 4, "-->")
            } else if rest.starts_with(CDATA) {
                self.past_or_text(start, CDATA.len(), "]]>")
            } else if rest.starts_with("<?") {
                past(text, start + 2, "?>")
            } else if rest.get(..9).is_some_and(|r| r.eq_ignore_ascii_case("<!DOCTYPE")) {
                self.doctype(start)?
            } else {
                self.repair(start, "&lt;", "\"<\" that does not begin a tag was read as text");
                start + 1
            };
        }
        Ok(())
    }

    /// The offset after a comment or a CDATA section. What never ends would hide the rest of the document: its beginning is
    /// removed, and the rest is read.
    fn past_or_text(&mut self, start: usize, len: usize, end: &'static str) -> usize {
        let from = start + len;
        let is_endless = &mut self.is_endless[usize::from(end == "-->")];
        if !*is_endless && let Some(at) = memmem::find(&self.text.as_bytes()[from..], end.as_bytes()) {
            return from + at + end.len();
        }
        // There is none after this one, either.
        *is_endless = true;
        self.repair(start, "", "a comment or CDATA section without an end was removed");
        self.copied = from;
        from
    }

    /// Reads the comment as the CDATA section that it was. Returns the offset after it.
    fn cdata_in_comment(&mut self, start: usize) -> usize {
        let from = start + CDATA_IN_COMMENT.len();
        let end = memmem::find(&self.text.as_bytes()[from..], b"-->").map(|at| from + at);
        let Some(end) = end.filter(|end| self.text[from..*end].ends_with("]]")) else {
            return self.past_or_text(start, 4, "-->");
        };
        self.repair(start, CDATA, "a CDATA section that had become a comment was read");
        self.repaired.push_str(&self.text[from..end]);
        self.repaired.push('>');
        self.copied = end + "-->".len();
        self.copied
    }

    /// Replaces the byte at `at`.
    fn repair(&mut self, at: usize, with: &str, why: &str) {
        self.repaired.push_str(&self.text[self.copied..at]);
        if self.repairs.len() < WARNINGS_MAX {
            self.repairs.push((self.repaired.len(), why.to_owned()));
        }
        self.repaired.push_str(with);
        self.copied = at + 1;
    }

    fn doctype(&self, start: usize) -> Result<usize, FeedError> {
        let (mut quote, mut open) = (None, 1_i32);
        for (n, b) in self.text.as_bytes()[start + 9..].iter().enumerate() {
            if n > DOCTYPE_BYTES_MAX {
                return Err(self.refuse("bytes of DOCTYPE", DOCTYPE_BYTES_MAX, start));
            }
            match (quote, b) {
                (Some(q), b) if q == *b => quote = None,
                (None, b'"' | b'\'') => quote = Some(*b),
                (None, b'<') => open += 1,
                (None, b'>') => open -= 1,
                _ => {}
            }
            if open == 0 {
                return Ok(start + 9 + n + 1);
            }
        }
        Ok(self.text.len())
    }

    /// Checks one tag; returns the offset after it, or the end of the text if it is not closed.
    fn tag(&mut self, start: usize) -> Result<usize, FeedError> {
        self.elements += usize::from(!self.text[start..].starts_with("</"));
        if self.elements > ELEMENTS_MAX {
            return Err(self.refuse("elements", ELEMENTS_MAX, start));
        }
        let bytes = &self.text.as_bytes()[start..];
        let (mut attributes, mut namespaces, mut word, mut n) = (0, 0, 0, 1);
        while let Some(b) = bytes.get(n) {
            match b {
                b'"' | b'\'' => {
                    let rest = &bytes[n + 1..];
                    let quoted = &rest[..memchr(*b, rest).unwrap_or(rest.len())];
                    if let Some(end) = memchr(b'>', quoted)
                        && memchr(b'<', &quoted[end..]).is_some()
                    {
                        // A quote that continues into the next tag is unclosed: it is removed, and the tag ends at
                        // its first `>`.
                        self.repair(start + n, "", "an unclosed quote was removed");
                        return Ok(start + n + 1 + end + 1);
                    }
                    n += quoted.len() + 1;
                }
                b'>' => return Ok(start + n + 1),
                b'=' => {
                    attributes += 1;
                    namespaces += usize::from(bytes[word..n].starts_with(b"xmlns"));
                }
                b' ' | b'\t' | b'\n' | b'\r' => word = n + 1,
                _ => {}
            }
            n += 1;
            if attributes > ATTRIBUTES_MAX {
                return Err(self.refuse("attributes on one element", ATTRIBUTES_MAX, start));
            }
            if namespaces > NAMESPACES_MAX {
                return Err(self.refuse("namespace declarations", NAMESPACES_MAX, start));
            }
        }
        Ok(self.text.len())
    }

    /// Whether a tag is the `<link/>` that a serialiser of HTML, where the element is void, has made of `<link>`.
    fn is_link_before_address(&self, start: usize, end: usize) -> bool {
        let name = self.text[start + 1..end].strip_suffix("/>");
        let address = self.text[end..].trim_start();
        name.is_some_and(|name| name.trim_end().eq_ignore_ascii_case("link"))
            && (address.starts_with("http://") || address.starts_with("https://"))
    }

    /// Notes the element that the tag in `start..end` begins, or those that it ends.
    fn balance(&mut self, start: usize, end: usize, at_output: usize) {
        let text = self.text;
        let tag = text[start + 1..end].strip_suffix('>').unwrap_or(&text[start + 1..end]);
        let (closes, tag) = tag.strip_prefix('/').map_or((false, tag), |rest| (true, rest));
        let name_end = tag.bytes().position(|b| b.is_ascii_whitespace() || b == b'/').unwrap_or(tag.len());
        let name = &tag[..name_end];
        if closes && self.open.last().is_some_and(|(open, _)| *open == name) {
            self.open.pop();
        } else if closes {
            let all = self.open.len();
            let searched = if all <= self.search_left { 0 } else { all.saturating_sub(OPEN_SEARCHED_MIN) };
            let is_start = |(open, _): &(&str, usize)| open.eq_ignore_ascii_case(name);
            if let Some(level) = self.open[searched..].iter().rposition(is_start) {
                let inner = self.open.drain(searched + level..).skip(1);
                self.unclosed.extend(inner.map(|(_, offset)| offset));
            } else {
                self.search_left = self.search_left.saturating_sub(all - searched);
            }
        } else if !tag.ends_with('/') && !is_break(name) {
            self.open.push((name, at_output));
        }
    }

    fn refuse(&self, what: &'static str, max: usize, offset: usize) -> FeedError {
        FeedError::TooComplex { what, max, line: line_of(self.text, offset) }
    }
}

/// Whether the element is one of HTML that never contains anything. Its end tag says nothing: `</br>` is another break
/// (HTML section 13.2.6.4.7).
pub(crate) fn is_break(name: &str) -> bool {
    name.len() <= 3 && ["br", "hr", "wbr"].iter().any(|v| v.eq_ignore_ascii_case(name))
}

/// The offset after `end`, or the end of the text if it is missing.
fn past(text: &str, from: usize, end: &str) -> usize {
    let rest = text.as_bytes().get(from..).unwrap_or_default();
    memmem::find(rest, end.as_bytes()).map_or(text.len(), |n| from + n + end.len())
}

/// Whether a tag begins here: `<name` or `</name`.
fn is_tag(rest: &str) -> bool {
    let name = rest[1..].strip_prefix('/').unwrap_or(&rest[1..]);
    name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '_' | ':') || c > '\u{7f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(text: &str) -> String {
        scan(text).unwrap().text.into_owned()
    }

    #[test]
    fn valid_text_is_unchanged() {
        let text =
            "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b \">\">]><a x='<'><![CDATA[1 < 2]]><!-- < --></a>";
        assert!(matches!(scan(text), Ok(Scanned { text: Cow::Borrowed(t), .. }) if t == text));
    }

    #[test]
    fn elements_without_end_tag_are_found_wherever_they_are() {
        let unclosed = |text: &str| {
            let scanned = scan(text).unwrap();
            let rest = |at: &usize| scanned.text[*at..].chars().take(4).collect::<String>();
            scanned.unclosed.iter().map(rest).collect::<Vec<_>>()
        };
        assert_eq!(unclosed("<a><b/><c x='/'></c><d y=\">\"></D ></a>"), [""; 0]);
        assert_eq!(unclosed("<a><b><c>x</c></a>"), ["<b><"]);
        assert_eq!(unclosed("<a><b><b></b><x:c d='e'><f></a>"), ["<b><", "<x:c", "<f><"]);
        assert_eq!(unclosed("<a>1 < 2 <b><![CDATA[</b>]]><!-- </b> --></a>"), ["<b><"]);
        assert_eq!(unclosed("<a><b></c></b>"), ["<a><"]);
        assert_eq!(unclosed("<a><img><b></b><img><c/></img></a>"), ["<img"]);
        assert_eq!(unclosed("<a><br><b>x</br></b></a>"), [""; 0]);
    }

    #[test]
    fn a_bare_less_than_sign_becomes_text() {
        assert_eq!(repaired("<a>1 < 2 <3 <! x <b/></a>"), "<a>1 &lt; 2 &lt;3 &lt;! x <b/></a>");
        assert_eq!(repaired("<a>x<"), "<a>x&lt;");
    }

    #[test]
    fn a_comment_or_cdata_section_without_an_end_hides_nothing() {
        assert_eq!(repaired("<a><!-- b --><!-- c <d/></a>"), "<a><!-- b --> c <d/></a>");
        assert_eq!(repaired("<a><![CDATA[b]]></a><a><![CDATA[c</a><!--d"), "<a><![CDATA[b]]></a><a>c</a>d");
    }

    #[test]
    fn a_cdata_section_that_became_a_comment_is_read() {
        assert_eq!(
            repaired("<a><!--[CDATA[<b>]]--><!--[CDATA[c--></a>"),
            "<a><![CDATA[<b>]]><!--[CDATA[c--></a>"
        );
        assert_eq!(repaired("<a><!--[CDATA[b]]-->c < d</a>"), "<a><![CDATA[b]]>c &lt; d</a>");
    }

    #[test]
    fn an_unclosed_quote_loses_one_tag() {
        assert_eq!(repaired("<a><b c=\"d e=\"f\"/><g>h</g></a>"), "<a><b c=\"d e=\"f/><g>h</g></a>");
        assert_eq!(repaired("<a><b c='d'e'>x</b></a>"), "<a><b c='d'e>x</b></a>");
        assert_eq!(repaired("<a b='c > d'><e/></a>"), "<a b='c > d'><e/></a>");
    }

    #[test]
    fn control_characters_are_dropped() {
        assert_eq!(repaired("<a>\0x\u{b}\u{1b}[31m\ty\u{feff}\u{ffff}</a>"), "<a>x[31m\ty</a>");
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        let attributes =
            |n: usize| format!("<a {}/>", (0..n).map(|i| format!("a{i}=''")).collect::<Vec<_>>().join(" "));
        assert!(scan(&attributes(256)).is_ok());
        assert_eq!(scan(&attributes(257)).unwrap_err().class().as_str(), "too-complex");
        let namespaces = |n: usize| {
            format!("<a {}/>", (0..n).map(|i| format!("xmlns:a{i}='u'")).collect::<Vec<_>>().join(" "))
        };
        assert!(scan(&namespaces(64)).is_ok());
        assert_eq!(scan(&namespaces(65)).unwrap_err().class().as_str(), "too-complex");
        let doctype = |n: usize| format!("<!DOCTYPE a [{}]><a/>", " ".repeat(n));
        assert!(scan(&doctype(8000)).is_ok());
        assert_eq!(scan(&doctype(9000)).unwrap_err().class().as_str(), "too-complex");
    }

    #[test]
    fn an_unclosed_quote_ends_the_scan_and_not_the_process() {
        assert!(scan("<a b=\"<c/><c/><c/>").is_ok());
        assert!(scan("<!DOCTYPE a [").is_ok());
    }
}
