//! Sicknesses made from outside on the programs as they are shipped, without drills: what `newswire doctor` says of each.
//! `scripts/drill --foreign` runs all of them and prints the table: sickness, verdict, root of the chain, right or not,
//! seconds, exit code. The rows without `#[ignore]` are the short form, which the gate runs.
//!
//! `E2E_PROGRAMS=FOLDER` takes the programs of another build.

mod advice;
mod alarms;
mod carry_out;
mod debuggers;
mod disks;
mod feeds;
mod groups;
mod loops;
mod parking;
mod places;
mod processes;
mod reports;
mod row;
mod run_folder;
