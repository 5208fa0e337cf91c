//! Bounds that are no configuration, because nobody should have to think about them. Tests shorten them.

use std::time::Duration;

/// How long a client may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A request's head. Default 5 s.
    pub head: Duration,
    /// A request's body. Default 5 s.
    pub body: Duration,
    /// Our own answer to it, the waiting for the daemon included. Default 5 s.
    pub handler: Duration,
    /// Everything that happens on a connection that is no stream, the reading of the answer included. Default 30 s.
    pub connection: Duration,
    /// What we wrote may stay unacknowledged this long before the kernel gives the client up. Default 28 s: its timers
    /// are coarse, and the client is to be gone within 30 s.
    pub unacknowledged: Duration,
    /// How long a stream's pace is measured. One that never caught up in two such windows in a row, and took fewer
    /// than five events a second in both, is ended: after 60 to 90 s with the default of 30 s.
    pub pace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            head: seconds(5),
            body: seconds(5),
            handler: seconds(5),
            connection: seconds(30),
            unacknowledged: seconds(28),
            pace: seconds(30),
        }
    }
}
