//! Untrusted text on its way to a log or a terminal.

use std::fmt::{self, Write as _};

/// Escapes text from a feed or a client, so that it can neither forge a log line nor control a terminal.
///
/// Control characters (C0, DEL, C1), line and paragraph separators, bidirectional controls and the backslash are
/// written as `\u{…}`; the text is cut at [`Escaped::CHARS_MAX`] characters with an ellipsis.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl Escaped<'_> {
    /// Longest text shown, in characters.
    pub const CHARS_MAX: usize = 200;
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, c) in self.0.chars().enumerate() {
            if n == Self::CHARS_MAX {
                return f.write_char('…');
            }
            if c == '\\' || notation::is_dangerous(c) {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_of_a_terminal_passes() {
        let evil = "a\0\u{1b}[31mred\nnext\r\u{9b}x\u{202e}y\u{2028}\\";
        let shown = Escaped(evil).to_string();
        assert_eq!(shown, "a\\u{0}\\u{1b}[31mred\\u{a}next\\u{d}\\u{9b}x\\u{202e}y\\u{2028}\\u{5c}");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(Escaped(&"é".repeat(500)).to_string().chars().count(), Escaped::CHARS_MAX + 1);
    }
}
