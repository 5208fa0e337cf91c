//! Sources that another daemon visits from now on, and those that come from there.

use super::*;
use crate::messages::{LeaveSources, OwnSources};

fn id(id: &str) -> SourceId {
    SourceId::try_new(id).unwrap()
}

impl Harness {
    /// As a reload does, with the sources that another daemon visits.
    async fn share(&self, ids: &[&str], elsewhere: &[&str]) -> CatalogueDiff {
        let supervisor = self.supervisor.clone().recipient();
        let sources = ids.iter().map(|id| self.source(id)).collect();
        let catalogue = Catalogue { sources, ..Catalogue::default() };
        let elsewhere = elsewhere.iter().copied().map(id).collect();
        let credentials = CredentialFiles::default();
        let ends = crate::catalogue::CatalogueEnds {
            supervisor: &supervisor,
            credentials: &credentials,
            reader: &self.reader,
        };
        crate::catalogue::run_sources(ends, catalogue, elsewhere).await.unwrap()
    }

    /// Asks for it now; the answer comes when they have left.
    fn leave(&self, ids: &[&str], at_once: bool) -> tokio::task::JoinHandle<()> {
        let order = LeaveSources { ids: ids.iter().copied().map(id).collect(), at_once };
        let supervisor = self.supervisor.clone();
        actix_rt::spawn(async move { supervisor.send(order).await.unwrap() })
    }

    async fn left(&self, leaving: tokio::task::JoinHandle<()>) {
        tokio::time::timeout(SOON, leaving).await.expect("they leave within a minute").unwrap();
    }

    async fn order_visit(&self, ids: &[&str]) -> VisitAnswer {
        self.supervisor.send(VisitSources(ids.iter().copied().map(str::to_owned).collect())).await.unwrap()
    }

    fn visits(&self, of: &str) -> u64 {
        self.registry.get(of).unwrap().state().counts.visits
    }
}

/// Whether the documents of this test may be parsed.
struct Gate(AtomicBool);

impl Gate {
    const fn closed() -> Self {
        Self(AtomicBool::new(false))
    }

    fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    #[expect(clippy::disallowed_methods, reason = "on a thread that parses")]
    fn read(&self, bytes: &[u8], hints: &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError> {
        // Not for ever, if the test has failed.
        for _ in 0..10_000 {
            if self.0.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        feed::read(bytes, hints)
    }
}

#[test]
fn a_source_leaves_when_its_visit_has_ended_and_no_other_one_begins() {
    static GATE: Gate = Gate::closed();
    run(async {
        let mut harness = harness(|bytes, hints| GATE.read(bytes, hints)).await;
        harness.share(&["a"], &[]).await;
        harness.until(|| harness.registry.get("a").unwrap().activity() == Activity::Parsing).await;
        let entry = harness.registry.get("a").unwrap();
        let leaving = harness.leave(&["a", "unknown"], false);
        harness.until(|| entry.is_leaving()).await;
        assert_eq!(harness.order_visit(&["a"]).await.busy, ["a"]);
        let held = pause(Timestamp::from_millis(Clock::system().now_millis()), None);
        assert_eq!(harness.pause("a", Some(held.clone())).await.done, ["a"], "it goes with the state");
        for _ in 0..2 {
            let diff = harness.share(&["a", "b"], &["a", "b"]).await;
            assert_eq!(diff, CatalogueDiff { unchanged: 2, ..CatalogueDiff::default() });
        }
        assert!(Arc::ptr_eq(&entry, &harness.registry.get("a").unwrap()), "its visit goes on");
        assert!(!leaving.is_finished());
        GATE.open();
        assert_eq!(harness.report().await.new, 1);
        harness.left(leaving).await;
        assert!(harness.registry.entries().is_empty());
        assert_eq!(harness.metrics.sources.get(), 0);
        assert_eq!(harness.order_visit(&["a", "b"]).await.unknown, ["a", "b"]);
        let stored = harness.reader.state(&entry.source.id).unwrap().unwrap();
        assert_eq!((stored.counts.visits, stored.paused, stored.removed), (1, Some(held), false));
        assert_eq!(
            (entry.status().restarts, harness.metrics.restarts.get()),
            (0, 0),
            "its actor did not die"
        );
    });
}

#[test]
fn at_once_is_without_waiting_for_the_visit_in_progress() {
    static GATE: Gate = Gate::closed();
    run(async {
        let harness = harness(|bytes, hints| GATE.read(bytes, hints)).await;
        harness.share(&["a"], &[]).await;
        harness.until(|| harness.registry.get("a").unwrap().activity() == Activity::Parsing).await;
        // The second order hurries the first one.
        let orders = [harness.leave(&["a"], false), harness.leave(&["a"], true)];
        for order in orders {
            harness.left(order).await;
        }
        assert!(harness.registry.get("a").is_none() && !GATE.0.load(Ordering::Relaxed));
        GATE.open();
        assert_eq!(harness.reader.state(&id("a")).unwrap(), None, "the visit was cancelled");
    });
}

#[test]
fn a_source_that_comes_back_is_visited_when_it_was_planned_and_one_that_is_added_at_once() {
    run(async {
        let mut harness = harness(feed::read).await;
        harness.share(&["back", "other"], &[]).await;
        let mut ids = [harness.report().await.source, harness.report().await.source];
        ids.sort();
        assert_eq!(ids, [id("back"), id("other")]);
        let planned = harness.registry.get("back").unwrap().next_visit();
        harness.left(harness.leave(&["back"], false)).await;
        // Without a catalogue in between, and with one.
        for _ in 0..2 {
            let diff = harness.share(&["back", "other"], &[]).await;
            assert_eq!(diff, CatalogueDiff { unchanged: 2, ..CatalogueDiff::default() });
            assert_eq!(harness.registry.get("back").unwrap().next_visit(), planned);
            harness.share(&["back", "other"], &["back"]).await;
            harness.until(|| harness.registry.get("back").is_none()).await;
        }
        harness.share(&["back", "other", "added"], &[]).await;
        assert_eq!(harness.report().await.source, id("added"), "control");
        // One that was taken out of the list and added again is visited at once.
        harness.share(&["back", "added"], &[]).await;
        harness.until(|| harness.reader.state(&id("other")).unwrap().unwrap().removed).await;
        harness.share(&["back", "added", "other"], &[]).await;
        assert_eq!(harness.report().await.source, id("other"), "control");
        assert_eq!(harness.visits("back"), 1);
        assert_eq!(harness.order_visit(&["back"]).await.accepted, ["back"]);
        assert_eq!(harness.report().await.source, id("back"), "it is a source like any other");
    });
}

#[test]
fn an_overdue_source_that_comes_from_elsewhere_is_visited_as_after_a_start() {
    run(async {
        let mut harness = harness(feed::read).await;
        harness.share(&["a", "first"], &["a"]).await;
        assert_eq!(harness.report().await.source, id("first"));
        assert!(harness.registry.get("a").is_none());
        let now = Timestamp::from_millis(Clock::system().now_millis());
        let state = SourceState { last_visit: Some(now), next_visit: Some(now), ..SourceState::default() };
        let sources = ["a", "first"].map(|id| harness.source(id)).to_vec();
        let message = ApplyCatalogue {
            catalogue: Catalogue { sources, ..Catalogue::default() },
            stored_states: [(id("a"), state)].into(),
            request_hashes: HashMap::new(),
            elsewhere: HashSet::new(),
        };
        assert_eq!(harness.supervisor.send(message).await.unwrap().added, 0);
        assert_eq!(harness.registry.get("a").unwrap().status().why, "due since before the start");
        assert_eq!(harness.report().await.source, id("a"));
    });
}

#[test]
fn a_source_that_comes_back_while_it_leaves_starts_again_when_it_has_left() {
    static GATE: Gate = Gate::closed();
    run(async {
        let mut harness = harness(|bytes, hints| GATE.read(bytes, hints)).await;
        harness.share(&["a"], &[]).await;
        harness.until(|| harness.registry.get("a").unwrap().activity() == Activity::Parsing).await;
        let before = harness.registry.get("a").unwrap();
        let leaving = harness.leave(&["a"], false);
        harness.until(|| before.is_leaving()).await;
        let diff = harness.share(&["a"], &[]).await;
        assert_eq!(diff, CatalogueDiff { unchanged: 1, ..CatalogueDiff::default() });
        assert!(Arc::ptr_eq(&before, &harness.registry.get("a").unwrap()));
        GATE.open();
        assert_eq!(harness.report().await.new, 1);
        harness.left(leaving).await;
        let after = harness.registry.get("a").unwrap();
        assert!(!after.is_leaving() && !Arc::ptr_eq(&before, &after));
        assert_eq!((after.state().counts.visits, after.next_visit()), (1, before.next_visit()));
        assert_eq!(harness.visit_again("a").await.status, VisitStatus::Unchanged);
    });
}

#[test]
fn a_changed_source_that_leaves_before_its_visit_has_ended_does_not_start_again() {
    static GATE: Gate = Gate::closed();
    run(async {
        let mut harness = harness(|bytes, hints| GATE.read(bytes, hints)).await;
        harness.share(&["a"], &[]).await;
        harness.until(|| harness.registry.get("a").unwrap().activity() == Activity::Parsing).await;
        let renamed = Source { name: "Another name".to_owned(), ..harness.source("a") };
        assert_eq!(harness.apply(vec![renamed]).await.changed, 1);
        let leaving = harness.leave(&["a"], false);
        let own = harness.supervisor.send(OwnSources).await.unwrap();
        assert_eq!(own.iter().map(|source| source.name.as_str()).collect::<Vec<_>>(), ["Another name"]);
        GATE.open();
        harness.report().await;
        harness.left(leaving).await;
        // A later check would have started it.
        harness.share(&["a", "b"], &["a"]).await;
        assert_eq!(harness.report().await.source, id("b"));
        harness.supervisor.send(Jump { by_ms: 7_200_000 }).await.unwrap();
        harness.until(|| harness.metrics.clock_jumps.get() == 1).await;
        assert!(harness.registry.get("a").is_none());
    });
}

#[test]
fn the_files_of_the_list_still_have_what_another_daemon_visits_and_its_removal_is_not_recorded() {
    run(async {
        let mut harness = harness(feed::read).await;
        harness.share(&["a", "b", "c"], &["c"]).await;
        for _ in 0..2 {
            harness.report().await;
        }
        harness.left(harness.leave(&["a"], false)).await;
        let own = harness.supervisor.send(OwnSources).await.unwrap();
        let mut ids: Vec<_> = own.iter().map(|source| source.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(harness.share(&[], &[]).await.removed, 1);
        harness.until(|| harness.reader.state(&id("b")).unwrap().unwrap().removed).await;
        assert!(!harness.reader.state(&id("a")).unwrap().unwrap().removed, "the other daemon records it");
        assert_eq!(harness.supervisor.send(OwnSources).await.unwrap(), []);
    });
}

#[test]
fn a_source_whose_actor_has_died_and_one_that_is_disabled_leave_like_others() {
    run(async {
        let mut harness = harness(feed::read).await;
        let off = Source { enabled: false, ..harness.source("off") };
        harness.apply(vec![harness.source("a"), off]).await;
        harness.report().await;
        harness.supervisor.send(Kill("a")).await.unwrap();
        let entry = harness.registry.get("a").unwrap();
        harness.until(|| entry.status().restarts == 1).await;
        harness.left(harness.leave(&["a", "off"], false)).await;
        assert!(harness.registry.entries().is_empty());
        harness.share(&["a", "b"], &["a"]).await;
        harness.report().await;
        // As long as the wait before a rebuild.
        tokio::time::sleep(liveness::REBUILD_FIRST).await;
        assert_eq!((harness.registry.get("a").is_none(), harness.metrics.restarts.get()), (true, 0));
    });
}
