//! Thousands of clients on one thread. Like an `EventSource`, each keeps its last event id, waits for the retry time after
//! a disconnect, and resumes with that id. Every event is counted: losses and duplicates are exact.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    os::fd::OwnedFd,
    time::Duration,
};

use anyhow::Context as _;
use rustix::{buffer::spare_capacity, event::epoll, fs::Timespec};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;

use crate::{
    histogram::Histogram,
    parser::{StreamMessage, StreamParser},
};

/// Connections being opened at once.
const OPENING_MAX: usize = 256;
/// Bytes of one read.
const READ_BYTES: usize = 128 * 1024;
/// Events handled per `epoll_wait`.
const EVENTS_MAX: usize = 1024;
/// Receive buffer of a slow client.
const SLOW_BUFFER_BYTES: usize = 4096;
/// The reconnection time until the server sets one.
const RETRY: Duration = Duration::from_secs(1);

/// The stream that the clients connect to.
#[derive(Clone, Debug)]
pub(crate) struct StreamTarget {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
}

/// What the clients have received.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeliveryCounts {
    pub(crate) deliveries: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reads: u64,
    pub(crate) bytes: u64,
    pub(crate) ended: u64,
    pub(crate) refused: u64,
    /// Gaps and resets that the server reported.
    pub(crate) gaps: u64,
    /// From sending to reading, in microseconds.
    pub(crate) latency: Histogram,
    /// When each client that had lost its stream got another one.
    pub(crate) reconnected: Vec<Instant>,
    /// The last failure, for the error message.
    pub(crate) fault: Option<String>,
}

/// The clients.
pub(crate) struct Fleet {
    target: StreamTarget,
    /// The origin of the stamps.
    began: Instant,
    epoll: OwnedFd,
    clients: Vec<Client>,
    /// The clients that wait to reconnect, by time.
    reconnects: BinaryHeap<Reverse<(Instant, usize)>>,
    ready: Vec<epoll::Event>,
    buffer: Vec<u8>,
    streaming: usize,
    pub(crate) counts: DeliveryCounts,
    /// Clients that have received this event are current; see [`Fleet::follow`].
    goal: u64,
    current: usize,
}

#[derive(Default)]
struct Client {
    socket: Option<Socket>,
    stage: Stage,
    parser: StreamParser,
    /// The last event that was counted.
    seen: Option<u64>,
    /// The last event id, as the standard defines it.
    last_id: Option<u64>,
    retry: Option<Duration>,
    /// It had a stream before.
    lost_a_stream: bool,
    /// It stops reading after its first bytes.
    slow: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Disconnected,
    Connecting,
    Requested,
    Streaming,
    /// It has stopped reading.
    Stalled,
}

impl Fleet {
    /// Unconnected clients; the first `slow` ones will stop reading.
    pub(crate) fn new(
        target: StreamTarget,
        began: Instant,
        clients: usize,
        slow: usize,
    ) -> anyhow::Result<Self> {
        let client = |n| Client { slow: n < slow, ..Client::default() };
        Ok(Self {
            target,
            began,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("create an epoll instance")?,
            clients: (0..clients).map(client).collect(),
            reconnects: BinaryHeap::new(),
            ready: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; READ_BYTES],
            streaming: 0,
            counts: DeliveryCounts::default(),
            goal: 0,
            current: 0,
        })
    }

    /// Clients with a stream, including slow ones.
    pub(crate) fn streaming(&self) -> usize {
        self.streaming
    }

    /// Connects all clients and waits until each has a stream.
    pub(crate) fn connect(&mut self, within: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + within;
        let mut next = 0;
        while self.streaming < self.clients.len() {
            while next < self.clients.len() && next < self.streaming + OPENING_MAX {
                self.connect_client(next)?;
                next += 1;
            }
            self.poll_once(Instant::now() + Duration::from_millis(100))?;
            let (have, of) = (self.streaming, self.clients.len());
            anyhow::ensure!(
                Instant::now() < until,
                "{have} of {of} clients connected in {within:?}: {:?}",
                self.counts.fault
            );
        }
        Ok(())
    }

    /// Counts the clients that have received the event `goal` from now on.
    pub(crate) fn follow(&mut self, goal: u64) {
        self.goal = goal;
        self.current = self.clients.iter().filter(|c| !c.slow && c.seen >= Some(goal)).count();
    }

    /// Reads until all clients that are not slow have received the event `goal`; returns whether they have.
    pub(crate) fn until_current(&mut self, goal: u64, within: Duration) -> anyhow::Result<bool> {
        let until = Instant::now() + within;
        self.follow(goal);
        let all = self.clients.iter().filter(|c| !c.slow).count();
        while self.current < all {
            if Instant::now() >= until {
                return Ok(false);
            }
            self.poll_once(until)?;
        }
        Ok(true)
    }

    /// Reads for a duration.
    pub(crate) fn read_for(&mut self, time: Duration) -> anyhow::Result<()> {
        self.read_until(Instant::now() + time)
    }

    /// Reads until a point in time.
    pub(crate) fn read_until(&mut self, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            self.poll_once(until)?;
        }
        Ok(())
    }

    /// Counts events up to `head` that a client has not received as lost; call it once, at the end.
    pub(crate) fn count_missing(&mut self, head: u64) {
        let healthy = self.clients.iter().filter(|client| !client.slow);
        self.counts.lost += healthy.map(|c| head.saturating_sub(c.seen.unwrap_or(0))).sum::<u64>();
    }

    /// Waits for events until `until` at the latest, and handles them.
    pub(crate) fn poll_once(&mut self, until: Instant) -> anyhow::Result<()> {
        let now = Instant::now();
        while self.reconnects.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            if let Some(Reverse((_, key))) = self.reconnects.pop() {
                self.connect_client(key)?;
            }
        }
        let next = self.reconnects.peek().map_or(until, |Reverse((at, _))| until.min(*at));
        let wait = Timespec::try_from(next.saturating_duration_since(now)).context("wait that long")?;
        let mut ready = std::mem::take(&mut self.ready);
        match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for sockets"),
        }
        for event in ready.drain(..) {
            self.handle_event(usize::try_from(event.data.u64()).context("the index of a client")?)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn connect_client(&mut self, key: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[key];
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP));
        let socket = socket.context("create a socket; is the limit of open files too low?")?;
        if client.slow {
            socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
        }
        client.parser = StreamParser::default();
        client.stage = Stage::Connecting;
        match socket.connect(&self.target.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return self.disconnect(key, &format!("connect: {error}")),
        }
        let data = epoll::EventData::new_u64(key as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::OUT)
            .context("register a socket with epoll")?;
        client.socket = Some(socket);
        Ok(())
    }

    fn handle_event(&mut self, key: usize) -> anyhow::Result<()> {
        match self.clients[key].stage {
            Stage::Disconnected | Stage::Stalled => Ok(()),
            Stage::Connecting => self.send_request(key),
            Stage::Requested | Stage::Streaming => self.read(key),
        }
    }

    fn send_request(&mut self, key: usize) -> anyhow::Result<()> {
        let (path, client) = (self.target.path, &mut self.clients[key]);
        let Some(mut socket) = client.socket.as_ref() else { return Ok(()) };
        let refused = socket.take_error().context("read the error of a socket")?;
        if let Some(error) = refused {
            return self.disconnect(key, &format!("connect: {error}"));
        }
        let id = client
            .last_id
            .map_or(String::new(), |seq| format!("last-event-id: {}-{seq}\r\n", crate::payload::EPOCH));
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{id}\r\n");
        if let Err(error) = socket.write_all(request.as_bytes()) {
            return self.disconnect(key, &format!("send the request: {error}"));
        }
        let data = epoll::EventData::new_u64(key as u64);
        epoll::modify(&self.epoll, socket, data, epoll::EventFlags::IN)
            .context("register a socket with epoll")?;
        client.stage = Stage::Requested;
        Ok(())
    }

    fn read(&mut self, key: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[key];
        let Some(mut socket) = client.socket.as_ref() else { return Ok(()) };
        let n = match socket.read(&mut self.buffer) {
            Ok(0) => return self.disconnect(key, "the server closed"),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return self.disconnect(key, &format!("read: {error}")),
        };
        let now = Instant::now();
        if client.stage == Stage::Requested {
            client.stage = Stage::Streaming;
            self.streaming += 1;
            if client.lost_a_stream {
                self.counts.reconnected.push(now);
            }
            if client.slow {
                epoll::delete(&self.epoll, socket).context("remove a socket from epoll")?;
                client.stage = Stage::Stalled;
            }
        }
        self.counts.reads += 1;
        self.counts.bytes += n as u64;
        let micros = u64::try_from(now.duration_since(self.began).as_micros()).unwrap_or(u64::MAX);
        let (counts, goal, current) = (&mut self.counts, self.goal, &mut self.current);
        let (seen, last_id, retry) = (&mut client.seen, &mut client.last_id, &mut client.retry);
        let parsed = client.parser.push(&self.buffer[..n], &mut |message| match message {
            StreamMessage::Item { seq, stamp } => {
                let before = seen.unwrap_or(seq.saturating_sub(1));
                if seq <= before {
                    counts.doubled += 1;
                    return;
                }
                counts.lost += seq - before - 1;
                counts.deliveries += 1;
                counts.latency.record(micros.saturating_sub(stamp));
                *current += usize::from(before < goal && goal <= seq);
                *seen = Some(seq);
            }
            StreamMessage::LastId(seq) => {
                // The first id of a client is where it begins to count.
                *seen = seen.or(Some(seq));
                *last_id = Some(seq);
            }
            StreamMessage::Retry(ms) => *retry = Some(Duration::from_millis(ms)),
            StreamMessage::Opened { lossless } => counts.gaps += u64::from(!lossless),
            StreamMessage::Gap => counts.gaps += 1,
        });
        match parsed {
            Err(broken) => self.disconnect(key, &broken.0),
            Ok(()) if client.parser.is_ended() => self.disconnect(key, "the server ended the stream"),
            Ok(()) => Ok(()),
        }
    }

    /// Records the loss of the connection and schedules the reconnection.
    #[expect(clippy::unnecessary_wraps, reason = "the last step of functions that can fail")]
    fn disconnect(&mut self, key: usize, reason: &str) -> anyhow::Result<()> {
        let client = &mut self.clients[key];
        if client.stage == Stage::Streaming {
            self.streaming -= 1;
            self.counts.ended += 1;
            client.lost_a_stream = true;
        } else {
            self.counts.refused += 1;
            self.counts.fault = Some(reason.to_owned());
        }
        client.stage = Stage::Disconnected;
        client.socket = None;
        self.reconnects.push(Reverse((Instant::now() + client.retry.unwrap_or(RETRY), key)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::payload;

    fn block(seq: u64) -> String {
        format!("id: bench-{seq}\nevent: item\ndata: {}\n\n", payload::json(seq, 0, 300))
    }

    /// Reads a request and answers it; returns the request and the connection.
    fn play(listener: &TcpListener, body: &str) -> (String, TcpStream) {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let request = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
        stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{body}").as_bytes()).unwrap();
        (request, stream)
    }

    #[test]
    fn losses_duplicates_and_truncated_blocks_are_counted_exactly() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = StreamTarget { address: listener.local_addr().unwrap(), path: "/" };
        let server = std::thread::spawn(move || {
            let cut = &block(5)[..100];
            let (first, stream) =
                play(&listener, &["retry: 20\n", &block(1), &block(2), &block(2), &block(4), cut].concat());
            drop(stream);
            let (second, stream) = play(&listener, &[block(5), block(6)].concat());
            (first, second, stream)
        });
        let mut fleet = Fleet::new(target, Instant::now(), 1, 0).unwrap();
        fleet.connect(Duration::from_secs(10)).unwrap();
        assert!(fleet.until_current(6, Duration::from_secs(10)).unwrap());
        let (first, second, _stream) = server.join().unwrap();
        assert!(!first.contains("last-event-id"), "{first}");
        assert!(second.contains("last-event-id: bench-4"), "{second}");
        let count = |counts: &DeliveryCounts| {
            (counts.deliveries, counts.lost, counts.doubled, counts.ended, counts.reconnected.len())
        };
        assert_eq!(count(&fleet.counts), (5, 1, 1, 1, 1));
        fleet.count_missing(8);
        assert_eq!(fleet.counts.lost, 3, "what never arrived is lost, too");
    }
}
