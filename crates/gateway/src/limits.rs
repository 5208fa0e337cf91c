//! Limits that are not configurable, because no operator should have to choose them. Tests shorten them.

use std::time::Duration;

/// How long clients, and the answers to them, may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A request's head. Default 5 s.
    pub head: Duration,
    /// A request's body. Default 5 s.
    pub body: Duration,
    /// The answer of a handler, the daemon's part included. Default 5 s.
    pub handler: Duration,
    /// A whole connection that is not a stream, until the client has read the answer. Default 30 s.
    pub connection: Duration,
    /// How long written data may stay unacknowledged before the kernel closes the connection. Default 28 s: its timers
    /// are coarse, and the connection is to be closed within 30 s.
    pub unacknowledged: Duration,
    /// A client that asks for heartbeats gets one after this time at the latest, even if `gateway.heartbeat` is longer.
    /// Default 10 s: such clients take 30 s of silence for a lost connection.
    pub requested_heartbeat: Duration,
    /// How long a stream's throughput is measured. A stream that never caught up in two such windows in a row, and took
    /// fewer than five events per second in both, is ended: after 60 to 90 s with the default of 30 s.
    pub throughput_window: Duration,
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
            requested_heartbeat: seconds(10),
            throughput_window: seconds(30),
        }
    }
}
