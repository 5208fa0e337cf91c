//! Hubs and their pushes, on simulated time.

use std::{sync::Arc, time::Duration};

use actix_rt::time::sleep;
use daemon::Clock;
use fetch::schedule::IntervalBounds;
use news::PushState;
use reqwest::Method;

use super::{
    MONDAY_MS, Servers, SimulatedDaemon, directory,
    pacing::{RecordingServers, gaps, sources},
    simulate,
};

const HOUR_MS: i64 = 3_600_000;
/// A host that can be held.
const HUB: &str = "hub.example.net";

async fn start(store: &std::path::Path, clock: &Clock, servers: &Arc<RecordingServers>) -> SimulatedDaemon {
    let servers = Arc::clone(servers) as Arc<dyn Servers>;
    let bounds = IntervalBounds::default();
    SimulatedDaemon::start_with(store, clock, servers, bounds, Some("https://news.example")).await
}

/// The header of a feed with this hub.
fn names_hub(hub: &str) -> (u16, String) {
    (200, format!("link: <http://{hub}/hub>; rel=\"hub\""))
}

/// Feeds at hosts of their own, all with a hub at one host, or one that redirects there.
fn hub_requests(redirects: bool) -> (Vec<i64>, Vec<String>) {
    let servers = RecordingServers::new(move |now_ms, host, request| match host {
        HUB if (10_000..HOUR_MS).contains(&now_ms) => (429, "retry-after: 3600".to_owned()),
        HUB => (202, String::new()),
        _ if *request.method() == Method::POST => (307, format!("location: http://{HUB}/hub")),
        _ if redirects => names_hub(&host.replace("feed", "hub")),
        _ => names_hub(HUB),
    });
    let recorded = Arc::clone(&servers);
    let errors = simulate(async move {
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let daemon = start(directory.path(), &clock, &servers).await;
        daemon.apply(sources("feed", 0..30)).await;
        sleep(Duration::from_secs(60)).await;
        let subscription = |n| {
            let entry = daemon.registry.get(&format!("feed-{n}")).unwrap();
            entry.websub().unwrap().subscription.unwrap()
        };
        let errors = (0..30).filter_map(|n| subscription(n).error).collect();
        sleep(Duration::from_secs(2 * 3600)).await;
        // No callback is there to verify.
        assert!((0..30).all(|n| subscription(n).state == PushState::Failed || subscription(n).tries > 0));
        daemon.stop().await;
        errors
    });
    (recorded.requests(HUB).into_iter().map(|(at, _)| at).collect(), errors)
}

#[test]
fn hub_requests_to_one_host_are_paced_and_wait_for_its_retry_after() {
    for redirects in [false, true] {
        let (requests, errors) = hub_requests(redirects);
        let pairs: Vec<_> = requests.iter().map(|at| (*at, String::new())).collect();
        assert!(gaps(&pairs).iter().all(|gap| *gap >= 1000), "{requests:?}");
        let before = requests.iter().filter(|at| **at < 10_000).count();
        assert!((5..=10).contains(&before), "{requests:?}");
        let refused = requests[before];
        let after: Vec<_> = requests[before + 1..].iter().filter(|at| **at < refused + HOUR_MS).collect();
        // Two requests to a host may be in flight.
        assert!(after.iter().all(|at| **at < refused + 2_000) && after.len() <= 1, "{requests:?}");
        assert!(requests.len() >= 30, "all are asked afterwards: {requests:?}");
        assert!(errors.len() >= 18, "{errors:?}");
        let names_it = |error: &&String| {
            error.starts_with("the hub was not asked: example.net asked for a pause, which is over in")
        };
        assert!(errors.iter().filter(names_it).count() >= 18, "{errors:?}");
        let refused = "http-status: the hub answered 429 and asked for a pause of 1h";
        assert!(errors.iter().any(|error| error == refused), "{errors:?}");
    }
}
