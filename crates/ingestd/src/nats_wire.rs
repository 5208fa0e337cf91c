//! Step 9 of the life of an item if `wire.transport` is `nats`: the outbox, heartbeats, notices and answers to the requests of
//! gateways, on a thread of their own.
//!
//! Nothing waits for it: while NATS is away, events stay in the log, and the local socket serves as before. What goes wrong
//! here is logged, and never stops the daemon.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use control::paths;
use daemon::{
    metrics::{MetricsRegistry, MetricsSink},
    watch::{QueueLength, Watch, WatchKind},
};
use news::Seq;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use wire::{
    Endpoint, EventLog, Notice, RecordingPauses, RequestMethod,
    nats::{
        Announcer, EventStream, NatsConnection, NatsError, NatsResponder, NatsSettings, OUTBOX_STOP_MAX,
        Outbox, OutboxCounters, OutboxReport, OutboxStatus, RequestCounters, RequestCounts, answer_seen,
    },
};

use crate::{
    known_aliases::KnownAliases,
    sharing::{OutboxEnd, Sharing},
};

/// How much longer than the outbox the thread may take to end.
const JOIN_MORE: Duration = Duration::from_secs(2);
/// How many events an outbox has in memory; what the operator is shown as the length of its queue.
const SHOWN_CAPACITY: usize = 16 * 1024;

/// What the outbox reads and tells.
pub(crate) struct NatsWire {
    pub(crate) settings: NatsSettings,
    /// Events that wait for a confirmation, at most.
    pub(crate) in_flight_max: usize,
    /// The daemon's own socket, which answers what is requested over NATS.
    pub(crate) socket: PathBuf,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) head_changed: watch::Receiver<Seq>,
    pub(crate) notices: broadcast::Receiver<Notice>,
    pub(crate) recording_pauses: RecordingPauses,
    pub(crate) metrics: NatsMetrics,
    pub(crate) aliases: KnownAliases,
    pub(crate) watch: Watch,
    /// If several daemons divide the list of sources.
    pub(crate) sharing: Option<Sharing>,
}

/// The running thread.
pub(crate) struct NatsThread {
    stop: CancellationToken,
    thread: thread::JoinHandle<()>,
}

impl NatsWire {
    /// Starts the thread. It waits for NATS as long as it takes.
    ///
    /// # Errors
    /// If the system cannot start a thread or a runtime.
    pub(crate) fn start(self) -> anyhow::Result<NatsThread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        #[expect(clippy::disallowed_methods, reason = "this thread runs nothing but this loop")]
        let run = move || {
            let watch = self.watch.clone();
            watch.pool("pool-nats", runtime.handle());
            runtime.block_on(async {
                let beats = watch.send_beats("nats", WatchKind::Wire);
                tokio::select! {
                    () = beats => {}
                    published = self.publish(stopped) => if let Err(error) = published {
                        tracing::error!(%error, "nothing is published to NATS until the next start");
                    }
                }
            });
            // A page of the log that a disk does not deliver does not hold up the end.
            runtime.shutdown_background();
        };
        let thread =
            thread::Builder::new().name("nats".to_owned()).spawn(run).context("start the thread for NATS")?;
        Ok(NatsThread { stop, thread })
    }

    /// Completes when what is recorded is published after `stop`, or soon in any case.
    async fn publish(self, stop: CancellationToken) -> Result<(), NatsError> {
        let daemon = self.log.bounds().epoch;
        let connection = NatsConnection::open(self.settings).await?;
        let reports = NatsLog::default();
        let outbox = Outbox::new(
            EventStream::new(connection.clone()),
            Arc::clone(&self.log),
            self.head_changed,
            self.in_flight_max,
            Arc::clone(&self.metrics.counters),
            Arc::new(move |report| reports.write(report)),
        );
        let outbox = outbox.with_aliases(self.aliases.current());
        let (status, aliases) = (outbox.status(), outbox.aliases());
        let end =
            OutboxEnd { status: status.clone(), known_ends: outbox.known_ends(), log: Arc::clone(&self.log) };
        let sharing = share(self.sharing, &connection, daemon.as_str(), end);
        // Set once, because there is one outbox in a process.
        self.metrics.status.set(status.clone()).ok();
        let announcer = Announcer {
            connection: connection.clone(),
            daemon: daemon.to_string(),
            log: self.log,
            notices: self.notices,
            outbox: status.clone(),
            recording_pauses: self.recording_pauses,
            counters: Arc::clone(&self.metrics.counters),
        };
        let seen = status.clone();
        let requests =
            answer_requests(&connection, daemon.as_str(), self.socket, &self.metrics, stop.clone());
        tokio::select! {
            () = outbox.run(stop) => {}
            // It ends when the visits have stopped; what they recorded may still be on its way.
            () = async { announcer.run().await; std::future::pending().await } => {}
            () = answer_seen(&connection, || seen.borrow().newest.clone()) => {}
            () = requests => {}
            () = sharing => {}
            () = show(&self.watch, status) => {}
            () = self.aliases.follow(aliases.clone()) => {}
        }
        self.aliases.keep_last(&aliases).await;
        Ok(())
    }
}

impl NatsThread {
    /// Publishes what is recorded, for [`OUTBOX_STOP_MAX`] at most; the rest is published after the next start.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
        let joined = tokio::task::spawn_blocking(move || self.thread.join());
        if tokio::time::timeout(OUTBOX_STOP_MAX + JOIN_MORE, joined).await.is_err() {
            tracing::warn!(
                "the thread for NATS did not end in time; what it has not published follows after the next start"
            );
        }
    }
}

/// Answers what gateways request over NATS, and then waits for what is published last.
async fn answer_requests(
    connection: &NatsConnection,
    daemon: &str,
    socket: PathBuf,
    metrics: &NatsMetrics,
    stop: CancellationToken,
) {
    let (local, counters) = (Endpoint::Socket(socket), metrics.requests.clone());
    match NatsResponder::try_new(connection.clone(), daemon, local, is_passed_on, counters) {
        Ok(responder) => responder.run(stop).await,
        Err(error) => tracing::error!(%error, "requests over NATS are not answered until the next start"),
    }
    std::future::pending().await
}

/// Never completes: what ends the thread is the outbox.
async fn share(sharing: Option<Sharing>, connection: &NatsConnection, daemon: &str, outbox: OutboxEnd) {
    if let Some(sharing) = sharing {
        // It is large, and lives as long as the thread.
        Box::pin(sharing.run(EventStream::new(connection.clone()), daemon, outbox)).await;
    }
    std::future::pending().await
}

/// What gateways need, and no more: who may use NATS need not be allowed to reload the catalogue.
fn is_passed_on(method: RequestMethod, path: &str) -> bool {
    match method {
        RequestMethod::Get => matches!(path, "/sources" | paths::METRICS | paths::HEALTH),
        RequestMethod::Post => {
            matches!(path, paths::VISITS | paths::PAUSES | paths::PAUSES_END | "/websub/verifications")
                || path.starts_with("/websub/pushes/")
        }
    }
}

/// Says in `/watch` what the outbox waits for, until that ends: since when is how long it has made no progress.
async fn show(watch: &Watch, mut status: watch::Receiver<OutboxStatus>) {
    let queued = status.clone();
    let queue = move || QueueLength { queued: queued.borrow().waiting, capacity: SHOWN_CAPACITY };
    let task = watch.task("outbox", Some(queue));
    let mut shown = None;
    loop {
        let (connected, waits, through) = {
            let status = status.borrow_and_update();
            (status.connected, status.in_flight > 0, status.through)
        };
        match (connected, waits) {
            // An attempt that is made again is no progress.
            _ if shown == Some((connected, waits, through)) => {}
            (false, _) => task.idles_until("NATS"),
            (true, false) => task.idles_until("an event"),
            (true, true) => task.waits_for("a confirmation of NATS"),
        }
        shown = Some((connected, waits, through));
        if status.changed().await.is_err() {
            // The outbox has ended, and so does what polls this.
            std::future::pending::<()>().await;
        }
    }
}

/// Writes the reports of the outbox to the log of the daemon; of what can happen to every event, the first one only.
#[derive(Default)]
struct NatsLog {
    has_shortened: AtomicBool,
    has_refused: AtomicBool,
    has_missed: AtomicBool,
}

impl NatsLog {
    fn write(&self, report: OutboxReport) {
        match report {
            OutboxReport::Connected(server) => {
                tracing::info!(server = %format_args!("nats-server {}", server.version), "events are published to NATS");
            }
            OutboxReport::Lost { problem } => tracing::warn!(
                error = problem,
                "the NATS servers take no events; these stay in the log, and are published when they do"
            ),
            OutboxReport::Differs(text) => {
                tracing::warn!(reason = text, "the stream differs from the configuration")
            }
            OutboxReport::EpochBegins(reason) => tracing::warn!(
                reason = reason.as_str(),
                "the stream of NATS is not the one that clients know; a new epoch begins, and they are told `reset`"
            ),
            OutboxReport::RefillBegun { epoch, reason, events } => tracing::info!(
                %epoch, reason = reason.as_str(), events,
                "the epoch of the stream is new to this daemon; the whole log goes there, except for what is there"
            ),
            OutboxReport::RefillEnded { epoch, took } => {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(%epoch, took_ms, "the whole log is in the stream");
            }
            OutboxReport::Shortened { origin, bytes, bytes_max } if is_first(&self.has_shortened) => {
                tracing::warn!(
                    seq = origin.seq.0,
                    bytes,
                    bytes_max,
                    "an event is larger than the NATS servers allow, and was published without its content, as others will be; raise \
                 max_payload of the servers (newswire_ingestd_nats_shortened_total counts them)"
                )
            }
            OutboxReport::Refused { origin, reason } if is_first(&self.has_refused) => tracing::error!(
                seq = origin.seq.0,
                reason,
                "an event cannot be published, and is left out; newswire_ingestd_nats_refused_total counts more of them"
            ),
            OutboxReport::Missed { first, events } if is_first(&self.has_missed) => tracing::error!(
                seq = first.0,
                events,
                "retention removed events before they were published to NATS, because it was away for too long; raise \
                 store.retention_age, _events or _bytes (newswire_ingestd_nats_lost_total counts more of them)"
            ),
            OutboxReport::Shortened { origin, .. } | OutboxReport::Refused { origin, .. } => {
                tracing::debug!(seq = origin.seq.0, "another event was shortened or left out");
            }
            OutboxReport::Missed { first, events } => {
                tracing::debug!(
                    seq = first.0,
                    events,
                    "retention removed more events before they were published"
                );
            }
        }
    }
}

fn is_first(flag: &AtomicBool) -> bool {
    !flag.swap(true, Relaxed)
}

/// The metrics of what is published and answered; all 0 if `wire.transport` is not `nats`.
#[derive(Clone, Debug, Default)]
pub(crate) struct NatsMetrics {
    counters: Arc<OutboxCounters>,
    requests: RequestCounters,
    status: Arc<OnceLock<watch::Receiver<OutboxStatus>>>,
}

impl NatsMetrics {
    /// Registers them; `head` reads the newest event of the log.
    pub(crate) fn register(
        registry: &MetricsRegistry,
        head: impl Fn() -> Seq + Send + Sync + 'static,
    ) -> Self {
        let metrics = Self::default();
        metrics.register_events(registry);
        metrics.register_requests(registry);
        let of_gauges = metrics.clone();
        registry.register_collector(move |sink| of_gauges.write_gauges(sink, head()));
        metrics
    }

    fn register_events(&self, registry: &MetricsRegistry) {
        let add = |name: &str, help: &str, read: fn(&OutboxCounters) -> &AtomicU64| {
            let counters = Arc::clone(&self.counters);
            registry.register_counter(name, help, move || read(&counters).load(Relaxed));
        };
        add("newswire_ingestd_nats_published_total", "Events that NATS has confirmed", |c| &c.published);
        add(
            "newswire_ingestd_nats_passed_over_total",
            "Events that were in the stream of NATS already, and were not published again",
            |c| &c.passed_over,
        );
        add(
            "newswire_ingestd_nats_same_as_another_total",
            "Events that another daemon had published to NATS already, and that were not published again",
            |c| &c.same_as_another,
        );
        add(
            "newswire_ingestd_nats_others_read_total",
            "Events of the stream that were read, because another daemon publishes those of the same source, too",
            |c| &c.others_read,
        );
        add(
            "newswire_ingestd_nats_unread_total",
            "Times that a source had more than 4096 such events, and the oldest were not read; those may be in the stream twice",
            |c| &c.unread,
        );
        add(
            "newswire_ingestd_nats_retries_total",
            "Attempts to publish an event that were made again, because NATS did not confirm in time, or another message came first",
            |c| &c.retries,
        );
        add(
            "newswire_ingestd_nats_shortened_total",
            "Events published without their content, because they are larger than max_payload of the NATS servers",
            |c| &c.shortened,
        );
        add(
            "newswire_ingestd_nats_refused_total",
            "Events that cannot be published to NATS, even without their content; they are left out",
            |c| &c.refused,
        );
        add(
            "newswire_ingestd_nats_lost_total",
            "Events that store.retention_* removed before they were published to NATS; after a crash, those of its last second are counted, too, although they were published",
            |c| &c.lost,
        );
        add(
            "newswire_ingestd_nats_refills_total",
            "Times that the whole log went to NATS, because the epoch of the stream was new",
            |c| &c.refills,
        );
        add(
            "newswire_ingestd_nats_epochs_total",
            "Epochs that this daemon began because NATS had lost events, or because the stream was purged; clients were told reset",
            |c| &c.epochs,
        );
        add(
            "newswire_ingestd_nats_alias_runs_dropped_total",
            "Rows of ids of the log and of the stream of NATS that mean the same, and were forgotten because there were too many; clients with these are told reset",
            |c| &c.alias_runs_dropped,
        );
        add(
            "newswire_ingestd_nats_notices_dropped_total",
            "Notices of visits that were not published to NATS, because too many waited; gateways read the list of sources again",
            |c| &c.notices_dropped,
        );
    }

    fn register_requests(&self, registry: &MetricsRegistry) {
        let add = |name: &str, help: &str, read: fn(RequestCounts) -> u64| {
            let counters = self.requests.clone();
            registry.register_counter(name, help, move || read(counters.read()));
        };
        add(
            "newswire_ingestd_nats_requests_answered_total",
            "Requests of gateways over NATS whose whole answer was sent",
            |c| c.answered,
        );
        add(
            "newswire_ingestd_nats_requests_refused_total",
            "Requests over NATS that the daemon refused, as it refuses them on its own socket",
            |c| c.refused,
        );
        add(
            "newswire_ingestd_nats_requests_failed_total",
            "Requests over NATS that the daemon's own socket did not answer in time, wholly, or within the size that was asked for",
            |c| c.failed,
        );
        add(
            "newswire_ingestd_nats_requests_busy_total",
            "Requests over NATS refused because 32 were in progress, or 16 MiB of their bodies were in memory",
            |c| c.busy,
        );
        add(
            "newswire_ingestd_nats_requests_invalid_total",
            "Messages on the subject of requests that are no request, or one that is not answered over NATS",
            |c| c.invalid,
        );
        add(
            "newswire_ingestd_nats_requests_abandoned_total",
            "Requests over NATS whose gateway went away, or did not take the answer in time",
            |c| c.abandoned,
        );
    }

    #[expect(clippy::cast_precision_loss, reason = "events of a log are far below 2^53")]
    fn write_gauges(&self, sink: &mut MetricsSink<'_>, head: Seq) -> fmt::Result {
        let status = self.status.get().map(|status| status.borrow().clone());
        let pending = status.as_ref().map_or(0, |status| head.0.saturating_sub(status.through.0));
        let status = status.unwrap_or_default();
        sink.gauge(
            "newswire_ingestd_nats_connected",
            "1 while events are published to NATS, 0 while it takes none or is not the wire",
            f64::from(u8::from(status.connected)),
        )?;
        sink.gauge(
            "newswire_ingestd_nats_pending",
            "Events of the log that are not confirmed by NATS yet",
            pending as f64,
        )?;
        sink.gauge(
            "newswire_ingestd_nats_in_flight",
            "Events that wait for a confirmation of NATS; wire.nats_publish_in_flight is the limit",
            status.in_flight as f64,
        )?;
        sink.gauge(
            "newswire_ingestd_nats_requests_in_progress",
            "Requests of gateways over NATS that are answered now; 32 at most",
            self.requests.read().in_progress as f64,
        )?;
        sink.gauge(
            "newswire_ingestd_nats_refilling",
            "1 while the whole log goes to NATS, because the epoch of the stream is new",
            f64::from(u8::from(status.refilling)),
        )
    }
}
