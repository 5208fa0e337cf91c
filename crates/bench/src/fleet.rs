//! Thousands of clients on one thread: as an `EventSource` would, each keeps its last id, waits as it was told after a
//! loss, and comes back with it. Every event is counted, so a loss or a double is a number and never a guess.

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
    parser::{Parser, Said},
};

/// Connections that are being opened at a time, when all of them are.
const OPENING_MAX: usize = 256;
/// Bytes of one read.
const READ_BYTES: usize = 128 * 1024;
/// Sockets looked at in one turn.
const TURN_MAX: usize = 1024;
/// What the system takes for a client that is to be slow.
const SLOW_BUFFER_BYTES: usize = 4096;
/// The wait after a loss until the server says another one.
const RETRY: Duration = Duration::from_secs(1);

/// Where the fleet goes, and what it asks for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
}

/// What the clients have seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reads: u64,
    pub(crate) bytes: u64,
    pub(crate) ended: u64,
    pub(crate) refused: u64,
    /// Times that a server said that it could not go on where the client was.
    pub(crate) gaps: u64,
    /// From sending to reading, in microseconds.
    pub(crate) latency: Histogram,
    /// When clients that had lost their stream had another one.
    pub(crate) returned: Vec<Instant>,
    /// The last thing that went wrong, for whoever has to find out.
    pub(crate) fault: Option<String>,
}

/// The clients.
pub(crate) struct Fleet {
    target: Target,
    /// What stamps count from.
    began: Instant,
    epoll: OwnedFd,
    clients: Vec<Client>,
    /// Who comes back when.
    returns: BinaryHeap<Reverse<(Instant, usize)>>,
    ready: Vec<epoll::Event>,
    buffer: Vec<u8>,
    streaming: usize,
    pub(crate) tally: Tally,
    /// Clients that have had this one are current; see [`Fleet::follow`].
    goal: u64,
    current: usize,
}

#[derive(Default)]
struct Client {
    socket: Option<Socket>,
    stage: Stage,
    parser: Parser,
    /// The last event that was counted.
    seen: Option<u64>,
    /// The last event id, as the standard has it.
    place: Option<u64>,
    retry: Option<Duration>,
    /// It lost a stream before.
    lost_one: bool,
    /// It stops reading once it has its first bytes.
    slow: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Away,
    Connecting,
    Asked,
    Streaming,
    /// It has stopped reading.
    Stalled,
}

impl Fleet {
    /// So many clients that are not connected yet, the first `slow` of which will stop reading.
    pub(crate) fn new(target: Target, began: Instant, clients: usize, slow: usize) -> anyhow::Result<Self> {
        let client = |n| Client { slow: n < slow, ..Client::default() };
        Ok(Self {
            target,
            began,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll")?,
            clients: (0..clients).map(client).collect(),
            returns: BinaryHeap::new(),
            ready: Vec::with_capacity(TURN_MAX),
            buffer: vec![0; READ_BYTES],
            streaming: 0,
            tally: Tally::default(),
            goal: 0,
            current: 0,
        })
    }

    /// Clients that have a stream, slow ones included.
    pub(crate) fn streaming(&self) -> usize {
        self.streaming
    }

    /// Connects everybody, and waits until all have a stream.
    pub(crate) fn connect(&mut self, within: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + within;
        let mut next = 0;
        while self.streaming < self.clients.len() {
            while next < self.clients.len() && next < self.streaming + OPENING_MAX {
                self.dial(next)?;
                next += 1;
            }
            self.turn(Instant::now() + Duration::from_millis(100))?;
            let (have, of) = (self.streaming, self.clients.len());
            anyhow::ensure!(
                Instant::now() < until,
                "{have} of {of} clients connected in {within:?}: {:?}",
                self.tally.fault
            );
        }
        Ok(())
    }

    /// From now on counts who has had the event `goal`.
    pub(crate) fn follow(&mut self, goal: u64) {
        self.goal = goal;
        self.current = self.clients.iter().filter(|c| !c.slow && c.seen >= Some(goal)).count();
    }

    /// Reads until all clients that are not slow have had the event `goal`; tells whether they have.
    pub(crate) fn until_current(&mut self, goal: u64, within: Duration) -> anyhow::Result<bool> {
        let until = Instant::now() + within;
        self.follow(goal);
        let all = self.clients.iter().filter(|c| !c.slow).count();
        while self.current < all {
            if Instant::now() >= until {
                return Ok(false);
            }
            self.turn(until)?;
        }
        Ok(true)
    }

    /// Reads for so long.
    pub(crate) fn read_for(&mut self, time: Duration) -> anyhow::Result<()> {
        self.read_until(Instant::now() + time)
    }

    /// Reads until then.
    pub(crate) fn read_until(&mut self, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            self.turn(until)?;
        }
        Ok(())
    }

    /// Counts as lost what somebody has not had up to `head`; to be called at the end, once.
    pub(crate) fn settle(&mut self, head: u64) {
        let healthy = self.clients.iter().filter(|client| !client.slow);
        self.tally.lost += healthy.map(|c| head.saturating_sub(c.seen.unwrap_or(0))).sum::<u64>();
    }

    /// Waits for something to happen, until `until` at the longest, and does it.
    pub(crate) fn turn(&mut self, until: Instant) -> anyhow::Result<()> {
        let now = Instant::now();
        while self.returns.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            if let Some(Reverse((_, key))) = self.returns.pop() {
                self.dial(key)?;
            }
        }
        let next = self.returns.peek().map_or(until, |Reverse((at, _))| until.min(*at));
        let wait = Timespec::try_from(next.saturating_duration_since(now)).context("wait that long")?;
        let mut ready = std::mem::take(&mut self.ready);
        match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for sockets"),
        }
        for event in ready.drain(..) {
            self.attend(usize::try_from(event.data.u64()).context("a socket of ours")?)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn dial(&mut self, key: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[key];
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP));
        let socket = socket.context("make a socket; is the limit of open files too low?")?;
        if client.slow {
            socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
        }
        client.parser = Parser::default();
        client.stage = Stage::Connecting;
        match socket.connect(&self.target.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return self.lose(key, &format!("connect: {error}")),
        }
        let data = epoll::EventData::new_u64(key as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::OUT).context("watch a socket")?;
        client.socket = Some(socket);
        Ok(())
    }

    fn attend(&mut self, key: usize) -> anyhow::Result<()> {
        match self.clients[key].stage {
            Stage::Away | Stage::Stalled => Ok(()),
            Stage::Connecting => self.ask(key),
            Stage::Asked | Stage::Streaming => self.read(key),
        }
    }

    fn ask(&mut self, key: usize) -> anyhow::Result<()> {
        let (path, client) = (self.target.path, &mut self.clients[key]);
        let Some(mut socket) = client.socket.as_ref() else { return Ok(()) };
        let refused = socket.take_error().context("ask a socket how it is")?;
        if let Some(error) = refused {
            return self.lose(key, &format!("connect: {error}"));
        }
        let id = client
            .place
            .map_or(String::new(), |seq| format!("last-event-id: {}-{seq}\r\n", crate::payload::EPOCH));
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{id}\r\n");
        if let Err(error) = socket.write_all(request.as_bytes()) {
            return self.lose(key, &format!("ask: {error}"));
        }
        let data = epoll::EventData::new_u64(key as u64);
        epoll::modify(&self.epoll, socket, data, epoll::EventFlags::IN).context("watch a socket")?;
        client.stage = Stage::Asked;
        Ok(())
    }

    fn read(&mut self, key: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[key];
        let Some(mut socket) = client.socket.as_ref() else { return Ok(()) };
        let n = match socket.read(&mut self.buffer) {
            Ok(0) => return self.lose(key, "the server closed"),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return self.lose(key, &format!("read: {error}")),
        };
        let now = Instant::now();
        if client.stage == Stage::Asked {
            client.stage = Stage::Streaming;
            self.streaming += 1;
            if client.lost_one {
                self.tally.returned.push(now);
            }
            if client.slow {
                epoll::delete(&self.epoll, socket).context("turn away from a socket")?;
                client.stage = Stage::Stalled;
            }
        }
        self.tally.reads += 1;
        self.tally.bytes += n as u64;
        let micros = u64::try_from(now.duration_since(self.began).as_micros()).unwrap_or(u64::MAX);
        let (tally, goal, current) = (&mut self.tally, self.goal, &mut self.current);
        let (seen, place, retry) = (&mut client.seen, &mut client.place, &mut client.retry);
        let taken = client.parser.take(&self.buffer[..n], &mut |said| match said {
            Said::Item { seq, stamp } => {
                let before = seen.unwrap_or(seq.saturating_sub(1));
                if seq <= before {
                    tally.doubled += 1;
                    return;
                }
                tally.lost += seq - before - 1;
                tally.deliveries += 1;
                tally.latency.record(micros.saturating_sub(stamp));
                *current += usize::from(before < goal && goal <= seq);
                *seen = Some(seq);
            }
            Said::Place(seq) => {
                // Whoever has had nothing begins here; for the others it must be where they stand.
                *seen = seen.or(Some(seq));
                *place = Some(seq);
            }
            Said::Retry(ms) => *retry = Some(Duration::from_millis(ms)),
            Said::Hello { lossless } => tally.gaps += u64::from(!lossless),
            Said::Gap => tally.gaps += 1,
        });
        match taken {
            Err(broken) => self.lose(key, &broken.0),
            Ok(()) if client.parser.is_ended() => self.lose(key, "the server ended the stream"),
            Ok(()) => Ok(()),
        }
    }

    /// It has no stream any more, and comes back after the wait that it was told.
    #[expect(clippy::unnecessary_wraps, reason = "the last step of functions that can fail")]
    fn lose(&mut self, key: usize, reason: &str) -> anyhow::Result<()> {
        let client = &mut self.clients[key];
        if client.stage == Stage::Streaming {
            self.streaming -= 1;
            self.tally.ended += 1;
            client.lost_one = true;
        } else {
            self.tally.refused += 1;
            self.tally.fault = Some(reason.to_owned());
        }
        client.stage = Stage::Away;
        client.socket = None;
        self.returns.push(Reverse((Instant::now() + client.retry.unwrap_or(RETRY), key)));
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

    /// Takes a request, gives the answer, and returns what was asked and the connection.
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
        let target = Target { address: listener.local_addr().unwrap(), path: "/" };
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
        let count =
            |tally: &Tally| (tally.deliveries, tally.lost, tally.doubled, tally.ended, tally.returned.len());
        assert_eq!(count(&fleet.tally), (5, 1, 1, 1, 1));
        fleet.settle(8);
        assert_eq!(fleet.tally.lost, 3, "what never came is lost, too");
    }
}
