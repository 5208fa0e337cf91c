//! Step 9 of the life of an item, between machines: from the log of a daemon into the stream, exactly once.
//!
//! ```text
//! log on disk ─ pages ─► window ─ one event of a source in flight ─► stream
//!                          └ all confirmed up to here ─ once a second ─► bucket, `outbox.<epoch of the log>`
//! ```
//!
//! The log is the truth: while NATS is away, nothing is lost, and the log waits for nothing. Under a new epoch of the stream
//! the outbox goes through the whole log again, and passes over what the stream has.
//!
//! Never here: a publication that is not guarded by the number of the message before it.

mod deliver;
mod known_ends;
mod ledger;
mod published;
mod status;
mod window;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::jetstream::kv::Store;
use futures_util::{FutureExt as _, StreamExt as _, future, stream::FuturesUnordered};
use news::{Cursor, Seq};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use self::known_ends::KnownEnds;
pub use self::status::{OutboxCounters, OutboxReport, OutboxReports, OutboxStatus};
use self::{
    deliver::{Delivery, Session, SessionEnd, delay, look_again},
    ledger::{AliasLedger, NumberRead},
    published::{PublishedMessage, PublishedThrough},
    status::Told,
    window::{OutgoingEvent, SendOrder, Window, WindowBounds},
};
use super::{
    epoch::{EpochChange, EpochRecord},
    event_stream::{EventStream, StreamProblem, StreamState},
    message::EventMessage,
    notices::NewestSeen,
    seen::newest_seen,
};
use crate::{
    aliases::IdAliases,
    publish::{EventLog, LogError, LogEvent, LogPage},
};

/// Events of one page of the log.
const PAGE_EVENTS: usize = 500;
/// About the bytes of one page.
const PAGE_BYTES: usize = 1024 * 1024;
/// Events in memory, counted from the oldest that is not confirmed.
const WINDOW_EVENTS: usize = 16 * 1024;
/// About the bytes of events in memory that are not confirmed.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// About the bytes of events in flight.
const IN_FLIGHT_BYTES: usize = 8 * 1024 * 1024;
/// Events that wait, up to which they are sent in the order of the log, if ids of the log and the stream can mean the same. More
/// are a backlog, which is to be published soon; unless the stream is filled from the start.
const ORDERED_WAITING_MAX: usize = 1000;
/// Epochs of the stream whose aliases are kept.
const ALIASED_EPOCHS_MAX: usize = 4;
/// Numbers of the stream that are read at the same time.
const READS_IN_FLIGHT_MAX: usize = 16;
/// How often it is written down how far the outbox has come.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take to write it down at the end.
const SAVE_AT_END_MAX: Duration = Duration::from_secs(1);
/// How often the epoch is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long the first connection may take before that is told.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long a stop may wait for what is recorded to be published.
pub const OUTBOX_STOP_MAX: Duration = Duration::from_secs(2);

/// Publishes a log.
pub struct Outbox {
    stream: EventStream,
    log: Arc<dyn EventLog>,
    head_changed: watch::Receiver<Seq>,
    bounds: WindowBounds,
    known: KnownEnds,
    told: Told,
    progress: Progress,
    /// The server that the question of what others have seen was last asked through.
    asked: Option<String>,
    /// A new epoch is due in the place of this one.
    change: Option<(news::Epoch, EpochChange)>,
    /// What was last told of the limits of the stream.
    differences: Vec<String>,
    /// Whether the last session got as far as publishing.
    is_open: bool,
    /// Which ids of the log and of the stream mean the same, under each epoch of the stream.
    aliases: watch::Sender<Arc<[IdAliases]>>,
}

/// How far the outbox has come, over all sessions with servers.
#[derive(Default)]
struct Progress {
    record: Option<EpochRecord>,
    through: Seq,
    newest: Option<PublishedMessage>,
    refill: Option<Refill>,
    saved: Option<PublishedThrough>,
    /// `None` if the stream had events before this outbox published.
    ledger: Option<AliasLedger>,
}

impl Progress {
    /// Whether all that the stream has are events of this log whose numbers are known.
    fn is_alone(&self) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| !ledger.has_ended())
    }

    /// The stream has an event of the log at this number.
    fn confirm(&mut self, sequence: u64, origin: Seq) {
        if let Some(ledger) = &mut self.ledger {
            ledger.confirm(sequence, origin);
        }
    }

    /// The log does not have these events, or they are not published.
    fn leave_out(&mut self, first: Seq, last: Seq) {
        if let Some(ledger) = &mut self.ledger {
            ledger.leave_out(first.0..=last.0);
        }
    }
}

/// The outbox goes through the whole log.
struct Refill {
    until: Seq,
    since: Instant,
}

type DeliveryResult = (u64, Seq, Result<Delivery, SessionEnd>);
type Deliveries = FuturesUnordered<Pin<Box<dyn Future<Output = DeliveryResult> + Send>>>;

/// What a session does besides deliveries; one of each at a time.
#[derive(Default)]
struct Chores {
    page: Option<JoinHandle<Result<LogPage, LogError>>>,
    /// Where the page begins, and the bounds of the log before it was read.
    page_after: Seq,
    save: Option<JoinHandle<Option<PublishedThrough>>>,
    check: Option<JoinHandle<Result<(), SessionEnd>>>,
    epoch: Option<JoinHandle<Result<(), StreamProblem>>>,
    /// Reads what the stream has at numbers of which no confirmation tells.
    read: Option<JoinHandle<Vec<NumberRead>>>,
    /// What was not known at the last tick.
    unknown: Option<u64>,
}

impl Drop for Chores {
    fn drop(&mut self) {
        let Self { page: _, page_after: _, save, check, epoch, read, unknown: _ } = self;
        read.iter().for_each(JoinHandle::abort);
        save.iter().for_each(JoinHandle::abort);
        check.iter().for_each(JoinHandle::abort);
        epoch.iter().for_each(JoinHandle::abort);
    }
}

impl Outbox {
    /// Publishes `log` to `stream`, with so many events in flight at most; [`Outbox::run`] does it.
    #[must_use]
    pub fn new(
        stream: EventStream,
        log: Arc<dyn EventLog>,
        head_changed: watch::Receiver<Seq>,
        in_flight_max: usize,
        counters: Arc<OutboxCounters>,
        reports: OutboxReports,
    ) -> Self {
        let bounds = WindowBounds {
            events: WINDOW_EVENTS,
            bytes: WINDOW_BYTES,
            in_flight: in_flight_max,
            in_flight_bytes: IN_FLIGHT_BYTES,
        };
        let status = Arc::new(watch::channel(OutboxStatus::default()).0);
        Self {
            stream,
            log,
            head_changed,
            bounds,
            known: KnownEnds::default(),
            told: Told { status, counters, reports },
            progress: Progress::default(),
            asked: None,
            change: None,
            differences: Vec::new(),
            is_open: false,
            aliases: watch::Sender::new(Arc::default()),
        }
    }

    /// With the aliases that were known before the start.
    #[must_use]
    pub fn with_aliases(self, aliases: Arc<[IdAliases]>) -> Self {
        self.aliases.send_replace(aliases);
        self
    }

    /// Which ids of the log and of the stream mean the same, under the newest epochs of the stream; brought up to date once a
    /// second, and at the end.
    #[must_use]
    pub fn aliases(&self) -> watch::Receiver<Arc<[IdAliases]>> {
        self.aliases.subscribe()
    }

    /// What it says about itself.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<OutboxStatus> {
        self.told.status.subscribe()
    }

    /// What it knows of the subjects that it publishes to.
    #[must_use]
    pub fn known_ends(&self) -> KnownEnds {
        self.known.clone()
    }

    /// Publishes until `stop`; then for at most [`OUTBOX_STOP_MAX`] what is recorded and not published yet.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            self.is_open = false;
            let end = self.session(&stop).await;
            self.told.status.send_modify(|status| status.in_flight = 0);
            // Also where the bucket cannot be written: the daemon keeps them, too.
            self.show_aliases();
            match end {
                SessionEnd::Stopped => break,
                SessionEnd::Disconnected => self.told.stopped_working(self.stream.connection().trouble()),
                SessionEnd::LookAgain => {}
                SessionEnd::NewEpoch(reason) => {
                    let old = self.progress.record.as_ref().map(|record| record.epoch.clone());
                    self.change = old.map(|old| (old, reason));
                }
                SessionEnd::Problem(problem) => self.told.stopped_working(problem),
            }
            failures = if self.is_open { 1 } else { failures + 1 };
            tokio::select! {
                () = sleep(delay(failures)) => {}
                () = stop.cancelled() => break,
            }
        }
    }

    /// Publishes for as long as server, stream and epoch stay what they are.
    async fn session(&mut self, stop: &CancellationToken) -> SessionEnd {
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = stop.cancelled() => return SessionEnd::Stopped,
        };
        match opened {
            Ok((session, bucket, connected)) => {
                self.is_open = true;
                let end = self.publish(session, &bucket, connected, stop).await;
                if matches!(end, SessionEnd::Stopped) {
                    self.save_at_end(&bucket).await;
                }
                end
            }
            Err(end) => end,
        }
    }

    /// Waits for a connection, and settles which epoch this is and how far the outbox has come in it.
    async fn open(&mut self) -> Result<(Arc<Session>, Store, u64), SessionEnd> {
        let connected = self.connected().await;
        if let Some((old, reason)) = self.change.take() {
            match self.stream.begin_epoch(&old, reason).await {
                Ok(record) if record.epoch != old => {
                    OutboxCounters::add(&self.told.counters.epochs, 1);
                    self.told.report(OutboxReport::EpochBegins(reason));
                }
                Ok(_) | Err(StreamProblem::NoStream(_)) => {}
                Err(problem) => {
                    self.change = Some((old, reason));
                    return Err(problem.into());
                }
            }
        }
        let (record, state, differences) = self.stream.ensure().await?;
        if self.differences != differences {
            differences.iter().for_each(|text| self.told.report(OutboxReport::Differs(text.clone())));
            self.differences = differences;
        }
        self.check_age(&record)?;
        let bucket = self.stream.bucket().await?.ok_or(SessionEnd::LookAgain)?;
        self.continue_or_refill(&record, &state, &bucket).await?;
        if let Some(ledger) = &mut self.progress.ledger {
            ledger.note_last(state.last);
        }
        self.ask_others(&record, &state).await?;
        let handle = self.stream.handle().await?;
        let session = Session {
            stream: self.stream.clone(),
            handle,
            epoch: record.epoch.clone(),
            log_epoch: self.log.bounds().epoch,
            known: self.known.clone(),
            order: tokio::sync::Mutex::default(),
            last: AtomicU64::new(state.last),
            failing: AtomicUsize::new(0),
            told: self.told.clone(),
        };
        self.check_newest(&session, &state).await?;
        session.check_epoch().await?;
        self.told.status.send_modify(|status| status.epoch = Some(record.epoch.clone()));
        self.told.works(self.stream.connection().server());
        Ok((Arc::new(session), bucket, connected))
    }

    /// How many connections there have been, with the one that there is now.
    async fn connected(&self) -> u64 {
        let mut connections = self.stream.connection().connections();
        let deadline = Instant::now() + CONNECT_WAIT;
        loop {
            let count = *connections.borrow_and_update();
            if count > 0 && self.stream.connection().is_connected() {
                return count;
            }
            match timeout_at(deadline, connections.changed()).await {
                Ok(_) => {}
                Err(_) => {
                    self.told.stopped_working(self.stream.connection().trouble());
                    // Fails only when the connection is dropped, which this one holds.
                    connections.changed().await.ok();
                }
            }
        }
    }

    /// A record of an epoch that was before the one that this outbox has published under: the servers went back.
    fn check_age(&mut self, record: &EpochRecord) -> Result<(), SessionEnd> {
        let Some(known) = &self.progress.record else { return Ok(()) };
        let is_older = known.epoch != record.epoch && record.began < known.began;
        if !is_older {
            return Ok(());
        }
        self.progress.record = Some(record.clone());
        Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack))
    }

    /// Under an epoch that is known, all stays as it is; under another one, the bucket may know how far the log is published.
    async fn continue_or_refill(
        &mut self,
        record: &EpochRecord,
        state: &StreamState,
        bucket: &Store,
    ) -> Result<(), SessionEnd> {
        if self.progress.record.as_ref().is_some_and(|known| known.epoch == record.epoch) {
            return Ok(());
        }
        self.show_aliases();
        if record.reason == EpochChange::SequenceWentBack {
            // What was confirmed before was lost, and numbers may have been used for other events.
            self.aliases.send_modify(|aliases| {
                *aliases = aliases.iter().filter(|aliases| aliases.stream == record.epoch).cloned().collect();
            });
        }
        let bounds = self.log.bounds();
        let saved = published::read(bucket, &bounds.epoch).await?.filter(|saved| saved.epoch == record.epoch);
        if let Some(saved) = saved.as_ref().filter(|saved| saved.through > bounds.head) {
            return Err(SessionEnd::Problem(format!(
                "the log is older than what was published of it: event {} is in the stream, and the newest of the log is {}; \
                 stop newswire-ingestd and run `newswire log restore`, which begins a new epoch of the log",
                saved.through, bounds.head
            )));
        }
        self.known.begin_epoch(&record.epoch, saved.is_none());
        self.progress = match saved {
            Some(saved) => Progress {
                record: Some(record.clone()),
                through: saved.through,
                newest: saved.newest,
                ledger: saved.ledger.clone(),
                saved: Some(saved),
                ..Progress::default()
            },
            None => Progress {
                record: Some(record.clone()),
                through: bounds.oldest.previous(),
                refill: Some(Refill { until: bounds.head, since: Instant::now() }),
                ledger: (state.messages == 0).then(|| {
                    let (epoch, before) = (record.epoch.clone(), bounds.oldest.previous());
                    AliasLedger::new(epoch, bounds.epoch.clone(), state.last, before)
                }),
                ..Progress::default()
            },
        };
        if self.progress.refill.is_some() {
            OutboxCounters::add(&self.told.counters.refills, 1);
            let events = (bounds.head.0 + 1).saturating_sub(bounds.oldest.0);
            let (epoch, reason) = (record.epoch.clone(), record.reason);
            if events > 0 {
                self.told.report(OutboxReport::RefillBegun { epoch, reason, events });
            }
        }
        self.show_progress(None);
        Ok(())
    }

    /// Once per life of a server: whether others have seen what it does not have.
    async fn ask_others(&mut self, record: &EpochRecord, state: &StreamState) -> Result<(), SessionEnd> {
        let server = self.stream.connection().server().map(|server| server.id);
        if server.is_none() || self.asked == server {
            return Ok(());
        }
        let seen = newest_seen(self.stream.connection()).await;
        let newest = seen
            .into_iter()
            .filter(|seen| seen.newest.epoch == record.epoch)
            .max_by_key(|seen| seen.newest.seq);
        if let Some(NewestSeen { newest, message_id }) = newest {
            // Other daemons have gone on publishing since the state was read.
            if newest.seq.0 > state.last
                && newest.seq.0 > self.stream.look().await.map_err(look_again)?.1.last
            {
                return Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack));
            }
            let handle = self.stream.handle().await?;
            let there = handle.get_raw_message(newest.seq.0).await.ok();
            let there = there.as_ref().and_then(|message| EventMessage::message_id_of(&message.headers));
            if let (Some(there), Some(seen)) = (there, message_id.as_deref())
                && there != seen
            {
                return Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack));
            }
        }
        self.asked = server;
        Ok(())
    }

    /// Whether the newest message that this outbox has published is still that one.
    async fn check_newest(&self, session: &Session, state: &StreamState) -> Result<(), SessionEnd> {
        let Some(newest) = self.progress.newest else { return Ok(()) };
        let went_back = Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack));
        if newest.stream_seq > state.last {
            return went_back;
        }
        let there = session.message_at(newest.stream_seq).await?.map_err(SessionEnd::Problem)?;
        match there {
            Some(there) if there.origin != Some(newest.origin) => went_back,
            // Retention may have removed it; the check of the epoch tells a purge from that.
            _ => Ok(()),
        }
    }

    async fn publish(
        &mut self,
        session: Arc<Session>,
        bucket: &Store,
        connected: u64,
        stop: &CancellationToken,
    ) -> SessionEnd {
        let mut window = Window::new(self.bounds, self.progress.through);
        let mut deliveries = Deliveries::new();
        let mut chores = Chores::default();
        let mut connections = self.stream.connection().connections();
        let (mut save, mut check) = (ticks(SAVE_INTERVAL), ticks(CHECK_INTERVAL));
        let mut stop_at = None;
        loop {
            self.launch(&session, &mut window, &mut deliveries);
            self.read_ahead(&window, &mut chores);
            self.show_progress(Some(&window));
            if stop_at.is_some() && self.is_all_published(&window, &chores) {
                break SessionEnd::Stopped;
            }
            let step = tokio::select! {
                Some(result) = deliveries.next() => self.settle_all(&session, &mut window, result, &mut deliveries),
                page = join(&mut chores.page) => self.take_page(&mut window, chores.page_after, page),
                Ok(()) = self.head_changed.changed() => Ok(()),
                saved = join(&mut chores.save) => { self.progress.saved = saved.ok().flatten().or(self.progress.saved.take()); Ok(()) }
                checked = join(&mut chores.check) => checked.unwrap_or(Ok(())),
                // Without a watch, the check notices a new epoch, some seconds later.
                changed = join(&mut chores.epoch) => changed.map_or(Ok(()), |changed| changed.map_or(Ok(()), |()| Err(SessionEnd::LookAgain))),
                Ok(()) = connections.changed() => self.is_same_connection(connected),
                read = join(&mut chores.read) => { self.take_read(read.unwrap_or_default()); Ok(()) }
                _ = save.tick() => { self.read_unknown(&session, &mut chores); self.save(bucket, &mut chores); Ok(()) }
                _ = check.tick() => { start_check(&session, &mut chores); Ok(()) }
                () = stop.cancelled(), if stop_at.is_none() => { stop_at = Some(Instant::now() + OUTBOX_STOP_MAX); Ok(()) }
                () = until(stop_at) => Err(SessionEnd::Stopped),
            };
            if let Err(end) = step {
                break end;
            }
        }
    }

    /// Sends what may be sent.
    fn launch(&mut self, session: &Arc<Session>, window: &mut Window, deliveries: &mut Deliveries) {
        let is_backlog = self.progress.refill.is_none() && window.waiting() > ORDERED_WAITING_MAX;
        let is_ordered = self.progress.is_alone() && !is_backlog;
        let order = if is_ordered { SendOrder::OfLog } else { SendOrder::OfSource };
        while let Some((number, outgoing)) = window.next(order, Instant::now()) {
            let (session, seq) = (Arc::clone(session), outgoing.seq);
            deliveries.push(Box::pin(async move { (number, seq, session.deliver(outgoing, order).await) }));
        }
    }

    /// Begins to read what the stream has where no confirmation tells, if that was so at the last tick, too.
    fn read_unknown(&self, session: &Arc<Session>, chores: &mut Chores) {
        let unknown = self.progress.ledger.as_ref().and_then(AliasLedger::unknown);
        let first = unknown.as_ref().map(|numbers| *numbers.start());
        let is_stuck = first.is_some() && std::mem::replace(&mut chores.unknown, first) == first;
        let Some(numbers) = unknown.filter(|_| is_stuck && chores.read.is_none()) else { return };
        let session = Arc::clone(session);
        chores.read = Some(tokio::spawn(async move {
            let read = futures_util::stream::iter(numbers).map(|number| session.origin_at(number));
            // Up to the first one that is not answered.
            let read = read.buffered(READS_IN_FLIGHT_MAX).take_while(|read| future::ready(read.is_some()));
            read.filter_map(future::ready).collect().await
        }));
    }

    fn take_read(&mut self, read: Vec<NumberRead>) {
        if let Some(ledger) = &mut self.progress.ledger {
            ledger.take_read(read);
        }
    }

    /// Begins to read the next page of the log if there is one and room for it.
    fn read_ahead(&self, window: &Window, chores: &mut Chores) {
        let after = window.read_to();
        if chores.page.is_some() || !window.has_room() || self.log.bounds().head <= after {
            return;
        }
        let log = Arc::clone(&self.log);
        chores.page_after = after;
        chores.page = Some(tokio::task::spawn_blocking(move || log.page(after, PAGE_EVENTS, PAGE_BYTES)));
    }

    fn take_page(
        &mut self,
        window: &mut Window,
        after: Seq,
        page: Result<Result<LogPage, LogError>, tokio::task::JoinError>,
    ) -> Result<(), SessionEnd> {
        let page =
            page.map_err(|e| SessionEnd::Problem(format!("the thread that read the log ended: {e}")))?;
        let page = page.map_err(|e| SessionEnd::Problem(e.to_string()))?;
        let bounds = self.log.bounds();
        // Those that are damaged have been reported by the log.
        let lost = after
            .missing_before(page.events.first().map_or(bounds.oldest, |event| event.seq.min(bounds.oldest)));
        if lost > 0 {
            OutboxCounters::add(&self.told.counters.lost, lost);
            self.told.report(OutboxReport::Missed { first: after.next(), events: lost });
        }
        if page.events.is_empty() {
            let end = Seq(after.0.saturating_add(page.missed));
            window.skip_to(end);
            self.progress.leave_out(after.next(), end);
        }
        let mut before = after;
        for LogEvent { seq, kind, json } in page.events {
            self.progress.leave_out(before.next(), seq.previous());
            before = seq;
            let origin = Cursor { epoch: bounds.epoch.clone(), seq };
            let message = EventMessage::from_log(origin.clone(), kind, &json);
            match message.and_then(|message| Ok((message.place()?, message))) {
                Ok((place, message)) => {
                    let subject =
                        self.stream.connection().names().event(&place.category, &place.source).into();
                    window.push(place.source.into(), OutgoingEvent { seq, message, subject });
                }
                Err(error) => {
                    OutboxCounters::add(&self.told.counters.refused, 1);
                    self.told.report(OutboxReport::Refused { origin, reason: error.to_string() });
                    window.skip_to(seq);
                    self.progress.leave_out(seq, seq);
                }
            }
        }
        Ok(())
    }

    /// Settles a result, and all others that are there.
    fn settle_all(
        &mut self,
        session: &Session,
        window: &mut Window,
        first: DeliveryResult,
        deliveries: &mut Deliveries,
    ) -> Result<(), SessionEnd> {
        self.settle(session, window, first)?;
        while let Some(Some(result)) = deliveries.next().now_or_never() {
            self.settle(session, window, result)?;
        }
        Ok(())
    }

    fn settle(
        &mut self,
        session: &Session,
        window: &mut Window,
        result: DeliveryResult,
    ) -> Result<(), SessionEnd> {
        let (number, seq, delivery) = result;
        let counters = &self.told.counters;
        let end = match delivery? {
            Delivery::Published(end) => {
                OutboxCounters::add(&counters.published, 1);
                Some(end)
            }
            Delivery::There(end) => {
                OutboxCounters::add(&counters.passed_over, 1);
                Some(end)
            }
            Delivery::Same => {
                OutboxCounters::add(&counters.same_as_another, 1);
                None
            }
            Delivery::Refused => None,
        };
        window.settle(number);
        match end.map(|end| (end.sequence, end.origin)) {
            Some((sequence, Some(origin))) => self.progress.confirm(sequence, origin),
            Some((_, None)) => {}
            None => self.progress.leave_out(seq, seq),
        }
        let newest = self.progress.newest.map_or(0, |newest| newest.stream_seq);
        if let Some(end) = end.filter(|end| end.sequence > newest)
            && let Some(origin) = end.origin
        {
            self.progress.newest = Some(PublishedMessage { stream_seq: end.sequence, origin });
        }
        // While one of them fails, it is not told again and again that others do not.
        if session.failing.load(Relaxed) == 0 && !self.told.status.borrow().connected {
            self.told.works(self.stream.connection().server());
        }
        Ok(())
    }

    /// Shows how far the outbox has come, and ends a refill that has come to its end.
    fn show_progress(&mut self, window: Option<&Window>) {
        if let Some(window) = window {
            self.progress.through = window.through();
        }
        let through = self.progress.through;
        let is_refilled = self.progress.refill.as_ref().is_some_and(|refill| through >= refill.until);
        if is_refilled
            && window.is_some()
            && let (Some(refill), Some(record)) = (self.progress.refill.take(), &self.progress.record)
        {
            let (epoch, took) = (record.epoch.clone(), refill.since.elapsed());
            if refill.until > Seq::NONE {
                self.told.report(OutboxReport::RefillEnded { epoch, took });
            }
        }
        let newest = self.newest_seen();
        let refilling = self.progress.refill.is_some();
        let (waiting, in_flight) = window.map_or((0, 0), |window| (window.waiting(), window.in_flight()));
        self.told.status.send_if_modified(|status| {
            let shown = OutboxStatus { through, newest, waiting, in_flight, refilling, ..status.clone() };
            let is_changed = *status != shown;
            *status = shown;
            is_changed
        });
    }

    fn newest_seen(&self) -> Option<NewestSeen> {
        let (newest, record) = (self.progress.newest?, self.progress.record.as_ref()?);
        let origin = Cursor { epoch: self.log.bounds().epoch, seq: newest.origin };
        Some(NewestSeen {
            newest: EventStream::id(&record.epoch, newest.stream_seq),
            message_id: Some(format!("{}/{origin}", record.epoch)),
        })
    }

    fn is_all_published(&self, window: &Window, chores: &Chores) -> bool {
        window.waiting() == 0 && chores.page.is_none() && window.read_to() >= self.log.bounds().head
    }

    fn is_same_connection(&self, connected: u64) -> Result<(), SessionEnd> {
        let connection = self.stream.connection();
        if !connection.is_connected() {
            return Err(SessionEnd::Disconnected);
        }
        if *connection.connections().borrow() == connected { Ok(()) } else { Err(SessionEnd::LookAgain) }
    }

    /// How far the outbox has come, unless that is written down already.
    fn unsaved(&self) -> Option<PublishedThrough> {
        let record = self.progress.record.as_ref()?;
        let (through, newest) = (self.progress.through, self.progress.newest);
        let ledger = self.progress.ledger.clone();
        let published = PublishedThrough { epoch: record.epoch.clone(), through, newest, ledger };
        (self.progress.saved.as_ref() != Some(&published)).then_some(published)
    }

    /// Shows the aliases as they are now.
    fn show_aliases(&mut self) {
        let Some(ledger) = &mut self.progress.ledger else { return };
        ledger.note_head(self.log.bounds().head);
        OutboxCounters::add(&self.told.counters.alias_runs_dropped, ledger.take_dropped());
        let now = ledger.aliases();
        self.aliases.send_if_modified(|all| {
            if all.last() == Some(now) {
                return false;
            }
            let others = all.iter().filter(|aliases| aliases.stream != now.stream);
            let mut kept: Vec<_> = others.chain([now]).cloned().collect();
            kept.drain(..kept.len().saturating_sub(ALIASED_EPOCHS_MAX));
            *all = kept.into();
            true
        });
    }

    fn save(&mut self, bucket: &Store, chores: &mut Chores) {
        self.show_aliases();
        let Some(published) = self.unsaved().filter(|_| chores.save.is_none()) else { return };
        let (bucket, log_epoch) = (bucket.clone(), self.log.bounds().epoch);
        chores.save = Some(tokio::spawn(async move {
            published::write(&bucket, &log_epoch, &published).await.ok().map(|()| published)
        }));
    }

    /// One that is not written costs the next start some questions.
    async fn save_at_end(&mut self, bucket: &Store) {
        if let Some(published) = self.unsaved() {
            let log_epoch = self.log.bounds().epoch;
            timeout(SAVE_AT_END_MAX, published::write(bucket, &log_epoch, &published)).await.ok();
        }
    }
}

fn watch_epoch(session: &Arc<Session>) -> JoinHandle<Result<(), StreamProblem>> {
    let session = Arc::clone(session);
    tokio::spawn(async move { session.stream.epoch_changed(&session.epoch).await })
}

fn start_check(session: &Arc<Session>, chores: &mut Chores) {
    if chores.epoch.is_none() {
        chores.epoch = Some(watch_epoch(session));
    }
    if chores.check.is_some() {
        return;
    }
    let session = Arc::clone(session);
    chores.check = Some(tokio::spawn(async move {
        let last = session.last.load(Relaxed);
        match session.check_epoch().await {
            Ok(state) if state.last < last => Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack)),
            Ok(_) => Ok(()),
            // A server that does not answer is noticed by the deliveries, if there are any.
            Err(SessionEnd::Problem(_)) => Ok(()),
            Err(end) => Err(end),
        }
    }));
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The result of a task, which is over then; never completes without one.
async fn join<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(handle) => {
            let result = handle.await;
            *task = None;
            result
        }
        None => future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => future::pending().await,
    }
}
