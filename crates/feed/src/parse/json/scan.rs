//! Limits of JSON, checked in one linear pass before parsing, which also repairs small errors.

use std::borrow::Cow;

use crate::{
    error::FeedError,
    limits::{DEPTH_MAX, ELEMENTS_MAX},
    scan::line_of,
};

/// Checks depth and number of values; escapes raw control characters in strings and replaces unpaired surrogates.
pub(super) fn scan(text: &str) -> Result<Cow<'_, str>, FeedError> {
    let text = text.trim_start_matches('\u{feff}');
    let bytes = text.as_bytes();
    let (mut depth, mut values, mut at) = (0_usize, 0_usize, 0);
    let mut repaired = String::new();
    let mut copied = 0;
    let mut repair = |from: usize, to: usize, with: &str| {
        repaired.push_str(&text[copied..from]);
        repaired.push_str(with);
        copied = to;
    };
    let mut in_string = false;
    while at < bytes.len() {
        let next = at + 1;
        match bytes[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                at = escape(text, at, &mut repair);
                continue;
            }
            b if in_string && b < 0x20 => repair(at, next, control(b)),
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                values += 1;
                // The JSON parser itself stops one level earlier than the XML parser.
                if depth >= DEPTH_MAX {
                    return Err(refuse("levels of nested values", DEPTH_MAX - 1, text, at));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if values > ELEMENTS_MAX {
            return Err(refuse("values", ELEMENTS_MAX, text, at));
        }
        at = next;
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(text));
    }
    repaired.push_str(&text[copied..]);
    Ok(Cow::Owned(repaired))
}

fn refuse(what: &'static str, max: usize, text: &str, offset: usize) -> FeedError {
    FeedError::TooComplex { what, max, line: line_of(text, offset) }
}

fn control(byte: u8) -> &'static str {
    match byte {
        b'\n' => "\\n",
        b'\t' => "\\t",
        b'\r' => "\\r",
        _ => "",
    }
}

/// Checks an escape sequence; returns the offset after it.
fn escape(text: &str, at: usize, repair: &mut impl FnMut(usize, usize, &str)) -> usize {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    match unit(at) {
        Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => at + 12,
        Some(0xd800..=0xdfff) => {
            repair(at, at + 6, "\\ufffd");
            at + 6
        }
        Some(_) => at + 6,
        // The escaped character, whatever its length.
        None => at + 1 + text.get(at + 1..).and_then(|r| r.chars().next()).map_or(0, char::len_utf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_json_is_unchanged_and_small_errors_are_repaired() {
        let sound = r#"{"a":"\ud83d\ude00\"[[","b":[1,2]}"#;
        assert!(matches!(scan(sound), Ok(Cow::Borrowed(t)) if t == sound));
        assert_eq!(scan("{\"a\":\"x\ny\\ud83dz\0\"}").unwrap(), r#"{"a":"x\ny\ufffdz"}"#);
        assert!(scan("\"\\").is_ok() && scan("\"\\é").is_ok() && scan("\"\\u12").is_ok());
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(scan(&deep(127)).is_ok());
        assert_eq!(scan(&deep(128)).unwrap_err().class().as_str(), "too-complex");
        assert_eq!(
            scan(&format!("[{}]", "0,".repeat(1_000_001))).unwrap_err().class().as_str(),
            "too-complex"
        );
    }
}
