//! The daemon's visiting half on simulated time: the real roster, actors, gates, schedule, recorder and store on disk,
//! over a network in memory. Days pass in seconds.
//!
//! The clock runs on by itself whenever nobody has anything to do. The recorder's thread is no task of the runtime, so
//! from an answer to the report of its visit the clock is held: else hours would pass during a write to the disk.

mod hostile;
mod hour;
mod politeness;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use actix::{Actor as _, Addr};
use daemon::{Clock, metrics::MetricsRegistry};
use fetch::{Exchange, HttpTransport, Lookup, Policy, Resolver, Visitor, schedule::IntervalBounds};
use news::{Catalogue, FeedUrl, Source, SourceId};
use tokio::{
    sync::{Semaphore, broadcast, watch},
    time::sleep,
};

use crate::{
    board::Board,
    gates::{Bounds, Gates},
    marks::Marks,
    metrics::Numbers,
    recorder::{Close, Desk, Recorder, WriterThread},
    roster::{Dismiss, Roster, Take, Taken},
    secrets::Secrets,
    source_actor::Workshop,
};

/// 2026-03-02T00:00:00Z, a Monday.
const MONDAY_MS: i64 = 1_772_409_600_000;

/// Nobody dies here.
const ROLL_CALL_EVERY: Duration = Duration::from_secs(60);

/// What a server in memory does with a request.
enum Reply {
    /// Answers after so long.
    After(Duration, http::Response<reqwest::Body>),
    /// Never answers.
    Hang,
}

/// All servers of the world. The last part of every path is the id of the source that it belongs to.
trait Servers: Send + Sync {
    fn asked(&self, now_ms: i64, request: &reqwest::Request) -> Reply;
    /// The answer to a request is on its way, or the visitor has left.
    fn ended(&self, _request_url: &url::Url) {}
}

/// The network in memory: every name has an address, and every request reaches [`Servers`].
struct Network {
    servers: Arc<dyn Servers>,
    clock: Clock,
    hold: Arc<Hold>,
}

/// Tells the servers that an exchange ended, however it did.
struct Ended(Arc<dyn Servers>, url::Url);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended(&self.1);
    }
}

impl HttpTransport for Network {
    fn exchange(&self, request: reqwest::Request, _: SocketAddr) -> Exchange {
        let reply = self.servers.asked(self.clock.now_millis(), &request);
        let ended = Ended(Arc::clone(&self.servers), request.url().clone());
        let hold = Arc::clone(&self.hold);
        Box::pin(async move {
            let Reply::After(wait, response) = reply else { return std::future::pending().await };
            sleep(wait).await;
            if !response.status().is_redirection() || response.status() == http::StatusCode::NOT_MODIFIED {
                hold.begin(id_of(&ended.1));
            }
            Ok(response.into())
        })
    }
}

fn id_of(url: &url::Url) -> &str {
    url.path().rsplit('/').next().unwrap_or_default()
}

/// Any name is a public address.
struct AnyName;

impl Resolver for AnyName {
    fn lookup(&self, _: &str) -> Lookup {
        Box::pin(std::future::ready(io::Result::Ok(vec![IpAddr::from([93, 184, 215, 14])])))
    }
}

/// Holds the clock while a visit is on its way through threads that the runtime does not know.
#[derive(Default)]
struct Hold(Mutex<Held>);

#[derive(Default)]
struct Held {
    sources: HashSet<String>,
    /// While this is kept, a task of the blocking pool waits, and a paused clock does not run on by itself.
    brake: Option<mpsc::SyncSender<()>>,
}

impl Hold {
    fn begin(&self, source: &str) {
        let mut held = self.0.lock().unwrap();
        held.sources.insert(source.to_owned());
        if held.brake.is_none() {
            let (brake, released) = mpsc::sync_channel(1);
            held.brake = Some(brake);
            tokio::task::spawn_blocking(move || released.recv().ok());
        }
    }

    fn end(&self, source: &str) {
        let mut held = self.0.lock().unwrap();
        held.sources.remove(source);
        if held.sources.is_empty() {
            held.brake = None;
        }
    }

    fn release(&self) {
        *self.0.lock().unwrap() = Held::default();
    }
}

/// The daemon between a start and a stop.
struct Life {
    roster: Addr<Roster>,
    recorder: Addr<Recorder>,
    thread: WriterThread,
    reader: store::LogReader,
    board: Board,
    hold: Arc<Hold>,
    listener: actix_rt::task::JoinHandle<()>,
}

impl Life {
    async fn start(path: &Path, clock: &Clock, servers: Arc<dyn Servers>, pace: IntervalBounds) -> Self {
        let folder = path.to_owned();
        let opened =
            tokio::task::spawn_blocking(move || store::open(&folder, &store::StoreOptions::default()));
        let (writer, reader) = opened.await.unwrap().unwrap();
        let numbers = Numbers::register(&MetricsRegistry::new());
        let bell = watch::channel(reader.head()).0;
        let desk = Desk {
            writer,
            reader: reader.clone(),
            bell,
            clock: clock.clone(),
            numbers: numbers.clone(),
            watch: daemon::watch::Watch::new(),
        };
        let (recorder, thread) = Recorder::start(desk, || panic!("the log failed")).unwrap();
        let recorder = recorder.start();
        let hold = Arc::new(Hold::default());
        let network = Network { servers, clock: clock.clone(), hold: Arc::clone(&hold) };
        let visitor = Visitor::with_resolver(Policy::default(), Arc::new(AnyName)).unwrap();
        let (notices, heard) = broadcast::channel(4096);
        let host_spacing = Duration::from_secs(1);
        let bounds = Bounds { in_flight: 256, host_in_flight: 2, host_spacing };
        let shop = Workshop {
            visitor: visitor.with_transport(Arc::new(network)),
            secrets: Secrets::new(&path.join("sources.toml"), None),
            gates: Gates::new(bounds, numbers.clone()),
            parsers: Arc::new(Semaphore::new(2)),
            read: feed::read,
            marks: Marks::open(path).unwrap(),
            outage: RefCell::default(),
            recorder: recorder.clone(),
            hubs: None,
            notices,
            pace: std::cell::Cell::new(pace),
            epoch: reader.epoch().clone(),
            clock: clock.clone(),
            numbers,
        };
        let board = Board::default();
        let roster = Roster::new(Rc::new(shop), board.clone()).calling_every(ROLL_CALL_EVERY).start();
        let listener = actix_rt::spawn(release_what_is_reported(heard, Arc::clone(&hold)));
        Self { roster, recorder, thread, reader, board, hold, listener }
    }

    /// Hands the catalogue over with what the store remembers, as the start and a reload do.
    async fn take(&self, sources: Vec<Source>) -> Taken {
        let mut remembered = HashMap::new();
        for source in &sources {
            if let Some(state) = self.reader.state(&source.id).unwrap() {
                remembered.insert(source.id.clone(), state);
            }
        }
        self.roster.send(Take { catalogue: Catalogue { sources }, remembered }).await.unwrap()
    }

    async fn stop(self) {
        self.roster.send(Dismiss).await.ok();
        drop(self.roster);
        self.recorder.send(Close).await.ok();
        drop(self.recorder);
        tokio::task::spawn_blocking(move || self.thread.join()).await.unwrap().unwrap();
        self.hold.release();
        self.listener.abort();
    }
}

async fn release_what_is_reported(mut heard: broadcast::Receiver<wire::Notice>, hold: Arc<Hold>) {
    loop {
        match heard.recv().await {
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

/// A world that lives on simulated time, with the same chances at every run.
fn simulate<F: Future>(story: F) -> F::Output {
    fastrand::seed(7);
    let paused = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().expect("a runtime")
    };
    actix_rt::System::with_tokio_rt(paused).block_on(story)
}

/// In memory where the machine has such a place: the disk has its own tests, and a week here is many commits.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn source(id: &str, url: &str) -> Source {
    Source::new(SourceId::try_new(id).unwrap(), FeedUrl::try_new(url).unwrap())
}
