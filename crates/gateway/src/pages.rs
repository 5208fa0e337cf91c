//! Plain answers that take more than a moment to make: pages of events, lists of sources, metrics.
//!
//! ```text
//! handler ──job──► pool: one thread, jobs in turn, a slice each ──parts: shared bytes──► handler ──► SharedBody
//!                    │ ring: a slice of frames per lock
//!                    └ below the ring: the daemon's log, through the intake
//! ```
//!
//! No worker scans, renders or copies more than a chunk: it waits for the pool, and hands out bytes that all clients
//! share.

// The thread, its queue, and whose turn it is.
pub(crate) mod pool;

// A page of events, from the ring and from the log below it.
pub(crate) mod news_page;

// Where a snapshot begins that is larger than the ring.
pub(crate) mod snapshot;

// A page of a list: sources, categories.
pub(crate) mod list_page;

// The text of the metrics, made once for simultaneous requests.
pub(crate) mod metrics_page;

// The body of an answer: bytes that are shared, in chunks.
pub(crate) mod body;
