//! The HTTP server on `ingestd.sock`: the wire, the log, the sources, and orders to visit, pause and reload.

pub(crate) mod routes;
pub(crate) mod wire_log;
