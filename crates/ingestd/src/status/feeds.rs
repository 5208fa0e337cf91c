//! How the last visits of all sources ended, counted in the walk over them that the diagnostics make: see [`FeedsReport`].

use std::{collections::HashSet, fs::File, io::Read as _, sync::Arc};

use control::watch::{FeedTrouble, FeedsReport, SlowFeed};
use news::{ProxyChoice, Timestamp};

use super::{
    activity::Activity,
    registry::{EndedVisit, SourceEntry, SourceSnapshot},
};

/// The file of libc's resolver, which looks the names up (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// A larger file is read up to here.
const RESOLV_CONF_BYTES_MAX: u64 = 65_536;
/// libc uses the first three (MAXNS).
const NAMESERVERS_MAX: usize = 3;

/// What is counted so far.
#[derive(Debug, Default)]
pub(crate) struct FeedCounts<'a> {
    report: FeedsReport,
    slowest: Option<(u64, &'a Arc<SourceEntry>)>,
    hosts: HashSet<&'a str>,
    /// When the failing ones were visited last, but for those that have failed for long.
    failed_at: Vec<Timestamp>,
    last_success: Option<Timestamp>,
    /// The proxy of those that fail at one, as long as all have the same.
    proxy: ProxyInCommon,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum ProxyInCommon {
    #[default]
    NoneSoFar,
    One(String),
    Several,
}

impl<'a> FeedCounts<'a> {
    /// Counts a source.
    pub(crate) fn add(&mut self, entry: &'a Arc<SourceEntry>, snapshot: &SourceSnapshot, now: Timestamp) {
        if matches!(snapshot.activity, Activity::Paused | Activity::Disabled) {
            return;
        }
        let report = &mut self.report;
        report.watched += 1;
        report.visited += u64::from(snapshot.ended.is_some());
        report.never_visited += u64::from(snapshot.last_visit.is_none());
        report.waiting += u64::from(snapshot.activity == Activity::Waiting);
        if snapshot.waits_for_slot {
            let since = snapshot.since.map_or(0, |since| millis_since(since, now));
            report.waiting_for_slot += 1;
            report.slot_wait_ms = report.slot_wait_ms.max(since);
        }
        self.last_success = self.last_success.max(snapshot.last_success);
        self.add_slow(entry, snapshot, now);
        match snapshot.ended {
            Some(EndedVisit { trouble: Some(trouble), .. }) => self.add_failing(entry, snapshot, trouble),
            Some(EndedVisit { trouble: None, .. }) => self.report.succeeded += 1,
            None => {}
        }
    }

    fn add_failing(&mut self, entry: &'a Arc<SourceEntry>, snapshot: &SourceSnapshot, trouble: FeedTrouble) {
        *self.report.failing.entry(trouble).or_default() += 1;
        self.report.failing_long += u64::from(snapshot.is_failing_long);
        self.report.hanging += u64::from(trouble == FeedTrouble::Timeout);
        // What has failed for long fails whether others succeed or not.
        self.failed_at.extend(snapshot.last_visit.filter(|_| !snapshot.is_failing_long));
        self.hosts.extend(entry.source.url.secret().host_str());
        if trouble == FeedTrouble::Proxy {
            let proxy = entry.source.access.proxy.as_ref().and_then(ProxyChoice::proxy);
            self.proxy.add(proxy.map(ToString::to_string));
        }
    }

    fn add_slow(&mut self, entry: &'a Arc<SourceEntry>, snapshot: &SourceSnapshot, now: Timestamp) {
        let fetching_since = snapshot.since.filter(|_| snapshot.activity == Activity::Fetching);
        let in_progress = fetching_since.map_or(0, |since| millis_since(since, now));
        let last = snapshot.ended.map_or(0, |ended| u64::from(ended.waited_ms));
        let took = in_progress.max(last);
        if took < FeedsReport::SLOW_MS {
            return;
        }
        self.report.slow += 1;
        self.report.slow_now += u64::from(in_progress >= FeedsReport::SLOW_MS);
        if self.slowest.is_none_or(|(longest, _)| longest < took) {
            self.slowest = Some((took, entry));
        }
    }

    /// `slots` is `fetch.in_flight`. Reads `resolv.conf` if lookups fail, which may block.
    pub(crate) fn into_report(self, now: Timestamp, slots: usize) -> FeedsReport {
        let Self { report, slowest, hosts, failed_at, last_success, proxy } = self;
        let lookups_fail =
            [FeedTrouble::Dns, FeedTrouble::DnsTimeout].iter().any(|it| report.failing.contains_key(it));
        let slow_feed = |(took_ms, entry): (u64, &Arc<SourceEntry>)| SlowFeed {
            source: entry.source.id.to_string(),
            took_ms,
        };
        FeedsReport {
            failing_hosts: hosts.len() as u64,
            failing_since_success: failed_at
                .iter()
                .filter(|at| last_success.is_none_or(|last| **at > last))
                .count() as u64,
            last_success_ms_ago: last_success.map(|last| millis_since(last, now)),
            slowest: slowest.map(slow_feed),
            slots: slots as u64,
            resolvers: if lookups_fail { read_nameservers() } else { Vec::new() },
            proxy: match proxy {
                ProxyInCommon::One(proxy) => Some(proxy),
                ProxyInCommon::NoneSoFar | ProxyInCommon::Several => None,
            },
            ..report
        }
    }
}

fn millis_since(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX)
}

impl ProxyInCommon {
    fn add(&mut self, proxy: Option<String>) {
        *self = match (std::mem::take(self), proxy) {
            (Self::NoneSoFar, Some(proxy)) => Self::One(proxy),
            (Self::One(known), Some(proxy)) if known == proxy => Self::One(known),
            _ => Self::Several,
        };
    }
}

#[expect(clippy::disallowed_methods, reason = "on the thread that reads the diagnostics")]
fn read_nameservers() -> Vec<String> {
    let mut text = String::new();
    let read =
        File::open(RESOLV_CONF).and_then(|file| file.take(RESOLV_CONF_BYTES_MAX).read_to_string(&mut text));
    // Without the file, libc asks the machine itself.
    if read.is_err() { vec!["127.0.0.1".to_owned()] } else { nameservers(&text) }
}

fn nameservers(resolv_conf: &str) -> Vec<String> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().map(str::to_owned)).flatten()
    };
    resolv_conf.lines().filter_map(address).take(NAMESERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use news::{FeedUrl, Source, SourceId, SourceState};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000_000)
    }

    fn ago(seconds: u64) -> Timestamp {
        Timestamp::from_millis(now().millis() - 1000 * i64::try_from(seconds).unwrap())
    }

    fn entry(n: usize, ended: Option<EndedVisit>, state: SourceState) -> Arc<SourceEntry> {
        let url = FeedUrl::try_new(&format!("https://host{n}.example/")).unwrap();
        let source = Source::new(SourceId::try_new(&format!("s{n}")).unwrap(), url);
        let entry = SourceEntry::new(Arc::new(source), state);
        if let Some(ended) = ended {
            entry.set_ended(ended);
        }
        Arc::new(entry)
    }

    fn visited(at: u64, success: Option<u64>) -> SourceState {
        SourceState { last_visit: Some(ago(at)), last_success: success.map(ago), ..SourceState::default() }
    }

    fn ended(trouble: Option<FeedTrouble>, waited_ms: u32) -> Option<EndedVisit> {
        Some(EndedVisit { trouble, waited_ms })
    }

    fn report(entries: &[Arc<SourceEntry>]) -> FeedsReport {
        let mut counts = FeedCounts::default();
        for entry in entries {
            counts.add(entry, &entry.try_snapshot(now()).unwrap(), now());
        }
        counts.into_report(now(), 256)
    }

    #[test]
    fn every_source_is_counted_by_how_its_last_visit_ended() {
        let day = 24 * 3600;
        let mut entries = vec![
            entry(0, ended(None, 40), visited(30, Some(30))),
            entry(1, ended(Some(FeedTrouble::Dns), 0), visited(20, Some(90))),
            entry(2, ended(Some(FeedTrouble::Dns), 0), visited(40, Some(9 * day))),
            entry(3, ended(Some(FeedTrouble::HttpStatus), 70), visited(10, None)),
            entry(4, None, visited(3 * day, Some(3 * day))),
            entry(5, None, SourceState::default()),
        ];
        let disabled = Source { enabled: false, ..Source::clone(&entries[0].source) };
        entries.push(Arc::new(SourceEntry::new(Arc::new(disabled), SourceState::default())));
        let feeds = report(&entries);
        assert_eq!((feeds.watched, feeds.visited, feeds.succeeded, feeds.never_visited), (6, 4, 1, 1));
        assert_eq!(feeds.failing, [(FeedTrouble::Dns, 2), (FeedTrouble::HttpStatus, 1)].into());
        assert_eq!((feeds.failing_long, feeds.failing_hosts), (1, 3));
        assert_eq!((feeds.last_success_ms_ago, feeds.failing_since_success), (Some(30_000), 2));
        assert!(!feeds.resolvers.is_empty(), "lookups fail");
    }

    #[test]
    fn slow_feeds_are_counted_beyond_any_list() {
        let slow = |n| {
            entry(n, ended((n % 2 == 0).then_some(FeedTrouble::Timeout), 5_000 + n as u32), visited(1, None))
        };
        let mut entries: Vec<_> = (0..10_000).map(slow).collect();
        entries.push(entry(10_000, ended(None, 4_999), visited(1, Some(1))));
        let now = entry(10_001, None, SourceState::default());
        now.set_activity(Activity::Fetching, ago(40));
        entries.push(now);
        let feeds = report(&entries);
        assert_eq!((feeds.slow, feeds.slow_now, feeds.hanging), (10_001, 1, 5_000));
        assert_eq!(feeds.slowest, Some(SlowFeed { source: "s10001".into(), took_ms: 40_000 }));
        assert!(feeds.resolvers.is_empty(), "no lookup fails");
    }

    #[test]
    fn a_proxy_is_named_if_all_that_fail_at_one_have_the_same() {
        let behind = |n, proxy: &str| {
            let mut source = Source::clone(&entry(n, None, SourceState::default()).source);
            source.access.proxy = Some(ProxyChoice::Via(news::ProxyUrl::try_new(proxy).unwrap()));
            let entry = SourceEntry::new(Arc::new(source), visited(1, None));
            entry.set_ended(EndedVisit { trouble: Some(FeedTrouble::Proxy), waited_ms: 0 });
            Arc::new(entry)
        };
        let (a, b) = ("http://a.example:3128", "http://b.example:3128");
        assert!(report(&[behind(1, a), behind(2, a)]).proxy.unwrap().contains("a.example"));
        assert_eq!(report(&[behind(1, a), behind(2, b), behind(3, a)]).proxy, None);
    }

    #[test]
    fn the_first_three_nameservers_are_those_that_libc_asks() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\n nameserver\t::1 # local\n\
                    nameserver\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        assert_eq!(nameservers(text), ["192.0.2.1", "::1", "192.0.2.3"]);
    }
}
