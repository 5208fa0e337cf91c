//! The hours and days on which a feed asks for no visits (RSS 2.0, `skipHours` and `skipDays`).

use news::Timestamp;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

pub(super) struct Calendar {
    /// Bit n: hour n of the day is skipped.
    hours: u32,
    /// Bit n: day n of the week is skipped; Monday is 0.
    days: u32,
}

impl Calendar {
    /// A calendar that skips all hours or all days is ignored.
    pub(super) fn new(hours: u32, days: u8) -> Self {
        let valid = |set: u32, all: u32| if set & all == all { 0 } else { set & all };
        Self { hours: valid(hours, 0x00ff_ffff), days: valid(days.into(), 0x7f) }
    }

    fn is_skipped(&self, at: Timestamp) -> bool {
        let hour = at.millis().rem_euclid(DAY_MS) / HOUR_MS;
        // 1970-01-01 was a Thursday, day 3.
        let day = (at.millis().div_euclid(DAY_MS) + 3).rem_euclid(7);
        self.hours >> hour & 1 == 1 || self.days >> day & 1 == 1
    }

    /// `at`, or the start of the next hour that is not skipped; never after `latest`.
    pub(super) fn first_allowed(&self, at: Timestamp, latest: Timestamp) -> Timestamp {
        let mut hour = at;
        while hour < latest && self.is_skipped(hour) {
            let next = (hour.millis().div_euclid(HOUR_MS) + 1).saturating_mul(HOUR_MS);
            hour = Timestamp::from_millis(next);
        }
        hour.min(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_skipped_hour_ends_at_the_next_full_hour_that_is_allowed() {
        let calendar = Calendar::new(0b1101, 0);
        let latest = at("2026-03-03T00:00:00Z");
        for (asked, expected) in [
            ("2026-03-02T01:59:59Z", "2026-03-02T01:59:59Z"),
            ("2026-03-02T02:00:00Z", "2026-03-02T04:00:00Z"),
            ("2026-03-02T03:59:59Z", "2026-03-02T04:00:00Z"),
            ("2026-03-02T00:30:00Z", "2026-03-02T01:00:00Z"),
        ] {
            assert_eq!(calendar.first_allowed(at(asked), latest), at(expected), "{asked}");
        }
    }

    #[test]
    fn a_skipped_day_ends_at_midnight_in_utc() {
        let calendar = Calendar::new(0, 1 << 5);
        // 2026-03-07 is a Saturday.
        let latest = at("2026-03-09T00:00:00Z");
        assert_eq!(calendar.first_allowed(at("2026-03-07T13:15:00Z"), latest), at("2026-03-08T00:00:00Z"));
        assert_eq!(calendar.first_allowed(at("2026-03-08T13:15:00Z"), latest), at("2026-03-08T13:15:00Z"));
    }

    #[test]
    fn a_calendar_of_nothing_but_skips_is_ignored() {
        let now = at("2026-03-07T13:15:00Z");
        assert_eq!(Calendar::new(u32::MAX, u8::MAX).first_allowed(now, at("2027-01-01T00:00:00Z")), now);
    }
}
