//! Splits the folded text of a date into numbers, words and signs.

use super::{fold::is_letter, words};

/// A piece of a folded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DateToken {
    pub(super) kind: DateTokenKind,
    /// Where it is in the folded text, in bytes.
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DateTokenKind {
    /// A number and its count of digits.
    Number(i64, usize),
    Word,
    /// Any other sign; white space of any kind and length is one `' '`.
    Sign(char),
}

/// Longest word of Chinese, Japanese or Korean, in decomposed characters.
const CJK_WORD_MAX: usize = 9;

/// Splits a folded text. `None` if a number is too long, or a Chinese, Japanese or Korean word is unknown.
pub(super) fn split(text: &str) -> Option<Vec<DateToken>> {
    let mut tokens = Vec::with_capacity(24);
    let mut start = 0;
    while let Some(c) = text[start..].chars().next() {
        let rest = &text[start..];
        let run = |is_like: fn(char) -> bool| rest.find(|c| !is_like(c)).unwrap_or(rest.len());
        let (kind, len) = match c {
            '0'..='9' => {
                let digits = run(|c| c.is_ascii_digit());
                let value = rest[..digits.min(18)].parse().ok()?;
                (DateTokenKind::Number(value, digits), digits)
            }
            c if is_cjk(c) => (DateTokenKind::Word, cjk_word(rest)?),
            c if is_letter(c) => (DateTokenKind::Word, run(|c| is_letter(c) && !is_cjk(c))),
            c => (DateTokenKind::Sign(c), c.len_utf8()),
        };
        tokens.push(DateToken { kind, start, end: start + len });
        start += len;
    }
    Some(tokens)
}

/// Scripts that write no spaces between words: Han, kana and the letters that Hangul decomposes to.
fn is_cjk(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11ff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

/// The length in bytes of the longest known word that the text begins with.
fn cjk_word(text: &str) -> Option<usize> {
    let mut ends = [0; CJK_WORD_MAX];
    let mut count = 0;
    for ((at, c), end) in text.char_indices().take_while(|(_, c)| is_cjk(*c)).zip(&mut ends) {
        *end = at + c.len_utf8();
        count += 1;
    }
    ends[..count].iter().rev().copied().find(|end| words::meaning(&text[..*end]).is_some())
}
