//! The ingestion daemon: visits every source when it is due, appends what is new to the log, and sends it on the
//! wire.
//!
//! ```text
//! Supervisor ──starts──► SourceActor (one per source) ──visit──► Recorder ──► store (a thread) ──► head changes ──► GET /wire
//! ```
//!
//! [`run()`] gets its configuration, its clock and its stop signal from outside. Actors never block: fetching is
//! asynchronous, parsing and the store have their own threads. The modules, in reading order:
//!
//! * `run`: the daemon from its first socket to its last; `settings` and `error` belong to it
//! * `catalogue`: reads the list of sources; `check` is `newswire-ingestd --check`
//! * `lists`: lists of feeds that are read again and again, whose feeds are sources as well
//! * `supervisor`: one actor per source, a new catalogue, first visits, dead actors, jumps of the clock
//! * `visit`: one visit, from the time it is due to its outcome
//! * `documents`: documents that the operator's tool has fetched for new sources, which need no first request then
//! * `queue`: which visit may run now
//! * `recording`: whether visits are recorded, and why not; `disk_space` decides that before the disk is full
//! * `recorder`: group commits, on the thread that owns the store's writer; `retention_clock`: which events are too old
//! * `clock_reading`: jumps of the wall clock
//! * `websub`: subscriptions at hubs, and their pushes
//! * `http`: what is served on `ingestd.sock`: the wire, the log, the sources, orders
//! * `nats_wire`: what goes to NATS if that is the wire; `known_aliases`: which ids there and here mean the same
//! * `sharing`: daemons that divide one list of sources; `lease` is the part of it that `queue` needs
//! * `control_loop`: the main loop after the start: reloads, and the status line of systemd
//! * `status`: the state of every source, metrics, diagnostics
//! * `messages`: the messages between the actors
//! * `drill`: hangs on demand, in separate builds

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may block; what they test is checked without them")
)]

mod catalogue;
mod check;
mod clock_reading;
mod control_loop;
mod disk_space;
mod documents;
#[cfg(feature = "drill")]
mod drill;
mod error;
mod http;
mod known_aliases;
mod lease;
mod lists;
mod messages;
mod nats_wire;
mod queue;
mod recorder;
mod recording;
mod retention_clock;
mod run;
mod settings;
mod sharing;
#[cfg(test)]
mod simulation;
mod status;
mod supervisor;
mod visit;
mod websub;
#[cfg(test)]
mod whole_visits;

pub use check::check;
pub use error::IngestError;
pub use run::run;
