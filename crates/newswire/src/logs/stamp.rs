//! The time at the beginning of a line, in the formats of the programs beside newswire, and the host and program of syslog.
//!
//! | format | written by |
//! | --- | --- |
//! | `2026-11-25T19:00:00.123Z`, `…+0100`, `2026-11-25 19:00:00,123` | newswire, journalctl, Python, log4j |
//! | `2026/11/25 19:00:00` | nginx (errors), Go |
//! | `[Wed Nov 25 19:00:00.123456 2026]` | Apache (errors), `dmesg -T` |
//! | `25-Nov-2026 19:00:00.123` | Tomcat, BIND |
//! | `Nov 25, 2026 7:00:00 PM` | java.util.logging |
//! | `Nov 25 19:00:00 host program[7]: …` | syslog (RFC 3164), which names no year |
//! | `<34>1 2026-11-25T19:00:00Z host program 7 id - …` | syslog (RFC 5424) |
//! | `[12345.678901]` | the kernel; seconds since the boot, so the time is unknown |

use chrono::{DateTime, Datelike as _, FixedOffset, Local, NaiveDateTime, TimeDelta, TimeZone as _, Utc};
use news::Timestamp;

use super::severity::{Severity, is_level};

/// Dates and times without a zone: they are in that of this machine.
const LOCAL_FORMATS: [&str; 6] = [
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M:%S%.f",
    "%a %b %d %H:%M:%S%.f %Y",
    "%d-%b-%Y %H:%M:%S%.f",
    "%b %d, %Y %I:%M:%S %p",
];
/// The same with a zone.
const ZONED_FORMATS: [&str; 4] = [
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%d/%b/%Y:%H:%M:%S %z",
];
/// Clocks of two machines may differ by this much: a syslog line that seems to be later is of the year before.
const AHEAD_MAX: TimeDelta = TimeDelta::days(1);

/// What stands before the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinePrefix<'a> {
    pub(super) time: Option<Timestamp>,
    /// Of a priority such as `<3>`.
    pub(super) level: Option<Severity>,
    /// `program[7]` of a syslog line.
    pub(super) program: Option<&'a str>,
    /// The rest of the line.
    pub(super) message: &'a str,
}

/// Separates the prefix of a line from its message. `now` decides the year of a date without one.
pub(super) fn split(line: &str, now: Timestamp) -> LinePrefix<'_> {
    let (priority, rest) = priority(line);
    let level = priority.and_then(of_priority);
    if priority.is_some()
        && let Some(rest) = rest.strip_prefix("1 ")
        && let Some(found) = rfc5424(rest)
    {
        return LinePrefix { level, ..found };
    }
    if let Some((time, rest)) = syslog_time(rest, now) {
        return LinePrefix { time: Some(time), level, ..after_host(rest) };
    }
    let bare = rest.strip_prefix('[').unwrap_or(rest);
    if let Some((time, after)) = time_at(bare) {
        let after = after.strip_prefix(']').unwrap_or(after);
        let after = after.strip_prefix([' ', '\t', ':']).unwrap_or(after);
        // The host and program of `journalctl -o short-iso`.
        let found = if time.is_iso { after_host(after) } else { LinePrefix::default() };
        return match found.program {
            Some(_) => LinePrefix { time: Some(time.at), level, ..found },
            None => LinePrefix { time: Some(time.at), level, program: None, message: after.trim_start() },
        };
    }
    LinePrefix { time: None, level, program: None, message: without_uptime(rest) }
}

/// `<34>`: the number, and what follows.
fn priority(line: &str) -> (Option<u8>, &str) {
    let number = || {
        let (number, rest) = line.strip_prefix('<')?.split_once('>')?;
        Some((number.parse().ok()?, rest))
    };
    number().map_or((None, line), |(number, rest)| (Some(number), rest))
}

/// The severity in a priority (RFC 5424, section 6.2.1).
fn of_priority(priority: u8) -> Option<Severity> {
    match priority & 7 {
        0..=3 => Some(Severity::Error),
        4 => Some(Severity::Warn),
        _ => None,
    }
}

/// After `<34>1 `: time, host, program, process id, message id, structured data, message.
fn rfc5424(rest: &str) -> Option<LinePrefix<'_>> {
    let mut words = rest.splitn(6, ' ');
    let (time, _host, program) = (words.next()?, words.next()?, words.next()?);
    let (_pid, _id, message) = (words.next()?, words.next()?, words.next()?);
    let message = match message.strip_prefix('[') {
        Some(data) => data.split_once("] ").map_or("", |(_, message)| message),
        None => message.strip_prefix("- ").unwrap_or(message),
    };
    let message = message.trim_start_matches('\u{feff}');
    Some(LinePrefix { time: time.parse().ok(), level: None, program: Some(program), message })
}

/// `Nov 25 19:00:00 `, and what follows.
fn syslog_time(text: &str, now: Timestamp) -> Option<(Timestamp, &str)> {
    let now = Local.timestamp_millis_opt(now.millis()).single()?;
    let of_year = |year: i32| {
        let with_year = format!("{year} {text}");
        let (time, rest) = NaiveDateTime::parse_and_remainder(&with_year, "%Y %b %d %H:%M:%S%.f").ok()?;
        Some((Local.from_local_datetime(&time).earliest()?, rest.len()))
    };
    let of_this_year = of_year(now.year()).filter(|(time, _)| *time <= now + AHEAD_MAX);
    let (time, rest) = of_this_year.or_else(|| of_year(now.year() - 1))?;
    let rest = &text[text.len() - rest..];
    Some((time.with_timezone(&Utc).into(), rest.strip_prefix(' ')?))
}

/// `host program[7]: message`
fn after_host(text: &str) -> LinePrefix<'_> {
    let nothing = LinePrefix { message: text, ..LinePrefix::default() };
    let Some((host, rest)) = text.split_once(' ') else { return nothing };
    let Some((program, message)) = rest.split_once(": ").or_else(|| Some((rest.strip_suffix(':')?, "")))
    else {
        return nothing;
    };
    let is_name = |text: &str| !text.is_empty() && !text.contains([' ', '"', '=', ':']);
    if !is_name(host) || !is_name(program) || is_level(host) {
        return nothing;
    }
    LinePrefix { program: Some(program), message: without_uptime(message), ..nothing }
}

/// The kernel's seconds since the boot are removed.
fn without_uptime(text: &str) -> &str {
    let seconds = || {
        let (seconds, rest) = text.strip_prefix('[')?.split_once(']')?;
        let (whole, part) = seconds.trim_start().split_once('.')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (digits(whole) && digits(part)).then(|| rest.strip_prefix(' ').unwrap_or(rest))
    };
    seconds().unwrap_or(text)
}

struct FoundTime {
    at: Timestamp,
    /// As in RFC 3339, with a `T`.
    is_iso: bool,
}

/// The time at the beginning of a text, and what follows.
fn time_at(text: &str) -> Option<(FoundTime, &str)> {
    // Python and log4j write a comma before the milliseconds; chrono reads a point.
    let normal = with_point(text);
    let text_of = |rest: &str| &text[text.len() - rest.len()..];
    let is_iso = text.as_bytes().get(10) == Some(&b'T');
    let zoned = |format: &&str| {
        let (time, rest) = DateTime::<FixedOffset>::parse_and_remainder(&normal, format).ok()?;
        Some((time.with_timezone(&Utc).into(), rest.len()))
    };
    let local = |format: &&str| {
        let (time, rest) = NaiveDateTime::parse_and_remainder(&normal, format).ok()?;
        let time = Local.from_local_datetime(&time).earliest()?;
        Some((time.with_timezone(&Utc).into(), rest.len()))
    };
    let zoned = ZONED_FORMATS.iter().find_map(zoned);
    let (at, rest) = zoned.or_else(|| LOCAL_FORMATS.iter().find_map(local))?;
    Some((FoundTime { at, is_iso }, text_of(&normal[normal.len() - rest..])))
}

/// A line whose comma before the milliseconds is a point; the length stays the same.
fn with_point(text: &str) -> String {
    const COMMA_AT: usize = "2026-11-25 19:00:00".len();
    let mut text = text.to_owned();
    if text.as_bytes().get(COMMA_AT) == Some(&b',') {
        text.replace_range(COMMA_AT..=COMMA_AT, ".");
    }
    text
}

/// The time of an entry of an access log: `25/Nov/2026:19:00:00 +0000`.
pub(super) fn access_time(text: &str) -> Option<Timestamp> {
    time_at(text).map(|(time, _)| time.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-27T12:00:00Z".parse().unwrap()
    }

    /// An instant of this machine's zone, in UTC.
    fn local(text: &str) -> Timestamp {
        let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").unwrap();
        Local.from_local_datetime(&time).earliest().unwrap().with_timezone(&Utc).into()
    }

    #[test]
    fn every_format_of_a_time_is_separated_from_its_message() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        for (line, time, message) in [
            ("2026-11-25T19:00:00.123Z WARN x", at("2026-11-25T19:00:00.123Z"), "WARN x"),
            ("2026-11-25T19:00:00+0100 x", at("2026-11-25T18:00:00Z"), "x"),
            (
                "2026-11-25 19:00:00,123 - app - ERROR - x",
                Some(local("2026-11-25 19:00:00.123")),
                "- app - ERROR - x",
            ),
            ("2026-11-25 19:00:00 +0100 x", at("2026-11-25T18:00:00Z"), "x"),
            ("2026/11/25 19:00:00 [error] 12#12: x", Some(local("2026-11-25 19:00:00")), "[error] 12#12: x"),
            (
                "[Wed Nov 25 19:00:00.123456 2026] [core:error] x",
                Some(local("2026-11-25 19:00:00.123456")),
                "[core:error] x",
            ),
            ("25-Nov-2026 19:00:00.5 SEVERE x", Some(local("2026-11-25 19:00:00.5")), "SEVERE x"),
            (
                "Nov 25, 2026 7:00:00 PM com.example.A run",
                Some(local("2026-11-25 19:00:00")),
                "com.example.A run",
            ),
            ("[ 1234.567890] Out of memory", None, "Out of memory"),
            ("no time", None, "no time"),
            ("Nov", None, "Nov"),
            ("", None, ""),
            ("[é", None, "[é"),
        ] {
            let found = split(line, now());
            assert_eq!((found.time, found.message), (time, message), "{line}");
        }
    }

    #[test]
    fn a_syslog_line_has_its_program_and_the_latest_year_that_is_past() {
        let found = split("Nov  5 19:00:00 host app[12]:   File \"x\", line 3", now());
        assert_eq!(found.time, Some(local("2026-11-05 19:00:00")));
        assert_eq!((found.program, found.message), (Some("app[12]"), "  File \"x\", line 3"));
        assert_eq!(split("Dec 31 23:59:59 host a: x", now()).time, Some(local("2025-12-31 23:59:59")));
        let kernel =
            split("Nov 25 19:00:00 host kernel: [  12.5] Out of memory: Killed process 7 (a)", now());
        assert_eq!((kernel.program, kernel.message), (Some("kernel"), "Out of memory: Killed process 7 (a)"));
        let iso = split("2026-11-25T19:00:00+0000 host app[12]: x", now());
        assert_eq!((iso.program, iso.message), (Some("app[12]"), "x"));
    }

    #[test]
    fn a_priority_is_a_level() {
        let found = split("<34>1 2026-11-25T19:00:00Z host app 7 ID47 [a b=\"c\"] it broke", now());
        assert_eq!((found.level, found.program), (Some(Severity::Error), Some("app")));
        assert_eq!((found.time, found.message), ("2026-11-25T19:00:00Z".parse().ok(), "it broke"));
        assert_eq!(split("<4>low on memory", now()).level, Some(Severity::Warn));
        assert_eq!(split("<6>fine", now()).level, None);
        assert_eq!(split("<html>", now()).message, "<html>");
    }
}
