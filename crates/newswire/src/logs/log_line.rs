//! Parses one line of a log: our text and JSON formats, with or without the prefix of `newswire up`, the JSON of the
//! journal, and lines of other programs. [`records`](super::records) joins those that belong together.

use news::Timestamp;
use serde_json::Value;

use super::{
    access,
    severity::{Severity, is_level, level_of},
    stamp,
};

/// A parsed line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// When it was written.
    pub(crate) time: Option<Timestamp>,
    /// `None` if it is less than a warning.
    pub(crate) level: Option<Severity>,
    /// Message and fields.
    pub(crate) text: String,
    /// The source it is about.
    pub(crate) source: Option<String>,
    /// The program that wrote it, if the line names one.
    pub(crate) program: Option<String>,
}

/// Fields of a JSON line that are not appended to its text.
const JSON_FIXED_FIELDS: [&str; 5] = ["time", "timestamp", "level", "message", "target"];

impl LogLine {
    /// Parses any line; the level is `None` if the line names none. `now` decides the year of a date without one.
    pub(crate) fn parse(line: &str, now: Timestamp) -> Self {
        let line = without_colour(line);
        let line = without_label(&line);
        if let Ok(Value::Object(fields)) = serde_json::from_str(line) {
            return match fields.contains_key("MESSAGE") {
                true => of_journal(&fields, now),
                false => of_json(&fields, now),
            };
        }
        if let Some(request) = access::parse(line) {
            return Self {
                time: Some(request.time),
                level: request.level,
                text: request.text,
                ..Self::default()
            };
        }
        let mut prefix = stamp::split(line, now);
        if prefix.program.is_some() {
            // The program's own time stands behind that of syslog, as ours does without the journal.
            let own = stamp::split(prefix.message, now);
            if own.time.is_some() && own.program.is_none() {
                prefix = stamp::LinePrefix { time: own.time, message: own.message, ..prefix };
            }
        }
        let (level, text) = match prefix.message.split_once(' ') {
            Some((word, text)) if is_level(word) => (level_of(word), text.trim_start()),
            _ => (level_in(prefix.message), prefix.message),
        };
        let level = level.max(prefix.level).max(fault_level(text));
        Self {
            time: prefix.time,
            level: with_panic(level, text),
            source: source_in(text),
            program: prefix.program.map(str::to_owned),
            text: text.to_owned(),
        }
    }
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

fn of_json(fields: &serde_json::Map<String, Value>, now: Timestamp) -> LogLine {
    let of = |name: &str| fields.get(name).and_then(Value::as_str);
    let mut text = of("message").or(of("msg")).unwrap_or_default().to_owned();
    for (name, value) in fields.iter().filter(|(name, _)| !JSON_FIXED_FIELDS.contains(&name.as_str())) {
        text.push_str(&format!(" {name}={value}"));
    }
    let level = of("level").or(of("severity")).or(of("levelname")).and_then(level_of);
    let level = level.or_else(|| numeric_level(fields.get("level")?.as_u64()?));
    let time = of("time").or(of("timestamp")).or(of("@timestamp")).or(of("ts"));
    LogLine {
        time: time.and_then(|time| stamp::split(time, now).time),
        level: with_panic(level, &text),
        source: of("source").map(str::to_owned),
        program: None,
        text,
    }
}

/// The numbers of pino and bunyan.
fn numeric_level(number: u64) -> Option<Severity> {
    match number {
        50.. => Some(Severity::Error),
        40..50 => Some(Severity::Warn),
        _ => None,
    }
}

fn of_journal(fields: &serde_json::Map<String, Value>, now: Timestamp) -> LogLine {
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
    let micros = of("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse::<i64>().ok());
    let program = of("SYSLOG_IDENTIFIER").map(|name| format!("{name}[{}]", of("_PID").unwrap_or_default()));
    let mut line = match of("PRIORITY") {
        // Lines from standard error have priority 6, whatever their own level.
        _ if of("_TRANSPORT") == Some("stdout") => LogLine::parse(&text, now),
        Some("0" | "1" | "2" | "3") => LogLine { level: Some(Severity::Error), ..LogLine::default() },
        Some("4") => LogLine { level: Some(Severity::Warn), ..LogLine::default() },
        _ => LogLine::default(),
    };
    if of("_TRANSPORT") != Some("stdout") {
        line.level = with_panic(line.level.max(fault_level(&text)), &text);
        line.text = text;
    }
    line.time = micros.map(|micros| Timestamp::from_millis(micros / 1000)).or(line.time);
    line.source = of("SOURCE").map(str::to_owned).or_else(|| source_in(&line.text));
    line.program = program;
    line
}

/// The level of a line of another program: a word near its beginning, in capitals, in brackets, before a colon, or the
/// value of a field `level`.
fn level_in(line: &str) -> Option<Severity> {
    const WORDS_SEARCHED: usize = 8;
    line.split_whitespace().take(WORDS_SEARCHED).find_map(|word| {
        if let Some(value) = word.strip_prefix("level=").or_else(|| word.strip_prefix("lvl=")) {
            return level_of(value.trim_matches('"'));
        }
        let bracketed = word.starts_with('[') && word.ends_with(']');
        // Apache writes `[module:level]`, Python `ERROR:logger:message`.
        let parts: Vec<_> = word.split(':').collect();
        let part = if bracketed { parts.last() } else { parts.first() };
        let bare = part?.trim_matches(|c: char| !c.is_ascii_alphabetic());
        let loud = bare.len() > 3 && bare.chars().all(|c| c.is_ascii_uppercase());
        (loud || bracketed || word.ends_with(':')).then(|| level_of(bare)).flatten()
    })
}

/// How lines of the kernel and of systemd about a fault begin. They name no level.
const FAULT_BEGINNINGS: [&str; 10] = [
    "Out of memory: Kill",
    "Memory cgroup out of memory: Kill",
    "INFO: task ",
    "rcu: INFO: ",
    "BUG: ",
    "watchdog: BUG: ",
    "Kernel panic - ",
    "general protection fault",
    "I/O error, dev ",
    "Failed to start ",
];
/// What other such lines contain.
const FAULT_PARTS: [&str; 11] = [
    "oom-kill:constraint=",
    " invoked oom-killer:",
    "Buffer I/O error on ",
    "]: segfault at ",
    "-fs error (device ",
    ": Failed with result '",
    ": Main process exited, code=killed",
    ": Main process exited, code=dumped",
    ": Watchdog timeout (limit ",
    ": Start request repeated too quickly.",
    "killed by the OOM killer",
];

/// [`Severity::Error`] for a fault that the kernel or systemd reports.
fn fault_level(text: &str) -> Option<Severity> {
    let is_fault = FAULT_BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
        || FAULT_PARTS.iter().any(|part| text.contains(part));
    is_fault.then_some(Severity::Error)
}

/// Raises the level to [`Severity::Panic`] for our own error with the field `panic`, and for the message of Rust's
/// standard library.
fn with_panic(level: Option<Severity>, text: &str) -> Option<Severity> {
    let ours = level == Some(Severity::Error) && text.contains(" panic=");
    if ours || is_rust_panic(text) { Some(Severity::Panic) } else { level }
}

/// The first line that Rust's standard library prints about a panic.
pub(super) fn is_rust_panic(text: &str) -> bool {
    text.starts_with("thread '") && text.contains("panicked at")
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

    fn parse(line: &str) -> LogLine {
        LogLine::parse(line, "2026-11-27T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn every_format_of_our_own_lines_is_parsed() {
        let expected = LogLine {
            time: "2026-01-02T03:04:05.678Z".parse().ok(),
            level: Some(Severity::Warn),
            text: "visit failed source=bbc error=\"no route\"".to_owned(),
            source: Some("bbc".to_owned()),
            program: None,
        };
        let text = "2026-01-02T03:04:05.678Z WARN  visit failed source=bbc error=\"no route\"";
        assert_eq!(parse(text), expected);
        assert_eq!(parse(&format!("ingestd   | {text}")), expected);
        let colours = "\u{1b}[2m2026-01-02T03:04:05.678Z\u{1b}[0m \u{1b}[33mWARN \u{1b}[0m visit failed \u{1b}[2msource=\u{1b}[0mbbc \u{1b}[2merror=\u{1b}[0m\"no route\"";
        assert_eq!(parse(colours), expected);
        let json = r#"{"time":"2026-01-02T03:04:05.678Z","level":"warn","message":"visit failed","target":"x","source":"bbc","error":"no route"}"#;
        let read = parse(json);
        assert_eq!(
            (read.time, read.level, read.source.clone()),
            (expected.time, expected.level, expected.source.clone())
        );
        assert!(read.text.starts_with("visit failed "), "{read:?}");
        let journal = r#"{"__REALTIME_TIMESTAMP":"1767323045678000","PRIORITY":"4","SOURCE":"bbc","MESSAGE":"visit failed source=bbc error=\"no route\""}"#;
        assert_eq!(parse(journal), expected);
    }

    #[test]
    fn lines_of_nginx_the_kernel_and_systemd_have_their_level() {
        for (line, level) in [
            ("2026/11/25 19:00:00 [error] 12#12: *5 upstream timed out (110: x)", Some(Severity::Error)),
            ("2026/11/25 19:00:00 [crit] 12#12: SSL_do_handshake() failed", Some(Severity::Error)),
            ("2026/11/25 19:00:00 [warn] 12#12: buffered", Some(Severity::Warn)),
            ("2026/11/25 19:00:00 [notice] 12#12: signal 15", None),
            ("[Wed Nov 25 19:00:00.1 2026] [proxy:error] [pid 7] AH01114: failed", Some(Severity::Error)),
            ("[12.3] Out of memory: Killed process 71 (newswire-ingest) total-vm:1kB", Some(Severity::Error)),
            ("[12.3] python3 invoked oom-killer: gfp_mask=0x1", Some(Severity::Error)),
            (
                "Nov 25 19:00:00 h kernel: INFO: task sled-io:71 blocked for more than 120 seconds.",
                Some(Severity::Error),
            ),
            ("Nov 25 19:00:00 h kernel: app[71]: segfault at 0 ip 0x1", Some(Severity::Error)),
            (
                "Nov 25 19:00:00 h systemd[1]: a.service: Failed with result 'oom-kill'.",
                Some(Severity::Error),
            ),
            ("Nov 25 19:00:00 h systemd[1]: a.service: Watchdog timeout (limit 30s)!", Some(Severity::Error)),
            ("Nov 25 19:00:00 h systemd[1]: Started a.service.", None),
            (
                "Nov 25 19:00:00 h newswire-ingestd[7]: 2026-11-25T19:00:00Z WARN  visit failed",
                Some(Severity::Warn),
            ),
            ("Nov 25 19:00:00 h app[7]: ERROR: it broke", Some(Severity::Error)),
            ("2026-11-25 19:00:00,123 - app.db - ERROR - it broke", Some(Severity::Error)),
            ("ERROR:root:it broke", Some(Severity::Error)),
            ("time=2026-11-25T19:00:00Z level=warning msg=x", Some(Severity::Warn)),
            (r#"{"level":50,"time":"2026-11-25T19:00:00Z","msg":"it broke"}"#, Some(Severity::Error)),
            ("Nov 25, 2026 7:00:00 PM com.example.A run", None),
        ] {
            assert_eq!(parse(line).level, level, "{line}");
        }
        let unit = r#"{"MESSAGE":"a.service: Failed with result 'watchdog'.","PRIORITY":"4","SYSLOG_IDENTIFIER":"systemd","_PID":"1"}"#;
        let found = parse(unit);
        assert_eq!((found.level, found.program.as_deref()), (Some(Severity::Error), Some("systemd[1]")));
    }

    #[test]
    fn lines_of_other_programs_have_the_level_that_they_name() {
        let level = |line: &str| parse(line).level;
        assert_eq!(level("Nov 25 19:00:00 host app[12]: ERROR: it broke"), Some(Severity::Error));
        assert_eq!(level("[warning] 12#12: a buffered response"), Some(Severity::Warn));
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
