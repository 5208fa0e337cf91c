//! Ten weeks of feeds with different rhythms: those that stop are quiet, and no other one is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use actix_rt::time::sleep;
use daemon::{Clock, logs};
use fetch::schedule::IntervalBounds;
use http::Response;
use news::{SourceStatus, Timestamp};
use reqwest::{Body, Request};

use super::{MONDAY_MS, Reply, Servers, SimulatedDaemon, directory, id_of, simulate, source};

const DAYS: i64 = 70;
/// How often the status is read.
const STEP_HOURS: i64 = 6;
/// Items of a document.
const ITEMS_MAX: usize = 12;
/// When those feeds stop that do.
const STOPS: i64 = 42 * 24;
/// When the first of them has an item again.
const CONTINUES: i64 = 63 * 24;

/// The hours at which a feed publishes, since the Monday.
type Rhythm = fn() -> Vec<i64>;

fn daily() -> Vec<i64> {
    (0..DAYS).map(|day| day * 24 + 9).collect()
}

/// Three items on each working day.
fn working_days() -> Vec<i64> {
    let days = (0..DAYS).filter(|day| day % 7 < 5);
    days.flat_map(|day| [8, 12, 17].map(|hour| day * 24 + hour)).collect()
}

fn by_day() -> Vec<i64> {
    (0..DAYS * 24).filter(|hour| (6..23).contains(&(hour % 24)) && hour % 4 == 2).collect()
}

/// Six items within six hours, then nothing for nine days.
fn bursts() -> Vec<i64> {
    (0..DAYS).step_by(9).flat_map(|day| (0..6).map(move |hour| day * 24 + hour)).collect()
}

/// Two breaks of 14 days. Nothing is known of the first one before.
fn with_breaks() -> Vec<i64> {
    daily().into_iter().filter(|hour| !matches!(hour / 24, 21..35 | 49..63)).collect()
}

/// From some per day to one in five days.
fn irregular() -> Vec<i64> {
    let gaps = [5, 30, 2, 70, 11, 1, 26, 120, 9, 3, 48, 17, 90, 4, 36];
    let times = gaps.iter().cycle().scan(0, |hour, gap| {
        *hour += gap;
        Some(*hour)
    });
    times.take_while(|hour| *hour < DAYS * 24).collect()
}

fn before(end: i64, rhythm: Rhythm) -> Vec<i64> {
    rhythm().into_iter().filter(|hour| *hour < end).collect()
}

/// The feeds by name. Those whose name begins with `stops` stop.
fn feeds() -> BTreeMap<&'static str, Vec<i64>> {
    let mut returns = before(STOPS, daily);
    returns.extend([CONTINUES, CONTINUES + 30]);
    BTreeMap::from([
        ("daily", daily()),
        ("weekly", (0..DAYS).step_by(7).map(|day| day * 24 + 20).collect()),
        ("working-days", working_days()),
        ("by-day", by_day()),
        ("bursts", bursts()),
        ("with-breaks", with_breaks()),
        ("monthly", vec![30, 30 + 31 * 24, 30 + 61 * 24]),
        ("irregular", irregular()),
        ("new", before(10 * 24, by_day)),
        ("fails", before(STOPS, daily)),
        ("stops-daily", returns),
        ("stops-working-days", before(STOPS, working_days)),
        ("stops-by-day", before(STOPS, by_day)),
        ("stops-irregular", before(STOPS, irregular)),
    ])
}

struct RhythmServers(BTreeMap<&'static str, Vec<i64>>);

impl Servers for RhythmServers {
    fn respond(&self, now_ms: i64, request: &Request) -> Reply {
        let id = id_of(request.url());
        let hour = (now_ms - MONDAY_MS) / 3_600_000;
        let published: Vec<_> = self.0[id].iter().copied().filter(|at| *at <= hour).collect();
        let etag = format!("\"{}\"", published.len());
        let is_known = request.headers().get("if-none-match").is_some_and(|value| *value == *etag);
        let (status, body) = match id {
            "fails" if hour > STOPS => (500, String::new()),
            _ if is_known => (304, String::new()),
            _ => (200, document(&published)),
        };
        let response = Response::builder().status(status).header("etag", etag).body(Body::from(body));
        Reply::After(Duration::from_millis(80), response.unwrap())
    }
}

fn document(published: &[i64]) -> String {
    let mut text = "<feed xmlns='http://www.w3.org/2005/Atom'><title>t</title><id>urn:t</id>".to_owned();
    for hour in published.iter().rev().take(ITEMS_MAX) {
        let at = Timestamp::from_millis(MONDAY_MS + hour * 3_600_000);
        write!(text, "<entry><id>urn:{hour}</id><title>At {hour}</title><updated>{at}</updated></entry>")
            .unwrap();
    }
    text + "</feed>"
}

/// At which hours each source was quiet.
#[derive(Default)]
struct QuietHours(BTreeMap<&'static str, BTreeSet<i64>>);

impl QuietHours {
    async fn watch(&mut self, simulated: &SimulatedDaemon, clock: &Clock, until: i64) {
        loop {
            let hour = (clock.now_millis() - MONDAY_MS) / 3_600_000;
            if hour >= until {
                return;
            }
            for id in feeds().into_keys() {
                let status: SourceStatus = simulated.registry.get(id).unwrap().status();
                if status.quiet.is_some() {
                    self.0.entry(id).or_default().insert(hour);
                }
            }
            sleep(Duration::from_secs(STEP_HOURS.unsigned_abs() * 3600)).await;
        }
    }

    fn first(&self, id: &str) -> i64 {
        *self.0[id].first().unwrap()
    }

    fn last(&self, id: &str) -> i64 {
        *self.0[id].last().unwrap()
    }
}

/// Ten weeks with a restart while some are quiet; the hours and the log.
fn ten_weeks() -> (QuietHours, String) {
    simulate(async {
        let clock = Clock::from_tokio(MONDAY_MS);
        let (subscriber, kept) = logs::capture("info", clock.clone()).unwrap();
        let _guard = tracing::subscriber::set_default(subscriber);
        let (directory, mut quiet) = (directory(), QuietHours::default());
        for until in [60 * 24, DAYS * 24] {
            let servers: Arc<dyn Servers> = Arc::new(RhythmServers(feeds()));
            let bounds = IntervalBounds::default();
            let simulated = SimulatedDaemon::start(directory.path(), &clock, servers, bounds).await;
            let url = |id: &str| format!("http://{id}.example/{id}");
            simulated.apply(feeds().into_keys().map(|id| source(id, &url(id))).collect()).await;
            quiet.watch(&simulated, &clock, until).await;
            simulated.stop().await;
        }
        (quiet, kept.text())
    })
}

#[test]
fn a_feed_that_stops_is_quiet_and_slow_irregular_or_weekend_feeds_are_not() {
    let (mut quiet, log) = ten_weeks();
    for (id, hours) in &quiet.0 {
        println!("{id}: quiet from hour {:?} to {:?}", hours.first(), hours.last());
    }
    let breaks = quiet.0.remove("with-breaks").unwrap();
    assert!(
        breaks.iter().all(|hour| (21 * 24 + 7 * 24..36 * 24).contains(hour)),
        "the second one is known: {breaks:?}"
    );
    let stopped = ["stops-by-day", "stops-daily", "stops-irregular", "stops-working-days"];
    assert_eq!(quiet.0.keys().copied().collect::<Vec<_>>(), stopped);
    for (id, days) in [
        ("stops-by-day", 2..4),
        ("stops-daily", 7..9),
        ("stops-working-days", 5..9),
        ("stops-irregular", 10..18),
    ] {
        let after = (quiet.first(id) - STOPS) / 24;
        assert!(days.contains(&after), "{id}: quiet after {after} days");
        let hours = &quiet.0[id];
        let steps = (quiet.last(id) - quiet.first(id)) / STEP_HOURS + 1;
        assert!(hours.len() as i64 >= steps - 1, "{id}: not all the time, {} of {steps}", hours.len());
    }
    // It ends with the next item, and is told once each, although the daemon was restarted meanwhile.
    let end = quiet.last("stops-daily");
    assert!((CONTINUES - STEP_HOURS..CONTINUES + 30).contains(&end), "until hour {end}");
    assert!(quiet.last("stops-working-days") >= DAYS * 24 - 2 * STEP_HOURS, "the others stay quiet");
    let lines = |id: &str, what: &str| {
        let of = |line: &&str| {
            line.contains(what) && line.split_whitespace().any(|word| word == format!("source={id}"))
        };
        log.lines().filter(of).count()
    };
    for id in stopped {
        let is_back = usize::from(id == "stops-daily");
        assert_eq!((lines(id, "went quiet"), lines(id, "has news again")), (1, is_back), "{id}");
    }
    assert_eq!(lines("with-breaks", "went quiet"), 1);
    assert_eq!(log.matches("went quiet").count(), stopped.len() + 1);
}
