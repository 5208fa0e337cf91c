//! Honest clients with an address of their own: one with a stream, as an `EventSource` has it, and one that comes anew
//! again and again.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::Instant;

use super::probe;
use crate::{
    histogram::Histogram,
    parser::{StreamMessage, StreamParser},
    payload::EPOCH,
    process::pause,
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest read, so that the thread notices that it is to stop.
const TICK: Duration = Duration::from_millis(50);
/// Pause before a reconnect.
const RETRY: Duration = Duration::from_millis(500);
/// How long the last events may take after the end.
const CATCH_UP: Duration = Duration::from_secs(10);
/// Bytes of one read.
const READ_BYTES: usize = 128 * 1024;
/// Between two visits of the newcomer.
const VISIT_EVERY: Duration = Duration::from_millis(500);
/// What the newcomer requests, in turn, and what the response must have.
const VISITS: [(&str, &[u8]); 2] =
    [("/news?limit=20", b"HTTP/1.1 200"), ("/news/stream?snapshot=5", b"event: stream")];
/// A visit that takes longer has failed.
const VISIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What an honest client got.
#[derive(Clone, Debug, Default)]
pub(crate) struct HonestCounts {
    /// From publishing to reading, in microseconds.
    pub(crate) delay: Histogram,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Streams that ended.
    pub(crate) ended: u64,
    pub(crate) fault: Option<String>,
    seen: Option<u64>,
    last_id: Option<u64>,
}

/// A client that reads a stream until it is stopped.
pub(crate) struct HonestStream {
    stop: Arc<AtomicBool>,
    /// The last event it must have before it ends; 0 before it is told.
    goal: Arc<AtomicU64>,
    thread: JoinHandle<HonestCounts>,
}

impl HonestStream {
    /// Connects; `began` is the origin of the stamps.
    pub(crate) fn start(server: SocketAddr, from: IpAddr, began: Instant) -> anyhow::Result<Self> {
        let (stop, goal) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, end) = (Arc::clone(&stop), Arc::clone(&goal));
        let run = move || {
            let mut counts = HonestCounts::default();
            let is_over = |counts: &HonestCounts, waited: Option<Instant>| {
                stopped.load(Relaxed)
                    && (counts.seen >= Some(end.load(Relaxed))
                        || waited.is_some_and(|since| since.elapsed() > CATCH_UP))
            };
            let mut waited = None;
            while !is_over(&counts, waited) {
                let read = read_stream(server, from, began, &mut counts, |counts| {
                    waited = waited.or_else(|| stopped.load(Relaxed).then(Instant::now));
                    is_over(counts, waited)
                });
                if let Err(error) = read {
                    counts.ended += 1;
                    counts.fault = Some(format!("{error:#}"));
                    pause(RETRY);
                    waited = waited.or_else(|| stopped.load(Relaxed).then(Instant::now));
                }
            }
            counts.lost += end.load(Relaxed).saturating_sub(counts.seen.unwrap_or(0));
            counts
        };
        let thread = thread::Builder::new().name("honest".into()).spawn(run)?;
        Ok(Self { stop, goal, thread })
    }

    /// Waits for the event `goal`, and returns what was counted.
    pub(crate) fn stop(self, goal: u64) -> anyhow::Result<HonestCounts> {
        self.goal.store(goal, Relaxed);
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the honest client's thread panicked"))
    }
}

/// Reads one stream until `is_over`.
fn read_stream(
    server: SocketAddr,
    from: IpAddr,
    began: Instant,
    counts: &mut HonestCounts,
    mut is_over: impl FnMut(&HonestCounts) -> bool,
) -> anyhow::Result<()> {
    let mut stream = probe::connect(server, from, CONNECT)?;
    stream.set_read_timeout(Some(TICK))?;
    let id = counts.last_id.map_or(String::new(), |seq| format!("last-event-id: {EPOCH}-{seq}\r\n"));
    write!(
        stream,
        "GET /news/stream?snapshot=0 HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{id}\r\n"
    )
    .context("send")?;
    let (mut parser, mut buffer) = (StreamParser::default(), vec![0; READ_BYTES]);
    while !is_over(counts) {
        let n = match stream.read(&mut buffer) {
            Ok(0) => anyhow::bail!("the server closed"),
            Ok(n) => n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error).context("receive"),
        };
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let parsed = parser.push(&buffer[..n], &mut |message| counts.count(message, micros));
        parsed.map_err(|error| anyhow::anyhow!("{}", error.0))?;
        anyhow::ensure!(!parser.is_ended(), "the server ended the stream");
    }
    Ok(())
}

impl HonestCounts {
    fn count(&mut self, message: StreamMessage, now_micros: u64) {
        match message {
            StreamMessage::Item { seq, stamp } => {
                let before = self.seen.unwrap_or(seq.saturating_sub(1));
                if seq <= before {
                    self.doubled += 1;
                    return;
                }
                self.lost += seq - before - 1;
                self.delay.record(now_micros.saturating_sub(stamp));
                self.seen = Some(seq);
            }
            StreamMessage::LastId(seq) => {
                // The first id is where the client begins to count.
                self.seen = self.seen.or(Some(seq));
                self.last_id = Some(seq);
            }
            StreamMessage::Retry(_) | StreamMessage::Opened { .. } | StreamMessage::Gap => {}
        }
    }
}

/// What the newcomer experienced.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewcomerCounts {
    /// From connecting to what it came for, in microseconds.
    pub(crate) took: Histogram,
    pub(crate) refused: u64,
    pub(crate) fault: Option<String>,
}

/// A client that requests a page, then a stream, each on its own connection.
pub(crate) struct Newcomer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<NewcomerCounts>,
}

impl Newcomer {
    pub(crate) fn start(server: SocketAddr, from: IpAddr) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            let mut counts = NewcomerCounts::default();
            for (path, expected) in VISITS.iter().cycle() {
                if stopped.load(Relaxed) {
                    break;
                }
                let start = Instant::now();
                if let Err(error) = visit(server, from, path, expected) {
                    counts.refused += 1;
                    counts.fault = Some(format!("{path}: {error:#}"));
                }
                counts.took.record(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
                pause(VISIT_EVERY);
            }
            counts
        };
        let thread = thread::Builder::new().name("newcomer".into()).spawn(run)?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) -> anyhow::Result<NewcomerCounts> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the newcomer's thread panicked"))
    }
}

/// Requests `path` and reads until `expected` came.
fn visit(server: SocketAddr, from: IpAddr, path: &str, expected: &[u8]) -> anyhow::Result<()> {
    let until = Instant::now() + VISIT_TIMEOUT;
    let mut stream = probe::connect(server, from, VISIT_TIMEOUT)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").context("send")?;
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    while memchr::memmem::find(&got, expected).is_none() {
        let left = until.duration_since(Instant::now());
        anyhow::ensure!(!left.is_zero(), "no answer within {VISIT_TIMEOUT:?}");
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer).context("receive")? {
            0 => anyhow::bail!("refused: {}", String::from_utf8_lossy(&got[..got.len().min(60)])),
            n => got.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(())
}
