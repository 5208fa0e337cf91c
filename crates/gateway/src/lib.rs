//! The gateway: events from the wire to everybody, as Server-Sent Events.
//!
//! ```text
//! wire ──► intake (a thread) ──► ring: recent events, each rendered once ──bell──► shard (one per worker)
//!                                  ▲                                                │ wakes
//!                                  └──── cursor ──── subscriber (a body) ◄──────────┘
//! ```
//!
//! Nobody queues for a client: a subscriber is a cursor into the ring. No handler fetches, parses or touches a disk,
//! and none asks the ingestion daemon: what it says is in memory before anybody asks.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may block; what they test is checked without them")
)]

mod bearer;
mod callbacks;
mod check;
mod connection;
#[cfg(feature = "drill")]
mod drill;
mod filter;
mod headers;
mod hub;
mod intake;
mod limits;
mod metrics;
mod operator;
mod problem;
mod readers;
mod refresh;
mod replay;
mod ring;
mod routes;
mod run;
mod shard;
mod sse;
mod subscriber;
mod vitals;
mod wording;

pub use check::check;
pub use limits::Limits;
pub use readers::BadFiles;
pub use run::{RunError, run, run_within};
