//! The stream: from the bytes of an event to the body of one client's response.

// The bytes of an event, rendered once for all clients.
pub(crate) mod frame;

// The newest events, in memory.
pub(crate) mod ring;

// The newest notices: events without an id.
pub(crate) mod notices;

// Older events, from the daemon's log.
pub(crate) mod replay;

// Which events a client gets.
pub(crate) mod filter;

// The encoding of a stream: Server-Sent Events, or JSON lines.
pub(crate) mod encoding;

// How much one stream may do before the others come first.
mod turn;

// What a stream hands out next, in chunks.
mod outgoing;

// Whether one more stream is accepted.
pub(crate) mod admission;

// One client's stream: a cursor, a filter and a format.
pub(crate) mod subscriber;

// All streams of one worker: who is woken, who has to end.
pub(crate) mod worker_streams;

// What each stream waits for.
pub(crate) mod stream_waits;

// Whether a client is too slow.
mod throughput;

// How far the slowest client of each worker is behind.
pub(crate) mod worker_lag;
