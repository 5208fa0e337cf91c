//! The operator's hand: runs both daemons, tails the wire, checks feeds and configuration, shows the sources,
//! checks a running system, reads its logs and bundles what helps to find a fault.
//!
//! Every command returns an [`daemon::Exit`]: 0 fine, 1 a problem found, 2 usage or configuration. What comes from a
//! feed or a server is shown through [`news::Escaped`], because it ends up on a terminal.

mod bundle;
mod check;
mod cli;
mod config;
mod demo;
mod discover;
mod doctor;
mod logs;
mod manual;
mod out;
mod redact;
mod reload;
mod sources;
mod supervise;
mod tail;
mod up;
mod verify;

pub use cli::run;
