//! The supervisor over a real store and a local server.

mod leaving;

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use actix::Message;
use daemon::{Clock, metrics::MetricsRegistry};
use fetch::{Policy, Visitor, schedule::IntervalBounds};
use news::{Catalogue, FeedRhythm, FeedUrl, Timestamp, VisitStatus};
use rustix::time::{ClockId, clock_gettime};
use sources::CredentialFiles;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Semaphore, broadcast, watch},
};

use super::*;
use crate::{
    messages::{ApplyCatalogue, CatalogueDiff},
    queue::limiter::{HostLimiter, VisitLimits},
    recorder::{Recorder, WriterLoop},
    recording::Recording,
    status::{activity::Activity, metrics::IngestMetrics},
    visit::{
        context::{ParseFn, ParseLimits},
        crash_guard::{CRASHES_MAX, CrashGuard},
        lost_time::LostTime,
        source_actor::tests::Die,
    },
};

const FEED: &str = "<rss version='2.0'><channel><title>t</title><link>http://x.example/</link>\
                    <description>d</description><item><title>one</title><guid>1</guid></item></channel></rss>";

/// A generous deadline, which only something that never happens reaches.
const SOON: Duration = Duration::from_secs(60);

/// A supervisor over a real store, and a server that answers every request with [`FEED`].
pub(crate) struct Harness {
    pub(crate) supervisor: Addr<Supervisor>,
    /// `None` in a test that changes it.
    pub(crate) ctx: Option<Rc<VisitContext>>,
    pub(crate) registry: SourceRegistry,
    notices: broadcast::Receiver<wire::Notice>,
    url: String,
    pub(crate) metrics: IngestMetrics,
    pub(crate) directory: tempfile::TempDir,
    reader: store::LogReader,
}

async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    actix_rt::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", FEED.len());
            stream.write_all(format!("{head}{FEED}").as_bytes()).await.ok();
        }
    });
    url
}

pub(crate) async fn harness(parse: ParseFn) -> Harness {
    let visitor = Visitor::try_new(Policy { allow_private: true, ..Policy::default() }).unwrap();
    harness_with(parse, visitor, CredentialFiles::default()).await
}

pub(crate) async fn harness_with(parse: ParseFn, visitor: Visitor, credentials: CredentialFiles) -> Harness {
    let directory = tempfile::tempdir().unwrap();
    let (writer, reader) = store::open(directory.path(), &store::StoreOptions::default()).unwrap();
    let metrics = IngestMetrics::register(&MetricsRegistry::new());
    let clock = Clock::system();
    let head_changed = watch::channel(reader.head()).0;
    let epoch = reader.epoch().clone();
    let writer_loop = WriterLoop {
        writer,
        reader: reader.clone(),
        head_changed,
        clock: clock.clone(),
        retention_age: Duration::MAX,
        metrics: metrics.clone(),
        recording: Recording::new(clock.clone(), metrics.clone()),
        watch: daemon::watch::Watch::new(),
        changed: None,
    };
    let (recorder, _thread) =
        Recorder::start(writer_loop, |error| panic!("the log failed: {error}")).unwrap();
    let (notices, received) = broadcast::channel(64);
    let second = Duration::from_secs(1);
    let recorder = recorder.start();
    let host_spacing = Duration::ZERO;
    let limits = VisitLimits { in_flight: 8, host_in_flight: 8, host_spacing, memory_bytes: 16 << 20 };
    let ctx = VisitContext {
        visitor,
        credentials,
        limiter: HostLimiter::new(limits, metrics.clone()),
        parsers: Arc::new(Semaphore::new(1)),
        parse,
        crash_guard: CrashGuard::open(directory.path(), &daemon::watch::Watch::new()).unwrap(),
        parse_limits: ParseLimits::default(),
        lost_time: LostTime::default(),
        outage: RefCell::default(),
        recorder: recorder.clone().recipient(),
        websub: None,
        notices,
        interval_bounds: Cell::new(IntervalBounds { interval_min: second, interval_max: second * 60 }),
        epoch,
        clock,
        metrics: metrics.clone(),
    };
    let registry = SourceRegistry::default();
    let (pauses, removals) = (recorder.clone().recipient(), recorder.clone().recipient());
    let subscriptions = recorder.recipient();
    let ctx = Rc::new(ctx);
    let supervisor =
        Supervisor::new(Rc::clone(&ctx), registry.clone(), pauses, removals, subscriptions, None).start();
    let ctx = Some(ctx);
    Harness { supervisor, ctx, registry, notices: received, url: serve().await, metrics, directory, reader }
}

impl Harness {
    /// Before there are any sources.
    async fn limit_parsing(&mut self, limits: ParseLimits) {
        self.ctx = None;
        self.supervisor.send(SetParseLimits(limits)).await.unwrap();
    }

    fn source(&self, id: &str) -> Source {
        let mut source = Source::new(SourceId::try_new(id).unwrap(), FeedUrl::try_new(&self.url).unwrap());
        source.every = Some(Duration::from_secs(3600));
        source
    }

    pub(crate) async fn apply(&self, sources: Vec<Source>) -> CatalogueDiff {
        let message = ApplyCatalogue {
            catalogue: Catalogue { sources, ..Catalogue::default() },
            stored_states: HashMap::new(),
            request_hashes: HashMap::new(),
            elsewhere: HashSet::new(),
        };
        self.supervisor.send(message).await.unwrap()
    }

    /// As a reload does.
    pub(crate) async fn reload(&self, sources: Vec<Source>, credentials: &CredentialFiles) -> CatalogueDiff {
        let supervisor = self.supervisor.clone().recipient();
        let catalogue = Catalogue { sources, ..Catalogue::default() };
        let ends =
            crate::catalogue::CatalogueEnds { supervisor: &supervisor, credentials, reader: &self.reader };
        crate::catalogue::apply_catalogue(ends, catalogue, None).await.unwrap()
    }

    /// The next report of a visit.
    pub(crate) async fn report(&mut self) -> news::VisitReport {
        loop {
            let notice = tokio::time::timeout(SOON, self.notices.recv());
            if let wire::Notice::Source(json) = notice.await.unwrap().unwrap() {
                return serde_json::from_str(&json).unwrap();
            }
        }
    }

    /// Orders a visit and waits for its report.
    pub(crate) async fn visit_again(&mut self, id: &str) -> news::VisitReport {
        let answer = self.supervisor.send(VisitSources(vec![id.to_owned()])).await.unwrap();
        assert_eq!(answer.accepted, [id]);
        self.report().await
    }

    async fn until(&self, what: impl Fn() -> bool) {
        let wait = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("it happens within a minute");
    }
}

pub(crate) fn run<F: Future>(test: F) -> F::Output {
    actix_rt::System::new().block_on(test)
}

#[test]
fn a_source_actor_that_dies_is_rebuilt_with_its_state() {
    run(async {
        let mut harness = harness(feed::read).await;
        harness.apply(vec![harness.source("a"), harness.source("b")]).await;
        let (first, second) = (harness.report().await, harness.report().await);
        assert_eq!((first.new, second.new), (1, 1));
        harness.supervisor.send(Kill("a")).await.unwrap();
        let entry = harness.registry.get("a").unwrap();
        harness.until(|| entry.status().restarts == 1).await;
        assert_eq!(entry.activity(), Activity::Down, "and it is shown");
        assert_eq!(
            harness.registry.get("b").unwrap().activity(),
            Activity::Idle,
            "the other source is not affected"
        );
        harness.until(|| entry.activity() == Activity::Idle).await;
        let answer = harness.supervisor.send(VisitSources(vec!["a".into()])).await.unwrap();
        assert_eq!(answer.accepted, ["a"]);
        let report = harness.report().await;
        assert_eq!((report.status, report.new), (VisitStatus::Unchanged, 0), "its state was kept");
        assert_eq!(harness.metrics.restarts.get(), 1);
    });
}

#[test]
fn each_death_postpones_the_next_rebuild() {
    run(async {
        let mut harness = harness(feed::read).await;
        harness.apply(vec![harness.source("a")]).await;
        harness.report().await;
        let entry = harness.registry.get("a").unwrap();
        let mut waits = Vec::new();
        for deaths in 1..=2 {
            harness.supervisor.send(Kill("a")).await.unwrap();
            harness.until(|| entry.status().restarts == deaths).await;
            let died = Instant::now();
            harness.until(|| entry.activity() == Activity::Idle).await;
            waits.push(died.elapsed());
        }
        // A busy machine makes a wait longer, and never as short as the first one is planned.
        assert!(waits[1] > liveness::REBUILD_FIRST * 3 / 2, "{waits:?}");
    });
}

#[test]
fn a_panic_while_parsing_a_document_costs_that_visit_and_is_shown() {
    run(async {
        let mut harness = harness(|_, _| panic!("index out of bounds")).await;
        harness.apply(vec![harness.source("a")]).await;
        let report = harness.report().await;
        assert_eq!(report.status, VisitStatus::Error);
        assert_eq!(report.error.as_deref(), Some("panic: index out of bounds"));
        assert!(report.next_visit.is_some(), "it is visited again");
        assert_eq!(harness.metrics.panics.get(), 1);
        assert_eq!(harness.registry.get("a").unwrap().status().restarts, 0, "its actor is alive");
    });
}

#[test]
fn a_new_catalogue_does_not_disturb_what_did_not_change() {
    run(async {
        let mut harness = harness(feed::read).await;
        harness.apply(vec![harness.source("a"), harness.source("b"), harness.source("c")]).await;
        for _ in 0..3 {
            harness.report().await;
        }
        let before = harness.registry.get("a").unwrap();
        let mut renamed = harness.source("b");
        renamed.name = "Another name".to_owned();
        let mut off = harness.source("d");
        off.enabled = false;
        let diff = harness.apply(vec![harness.source("a"), renamed, off]).await;
        assert_eq!(diff, CatalogueDiff { added: 1, changed: 1, removed: 1, unchanged: 1 });
        assert!(Arc::ptr_eq(&before, &harness.registry.get("a").unwrap()));
        assert_eq!(harness.registry.get("b").unwrap().status().counts.visits, 1, "its state was kept");
        assert!(harness.registry.get("c").is_none());
        let ids = ["a", "c", "d"].map(str::to_owned).to_vec();
        let answer = harness.supervisor.send(VisitSources(ids)).await.unwrap();
        assert_eq!(answer.unknown, ["c"]);
        assert_eq!(answer.disabled, ["d"]);
    });
}

#[test]
fn a_visit_in_progress_ends_with_the_old_entry_and_is_not_repeated() {
    static GO_ON: AtomicBool = AtomicBool::new(false);
    fn held(bytes: &[u8], hints: &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError> {
        // Not for ever, if the test has failed.
        for _ in 0..10_000 {
            if GO_ON.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        feed::read(bytes, hints)
    }
    run(async {
        let mut harness = harness(held).await;
        harness.apply(vec![harness.source("a")]).await;
        harness.until(|| harness.registry.get("a").unwrap().activity() == Activity::Parsing).await;
        let before = harness.registry.get("a").unwrap();
        for name in ["Another name", "And another"] {
            let mut renamed = harness.source("a");
            name.clone_into(&mut renamed.name);
            assert_eq!(harness.apply(vec![renamed]).await.changed, 1);
            assert!(Arc::ptr_eq(&before, &harness.registry.get("a").unwrap()), "the visit is not disturbed");
        }
        GO_ON.store(true, Ordering::Relaxed);
        assert_eq!(harness.report().await.new, 1, "the visit ended");
        harness.until(|| !Arc::ptr_eq(&before, &harness.registry.get("a").unwrap())).await;
        let after = harness.registry.get("a").unwrap();
        assert_eq!(after.source.name, "And another");
        assert_eq!(after.status().counts.visits, 1, "its state was kept");
        assert_eq!((after.status().restarts, after.activity()), (0, Activity::Idle));
    });
}

impl Harness {
    async fn pause(&self, id: &str, pause: Option<Pause>) -> PauseAnswer {
        self.order_pause(SetPause { ids: vec![id.to_owned()], pause, is_for_coming: false }).await
    }

    async fn order_pause(&self, order: SetPause) -> PauseAnswer {
        self.supervisor.send(order).await.unwrap().unwrap()
    }
}

fn pause(since: Timestamp, until: Option<Timestamp>) -> Pause {
    Pause { since, until, reason: Some("the publisher asked".to_owned()) }
}

#[test]
fn a_paused_source_is_not_visited_shows_why_and_rejects_orders() {
    run(async {
        let mut harness = harness(feed::read).await;
        let mut often = harness.source("a");
        often.every = Some(Duration::from_secs(1));
        harness.apply(vec![often.clone(), harness.source("b")]).await;
        let now = Timestamp::from_millis(Clock::system().now_millis());
        let until = now.plus(Duration::from_secs(3600));
        assert_eq!(harness.pause("a", Some(pause(now, Some(until)))).await.done.len(), 1);
        harness.report().await;
        // A visit that was in progress when the pause was ordered ends first.
        harness.until(|| harness.registry.get("a").unwrap().activity() == Activity::Idle).await;
        let answer = harness.supervisor.send(VisitSources(vec!["a".into(), "b".into()])).await.unwrap();
        assert_eq!((answer.paused, answer.accepted), (vec!["a".to_owned()], vec!["b".to_owned()]));
        let status = harness.registry.get("a").unwrap().status();
        assert_eq!((status.activity.as_str(), status.next_visit), ("paused", Some(until)));
        assert_eq!(status.why, format!("paused until {until}: the publisher asked"));
        often.name = "Another name".to_owned();
        harness.apply(vec![often, harness.source("b")]).await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let status = harness.registry.get("a").unwrap().status();
        assert!(status.paused.is_some(), "a new catalogue ends no pause");
        assert!(status.counts.visits <= 1, "at most the visit that was in progress: {status:?}");
        assert_eq!(harness.pause("a", None).await.done.len(), 1);
        harness
            .until(|| harness.registry.get("a").unwrap().status().counts.visits > status.counts.visits)
            .await;
        let again = harness.pause("a", None).await;
        assert_eq!(
            (again.idle, harness.pause("x", None).await.unknown),
            (vec!["a".into()], vec!["x".into()])
        );
    });
}

#[test]
fn a_pause_that_was_ordered_before_the_source_is_listed_precedes_its_first_visit() {
    run(async {
        let mut harness = harness(feed::read).await;
        harness.apply(vec![harness.source("a")]).await;
        harness.report().await;
        let held = pause(Timestamp::from_millis(Clock::system().now_millis()), None);
        let order = |ids: &[&str], is_for_coming| SetPause {
            ids: ids.iter().copied().map(str::to_owned).collect(),
            pause: Some(held.clone()),
            is_for_coming,
        };
        assert_eq!(harness.order_pause(order(&["b", "off"], true)).await.unknown, ["b", "off"]);
        assert_eq!(harness.order_pause(order(&["c"], false)).await.unknown, ["c"]);
        let off = Source { enabled: false, ..harness.source("off") };
        let listed = ["a", "b", "c"].map(|id| harness.source(id));
        harness.apply([&listed[..], &[off]].concat()).await;
        let paused = |id: &str| harness.registry.get(id).unwrap().pause();
        assert_eq!((paused("b"), paused("c"), paused("off")), (Some(held.clone()), None, None));
        harness.until(|| harness.registry.get("c").unwrap().state().counts.visits > 0).await;
        let b = SourceId::try_new("b").unwrap();
        harness.until(|| harness.reader.state(&b).unwrap().is_some_and(|b| b.paused.is_some())).await;
        assert_eq!(harness.registry.get("b").unwrap().state().counts.visits, 0);
    });
}

#[test]
fn a_pause_ends_by_itself_and_an_ended_one_is_discarded_at_a_start() {
    run(async {
        let mut harness = harness(feed::read).await;
        harness.apply(vec![harness.source("a")]).await;
        harness.report().await;
        let now = Timestamp::from_millis(Clock::system().now_millis());
        let ended = pause(now, Some(now.plus(Duration::from_secs(3))));
        harness.pause("a", Some(ended.clone())).await;
        let entry = harness.registry.get("a").unwrap();
        assert_eq!(entry.status().activity, "paused");
        harness.until(|| !entry.is_paused()).await;
        assert_eq!(entry.status().activity, "idle");
        let held = pause(now, None);
        let state = |paused: &Pause| SourceState { paused: Some(paused.clone()), ..SourceState::default() };
        let stored_states = [("b", state(&ended)), ("c", state(&held))]
            .map(|(id, state)| (SourceId::try_new(id).unwrap(), state));
        let sources = ["a", "b", "c"].map(|id| harness.source(id)).to_vec();
        let message = ApplyCatalogue {
            catalogue: Catalogue { sources, ..Catalogue::default() },
            stored_states: stored_states.into(),
            request_hashes: HashMap::new(),
            elsewhere: HashSet::new(),
        };
        harness.supervisor.send(message).await.unwrap();
        let paused = |id: &str| harness.registry.get(id).unwrap().pause();
        assert_eq!((paused("a"), paused("b"), paused("c")), (None, None, Some(held)));
    });
}

#[test]
fn items_that_wait_are_counted_as_lost_when_their_source_gets_another_address() {
    run(async {
        let harness = harness(feed::read).await;
        let url = |path: &str| FeedUrl::try_new(&format!("{}{path}", harness.url)).unwrap();
        let state = |url: &FeedUrl, waiting_items| {
            let mut before = harness.source("any");
            before.url = url.clone();
            let flooding = news::Flooding {
                since: Timestamp::from_millis(0),
                waiting_items,
                waiting_bytes: 1,
                bound: news::FloodingBound::Visit,
                lost_items: 0,
            };
            let mut state = SourceState { address: before.request_hash(), ..SourceState::default() };
            state.moves.home = crate::visit::redirects::url_hash(url);
            state.flooding = Some(Box::new(news::FloodingState { flooding, full_visits: 0 }));
            state
        };
        let mut keyed = harness.source("keyed");
        keyed.access.user_agent = Some("other/1".to_owned());
        let stored_states = [
            ("moved", state(&url("old"), 7)),
            ("same", state(&url(""), 11)),
            ("keyed", state(&url(""), 13)),
            ("drained", state(&url("old"), 0)),
        ]
        .map(|(id, state)| (SourceId::try_new(id).unwrap(), state));
        let mut sources = ["moved", "same", "drained"].map(|id| harness.source(id)).to_vec();
        sources.push(keyed);
        let message = ApplyCatalogue {
            catalogue: Catalogue { sources, ..Catalogue::default() },
            stored_states: stored_states.into(),
            request_hashes: HashMap::new(),
            elsewhere: HashSet::new(),
        };
        harness.supervisor.send(message).await.unwrap();
        assert_eq!(harness.metrics.items_lost.get(), 7);
    });
}

#[test]
fn a_restart_spreads_what_is_due_and_keeps_what_is_not() {
    run(async {
        let harness = harness(feed::read).await;
        let now = Timestamp::from_millis(Clock::system().now_millis());
        let later = now.plus(Duration::from_secs(600));
        let state = |next| SourceState { last_visit: Some(now), next_visit: next, ..SourceState::default() };
        let far = now.plus(Duration::from_secs(400 * 86_400));
        let stored_states = [("due", Some(now)), ("later", Some(later)), ("gone", None), ("far", Some(far))]
            .map(|(id, next)| (SourceId::try_new(id).unwrap(), state(next)));
        let sources = ["due", "later", "gone", "far"].map(|id| harness.source(id)).to_vec();
        let message = ApplyCatalogue {
            catalogue: Catalogue { sources, ..Catalogue::default() },
            stored_states: stored_states.into(),
            request_hashes: HashMap::new(),
            elsewhere: HashSet::new(),
        };
        harness.supervisor.send(message).await.unwrap();
        let next = |id: &str| harness.registry.get(id).unwrap().state().next_visit;
        assert_eq!(next("later"), Some(later));
        assert!(next("gone").is_some(), "no source is given up");
        assert!(next("far") < Some(far), "a clock that was wrong postpones nothing by years");
        let due = harness.registry.get("due").unwrap();
        harness.until(|| due.state().counts.visits == 1).await;
    });
}

#[test]
fn skipped_hours_defer_an_overdue_source_unless_it_was_in_a_burst() {
    run(async {
        let harness = harness(feed::read).await;
        let now = Timestamp::from_millis(Clock::system().now_millis());
        let ago = |minutes: i64| Timestamp::from_millis(now.millis() - minutes * 60_000);
        // All but the hour in half a day.
        let hour = (now.millis() / 3_600_000 + 12) % 24;
        let state = |next: Timestamp, recent: &[Timestamp]| SourceState {
            last_visit: Some(ago(1)),
            last_success: Some(ago(1)),
            last_news: Some(ago(10)),
            rhythm: FeedRhythm {
                skip_hours: 0x00ff_ffff & !(1 << hour),
                recent: recent.to_vec(),
                ..FeedRhythm::default()
            },
            next_visit: Some(next),
            ..SourceState::default()
        };
        let (burst, quiet) = ([ago(10), ago(20)], [ago(10), ago(100)]);
        let later = now.plus(Duration::from_secs(600));
        let states =
            [("burst", now, burst), ("quiet", now, quiet), ("later", later, burst), ("calm", later, quiet)];
        let source = |id: &str| Source { every: None, ..harness.source(id) };
        let message = ApplyCatalogue {
            catalogue: Catalogue {
                sources: states.iter().map(|(id, ..)| source(id)).collect(),
                ..Catalogue::default()
            },
            stored_states: states
                .iter()
                .map(|(id, next, recent)| (SourceId::try_new(id).unwrap(), state(*next, recent)))
                .collect(),
            request_hashes: HashMap::new(),
            elsewhere: HashSet::new(),
        };
        harness.supervisor.send(message).await.unwrap();
        let entry = |id: &str| harness.registry.get(id).unwrap();
        let is_deferred = |id: &str| entry(id).next_visit() > Some(now.plus(Duration::from_secs(3600)));
        assert!(is_deferred("quiet"), "{:?}", entry("quiet").state());
        harness.until(|| entry("burst").state().counts.visits == 1).await;
        for id in ["later", "calm"] {
            entry(id).set_next_visit(ago(1), None);
        }
        harness.supervisor.send(Jump { by_ms: 7_200_000 }).await.unwrap();
        harness.until(|| entry("later").state().counts.visits == 1).await;
        assert!(is_deferred("calm"), "{:?}", entry("calm").state());
    });
}

#[test]
fn a_changed_source_is_visited_at_once_and_so_is_one_that_is_added_again() {
    run(async {
        let mut harness = harness(feed::read).await;
        let gone = |source: &Source| {
            let now = Timestamp::from_millis(Clock::system().now_millis());
            let mut state = SourceState {
                address: source.request_hash(),
                plan: source.plan_hash(),
                last_visit: Some(now),
                last_status: Some(VisitStatus::Gone),
                failures: 3,
                gone_in_a_row: 3,
                next_visit: Some(now.plus(Duration::from_secs(7 * 86_400))),
                ..SourceState::default()
            };
            state.counts.visits = 3;
            state
        };
        let with = |change: &dyn Fn(&mut Source)| {
            let mut source = harness.source("a");
            change(&mut source);
            source
        };
        let old = with(&|source| source.url = FeedUrl::try_new("http://127.0.0.1:9/").unwrap());
        let plain = with(&|_| {});
        let header = with(&|source| source.access.headers = vec![("x-key".to_owned(), "1".to_owned())]);
        // As after a restart: the list was changed while the daemon did not run.
        let stored_states = [(old.id.clone(), gone(&old))].into();
        let message = ApplyCatalogue {
            catalogue: Catalogue { sources: vec![plain.clone()], ..Catalogue::default() },
            stored_states,
            request_hashes: HashMap::new(),
            elsewhere: HashSet::new(),
        };
        harness.supervisor.send(message).await.unwrap();
        let report = harness.report().await;
        assert_eq!((report.status, report.new), (VisitStatus::New, 1));
        let visits = |harness: &Harness| harness.registry.get("a").unwrap().state().counts.visits;
        assert_eq!(visits(&harness), 4, "its counts stay");
        // As by a reload.
        for changed in [header, plain.clone()] {
            assert_eq!(harness.apply(vec![changed]).await.changed, 1);
            assert_eq!(harness.report().await.new, 0, "no item comes twice");
        }
        harness.apply(Vec::new()).await;
        harness.until(|| harness.reader.state(&plain.id).unwrap().unwrap().removed).await;
        let stored_states = [(plain.id.clone(), gone(&plain))].into();
        let message = ApplyCatalogue {
            catalogue: Catalogue { sources: vec![plain], ..Catalogue::default() },
            stored_states,
            request_hashes: HashMap::new(),
            elsewhere: HashSet::new(),
        };
        harness.supervisor.send(message).await.unwrap();
        assert_eq!(harness.report().await.status, VisitStatus::Unchanged, "added again");
        assert_eq!(harness.registry.get("a").unwrap().state().gone_in_a_row, 0);
        let stored = harness.reader.state(&old.id).unwrap().unwrap();
        assert_eq!((stored.removed, stored.counts.visits), (false, 4));
    });
}

#[test]
fn a_clock_jump_delays_no_visit_and_moves_what_is_planned() {
    run(async {
        let mut harness = harness(feed::read).await;
        harness.apply(vec![harness.source("a")]).await;
        harness.report().await;
        let entry = harness.registry.get("a").unwrap();
        // As after a sleep: the time has passed, and the timer has not noticed.
        let passed = Timestamp::from_millis(Clock::system().now_millis() - 1000);
        entry.set_next_visit(passed, None);
        harness.supervisor.send(Jump { by_ms: 7_200_000 }).await.unwrap();
        assert_eq!(harness.report().await.status, VisitStatus::Unchanged);
        let next = entry.next_visit().unwrap();
        harness.supervisor.send(Jump { by_ms: -10_000 }).await.unwrap();
        harness.until(|| entry.next_visit().is_some_and(|now| now < next)).await;
        let moved = next.since(entry.next_visit().unwrap());
        assert!(moved.abs_diff(Duration::from_secs(10)) < Duration::from_secs(1), "{moved:?}");
        assert_eq!(harness.metrics.clock_jumps.get(), 2, "each is counted once");
    });
}

#[test]
fn a_restart_and_a_clock_jump_leave_a_gone_source_alone() {
    run(async {
        let harness = harness(feed::read).await;
        let now = Timestamp::from_millis(Clock::system().now_millis());
        let next = now.plus(Duration::from_secs(55 * 86_400));
        let state = SourceState {
            last_visit: Some(now),
            last_status: Some(VisitStatus::Gone),
            gone_in_a_row: 6,
            next_visit: Some(next),
            ..SourceState::default()
        };
        let source = harness.source("a");
        let stored_states = [(source.id.clone(), state)].into();
        let message = ApplyCatalogue {
            catalogue: Catalogue { sources: vec![source], ..Catalogue::default() },
            stored_states,
            request_hashes: HashMap::new(),
            elsewhere: HashSet::new(),
        };
        harness.supervisor.send(message).await.unwrap();
        harness.supervisor.send(Jump { by_ms: 7_200_000 }).await.unwrap();
        harness.until(|| harness.metrics.clock_jumps.get() == 1).await;
        assert_eq!(harness.registry.get("a").unwrap().next_visit(), Some(next));
    });
}

/// The processor time of this thread.
fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

#[test]
fn a_document_that_takes_long_to_parse_is_quarantined_until_an_operator_orders_a_visit() {
    fn slow(bytes: &[u8], hints: &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError> {
        let end = processor_time() + crate::visit::outcome::PARSE_SLOW + Duration::from_millis(100);
        while processor_time() < end {
            std::hint::black_box(bytes.len());
        }
        feed::read(bytes, hints)
    }
    run(async {
        let mut harness = harness(slow).await;
        harness.apply(vec![harness.source("a")]).await;
        let report = harness.report().await;
        assert_eq!((report.new, harness.metrics.slow_parses.get()), (1, 1), "its items are recorded anyway");
        let entry = harness.registry.get("a").unwrap();
        let quarantine = entry.status().quarantine.unwrap_or_default();
        assert!(quarantine.starts_with("its document took "), "{quarantine:?}");
        harness.supervisor.send(VisitSources(vec!["a".into()])).await.unwrap();
        assert_eq!(harness.report().await.status, VisitStatus::Unchanged);
        assert_eq!(entry.status().quarantine, None, "the same bytes were not parsed again");
    });
}

#[test]
fn a_document_whose_thread_waits_is_not_blamed_for_that() {
    #[expect(clippy::disallowed_methods, reason = "a thread that waits for a disk or a processor")]
    fn waiting(bytes: &[u8], hints: &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError> {
        std::thread::sleep(crate::visit::outcome::PARSE_SLOW + Duration::from_millis(500));
        feed::read(bytes, hints)
    }
    run(async {
        let mut harness = harness(waiting).await;
        harness.apply(vec![harness.source("a")]).await;
        assert_eq!((harness.report().await.new, harness.metrics.slow_parses.get()), (1, 0));
        let status = harness.registry.get("a").unwrap().status();
        assert_eq!((status.quarantine, status.consecutive_failures), (None, 0));
    });
}

#[test]
fn a_document_that_never_ends_is_quarantined_when_its_processor_time_is_used_up() {
    static ENDED: AtomicBool = AtomicBool::new(false);
    fn endless(bytes: &[u8], hints: &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError> {
        while !ENDED.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        feed::read(bytes, hints)
    }
    run(async {
        let mut harness = harness(endless).await;
        let processor = crate::visit::outcome::PARSE_SLOW + Duration::from_millis(200);
        harness.limit_parsing(ParseLimits { processor, wait: Duration::from_secs(600) }).await;
        harness.apply(vec![harness.source("a")]).await;
        let report = harness.report().await;
        ENDED.store(true, Ordering::Relaxed);
        assert!(report.error.unwrap().starts_with("too-complex: parsing takes more than"));
        let status = harness.registry.get("a").unwrap().status();
        assert!(status.quarantine.unwrap().ends_with("of processor time to parse"));
        assert_eq!(status.consecutive_failures, 1);
    });
}

#[test]
fn a_visit_whose_document_waits_for_this_machine_is_postponed_and_its_feed_not_blamed() {
    static ENDED: AtomicBool = AtomicBool::new(false);
    #[expect(clippy::disallowed_methods, reason = "a thread that waits for a disk or a processor")]
    fn waiting(bytes: &[u8], hints: &feed::Hints<'_>) -> Result<feed::FeedDocument, feed::FeedError> {
        while !ENDED.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        feed::read(bytes, hints)
    }
    run(async {
        let mut harness = harness(waiting).await;
        let limits = ParseLimits { processor: Duration::from_secs(600), wait: Duration::from_millis(500) };
        harness.limit_parsing(limits).await;
        // The second waits for the only permit.
        harness.apply(vec![harness.source("a"), harness.source("b")]).await;
        for _ in 0..2 {
            assert_eq!(harness.report().await.status, VisitStatus::Error);
        }
        ENDED.store(true, Ordering::Relaxed);
        for id in ["a", "b"] {
            let entry = harness.registry.get(id).unwrap();
            let status = entry.status();
            assert_eq!((status.quarantine, status.consecutive_failures), (None, 0), "{id}");
            assert!(status.why.contains("not counted against the feed"), "{}", status.why);
            let now = Timestamp::from_millis(Clock::system().now_millis());
            assert_eq!(entry.try_snapshot(now).unwrap().ended, None, "{id}: nothing is known about the feed");
        }
        assert_eq!(harness.metrics.exempted.get(), 2);
    });
}

#[test]
fn a_visit_during_which_the_process_did_not_run_is_no_failure_of_the_feed() {
    run(async {
        let policy = Policy {
            allow_private: true,
            timeout_first_byte: Duration::from_millis(300),
            ..Policy::default()
        };
        let visitor = Visitor::try_new(policy).unwrap();
        let mut harness = harness_with(feed::read, visitor, CredentialFiles::default()).await;
        // The kernel connects; no answer ever comes.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        harness.url = format!("http://{}/", silent.local_addr().unwrap());
        let lost_time = harness.ctx.as_ref().unwrap().lost_time.clone();
        harness.apply(vec![harness.source("blamed")]).await;
        assert_eq!(harness.report().await.status, VisitStatus::Error);
        let failures = |id: &str| harness.registry.get(id).unwrap().status().consecutive_failures;
        assert_eq!(failures("blamed"), 1, "control: nothing was lost");
        harness.apply(vec![harness.source("blamed"), harness.source("pardoned")]).await;
        let entry = harness.registry.get("pardoned").unwrap();
        harness.until(|| entry.activity() == Activity::Fetching).await;
        lost_time.lose(Duration::from_secs(600));
        harness.until(|| entry.state().counts.visits == 1).await;
        assert_eq!(failures("pardoned"), 0);
        assert!(entry.status().why.contains("had no processor"), "{}", entry.status().why);
    });
}

#[test]
fn a_source_that_was_being_parsed_at_three_crashes_is_quarantined() {
    run(async {
        let harness = Harness { ctx: None, ..harness(feed::read).await };
        for _ in 0..CRASHES_MAX {
            let crash_guard =
                CrashGuard::open(harness.directory.path(), &daemon::watch::Watch::new()).unwrap();
            std::mem::forget(crash_guard.begin(&SourceId::try_new("a").unwrap()));
        }
        let crash_guard = CrashGuard::open(harness.directory.path(), &daemon::watch::Watch::new()).unwrap();
        harness.supervisor.send(ReplaceCrashGuard(crash_guard)).await.unwrap();
        harness.apply(vec![harness.source("a"), harness.source("b")]).await;
        let entry = |id| harness.registry.get(id).unwrap();
        harness.until(|| entry("b").state().counts.visits == 1).await;
        let status = entry("a").status();
        assert_eq!((status.counts.visits, status.activity.as_str()), (0, "idle"));
        assert!(status.quarantine.unwrap().ends_with("at 3 crashes of the process"));
        assert!(status.next_visit.is_some(), "never silently dead");
    });
}

/// Another crash guard than at the start.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct ReplaceCrashGuard(CrashGuard);

impl Handler<ReplaceCrashGuard> for Supervisor {
    type Result = ();

    fn handle(&mut self, ReplaceCrashGuard(crash_guard): ReplaceCrashGuard, _: &mut Self::Context) {
        Rc::get_mut(&mut self.ctx).unwrap().crash_guard = crash_guard;
    }
}

/// Other limits than usual.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct SetParseLimits(ParseLimits);

impl Handler<SetParseLimits> for Supervisor {
    type Result = ();

    fn handle(&mut self, SetParseLimits(limits): SetParseLimits, _: &mut Self::Context) {
        Rc::get_mut(&mut self.ctx).unwrap().parse_limits = limits;
    }
}

/// Makes the clock look as if it had jumped.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Jump {
    by_ms: i64,
}

impl Handler<Jump> for Supervisor {
    type Result = ();

    fn handle(&mut self, Jump { by_ms }: Jump, _: &mut Self::Context) {
        let wall = &mut self.clock_reading.wall;
        *wall = Timestamp::from_millis(wall.millis() - by_ms);
    }
}

/// Kills the actor of a source.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Kill(&'static str);

impl Handler<Kill> for Supervisor {
    type Result = ();

    fn handle(&mut self, Kill(id): Kill, _: &mut Self::Context) {
        let supervised = &self.sources[id];
        supervised.actor.as_ref().unwrap().try_send(Die).unwrap();
    }
}
