//! What a long-running process owes its operator, whatever its work is: a configuration that is checked as a whole
//! before anything starts, a log fit for reading, exit codes, stop and reload signals, sockets that explain
//! themselves, notifications to systemd, metrics, an admin socket that answers while everything else
//! is stuck, and a watchdog that says what it is stuck in.
//!
//! It knows nothing about news. Of this workspace it uses `control` and `stacks` only, so that both daemons and the
//! operator's tool can share it without depending on each other.

pub mod admin;
pub mod clock;
pub mod config;
#[cfg(feature = "drill")]
pub mod drill;
pub mod exit;
pub mod findings;
mod json;
pub mod limits;
pub mod logs;
pub mod metrics;
pub mod notify;
pub mod panics;
pub mod problem;
pub mod process;
pub mod program;
pub mod sockets;
pub mod stop;
pub mod watch;
pub mod work;

pub use clock::Clock;
pub use exit::Exit;
