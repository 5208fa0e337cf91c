//! The prober: a plain thread that connects to the process's own listening sockets every few seconds, as a client does.
//! A listener that no loop waits for, and a thread that accepts nothing, are silent in every other way: all loops beat.
//!
//! It waits for a socket in steps and counts only time in which it ran, so that no listener is blamed if the whole process
//! was stopped or without CPU. It also looks at the watchdog, which cannot notice by itself that it is stuck; the watchdog
//! looks at the prober.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use control::watch::ListenerProbe;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::states::{ListenerAddress, ListenerState};
use super::{HelperGuard, Watch, WatchKind, dump, now_ms};
use crate::logs;

/// The pause between two rounds of probes.
const PAUSE_MS: u64 = 3_000;
/// How long a listener may take to answer; after that it is told to be mute, and probed again.
const PROBE_MS_MAX: u64 = 5_000;
/// The prober waits in steps of this length, and counts at most twice as much for each.
const STEP_MS: u64 = 250;
/// The least time that a listener must have been mute before systemd is not notified for it: a busy machine is not a reason
/// to end the process.
const MUTE_MS_MIN: u64 = 15_000;
/// Rounds, 3 s each, in which the watchdog must not have looked to be stuck; it looks 12 times in one.
const WATCHDOG_ROUNDS: u32 = 2;
/// The same while it reads the stack of a thread: the first time it reads debug information, for seconds on a busy machine.
const SAMPLING_ROUNDS: u32 = 6;
/// What it asks for. Any answer will do.
const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
/// How every answer begins.
const ANSWER: &[u8] = b"HTTP/";

/// A listener is probed until this is dropped.
#[must_use = "the listener is probed until this is dropped"]
pub struct WatchedListener {
    watch: Watch,
    state: Arc<ListenerState>,
}

impl fmt::Debug for WatchedListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WatchedListener").field(&self.state).finish()
    }
}

impl Drop for WatchedListener {
    fn drop(&mut self) {
        self.watch.listeners().retain(|other| !Arc::ptr_eq(other, &self.state));
    }
}

impl Watch {
    /// Has a listening socket of this process probed every few seconds. Call it when the socket is served, and drop what it
    /// returns before that ends.
    pub fn listener(&self, name: &'static str, kind: WatchKind, address: ListenerAddress) -> WatchedListener {
        let state = Arc::new(ListenerState {
            name,
            kind,
            address,
            answered_ms: AtomicU64::new(0),
            took_ms: AtomicU64::new(0),
            mute_ms: AtomicU64::new(0),
            is_missing: AtomicBool::new(false),
            error: Mutex::default(),
            is_told: AtomicBool::new(false),
        });
        self.listeners().push(Arc::clone(&state));
        WatchedListener { watch: self.clone(), state }
    }

    /// Whether a TCP connection from `peer` is a probe of this process itself: to be answered at once, and not counted
    /// against any limit of clients.
    #[must_use]
    pub fn is_own_probe(&self, peer: SocketAddr) -> bool {
        let own = *self.0.own_probe.lock().unwrap_or_else(PoisonError::into_inner);
        own.is_some_and(|own| {
            own.port() == peer.port() && own.ip().to_canonical() == peer.ip().to_canonical()
        })
    }

    fn set_own_probe(&self, address: Option<SocketAddr>) {
        *self.0.own_probe.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Whether a listener that has answered before has been mute for longer than `ms`, and for [`MUTE_MS_MIN`]. A restart
    /// does not help one that never answered: it may be in another network namespace. Nor does it help an admin socket
    /// whose file was removed, while clients are served.
    pub(super) fn has_mute_listener(&self, ms: u64) -> bool {
        let bound = ms.max(MUTE_MS_MIN);
        self.listeners().iter().any(|listener| {
            listener.mute_ms.load(Acquire) > bound
                && listener.answered_ms.load(Relaxed) != 0
                && !(listener.kind == WatchKind::Admin && listener.is_missing.load(Relaxed))
        })
    }
}

impl ListenerState {
    pub(super) fn report(&self, now: u64) -> ListenerProbe {
        let answered_ms = Some(self.answered_ms.load(Acquire)).filter(|ms| *ms != 0);
        ListenerProbe {
            name: self.name.to_owned(),
            kind: self.kind,
            address: self.address.to_string(),
            answered_ms_ago: answered_ms.map(|ms| now.saturating_sub(ms)),
            took_ms: answered_ms.map(|_| self.took_ms.load(Relaxed)),
            waiting_ms: Some(self.mute_ms()).filter(|ms| *ms != 0),
            missing: self.is_missing.load(Relaxed),
            error: self.error().clone(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// For how long it has not answered; 0 while it does.
    pub(super) fn mute_ms(&self) -> u64 {
        self.mute_ms.load(Acquire)
    }

    fn error(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn conclude(&self, result: Result<(), ProbeFailure>, took_ms: u64) {
        let before_ms = self.mute_ms();
        let failure = match result {
            Ok(()) => {
                *self.error() = None;
                self.took_ms.store(took_ms, Relaxed);
                self.is_missing.store(false, Relaxed);
                self.answered_ms.store(now_ms(), Release);
                self.mute_ms.store(0, Release);
                if self.is_told.swap(false, Relaxed) {
                    tracing::info!(name = self.name, listen = %self.address, lasted_ms = before_ms, "a listener of this process answers again");
                }
                return;
            }
            Err(failure) => failure,
        };
        *self.error() = Some(failure.to_string());
        self.is_missing.store(matches!(failure, ProbeFailure::Missing(_)), Relaxed);
        if matches!(failure, ProbeFailure::Unsent(_)) {
            tracing::debug!(name = self.name, error = %failure, "could not probe a listener of this process");
            return;
        }
        if self.is_told.swap(true, Relaxed) {
            return;
        }
        match failure {
            ProbeFailure::Missing(error) => tracing::warn!(
                name = self.name, listen = %self.address, error,
                "the address of a listener does not lead to this process any more, so nothing new can connect to it: its \
                 socket was deleted or replaced, alone or with daemon.run_dir; restart this process, which makes it anew"
            ),
            failure => tracing::warn!(
                name = self.name, listen = %self.address, stalled_ms = before_ms, error = %failure,
                "a listener of this process does not answer, although the process runs; `newswire doctor` says why"
            ),
        }
    }
}

/// Why a probe had no answer.
#[derive(Debug, thiserror::Error)]
enum ProbeFailure {
    /// It says nothing about the listener.
    #[error("no probe could be sent: {0}")]
    Unsent(io::Error),
    /// No listener of this process is there.
    #[error("{0}")]
    Missing(String),
    #[error("no answer within {} s", PROBE_MS_MAX / 1000)]
    Mute,
    #[error("the connection was closed without an answer")]
    Closed,
}

impl ProbeFailure {
    /// Of a socket that is open.
    fn of(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::CONNREFUSED | Errno::NOENT) => Self::Missing(error.to_string()),
            Some(Errno::CONNRESET | Errno::PIPE) => Self::Closed,
            // Too many connections wait to be accepted.
            Some(Errno::AGAIN) => Self::Mute,
            _ => Self::Unsent(error),
        }
    }
}

/// The state of the prober's thread.
pub(super) struct ListenerProber {
    watch: Watch,
    /// When the watchdog had looked at the last round, and for how many rounds it has not looked since.
    watchdog_looked_ms: u64,
    watchdog_rounds: u32,
    watchdog_is_told: bool,
}

impl ListenerProber {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, watchdog_looked_ms: 0, watchdog_rounds: 0, watchdog_is_told: false }
    }

    pub(super) fn run(mut self, stop: &AtomicBool) {
        let watched = self.watch.helper_thread("prober", WatchKind::Prober);
        while !stop.load(Relaxed) {
            let listeners = self.watch.listeners().clone();
            for listener in listeners {
                let at_work = watched.during("probing", listener.name);
                Probe::new(&self.watch, &listener, &at_work, stop).run();
            }
            watched.beat();
            self.look_at_watchdog();
            logs::probe();
            std::thread::park_timeout(Duration::from_millis(PAUSE_MS));
        }
    }

    /// Logs once that the watchdog is stuck, and where. One round proves nothing: the whole process may have been stopped.
    fn look_at_watchdog(&mut self) {
        let watchdog = &self.watch.0.watchdog;
        let looked_ms = watchdog.looked_ms.load(Acquire);
        if looked_ms == 0 || looked_ms != std::mem::replace(&mut self.watchdog_looked_ms, looked_ms) {
            if std::mem::take(&mut self.watchdog_is_told) {
                tracing::info!("the watchdog of this process looks again");
            }
            self.watchdog_rounds = 0;
            return;
        }
        self.watchdog_rounds = self.watchdog_rounds.saturating_add(1);
        let rounds = if watchdog.sampling.load(Relaxed) { SAMPLING_ROUNDS } else { WATCHDOG_ROUNDS };
        if self.watchdog_rounds >= rounds && !self.watchdog_is_told {
            self.watchdog_is_told = true;
            let tid = self.watch.0.watchdog.tid.load(Relaxed);
            let stack = self.watch.0.sampler.get().and_then(|sampler| sampler.one(tid));
            let blame = stack.as_ref().and_then(stacks::ThreadStack::culprit).map(dump::location);
            let stack = stack.as_ref().map(dump::one_line);
            let stalled_ms = now_ms().saturating_sub(looked_ms);
            tracing::warn!(tid, stalled_ms, blame, stack, "the watchdog of this process is stuck");
        }
    }
}

/// One probe of one listener.
struct Probe<'a> {
    watch: &'a Watch,
    listener: &'a ListenerState,
    at_work: &'a HelperGuard<'a>,
    stop: &'a AtomicBool,
    /// How long it has waited, as far as the process ran.
    waited_ms: u64,
}

impl<'a> Probe<'a> {
    fn new(
        watch: &'a Watch,
        listener: &'a ListenerState,
        at_work: &'a HelperGuard<'a>,
        stop: &'a AtomicBool,
    ) -> Self {
        Self { watch, listener, at_work, stop, waited_ms: 0 }
    }

    fn run(mut self) {
        let began_ms = now_ms();
        let result = match &self.listener.address {
            ListenerAddress::Tcp(address) => self.probe_tcp(*address),
            ListenerAddress::Unix(path) => self.probe_unix(path),
        };
        self.watch.set_own_probe(None);
        if matches!(&result, Err(failure) if !matches!(failure, ProbeFailure::Unsent(_))) {
            // The pause before the next probe, and so that one that refuses at once is mute, too.
            self.add_mute(PAUSE_MS);
        }
        // One that ended meanwhile is not to blame for that.
        let is_watched = self.watch.listeners().iter().any(|other| std::ptr::eq(&**other, self.listener));
        if is_watched && !self.stop.load(Relaxed) {
            self.listener.conclude(result, now_ms().saturating_sub(began_ms));
        }
    }

    fn add_mute(&self, ms: u64) {
        self.listener.mute_ms.fetch_add(ms, Release);
    }

    fn probe_tcp(&mut self, bound: SocketAddr) -> Result<(), ProbeFailure> {
        let (socket, address) = tcp_socket(bound).map_err(ProbeFailure::Unsent)?;
        // Before it connects: the loop that accepts must know whose connection it is.
        let own = socket.local_addr().map_err(ProbeFailure::Unsent)?.as_socket();
        self.watch.set_own_probe(own);
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {
                self.wait(&socket, PollFlags::OUT)?;
                if let Some(error) = socket.take_error().map_err(ProbeFailure::Unsent)? {
                    return Err(ProbeFailure::of(error));
                }
            }
            Err(error) => return Err(ProbeFailure::of(error)),
        }
        self.exchange(&socket)
    }

    fn probe_unix(&mut self, path: &std::path::Path) -> Result<(), ProbeFailure> {
        let open = || -> io::Result<(Socket, SockAddr)> {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            Ok((socket, SockAddr::unix(path)?))
        };
        let (socket, address) = open().map_err(ProbeFailure::Unsent)?;
        if let Err(error) = socket.connect(&address) {
            let failure = ProbeFailure::of(error);
            if matches!(failure, ProbeFailure::Mute) {
                self.add_mute(PROBE_MS_MAX);
                self.waited_ms = PROBE_MS_MAX;
            }
            return Err(failure);
        }
        let peer = rustix::net::sockopt::socket_peercred(&socket).ok().map(|peer| peer.pid);
        if let Some(pid) = peer.filter(|pid| *pid != rustix::process::getpid()) {
            let pid = pid.as_raw_nonzero();
            return Err(ProbeFailure::Missing(format!("another process, pid {pid}, listens at this path")));
        }
        self.exchange(&socket)
    }

    /// Sends the request and waits for the first bytes of an answer.
    fn exchange(&mut self, mut socket: &Socket) -> Result<(), ProbeFailure> {
        socket.write_all(REQUEST).map_err(ProbeFailure::of)?;
        let mut answer = [0; ANSWER.len()];
        let mut filled = 0;
        while filled < answer.len() {
            match socket.read(&mut answer[filled..]) {
                Ok(0) => return Err(ProbeFailure::Closed),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(socket, PollFlags::IN)?;
                }
                Err(error) => return Err(ProbeFailure::of(error)),
            }
        }
        if answer == *ANSWER {
            Ok(())
        } else {
            Err(ProbeFailure::Missing("no HTTP is spoken there".to_owned()))
        }
    }

    /// Waits until the socket is ready, in steps.
    fn wait(&mut self, socket: &Socket, flags: PollFlags) -> Result<(), ProbeFailure> {
        let step = Timespec { tv_sec: 0, tv_nsec: i64::try_from(STEP_MS).unwrap_or(250) * 1_000_000 };
        loop {
            self.at_work.progress();
            let began_ms = now_ms();
            match poll(&mut [PollFd::new(socket, flags)], Some(&step)) {
                Ok(1..) => return Ok(()),
                Ok(0) | Err(Errno::INTR) => {}
                Err(error) => return Err(ProbeFailure::Unsent(error.into())),
            }
            let passed = now_ms().saturating_sub(began_ms).min(2 * STEP_MS);
            self.waited_ms += passed;
            self.add_mute(passed);
            if self.waited_ms >= PROBE_MS_MAX || self.stop.load(Relaxed) {
                return Err(ProbeFailure::Mute);
            }
        }
    }
}

/// A socket bound to the address that it will connect from, and the one to connect to: that of a listener at an unspecified
/// address is on the loopback interface.
fn tcp_socket(bound: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let open = |ip: IpAddr| -> io::Result<(Socket, SocketAddr)> {
        let socket =
            Socket::new(Domain::for_address(SocketAddr::new(ip, 0)), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&from(bound, ip, 0).into())?;
        Ok((socket, from(bound, ip, bound.port())))
    };
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => open(Ipv4Addr::LOCALHOST.into()),
        // A machine without IPv6 on its loopback interface takes IPv4 at the same socket.
        IpAddr::V6(ip) if ip.is_unspecified() => {
            open(Ipv6Addr::LOCALHOST.into()).or_else(|_| open(Ipv4Addr::LOCALHOST.into()))
        }
        ip => open(ip),
    }
}

/// `ip` and `port`, in the scope of `bound`.
fn from(bound: SocketAddr, ip: IpAddr, port: u16) -> SocketAddr {
    let mut address = bound;
    address.set_ip(ip);
    address.set_port(port);
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::logs::capture;

    fn probe(watch: &Watch, listener: &ListenerState) {
        let (thread, stop) = (watch.helper_thread("prober", WatchKind::Prober), AtomicBool::new(false));
        Probe::new(watch, listener, &thread.during("probing", listener.name), &stop).run();
    }

    #[test]
    fn a_socket_that_is_deleted_is_told_once_with_its_path_and_one_that_has_ended_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway-admin.sock");
        let (subscriber, log) = capture("info", Clock::system()).unwrap();
        let _captured = tracing::subscriber::set_default(subscriber);
        let watch = Watch::new();
        let watched = watch.listener("admin", WatchKind::Admin, ListenerAddress::Unix(path.clone()));
        let state = Arc::clone(&watched.state);
        probe(&watch, &state);
        probe(&watch, &state);
        let text = log.text();
        assert_eq!(text.matches("does not lead to this process any more").count(), 1, "{text}");
        assert!(text.contains(&path.display().to_string()) && text.contains("No such file"), "{text}");
        assert!(watch.report().listeners[0].missing);
        let ended = watch.listener("wire", WatchKind::Wire, ListenerAddress::Unix(path));
        let state = Arc::clone(&ended.state);
        // The prober has begun its round.
        drop(ended);
        probe(&watch, &state);
        assert_eq!((log.text(), state.error().clone()), (text, None));
    }
}
