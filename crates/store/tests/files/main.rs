//! What the files of a store are worth: after damage, from an earlier version, beside retention, and by their size.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod built;
mod copies;
mod damage;
mod migration;
mod model;
#[path = "../support/preload.rs"]
mod preload;
mod retention;
mod sectors;
mod sizes;
mod syncs;
mod twice;
#[path = "../support/visits.rs"]
mod visits;
mod whole;
