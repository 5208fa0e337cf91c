//! A tolerant date parser for feeds: RFC 822 and 3339, W3C-DTF, asctime, JavaScript, epochs, month names in six languages.
//!
//! The text is split into numbers, words and signs, and each is assigned to a part of the date. Never here: "now" or 1970
//! for a text that is not a date, or a guess at a missing day.

use chrono::NaiveDate;
use news::Timestamp;

use crate::limits::DATE_BYTES_MAX;

/// Parses a date. `None` if the text has no date, is longer than [`DATE_BYTES_MAX`], is not in the calendar, or is one of
/// the zero dates that programs write for "unknown".
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.is_empty() || text.len() > DATE_BYTES_MAX {
        return None;
    }
    let seconds_ms = match number_alone(text) {
        Some(found) => found,
        None => Parts::read(&tokens(&text.to_lowercase())?)?.instant_ms(),
    }?;
    let plausible = seconds_ms != 0 && (YEAR_1900_MS..=YEAR_9999_MS).contains(&seconds_ms);
    plausible.then(|| Timestamp::from_millis(seconds_ms))
}

const YEAR_1900_MS: i64 = -2_208_988_800_000;
const YEAR_9999_MS: i64 = 253_402_300_799_999;
const DAY_MS: i64 = 86_400_000;

/// A text of digits only: an epoch in seconds or milliseconds, or a date without separators.
fn number_alone(text: &str) -> Option<Option<i64>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) || whole.is_empty() {
        return None;
    }
    let number: i64 = whole.parse().ok()?;
    Some(match (whole.len(), fraction.is_empty()) {
        (9..=11, _) => number.checked_mul(1000),
        (12 | 13, true) => Some(number),
        (8, true) => day_ms(number / 10_000, number / 100 % 100, number % 100),
        (14, true) => {
            let date = number / 1_000_000;
            let time = number % 1_000_000;
            let day = day_ms(date / 10_000, date / 100 % 100, date % 100);
            day.and_then(|day| Some(day + clock_ms(time / 10_000, time / 100 % 100, time % 100)?))
        }
        (4, true) => day_ms(number, 1, 1),
        // "12.10.2021" has two dots and is handled elsewhere; anything else is not a date.
        _ => None,
    })
}

fn day_ms(year: i64, month: i64, day: i64) -> Option<i64> {
    let date = NaiveDate::from_ymd_opt(
        i32::try_from(year).ok()?,
        u32::try_from(month).ok()?,
        u32::try_from(day).ok()?,
    )?;
    Some(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis())
}

/// Milliseconds since midnight; 24:00 and the leap second 60 carry over.
fn clock_ms(hour: i64, minute: i64, second: i64) -> Option<i64> {
    let valid = hour <= 24 && minute < 60 && second <= 60 && (hour < 24 || (minute == 0 && second == 0));
    valid.then_some(((hour * 60 + minute) * 60 + second) * 1000)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DateToken<'a> {
    /// A number and its count of digits.
    Number(i64, usize),
    Word(&'a str),
    /// Any other sign.
    Sign(char),
}

/// Splits a text in lower case. Comments in parentheses are skipped, as in RFC 822. `None` if a number is too long.
fn tokens(text: &str) -> Option<Vec<DateToken<'_>>> {
    let mut tokens = Vec::with_capacity(24);
    let mut chars = text.char_indices().peekable();
    let mut depth = 0_usize;
    while let Some((at, c)) = chars.next() {
        // The end of the run of characters of the same class.
        let mut run = |is_like: fn(char) -> bool| {
            while chars.next_if(|(_, c)| is_like(*c)).is_some() {}
            &text[at..chars.peek().map_or(text.len(), |(end, _)| *end)]
        };
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            '0'..='9' => {
                let digits = run(|c| c.is_ascii_digit());
                let value = digits.get(..digits.len().min(18)).and_then(|d| d.parse().ok())?;
                tokens.push(DateToken::Number(value, digits.len()));
            }
            c if c.is_alphabetic() => {
                tokens.push(DateToken::Word(run(char::is_alphabetic)));
            }
            '\u{2212}' | '\u{2010}'..='\u{2014}' => tokens.push(DateToken::Sign('-')),
            c => tokens.push(DateToken::Sign(if c.is_whitespace() { ' ' } else { c })),
        }
    }
    Some(tokens)
}

/// The parts of a date found in the tokens.
#[derive(Debug, Default)]
struct Parts {
    /// Numbers that are neither time nor zone, with their digits and the sign that follows them.
    numbers: Vec<(i64, usize, char)>,
    month: Option<i64>,
    /// Hour, minute, second.
    time: Option<(i64, i64, i64)>,
    fraction_ms: i64,
    afternoon: Option<bool>,
    offset_minutes: Option<i64>,
}

impl Parts {
    fn read(tokens: &[DateToken<'_>]) -> Option<Self> {
        let mut parts = Self::default();
        let mut at = 0;
        while at < tokens.len() {
            at += match &tokens[at] {
                DateToken::Number(..) if parts.time.is_none() && is_clock(&tokens[at..]) => {
                    parts.clock(&tokens[at..])
                }
                DateToken::Number(value, digits) => {
                    let after = match tokens.get(at + 1) {
                        Some(DateToken::Sign(sign)) => *sign,
                        _ => ' ',
                    };
                    // 20210906T120000Z
                    match (&tokens[at..], digits) {
                        ([_, DateToken::Word(t), DateToken::Number(time, 4 | 6), ..], 8) if *t == "t" => {
                            parts.compact(*value, *time, &tokens[at + 2])
                        }
                        _ => {
                            parts.numbers.push((*value, *digits, after));
                            1
                        }
                    }
                }
                DateToken::Sign('+' | '-') if parts.time.is_some() => parts.offset(&tokens[at..]),
                DateToken::Word(word) => parts.word(word, &tokens[at..]),
                DateToken::Sign(_) => 1,
            };
            if parts.numbers.len() > 4 {
                return None;
            }
        }
        Some(parts)
    }

    /// `12:00`, `12:00:00.123`, `12h30`: returns the number of tokens used.
    fn clock(&mut self, tokens: &[DateToken<'_>]) -> usize {
        let number = |n: usize| match tokens.get(n) {
            Some(DateToken::Number(value, _)) => Some(*value),
            _ => None,
        };
        let (Some(hour), Some(minute)) = (number(0), number(2)) else { return 1 };
        let (mut second, mut used) = (0, 3);
        if tokens.get(3) == Some(&DateToken::Sign(':')) && number(4).is_some() {
            second = number(4).unwrap_or(0);
            used = 5;
            if let (Some(DateToken::Sign('.' | ',')), Some(DateToken::Number(value, digits))) =
                (tokens.get(5), tokens.get(6))
            {
                let scale = 10_i64.saturating_pow(u32::try_from((*digits).min(18)).unwrap_or(18));
                self.fraction_ms =
                    i64::try_from(i128::from(*value) * 1000 / i128::from(scale)).unwrap_or(0).min(999);
                used = 7;
            } else if let (Some(DateToken::Sign(':')), Some(_)) = (tokens.get(5), number(6)) {
                used = 7;
            }
        }
        self.time = Some((hour, minute, second));
        used
    }

    /// `20210906T120000`: returns the number of tokens used.
    fn compact(&mut self, date: i64, time: i64, digits: &DateToken<'_>) -> usize {
        self.numbers = vec![(date / 10_000, 4, '-'), (date / 100 % 100, 2, '-'), (date % 100, 2, ' ')];
        let time = if matches!(digits, DateToken::Number(_, 4)) { time * 100 } else { time };
        self.time = Some((time / 10_000, time / 100 % 100, time % 100));
        3
    }

    /// `+0200`, `+02:00`, `-8`: returns the number of tokens used.
    fn offset(&mut self, tokens: &[DateToken<'_>]) -> usize {
        let (DateToken::Sign(sign), Some(DateToken::Number(value, digits))) = (&tokens[0], tokens.get(1))
        else {
            return 1;
        };
        let (minutes, used) = match (digits, tokens.get(2), tokens.get(3)) {
            (1 | 2, Some(DateToken::Sign(':')), Some(DateToken::Number(minutes, 1 | 2))) => {
                (value * 60 + minutes, 4)
            }
            (1 | 2, _, _) => (value * 60, 2),
            (3 | 4, _, _) => (value / 100 * 60 + value % 100, 2),
            // A year after a dash, or not an offset.
            _ => return 1,
        };
        // No zone is further from UTC: a mistake, and UTC is the best guess.
        if (*sign == '+' && minutes <= 14 * 60) || (*sign == '-' && minutes <= 12 * 60) {
            self.offset_minutes = Some(if *sign == '-' { -minutes } else { minutes });
        } else {
            self.offset_minutes = Some(0);
        }
        used
    }

    /// A word: returns the number of tokens used.
    fn word(&mut self, word: &str, tokens: &[DateToken<'_>]) -> usize {
        if let Some(month) = month(word) {
            // "mar" is also Tuesday in three languages: a later month overrides it.
            self.month = Some(month);
            return 1;
        }
        if self.time.is_none() {
            return 1;
        }
        match (word, tokens) {
            ("am" | "pm", _) => self.afternoon = Some(word == "pm"),
            ("a" | "p", [_, DateToken::Sign('.'), DateToken::Word(m), ..]) if *m == "m" => {
                self.afternoon = Some(word == "p");
                return 3;
            }
            // "GMT+0200" means the number.
            _ => {
                if let (None, Some(hours)) = (self.offset_minutes, zone(word)) {
                    self.offset_minutes = Some(hours);
                }
            }
        }
        1
    }

    fn instant_ms(&self) -> Option<i64> {
        let day = self.day_ms()?;
        let (mut hour, minute, second) = self.time.unwrap_or((0, 0, 0));
        if let Some(afternoon) = self.afternoon
            && (1..=12).contains(&hour)
        {
            hour = hour % 12 + if afternoon { 12 } else { 0 };
        }
        let clock = clock_ms(hour, minute, second)?;
        Some(day + clock + self.fraction_ms - self.offset_minutes.unwrap_or(0) * 60_000)
    }

    fn day_ms(&self) -> Option<i64> {
        let (year, month, day) = match (self.month, self.numbers.as_slice()) {
            (Some(month), [(year, 4.., _), (day, 1..=2, _), ..]) => (*year, month, *day),
            (Some(month), [(day, 1..=2, _), (year, digits, _), ..]) => {
                (full_year(*year, *digits)?, month, *day)
            }
            (None, [(year, 4, _), (month, 1..=2, _), (day, 1..=2, _), ..]) => (*year, *month, *day),
            (None, [(year, 4, _), (day, 3, _)]) => {
                return Some(day_ms(*year, 1, 1)? + (day.checked_sub(1)?) * DAY_MS);
            }
            (None, [(year, 4, _), (month, 1..=2, _)]) => (*year, *month, 1),
            (None, [(a, 1..=2, sign), (b, 1..=2, _), (year, digits, _), ..]) => {
                let year = full_year(*year, *digits)?;
                if *sign == '/' && *a <= 12 { (year, *a, *b) } else { (year, *b, *a) }
            }
            _ => return None,
        };
        day_ms(year, month, day)
    }
}

/// Whether a time of day begins here.
fn is_clock(tokens: &[DateToken<'_>]) -> bool {
    match tokens {
        [DateToken::Number(_, 1..=2), DateToken::Sign(':'), DateToken::Number(_, 1..=2), ..] => true,
        [DateToken::Number(_, 1..=2), DateToken::Word(h), DateToken::Number(_, 2), ..] => *h == "h",
        _ => false,
    }
}

fn full_year(year: i64, digits: usize) -> Option<i64> {
    match digits {
        4 => Some(year),
        3 => Some(year + 1900),
        1 | 2 => Some(if year < 69 { 2000 + year } else { 1900 + year }),
        _ => None,
    }
}

/// Month names of English, German, French, Spanish, Italian and Portuguese (and a few more), by prefix.
fn month(word: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "january januar jänner janvier enero gennaio janeiro januari",
        "february februar feber février fevrier febrero febbraio fevereiro februari",
        "march märz mars marzo março mrz mrt maart",
        "april avril abril aprile",
        "may mai mayo maggio maio mei maj",
        "june juni juin junio giugno junho",
        "july juli juillet julio luglio julho",
        "august août aout agosto augustus augusti",
        "september septembre septiembre setiembre settembre setembro",
        "october oktober octobre octubre ottobre outubro",
        "november novembre noviembre novembro",
        "december dezember décembre decembre diciembre dicembre dezembro",
    ];
    const ENGLISH: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    if DAYS.contains(&word) || word.chars().count() < 3 {
        return None;
    }
    let found = ENGLISH.iter().position(|name| *name == word);
    let found = found
        .or_else(|| MONTHS.iter().position(|names| names.split(' ').any(|name| name.starts_with(word))))?;
    i64::try_from(found + 1).ok()
}

/// Minutes east of UTC of a zone's name. If a name is ambiguous, the zone with more publishers.
fn zone(word: &str) -> Option<i64> {
    const ZONES: [(i64, &str); 27] = [
        (-600, "hst"),
        (-540, "akst"),
        (-480, "pst akdt"),
        (-420, "mst pdt"),
        (-360, "cst mdt"),
        (-300, "est cdt"),
        (-240, "edt ast"),
        (-210, "nst"),
        (-180, "adt brt art"),
        (-150, "ndt"),
        (0, "z ut utc gmt wet"),
        (60, "cet mez met west bst wat"),
        (120, "cest mesz mest eet sast cat"),
        (180, "eest msk eat trt"),
        (210, "irst"),
        (240, "gst"),
        (300, "pkt"),
        (330, "ist"),
        (345, "npt"),
        (420, "wib ict"),
        (480, "sgt hkt awst pht"),
        (540, "jst kst"),
        (570, "acst"),
        (600, "aest"),
        (660, "aedt"),
        (720, "nzst"),
        (780, "nzdt"),
    ];
    ZONES.iter().find(|(_, names)| names.split(' ').any(|name| name == word)).map(|(minutes, _)| *minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same(instant: &str, spellings: &[&str]) {
        for spelling in spellings {
            assert_eq!(parse(spelling).map(|t| t.to_string()).as_deref(), Some(instant), "{spelling:?}");
        }
    }

    #[test]
    fn one_instant_in_all_its_spellings() {
        same(
            "2021-09-06T12:00:00Z",
            &[
                "Mon, 06 Sep 2021 12:00:00 GMT",
                "Mon, 06 Sep 2021 12:00:00 +0000",
                "Mon, 6 Sep 21 12:00 UT",
                "Wed, 06 Sep 2021 12:00:00 Z",
                "Thurs, 06 Sep 2021 12:00:00 GMT",
                "6 September 2021 14:00 CEST",
                "Mon, 06 Sep 2021 13:00:00 CET",
                "Mon, 06 Sep 2021 08:00:00 EDT",
                "Mon, 06 Sept. 2021 12:00:00 PM",
                "Sep 6, 2021 12:00:00 PM",
                "Mon, 06-Sep-2021 12:00:00 GMT",
                "Mon, 06 Sep 2021 14:00:00 GMT+0200",
                "Mon Sep 06 2021 14:00:00 GMT+0200 (Central European Summer Time)",
                "Mon Sep  6 12:00:00 2021",
                "Mon Sep  6 14:00:00 CEST 2021",
                "Mon Sep 06 05:00:00 -0700 2021",
                "2021-09-06T12:00:00Z",
                "2021-09-06T04:00:00-0800",
                "2021-09-06T04:00:00-08:00",
                "2021-09-06T04:00-08",
                "2021-09-06 12:00:00",
                "2021-09-06T12:00Z",
                "2021-09-06 14:00:00 +0200",
                "20210906T120000Z",
                "20210906120000",
                "1630929600",
                "1630929600000",
                "06.09.2021 12:00",
                "06.09.2021, 12:00 Uhr",
                "2021/09/06 12:00:00",
                "9/6/2021 12:00:00 PM",
                "Mon, 06 Sep 2021 12:00:00 +0000 (UTC)",
                "Monday, September 6th, 2021 12:00 GMT",
                "2021-9-6T12:0:0Z",
                "Montag, 6. September 2021 12:00",
                "lun., 06 sept. 2021 12:00:00 +0000",
                "lundi 6 septembre 2021 12h00",
                "lunes, 6 de septiembre de 2021 12:00",
                "lun, 06 set 2021 12:00:00 GMT",
                "segunda, 6 de setembro de 2021 12:00",
                "2021-09-06T24:00:00+12:00",
                "2021-09-06 12:00:00.000 UTC",
                "Mon, 06 Sep 2021 12:00:00 +9900",
            ],
        );
    }

    #[test]
    fn months_in_six_languages() {
        same(
            "2021-03-09T00:00:00Z",
            &["9 mars 2021", "9. März 2021", "mar, 09 mar 2021", "9 marzo 2021", "9 de março de 2021"],
        );
        same(
            "2021-02-09T00:00:00Z",
            &["mar. 9 févr. 2021", "9 feb 2021", "9 Februar 2021", "mar, 9 feb 2021", "9 fev 2021"],
        );
        same(
            "2021-05-09T00:00:00Z",
            &["9 mai 2021", "9 mag 2021", "9 mayo 2021", "9 May 2021", "9 de maio de 2021"],
        );
        same("2021-08-09T00:00:00Z", &["9 août 2021", "9 ago 2021", "9 Aug. 2021", "9 agosto 2021"]);
        same(
            "2021-12-09T00:00:00Z",
            &["9 déc. 2021", "9 dic 2021", "9 Dez 2021", "9 dicembre 2021", "9 dezembro 2021"],
        );
        same(
            "2021-01-09T00:00:00Z",
            &["9 janv. 2021", "9 ene 2021", "9 gen 2021", "9 Jan 2021", "9 janeiro 2021"],
        );
        same(
            "2021-07-09T00:00:00Z",
            &["9 juil. 2021", "9 Juli 2021", "9 lug 2021", "9 julio 2021", "9 julho 2021"],
        );
    }

    #[test]
    fn edges_of_the_calendar() {
        same("2021-09-07T00:00:00Z", &["2021-09-06T24:00:00Z", "2021-09-07", "20210907", "2021-250"]);
        same(
            "2017-01-01T00:00:00Z",
            &["2016-12-31T23:59:60Z", "Sat, 31 Dec 2016 23:59:60 GMT", "2017", "2017-01"],
        );
        same("2021-09-06T12:00:00.250Z", &["2021-09-06T12:00:00.25Z", "2021-09-06T12:00:00,250999999Z"]);
        same("2021-09-06T00:05:00Z", &["6 Sep 2021 12:05 AM", "6 Sep 2021 12:05 a.m.", "6 Sep 2021 0:05"]);
        same("1999-12-31T23:05:00Z", &["Fri, 31 Dec 99 23:05:00 GMT", "31 Dec 1999 11:05 p.m."]);
    }

    #[test]
    fn a_text_that_is_not_a_date_is_none() {
        for text in [
            "",
            "   ",
            "yesterday",
            "never",
            "0",
            "1970-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "0000-00-00 00:00:00",
            "31 Feb 2021",
            "2021-13-01",
            "2021-09-06T25:00:00Z",
            "99999-01-01T00:00:00Z",
            "12:00",
            "Sep 2021",
            "+++",
            "1",
            "99999999999999999999999",
            "1601-01-01T00:00:00Z",
            "1 2 3 4 5 6 7 8",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse(&"2021-09-06 ".repeat(10_000)), None);
    }
}
