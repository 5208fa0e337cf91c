//! Plain text with lines as HTML.

use memchr::memchr2;

use super::sanitise::HtmlRepairs;
use crate::{
    limits::CONTENT_BYTES_MAX,
    text::{escape_into, fold},
};

/// Whether the text has more than one line.
pub(crate) fn has_lines(text: &str) -> bool {
    memchr2(b'\n', b'\r', text.trim().as_bytes()).is_some()
}

/// Plain text as HTML: an empty line separates paragraphs, the others are separated by `<br>`. `None` if it is empty.
pub(crate) fn paragraphs(text: &str) -> (Option<String>, HtmlRepairs) {
    let mut html = String::new();
    let mut repairs = HtmlRepairs::default();
    let mut in_paragraph = false;
    // A line end of Windows counts once.
    let lines =
        text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).flat_map(|l| l.split('\r'));
    for line in lines {
        let room = CONTENT_BYTES_MAX.saturating_sub(html.len());
        let line = fold(line, room + 1);
        if line.is_empty() {
            if std::mem::take(&mut in_paragraph) {
                html.push_str("</p>");
            }
            continue;
        }
        html.push_str(if in_paragraph { "<br>" } else { "<p>" });
        in_paragraph = true;
        escape_into(&mut html, &line);
        if line.len() > room {
            repairs.truncated = true;
            break;
        }
    }
    if in_paragraph {
        html.push_str("</p>");
    }
    (Some(html).filter(|h| !h.is_empty()), repairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_plain_text_stay_lines() {
        for (text, html) in [
            ("a", "<p>a</p>"),
            ("first\n\nsecond\n- third", "<p>first</p><p>second<br>- third</p>"),
            ("a\r\nb\r\n\r\nc\rd", "<p>a<br>b</p><p>c<br>d</p>"),
            ("\n\n  a  b \n\t\n\n\n c\n", "<p>a b</p><p>c</p>"),
            ("1 < 2 & <b>\n\"q\"", "<p>1 &lt; 2 &amp; &lt;b&gt;<br>&quot;q&quot;</p>"),
            ("a\u{2028}b\n\u{202e}c", "<p>a b<br>c</p>"),
        ] {
            assert_eq!(paragraphs(text).0.as_deref(), Some(html), "{text:?}");
        }
        assert_eq!(paragraphs(" \n\n").0, None);
    }

    #[test]
    fn text_over_the_limit_is_truncated_and_marked() {
        for text in ["x", "x\n", "x\n\n", "&", "\n"] {
            let (html, repairs) = paragraphs(&text.repeat(CONTENT_BYTES_MAX + 1));
            assert!(html.unwrap_or_default().len() < 6 * CONTENT_BYTES_MAX);
            assert_eq!(repairs.truncated, text != "\n", "{text:?}");
        }
        assert!(!paragraphs(&"x".repeat(CONTENT_BYTES_MAX - 10)).1.truncated);
    }

    #[test]
    fn only_lines_with_text_count() {
        assert!(has_lines("a\nb") && has_lines("a\rb"));
        assert!(!has_lines("a") && !has_lines("\n a \n"));
    }
}
