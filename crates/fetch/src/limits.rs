//! Time limits of a visit, each with the key that sets it, so that a message can name the key that would help.

use std::{fmt, time::Duration};

use notation::write_duration;
use tokio::time::Instant;

use crate::{Failure, FailureClass, Policy};

/// How long something may take, and the key that sets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit {
    length: Duration,
    key: &'static str,
    is_total: bool,
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", write_duration(self.length), self.key)
    }
}

/// A point in time, and the limit that it comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    limit: TimeLimit,
}

impl Deadline {
    fn after(started: Instant, limit: TimeLimit) -> Self {
        // Longest limit: a year is as good as any larger number.
        let at = started.checked_add(limit.length).unwrap_or(started + Duration::from_secs(31_536_000));
        Self { at, limit }
    }

    fn or_earlier(self, other: Self) -> Self {
        if other.at <= self.at { other } else { self }
    }

    /// The failure of what was not done in time, such as `connecting to example.org`.
    pub(crate) fn failure(&self, doing: &str) -> Failure {
        let limit = self.limit;
        let message = if limit.is_total {
            format!("the visit took longer than {limit}; it ended while {doing}")
        } else {
            format!("{doing} took longer than {limit}")
        };
        Failure::new(FailureClass::Timeout, message)
    }
}

/// The time limits of one visit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimits {
    connect: TimeLimit,
    first_byte: TimeLimit,
    /// When the visit ends.
    pub(crate) total: Deadline,
}

impl TimeLimits {
    /// The limits of a visit that starts now. `total` and `first_byte` are those of its source. A source with a time limit of
    /// its own may use all of it for the first byte.
    pub(crate) fn new(policy: &Policy, total: Option<Duration>, first_byte: Option<Duration>) -> Self {
        let of = |length, key| TimeLimit { length, key, is_total: false };
        let connect = of(policy.timeout_connect, "fetch.timeout_connect");
        let first_byte = match (first_byte, total) {
            (Some(length), _) => of(length, "timeout_first_byte"),
            (None, Some(length)) => of(length, "timeout"),
            (None, None) => of(policy.timeout_first_byte, "fetch.timeout_first_byte"),
        };
        let (length, key) =
            total.map_or((policy.timeout_total, "fetch.timeout_total"), |own| (own, "timeout"));
        let total = Deadline::after(Instant::now(), TimeLimit { length, key, is_total: true });
        Self { connect, first_byte, total }
    }

    /// The visit has waited for others, which does not count.
    pub(crate) fn extend(&mut self, waited: Duration) {
        self.total.at += waited;
    }

    /// When a connection that is begun now must be established.
    pub(crate) fn connect(&self) -> Deadline {
        Deadline::after(Instant::now(), self.connect).or_earlier(self.total)
    }

    /// The visit waited for something that its server is not to blame for.
    pub(crate) fn postpone(&mut self, waited: Duration) {
        self.total.at += waited;
    }

    /// When the next byte must be there: of the head after the connection, of the body after the head.
    pub(crate) fn first_byte(&self) -> Deadline {
        Deadline::after(Instant::now(), self.first_byte).or_earlier(self.total)
    }
}
