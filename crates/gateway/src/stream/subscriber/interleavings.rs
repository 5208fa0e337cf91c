//! One client over log and ring, in every order in which the steps around it can come: an event is recorded, or lost to
//! damage; the wire brings it; retention removes the oldest; the daemon answers a page, or fails; the client reads.
//!
//! The client, the ring and the queue to the daemon are the real ones. The daemon's log is a model.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::test::TestRequest;
use daemon::{Clock, watch::Watch};
use news::{Event, EventKind, FeedUrl, Item, Source, SourceId};
use tokio::{
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

use super::*;
use crate::{
    connection::{AcceptedConnection, client_io::FirstBytes},
    ingest::{log_unavailable::LogUnavailable, no_answer::NoAnswer},
    settings::Settings,
    state::DaemonQueues,
    stream::{
        encoding::{ContentHtml, StreamFormat},
        replay::ReplayForwarder,
        ring::{Ring, RingBounds},
    },
};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The daemon records an event.
    Record,
    /// The daemon records an event, which is damaged.
    Damage,
    /// The wire brings the next event, or tells that it is missing.
    Deliver,
    /// Retention removes the oldest two events.
    Retain,
    /// The daemon answers the page that was requested.
    Answer,
    /// It does not.
    Fail,
    /// The client reads as long as there is anything.
    Read,
}

const STEPS: [Step; 7] =
    [Step::Record, Step::Damage, Step::Deliver, Step::Retain, Step::Answer, Step::Fail, Step::Read];

/// The daemon's log.
struct LogModel {
    oldest: u64,
    head: u64,
    damaged: BTreeSet<u64>,
}

impl LogModel {
    fn is_kept(&self, seq: u64) -> bool {
        (self.oldest..=self.head).contains(&seq) && !self.damaged.contains(&seq)
    }

    /// A page of two events.
    fn page(&self, start: &ReplayStart, frames: &Frames) -> ReplayPage {
        let ReplayStart::After(after) = start else { panic!("the client has an id") };
        let after = after.seq;
        let kept: Vec<_> = (after.0 + 1..=self.head).filter(|seq| self.is_kept(*seq)).take(2).collect();
        let missed = after.missing_before(Seq(kept.first().map_or(self.head + 1, |first| *first)));
        let end = Seq(kept.last().copied().unwrap_or(self.head));
        let frames = kept.iter().map(|seq| Arc::new(frames[seq].clone())).collect();
        ReplayPage { frames, missed, end, head: Seq(self.head), oldest: Seq(self.oldest) }
    }
}

fn epoch() -> Epoch {
    Epoch::try_new("e").unwrap()
}

fn frame(seq: u64) -> Frame {
    let source =
        Source::new(SourceId::try_new("a").unwrap(), FeedUrl::try_new("https://example.org/").unwrap());
    let id = Cursor { epoch: epoch(), seq: Seq(seq) };
    let event = Event::new(id, EventKind::Item, &source, Timestamp::from_millis(0), Item::default());
    Frame::render(event.to_json().as_bytes()).unwrap()
}

/// The events by their number.
type Frames = BTreeMap<u64, Frame>;

/// What all runs share.
struct World {
    streams: Rc<WorkerStreams>,
    connection: Rc<ClientConnection>,
    replays: ReplayForwarder,
    frames: Frames,
    _sockets: (TcpListener, TcpStream),
}

/// One run.
struct Run<'w> {
    world: &'w mut World,
    log: LogModel,
    /// What the wire has brought.
    delivered: u64,
    client: StreamSubscriber,
    sent: Vec<u8>,
}

impl World {
    async fn new() -> Self {
        let (queues, forwarders) = DaemonQueues::new();
        let ring = Ring::new(RingBounds { events: 2, bytes: usize::MAX });
        let (state, _) = AppState::new(Settings::for_tests(), ring, queues, Clock::system(), Watch::new());
        let state = Arc::new(state);
        let worker = state.worker_lag.add_worker();
        let (streams, _) = WorkerStreams::start(Arc::clone(&state), worker);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, peer) = listener.accept().await.unwrap();
        let permit = state.connections.admit(peer.ip(), &state.settings()).unwrap();
        let socket = socket.into_std().unwrap();
        let accepted = AcceptedConnection { socket, peer, permit, first: FirstBytes::default(), share: None };
        let (_, _, connection) = ClientConnection::open(&state, accepted).unwrap();
        let frames = (1..=12).map(|seq| (seq, frame(seq))).collect();
        Self { streams, connection, replays: forwarders.replays, frames, _sockets: (listener, client) }
    }

    /// A log of four events, of which the ring has two, and a client that has the first one.
    fn run(&mut self, damaged: &[u64]) -> Run<'_> {
        let state = Arc::clone(&self.streams.state);
        // What clients of earlier runs have requested and do not wait for.
        while self.replays.try_next().is_some() {}
        let log = LogModel { oldest: 1, head: 4, damaged: damaged.iter().copied().collect() };
        state.wire.received();
        state.ring.reset(epoch(), Some(Seq::NONE));
        state.ring.set_log_oldest(Seq(1));
        let request = StreamRequest {
            requested: Some("e-1".to_owned()),
            since: None,
            snapshot: 0,
            filter: EventFilter::default(),
            form: BlockForm { format: StreamFormat::EventStream, content: ContentHtml::Included },
            heartbeat: false,
            delays: ReconnectDelays::USUAL,
            remarks: Box::default(),
        };
        let no_headers = TestRequest::default().to_http_request();
        let reader = state.settings().authenticator.authorise(no_headers.headers(), state.now()).unwrap();
        let permit = state.admit("192.0.2.1".parse().unwrap()).unwrap();
        let (streams, connection) = (Rc::clone(&self.streams), Rc::clone(&self.connection));
        let client = StreamSubscriber::new(streams, connection, permit, request, reader);
        let mut run = Run { world: self, log, delivered: 0, client, sent: Vec::new() };
        (0..4).for_each(|_| run.deliver());
        state.ring.set_filled(Seq(4));
        run
    }
}

impl Run<'_> {
    fn deliver(&mut self) {
        self.delivered += 1;
        let ring = &self.world.streams.state.ring;
        // What retention has removed before it was sent is missing as well.
        if self.log.is_kept(self.delivered) {
            ring.push(self.world.frames[&self.delivered].clone());
        }
        ring.reach(Seq(self.delivered));
    }

    fn read(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut idle = 0;
        // A client that yields is polled again.
        while idle < 2 {
            match Pin::new(&mut self.client).poll_next(&mut cx) {
                Poll::Ready(Some(Ok(chunk))) => self.sent.extend_from_slice(&chunk),
                Poll::Ready(Some(Err(never))) => match never {},
                Poll::Ready(None) => return,
                Poll::Pending => idle += 1,
            }
        }
    }

    /// Answers the request that waits, if the client still does.
    fn answer(&mut self) -> bool {
        let Some((start, reply)) = self.world.replays.try_next() else { return false };
        reply.send(Ok(self.log.page(&start, &self.world.frames))).is_ok()
    }

    /// Fails it.
    fn fail(&mut self) {
        if let Some((_, reply)) = self.world.replays.try_next() {
            reply.send(Err(LogUnavailable::NoAnswer(NoAnswer::Late))).ok();
        }
    }

    /// Takes a step; false if it changes nothing.
    fn step(&mut self, step: Step, before: Option<Step>) -> bool {
        let is_possible = match step {
            Step::Record | Step::Damage => true,
            Step::Deliver => self.delivered < self.log.head,
            Step::Retain => self.log.oldest <= self.log.head,
            Step::Answer | Step::Fail => matches!(self.client.replay, Replay::Requested(..)),
            // A client that has read has nothing more to read, and is not woken by what the daemon records.
            Step::Read => !matches!(before, Some(Step::Read | Step::Record | Step::Damage | Step::Retain)),
        };
        if is_possible {
            self.take(step);
        }
        is_possible
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Record => self.log.head += 1,
            Step::Damage => {
                self.log.head += 1;
                self.log.damaged.insert(self.log.head);
            }
            Step::Deliver => self.deliver(),
            Step::Retain => self.log.oldest = (self.log.oldest + 2).min(self.log.head + 1),
            Step::Answer => drop(self.answer()),
            Step::Fail => self.fail(),
            Step::Read => self.read(),
        }
    }

    /// Everything that is to come comes; what failed is requested again in a while.
    async fn finish(&mut self) {
        while self.delivered < self.log.head {
            self.deliver();
        }
        for _ in 0..40 {
            self.read();
            if !self.answer() {
                let before = self.sent.len();
                tokio::time::advance(Duration::from_millis(PAGE_RETRY_MS.end)).await;
                self.read();
                if self.sent.len() == before && !matches!(self.client.replay, Replay::Requested(..)) {
                    return;
                }
            }
        }
    }

    /// Checks that each event came once and in order, or is in a gap and really missing, up to the newest.
    fn check(&self) -> Result<(), String> {
        let text = std::str::from_utf8(&self.sent).unwrap();
        let mut cursor = 1;
        let mut is_open = false;
        for block in text.split("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            let data: serde_json::Value =
                field("data: ").map_or(serde_json::Value::Null, |data| serde_json::from_str(data).unwrap());
            let id = field("id: e-").map(|id| id.parse::<u64>().unwrap());
            let to = match field("event: ") {
                Some("stream") if !is_open => {
                    is_open = true;
                    let missed = data["missed"].as_u64().ok_or("no count")?;
                    if id != Some(cursor + missed) || (data["resume"] == "exact") && missed > 0 {
                        return Err(format!("opened with {block}"));
                    }
                    cursor + missed
                }
                Some("gap") if is_open => cursor + data["missed"].as_u64().unwrap(),
                Some("item") if is_open && id == Some(cursor + 1) => {
                    cursor += 1;
                    continue;
                }
                Some("live") if is_open => continue,
                None if id.is_none_or(|id| id == cursor) => continue,
                _ => return Err(format!("after {cursor}: {block}")),
            };
            if let Some(kept) = (cursor + 1..=to).find(|seq| self.log.is_kept(*seq)) {
                return Err(format!("{kept} is there, and in a gap: {block}"));
            }
            cursor = to;
        }
        let head = self.log.head;
        if cursor == head { Ok(()) } else { Err(format!("it waits at {cursor}, the newest is {head}")) }
    }
}

/// Runs every word of at most so many steps, but for those with a step that changes nothing; returns how many.
async fn explore(longest: u32, damaged: &[u64]) -> usize {
    let (mut world, mut runs) = (World::new().await, 0);
    for length in 0..=longest {
        for word in 0..STEPS.len().pow(length) {
            let steps: Vec<_> = (0..length).map(|n| STEPS[word / STEPS.len().pow(n) % STEPS.len()]).collect();
            let mut run = world.run(damaged);
            let before = [None].into_iter().chain(steps.iter().map(|step| Some(*step)));
            if !steps.iter().zip(before).all(|(step, before)| run.step(*step, before)) {
                continue;
            }
            runs += 1;
            run.finish().await;
            if let Err(fault) = run.check() {
                panic!("{fault}; {steps:?}, damaged {damaged:?}:\n{}", String::from_utf8_lossy(&run.sent));
            }
        }
    }
    runs
}

#[tokio::test(start_paused = true)]
async fn no_order_of_steps_loses_or_repeats_an_event_between_log_and_ring() {
    let runs = LocalSet::new().run_until(explore(5, &[])).await;
    assert!(runs > 1000, "{runs}");
}

#[tokio::test(start_paused = true)]
async fn no_order_of_steps_makes_a_gap_of_another_size_than_what_is_missing() {
    for damaged in [&[2][..], &[3, 4]] {
        let runs = LocalSet::new().run_until(explore(4, damaged)).await;
        assert!(runs > 200, "{runs}");
    }
}
