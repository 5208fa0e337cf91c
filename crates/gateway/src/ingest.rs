//! The side towards the ingestion daemon: events that arrive on the wire, and requests to the daemon.

// The thread that reads the wire into the ring.
pub(crate) mod intake;

// Where the events come from: a socket of this machine, or NATS.
pub(crate) mod transport;

// What ids of the other wire mean on this one.
pub(crate) mod alias_directory;

// The daemons that are asked: the one on this machine, or all behind NATS.
pub(crate) mod daemons;

// The metrics of several daemons as one text.
mod daemon_metrics;

// The lists of sources of all daemons, put together.
mod source_lists;

// The newest event of each source.
pub(crate) mod newest_events;

// Whether the wire is connected.
pub(crate) mod wire_link;

// The sources and their health.
pub(crate) mod source_directory;

// Which categories, sources, tags and countries there are.
pub(crate) mod catalogue_labels;

// Categories that are granted and do not exist.
pub(crate) mod granted_categories;

// Orders to visit sources, and their progress.
pub(crate) mod refresh;

// Requests of WebSub hubs.
pub(crate) mod callbacks;

// Parts of the daemon's log, for pages that go below the ring.
pub(crate) mod history;

// Why the daemon's log could not be read.
pub(crate) mod log_unavailable;

// Why the daemon gave no answer.
pub(crate) mod no_answer;
