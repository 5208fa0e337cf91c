//! How long a source is usually silent, as its visits found it, and when it is silent for much longer: then it is quiet,
//! although it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Unit of a stored silence, in seconds.
const UNIT_S: u32 = 300;
/// So many silences must be known before a source can be quiet.
const COUNT_MIN: u8 = 8;
const DAY: Duration = Duration::from_secs(86_400);
/// They must be those of so many days.
const KNOWN_MIN: Duration = Duration::from_secs(14 * 86_400);
/// No source is quiet sooner after its last news.
const QUIET_MIN: Duration = Duration::from_secs(2 * 86_400);
/// The longest silence counts half after so many days: one that was a holiday is still known a year later.
const HALF_LIFE_DAYS: f64 = 365.0;
/// The mean is that of about so many silences.
const MEAN_OF: u8 = 8;

/// The times between visits that found something new or changed. The time before the first such visit is unknown, so it
/// does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Silences {
    /// The mean of the newest ones, in units.
    mean: u16,
    /// The longest, in units.
    longest: u16,
    /// The day when that ended, in days since 1970.
    longest_day: u16,
    /// The day since when they are known; 0 if none is.
    first_day: u16,
    /// How many are known, at most 255.
    count: u8,
}

/// A source that answers, and has had nothing new for much longer than usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// When something new was last recorded.
    pub since: Timestamp,
    /// How often there was something new before, in seconds.
    pub usually_every_s: u32,
}

impl Silences {
    /// A visit at `now` found something new, for the first time since `last_news`.
    pub fn note(&mut self, last_news: Timestamp, now: Timestamp) {
        if self.first_day == 0 {
            self.first_day = day(now);
            return;
        }
        let silence = units(now.since(last_news));
        if f64::from(silence) >= self.longest_at(now) {
            (self.longest, self.longest_day) = (silence, day(now));
        }
        let of = i32::from(self.count.saturating_add(1).min(MEAN_OF));
        let step = (i32::from(silence) - i32::from(self.mean)) / of;
        self.mean = u16::try_from(i32::from(self.mean) + step).unwrap_or(u16::MAX);
        self.count = self.count.saturating_add(1);
    }

    /// Whether a source is quiet at `now` that had something new at `last_news` last. Never if its usual silences are not
    /// known, because it is new or publishes too seldom.
    #[must_use]
    pub fn quiet(&self, last_news: Timestamp, now: Timestamp) -> Option<Quiet> {
        let known = u32::from(day(last_news).saturating_sub(self.first_day)) * DAY;
        if self.count < COUNT_MIN || known < KNOWN_MIN {
            return None;
        }
        let longest = time(self.longest_at(last_news));
        let mean = time(f64::from(self.mean));
        let limit = (longest * 3).max(mean * 8).max(QUIET_MIN);
        (now.since(last_news) > limit)
            .then(|| Quiet { since: last_news, usually_every_s: u32::from(self.mean.max(1)) * UNIT_S })
    }

    /// What the longest silence still counts, in units.
    fn longest_at(&self, now: Timestamp) -> f64 {
        let age = f64::from(day(now).saturating_sub(self.longest_day));
        f64::from(self.longest) * (-age / HALF_LIFE_DAYS).exp2()
    }
}

fn day(at: Timestamp) -> u16 {
    u16::try_from((at.millis() / 86_400_000).max(1)).unwrap_or(u16::MAX)
}

fn units(silence: Duration) -> u16 {
    u16::try_from(silence.as_secs() / u64::from(UNIT_S)).unwrap_or(u16::MAX)
}

fn time(units: f64) -> Duration {
    Duration::from_secs(u64::from(UNIT_S)).mul_f64(units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + hour * 3_600_000)
    }

    /// A source that had news at each of these hours.
    fn with_news(hours: &[i64]) -> (Silences, Timestamp) {
        let mut silences = Silences::default();
        for two in hours.windows(2) {
            silences.note(at(two[0]), at(two[1]));
        }
        (silences, at(*hours.last().unwrap()))
    }

    /// After how many hours without news it is quiet.
    fn quiet_after(hours: &[i64]) -> Option<i64> {
        let (silences, last) = with_news(hours);
        let is_quiet = |silent: &i64| silences.quiet(last, at(hours.last().unwrap() + silent)).is_some();
        (0..3 * 8760).find(is_quiet)
    }

    fn every(hours: i64, times: i64) -> Vec<i64> {
        (0..=times).map(|n| n * hours).collect()
    }

    #[test]
    fn a_source_is_quiet_after_much_longer_than_its_own_silences() {
        assert_eq!(quiet_after(&every(1, 500)), Some(49), "never within two days");
        assert_eq!(quiet_after(&every(24, 30)), Some(8 * 24 + 1));
        assert_eq!(quiet_after(&every(7 * 24, 12)), Some(8 * 7 * 24 + 1));
        let mut with_a_break = every(24, 30);
        with_a_break.extend((0..20).map(|n| (30 + 10 + n) * 24));
        assert_eq!(quiet_after(&with_a_break), Some(29 * 24 - 1), "almost thrice the break of 10 days");
        let quiet = with_news(&every(24, 30)).0.quiet(at(0), at(30 * 24));
        assert_eq!(quiet, None, "the rhythm was not known then");
        let (silences, last) = with_news(&every(24, 30));
        let quiet = silences.quiet(last, at(60 * 24)).unwrap();
        assert_eq!((quiet.since, quiet.usually_every_s), (last, 86_400));
    }

    #[test]
    fn a_source_whose_rhythm_is_not_known_for_two_weeks_and_eight_silences_is_never_quiet() {
        assert_eq!(quiet_after(&every(1, 13 * 24)), None, "13 days");
        assert_eq!(quiet_after(&every(30 * 24, 8)), None, "seven silences of a month");
        assert!(quiet_after(&every(30 * 24, 9)).is_some());
        // One burst is no rhythm, however long ago it is.
        assert_eq!(quiet_after(&every(1, 20)), None);
    }

    #[test]
    fn a_holiday_is_still_known_a_year_later() {
        // 28 days of summer break, then a year of news on each day.
        let mut hours = every(24, 60);
        hours.extend((0..337).map(|n| (60 + 28 + n) * 24));
        let after = quiet_after(&hours).unwrap() / 24;
        assert!((35..50).contains(&after), "{after} days");
        hours.extend((0..3 * 365).map(|n| (60 + 28 + 337 + n) * 24));
        let later = quiet_after(&hours).unwrap() / 24;
        assert!(later < 12, "{later} days, three years after");
    }

    proptest! {
        #[test]
        fn no_source_is_quiet_within_two_days_or_a_silence_that_it_just_had(
            steps in prop::collection::vec(0_i64..3000, 1..60), silent in 0_i64..3000
        ) {
            let mut hours = vec![0];
            for step in &steps {
                hours.push(hours.last().unwrap() + step);
            }
            let (silences, last) = with_news(&hours);
            let now = at(hours.last().unwrap() + silent);
            let recent = steps.iter().skip(1).rev().take(8).max().copied().unwrap_or(0);
            if silent <= 48 || silent <= recent {
                prop_assert_eq!(silences.quiet(last, now), None);
            }
        }

        #[test]
        fn no_clock_makes_it_panic(times in prop::collection::vec(any::<i64>(), 2..30)) {
            let mut silences = Silences::default();
            for two in times.windows(2) {
                let (last, now) = (Timestamp::from_millis(two[0]), Timestamp::from_millis(two[1]));
                silences.note(last, now);
                if let Some(quiet) = silences.quiet(last, now) {
                    prop_assert!(quiet.since == last && quiet.usually_every_s > 0);
                }
            }
        }
    }
}
