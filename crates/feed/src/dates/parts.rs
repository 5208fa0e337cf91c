//! The parts of a date, and the instant that they make together.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

use super::{
    DayOrder, clock_ms,
    words::{DateWord, Unit},
    zones::Zone,
};

/// A date has a day, a month and a year.
pub(super) const NUMBERS_MAX: usize = 3;

/// A number of the date and the sign that follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct DateNumber {
    pub(super) value: i64,
    pub(super) digits: usize,
    pub(super) sign: char,
}

/// What the tokens said so far.
#[derive(Debug, Default)]
pub(super) struct DateParts<'a> {
    pub(super) order: Option<DayOrder>,
    pub(super) american: bool,
    /// Numbers that are neither time nor zone.
    pub(super) numbers: Vec<DateNumber>,
    /// The month by name, and how many numbers stand before it.
    pub(super) month: Option<(i64, usize)>,
    /// The name of the month may also be a weekday, as `mar` is Tuesday in four languages.
    pub(super) month_is_weekday: bool,
    /// The weekdays that the name of the day may mean, as in [`DateWord::weekdays`]; 0 without one.
    pub(super) weekdays: u8,
    /// A date written in one piece, or by week.
    pub(super) date: Option<NaiveDate>,
    /// Year, month, day, hour, minute and second with their Chinese, Japanese or Korean units.
    pub(super) units: [Option<i64>; 6],
    /// Hour, minute, second.
    pub(super) time: Option<(i64, i64, i64)>,
    pub(super) fraction_ms: i64,
    pub(super) afternoon: Option<bool>,
    /// Minutes east of UTC, by number.
    pub(super) offset: Option<i64>,
    pub(super) zone: Option<Zone<'a>>,
    /// The zone is `Z`, which stands instead of a number.
    pub(super) is_zulu: bool,
}

impl<'a> DateParts<'a> {
    pub(super) fn has_zone(&self) -> bool {
        self.offset.is_some() || self.zone.is_some()
    }

    /// Whether the numbers so far are enough for a day.
    pub(super) fn is_day_known(&self) -> bool {
        let months = usize::from(self.month.is_some() || self.month_unit().is_some());
        let numbers = self.numbers.len() + months;
        self.date.is_some()
            || self.units[..3].iter().all(Option::is_some)
            || numbers == NUMBERS_MAX
            || self.is_ordinal()
    }

    /// The month of `5 8月 2024`, whose unit stands for its name.
    fn month_unit(&self) -> Option<i64> {
        self.units[1].filter(|_| self.units[0].is_none() && self.units[2].is_none())
    }

    /// Whether the date is a year and a day of the year, as in `2021-250`.
    fn is_ordinal(&self) -> bool {
        matches!(
            self.numbers.as_slice(),
            [DateNumber { digits: 4, sign: '-', .. }, DateNumber { digits: 3, .. }]
        )
    }

    /// A number with a Chinese, Japanese or Korean unit.
    pub(super) fn unit(&mut self, unit: Unit, value: i64, digits: usize) -> Option<()> {
        let place = &mut self.units[unit as usize];
        let is_new = place.is_none() && (digits <= 2 || unit == Unit::Year && digits == 4);
        *place = Some(value);
        is_new.then_some(())
    }

    /// `20210906`, `20210906120000`.
    pub(super) fn packed(&mut self, value: i64, digits: usize) -> bool {
        let is_new = self.date.is_none() && self.numbers.is_empty() && self.month.is_none();
        let date = if digits == 14 { value / 1_000_000 } else { value };
        if digits == 14 {
            self.time = Some((value / 10_000 % 100, value / 100 % 100, value % 100));
        }
        self.date = day(date / 10_000, date / 100 % 100, date % 100);
        is_new && self.date.is_some()
    }

    /// A month, a weekday or a word without meaning for the date.
    pub(super) fn name(&mut self, meaning: DateWord) -> bool {
        match meaning.month {
            Some(month) if self.month.is_none() || self.month_is_weekday => {
                self.month = Some((month, self.numbers.len()));
                self.month_is_weekday = meaning.weekdays != 0;
                true
            }
            // Levantine and Egyptian name in one: "شباط/فبراير".
            Some(month) if self.month.is_some_and(|(other, _)| other == month) => true,
            _ if meaning.weekdays != 0 => {
                self.weekdays = meaning.weekdays;
                true
            }
            _ => meaning.filler,
        }
    }

    /// A zone by name. One behind a number only explains it.
    pub(super) fn zone(&mut self, zone: Zone<'a>, is_american: bool) -> bool {
        self.american |= is_american;
        let is_new = self.zone.is_none() || self.zone == Some(zone);
        if self.offset.is_none() {
            self.zone = Some(zone);
        }
        is_new
    }

    pub(super) fn instant_ms(&self) -> Option<i64> {
        let (hour, minute, second) = self.clock()?;
        let leap = i64::from(second == 60);
        let clock = clock_ms(hour, minute, second - leap)? + self.fraction_ms;
        let local = NaiveDateTime::new(self.day()?, NaiveTime::MIN)
            .checked_add_signed(TimeDelta::milliseconds(clock))?;
        let named = match self.zone {
            Some(zone) => Some(zone.instant_ms(local)?),
            None => None,
        };
        let by_number = self.offset.and_then(|minutes| Zone::Fixed(minutes).instant_ms(local));
        let ms = match (named, by_number) {
            // "GMT+0200" means the number; "PST +0100" contradicts itself.
            (Some(named), Some(ms)) => (named == ms || self.zone == Some(Zone::Fixed(0))).then_some(ms)?,
            (named, by_number) => named.or(by_number).unwrap_or(local.and_utc().timestamp_millis()),
        } + leap * 1000;
        // Leap seconds are the last of a day of UTC.
        (leap == 0 || ms % 86_400_000 == 0).then_some(ms)
    }

    /// Hour, minute and second in 24 hours. `None` if the half of the day contradicts the hour.
    fn clock(&self) -> Option<(i64, i64, i64)> {
        let (hour, minute, second) = match (self.time, self.units) {
            (Some(time), [_, _, _, None, None, None]) => time,
            (None, [_, _, _, Some(hour), minute, second]) if minute.is_some() || second.is_none() => {
                (hour, minute.unwrap_or(0), second.unwrap_or(0))
            }
            (None, [_, _, _, None, None, None]) if self.afternoon.is_none() => (0, 0, 0),
            _ => return None,
        };
        match (self.afternoon, hour) {
            (None, _) | (Some(true), 13..=23) => Some((hour, minute, second)),
            (Some(afternoon), 0..=12) => Some((hour % 12 + if afternoon { 12 } else { 0 }, minute, second)),
            _ => None,
        }
    }

    fn day(&self) -> Option<NaiveDate> {
        let numbers = self.numbers.as_slice();
        match (self.date, self.units, self.month) {
            (Some(date), [None, None, None, ..], None) => numbers.is_empty().then_some(date),
            (None, [Some(y), Some(m), Some(d), ..], None) => numbers.is_empty().then(|| day(y, m, d))?,
            (None, [None, None, None, ..], Some((month, before))) => named_month(numbers, month, before),
            (None, [None, Some(month), None, ..], None) => named_month(numbers, month, 0),
            (None, [None, None, None, ..], None) => self.numeric_day(),
            _ => None,
        }
    }

    /// A date of numbers only.
    fn numeric_day(&self) -> Option<NaiveDate> {
        match self.numbers.as_slice() {
            [y, d] if self.is_ordinal() => {
                NaiveDate::from_yo_opt(i32::try_from(y.value).ok()?, u32::try_from(d.value).ok()?)
            }
            // A month alone begins on its first day (W3C-DTF), unless a time says that a day was meant.
            [y, m]
                if y.digits == 4
                    && y.sign == '-'
                    && m.digits == 2
                    && self.time.is_none()
                    && !self.has_zone() =>
            {
                day(y.value, m.value, 1)
            }
            [y, m, d] if y.digits == 4 && m.digits <= 2 && d.digits <= 2 => day(y.value, m.value, d.value),
            [a, b, y] if a.digits <= 2 && b.digits <= 2 && matches!(y.digits, 2 | 4) => {
                self.year_last(a, b, y)
            }
            _ => None,
        }
    }

    /// `03/04/2005`: day or month first? Of two possible dates the weekday decides, then the language of the feed, then a
    /// sign of the United States. Points stand between day and month, never the other way round.
    fn year_last(&self, a: &DateNumber, b: &DateNumber, y: &DateNumber) -> Option<NaiveDate> {
        let year = full_year(y)?;
        let day_first = day(year, b.value, a.value);
        let month_first = day(year, a.value, b.value).filter(|_| a.sign != '.');
        // "24.10.23" may begin with the year, too.
        let year_first = if y.digits == 2 { day(2000 + a.value, b.value, y.value) } else { None };
        let is_padded = a.digits == 1 && b.digits == 2 && b.value < 10;
        let is_american = self.american && a.sign == '/' && y.digits == 4 && !is_padded;
        let order = self.order.or(is_american.then_some(DayOrder::MonthFirst));
        match (order, day_first, month_first, year_first) {
            (None, Some(date), None, None) | (None, None, Some(date), None) => Some(date),
            _ if day_first == month_first && year_first.is_none() => day_first,
            (_, Some(one), Some(two), None) if self.fits(one) != self.fits(two) => {
                Some(if self.fits(one) { one } else { two })
            }
            (Some(DayOrder::DayFirst), Some(date), ..) => Some(date),
            (Some(DayOrder::MonthFirst), _, Some(date), _) => Some(date),
            // The language says one thing, the numbers allow only the other.
            (Some(_), Some(date), None, None) | (Some(_), None, Some(date), None) => Some(date),
            _ => None,
        }
    }

    /// Whether the date is on the weekday that was named.
    fn fits(&self, date: NaiveDate) -> bool {
        self.weekdays & (1 << date.weekday().num_days_from_monday()) != 0
    }
}

/// `6 September 2021`, `September 6, 2021`, `2021 September 6`, `06-Sep-21`. A year of two digits is only understood as
/// RFC 822 writes it: day, month, year.
fn named_month(numbers: &[DateNumber], month: i64, before: usize) -> Option<NaiveDate> {
    let [a, b] = numbers else { return None };
    match (a.digits, b.digits) {
        (4, 1..=2) => day(a.value, month, b.value),
        (1..=2, 4) => day(b.value, month, a.value),
        (1..=2, 2..=3) if before == 1 => day(full_year(b)?, month, a.value),
        _ => None,
    }
}

/// The year of two digits as in RFC 2822 §4.3 where POSIX agrees: 1950 to 1968 are 2050 to 2068 there. Of three digits,
/// the years since 1900, as JavaScript and Perl count.
fn full_year(year: &DateNumber) -> Option<i64> {
    match (year.digits, year.value) {
        (4, value) => Some(value),
        (3, value @ 100..) => Some(1900 + value),
        (2, value @ 0..50) => Some(2000 + value),
        (2, value @ 69..) => Some(1900 + value),
        _ => None,
    }
}

fn day(year: i64, month: i64, day: i64) -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, u32::try_from(month).ok()?, u32::try_from(day).ok()?)
}
