//! The ingestion process: every source is visited when it is due, and what is new goes to the log and out on the wire.
//!
//! ```text
//! Roster ──starts──► SourceActor (one per source) ──visit──► Recorder ──► store (a thread) ──► bell ──► GET /wire
//! ```
//!
//! [`run`] gets its configuration, its clock and its stop signal from outside. Actors never block: fetching is
//! asynchronous, parsing and the store have threads of their own.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may block; what they test is checked without them")
)]

mod board;
mod check;
#[cfg(feature = "drill")]
mod drill;
mod gates;
mod host;
mod marks;
mod metrics;
mod moving;
mod outage;
mod outcome;
mod recorder;
mod roster;
mod routes;
mod run;
mod secrets;
#[cfg(test)]
mod simulation;
mod source_actor;
mod vitals;
mod websub;
#[cfg(test)]
mod whole_visits;
mod wire_log;

pub use check::check;
pub use run::{RunError, run};
