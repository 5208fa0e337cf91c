//! Untrusted text on its way to a log, a terminal or systemd: control characters are escaped.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character could forge a line or drive a terminal: C0, DEL, C1, line and paragraph separators, and the
/// bidirectional controls (Unicode Standard Annex 9).
#[must_use]
pub fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}')
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

/// Writes every dangerous character as an escape (`\n`, `\t`, `\r`, else `\u{…}`); text without any is borrowed.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push_escaped(&mut out, c);
    }
    Cow::Owned(out)
}

/// Appends one character as [`escaped`] would write it.
pub fn push_escaped(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_dangerous(c) => write!(out, "\\u{{{:x}}}", u32::from(c)).expect("a String takes every write"),
        c => out.push(c),
    }
}

/// The beginning of a text that a user wrote, long enough to recognise it: 80 characters, then an ellipsis.
#[must_use]
pub fn shortened(text: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 80;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_escaped() {
        let evil = "a\0\u{1b}[31m\nb\r\t\u{9b}\u{202e}\u{2028}\u{7f}é";
        assert_eq!(escaped(evil), "a\\u{0}\\u{1b}[31m\\nb\\r\\t\\u{9b}\\u{202e}\\u{2028}\\u{7f}é");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened(&"é".repeat(100)), format!("{}…", "é".repeat(80)));
        assert_eq!(shortened("é"), "é");
    }

    #[test]
    fn harmless_text_is_not_copied() {
        assert!(matches!(escaped("news: 5 «items» ✓"), Cow::Borrowed(_)));
    }
}
