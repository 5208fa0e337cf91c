//! How long an item takes from its publication to the wire, by kind of server.

use std::{collections::BTreeMap, fmt::Write as _};

use news::{Event, EventKind, Seq};

use super::server_profiles::ServerProfile;

/// Events in one page of the log.
const PAGE_EVENTS: usize = 500;
const PAGE_BYTES: usize = 1 << 20;

/// The delay of every item that was published after the start, in milliseconds.
#[derive(Default)]
pub(super) struct WireDelays {
    after: Option<Seq>,
    by_feed: BTreeMap<&'static str, Vec<i64>>,
}

impl WireDelays {
    /// Adds what a run of the daemon has recorded since the last one.
    pub(super) fn add(&mut self, log: &store::LogReader, profiles: &[ServerProfile], since_ms: i64) {
        loop {
            let after = self.after.unwrap_or(Seq::NONE);
            let page = log.page(after, PAGE_EVENTS, PAGE_BYTES).unwrap();
            assert_eq!(page.missed, 0, "retention must not remove what is measured");
            let Some(last) = page.records.last() else { return };
            self.after = Some(last.seq);
            for record in page.records.iter().filter(|record| record.kind == EventKind::Item) {
                let event: Event = serde_json::from_str(&record.json).unwrap();
                let profile = profiles.iter().find(|profile| profile.name == event.source.as_str()).unwrap();
                let version = event.item.guid.as_deref().unwrap().parse().unwrap();
                let born_ms = profile.born_ms(version);
                if born_ms >= since_ms {
                    let delay_ms = record.recorded.millis() - born_ms;
                    self.by_feed.entry(profile.name).or_default().push(delay_ms);
                }
            }
        }
    }

    /// The delays of a feed, the shortest first.
    pub(super) fn of(&self, name: &str) -> Vec<i64> {
        let mut delays = self.by_feed.get(name).cloned().unwrap_or_default();
        delays.sort_unstable();
        delays
    }

    /// One line per feed. Missed are the items that the document no longer had at the next visit.
    pub(super) fn card(&self, profiles: &[ServerProfile], since_ms: i64, until_ms: i64) -> String {
        let head = ["items", "missed", "median", "95 %"];
        let [items, missed, median, most] = head;
        let mut card = format!("{:<26}{items:>7}{missed:>8}{median:>12}{most:>12}\n", "publication to wire");
        let mut line = |name: &str, delays: &[i64], missed: u64| {
            let [median, most] = [part(delays, 50), part(delays, 95)].map(minutes);
            writeln!(card, "{name:<26}{:>7}{missed:>8}{median:>12}{most:>12}", delays.len()).unwrap();
        };
        let (mut all, mut missed_in_all) = (Vec::new(), 0);
        for profile in profiles {
            let delays = self.of(profile.name);
            let until_ms = profile.gone_after.map_or(until_ms, |after| since_ms + ms(after));
            let published = profile.version(until_ms) - profile.version(since_ms - 1);
            let missed = published.saturating_sub(delays.len() as u64);
            line(profile.name, &delays, missed);
            all.extend(delays);
            missed_in_all += missed;
        }
        all.sort_unstable();
        line("all", &all, missed_in_all);
        card
    }
}

/// The delay that so many percent of the delays do not exceed.
pub(super) fn part(delays: &[i64], percent: usize) -> i64 {
    delays.get((delays.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

fn ms(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

fn minutes(ms: i64) -> String {
    format!("{}.{} min", ms / 60_000, ms % 60_000 / 6_000)
}
