//! The attacker: many connections from one address, on one thread. Each follows a script, and is opened again as soon as
//! it ends.
//!
//! The thread has a lower priority than everything else: it shares the processors with the attacked server, which an
//! attacker on another machine does not.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, EventFlags},
    fs::Timespec,
    process::nice,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;

/// Bytes of one read.
const READ_BYTES: usize = 128 * 1024;
/// Events handled per `epoll_wait`.
const EVENTS_MAX: usize = 512;
/// Receive buffer of a connection that does not read all: what it leaves unread stays with the server.
const SMALL_BUFFER_BYTES: usize = 4096;
/// Longest wait, so that the thread notices that it is to stop.
const TICK: Duration = Duration::from_millis(20);
/// Pause before another attempt when this machine has no port or descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(20);

/// What one connection does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// Sent as fast as the server takes it.
    pub(crate) request: Vec<u8>,
    /// Sent after that, one byte per interval.
    pub(crate) drip: Option<(u8, Duration)>,
    pub(crate) reading: Reading,
    /// The connection is reset after this time, if the server has not closed it.
    pub(crate) reset_after: Option<Duration>,
}

/// How a connection reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    #[default]
    All,
    Nothing,
    /// So many bytes per interval.
    Slowly(usize, Duration),
}

/// What became of the connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttackCounts {
    pub(crate) opened: u64,
    pub(crate) bytes: u64,
    /// By the status of the first response, or how the connection ended without one.
    pub(crate) outcomes: BTreeMap<String, u64>,
}

/// A running attack.
pub(crate) struct Attacker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<AttackCounts>>,
}

impl Attacker {
    /// Starts an attack of `connections` at the same time; `script` is given the number of the connection.
    pub(crate) fn start(
        server: SocketAddr,
        from: IpAddr,
        niceness: i32,
        connections: usize,
        script: fn(u64) -> Script,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            nice(niceness).context("lower the attacker's priority")?;
            Connections::new(server, from, connections, script)?.run(&stopped)
        };
        let thread = thread::Builder::new().name("attacker".into()).spawn(run)?;
        Ok(Self { stop, thread })
    }

    /// Closes all connections.
    pub(crate) fn stop(self) -> anyhow::Result<AttackCounts> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the attacker's thread panicked"))?
    }
}

/// What is to happen to a connection later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Later {
    Open,
    Drip,
    Read,
    Reset,
}

#[derive(Default)]
struct Connection {
    socket: Option<Socket>,
    script: Script,
    /// Counts the connections that had this place, so that a timer of an earlier one is passed over.
    life: u64,
    sent: usize,
    /// The first bytes of the response.
    start: Vec<u8>,
}

struct Connections {
    server: SocketAddr,
    from: IpAddr,
    script: fn(u64) -> Script,
    epoll: OwnedFd,
    places: Vec<Connection>,
    timers: BinaryHeap<Reverse<(Instant, usize, u64, Later)>>,
    buffer: Vec<u8>,
    counts: AttackCounts,
}

impl Connections {
    fn new(
        server: SocketAddr,
        from: IpAddr,
        connections: usize,
        script: fn(u64) -> Script,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            server,
            from,
            script,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("create an epoll instance")?,
            places: (0..connections).map(|_| Connection::default()).collect(),
            timers: (0..connections).map(|key| Reverse((now, key, 0, Later::Open))).collect(),
            buffer: vec![0; READ_BYTES],
            counts: AttackCounts::default(),
        })
    }

    fn run(mut self, stop: &AtomicBool) -> anyhow::Result<AttackCounts> {
        let mut ready = Vec::with_capacity(EVENTS_MAX);
        while !stop.load(Relaxed) {
            self.run_timers()?;
            let next = self.timers.peek().map_or(TICK, |Reverse((at, ..))| at.duration_since(Instant::now()));
            let wait = Timespec::try_from(next.min(TICK)).context("wait that long")?;
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for sockets"),
            }
            for event in ready.drain(..) {
                let key = usize::try_from(event.data.u64()).context("the index of a connection")?;
                self.handle(key, event.flags)?;
            }
        }
        // The kernel reports what the server has not taken yet as a reset, as a killed attacker would.
        Ok(self.counts)
    }

    fn run_timers(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        // At most as many as there are places, so that sockets are handled in between.
        for _ in 0..self.places.len() {
            let Some(&Reverse((at, key, life, later))) = self.timers.peek() else { break };
            if at > now {
                break;
            }
            self.timers.pop();
            if life != self.places[key].life {
                continue;
            }
            match later {
                Later::Open => self.open(key)?,
                Later::Drip => self.drip(key)?,
                Later::Read => self.read_slowly(key)?,
                Later::Reset => self.end(key, "reset by us")?,
            }
        }
        Ok(())
    }

    fn after(&mut self, delay: Duration, key: usize, later: Later) {
        self.timers.push(Reverse((Instant::now() + delay, key, self.places[key].life, later)));
    }

    fn open(&mut self, key: usize) -> anyhow::Result<()> {
        let script = (self.script)(self.counts.opened);
        let socket = match self.connect(script.reading) {
            Ok(socket) => socket,
            Err(error) => {
                *self.counts.outcomes.entry(format!("not opened: {}", error.kind())).or_default() += 1;
                self.after(EXHAUSTED, key, Later::Open);
                return Ok(());
            }
        };
        self.counts.opened += 1;
        let data = epoll::EventData::new_u64(key as u64);
        epoll::add(&self.epoll, &socket, data, EventFlags::OUT).context("register a socket with epoll")?;
        let place = &mut self.places[key];
        *place = Connection { socket: Some(socket), script, life: place.life, sent: 0, start: Vec::new() };
        if let Some(after) = place.script.reset_after {
            self.after(after, key, Later::Reset);
        }
        Ok(())
    }

    fn connect(&self, reading: Reading) -> io::Result<Socket> {
        let domain = Domain::for_address(self.server);
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        if reading != Reading::All {
            socket.set_recv_buffer_size(SMALL_BUFFER_BYTES)?;
        }
        // Closing sends a reset: an attacker does not wait for anything.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(self.from, 0).into())?;
        match socket.connect(&self.server.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Err(error)
            }
            _ => Ok(socket),
        }
    }

    fn handle(&mut self, key: usize, flags: EventFlags) -> anyhow::Result<()> {
        let place = &mut self.places[key];
        let Some(socket) = &place.socket else { return Ok(()) };
        if flags.contains(EventFlags::ERR) {
            let error = socket.take_error().ok().flatten();
            let kind = error.map_or("closed by the server".to_owned(), |error| error.kind().to_string());
            return self.end(key, &kind);
        }
        if flags.contains(EventFlags::OUT) {
            self.send(key)?;
        }
        if flags.contains(EventFlags::IN) && self.places[key].script.reading == Reading::All {
            return self.read(key, READ_BYTES);
        }
        if flags.intersects(EventFlags::HUP | EventFlags::RDHUP) {
            return self.end(key, "closed by the server");
        }
        Ok(())
    }

    fn send(&mut self, key: usize) -> anyhow::Result<()> {
        let place = &mut self.places[key];
        let Some(mut socket) = place.socket.as_ref() else { return Ok(()) };
        while place.sent < place.script.request.len() {
            match socket.write(&place.script.request[place.sent..]) {
                Ok(n) => place.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return self.end(key, &error.kind().to_string()),
            }
        }
        let mut interest = EventFlags::RDHUP;
        interest.set(EventFlags::IN, place.script.reading == Reading::All);
        let is_sent = place.sent == place.script.request.len();
        interest.set(EventFlags::OUT, !is_sent);
        let data = epoll::EventData::new_u64(key as u64);
        epoll::modify(&self.epoll, socket, data, interest).context("register a socket with epoll")?;
        if is_sent {
            let (drip, reading) = (place.script.drip, place.script.reading);
            if let Some((_, every)) = drip {
                self.after(every, key, Later::Drip);
            }
            if let Reading::Slowly(_, every) = reading {
                self.after(every, key, Later::Read);
            }
        }
        Ok(())
    }

    fn drip(&mut self, key: usize) -> anyhow::Result<()> {
        let place = &self.places[key];
        let (Some(mut socket), Some((byte, every))) = (place.socket.as_ref(), place.script.drip) else {
            return Ok(());
        };
        match socket.write(&[byte]) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => self.end(key, &error.kind().to_string()),
            _ => {
                self.after(every, key, Later::Drip);
                Ok(())
            }
        }
    }

    fn read_slowly(&mut self, key: usize) -> anyhow::Result<()> {
        let Reading::Slowly(bytes, every) = self.places[key].script.reading else { return Ok(()) };
        let life = self.places[key].life;
        self.read(key, bytes)?;
        if self.places[key].life == life {
            self.after(every, key, Later::Read);
        }
        Ok(())
    }

    fn read(&mut self, key: usize, bytes_max: usize) -> anyhow::Result<()> {
        let place = &mut self.places[key];
        let Some(mut socket) = place.socket.as_ref() else { return Ok(()) };
        match socket.read(&mut self.buffer[..bytes_max]) {
            Ok(0) => self.end(key, "closed by the server"),
            Ok(n) => {
                self.counts.bytes += n as u64;
                let missing = STATUS_BYTES.saturating_sub(place.start.len());
                place.start.extend_from_slice(&self.buffer[..n.min(missing)]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => self.end(key, &error.kind().to_string()),
        }
    }

    /// Counts how the connection ended, closes it and opens the next one.
    fn end(&mut self, key: usize, how: &str) -> anyhow::Result<()> {
        let place = &mut self.places[key];
        let outcome = status(&place.start).unwrap_or(how).to_owned();
        *self.counts.outcomes.entry(outcome).or_default() += 1;
        place.life += 1;
        place.socket = None;
        self.after(Duration::ZERO, key, Later::Open);
        Ok(())
    }
}

/// `HTTP/1.1 200`
const STATUS_BYTES: usize = 12;

fn status(start: &[u8]) -> Option<&str> {
    std::str::from_utf8(start.get(9..STATUS_BYTES)?).ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn every_connection_follows_its_script_and_is_opened_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = |n| Script { request: format!("{n}!").into_bytes(), ..Script::default() };
        let from = Ipv4Addr::LOCALHOST.into();
        let attacker = Attacker::start(listener.local_addr().unwrap(), from, 0, 1, script).unwrap();
        for n in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = [0; 2];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got, *format!("{n}!").as_bytes());
            stream.write_all(b"HTTP/1.1 429 Too Many\r\n\r\n").unwrap();
        }
        // It opens a fourth one: then the third has been counted.
        drop(listener.accept().unwrap());
        let counts = attacker.stop().unwrap();
        assert!(counts.opened >= 4);
        assert_eq!(counts.outcomes.get("429"), Some(&3), "{:?}", counts.outcomes);
    }

    #[test]
    fn a_script_drips_and_resets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = |_| Script {
            drip: Some((b'.', Duration::from_millis(1))),
            reading: Reading::Nothing,
            reset_after: Some(Duration::from_millis(100)),
            ..Script::default()
        };
        let from = Ipv4Addr::LOCALHOST.into();
        let attacker = Attacker::start(listener.local_addr().unwrap(), from, 0, 1, script).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = [0; 3];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, *b"...");
        let ended = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
        assert!(attacker.stop().unwrap().outcomes.contains_key("reset by us"));
    }
}
