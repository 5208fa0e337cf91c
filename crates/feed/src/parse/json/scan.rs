//! Limits of JSON, checked in one linear pass before parsing, which also repairs small errors.

use std::borrow::Cow;

use crate::{
    error::FeedError,
    limits::{DEPTH_MAX, ELEMENTS_MAX},
    scan::line_of,
};

/// Text within the limits, with repairs.
#[derive(Debug)]
pub(super) struct ScannedJson<'a> {
    pub(super) text: Cow<'a, str>,
    /// The offset in `text` of the first repair outside of strings.
    pub(super) repaired_at: Option<usize>,
}

/// Checks depth and number of values, and repairs what a JSON parser refuses: raw control characters and unpaired
/// surrogates in strings; commas without a value, comments, names without quotes, strings in single quotes, and words that
/// JSON does not have.
pub(super) fn scan(text: &str) -> Result<ScannedJson<'_>, FeedError> {
    let text = text.trim_start_matches('\u{feff}');
    let mut scanner = JsonScanner {
        text,
        at: 0,
        depth: 0,
        values: 0,
        before: b':',
        repaired: String::new(),
        copied: 0,
        repaired_at: None,
    };
    while scanner.at < text.len() {
        scanner.step()?;
    }
    let JsonScanner { mut repaired, copied, repaired_at, .. } = scanner;
    if copied == 0 {
        return Ok(ScannedJson { text: Cow::Borrowed(text), repaired_at });
    }
    repaired.push_str(&text[copied..]);
    Ok(ScannedJson { text: Cow::Owned(repaired), repaired_at })
}

struct JsonScanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    values: usize,
    /// The last byte before `at` that is not blank.
    before: u8,
    repaired: String,
    /// The offset up to which `text` has been copied to `repaired`.
    copied: usize,
    repaired_at: Option<usize>,
}

impl JsonScanner<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or_default()
    }

    /// Replaces a range inside a string.
    fn replace(&mut self, from: usize, to: usize, with: &str) {
        self.repaired.push_str(&self.text[self.copied..from]);
        self.repaired.push_str(with);
        self.copied = to;
    }

    /// Replaces a range outside of strings and goes on after it.
    fn repair(&mut self, from: usize, to: usize, with: &str) {
        self.replace(from, to, with);
        self.repaired_at.get_or_insert(self.repaired.len() - with.len());
        self.at = to;
    }

    /// Reads one token outside of strings, or one string.
    fn step(&mut self) -> Result<(), FeedError> {
        let (at, before) = (self.at, self.before);
        let byte = self.byte(at);
        self.at += 1;
        if byte <= b' ' {
            if !byte.is_ascii_whitespace() {
                self.repair(at, at + 1, " ");
            }
            return Ok(());
        }
        self.before = byte;
        match byte {
            b'"' => self.string(b'"'),
            b'\'' if matches!(before, b'{' | b'[' | b',' | b':') => {
                self.repair(at, at + 1, "\"");
                self.string(b'\'');
            }
            b'[' | b'{' => {
                self.depth += 1;
                self.values += 1;
                // The JSON parser itself stops one level earlier than the XML parser.
                if self.depth >= DEPTH_MAX {
                    return Err(refuse("levels of nested values", DEPTH_MAX - 1, self.text, at));
                }
                self.commas(at + 1, "");
            }
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            b',' => {
                self.values += 1;
                self.commas(at, ",");
            }
            b'/' if matches!(self.byte(at + 1), b'/' | b'*') => {
                let end = self.past_comment(at);
                self.repair(at, end, &format!(" {}", self.line_ends(at, end)));
                self.before = before;
            }
            b'-' | b'+' | b'_' | b'$' | b'a'..=b'z' | b'A'..=b'Z' => self.word(at, before),
            _ => {
                self.at = self
                    .past(at, |b| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'-' | b'e' | b'E'))
                    .max(at + 1)
            }
        }
        if self.values > ELEMENTS_MAX {
            return Err(refuse("values", ELEMENTS_MAX, self.text, at));
        }
        Ok(())
    }

    /// Reads the rest of a string to its quote; one in single quotes becomes one in double quotes.
    fn string(&mut self, quote: u8) {
        loop {
            let at = self.at;
            let Some(found) = self.text.as_bytes()[at..]
                .iter()
                .position(|b| *b < b' ' || matches!(b, b'"' | b'\'' | b'\\'))
            else {
                self.at = self.text.len();
                return;
            };
            let at = at + found;
            self.at = at + 1;
            match self.byte(at) {
                b if b == quote => {
                    if quote == b'\'' {
                        self.replace(at, at + 1, "\"");
                    }
                    return;
                }
                b'"' => self.replace(at, at + 1, "\\\""),
                b'\'' => {}
                b'\\' if quote == b'\'' && self.byte(at + 1) == b'\'' => {
                    self.replace(at, at + 2, "'");
                    self.at = at + 2;
                }
                b'\\' => self.escape(at),
                // A name at the beginning of a line: the string before it was never closed.
                b'\n' if is_name(&self.text[at + 1..]) => return,
                b => self.replace(at, at + 1, control(b)),
            }
        }
    }

    /// Checks an escape sequence and goes on after it.
    fn escape(&mut self, at: usize) {
        let unit = |at: usize| {
            let digits = self.text.get(at..at + 6)?.strip_prefix("\\u")?;
            u32::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => self.at = at + 12,
            Some(0xd800..=0xdfff) => {
                self.replace(at, at + 6, "\\ufffd");
                self.at = at + 6;
            }
            Some(_) => self.at = at + 6,
            None => match self.byte(at + 1) {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at = at + 2,
                0 => {}
                b'\'' => self.replace(at, at + 1, ""),
                // A backslash that is text.
                _ => self.replace(at, at + 1, "\\\\"),
            },
        }
    }

    /// Replaces commas from an offset on, with what is blank between them, by what is right there.
    fn commas(&mut self, from: usize, right: &str) {
        let (mut end, mut commas) = (from, 0);
        loop {
            end = match self.byte(end) {
                b' ' | b'\t' | b'\n' | b'\r' => end + 1,
                b',' => {
                    commas += 1;
                    end + 1
                }
                b'/' if matches!(self.byte(end + 1), b'/' | b'*') => self.past_comment(end),
                _ => break,
            };
        }
        let right = if matches!(self.byte(end), b']' | b'}') { "" } else { right };
        if commas != right.len() {
            self.repair(from, end, &format!("{right}{}", self.line_ends(from, end)));
        }
    }

    /// The line ends of a range, which are kept, so that warnings have the right lines.
    fn line_ends(&self, from: usize, to: usize) -> String {
        self.text[from..to].chars().filter(|c| *c == '\n').collect()
    }

    /// The offset after a comment.
    fn past_comment(&self, at: usize) -> usize {
        let (end, kept) = if self.byte(at + 1) == b'/' { ("\n", 0) } else { ("*/", 2) };
        self.text[at + 2..].find(end).map_or(self.text.len(), |n| at + 2 + n + kept)
    }

    /// The offset of the first byte that is not one of these.
    fn past(&self, at: usize, is: impl Fn(&u8) -> bool) -> usize {
        at + self.text.as_bytes()[at..].iter().take_while(|b| is(b)).count()
    }

    /// Checks a word or a number with a sign.
    fn word(&mut self, at: usize, before: u8) {
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$');
        let signed = usize::from(matches!(self.byte(at), b'-' | b'+'));
        let end = self.past(at + signed, is_name);
        self.at = end.max(at + 1);
        let colon = self.past(end, u8::is_ascii_whitespace);
        match &self.text[at + signed..end] {
            "true" | "false" | "null" => {}
            "NaN" | "Infinity" | "undefined" | "None" | "nil" => self.repair(at, end, "null"),
            "True" => self.repair(at, end, "true"),
            "False" => self.repair(at, end, "false"),
            name if signed == 0 && matches!(before, b'{' | b',') && self.byte(colon) == b':' => {
                let quoted = format!("\"{name}\"");
                self.repair(at, end, &quoted);
            }
            _ => {}
        }
    }
}

/// Whether a line begins with a name and a colon.
fn is_name(line: &str) -> bool {
    const NAME_BYTES_MAX: usize = 40;
    let Some(name) = line.trim_start().strip_prefix('"') else { return false };
    let end =
        name.bytes().take(NAME_BYTES_MAX).take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    end > 0 && name[end..].strip_prefix('"').is_some_and(|rest| rest.trim_start().starts_with(':'))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(text: &str) -> String {
        scan(text).unwrap().text.into_owned()
    }

    #[test]
    fn what_people_write_instead_of_json_is_repaired() {
        for (text, json) in [
            (r#"{"a":[1,],"b":{"c":2 , },}"#, r#"{"a":[1],"b":{"c":2 }}"#),
            ("[1,,2, ,\n3]", "[1,2,\n3]"),
            ("[,1]", "[1]"),
            ("{// c\n\"a\":1,/* \"x */ // y\n}", "{ \n\"a\":1\n}"),
            (r#"{"u":"http://x//y","t":"a,]b,}/*c*/"}"#, r#"{"u":"http://x//y","t":"a,]b,}/*c*/"}"#),
            (r#"{"a":NaN,"b":-Infinity,"c":undefined,"d":True}"#, r#"{"a":null,"b":null,"c":null,"d":true}"#),
            (r#"{a:1,b_c : "x"}"#, r#"{"a":1,"b_c" : "x"}"#),
            (r#"{'a':'say "x"','b':'it\'s'}"#, r#"{"a":"say \"x\"","b":"it's"}"#),
            (r#"{"a":-1.5e+10,"b":1E-3,"c":true}"#, r#"{"a":-1.5e+10,"b":1E-3,"c":true}"#),
            ("[1\u{b},2]", "[1 ,2]"),
            (r#"["it\'s","C:\dir\u12","\"\\"]"#, r#"["it's","C:\\dir\\u12","\"\\"]"#),
        ] {
            assert_eq!(repaired(text), json, "{text}");
        }
    }

    #[test]
    fn valid_json_is_unchanged_and_small_errors_are_repaired() {
        let sound = r#"{"a":"\ud83d\ude00\"[[","b":[1,2]}"#;
        assert!(
            matches!(scan(sound), Ok(ScannedJson { text: Cow::Borrowed(t), repaired_at: None }) if t == sound)
        );
        assert_eq!(repaired("{\"a\":\"x\ny\\ud83dz\0\"}"), r#"{"a":"x\ny\ufffdz"}"#);
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
