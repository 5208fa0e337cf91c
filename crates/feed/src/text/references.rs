//! Character references of HTML, named and numeric.
//!
//! The rules are those of HTML, sections 13.2.5.72 to 13.2.5.80, also for text that is not HTML: XML has five names, but
//! publishers use all of them.

use std::borrow::Cow;

use memchr::memchr;
use web_atoms::{C1_REPLACEMENTS, NAMED_ENTITIES};

/// Longest name of a reference, in bytes, without `;`.
const NAME_BYTES_MAX: usize = 31;
/// Longest name that needs no `;`, in bytes.
const LEGACY_BYTES_MAX: usize = 6;

/// Where a reference is: the two differ in names without `;`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    /// `?a=1&copy=2` is not a copyright sign.
    Attribute,
}

/// The value of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// U+FFFD for a number that is not a character.
    Number(char),
    /// Some names stand for two characters.
    Name(char, Option<char>),
}

impl Reference {
    /// Its characters.
    pub(crate) fn chars(self) -> (char, Option<char>) {
        match self {
            Self::Number(c) => (c, None),
            Self::Name(first, second) => (first, second),
        }
    }
}

/// Replaces the references in text once. Any other `&` is kept.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    replace(text, Place::Text)
}

/// Replaces the references in the value of an attribute once. Any other `&` is kept.
pub(crate) fn unescape_attribute(value: &str) -> Cow<'_, str> {
    replace(value, Place::Attribute)
}

fn replace(text: &str, place: Place) -> Cow<'_, str> {
    let Some(first) = memchr(b'&', text.as_bytes()) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..first]);
    let mut rest = &text[first..];
    while let Some(at) = memchr(b'&', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match at_start(rest, place) {
            Some((reference, len)) => {
                let (first, second) = reference.chars();
                out.push(first);
                out.extend(second);
                rest = &rest[len..];
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The reference that the text after `&` begins with, and its length.
fn at_start(rest: &str, place: Place) -> Option<(Reference, usize)> {
    let bytes = rest.as_bytes();
    if bytes.first() == Some(&b'#') {
        return number(rest);
    }
    let is_name = |b: &&u8| b.is_ascii_alphanumeric();
    let run = bytes.iter().take(NAME_BYTES_MAX).take_while(is_name).count();
    if bytes.get(run) == Some(&b';')
        && let Some(found) = frequent(&rest[..run]).or_else(|| named(&rest[..=run]))
    {
        return Some((found, run + 1));
    }
    let legacy = |len: usize| Some((named(&rest[..len])?, len));
    let (found, len) = (2..=run.min(LEGACY_BYTES_MAX)).rev().find_map(legacy)?;
    let goes_on = bytes.get(len).is_some_and(|b| *b == b'=' || b.is_ascii_alphanumeric());
    (place == Place::Text || !goes_on).then_some((found, len))
}

/// The value of what is between `&` and `;` in XML.
pub(crate) fn reference(name: &str) -> Option<Reference> {
    if name.starts_with('#') {
        return number(name).filter(|(_, len)| *len == name.len()).map(|(found, _)| found);
    }
    frequent(name).or_else(|| {
        let mut buffer = [b';'; NAME_BYTES_MAX + 1];
        buffer.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        named(std::str::from_utf8(buffer.get(..=name.len())?).ok()?)
    })
}

/// Nearly all references are among these, and the table is long.
fn frequent(name: &str) -> Option<Reference> {
    let c = match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => '\u{a0}',
        _ => return None,
    };
    Some(Reference::Name(c, None))
}

/// Looks up a name as the table has it: with `;`, or without if it needs none.
fn named(name: &str) -> Option<Reference> {
    // The beginnings of names are in the table, too, with the value 0.
    let (first, second) = NAMED_ENTITIES.get(name).filter(|(first, _)| *first != 0)?;
    Some(Reference::Name(char::from_u32(*first)?, char::from_u32(*second).filter(|c| *c != '\0')))
}

/// A number after `&`, as `#233;` or `#xe9;`, and its length; the `;` may be missing.
fn number(rest: &str) -> Option<(Reference, usize)> {
    let digits = rest.strip_prefix('#')?;
    let (digits, radix) = match digits.strip_prefix(['x', 'X']) {
        Some(hexadecimal) => (hexadecimal, 16),
        None => (digits, 10),
    };
    let count = digits.bytes().take_while(|b| char::from(*b).is_digit(radix)).count();
    if count == 0 {
        return None;
    }
    let code = u32::from_str_radix(&digits[..count], radix).unwrap_or(u32::MAX);
    let c = char::from_u32(code).filter(|c| *c != '\0').unwrap_or(char::REPLACEMENT_CHARACTER);
    let len = rest.len() - digits.len() + count;
    let len = len + usize::from(digits.as_bytes().get(count) == Some(&b';'));
    Some((Reference::Number(windows_1252(c).unwrap_or(c)), len))
}

/// The character that a C1 control stands for: publishers who write them mean bytes of windows-1252, as HTML does.
pub(crate) fn windows_1252(c: char) -> Option<char> {
    match c {
        '\u{80}'..='\u{9f}' => C1_REPLACEMENTS[c as usize - 0x80],
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of HTML and their characters, as Python's `html.entities` has them.
    const NAMES: &str = include_str!("../../tests/entities.tsv");

    fn names() -> impl Iterator<Item = (&'static str, String)> {
        NAMES.lines().map(|line| {
            let (name, codes) = line.split_once('\t').unwrap();
            let chars =
                codes.split(' ').map(|c| char::from_u32(u32::from_str_radix(c, 16).unwrap()).unwrap());
            (name, chars.collect())
        })
    }

    #[test]
    fn every_name_of_html_has_its_characters() {
        assert_eq!(names().count(), 2231);
        for (name, chars) in names() {
            let text = |after: &str| unescape(&format!("a&{name}{after}")).into_owned();
            assert_eq!(text(""), format!("a{chars}"), "{name}");
            assert_eq!(text(" b"), format!("a{chars} b"), "{name}");
            let attribute = unescape_attribute(&format!("a&{name} b")).into_owned();
            assert_eq!(attribute, format!("a{chars} b"), "{name}");
            if let Some(bare) = name.strip_suffix(';') {
                let (first, second) = reference(bare).unwrap().chars();
                assert_eq!(chars, String::from_iter([Some(first), second].iter().flatten()), "{name}");
            }
        }
    }

    #[test]
    fn names_without_semicolon_are_those_of_html_and_no_others() {
        let legacy: Vec<_> = names().filter(|(name, _)| !name.ends_with(';')).collect();
        assert_eq!(legacy.len(), 106);
        assert_eq!(legacy.iter().map(|(name, _)| name.len()).max(), Some(LEGACY_BYTES_MAX));
        assert_eq!(names().map(|(name, _)| name.trim_end_matches(';').len()).max(), Some(NAME_BYTES_MAX));
        for (name, chars) in &legacy {
            // No name goes on with these.
            for after in ["1", "Q"] {
                assert_eq!(unescape(&format!("&{name}{after}")), format!("{chars}{after}"));
                let sent = format!("?x&{name}{after}");
                assert_eq!(unescape_attribute(&sent), sent);
            }
            let sent = format!("?x&{name}=3");
            assert_eq!(unescape_attribute(&sent), sent);
        }
        for (name, _) in names().filter(|(name, _)| name.ends_with(';')) {
            let bare = name.trim_end_matches(';');
            if !legacy.iter().any(|(legacy, _)| bare.starts_with(legacy)) {
                assert_eq!(unescape(&format!("&{bare} ")), format!("&{bare} "));
            }
        }
    }

    #[test]
    fn the_longest_name_wins() {
        assert_eq!(unescape("&notin; &notit; &not &noti"), "∉ ¬it; ¬ ¬i");
        assert_eq!(unescape_attribute("&notin; &notit; &not &noti"), "∉ &notit; ¬ &noti");
    }

    #[test]
    fn a_reference_that_is_no_name_stays_as_written() {
        for text in
            ["AT&T", "a & b", "&", "&;", "&#;", "&#x;", "&#xg;", "&nosuch;", "&é;", "&a&b;", "&Lt", "&ALPHA;"]
        {
            assert_eq!(unescape(text), text);
            assert_eq!(unescape_attribute(text), text);
        }
        assert!(reference("").is_none() && reference("#").is_none() && reference("#12x").is_none());
        assert!(reference("am").is_none() && reference(&"a".repeat(100)).is_none());
    }

    #[test]
    fn references_are_replaced_once() {
        assert_eq!(unescape("a &amp;lt; &#60;b&#x3e; &eacute;&nbsp;&hellip;"), "a &lt; <b> é\u{a0}…");
        assert_eq!(unescape(&"&".repeat(100_000)).len(), 100_000);
    }

    #[test]
    fn numbers_are_characters_with_or_without_semicolon() {
        assert_eq!(unescape("&#8217;s &#8217s &#x2019 &#X2019;"), "’s ’s ’ ’");
        assert_eq!(unescape("&#0;&#xd800;&#x110000;&#99999999999;"), "\u{fffd}".repeat(4));
        assert_eq!(unescape(&format!("&#{}65;", "0".repeat(100_000))), "A");
    }

    #[test]
    fn c1_numbers_are_windows_1252() {
        for byte in 0x80..=0x9f_u8 {
            // It has no characters for five bytes.
            let bytes = [byte];
            let theirs = encoding_rs::WINDOWS_1252.decode_without_bom_handling(&bytes).0;
            assert_eq!(unescape(&format!("&#{byte};")), theirs, "{byte:x}");
        }
    }
}
