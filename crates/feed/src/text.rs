//! Plain text: allowed characters, folding of whitespace, truncation, character references.

mod references;

pub(crate) use references::{Reference, reference, unescape, unescape_attribute, windows_1252};

use std::borrow::Cow;

/// Characters that are removed from all text, because they control terminals, reorder lines or are noncharacters:
/// controls, bidirectional controls, the byte order mark, interlinear marks, noncharacters.
pub(crate) fn is_forbidden(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fdd0}'..='\u{fdef}')
        || u32::from(c) & 0xfffe == 0xfffe
}

/// Text without characters that control terminals or reorder lines, and without noncharacters. What separates lines or words becomes a space, so that none grow together, and C1
/// controls become the characters of windows-1252 that they stand for.
#[must_use]
pub fn drop_forbidden(text: Cow<'_, str>) -> Cow<'_, str> {
    if !has_forbidden(&text) {
        return text;
    }
    let allowed = |c: char| match c {
        c if !is_forbidden(c) => Some(c),
        c => windows_1252(c).or(c.is_whitespace().then_some(' ')),
    };
    Cow::Owned(text.replace("\r\n", "\n").chars().filter_map(allowed).collect())
}

fn has_forbidden(text: &str) -> bool {
    // A byte that one begins with begins a character wherever it stands.
    let bytes = text.as_bytes();
    let is_forbidden_at =
        |at: usize| MAY_BEGIN[usize::from(bytes[at])] && text[at..].starts_with(is_forbidden);
    let (blocks, _) = bytes.as_chunks::<{ 2 * BLOCK_BYTES }>();
    // Whole blocks first, without early exit, so that the compiler can vectorise the loop.
    let may_have = |block: &[u8]| block.iter().fold(false, |found, b| found | may_begin_forbidden(*b));
    let bytes_of = |n: usize| n * 2 * BLOCK_BYTES..(n + 1) * 2 * BLOCK_BYTES;
    blocks.iter().enumerate().any(|(n, block)| may_have(block) && bytes_of(n).any(is_forbidden_at))
        || (blocks.len() * 2 * BLOCK_BYTES..bytes.len()).any(is_forbidden_at)
}

/// Whether a character that [`is_forbidden`] may begin with this byte in UTF-8. Most blocks of text have no such byte.
const fn may_begin_forbidden(b: u8) -> bool {
    // Without a branch.
    ((b < 0x20) & (b != b'\n') & (b != b'\t'))
        | (b == 0x7f)
        | (b == 0xc2)
        | (b == 0xd8)
        | (b == 0xe2)
        | (b == 0xef)
        | (b >= 0xf0)
}

/// [`may_begin_forbidden`] of each byte: for one byte, a table is faster.
const MAY_BEGIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "it is below 256")]
        let byte = b as u8;
        table[b] = may_begin_forbidden(byte);
        b += 1;
    }
    table
};

/// Folds every run of whitespace to one space, drops what [`is_forbidden`], trims, and truncates to `bytes_max`.
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
        let mut rest = text;
        while !self.full {
            let (words, after) = rest.split_at(plain_words(rest.as_bytes()));
            self.push_words(words);
            let mut chars = after.chars();
            let Some(c) = chars.next() else { return };
            self.push(c);
            rest = chars.as_str();
        }
    }

    /// Appends words found by [`plain_words`], as far as they fit.
    fn push_words(&mut self, words: &str) {
        let space = usize::from(self.space && !self.text.is_empty());
        let room = self.bytes_max.saturating_sub(self.text.len() + space);
        self.full |= words.len() > room;
        let words = words[..words.len().min(room)].trim_end_matches(' ');
        if !words.is_empty() {
            self.text.push_str(if space > 0 { " " } else { "" });
            self.text.push_str(words);
            self.space = false;
        }
    }

    pub(crate) fn push(&mut self, c: char) {
        let c = windows_1252(c).unwrap_or(c);
        if c.is_whitespace() {
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

/// Whether [`fold`] would certainly change nothing; a cheap check.
pub(crate) fn is_folded(text: &str) -> bool {
    plain_words(text.as_bytes()) == text.len()
}

/// The length of the prefix that is already folded: words of visible ASCII with single spaces.
fn plain_words(bytes: &[u8]) -> usize {
    let is_plain = |last: u8, b: u8| (b.wrapping_sub(0x20) < 0x5f) & ((b != b' ') | (last != b' '));
    let first = usize::from(bytes.first().is_some_and(u8::is_ascii_graphic));
    let mut end = first;
    // Whole blocks first, without early exit, so that the compiler can vectorise the loop.
    while let Some(block) = bytes.get(end.wrapping_sub(1)..end + BLOCK_BYTES) {
        let pairs = block[..BLOCK_BYTES].iter().zip(&block[1..]);
        if !pairs.fold(true, |plain, (last, b)| plain & is_plain(*last, *b)) {
            break;
        }
        end += BLOCK_BYTES;
    }
    while end > 0 && end < bytes.len() && is_plain(bytes[end - 1], bytes[end]) {
        end += 1;
    }
    end - usize::from(end > 0 && bytes[end - 1] == b' ')
}

/// Block size of the check, in bytes.
const BLOCK_BYTES: usize = 32;

/// The longest prefix of at most `bytes_max` bytes that ends between characters.
pub(crate) fn truncate(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Appends text with the special characters of XML and HTML escaped.
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

/// Escapes text for XML and HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_characters_are_dropped_everywhere() {
        let forbidden = ('\0'..=char::MAX).filter(|c| is_forbidden(*c));
        for (n, c) in forbidden.enumerate() {
            let text = format!("{}{c}é…", "x".repeat(n % 150));
            let instead = match windows_1252(c) {
                Some(c) => c.to_string(),
                None if c.is_whitespace() => " ".to_owned(),
                None => String::new(),
            };
            assert_eq!(drop_forbidden(text.as_str().into()), text.replace(c, &instead), "{:?}", c);
            assert_eq!(fold(&text, 1_000), fold(&text.replace(c, &instead), 1_000), "{:?}", c);
        }
        assert!(matches!(drop_forbidden("a\n\té… 😀".into()), Cow::Borrowed(_)));
        let lines = "a\u{2028}b\u{2029}c\u{b}d\u{c}e\rf\r\ng\u{feff}h";
        assert_eq!(drop_forbidden(lines.into()), "a b c d e f\ngh");
    }

    #[test]
    fn c1_controls_are_the_characters_of_windows_1252() {
        let sent = "don\u{92}t \u{93}quoted\u{94} \u{96} \u{80}5\u{85} \u{81}";
        assert_eq!(fold(sent, 100), "don’t “quoted” – €5…");
        assert_eq!(drop_forbidden(sent.into()), "don’t “quoted” – €5… ");
    }

    #[test]
    fn folding_words_together_or_one_by_one_is_the_same() {
        let words = "ab  c d\u{a0}e fgh ijklmnopqrstuvwxyz0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ \t- é x ";
        for start in 0..words.len() {
            for max in 0..words.len() {
                let Some(text) = words.get(start..) else { continue };
                let mut one_by_one = Folded::new(max);
                text.chars().for_each(|c| one_by_one.push(c));
                assert_eq!(fold(text, max), one_by_one.finish(), "{text:?} {max}");
            }
        }
    }

    #[test]
    fn folding_leaves_one_clean_line() {
        assert_eq!(fold("  a\r\n\t b\u{a0}\u{2028}c\0\u{1b}[0m\u{202e}d\u{b}e ", 100), "a b c[0md e");
    }

    #[test]
    fn text_is_truncated_between_characters_and_within_the_limit() {
        for max in 0..10 {
            let cut = fold("éé éé", max);
            assert!(cut.len() <= max && "éé éé".starts_with(&cut), "{max}: {cut}");
        }
        assert_eq!(truncate("éé", 3), "é");
    }
}
