//! Rules about the feeds: whether they fail, and what those that fail have in common.

use std::collections::BTreeMap;

use control::watch::{BusySource, FeedTrouble, FeedsReport, IngestVitals};

use super::{DoctorVerdict, Evidence, VerdictCode, duration, safe};

/// So many percent of the visited feeds must fail. A wire may well have many dead feeds.
const FAILING_PERCENT: u64 = 50;
/// Of fewer visited feeds, all must fail.
const VISITED_MIN: u64 = 3;
/// So many visited feeds stand for all others; of fewer, the first to fail may only be the fastest.
const SETTLED_VISITS: u64 = 20;
/// A daemon that has run for longer has finished what it began with, however few feeds that is.
const SETTLED_MS: u64 = 60_000;
/// So many feeds that fail one after the other, and none that succeeds, are no coincidence.
const IN_A_ROW_MIN: u64 = 12;
/// A cause that so many percent of the failing feeds have in common is the likely one.
const COMMON_PERCENT: u64 = 80;
/// So many percent of the visited feeds are slow, unless one is waited for now.
const SLOW_PERCENT: u64 = 1;
/// Feeds that hang are slow. If none has answered for so long, they fail.
const SILENT_MS: u64 = 300_000;
/// The longest list of busiest sources that a daemon reports.
const BUSIEST_MAX: usize = 50;

/// A large part of the feeds fails.
pub(super) fn feeds_failing(evidence: &Evidence) -> Option<DoctorVerdict> {
    // Health checks restart what is sick, and a restart helps no feed.
    if evidence.quick {
        return None;
    }
    let vitals = evidence.ingestd.ingest_vitals()?;
    let feeds = vitals.sources.as_ref().and_then(|sources| sources.feeds.as_deref());
    let uptime_ms = evidence.ingestd.uptime_ms().unwrap_or(0);
    let is_settled = uptime_ms > SETTLED_MS;
    let extent = match feeds {
        _ if vitals.outage => "most hosts that answered before are unreachable".to_owned(),
        Some(feeds) => extent(feeds, is_settled, uptime_ms)?,
        None => return None,
    };
    let Some(feeds) = feeds else {
        let line = format!("{extent}: probably the network of this machine is down");
        return Some(DoctorVerdict::new(VerdictCode::FeedsFailing, line, network_steps()));
    };
    let LikelyCause { what, next } = likely_cause(feeds);
    let line = format!("{extent}: {what}{}", counts(feeds));
    Some(DoctorVerdict::new(VerdictCode::FeedsFailing, line, next))
}

/// How much fails, in words; `None` if that is not much, or if feeds rather hang than fail, unless none has answered for
/// [`SILENT_MS`].
fn extent(feeds: &FeedsReport, is_settled: bool, uptime_ms: u64) -> Option<String> {
    let failing = feeds.failing_total();
    let hanging = feeds.failing.get(&FeedTrouble::Timeout).copied().unwrap_or(0);
    let is_silent = feeds.last_success_ms_ago.unwrap_or(uptime_ms).min(uptime_ms) >= SILENT_MS;
    if (failing - hanging) * 2 < failing && !(feeds.succeeded == 0 && is_silent) {
        return None;
    }
    let visited = feeds.visited;
    let is_settled = is_settled || visited >= feeds.watched.min(SETTLED_VISITS);
    if failing > 0 && feeds.succeeded == 0 && is_settled {
        return Some(match visited {
            1 => "the only feed that was visited fails".to_owned(),
            _ => format!("all {visited} feeds that were visited fail"),
        });
    }
    let (young, of) = (failing - feeds.failing_long.min(failing), visited - feeds.failing_long.min(visited));
    if of >= VISITED_MIN && young * 100 >= of * FAILING_PERCENT && is_settled {
        return Some(format!("{failing} of {visited} feeds fail"));
    }
    (feeds.failing_since_success >= IN_A_ROW_MIN).then(|| {
        let ago = feeds.last_success_ms_ago.map(|ms| format!(", {} ago", duration(ms))).unwrap_or_default();
        format!("{} feeds have failed since the last one that succeeded{ago}", feeds.failing_since_success)
    })
}

/// ` (20 dns-timeout, 3 http-status)`
fn counts(feeds: &FeedsReport) -> String {
    let mut classes: Vec<_> = feeds.failing.iter().filter(|(_, count)| **count > 0).collect();
    classes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words: Vec<_> =
        classes.iter().map(|(trouble, count)| format!("{count} {}", trouble.as_str())).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// What the failing feeds have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum CommonCause {
    Resolver,
    Network,
    OneHost,
    Proxy,
    Tls,
    Refusal,
    Servers,
    Documents,
    Policy,
    Configuration,
    Bug,
    Unknown,
}

impl CommonCause {
    fn of(trouble: FeedTrouble) -> Self {
        match trouble {
            FeedTrouble::Dns | FeedTrouble::DnsTimeout => Self::Resolver,
            FeedTrouble::Connect | FeedTrouble::ConnectTimeout => Self::Network,
            FeedTrouble::Proxy => Self::Proxy,
            FeedTrouble::Tls => Self::Tls,
            FeedTrouble::Throttled | FeedTrouble::Refused => Self::Refusal,
            FeedTrouble::HttpStatus | FeedTrouble::Timeout => Self::Servers,
            FeedTrouble::BadResponse | FeedTrouble::NotAFeed => Self::Documents,
            FeedTrouble::BlockedAddress => Self::Policy,
            FeedTrouble::Configuration => Self::Configuration,
            FeedTrouble::Internal => Self::Bug,
            FeedTrouble::Other => Self::Unknown,
        }
    }
}

struct LikelyCause {
    what: String,
    next: Vec<String>,
}

const WHICH: &str = "newswire sources list --failing   # which, and the error of each";
const CHECK: &str = "newswire check ID   # with the id of one of them: every step of its visit";

impl LikelyCause {
    fn new(what: &str, step: &str) -> Self {
        Self { what: what.to_owned(), next: vec![WHICH.to_owned(), step.to_owned()] }
    }
}

/// The cause of nearly all of the failing ones; `None` if there is none.
fn common_cause(feeds: &FeedsReport) -> Option<CommonCause> {
    let mut causes = BTreeMap::<CommonCause, u64>::new();
    for (trouble, count) in &feeds.failing {
        *causes.entry(CommonCause::of(*trouble)).or_default() += count;
    }
    let (cause, count) = causes.into_iter().max_by_key(|(_, count)| *count)?;
    let is_one_host = feeds.failing_hosts == 1 && feeds.failing_total() > 1;
    let cause = match cause {
        CommonCause::Network | CommonCause::Servers if is_one_host => CommonCause::OneHost,
        cause => cause,
    };
    (count * 100 >= feeds.failing_total() * COMMON_PERCENT).then_some(cause)
}

fn is_common(feeds: &FeedsReport, trouble: FeedTrouble) -> bool {
    let count = feeds.failing.get(&trouble).copied().unwrap_or(0);
    count * 100 >= feeds.failing_total() * COMMON_PERCENT
}

fn likely_cause(feeds: &FeedsReport) -> LikelyCause {
    let Some(cause) = common_cause(feeds) else {
        return LikelyCause::new("they have no cause in common", CHECK);
    };
    match cause {
        CommonCause::Resolver => resolver(feeds),
        CommonCause::Network => LikelyCause {
            what: "no connection is established: the servers or a firewall refuse it, or the network of this machine is down"
                .to_owned(),
            next: network_steps(),
        },
        CommonCause::OneHost => LikelyCause::new("all of them are at one host, which does not work", CHECK),
        CommonCause::Proxy => {
            let proxy = feeds.proxy.as_deref().map(|proxy| format!("the proxy {}", safe(proxy)));
            let what = format!(
                "{} does not answer, or refuses to connect",
                proxy.as_deref().unwrap_or("their proxy")
            );
            LikelyCause::new(&what, "newswire config show | grep proxy   # is it the right one, does it run?")
        }
        CommonCause::Tls => LikelyCause::new(
            "no server is trusted: the clock of this machine is wrong, or its file of certificate authorities is missing \
             or old",
            "date -u; ls -lL /etc/ssl/certs/ca-certificates.crt   # is the time right, is the file there?",
        ),
        CommonCause::Refusal => LikelyCause::new(
            "the servers refuse or throttle the requests; they may have blocked the address of this machine, or the name \
             that newswire sends",
            CHECK,
        ),
        CommonCause::Servers if is_common(feeds, FeedTrouble::Timeout) => LikelyCause::new(
            "the servers take connections and do not answer in time: they, a firewall or a proxy in between may hang",
            CHECK,
        ),
        CommonCause::Servers => {
            LikelyCause::new("the network works, but the servers answer with errors", CHECK)
        }
        CommonCause::Documents => LikelyCause::new(
            "the network works, but what the servers send is not a feed: a login page, or the page of a proxy",
            CHECK,
        ),
        CommonCause::Policy => LikelyCause::new(
            "their addresses must not be visited: they lie in private networks",
            "newswire config show | grep allow   # fetch.allow names the private networks that may be visited",
        ),
        CommonCause::Configuration => LikelyCause::new(
            "their configuration cannot be used, such as a file with a password that cannot be read",
            "newswire config check   # the list of sources, and the files that it names",
        ),
        CommonCause::Bug => LikelyCause::new("newswire makes a mistake in their visits", super::BUNDLE),
        CommonCause::Unknown => LikelyCause::new("this version does not know why", CHECK),
    }
}

fn resolver(feeds: &FeedsReport) -> LikelyCause {
    let timeouts = feeds.failing.get(&FeedTrouble::DnsTimeout).copied().unwrap_or(0);
    let failed = feeds.failing.get(&FeedTrouble::Dns).copied().unwrap_or(0);
    let names = feeds.resolvers.iter().map(|name| safe(name)).collect::<Vec<_>>().join(" and ");
    let verb = if feeds.resolvers.len() > 1 { "do" } else { "does" };
    let what = match (names.is_empty(), timeouts > failed) {
        (true, _) => "the names of their hosts cannot be looked up".to_owned(),
        (false, true) => format!("the resolver {names} {verb} not answer"),
        (false, false) => {
            format!(
                "the names of their hosts cannot be looked up; the resolver {names} {verb} not work, or does not know them"
            )
        }
    };
    let next = [
        "getent hosts example.org   # does this machine find any name?",
        "cat /etc/resolv.conf   # the right resolver? With systemd-resolved: resolvectl status",
        WHICH,
    ];
    LikelyCause { what, next: next.map(str::to_owned).to_vec() }
}

fn network_steps() -> Vec<String> {
    let steps = [
        "ip route get 1.1.1.1   # is there a way out?",
        "newswire check ID   # with the id of any source: every step of its visit; visits resume by themselves",
    ];
    steps.map(str::to_owned).to_vec()
}

/// Feeds do not answer, or take long. Nothing waits for them but other feeds when all slots are taken.
pub(super) fn slow_feeds(evidence: &Evidence) -> Option<DoctorVerdict> {
    let vitals = evidence.ingestd.ingest_vitals()?;
    let Some(feeds) = vitals.sources.as_ref()?.feeds.as_deref() else { return slow_by_list(vitals) };
    let is_much = feeds.slow > 0 && feeds.slow * 100 >= feeds.visited * SLOW_PERCENT;
    let Some(slowest) = feeds.slowest.as_ref().filter(|_| feeds.slow_now > 0 || is_much) else {
        return slots_in_use(vitals, feeds);
    };
    let rest = if feeds.waiting_for_slot > 0 {
        format!(
            "; {} of {} slots are held by feeds that do not answer, and {} due visits wait for one",
            feeds.slow_now, feeds.slots, feeds.waiting_for_slot
        )
    } else if feeds.visited > 0 && feeds.succeeded == 0 {
        match feeds.last_success_ms_ago {
            Some(ago) => format!("; the last feed that answered did so {} ago", duration(ago)),
            None => "; no feed has answered so far".to_owned(),
        }
    } else {
        "; other feeds and clients do not wait for them".to_owned()
    };
    Some(slow_verdict("", feeds.slow, &slowest.source, slowest.took_ms, &rest))
}

/// Visits that are due wait long for a slot. None need be slow: a visit that takes long is stopped for those that wait.
fn slots_in_use(vitals: &IngestVitals, feeds: &FeedsReport) -> Option<DoctorVerdict> {
    if feeds.slot_wait_ms < FeedsReport::SLOT_WAIT_LATE_MS {
        return None;
    }
    let phases = vitals.sources.as_ref().map(|sources| sources.fetching.iter()).into_iter().flatten();
    let phase = phases.max_by_key(|(_, count)| **count).map(|(phase, count)| {
        format!("; {count} of the visits in progress wait in the phase {}", safe(phase))
    });
    let line = format!(
        "no hang: all {} slots are in use, and {} due visits wait for one, the longest for {}{}",
        feeds.slots,
        feeds.waiting_for_slot,
        duration(feeds.slot_wait_ms),
        phase.unwrap_or_default()
    );
    let next =
        ["newswire sources list --failing   # raise fetch.in_flight if the servers answer, only slowly"];
    Some(DoctorVerdict::new(VerdictCode::SlowFeeds, line, next.map(str::to_owned)))
}

/// Of a daemon that reports only its busiest sources.
fn slow_by_list(vitals: &IngestVitals) -> Option<DoctorVerdict> {
    let is_slow =
        |source: &&BusySource| source.activity == "fetching" && source.since_ms_ago >= FeedsReport::SLOW_MS;
    let slow: Vec<_> = vitals.sources.as_ref()?.busiest.iter().filter(is_slow).collect();
    let slowest = slow.iter().max_by_key(|source| source.since_ms_ago)?;
    let least = if slow.len() >= BUSIEST_MAX { "at least " } else { "" };
    let rest = "; other feeds and clients do not wait for them";
    Some(slow_verdict(least, slow.len() as u64, &slowest.source, slowest.since_ms_ago, rest))
}

fn slow_verdict(least: &str, slow: u64, slowest: &str, took_ms: u64, rest: &str) -> DoctorVerdict {
    let (feeds, slowest) = (if slow == 1 { "feed is" } else { "feeds are" }, safe(slowest));
    let line =
        format!("no hang: {least}{slow} {feeds} slow, the slowest {slowest} for {}{rest}", duration(took_ms));
    let next = [
        format!("newswire sources show {slowest}   # since when, and how long its visits take"),
        format!("newswire sources pause {slowest}   # if it persists"),
    ];
    DoctorVerdict::new(VerdictCode::SlowFeeds, line, next)
}

#[cfg(test)]
mod tests {
    use control::watch::SlowFeed;

    use super::*;
    use crate::doctor::verdict::{
        conclude,
        tests::{healthy, ingest_vitals, process, sources},
    };

    fn feeds(succeeded: u64, failing: &[(FeedTrouble, u64)]) -> FeedsReport {
        let failing: BTreeMap<_, _> = failing.iter().copied().collect();
        let visited = succeeded + failing.values().sum::<u64>();
        FeedsReport {
            watched: visited,
            visited,
            succeeded,
            failing_hosts: failing.values().sum(),
            failing,
            last_success_ms_ago: (succeeded > 0).then_some(4_000),
            slots: 256,
            resolvers: vec!["10.0.0.2".to_owned()],
            ..FeedsReport::default()
        }
    }

    fn verdict(feeds: FeedsReport) -> DoctorVerdict {
        let mut evidence = healthy();
        sources(&mut evidence).feeds = Some(Box::new(feeds));
        conclude(&evidence)
    }

    #[track_caller]
    fn expect(feeds: FeedsReport, code: VerdictCode, words: &str) {
        let verdict = verdict(feeds);
        assert_eq!(verdict.code, code, "{verdict:?}");
        assert!(verdict.line.contains(words), "{words:?} is not in {verdict:?}");
    }

    const FAILING: VerdictCode = VerdictCode::FeedsFailing;

    #[test]
    fn each_common_cause_is_named_with_a_step_that_tests_it() {
        let all = |trouble| feeds(0, &[(trouble, 20)]);
        let cases = [
            (
                FeedTrouble::DnsTimeout,
                "all 20 feeds that were visited fail: the resolver 10.0.0.2 does not answer (20 dns-timeout)",
            ),
            (FeedTrouble::Dns, "the resolver 10.0.0.2 does not work, or does not know them"),
            (FeedTrouble::ConnectTimeout, "a firewall"),
            (FeedTrouble::Connect, "network of this machine"),
            (FeedTrouble::Proxy, "their proxy does not answer"),
            (FeedTrouble::Tls, "the clock of this machine"),
            (FeedTrouble::Refused, "blocked the address of this machine"),
            (FeedTrouble::Throttled, "throttle"),
            (FeedTrouble::HttpStatus, "the network works, but the servers answer with errors"),
            (FeedTrouble::NotAFeed, "is not a feed"),
            (FeedTrouble::BlockedAddress, "private networks"),
            (FeedTrouble::Configuration, "their configuration"),
            (FeedTrouble::Internal, "newswire makes a mistake"),
        ];
        for (trouble, words) in cases {
            expect(all(trouble), FAILING, words);
            assert!(verdict(all(trouble)).next.len() >= 2);
        }
        let proxied =
            FeedsReport { proxy: Some("http://p.example:3128".to_owned()), ..all(FeedTrouble::Proxy) };
        expect(proxied, FAILING, "the proxy http://p.example:3128 does not answer");
        let one_host = FeedsReport { failing_hosts: 1, ..all(FeedTrouble::Connect) };
        expect(one_host, FAILING, "at one host");
        let mixed = feeds(0, &[(FeedTrouble::Dns, 10), (FeedTrouble::HttpStatus, 9), (FeedTrouble::Tls, 8)]);
        expect(mixed, FAILING, "no cause in common (10 dns, 9 http-status, 8 tls)");
    }

    #[test]
    fn a_wire_with_some_dead_feeds_is_no_alarm() {
        expect(feeds(100, &[]), VerdictCode::Healthy, "");
        expect(feeds(60, &[(FeedTrouble::Dns, 40)]), VerdictCode::Healthy, "");
        expect(feeds(50, &[(FeedTrouble::Dns, 50)]), FAILING, "50 of 100 feeds fail");
        let long_dead = FeedsReport { failing_long: 45, ..feeds(50, &[(FeedTrouble::Dns, 50)]) };
        expect(long_dead, VerdictCode::Healthy, "");
        let all_long_dead = FeedsReport { failing_long: 50, ..feeds(0, &[(FeedTrouble::Dns, 50)]) };
        expect(all_long_dead, FAILING, "all 50 feeds");
        expect(feeds(1, &[(FeedTrouble::Connect, 1)]), VerdictCode::Healthy, "");
        expect(feeds(0, &[(FeedTrouble::Connect, 1)]), FAILING, "the only feed that was visited fails");
    }

    #[test]
    fn the_first_visits_to_fail_do_not_stand_for_all_until_twenty_have_ended_or_a_minute_has_passed() {
        let first = |visited| FeedsReport { watched: 500, ..feeds(0, &[(FeedTrouble::Connect, visited)]) };
        let at = |uptime_ms: u64, feeds: FeedsReport| {
            let mut evidence = healthy();
            process(&mut evidence.ingestd).uptime_ms = uptime_ms;
            sources(&mut evidence).feeds = Some(Box::new(feeds));
            conclude(&evidence).code
        };
        assert_eq!(at(14_000, first(3)), VerdictCode::Healthy);
        assert_eq!(at(14_000, first(20)), FAILING);
        assert_eq!(at(70_000, first(3)), FAILING);
        assert_eq!(at(14_000, feeds(0, &[(FeedTrouble::DnsTimeout, 4)])), FAILING, "there are no others");
    }

    #[test]
    fn when_all_fail_after_hours_of_success_it_is_told_before_half_of_the_last_visits_have_failed() {
        let lately =
            FeedsReport { failing_since_success: 12, ..feeds(5_000, &[(FeedTrouble::DnsTimeout, 12)]) };
        expect(
            lately,
            FAILING,
            "12 feeds have failed since the last one that succeeded, 4s ago: the resolver 10.0.0.2",
        );
        let some =
            FeedsReport { failing_since_success: 11, ..feeds(5_000, &[(FeedTrouble::DnsTimeout, 11)]) };
        expect(some, VerdictCode::Healthy, "");
    }

    #[test]
    fn feeds_that_all_hang_fail_once_none_has_answered_for_minutes() {
        let all = feeds(0, &[(FeedTrouble::Timeout, 60)]);
        let slowest = Some(SlowFeed { source: "s7".to_owned(), took_ms: 10_000 });
        let all = FeedsReport { slow: 60, hanging: 60, slowest, ..all };
        let at = |uptime_ms: u64, last_success_ms_ago: Option<u64>| {
            let mut evidence = healthy();
            process(&mut evidence.ingestd).uptime_ms = uptime_ms;
            sources(&mut evidence).feeds = Some(Box::new(FeedsReport { last_success_ms_ago, ..all.clone() }));
            conclude(&evidence)
        };
        assert_eq!(at(80_000, None).code, VerdictCode::SlowFeeds);
        assert_eq!(at(3_600_000, Some(200_000)).code, VerdictCode::SlowFeeds);
        assert_eq!(at(80_000, Some(86_400_000)).code, VerdictCode::SlowFeeds, "before the start");
        let verdict = at(3_600_000, Some(400_000));
        assert!(verdict.code == FAILING && verdict.line.contains("do not answer in time"), "{verdict:?}");
        assert_eq!(at(3_600_000, None).code, FAILING);
    }

    #[test]
    fn an_outage_is_told_with_its_cause() {
        let mut evidence = healthy();
        sources(&mut evidence).feeds = Some(Box::new(feeds(100, &[(FeedTrouble::ConnectTimeout, 9)])));
        ingest_vitals(&mut evidence).outage = true;
        let verdict = conclude(&evidence);
        assert_eq!(verdict.code, FAILING);
        assert!(verdict.line.contains("most hosts") && verdict.line.contains("a firewall"), "{verdict:?}");
    }

    #[test]
    fn feeds_that_hang_are_slow_with_their_number_and_with_the_slots_that_they_hold() {
        let slowest = Some(SlowFeed { source: "s7".to_owned(), took_ms: 10_000 });
        let hanging = FeedsReport {
            slow: 300,
            hanging: 300,
            slowest: slowest.clone(),
            ..feeds(900, &[(FeedTrouble::Timeout, 300)])
        };
        expect(
            hanging.clone(),
            VerdictCode::SlowFeeds,
            "no hang: 300 feeds are slow, the slowest s7 for 10s",
        );
        let all = FeedsReport {
            slow: 10_000,
            slowest: slowest.clone(),
            last_success_ms_ago: Some(60_000),
            ..feeds(0, &[(FeedTrouble::Timeout, 10_000)])
        };
        expect(
            all,
            VerdictCode::SlowFeeds,
            "10000 feeds are slow, the slowest s7 for 10s; the last feed that answered did so 60s ago",
        );
        let queued = FeedsReport { waiting_for_slot: 9_744, slot_wait_ms: 19_000, ..feeds(0, &[]) };
        expect(FeedsReport { slot_wait_ms: 900, ..queued.clone() }, VerdictCode::Healthy, "");
        expect(
            queued,
            VerdictCode::SlowFeeds,
            "all 256 slots are in use, and 9744 due visits wait for one, the longest for 19s",
        );
        let full = FeedsReport { slow_now: 256, waiting_for_slot: 44, ..hanging };
        expect(
            full,
            VerdictCode::SlowFeeds,
            "256 of 256 slots are held by feeds that do not answer, and 44 due visits wait",
        );
        let few = FeedsReport { slow: 3, slowest, ..feeds(1_000, &[]) };
        expect(few.clone(), VerdictCode::Healthy, "");
        expect(FeedsReport { slow_now: 1, ..few }, VerdictCode::SlowFeeds, "3 feeds are slow");
    }
}
