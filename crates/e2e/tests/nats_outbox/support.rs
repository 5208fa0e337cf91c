//! Logs in memory, outboxes that publish them, and what the stream has of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::jetstream;
use e2e::{NatsCluster, NatsServer};
use futures_util::StreamExt as _;
use news::{Cursor, Epoch, Event, EventKind, FeedUrl, Item, Seq, Source, SourceId, Timestamp};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use wire::{
    EventLog, LogBounds, LogError, LogEvent, LogPage,
    nats::{
        EventMessage, EventStream, KnownEnds, NatsConnection, NatsCredentials, NatsSettings, Outbox,
        OutboxCounters, OutboxReport, OutboxStatus, StreamLimits, SubjectNames,
    },
};

/// How long anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A log in memory.
pub(crate) struct MemoryLog {
    pub(crate) epoch: Epoch,
    pub(crate) events: Mutex<Vec<(EventKind, Arc<str>)>>,
    pub(crate) oldest: Mutex<u64>,
    pub(crate) head: watch::Sender<Seq>,
}

impl MemoryLog {
    pub(crate) fn new(epoch: &str) -> Arc<Self> {
        Arc::new(Self {
            epoch: Epoch::try_new(epoch).unwrap(),
            events: Mutex::default(),
            oldest: Mutex::new(1),
            head: watch::channel(Seq(0)).0,
        })
    }

    /// `count` events of sources `0..sources`, in turn.
    pub(crate) fn append(&self, count: usize, sources: usize) {
        self.append_with(count, sources, None);
    }

    pub(crate) fn append_with(&self, count: usize, sources: usize, content_html: Option<&str>) {
        let mut events = Vec::new();
        let head = self.head();
        for seq in head + 1..=head + count as u64 {
            let item = Item {
                key: format!("key {seq} of {}", self.epoch),
                title: format!("title {seq}"),
                content_html: content_html.map(str::to_owned),
                ..Item::default()
            };
            events.push((format!("s{}", seq % sources as u64), EventKind::Item, item));
        }
        self.record(events);
    }

    /// Events with the ids of their sources, at once.
    pub(crate) fn record(&self, recorded: Vec<(String, EventKind, Item)>) {
        let mut events = self.events.lock().unwrap();
        for (source, kind, item) in recorded {
            let id = Cursor { epoch: self.epoch.clone(), seq: Seq(events.len() as u64 + 1) };
            let url = FeedUrl::try_new("https://example.org/feed").unwrap();
            let source = Source::new(SourceId::try_new(&source).unwrap(), url);
            // Each daemon saw it first at another time.
            let first_seen = Timestamp::from_millis(fastrand::i64(0..1_000_000));
            let event = Event::new(id, kind, &source, first_seen, item);
            events.push((kind, event.to_json().into()));
        }
        let head = events.len() as u64;
        drop(events);
        self.head.send_replace(Seq(head));
    }

    pub(crate) fn head(&self) -> u64 {
        self.head.borrow().0
    }
}

impl EventLog for MemoryLog {
    fn bounds(&self) -> LogBounds {
        let oldest = Seq(*self.oldest.lock().unwrap());
        LogBounds { epoch: self.epoch.clone(), oldest, head: *self.head.borrow() }
    }

    fn page(&self, after: Seq, limit: usize, _: usize) -> Result<LogPage, LogError> {
        let LogBounds { oldest, head, .. } = self.bounds();
        let events = self.events.lock().unwrap();
        let first = after.next().max(oldest);
        let events: Vec<_> = (first.0..=head.0)
            .take(limit)
            .map(|seq| {
                let (kind, json) = &events[usize::try_from(seq).unwrap() - 1];
                LogEvent { seq: Seq(seq), kind: *kind, json: json.to_string() }
            })
            .collect();
        let missed = after.missing_before(events.first().map_or(head.next(), |event| event.seq));
        Ok(LogPage { events, missed })
    }
}

pub(crate) async fn connect(server: &NatsServer) -> NatsConnection {
    connect_to(server, 1).await
}

async fn connect_to(server: &NatsServer, replicas: usize) -> NatsConnection {
    let settings = NatsSettings {
        urls: vec![server.url()],
        names: SubjectNames::new("newswire"),
        credentials: NatsCredentials::default(),
        ca_file: None,
        replicas,
        limits: StreamLimits { age: Duration::from_secs(36_000), events: 1_000_000, bytes: 1 << 30 },
        client: "test".to_owned(),
    };
    NatsConnection::open(settings).await.unwrap()
}

/// A running outbox.
pub(crate) struct Running {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) status: watch::Receiver<OutboxStatus>,
    pub(crate) known: KnownEnds,
    pub(crate) counters: Arc<OutboxCounters>,
    pub(crate) reports: Arc<Mutex<Vec<OutboxReport>>>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(server: &NatsServer, log: &Arc<MemoryLog>) -> Self {
        Self::start_with(server, 1, log).await
    }

    /// On a server of a cluster, with a stream on all of its servers.
    pub(crate) async fn start_in_cluster(server: &NatsServer, log: &Arc<MemoryLog>) -> Self {
        Self::start_with(server, NatsCluster::SIZE, log).await
    }

    async fn start_with(server: &NatsServer, replicas: usize, log: &Arc<MemoryLog>) -> Self {
        let stream = EventStream::new(connect_to(server, replicas).await);
        let (counters, reports) = (Arc::<OutboxCounters>::default(), Arc::<Mutex<Vec<_>>>::default());
        let reported = Arc::clone(&reports);
        let report = Arc::new(move |report| reported.lock().unwrap().push(report));
        let as_log = Arc::clone(log) as Arc<dyn EventLog>;
        let outbox = Outbox::new(stream, as_log, log.head.subscribe(), 64, Arc::clone(&counters), report);
        let (status, known, stop) = (outbox.status(), outbox.known_ends(), CancellationToken::new());
        let task = tokio::spawn(outbox.run(stop.clone()));
        Self { log: Arc::clone(log), status, known, counters, reports, stop, task }
    }

    /// Waits until the whole log is in the stream; the epoch of the stream then.
    pub(crate) async fn published(&mut self) -> Epoch {
        self.published_after(None).await
    }

    /// The same in another epoch than `old`.
    pub(crate) async fn published_in_another_epoch(&mut self, old: &Epoch) -> Epoch {
        self.published_after(Some(old)).await
    }

    async fn published_after(&mut self, old: Option<&Epoch>) -> Epoch {
        let head = Seq(self.log.head());
        let is_done = |status: &OutboxStatus| {
            status.through == head
                && !status.refilling
                && status.epoch.is_some()
                && status.epoch.as_ref() != old
        };
        let mut status = self.status.clone();
        match tokio::time::timeout(LIMIT, status.wait_for(is_done)).await {
            Ok(status) => status.unwrap().epoch.clone().unwrap(),
            Err(_) => {
                panic!("not published: {:?}, {:?}", self.status.borrow(), self.reports.lock().unwrap())
            }
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.task).await.unwrap().unwrap();
    }

    /// As when the process is killed.
    pub(crate) async fn kill(self) {
        self.task.abort();
        self.task.await.ok();
    }
}

/// A message of the stream.
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) message_id: String,
    pub(crate) message: EventMessage,
}

pub(crate) async fn jetstream_of(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

/// All messages of the stream.
pub(crate) async fn stored(server: &NatsServer) -> Vec<Stored> {
    let mut stream = jetstream_of(server).await.get_stream("newswire").await.unwrap();
    let count = usize::try_from(stream.info().await.unwrap().state.messages).unwrap();
    let config = jetstream::consumer::pull::OrderedConfig::default();
    let messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let stored = messages.take(count).map(|message| {
        let message = message.unwrap();
        let headers = message.headers.clone().unwrap();
        Stored {
            subject: message.subject.to_string(),
            message_id: EventMessage::message_id_of(&headers).unwrap().to_owned(),
            message: EventMessage::from_received(&headers, message.payload.clone()).unwrap(),
        }
    });
    tokio::time::timeout(LIMIT, stored.collect()).await.expect("the stream is readable")
}

/// Every event of the log is there once and as it was recorded, those of a source in order.
pub(crate) fn check(stored: &[Stored], log: &MemoryLog) {
    let ours = stored.iter().filter(|stored| stored.message.origin.epoch == log.epoch);
    let mut counts = BTreeMap::<u64, usize>::new();
    for stored in ours {
        *counts.entry(stored.message.origin.seq.0).or_default() += 1;
    }
    let events = log.events.lock().unwrap();
    let lost: Vec<_> = (1..=events.len() as u64).filter(|seq| !counts.contains_key(seq)).collect();
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!((lost, doubled), (vec![], vec![]), "lost, doubled");
    drop(events);
    check_order(stored, log);
}

/// The events of a log that are there are as they were recorded, and those of a source in order.
pub(crate) fn check_order(stored: &[Stored], log: &MemoryLog) {
    let events = log.events.lock().unwrap();
    let ours = stored.iter().filter(|stored| stored.message.origin.epoch == log.epoch);
    let mut last = HashMap::<&str, u64>::new();
    for Stored { subject, message, .. } in ours {
        let seq = message.origin.seq.0;
        let before = last.insert(subject, seq).unwrap_or(0);
        assert!(before < seq, "{subject}: {seq} comes after {before}");
        let (_, recorded) = &events[usize::try_from(seq).unwrap() - 1];
        assert_eq!(message.json_with_id(&message.origin), recorded.as_bytes());
    }
}
