//! The network as a value that is handed in, so that a test can be the whole world without a socket.
//!
//! Everything before it (guard, lookup, conditions) and after it (deadlines, caps, redirects, what the head means) is
//! the visit's own. A transport only carries: it never decides whom to ask.

use std::{future::Future, io, net::SocketAddr, pin::Pin};

/// An exchange under way: ends with the head of the answer, whose body may still be coming.
pub type Exchange = Pin<Box<dyn Future<Output = io::Result<reqwest::Response>> + Send>>;

/// Carries exchanges out instead of connections over TCP.
pub trait HttpTransport: Send + Sync {
    /// Asks `to`, which was checked, and gives the head of its answer. An error means that no connection came about.
    /// May take as long as it likes: the visit has deadlines.
    fn exchange(&self, request: reqwest::Request, to: SocketAddr) -> Exchange;
}
