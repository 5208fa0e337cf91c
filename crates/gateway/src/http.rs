//! The HTTP server for clients: from the listening socket to the handlers.

// The socket that clients connect to, inherited or bound.
pub(crate) mod listener;

// The actix server: its workers, its timeouts.
pub(crate) mod server;

// What every request must pass, and what every response carries.
mod middleware;

// Whether a request names a served host.
mod host;

// Pages of other origins (CORS).
mod cors;

// The routes and their handlers.
mod routes;

// What handlers take from a request: the reader and what it may see.
mod extract;

// The query parameters that several routes share.
pub(crate) mod query;

// Whether a client's copy is current (`If-None-Match`).
pub(crate) mod conditional;

// Errors as responses (RFC 9457).
pub(crate) mod problem;
