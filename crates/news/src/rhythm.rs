//! When a source had new items, as its visits found them: what its dates say may be wrong or missing.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// When the visits of a source found new items. Seconds since 1970; 0 is unknown. The items of its first visit do not
/// count: it is not known when they appeared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewsRhythm {
    /// When new items were last found.
    pub last_s: u32,
    /// The newest item has appeared after this time.
    pub one_since_s: u32,
    /// The two newest items have appeared after this time.
    pub two_since_s: u32,
}

impl NewsRhythm {
    /// A visit at `now` found `items` new ones, which have appeared after `since`.
    pub fn note(&mut self, items: u32, since: Timestamp, now: Timestamp) {
        if items == 0 {
            return;
        }
        let since_s = seconds(since);
        self.two_since_s = if items == 1 { self.one_since_s } else { since_s };
        (self.one_since_s, self.last_s) = (since_s, seconds(now));
    }

    /// After which time the newest item has appeared, and the two newest; `None` if unknown.
    #[must_use]
    pub fn since(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        (time(self.one_since_s), time(self.two_since_s))
    }
}

fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.millis().div_euclid(1000).max(0)).unwrap_or(u32::MAX)
}

fn time(seconds: u32) -> Option<Timestamp> {
    (seconds > 0).then(|| Timestamp::from_millis(i64::from(seconds) * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + minute * 60_000)
    }

    #[test]
    fn the_two_newest_items_have_appeared_after_the_visit_before_the_first_of_them_was_found() {
        let mut rhythm = NewsRhythm::default();
        assert_eq!(rhythm.since(), (None, None));
        rhythm.note(1, at(0), at(5));
        assert_eq!(rhythm.since(), (Some(at(0)), None));
        rhythm.note(0, at(5), at(10));
        rhythm.note(1, at(10), at(15));
        assert_eq!(rhythm.since(), (Some(at(10)), Some(at(0))));
        rhythm.note(7, at(60), at(90));
        assert_eq!(rhythm.since(), (Some(at(60)), Some(at(60))));
    }
}
