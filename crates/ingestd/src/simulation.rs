//! Tests of the daemon on simulated time: the real supervisor, actors, limiter, schedule, recorder and store on disk,
//! over a network in memory. Days pass in seconds.
//!
//! The clock advances whenever the runtime is idle. The recorder's thread is not a task of the runtime, so the clock is
//! held from a response to the report of its visit: otherwise hours would pass during a write to the disk.

mod handovers;
mod held;
mod hostile;
mod hour;
mod pacing;
mod politeness;
mod pushes;
mod quiet;
mod settings;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use actix::{Actor, Addr, AsyncContext as _, Context, Handler, ResponseFuture};
use daemon::{Clock, metrics::MetricsRegistry};
use fetch::{Exchange, HttpTransport, Lookup, Policy, Resolver, Visitor, schedule::IntervalBounds};
use news::{Catalogue, FeedUrl, Source, SourceId};
use sources::CredentialFiles;
use tokio::{
    sync::{Semaphore, broadcast, watch},
    time::sleep,
};

use crate::{
    messages::{ApplyCatalogue, CatalogueDiff, LogClosed, RecordVisit, Stop},
    queue::limiter::{HostLimiter, VisitLimits},
    recorder::{Recorder, WriterLoop, WriterThread},
    recording::Recording,
    status::{metrics::IngestMetrics, registry::SourceRegistry},
    supervisor::Supervisor,
    visit::{
        context::{ParseLimits, VisitContext},
        crash_guard::CrashGuard,
        lost_time::LostTime,
    },
    websub::actor::WebSubActor,
};

/// 2026-03-02T00:00:00Z, a Monday.
const MONDAY_MS: i64 = 1_772_409_600_000;

/// No actor dies here, and retention removes nothing.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// The response of a server in memory.
enum Reply {
    /// After so long.
    After(Duration, http::Response<reqwest::Body>),
    /// Never.
    Hang,
}

/// All servers of the network. The last part of every path is the id of the source that it belongs to.
trait Servers: Send + Sync {
    fn respond(&self, now_ms: i64, request: &reqwest::Request) -> Reply;
    /// The response to a request is on its way, or the visitor has cancelled it.
    fn ended(&self, _request_url: &url::Url) {}
}

/// The network in memory: every name has an address, and every request reaches [`Servers`].
struct Network {
    servers: Arc<dyn Servers>,
    clock: Clock,
    hold: Arc<Hold>,
}

/// Notifies the servers when an exchange ends, in any way.
struct Ended(Arc<dyn Servers>, url::Url);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended(&self.1);
    }
}

impl HttpTransport for Network {
    fn exchange(&self, request: reqwest::Request, _: SocketAddr) -> Exchange {
        let reply = self.servers.respond(self.clock.now_millis(), &request);
        let ended = Ended(Arc::clone(&self.servers), request.url().clone());
        let hold = Arc::clone(&self.hold);
        let request_method = request.method().clone();
        Box::pin(async move {
            let Reply::After(wait, response) = reply else { return std::future::pending().await };
            sleep(wait).await;
            // A hub answers without a visit.
            let is_visit = request_method == http::Method::GET;
            let is_last =
                !response.status().is_redirection() || response.status() == http::StatusCode::NOT_MODIFIED;
            if is_visit && is_last {
                hold.begin(id_of(&ended.1));
            }
            Ok(response.into())
        })
    }
}

fn id_of(url: &url::Url) -> &str {
    url.path().rsplit('/').next().unwrap_or_default()
}

/// Resolves any name to a public address.
struct AnyName;

impl Resolver for AnyName {
    fn lookup(&self, _: &str) -> Lookup {
        Box::pin(std::future::ready(io::Result::Ok(vec![IpAddr::from([93, 184, 215, 14])])))
    }
}

/// Holds the clock while a visit is on threads that the runtime does not know.
#[derive(Default)]
struct Hold(Mutex<HeldSources>);

#[derive(Default)]
struct HeldSources {
    sources: HashSet<String>,
    /// While this is kept, a task of the blocking pool waits, and the paused clock does not advance.
    brake: Option<mpsc::SyncSender<()>>,
}

impl Hold {
    fn begin(&self, source: &str) {
        let mut held_sources = self.0.lock().unwrap();
        held_sources.sources.insert(source.to_owned());
        if held_sources.brake.is_none() {
            let (brake, released) = mpsc::sync_channel(1);
            held_sources.brake = Some(brake);
            tokio::task::spawn_blocking(move || released.recv().ok());
        }
    }

    fn end(&self, source: &str) {
        let mut held_sources = self.0.lock().unwrap();
        held_sources.sources.remove(source);
        if held_sources.sources.is_empty() {
            held_sources.brake = None;
        }
    }

    fn release(&self) {
        *self.0.lock().unwrap() = HeldSources::default();
    }
}

/// The daemon between a start and a stop.
struct SimulatedDaemon {
    supervisor: Addr<Supervisor>,
    recorder: Addr<Recorder>,
    /// Only in the simulation of pushes.
    websub: Option<Addr<WebSubActor>>,
    thread: WriterThread,
    reader: store::LogReader,
    registry: SourceRegistry,
    hold: Arc<Hold>,
    listener: actix_rt::task::JoinHandle<()>,
}

impl SimulatedDaemon {
    async fn start(
        path: &Path,
        clock: &Clock,
        servers: Arc<dyn Servers>,
        interval_bounds: IntervalBounds,
    ) -> Self {
        Self::start_with(path, clock, servers, interval_bounds, None).await
    }

    /// Pushes are on if there is a `public_url`.
    async fn start_with(
        path: &Path,
        clock: &Clock,
        servers: Arc<dyn Servers>,
        interval_bounds: IntervalBounds,
        public_url: Option<&str>,
    ) -> Self {
        let folder = path.to_owned();
        let opened =
            tokio::task::spawn_blocking(move || store::open(&folder, &store::StoreOptions::default()));
        let (writer, reader) = opened.await.unwrap().unwrap();
        let metrics = IngestMetrics::register(&MetricsRegistry::new());
        let head_changed = watch::channel(reader.head()).0;
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
        let (recorder, thread) =
            Recorder::start(writer_loop, |error| panic!("the log failed: {error}")).unwrap();
        let recorder = recorder.looking_every(CHECK_EVERY).start();
        let hold = Arc::new(Hold::default());
        let holding = HoldingRecorder { recorder: recorder.clone(), hold: Arc::clone(&hold) }.start();
        let network = Network { servers, clock: clock.clone(), hold: Arc::clone(&hold) };
        let visitor = Visitor::with_resolver(Policy::default(), Arc::new(AnyName)).unwrap();
        let (notices, received) = broadcast::channel(4096);
        let host_spacing = Duration::from_secs(1);
        let limits = VisitLimits { in_flight: 256, host_in_flight: 2, host_spacing, memory_bytes: 128 << 20 };
        let websub = public_url.map(|url| (Context::<WebSubActor>::new(), url.to_owned()));
        let ctx = Rc::new(VisitContext {
            visitor: visitor.with_transport(Arc::new(network)),
            credentials: CredentialFiles::new(&path.join("sources.toml"), None),
            limiter: HostLimiter::new(limits, metrics.clone()),
            parsers: Arc::new(Semaphore::new(2)),
            parse: feed::read,
            crash_guard: CrashGuard::open(path, &daemon::watch::Watch::new()).unwrap(),
            parse_limits: ParseLimits::default(),
            lost_time: LostTime::default(),
            outage: RefCell::default(),
            recorder: holding.recipient(),
            websub: websub.as_ref().map(|(actor_ctx, _)| actor_ctx.address().recipient()),
            notices,
            interval_bounds: Cell::new(interval_bounds),
            epoch: reader.epoch().clone(),
            clock: clock.clone(),
            metrics,
        });
        let registry = SourceRegistry::default();
        let (pauses, removals) = (recorder.clone().recipient(), recorder.clone().recipient());
        let subscriptions = recorder.clone().recipient();
        let review = websub.as_ref().map(|(actor_ctx, _)| actor_ctx.address().recipient());
        let supervisor =
            Supervisor::new(Rc::clone(&ctx), registry.clone(), pauses, removals, subscriptions, review)
                .checking_every(CHECK_EVERY)
                .start();
        let websub = websub.map(|(actor_ctx, url)| {
            let visits = supervisor.clone().recipient();
            let actor = WebSubActor::new(ctx, registry.clone(), visits, recorder.clone().recipient(), url);
            actor_ctx.run(actor)
        });
        let listener = actix_rt::spawn(release_what_is_reported(received, Arc::clone(&hold)));
        Self { supervisor, recorder, websub, thread, reader, registry, hold, listener }
    }

    /// Applies a catalogue with the stored states of its sources, as a start and a reload do.
    async fn apply(&self, sources: Vec<Source>) -> CatalogueDiff {
        self.apply_shared(sources, HashSet::new()).await
    }

    /// The same, with the sources that another daemon visits.
    async fn apply_shared(&self, sources: Vec<Source>, elsewhere: HashSet<SourceId>) -> CatalogueDiff {
        let mut stored_states = HashMap::new();
        for source in &sources {
            if let Some(state) = self.reader.state(&source.id).unwrap() {
                stored_states.insert(source.id.clone(), state);
            }
        }
        self.supervisor
            .send(ApplyCatalogue {
                catalogue: Catalogue { sources, ..Catalogue::default() },
                stored_states,
                request_hashes: HashMap::new(),
                elsewhere,
            })
            .await
            .unwrap()
    }

    /// Awaits what needs the writer thread, which the paused clock does not know.
    async fn held<T>(&self, answer: impl Future<Output = T>) -> T {
        self.hold.begin("this test");
        let answer = answer.await;
        self.hold.end("this test");
        answer
    }

    async fn stop(self) {
        if let Some(websub) = self.websub {
            websub.send(Stop).await.ok();
        }
        self.supervisor.send(Stop).await.ok();
        drop(self.supervisor);
        self.recorder.send(Stop).await.ok();
        drop(self.recorder);
        tokio::task::spawn_blocking(move || self.thread.join()).await.unwrap().unwrap();
        self.hold.release();
        self.listener.abort();
    }
}

/// Holds the clock before it passes a visit on to the recorder: one that ended at a redirect is held from here on.
struct HoldingRecorder {
    recorder: Addr<Recorder>,
    hold: Arc<Hold>,
}

impl Actor for HoldingRecorder {
    type Context = Context<Self>;
}

impl Handler<RecordVisit> for HoldingRecorder {
    type Result = ResponseFuture<Result<store::AppendedVisit, LogClosed>>;

    fn handle(&mut self, visit: RecordVisit, _: &mut Self::Context) -> Self::Result {
        self.hold.begin(visit.visit.source.id.as_str());
        let recorded = self.recorder.send(visit);
        Box::pin(async move { recorded.await.unwrap_or(Err(LogClosed)) })
    }
}

async fn release_what_is_reported(mut received: broadcast::Receiver<wire::Notice>, hold: Arc<Hold>) {
    loop {
        match received.recv().await {
            Ok(wire::Notice::Source(json)) => {
                let report: news::VisitReport = serde_json::from_str(&json).unwrap();
                hold.end(report.source.as_str());
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => return,
            Err(lagged) => panic!("{lagged}"),
        }
    }
}

/// Runs a test on simulated time, with the same random numbers at every run.
fn simulate<F: Future>(test: F) -> F::Output {
    fastrand::seed(7);
    let paused = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().expect("a runtime")
    };
    actix_rt::System::with_tokio_rt(paused).block_on(test)
}

/// In memory if the machine has a memory file system: the disk has its own tests, and a week here is many commits.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn source(id: &str, url: &str) -> Source {
    Source::new(SourceId::try_new(id).unwrap(), FeedUrl::try_new(url).unwrap())
}
