//! Which addresses a visit may connect to, hop by hop: public ones, and those of [`Policy::allow`] as long as the visit
//! begins there and never leaves.
//!
//! The addresses of a name are looked up and checked once per hop, and only checked ones are connected to. There is no
//! second lookup between the check and the connection, so DNS rebinding has no effect.

use std::net::{IpAddr, SocketAddr};

use news::{FeedUrl, ProxyUrl};
use url::Host;

use crate::{
    Failure, FailureClass, Policy, Resolver, address,
    limits::Deadline,
    resolver::{is_local, lookup},
};

/// Maximum number of addresses of one name that are tried; all of them are checked.
const ADDRESSES_MAX: usize = 16;

/// Whether [`Policy::allow`] counts for a request.
#[derive(Clone, Copy, Debug)]
pub enum AddressScope<'a> {
    /// It counts if this address, which the operator configured, lies in it, and so did every redirect since.
    Configured(&'a FeedUrl),
    /// It does not count, because a feed or a page has named the address: a hub, a feed that a page links to.
    Named,
}

/// The guard of one visit.
pub(crate) struct AddressGuard<'a> {
    scope: AddressScope<'a>,
    is_proxied: bool,
    /// All addresses so far lie in [`Policy::allow`].
    is_inside: bool,
}

impl<'a> AddressGuard<'a> {
    /// A guard for a visit that connects to its hosts, or to a proxy.
    pub(crate) fn new(scope: AddressScope<'a>, is_proxied: bool) -> Self {
        Self { scope, is_proxied, is_inside: true }
    }

    /// The checked addresses of the host of the next hop, best first: at least one, at most [`ADDRESSES_MAX`].
    ///
    /// # Errors
    /// `blocked-address` if any address is not allowed, `dns` if there is none, `timeout` at the deadline.
    pub(crate) async fn addresses(
        &mut self,
        resolver: &dyn Resolver,
        policy: &Policy,
        host: Host<&str>,
        port: u16,
        deadline: Deadline,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let found = lookup(resolver, &host, &host.to_string(), deadline).await?;
        self.check(resolver, policy, &host, port, &found, deadline).await?;
        Ok(endpoints(&found, port))
    }

    /// Checks the host of the next hop, to which a proxy connects. The proxy looks up and refuses names, except for
    /// `localhost`, which would be the proxy itself.
    ///
    /// # Errors
    /// `blocked-address`.
    pub(crate) async fn check_behind_proxy(
        &mut self,
        resolver: &dyn Resolver,
        policy: &Policy,
        host: Host<&str>,
        port: u16,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let name = match host {
            Host::Ipv4(ip) => return self.check(resolver, policy, &host, port, &[ip.into()], deadline).await,
            Host::Ipv6(ip) => return self.check(resolver, policy, &host, port, &[ip.into()], deadline).await,
            Host::Domain(name) => name,
        };
        // Where the name leads is not known here.
        self.is_inside = false;
        let refused = match name {
            _ if policy.allow_private => return Ok(()),
            _ if is_local(name) => format!("{name} is the proxy's own machine"),
            _ => match address::check_port(policy, port) {
                Ok(()) => return Ok(()),
                Err(refused) => refused.to_string(),
            },
        };
        Err(Failure::new(FailureClass::BlockedAddress, refused))
    }

    async fn check(
        &mut self,
        resolver: &dyn Resolver,
        policy: &Policy,
        host: &Host<&str>,
        port: u16,
        found: &[IpAddr],
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let is_home = self.is_inside && self.home().as_ref() == Some(host);
        self.is_inside &= is_allowed(policy, found);
        let Some(refused) = found.iter().find_map(|ip| address::check_named(policy, *ip, port).err()) else {
            return Ok(());
        };
        let refused = if is_home {
            found.iter().find_map(|ip| address::check(policy, *ip, port).err())
        } else if self.is_inside && self.home_is_inside(resolver, policy, deadline).await? {
            None
        } else {
            Some(refused)
        };
        match (refused, host) {
            (None, _) => Ok(()),
            (Some(why), Host::Domain(name)) => {
                Err(Failure::new(FailureClass::BlockedAddress, format!("{name} is refused: {why}")))
            }
            (Some(why), _) => Err(Failure::new(FailureClass::BlockedAddress, why)),
        }
    }

    /// The host of the configured address.
    fn home(&self) -> Option<Host<&'a str>> {
        match self.scope {
            AddressScope::Configured(url) => url.secret().host(),
            AddressScope::Named => None,
        }
    }

    /// Whether all addresses of the configured host are allowed.
    async fn home_is_inside(
        &self,
        resolver: &dyn Resolver,
        policy: &Policy,
        deadline: Deadline,
    ) -> Result<bool, Failure> {
        match self.home() {
            None => Ok(false),
            Some(Host::Domain(_)) if self.is_proxied => Ok(false),
            Some(host) => {
                Ok(is_allowed(policy, &lookup(resolver, &host, &host.to_string(), deadline).await?))
            }
        }
    }
}

/// The addresses of a proxy. The operator configured it, so they may be private.
///
/// # Errors
/// `dns`, `timeout`.
pub(crate) async fn proxy_addresses(
    resolver: &dyn Resolver,
    proxy: &ProxyUrl,
    deadline: Deadline,
) -> Result<Vec<SocketAddr>, Failure> {
    let host = proxy.host();
    let host = match &host {
        Host::Domain(name) => Host::Domain(name.as_str()),
        Host::Ipv4(ip) => Host::Ipv4(*ip),
        Host::Ipv6(ip) => Host::Ipv6(*ip),
    };
    let found = lookup(resolver, &host, &format!("the proxy {proxy}"), deadline).await?;
    Ok(endpoints(&found, proxy.port()))
}

/// Whether all of these addresses lie in [`Policy::allow`]. A network of everything has no inside.
pub(crate) fn is_allowed(policy: &Policy, found: &[IpAddr]) -> bool {
    let has = |ip: &IpAddr| policy.allow.iter().any(|net| !net.is_everything() && net.contains(*ip));
    found.iter().all(has)
}

fn endpoints(found: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    found.iter().take(ADDRESSES_MAX).map(|ip| SocketAddr::new(*ip, port)).collect()
}
