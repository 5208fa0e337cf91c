//! Plain text: what may stand in it, how whitespace is folded, how it is cut, how references become characters.

use std::borrow::Cow;

use quick_xml::escape::resolve_html5_entity;

/// Longest name of an entity, in bytes; the table's longest is 31.
const ENTITY_BYTES_MAX: usize = 32;

/// Characters that no text of ours contains, since they drive terminals, reorder lines or are no characters:
/// controls, bidirectional controls, the byte order mark, interlinear marks, noncharacters.
pub(crate) fn is_forbidden(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fdd0}'..='\u{fdef}')
        || u32::from(c) & 0xfffe == 0xfffe
}

/// Folds every run of whitespace to one space, drops what [`is_forbidden`], trims, cuts at `bytes_max`.
pub(crate) fn fold(text: &str, bytes_max: usize) -> String {
    let mut folded = Folded::new(bytes_max);
    folded.push_str(text);
    folded.finish()
}

/// One line of plain text under construction.
pub(crate) struct Folded {
    text: String,
    space: bool,
    full: bool,
    bytes_max: usize,
}

impl Folded {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { text: String::new(), space: false, full: false, bytes_max }
    }

    pub(crate) fn push_str(&mut self, text: &str) {
        for c in text.chars() {
            self.push(c);
        }
    }

    pub(crate) fn push(&mut self, c: char) {
        if c.is_whitespace() || c == '\u{85}' {
            self.space = true;
        } else if !is_forbidden(c) && !self.full {
            let space = self.space && !self.text.is_empty();
            if self.text.len() + usize::from(space) + c.len_utf8() > self.bytes_max {
                self.full = true;
                return;
            }
            if space {
                self.text.push(' ');
            }
            self.space = false;
            self.text.push(c);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// The part of a text that fits, cut between characters.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Replaces the references of HTML (named, decimal, hexadecimal; closed by `;`) once. Anything else that begins
/// with `&` stays as it is.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find('&') else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..first]);
    let mut rest = &text[first..];
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(ENTITY_BYTES_MAX + 2).position(|b| b == b';');
        match end.and_then(|end| Some((end, reference(&rest[1..end])?))) {
            Some((end, Reference::Char(c))) => {
                out.push(c);
                rest = &rest[end + 1..];
            }
            Some((end, Reference::Named(s))) => {
                out.push_str(s);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// What a reference stands for.
pub(crate) enum Reference {
    Char(char),
    Named(&'static str),
}

/// What stands between `&` and `;`, looked up. U+FFFD for numbers that are no characters.
pub(crate) fn reference(name: &str) -> Option<Reference> {
    let Some(number) = name.strip_prefix('#') else {
        return if name.len() <= ENTITY_BYTES_MAX {
            resolve_html5_entity(name).map(Reference::Named)
        } else {
            None
        };
    };
    let (digits, radix) = match number.strip_prefix(['x', 'X']) {
        Some(hexadecimal) => (hexadecimal, 16),
        None => (number, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let code = u32::from_str_radix(digits, radix).unwrap_or(u32::MAX);
    let c = match code {
        0x80..=0x9f => windows_1252(code as u8),
        _ => char::from_u32(code).filter(|c| *c != '\0'),
    };
    Some(Reference::Char(c.unwrap_or(char::REPLACEMENT_CHARACTER)))
}

/// Publishers write these numbers and mean the Windows code page, as HTML has it.
fn windows_1252(byte: u8) -> Option<char> {
    encoding_rs::WINDOWS_1252.decode_without_bom_handling(&[byte]).0.chars().next()
}

/// Appends text with the characters that mean something in XML and HTML replaced.
pub(crate) fn escape_into(out: &mut String, text: &str) {
    let mut from = 0;
    for (n, b) in text.bytes().enumerate() {
        let escaped = match b {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            _ => continue,
        };
        out.push_str(&text[from..n]);
        out.push_str(escaped);
        from = n + 1;
    }
    out.push_str(&text[from..]);
}

/// Text as HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_once() {
        assert_eq!(unescape("a &amp;lt; &#60;b&#x3e; &eacute;&nbsp;&hellip;"), "a &lt; <b> é\u{a0}…");
        assert_eq!(
            unescape("?a=1&b=2&copy=3; AT&T &; &#; &#x; &nosuch;"),
            "?a=1&b=2&copy=3; AT&T &; &#; &#x; &nosuch;"
        );
        assert_eq!(unescape("&#146;&#0;&#xd800;&#99999999999;"), "’\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(unescape(&"&".repeat(100_000)).len(), 100_000);
    }

    #[test]
    fn folding_leaves_one_clean_line() {
        assert_eq!(fold("  a\r\n\t b\u{a0}\u{2028}c\0\u{1b}[0m\u{202e}d\u{85}e ", 100), "a b c[0md e");
    }

    #[test]
    fn a_cut_falls_between_characters_and_never_past_the_bound() {
        for max in 0..10 {
            let cut = fold("éé éé", max);
            assert!(cut.len() <= max && "éé éé".starts_with(&cut), "{max}: {cut}");
        }
        assert_eq!(cut("éé", 3), "é");
    }
}
