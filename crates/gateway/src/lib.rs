//! The gateway: events from the wire to every client, as Server-Sent Events.
//!
//! ```text
//! wire ──► intake (a thread) ──► ring: newest events, each rendered once ──changes──► worker's streams
//!                                 ▲                                                       │ wake
//!                                 └──── cursor ──── subscriber (a response body) ◄────────┘
//! ```
//!
//! No client has a queue: a subscriber is a cursor into the ring. No handler fetches, parses or touches a disk; orders,
//! callbacks and requests for older events are passed to the daemon, with a deadline. Read the modules in this order.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may block; what they test is checked without them")
)]

// Starts everything, and stops it in order.
mod run;

// Runs in between: reloads, status line.
mod control_loop;

// What the intake, the workers and the handlers share.
mod state;

// The wire's end: from the daemon into the ring.
mod ingest;

// From the ring to one client.
mod stream;

// Plain answers that take more than a moment to make.
mod pages;

// From the listening socket to the handlers.
mod http;

// Which client may read which categories, and which may send orders.
mod auth;

// One TCP connection, and how many there may be.
mod connection;

// Whose connection it is, for the limits per address.
mod client_address;

// How much is open per address.
mod address_counts;

// What an address may use per second.
mod budgets;

// Bytes that clients have not taken yet, and how many there may be.
mod unsent;

// Requests to the daemon, queued for the intake's thread.
mod forwarder;

// What the operator configured.
mod settings;

// What no operator has to configure: deadlines.
mod limits;

// Why the process did not start.
mod error;

// `--check`: the files that the configuration names.
mod check;

// Whether clients are served as they should be.
mod readiness;

// What is counted.
mod metrics;

// What is read at each scrape.
mod scrape;

// What `/watch` reports while a thread may be stuck.
mod diagnostics;

// Hangs on demand, in builds for drills only.
#[cfg(feature = "drill")]
mod drill;

pub use auth::authenticator::AuthFileErrors;
pub use check::check;
pub use error::GatewayError;
pub use limits::Limits;
pub use run::{run, run_within};
