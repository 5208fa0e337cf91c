//! Parses one line of a log: our text and JSON formats, with or without the prefix of `newswire up`, the JSON of the
//! journal, and lines of other programs.

use news::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// How severe a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// A warning.
    Warn,
    /// An error.
    Error,
    /// A thread panicked.
    Panic,
}

impl Severity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Panic => "panic",
        }
    }
}

/// A parsed line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// When it was written.
    pub(crate) time: Option<Timestamp>,
    /// `None` if it is less than a warning.
    pub(crate) level: Option<Severity>,
    /// Message and fields.
    pub(crate) text: String,
    /// The source it is about.
    pub(crate) source: Option<String>,
}

/// Longest timestamp at the beginning of a line, in bytes.
const TIME_BYTES_MAX: usize = 40;
/// Fields of a JSON line that are not appended to its text.
const JSON_FIXED_FIELDS: [&str; 4] = ["time", "level", "message", "target"];

impl LogLine {
    /// Parses any line; the level is `None` if the line names none.
    pub(crate) fn parse(line: &str) -> Self {
        let line = without_colour(line);
        let line = without_label(&line);
        if let Ok(Value::Object(fields)) = serde_json::from_str(line) {
            return if fields.contains_key("MESSAGE") { of_journal(&fields) } else { of_json(&fields) };
        }
        let (time, rest) = match line.split_once(' ') {
            Some((first, rest)) if time_of(first).is_some() => (time_of(first), rest.trim_start()),
            _ => (None, line),
        };
        let (level, text) = match rest.split_once(' ') {
            Some((word, text)) if is_level(word) => (level_of(word), text.trim_start()),
            _ => (level_in(rest), rest),
        };
        Self { time, level: with_panic(level, text), text: text.to_owned(), source: source_in(text) }
    }
}

/// Parses a word as a timestamp.
fn time_of(word: &str) -> Option<Timestamp> {
    word.parse().ok().filter(|_| word.len() <= TIME_BYTES_MAX)
}

/// Removes the escape sequences for colours.
fn without_colour(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    out + rest
}

/// Removes the prefix `gateway   | ` of `newswire up`.
fn without_label(line: &str) -> &str {
    match line.split_once(" | ") {
        Some((label, rest)) if ["ingestd", "gateway"].contains(&label.trim()) => rest,
        _ => line,
    }
}

fn of_json(fields: &serde_json::Map<String, Value>) -> LogLine {
    let of = |name: &str| fields.get(name).and_then(Value::as_str);
    let mut text = of("message").or(of("msg")).unwrap_or_default().to_owned();
    for (name, value) in fields.iter().filter(|(name, _)| !JSON_FIXED_FIELDS.contains(&name.as_str())) {
        text.push_str(&format!(" {name}={value}"));
    }
    let level = of("level").and_then(level_of);
    LogLine {
        time: of("time").or(of("timestamp")).and_then(time_of),
        level: with_panic(level, &text),
        source: of("source").map(str::to_owned),
        text,
    }
}

fn of_journal(fields: &serde_json::Map<String, Value>) -> LogLine {
    let text = match fields.get("MESSAGE") {
        Some(Value::String(text)) => text.clone(),
        // A message that is not UTF-8 is a list of bytes.
        Some(Value::Array(bytes)) => {
            let bytes: Vec<u8> =
                bytes.iter().filter_map(Value::as_u64).filter_map(|b| u8::try_from(b).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    };
    let of = |name: &str| fields.get(name).and_then(Value::as_str);
    let level = match of("PRIORITY") {
        Some("0" | "1" | "2" | "3") => Some(Severity::Error),
        Some("4") => Some(Severity::Warn),
        // Lines from standard error have priority 6, whatever their own level.
        _ if of("_TRANSPORT") == Some("stdout") => {
            return LogLine { source: source_in(&text), ..LogLine::parse(&text) };
        }
        _ => None,
    };
    let micros = of("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse::<i64>().ok());
    LogLine {
        time: micros.map(|micros| Timestamp::from_millis(micros / 1000)),
        level: with_panic(level, &text),
        source: of("SOURCE").map(str::to_owned).or_else(|| source_in(&text)),
        text,
    }
}

fn is_level(word: &str) -> bool {
    ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&word)
}

fn level_of(word: &str) -> Option<Severity> {
    match word.to_ascii_lowercase().as_str() {
        "error" | "err" | "fatal" | "critical" => Some(Severity::Error),
        "warn" | "warning" => Some(Severity::Warn),
        _ => None,
    }
}

/// The level of a line of another program: a word near its beginning, in capitals or before a colon.
fn level_in(line: &str) -> Option<Severity> {
    const WORDS_SEARCHED: usize = 8;
    line.split_whitespace().take(WORDS_SEARCHED).find_map(|word| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphabetic());
        let loud = bare.len() > 3 && bare.chars().all(|c| c.is_ascii_uppercase());
        (loud || word.ends_with(':')).then(|| level_of(bare)).flatten()
    })
}

/// Raises the level to [`Severity::Panic`] for our own error with the field `panic`, and for the message of Rust's
/// standard library.
fn with_panic(level: Option<Severity>, text: &str) -> Option<Severity> {
    let ours = level == Some(Severity::Error) && text.contains(" panic=");
    let of_std = text.starts_with("thread '") && text.contains("panicked at");
    if ours || of_std { Some(Severity::Panic) } else { level }
}

/// The value of the field `source`.
fn source_in(text: &str) -> Option<String> {
    let (_, after) = text.split_once(" source=")?;
    let value = after.split([' ', '"']).next().filter(|value| !value.is_empty())?;
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_of_our_own_lines_is_parsed() {
        let expected = LogLine {
            time: "2026-01-02T03:04:05.678Z".parse().ok(),
            level: Some(Severity::Warn),
            text: "visit failed source=bbc error=\"no route\"".to_owned(),
            source: Some("bbc".to_owned()),
        };
        let text = "2026-01-02T03:04:05.678Z WARN  visit failed source=bbc error=\"no route\"";
        assert_eq!(LogLine::parse(text), expected);
        assert_eq!(LogLine::parse(&format!("ingestd   | {text}")), expected);
        let colours = "\u{1b}[2m2026-01-02T03:04:05.678Z\u{1b}[0m \u{1b}[33mWARN \u{1b}[0m visit failed \u{1b}[2msource=\u{1b}[0mbbc \u{1b}[2merror=\u{1b}[0m\"no route\"";
        assert_eq!(LogLine::parse(colours), expected);
        let json = r#"{"time":"2026-01-02T03:04:05.678Z","level":"warn","message":"visit failed","target":"x","source":"bbc","error":"no route"}"#;
        let read = LogLine::parse(json);
        assert_eq!(
            (read.time, read.level, read.source.clone()),
            (expected.time, expected.level, expected.source.clone())
        );
        assert!(read.text.starts_with("visit failed "), "{read:?}");
        let journal = r#"{"__REALTIME_TIMESTAMP":"1767323045678000","PRIORITY":"4","SOURCE":"bbc","MESSAGE":"visit failed source=bbc error=\"no route\""}"#;
        assert_eq!(LogLine::parse(journal), expected);
    }

    #[test]
    fn lines_of_other_programs_have_the_level_that_they_name() {
        let level = |line: &str| LogLine::parse(line).level;
        assert_eq!(level("Nov 25 19:00:00 host app[12]: ERROR: it broke"), Some(Severity::Error));
        assert_eq!(level("[warning] 12#12: a buffered response"), None);
        assert_eq!(level("warning: unused"), Some(Severity::Warn));
        assert_eq!(level("thread 'main' (12) panicked at src/main.rs:3:5:"), Some(Severity::Panic));
        assert_eq!(
            level("2026-01-02T03:04:05Z ERROR a thread panicked thread=worker panic=boom"),
            Some(Severity::Panic)
        );
        assert_eq!(level("no errors were found"), None);
        assert_eq!(level("2026-01-02T03:04:05Z INFO  ERROR is a word here"), None);
        assert_eq!(level(""), None);
        let stdout = r#"{"__REALTIME_TIMESTAMP":"1","PRIORITY":"6","_TRANSPORT":"stdout","MESSAGE":"error: no such file"}"#;
        assert_eq!(level(stdout), Some(Severity::Error));
        assert_eq!(level(r#"{"MESSAGE":[101,255],"PRIORITY":"3"}"#), Some(Severity::Error));
    }
}
