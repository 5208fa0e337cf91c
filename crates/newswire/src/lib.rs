//! The operator's tool: runs, checks and diagnoses newswire.
//!
//! Every command returns a [`daemon::Exit`]: 0 success, 1 a problem was found, 2 the command line or the configuration is
//! wrong. Text from a feed or a server must pass through [`news::Escaped`] before it reaches a terminal.

// The command line.
mod cli;
mod config_file;
mod examples;
mod out;
mod unanswered;
mod within;

// Run newswire.
mod demo;
mod supervise;
mod up;

// Read feeds and items.
mod address;
mod check;
mod discover;
mod tail;

// Configure it.
mod config;
mod reload;
mod sources;

// The files of its log.
mod log;

// Diagnose it.
mod black_box;
mod bundle;
mod doctor;
mod logs;
mod redact;
mod verify;

// Package it.
mod manual;

pub use cli::run;
