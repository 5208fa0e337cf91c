//! The score card: seven days in the life of the daemon, as the servers of its feeds see them.
//!
//! The rules are those of the public score cards for feed readers: at most one request without validators per day,
//! only validators that were issued, no request before the time that the server asked for, and nothing else in the
//! request.

mod delays;
mod scoring_server;
mod server_profiles;

use std::{sync::Arc, time::Duration};

use actix_rt::time::sleep;
use daemon::Clock;
use fetch::schedule::IntervalBounds;
use news::Source;

use delays::WireDelays;
use scoring_server::{ScoringServer, Violation};
use server_profiles::{ServerProfile, hours};

use super::{MONDAY_MS, Servers, SimulatedDaemon, directory, simulate, source};

fn sources(profiles: &[ServerProfile]) -> Vec<Source> {
    profiles.iter().map(|profile| source(profile.name, &profile.url())).collect()
}

/// The same catalogue as another program would export it: another order, other names, the same feeds.
fn imported_again(profiles: &[ServerProfile]) -> Vec<Source> {
    let mut sources = sources(profiles);
    sources.reverse();
    for source in sources.iter_mut().step_by(2) {
        source.name = format!("{} (imported)", source.name);
    }
    sources
}

/// Runs the daemon with each catalogue for so long, and stops it.
async fn run_days(
    server: &Arc<ScoringServer>,
    delays: &mut WireDelays,
    clock: &Clock,
    store: &std::path::Path,
    days: &[(Vec<Source>, Duration)],
) {
    let simulated = SimulatedDaemon::start(
        store,
        clock,
        Arc::clone(server) as Arc<dyn Servers>,
        IntervalBounds::default(),
    )
    .await;
    for (catalogue, length) in days {
        simulated.apply(catalogue.clone()).await;
        sleep(*length).await;
    }
    delays.add(&simulated.reader, server.profiles(), MONDAY_MS);
    simulated.stop().await;
}

/// A week with three restarts and an import.
fn week(profiles: Vec<ServerProfile>) -> (Arc<ScoringServer>, WireDelays) {
    simulate(async {
        let clock = Clock::from_tokio(MONDAY_MS);
        let (sources, imported) = (sources(&profiles), imported_again(&profiles));
        let server = Arc::new(ScoringServer::new(profiles, MONDAY_MS));
        let mut delays = WireDelays::default();
        let directory = directory();
        let store = directory.path();
        run_days(&server, &mut delays, &clock, store, &[(sources.clone(), hours(30))]).await;
        sleep(Duration::from_secs(60)).await;
        let days = [(sources, hours(24)), (imported.clone(), hours(24))];
        run_days(&server, &mut delays, &clock, store, &days).await;
        // Stopped from 06:01 to 09:01: many feeds become due meanwhile, some of them in hours that they skip.
        sleep(hours(3)).await;
        run_days(&server, &mut delays, &clock, store, &[(imported.clone(), hours(41))]).await;
        // Stopped from 02:01 to 04:01.
        sleep(hours(2)).await;
        run_days(&server, &mut delays, &clock, store, &[(imported, hours(44))]).await;
        assert!(clock.now_millis() >= MONDAY_MS + 7 * 86_400_000, "seven days");
        let card = delays.card(server.profiles(), MONDAY_MS, clock.now_millis());
        println!("{}\n{card}", server.card());
        (server, delays)
    })
}

#[test]
fn seven_days_with_three_restarts_and_an_import_are_polite() {
    let (server, _) = week(server_profiles::all());
    for profile in server_profiles::all() {
        check_activity(&server, &profile);
    }
    let violations: Vec<_> = server.violations().into_iter().map(|(_, text)| text).collect();
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn a_week_of_bursts_is_polite() {
    let (server, _) = week(server_profiles::bursts());
    let violations: Vec<_> = server.violations().into_iter().map(|(_, text)| text).collect();
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

/// A daemon that sends no requests would be polite as well.
fn check_activity(server: &ScoringServer, profile: &ServerProfile) {
    let name = profile.name;
    let answers = server.of(name, |record| record.answers.clone());
    let answered = |what: &str| answers.get(what).copied().unwrap_or_default();
    let requests = server.of(name, |record| record.requests);
    assert!(requests >= 7, "{name}: {answers:?}");
    assert!(answered("200") >= 3, "{name}: {answers:?}");
    let never_304 = !["etag-each-time", "max-age-of-a-day", "update-period"].contains(&name);
    let tagged = profile.etag.is_some() || profile.last_modified.is_some();
    assert!(!(tagged && never_304) || answered("304") >= 7, "{name}: {answers:?}");
    let unconditional = server.of(name, |record| record.unconditional);
    let quiet = profile.news_every > hours(24);
    assert!(
        !quiet || unconditional >= 3,
        "{name}: a request without validators per day, not {unconditional}"
    );
    if let Some(busy) = profile.busy {
        assert!(answered(if busy.status == 429 { "429" } else { "503" }) >= 2, "{name}: {answers:?}");
    }
    assert!(
        profile.cut_every.is_none() && !profile.cut_in_full || answered("cut") >= 2,
        "{name}: {answers:?}"
    );
    assert!(profile.redirect.is_none() || answered("redirect") >= 7, "{name}: {answers:?}");
    assert!(profile.gone_after.is_none() || answered("410") == 3, "{name}: {answers:?}");
}

/// A request like ours, and headers that an impolite client would add.
fn request(url: &str, headers: &[(&'static str, &'static str)]) -> reqwest::Request {
    let mut request = reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap());
    for (name, value) in [("user-agent", "newswire/0.1.0")].iter().chain(headers) {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

#[test]
fn the_scoring_server_reports_every_violation() {
    let server = ScoringServer::new(server_profiles::all(), MONDAY_MS);
    let mut now_ms = MONDAY_MS + 7 * 3_600_000;
    let mut request_at = |wait_s: i64, url: &str, headers: &[(&'static str, &'static str)]| {
        now_ms += wait_s * 1000;
        let before = server.violations().len();
        server.respond(now_ms, &request(url, headers));
        server.violations()[before..].iter().map(|(violation, _)| *violation).collect::<Vec<_>>()
    };
    let (etag, age, skips) = (
        "http://etag.example/feed/etag",
        "http://max-age.example/feed/max-age",
        "http://skip-hours.example/feed/skip-hours",
    );
    assert_eq!(request_at(0, etag, &[]), []);
    assert_eq!(request_at(3600, etag, &[]), [Violation::UnconditionalRepeat]);
    assert_eq!(
        request_at(3600, etag, &[("if-none-match", "\"v0\""), ("cookie", "id=1")]),
        [Violation::Cookie, Violation::HostCrowd, Violation::InventedValidator]
    );
    assert_eq!(request_at(0, age, &[("referer", "x")]), [Violation::Referrer]);
    assert_eq!(
        request_at(3599, age, &[("user-agent", "Mozilla/5.0")]),
        [Violation::Agent, Violation::TooEarly, Violation::UnconditionalRepeat]
    );
    assert_eq!(request_at(0, skips, &[]), []);
    assert_eq!(request_at(13 * 3600, skips, &[]), [Violation::SkippedTime, Violation::UnconditionalRepeat]);
    assert_eq!(request_at(0, "http://etag.example/feed/etag?now=1", &[]), [Violation::UnknownAddress]);
    assert_eq!(request_at(0, "http://many.example/feed/shared-1", &[]), []);
    assert_eq!(request_at(0, "http://many.example/feed/shared-2", &[]), [Violation::HostSpacing]);
    let gone = "http://gone.example/feed/gone";
    now_ms += 50 * 3_600_000;
    for n in 0..4 {
        now_ms += 86_400_000;
        let before = server.violations().len();
        server.respond(now_ms, &request(gone, &[]));
        server.ended(&gone.parse().unwrap());
        assert_eq!(server.violations().len() - before, usize::from(n == 3));
    }
    assert_eq!(server.violations().last().map(|(violation, _)| *violation), Some(Violation::GoneRequested));
}
