//! Durations: `250ms`, `1s`, `5m`, `24h`, `3d`, also `1h30m`.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::shortened;

/// Unit and its length in milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Longest duration that a query or an order may name, 10,000 days: dates made from it stay in range.
pub const DURATION_MAX: Duration = Duration::from_secs(10_000 * 86_400);

/// Why a text is not a duration that may be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDuration {
    /// It is not written as a duration.
    #[error("`{}` is not a duration; write it like `250ms`, `30s`, `1h30m` or `3d`", shortened(text))]
    NotADuration {
        /// As it was written.
        text: String,
    },
    /// It is shorter or longer than allowed.
    #[error("{} is outside {} to {}", shortened(text), write_duration(*min), write_duration(*max))]
    OutOfRange {
        /// As it was written.
        text: String,
        /// Shortest duration allowed.
        min: Duration,
        /// Longest duration allowed.
        max: Duration,
    },
}

/// Reads whole numbers, each followed by `d`, `h`, `m`, `s` or `ms`, without spaces. A bare `0` is allowed.
///
/// # Errors
/// [`BadDuration::NotADuration`] if it is written in any other way or does not fit into 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    millis(text).map(Duration::from_millis).ok_or_else(|| BadDuration::NotADuration { text: text.to_owned() })
}

/// As [`parse_duration`], within inclusive bounds.
///
/// # Errors
/// Also [`BadDuration::OutOfRange`].
pub fn parse_duration_within(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, BadDuration> {
    let duration = parse_duration(text)?;
    if bounds.contains(&duration) {
        return Ok(duration);
    }
    let (min, max) = bounds.into_inner();
    Err(BadDuration::OutOfRange { text: text.to_owned(), min, max })
}

fn millis(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = None::<u64>;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let part = number.parse::<u64>().ok()?.checked_mul(*length)?;
        total = Some(total.unwrap_or(0).checked_add(part)?);
        rest = tail;
    }
    total
}

/// Writes a duration so that [`parse_duration`] reads it back, in the largest unit that divides it. Whole
/// milliseconds; anything smaller is cut off.
#[must_use]
pub fn write_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let (unit, length) =
        UNITS.iter().find(|(_, length)| millis.is_multiple_of(*length)).expect("every number divides by one");
    // One day is written as the usual "24h".
    if *unit == "d" && millis == *length { "24h".to_owned() } else { format!("{}{unit}", millis / length) }
}

/// A duration for people to read, in at most two units: `250ms`, `5s`, `1h 12m`, `24h`, `41d`. It cannot be read back.
#[must_use]
pub fn humanize(duration: Duration) -> String {
    let s = duration.as_secs();
    let (n, unit, rest, rest_unit) = match s {
        0 => return format!("{}ms", duration.as_millis()),
        1..60 => return format!("{s}s"),
        60..3_600 => (s / 60, 'm', s % 60, 's'),
        3_600..172_800 => (s / 3_600, 'h', s % 3_600 / 60, 'm'),
        _ => (s / 86_400, 'd', s % 86_400 / 3_600, 'h'),
    };
    if rest == 0 { format!("{n}{unit}") } else { format!("{n}{unit} {rest}{rest_unit}") }
}

/// A duration for people to compare at a glance, in the one unit that says it: `250ms`, `4.5s`, `90s`, `60m`, `2h`,
/// `10d`.
#[must_use]
pub fn approximate(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        1..1_000 => format!("{millis}ms"),
        1_000..10_000 if millis % 1_000 >= 100 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        1_000..120_000 => format!("{}s", millis / 1_000),
        120_000..7_200_000 => format!("{}m", millis / 60_000),
        7_200_000..172_800_000 => format!("{}h", millis / 3_600_000),
        _ => format!("{}d", millis / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_forms_are_read() {
        for (text, millis) in [
            ("250ms", 250),
            ("1s", 1_000),
            ("0s", 0),
            ("0", 0),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("3d", 259_200_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_text() {
        for text in [
            "",
            "5",
            "s",
            "m",
            "5 m",
            "-1s",
            "1.5h",
            "5x",
            "5M",
            "5min",
            "99999999999999999999s",
            "213503982335d",
            "1sm",
            "1h30",
            "٣s",
            "é",
        ] {
            let bad = parse_duration(text).unwrap_err().to_string();
            assert!(bad.starts_with(&format!("`{text}` is not a duration; write it like ")), "{bad}");
        }
    }

    #[test]
    fn bounds_are_inclusive_and_named_in_the_error() {
        let bounds = || Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
        for text in ["1s", "1h30m", "30d"] {
            assert_eq!(parse_duration_within(text, bounds()), parse_duration(text), "{text}");
        }
        for text in ["0", "999ms", "30d1ms"] {
            let bad = parse_duration_within(text, bounds()).unwrap_err().to_string();
            assert_eq!(bad, format!("{text} is outside 1s to 30d"));
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["250ms", "90s", "5m", "15m", "2h", "24h", "7d", "30d", "0s", "36h"] {
            assert_eq!(write_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(write_duration(parse_duration("1h30m").unwrap()), "90m");
    }

    #[test]
    fn an_approximate_duration_has_one_unit() {
        let shown = [0, 5, 1_250, 4_000, 61_000, 120_000, 7_200_000, 172_800_000]
            .map(|ms| approximate(Duration::from_millis(ms)));
        assert_eq!(shown, ["0s", "5ms", "1.2s", "4s", "61s", "2m", "2h", "2d"]);
    }

    #[test]
    fn a_duration_is_shown_in_at_most_two_units() {
        for (ms, shown) in [
            (0, "0ms"),
            (250, "250ms"),
            (5_999, "5s"),
            (60_000, "1m"),
            (61_000, "1m 1s"),
            (4_320_000, "1h 12m"),
            (86_400_000, "24h"),
            (41 * 86_400_000 + 3_600_000, "41d 1h"),
        ] {
            assert_eq!(humanize(Duration::from_millis(ms)), shown);
        }
    }
}
