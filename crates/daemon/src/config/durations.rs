//! Durations as people write them in a configuration: `250ms`, `1s`, `5m`, `24h`, `3d`, also `1h30m`.

use std::time::Duration;

/// Unit and its length in milliseconds, largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads whole numbers each followed by `d`, `h`, `m`, `s` or `ms`, without spaces; a bare `0` is allowed.
///
/// # Errors
/// A sentence that names the input and a form that would do.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write it like `250ms`, `30s`, `5m`, `24h` or `3d`");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*length)).ok_or_else(wrong)?;
        millis = millis.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(millis)) }
}

/// Writes a duration so that [`parse_duration`] reads it back, in the largest unit that divides it; whole
/// milliseconds only, what is smaller is cut.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let (unit, length) =
        UNITS.iter().find(|(_, length)| millis % length == 0).expect("every number divides by one");
    // "1d" reads as a date in some eyes; a single day is written as hours, as everybody says "24h".
    if *unit == "d" && millis == *length { "24h".to_owned() } else { format!("{}{unit}", millis / length) }
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
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_text() {
        for text in ["", "5", "m", "5 m", "-1s", "1.5h", "5x", "5M", "99999999999999999999s", "1sm", "٣s"] {
            assert!(parse_duration(text).unwrap_err().contains(&format!("`{text}`")), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["250ms", "90s", "5m", "24h", "30d", "0s", "36h"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }
}
