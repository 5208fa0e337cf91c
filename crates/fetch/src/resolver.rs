//! Resolves a name to addresses that may be connected to, once per hop.
//!
//! The visit looks up the name, checks every address, and connects only to checked ones. There is no second lookup
//! between the check and the connection, so DNS rebinding has no effect.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
};

use tokio::sync::Semaphore;
use url::Host;

use crate::{Failure, FailureClass, Policy, address, limits::Deadline};

/// Maximum number of addresses of one name that are tried; all of them are checked.
const ADDRESSES_MAX: usize = 16;

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

/// The checked addresses of a host, best first: at least one, at most [`ADDRESSES_MAX`].
///
/// # Errors
/// `blocked-address` if any address is not allowed, `dns` if there is none, `timeout` at the deadline.
pub(crate) async fn addresses(
    resolver: &dyn Resolver,
    policy: &Policy,
    host: Host<&str>,
    port: u16,
    deadline: Deadline,
) -> Result<Vec<SocketAddr>, Failure> {
    let blocked = |why: String| Failure::new(FailureClass::BlockedAddress, why);
    let name = match host {
        Host::Ipv4(ip) => return literal(policy, ip.into(), port).map_err(blocked),
        Host::Ipv6(ip) => return literal(policy, ip.into(), port).map_err(blocked),
        Host::Domain(name) => name,
    };
    let found = match tokio::time::timeout_at(deadline.at, resolver.lookup(name)).await {
        Err(_) => return Err(deadline.failure(&format!("looking up {name}"))),
        Ok(Err(e)) => return Err(Failure::new(FailureClass::Dns, format!("could not look up {name}: {e}"))),
        Ok(Ok(found)) => found,
    };
    if found.is_empty() {
        return Err(Failure::new(FailureClass::Dns, format!("{name} has no address")));
    }
    for ip in &found {
        address::check(policy, *ip, port).map_err(|why| blocked(format!("{name} is refused: {why}")))?;
    }
    Ok(found.into_iter().take(ADDRESSES_MAX).map(|ip| SocketAddr::new(ip, port)).collect())
}

/// The addresses of a proxy. The operator configured it, so they may be private.
///
/// # Errors
/// As [`addresses`], but never `blocked-address`.
pub(crate) async fn proxy_addresses(
    resolver: &dyn Resolver,
    policy: &Policy,
    host: Host<&str>,
    port: u16,
    deadline: Deadline,
) -> Result<Vec<SocketAddr>, Failure> {
    let permissive = Policy { allow_private: true, ..policy.clone() };
    addresses(resolver, &permissive, host, port, deadline).await
}

/// Checks the target of a request through a proxy. The proxy looks up and refuses names, except for `localhost`, which
/// would be the proxy itself.
///
/// # Errors
/// `blocked-address`.
pub(crate) fn check_behind_proxy(policy: &Policy, host: &Host<&str>, port: u16) -> Result<(), Failure> {
    let checked = match host {
        Host::Ipv4(ip) => address::check(policy, (*ip).into(), port),
        Host::Ipv6(ip) => address::check(policy, (*ip).into(), port),
        Host::Domain(_) if policy.allow_private => Ok(()),
        Host::Domain(name) if is_local(name) => Err(format!("{name} is the proxy's own machine")),
        Host::Domain(_) if policy.ports.contains(&port) => Ok(()),
        Host::Domain(_) => Err(format!("port {port} is not a web port ({:?})", policy.ports)),
    };
    checked.map_err(|why| Failure::new(FailureClass::BlockedAddress, why))
}

fn is_local(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

fn literal(policy: &Policy, ip: IpAddr, port: u16) -> Result<Vec<SocketAddr>, String> {
    address::check(policy, ip, port)?;
    Ok(vec![SocketAddr::new(ip, port)])
}
