//! The queue of visits: which may run now, by the limits of the process and of each host.

// The pauses that hosts asked for, across a restart.
pub(crate) mod held_hosts;
// What counts as one host.
pub(crate) mod host;
// What visits call: enqueue, and hold a permit.
pub(crate) mod limiter;
// The memory that visits share.
pub(crate) mod memory;
// The decisions behind it, as a state machine.
mod scheduler;
// What a waiting visit waits for.
pub(crate) mod wait_reason;
