//! Durations and counts as people say them.

use std::time::Duration;

/// A duration in at most two units, such as `250ms`, `5s`, `1h 12m`, `24h`, `41d`.
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

/// `first` to `tenth`, then `11th`, `22nd`.
pub(super) fn ordinal(n: u32) -> String {
    const WORDS: [&str; 11] =
        ["no", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
    if let Some(word) = usize::try_from(n).ok().and_then(|n| WORDS.get(n)) {
        return (*word).to_owned();
    }
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_said_in_at_most_two_units() {
        for (ms, said) in [
            (0, "0ms"),
            (250, "250ms"),
            (5_999, "5s"),
            (60_000, "1m"),
            (61_000, "1m 1s"),
            (4_320_000, "1h 12m"),
            (86_400_000, "24h"),
            (41 * 86_400_000 + 3_600_000, "41d 1h"),
        ] {
            assert_eq!(humanize(Duration::from_millis(ms)), said);
        }
    }

    #[test]
    fn a_count_is_said_as_a_word_or_with_its_ending() {
        let said = [1, 3, 10, 11, 12, 13, 21, 22, 23, 24, 111, 112].map(ordinal);
        let expected = "first third tenth 11th 12th 13th 21st 22nd 23rd 24th 111th 112th";
        assert_eq!(said.join(" "), expected);
    }
}
