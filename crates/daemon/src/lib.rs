//! What a long-running process needs for its operator, whatever its work: a configuration that is checked as a whole
//! before anything starts, a readable log, exit codes, stop and reload signals, socket errors that name the remedy,
//! notifications to systemd, metrics, an admin socket that answers while everything else is stuck, and a watchdog that
//! names the function it is stuck in.
//!
//! It knows nothing about news. Of this workspace it depends only on `control`, `notation` and `stacks`, so that both
//! daemons and the operator's tool can share it without depending on each other.

pub mod accept;
pub mod admin;
pub mod black_box;
mod brief_lock;
pub mod clock;
pub mod config;
#[cfg(feature = "drill")]
pub mod drill;
pub mod exit;
pub mod findings;
mod json;
pub mod limits;
pub mod line_queue;
pub mod logs;
pub mod metrics;
pub mod notify;
pub mod panics;
mod parent;
pub mod problem;
pub mod process;
pub mod program;
pub mod sockets;
pub mod stop;
pub mod watch;
pub mod work;

pub use clock::Clock;
pub use exit::Exit;
pub use parent::PARENT_VARIABLE;
