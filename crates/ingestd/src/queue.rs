//! Which visit may run now: a limit for the process, a limit and a spacing for each host.

pub(crate) mod host;
pub(crate) mod limiter;
mod scheduler;
pub(crate) mod wait_reason;
