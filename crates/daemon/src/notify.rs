//! Notifications to systemd (`sd_notify(3)`). Without `NOTIFY_SOCKET` in the environment, nothing is sent and nothing
//! fails.

use std::time::Duration;

use sd_notify::NotifyState;

/// The start is complete: `READY=1`. Also ends a reload that [`reloading`] announced.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// One line for `systemctl status`: `STATUS=`. Control characters are escaped, so the line cannot contain other states.
pub fn status(line: &str) {
    send(&[NotifyState::Status(&notation::escaped(line))]);
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
    send(&[NotifyState::Watchdog]);
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
