//! One visit of one source, from the time it is due to its outcome.

pub(crate) mod context;
pub(crate) mod crash_guard;
pub(crate) mod credentials;
mod log;
pub(crate) mod outage;
pub(crate) mod outcome;
mod parse;
pub(crate) mod redirects;
mod run_visit;
pub(crate) mod source_actor;
mod validators;
