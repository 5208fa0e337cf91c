//! One visit of one source, from the time it is due to its outcome.

// The timer of a source: starts its visits.
pub(crate) mod source_actor;
// One visit, in order: permit, fetch, parse, outcome, record.
mod run_visit;
// The admission of its redirects.
pub(crate) mod hops;
// What visits share.
pub(crate) mod context;
// Which validators are sent.
pub(crate) mod validators;
// From a body to a document, and a record of what was being parsed at a crash.
pub(crate) mod crash_guard;
pub(crate) mod parse;
pub(crate) mod parse_limits;
// From the result to the state to store; redirects that are adopted; outages of our own network, and time that this process
// lost.
pub(crate) mod lost_time;
pub(crate) mod outage;
pub(crate) mod outcome;
pub(crate) mod redirects;
// What failed, for conclusions from many visits.
mod trouble;
// What is logged about a visit.
mod log;
// What a visit uses of the memory budget.
mod memory;
