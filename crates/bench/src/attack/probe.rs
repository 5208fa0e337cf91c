//! Probes of `/health` at fixed times, however long the earlier ones take: a server that stands still for a second is
//! probed twenty times meanwhile.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;

use crate::{histogram::Histogram, process::pause};

/// Between two probes of all threads.
const EVERY: Duration = Duration::from_millis(50);
/// Threads that take turns. Each has this many intervals for one probe before it leaves one out.
const THREADS: u32 = 20;
/// A probe that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The probes of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbeCounts {
    /// From connecting to the last byte, in microseconds; a failed one counts, too.
    pub(crate) took: Histogram,
    pub(crate) failed: u64,
    /// The last failure.
    pub(crate) fault: Option<String>,
}

/// Probes until it is stopped.
pub(crate) struct HealthProbes {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<ProbeCounts>>,
}

impl HealthProbes {
    pub(crate) fn start(server: SocketAddr, from: IpAddr) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let probe = |n: u32| {
            let stop = Arc::clone(&stop);
            let run = move || repeat(server, from, began + EVERY * n, &stop);
            thread::Builder::new().name("probe".into()).spawn(run)
        };
        let threads = (0..THREADS).map(probe).collect::<Result<_, _>>()?;
        Ok(Self { stop, threads })
    }

    pub(crate) fn stop(self) -> anyhow::Result<ProbeCounts> {
        self.stop.store(true, Relaxed);
        let mut all = ProbeCounts::default();
        for thread in self.threads {
            let counts = thread.join().map_err(|_| anyhow::anyhow!("a probing thread panicked"))?;
            all.took.merge(&counts.took);
            all.failed += counts.failed;
            all.fault = counts.fault.or(all.fault);
        }
        Ok(all)
    }
}

fn repeat(server: SocketAddr, from: IpAddr, mut next: Instant, stop: &AtomicBool) -> ProbeCounts {
    let mut counts = ProbeCounts::default();
    loop {
        pause(next.duration_since(Instant::now()));
        if stop.load(Relaxed) {
            return counts;
        }
        let start = Instant::now();
        let response = fetch(server, from, "/health", TIMEOUT);
        let fault = match response {
            Ok(response) if response.starts_with(b"HTTP/1.1 200") => None,
            Ok(response) => Some(String::from_utf8_lossy(&response[..response.len().min(40)]).into_owned()),
            Err(error) => Some(format!("{error:#}")),
        };
        counts.took.record(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        counts.failed += u64::from(fault.is_some());
        counts.fault = fault.or(counts.fault);
        while next <= Instant::now() {
            next += EVERY * THREADS;
        }
    }
}

/// The whole response to a GET request on its own connection, or what of it came within `timeout`.
pub(crate) fn fetch(
    server: SocketAddr,
    from: IpAddr,
    path: &str,
    timeout: Duration,
) -> anyhow::Result<Vec<u8>> {
    let until = Instant::now() + timeout;
    let mut stream = connect(server, from, timeout)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").context("send")?;
    let (mut response, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let left = until.duration_since(Instant::now());
        anyhow::ensure!(!left.is_zero(), "no complete response within {timeout:?}");
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer).context("receive")? {
            0 => return Ok(response),
            n => response.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Connects from an address.
pub(crate) fn connect(server: SocketAddr, from: IpAddr, timeout: Duration) -> anyhow::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM.cloexec(), Some(Protocol::TCP))
        .context("open")?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(from, 0).into()).context("bind")?;
    socket.connect_timeout(&server.into(), timeout).context("connect")?;
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}
