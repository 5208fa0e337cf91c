//! A tolerant date parser for feeds: RFC 822 and 3339, ISO 8601, asctime, JavaScript, epochs, and dates as people write them
//! in the languages of our catalogue, with zones by name.
//!
//! A date is understood whole or not at all. Never here: "now" or 1970 for a text that is not a date, a guess at a missing
//! day, or a text of which a part was passed over.

mod exact;
mod fold;
mod grammar;
mod parts;
#[cfg(test)]
mod tests;
mod tokens;
mod windows;
mod words;
mod zones;

use chrono::NaiveDate;
use news::Timestamp;

use crate::limits::DATE_BYTES_MAX;

/// What comes first in a date like `03/04/2005`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DayOrder {
    DayFirst,
    MonthFirst,
}

/// Parses a date of a feed in `language` (a tag of BCP 47), which decides dates such as `03/04/2005`. `None` if the text has
/// parts that are not understood, is longer than [`DATE_BYTES_MAX`], is not in the calendar, or is one of the zero dates that
/// programs write for "unknown". A date without zone is in UTC.
pub(crate) fn parse(text: &str, language: Option<&str>) -> Option<Timestamp> {
    let text = text.trim();
    if text.is_empty() || text.len() > DATE_BYTES_MAX {
        return None;
    }
    if let Some(text) = language.filter(|_| text.contains("25")).and_then(|tag| of_buddhist_era(text, tag)) {
        return parse(&text, None);
    }
    let ms = exact::instant_ms(text).or_else(|| match number_alone(text) {
        Some(found) => found,
        None => {
            let american = ["AM", "PM"].iter().any(|half| text.contains(half));
            let language = language.unwrap_or_default().trim().to_ascii_lowercase().replace('_', "-");
            grammar::instant_ms(&fold::fold(text), &language, day_order(&language), american)
        }
    })?;
    let plausible = ms != 0 && (YEAR_1900_MS..=YEAR_9999_MS).contains(&ms);
    plausible.then(|| Timestamp::from_millis(ms))
}

/// The date of a Thai feed with its year counted as elsewhere, if it has one of the Buddhist era: 2547 is 2004.
fn of_buddhist_era(text: &str, language: &str) -> Option<String> {
    let is_thai =
        language.get(..2)?.eq_ignore_ascii_case("th") && !language[2..].starts_with(char::is_alphabetic);
    let mut digits = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() == 4);
    let year = digits.find(|digits| digits.starts_with("25")).filter(|_| is_thai)?;
    let common: u32 = year.parse::<u32>().ok()? - 543;
    Some(text.replacen(year, &common.to_string(), 1))
}

const YEAR_1900_MS: i64 = -2_208_988_800_000;
const YEAR_9999_MS: i64 = 253_402_300_799_999;

/// A text of digits only: an epoch in seconds or milliseconds, or a date without separators.
fn number_alone(text: &str) -> Option<Option<i64>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) || whole.is_empty() {
        return None;
    }
    let number: i64 = whole.parse().ok()?;
    let is_day = |date: i64| day_ms(date / 10_000, date / 100 % 100, date % 100).is_some();
    Some(match (whole.len(), fraction.is_empty()) {
        // "2024010515": a date to the hour, or seconds in 2034? "202401051504": to the minute, or milliseconds in 1976?
        (10, true) if is_day(number / 100) && number % 100 < 24 => None,
        (12, true) if is_day(number / 10_000) => None,
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

/// Milliseconds from 1970 to a day.
fn day_ms(year: i64, month: i64, day: i64) -> Option<i64> {
    let date = NaiveDate::from_ymd_opt(
        i32::try_from(year).ok()?,
        u32::try_from(month).ok()?,
        u32::try_from(day).ok()?,
    )?;
    Some(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis())
}

/// Milliseconds since midnight; 24:00 carries over.
fn clock_ms(hour: i64, minute: i64, second: i64) -> Option<i64> {
    let valid = hour <= 24 && minute < 60 && second < 60 && (hour < 24 || (minute == 0 && second == 0));
    valid.then_some(((hour * 60 + minute) * 60 + second) * 1000)
}

/// Minutes east of UTC. `None` if no place on Earth has such an offset.
fn offset_minutes(is_west: bool, hours: i64, minutes: i64) -> Option<i64> {
    let total = hours * 60 + minutes;
    let farthest = if is_west { 12 * 60 } else { 14 * 60 };
    (minutes < 60 && total <= farthest).then_some(if is_west { -total } else { total })
}

/// How a language, by its tag in lower case, writes a date in numbers (CLDR's short form). `None` if its readers differ, as those of plain English, or
/// if the year comes first.
fn day_order(language: &str) -> Option<DayOrder> {
    const DAY_FIRST: &str = "ar bg bn ca cs da de el es et fi fr he hi hr id is it iw lv ms nb nl nn no pl pt ro ru sk sl sr \
                             sv sw tr uk vi";
    const ENGLISH_DAY_FIRST: &str = "gb ie au nz in za sg my hk pk ng ke";
    let mut parts = language.split('-');
    let name = parts.next()?;
    let has = |names: &str, word: &str| names.split_ascii_whitespace().any(|name| name == word);
    if name != "en" {
        return has(DAY_FIRST, name).then_some(DayOrder::DayFirst);
    }
    let region = parts.next()?;
    if has("us ph", region) {
        return Some(DayOrder::MonthFirst);
    }
    has(ENGLISH_DAY_FIRST, region).then_some(DayOrder::DayFirst)
}
