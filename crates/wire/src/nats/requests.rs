//! Requests to one daemon and their answers, over subjects that no stream stores.
//!
//! ```text
//! gateway                                                            daemon
//!   │ request, with the first part of its body ──────────────────────► │ `<name>.requests.<daemon>`
//!   │ ◄───────────────────────────────────────── accepted, or refused  │
//!   │ further parts of the body ─────────────────────────────────────► │ ──► its own ingestd.sock
//!   │ ◄─────────────────────────────── part 0, part 1, … of the answer │ ◄──
//!   │ "n parts taken", at each part and every second ────────────────► │ sends at most a window ahead
//!   │ ◄──────────────────────────────────── end: so many parts, bytes  │
//! ```
//!
//! NATS closes the connection of a client that is sent more than it takes, therefore the window. Each message after the first
//! names the inbox of its sender as the one to answer to: the server says at once if there is none at the other end any more.

// The messages.
mod form;

// The side that asks.
mod ask;

// The side that answers.
mod respond;

pub(crate) use ask::NatsRequester;
pub use respond::{NatsResponder, RequestCounters, RequestCounts};
