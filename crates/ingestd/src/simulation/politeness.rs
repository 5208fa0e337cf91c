//! The score card: seven days in the life of the daemon, as the servers of its feeds see them.
//!
//! The rules are those of the public score cards for feed readers: ask for everything once a day at most, send back
//! only validators that were issued, stay away as long as you are asked to, and bring nothing else along.

mod habits;
mod judge;

use std::{sync::Arc, time::Duration};

use actix_rt::time::sleep;
use daemon::Clock;
use fetch::schedule::IntervalBounds;
use news::Source;

use habits::{Habits, hours};
use judge::{Judge, Offence};

use super::{MONDAY_MS, Servers, SimulatedDaemon, directory, simulate, source};

fn sources() -> Vec<Source> {
    habits::all().iter().map(|habits| source(habits.name, &habits.url())).collect()
}

/// The catalogue again, from another program: another order, other names, the same feeds.
fn imported_again() -> Vec<Source> {
    let mut sources = sources();
    sources.reverse();
    for source in sources.iter_mut().step_by(2) {
        source.name = format!("{} (imported)", source.name);
    }
    sources
}

/// Lives so long, and stops.
async fn live(judge: &Arc<Judge>, clock: &Clock, store: &std::path::Path, days: &[(Vec<Source>, Duration)]) {
    let simulated = SimulatedDaemon::start(
        store,
        clock,
        Arc::clone(judge) as Arc<dyn Servers>,
        IntervalBounds::default(),
    )
    .await;
    for (catalogue, length) in days {
        simulated.apply(catalogue.clone()).await;
        sleep(*length).await;
    }
    simulated.stop().await;
}

#[test]
fn seven_days_with_three_restarts_and_an_import_are_polite() {
    let judge = simulate(async {
        let clock = Clock::from_tokio(MONDAY_MS);
        let judge = Arc::new(Judge::new(habits::all(), MONDAY_MS));
        let directory = directory();
        let store = directory.path();
        live(&judge, &clock, store, &[(sources(), hours(30))]).await;
        sleep(Duration::from_secs(60)).await;
        live(&judge, &clock, store, &[(sources(), hours(24)), (imported_again(), hours(24))]).await;
        // From 06:01 to 09:01: many feeds become due meanwhile, some of them in hours that they skip.
        sleep(hours(3)).await;
        live(&judge, &clock, store, &[(imported_again(), hours(41))]).await;
        // From 02:01 to 04:01.
        sleep(hours(2)).await;
        live(&judge, &clock, store, &[(imported_again(), hours(44))]).await;
        assert!(clock.now_millis() >= MONDAY_MS + 7 * 86_400_000, "seven days");
        judge
    });
    println!("{}", judge.card());
    for habits in habits::all() {
        check_that_it_lived(&judge, &habits);
    }
    let offences: Vec<_> = judge.offences().into_iter().map(|(_, text)| text).collect();
    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

/// A poller that never comes is polite too.
fn check_that_it_lived(judge: &Judge, habits: &Habits) {
    let name = habits.name;
    let answers = judge.of(name, |tally| tally.answers.clone());
    let had = |what: &str| answers.get(what).copied().unwrap_or_default();
    let requests = judge.of(name, |tally| tally.requests);
    assert!(requests >= 7, "{name}: {answers:?}");
    assert!(had("200") >= 3, "{name}: {answers:?}");
    let rests = !["etag-each-time", "max-age-of-a-day", "update-period"].contains(&name);
    let tagged = habits.etag.is_some() || habits.last_modified.is_some();
    assert!(!(tagged && rests) || had("304") >= 7, "{name}: {answers:?}");
    let unconditional = judge.of(name, |tally| tally.unconditional);
    let quiet = habits.news_every > hours(24);
    assert!(!quiet || unconditional >= 3, "{name}: once a day everything is asked for, not {unconditional}");
    if let Some(busy) = habits.busy {
        assert!(had(if busy.status == 429 { "429" } else { "503" }) >= 2, "{name}: {answers:?}");
    }
    assert!(habits.cut_every.is_none() && !habits.cut_in_full || had("cut") >= 2, "{name}: {answers:?}");
    assert!(habits.redirect.is_none() || had("redirect") >= 7, "{name}: {answers:?}");
    assert!(habits.gone_after.is_none() || had("410") == 3, "{name}: {answers:?}");
}

/// A request such as ours, and what a rude client would add.
fn request(url: &str, headers: &[(&'static str, &'static str)]) -> reqwest::Request {
    let mut request = reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap());
    for (name, value) in [("user-agent", "newswire/0.1.0")].iter().chain(headers) {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

#[test]
fn the_judge_sees_every_offence() {
    let judge = Judge::new(habits::all(), MONDAY_MS);
    let mut now_ms = MONDAY_MS + 7 * 3_600_000;
    let mut ask = |wait_s: i64, url: &str, headers: &[(&'static str, &'static str)]| {
        now_ms += wait_s * 1000;
        let before = judge.offences().len();
        judge.respond(now_ms, &request(url, headers));
        judge.offences()[before..].iter().map(|(offence, _)| *offence).collect::<Vec<_>>()
    };
    let (etag, age, skips) = (
        "http://etag.example/feed/etag",
        "http://max-age.example/feed/max-age",
        "http://skip-hours.example/feed/skip-hours",
    );
    assert_eq!(ask(0, etag, &[]), []);
    assert_eq!(ask(3600, etag, &[]), [Offence::UnconditionalRepeat]);
    assert_eq!(
        ask(3600, etag, &[("if-none-match", "\"v0\""), ("cookie", "id=1")]),
        [Offence::Cookie, Offence::HostCrowd, Offence::InventedValidator]
    );
    assert_eq!(ask(0, age, &[("referer", "x")]), [Offence::Referrer]);
    assert_eq!(
        ask(3599, age, &[("user-agent", "Mozilla/5.0")]),
        [Offence::Agent, Offence::TooEarly, Offence::UnconditionalRepeat]
    );
    assert_eq!(ask(0, skips, &[]), []);
    assert_eq!(ask(13 * 3600, skips, &[]), [Offence::SkippedTime, Offence::UnconditionalRepeat]);
    assert_eq!(ask(0, "http://etag.example/feed/etag?now=1", &[]), [Offence::UnknownAddress]);
    assert_eq!(ask(0, "http://many.example/feed/shared-1", &[]), []);
    assert_eq!(ask(0, "http://many.example/feed/shared-2", &[]), [Offence::HostSpacing]);
    let gone = "http://gone.example/feed/gone";
    now_ms += 50 * 3_600_000;
    for n in 0..4 {
        now_ms += 86_400_000;
        let before = judge.offences().len();
        judge.respond(now_ms, &request(gone, &[]));
        judge.ended(&gone.parse().unwrap());
        assert_eq!(judge.offences().len() - before, usize::from(n == 3));
    }
    assert_eq!(judge.offences().last().map(|(offence, _)| *offence), Some(Offence::AskedTheGone));
}
