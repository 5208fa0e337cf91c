//! Looks up the addresses of names.

use std::{
    future::Future,
    io,
    net::{IpAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
};

use tokio::sync::Semaphore;
use url::Host;

use crate::{FailedAt, Failure, FailureClass, limits::Deadline};

/// A lookup in progress.
pub type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Looks up names. The visit checks the addresses; the resolver does not.
pub trait Resolver: Send + Sync {
    /// Looks up the addresses of a name, best first. It needs no time limit: the visit has a deadline.
    fn lookup(&self, name: &str) -> Lookup;
}

/// The machine's own resolver (`getaddrinfo`), on threads for blocking work.
pub struct SystemResolver {
    permits: Arc<Semaphore>,
}

impl SystemResolver {
    /// A resolver with a limit on simultaneous lookups.
    #[must_use]
    pub fn new(lookups_in_flight: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(lookups_in_flight.min(Semaphore::MAX_PERMITS))) }
    }
}

impl Resolver for SystemResolver {
    fn lookup(&self, name: &str) -> Lookup {
        let (permits, name) = (Arc::clone(&self.permits), name.to_owned());
        Box::pin(async move {
            let permit = permits.acquire_owned().await.map_err(io::Error::other)?;
            let lookup = tokio::task::spawn_blocking(move || {
                // A visit that has timed out cannot stop libc: the permit is held until the thread ends.
                let _permit = permit;
                #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|a| a.ip()).collect())
            });
            lookup.await.map_err(io::Error::other)?
        })
    }
}

/// The addresses of a host, best first: at least one. Nothing checks them here. Messages have `shown` for its name.
///
/// # Errors
/// `dns` if there is none, `timeout` at the deadline.
pub(crate) async fn lookup(
    resolver: &dyn Resolver,
    host: &Host<&str>,
    shown: &str,
    deadline: Deadline,
) -> Result<Vec<IpAddr>, Failure> {
    let name = match *host {
        Host::Ipv4(ip) => return Ok(vec![ip.into()]),
        Host::Ipv6(ip) => return Ok(vec![ip.into()]),
        Host::Domain(name) => name,
    };
    let found = match tokio::time::timeout_at(deadline.at, resolver.lookup(name)).await {
        Err(_) => return Err(deadline.failure(&format!("looking up {shown}")).at(FailedAt::Lookup)),
        Ok(Err(e)) => return Err(Failure::new(FailureClass::Dns, format!("could not look up {shown}: {e}"))),
        Ok(Ok(found)) => found,
    };
    if found.is_empty() {
        return Err(Failure::new(FailureClass::Dns, format!("{shown} has no address")));
    }
    Ok(found)
}

/// Whether a name always means the machine that looks it up.
pub(crate) fn is_local(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}
