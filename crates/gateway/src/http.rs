//! The HTTP server for clients: from the listening socket to the handlers.

// The socket that clients connect to, inherited or bound.
pub(crate) mod listener;

// The server: the front loop and the workers.
pub(crate) mod server;

// The front loop: accepts connections, and answers `/health`.
mod front;

// A worker: serves connections.
mod worker;

// actix-web's `App` on the sockets of one thread.
mod connection_service;

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

// Work for the pool on behalf of a request.
mod page_job;

// Errors as responses (RFC 9457).
pub(crate) mod problem;
