//! The network as a value that is passed in, so that tests need no sockets.
//!
//! Everything before it (guard, lookup, conditions) and after it (deadlines, limits, redirects, statuses) belongs to the
//! visit. A transport never decides where a request goes.

use std::{future::Future, io, net::SocketAddr, pin::Pin};

/// An exchange in progress: completes with the head of the response; the body may follow later.
pub type Exchange = Pin<Box<dyn Future<Output = io::Result<reqwest::Response>> + Send>>;

/// Replaces TCP connections.
pub trait HttpTransport: Send + Sync {
    /// Sends a request to `to`, a checked address, and returns the head of the response. An error means that no connection
    /// was established. It needs no time limit: the visit has deadlines.
    fn exchange(&self, request: reqwest::Request, to: SocketAddr) -> Exchange;
}
