//! Notifications to systemd (`sd_notify(3)`). Without `NOTIFY_SOCKET` in the environment, nothing is sent and nothing
//! fails.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// The start is complete: `READY=1`. Also ends a reload that [`reloading`] announced.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// One line for `systemctl status`: `STATUS=`. Control characters are escaped, so the line cannot contain other states.
pub fn status(line: &str) {
    send_without_waiting(&NotifyState::Status(&notation::escaped(line)));
}

/// The process is stopping: `STOPPING=1`.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// A reload has begun: `RELOADING=1` with the monotonic time that `Type=notify-reload` requires. End it with [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "could not read the monotonic clock for systemd"),
    }
}

/// Every event loop, pool and thread makes progress: `WATCHDOG=1`.
pub fn watchdog() {
    send_without_waiting(&NotifyState::Watchdog);
}

/// How long systemd waits for the next [`watchdog`] call before it kills the process; `None` if it does not supervise
/// it. Call at least twice as often.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Requests `more` time, counted from now, for a long start or stop: `EXTEND_TIMEOUT_USEC=`.
pub fn extend_timeout(more: Duration) {
    send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(more.as_micros()).unwrap_or(u32::MAX))]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "could not notify systemd");
    }
}

/// Sends what another message replaces soon: if systemd reads nothing, this is lost, and no thread waits for systemd.
fn send_without_waiting(state: &NotifyState<'_>) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send_at_once(&path, format!("{state}\n").as_bytes()) {
        tracing::debug!(%error, "could not notify systemd");
    }
}

/// To a path, or to an abstract address, which begins with `@` (sd_notify(3)).
fn send_at_once(path: &OsStr, message: &[u8]) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_systemd_that_reads_nothing_keeps_no_thread_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let refused = (0..10_000).find_map(|_| send_at_once(path.as_os_str(), b"WATCHDOG=1\n").err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
        let mut message = [0; 64];
        let length = systemd.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"WATCHDOG=1\n");
    }
}
