//! Sources that one daemon leaves and another one takes over, on simulated time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use actix_rt::time::sleep;
use daemon::Clock;
use fetch::schedule::IntervalBounds;
use http::Response;
use news::{Event, Seq, Source, SourceId};
use reqwest::{Body, Request};
use store::{AdoptedSource, SourceExport};
use tokio::time::Instant;

use super::{
    MONDAY_MS, Reply, Servers, SimulatedDaemon, directory, id_of,
    pacing::{RecordingServers, gaps, sources},
    simulate,
};
use crate::messages::{AdoptSources, CatalogueDiff, ExportSources, LeaveSources, VisitSources};

impl SimulatedDaemon {
    /// Applies a list, of which another daemon visits these sources.
    pub(super) async fn share(&self, sources: Vec<Source>, elsewhere: &[SourceId]) -> CatalogueDiff {
        self.apply_shared(sources, elsewhere.iter().cloned().collect()).await
    }

    async fn order_visits(&self, ids: &[SourceId]) {
        let ids = ids.iter().map(SourceId::to_string).collect();
        self.supervisor.send(VisitSources(ids)).await.unwrap();
    }

    pub(super) async fn leave(&self, ids: &[SourceId], at_once: bool) {
        self.supervisor.send(LeaveSources { ids: ids.to_vec(), at_once }).await.unwrap();
    }

    pub(super) async fn export(&self, ids: &[SourceId]) -> Vec<SourceExport> {
        self.held(self.recorder.send(ExportSources(ids.to_vec()))).await.unwrap().unwrap()
    }

    pub(super) async fn adopt(&self, exports: Vec<SourceExport>) {
        let adopted = |SourceExport { source, state, seen, .. }| AdoptedSource {
            source,
            state,
            seen: Some(seen),
            events: Vec::new(),
        };
        let adopted = exports.into_iter().map(adopted).collect();
        let bad = self.held(self.recorder.send(AdoptSources(adopted))).await.unwrap().unwrap();
        assert_eq!(bad, []);
    }
}

const HOUR_MS: i64 = 3_600_000;

fn events(daemon: &SimulatedDaemon) -> Vec<Event> {
    let page = daemon.reader.page(Seq::NONE, usize::MAX, usize::MAX).unwrap();
    page.records.iter().map(|record| serde_json::from_str(&record.json).unwrap()).collect()
}

/// A feed has a new item every hour.
fn hourly_titles(now_ms: i64) -> Vec<String> {
    (0..=now_ms / HOUR_MS).rev().map(|n| format!("item {n}")).take(50).collect()
}

#[test]
fn a_source_that_goes_from_daemon_to_daemon_loses_no_item_and_has_none_twice() {
    const FEEDS: usize = 5;
    const HOURS: i64 = 40;
    let servers = RecordingServers::with_items(|_, _, _| (200, String::new()), |now, _| hourly_titles(now));
    let recorded = Arc::clone(&servers);
    let logs = simulate(async move {
        let (clock, bounds) = (Clock::from_tokio(MONDAY_MS), IntervalBounds::default());
        let directories = [directory(), directory()];
        let start = |n: usize| {
            let servers = Arc::clone(&servers) as Arc<dyn Servers>;
            SimulatedDaemon::start(directories[n].path(), &clock, servers, bounds)
        };
        let daemons = [start(0).await, start(1).await];
        let list = || sources("feed", 0..FEEDS);
        let ids: Vec<_> = list().into_iter().map(|source| source.id).collect();
        daemons[0].share(list(), &[]).await;
        daemons[1].share(list(), &ids).await;
        for turn in 0..10_usize {
            sleep(Duration::from_secs(4 * 3600)).await;
            let (from, to) = (&daemons[turn % 2], &daemons[(turn + 1) % 2]);
            // In the middle of a visit now and then.
            if turn % 3 == 1 {
                from.order_visits(&ids).await;
                sleep(Duration::from_millis(50)).await;
            }
            from.leave(&ids, false).await;
            to.adopt(from.export(&ids).await).await;
            from.share(list(), &ids).await;
            let diff = to.share(list(), &[]).await;
            assert_eq!((diff.added, diff.unchanged), (0, FEEDS));
        }
        sleep(Duration::from_secs(3600)).await;
        let logs = [events(&daemons[0]), events(&daemons[1])];
        for daemon in daemons {
            daemon.stop().await;
        }
        logs
    });
    assert!(logs.iter().all(|log| log.len() > FEEDS * 10), "both had their turns");
    let all: Vec<_> =
        logs.iter().flatten().map(|event| (event.source.clone(), event.item.title.clone())).collect();
    let once: BTreeSet<_> = all.iter().collect();
    assert_eq!(once.len(), all.len(), "none comes twice");
    let title = |n: i64| format!("item {n}");
    for source in sources("feed", 0..FEEDS) {
        let missing = (0..HOURS).map(title).find(|title| !once.contains(&(source.id.clone(), title.clone())));
        assert_eq!(missing, None, "{}", source.id);
        // No handover makes a visit, but for those that were ordered.
        let requests = recorded.requests(&format!("{}.example", source.id));
        let quick = gaps(&requests).into_iter().filter(|gap| *gap < 290_000).count();
        assert!(quick <= 6, "{quick}: {requests:?}");
    }
}

/// Feeds that answer after five seconds, or are still somewhere else when they are asked for much longer.
struct SlowServers;

impl Servers for SlowServers {
    fn respond(&self, _: i64, request: &Request) -> Reply {
        let host = request.url().host_str().unwrap_or_default();
        if host == "else.example" {
            return Reply::Hang;
        }
        if host.starts_with("hangs") {
            let moved = Response::builder()
                .status(302)
                .header("location", format!("http://else.example/{}", id_of(request.url())));
            return Reply::After(Duration::from_secs(8), moved.body(Body::from("")).unwrap());
        }
        let feed = "<rss version='2.0'><channel><item><title>one</title></item></channel></rss>";
        Reply::After(Duration::from_secs(5), Response::new(Body::from(feed)))
    }
}

/// How long it takes until sources have left whose visits have just begun, and how many visits of each ended.
fn time_to_leave(kinds: &'static [&str], at_once: bool) -> (Duration, Vec<u64>) {
    simulate(async move {
        let (clock, directory) = (Clock::from_tokio(MONDAY_MS), directory());
        let servers = Arc::new(SlowServers);
        let daemon =
            SimulatedDaemon::start(directory.path(), &clock, servers, IntervalBounds::default()).await;
        let list: Vec<_> = kinds.iter().flat_map(|kind| sources(kind, 0..1)).collect();
        let ids: Vec<_> = list.iter().map(|source| source.id.clone()).collect();
        daemon.share(list, &[]).await;
        sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        daemon.leave(&ids, at_once).await;
        let took = began.elapsed();
        assert!(daemon.registry.entries().is_empty());
        let visits = |export: SourceExport| export.state.map_or(0, |state| state.counts.visits);
        let visits = daemon.export(&ids).await.into_iter().map(visits).collect();
        daemon.stop().await;
        (took, visits)
    })
}

#[test]
fn visits_of_sources_that_leave_may_end_within_ten_seconds_and_are_cancelled_then() {
    let ((slow, slow_visits), (hangs, visits)) =
        (time_to_leave(&["slow"], false), time_to_leave(&["slow", "hangs"], false));
    assert!((Duration::from_secs(3)..Duration::from_secs(6)).contains(&slow), "{slow:?}");
    assert_eq!(slow_visits, [1]);
    assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&hangs), "{hangs:?}");
    assert_eq!(visits, [1, 0], "what has ended in time is exported");
    let (at_once, visits) = time_to_leave(&["slow", "hangs"], true);
    assert!(at_once < Duration::from_secs(1), "{at_once:?}");
    assert_eq!(visits, [0, 0]);
}
