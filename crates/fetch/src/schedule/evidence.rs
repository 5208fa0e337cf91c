//! What a feed publishes decides before what its document and its server say about it.
//!
//! Hints slow down feeds that are quiet. A feed that had two items in the last hour is not: it is visited after
//! `interval_min`, in hours and on days that it skips as well. Between the two, a hint counts for as many of the feed's gaps as one gap has half hours: with an item
//! every half hour the feed's own rhythm holds, with one every hour a hint makes it two hours, with one every four hours
//! up to 32.

use std::time::Duration;

use news::Timestamp;

use super::{ScheduleInput, rhythm::mean_gap};

/// So long ago is now.
const BURST: Duration = Duration::from_secs(3600);
/// Items within that time that make a burst.
const BURST_ITEMS: u32 = 2;
/// The gap of a feed whose hints count for no more than one gap.
const GAP_OF_A_BUSY_FEED: Duration = Duration::from_secs(1800);
/// Fewer items say nothing about how often a feed publishes.
const ITEMS_MIN: usize = 4;

/// What the visits of a source recorded as new, which needs no dates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordedNews {
    /// At least two items have appeared after this time; `None` if unknown.
    pub two_since: Option<Timestamp>,
    /// An item has appeared after this time; `None` if unknown.
    pub one_since: Option<Timestamp>,
    /// Items that are new at this visit, as far as that is known.
    pub found: u32,
    /// They have appeared after this time; `None` if unknown, as at the first visit.
    pub found_since: Option<Timestamp>,
}

/// The number of items that the feed published within the last hour, if they are enough for a burst. A lower bound where
/// the items have no dates.
pub(super) fn burst(input: &ScheduleInput<'_>) -> Option<u32> {
    if input.every.is_some() {
        return None;
    }
    let is_lately = |at: &Timestamp| *at <= input.now && input.now.since(*at) < BURST;
    let dated = input.recent.iter().filter(|at| is_lately(at)).count();
    let dated = u32::try_from(dated).unwrap_or(u32::MAX);
    let RecordedNews { two_since, one_since, found, found_since } = input.recorded;
    // A feed may date all of its items to the time of the request.
    let is_recorded = found > 0 || input.quiet_for.is_none_or(|quiet| quiet < BURST);
    let before = if two_since.as_ref().is_some_and(is_lately) {
        BURST_ITEMS
    } else {
        u32::from(one_since.as_ref().is_some_and(is_lately))
    };
    let found = if found_since.as_ref().is_some_and(is_lately) { found } else { 0 };
    let items = if is_recorded { dated } else { 0 }.max(found.saturating_add(before));
    (items >= BURST_ITEMS).then_some(items)
}

/// How far a hint may stretch the interval.
pub(super) struct HintLimit {
    pub(super) wait: Duration,
    /// The mean time between two items.
    pub(super) gap: Duration,
}

/// `None` if it is unknown how often the feed publishes.
pub(super) fn hint_limit(input: &ScheduleInput<'_>) -> Option<HintLimit> {
    let (items, gap) = mean_gap(input)?;
    if items < ITEMS_MIN {
        return None;
    }
    let gaps = gap.as_secs_f64() / GAP_OF_A_BUSY_FEED.as_secs_f64();
    // More than a year is no limit.
    let wait = Duration::from_secs_f64((gap.as_secs_f64() * gaps.max(1.0)).min(3.2e7));
    Some(HintLimit { wait, gap })
}
