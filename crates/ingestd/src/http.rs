//! The HTTP side of `ingestd.sock`: its routes, and the log as they serve it.

// The handlers.
pub(crate) mod routes;
// What waits until the sources are there.
mod after_start;
// The list of all sources, in parts.
mod source_list;
// Which sources an order is for.
mod selection;
// The wire.
mod wire_stream;
// The store's log as the wire reads it.
pub(crate) mod wire_log;
