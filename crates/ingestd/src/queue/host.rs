//! What counts as one host for the limiter: the registrable domain of a URL, by the public suffix list.
//!
//! `news.bbc.co.uk` and `www.bbc.co.uk` are one host, two users of `github.io` are two: the private part of the list
//! counts, so that the 429 of one user does not hold the others. Private hosts (loopback, private networks, names
//! without a known suffix) are distinguished by port as well: there each port is a separate service, and a pause that one
//! of them asks for concerns no other.

use std::{fmt, net::IpAddr, sync::Arc};

use url::{Host as UrlHost, Url};

/// One host. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Host(Arc<str>);

impl Host {
    /// The host of a URL.
    pub(crate) fn of(url: &Url) -> Self {
        let port = url.port_or_known_default().unwrap_or_default();
        let address = match url.host() {
            Some(UrlHost::Ipv4(address)) => IpAddr::V4(address),
            Some(UrlHost::Ipv6(address)) => IpAddr::V6(address).to_canonical(),
            Some(UrlHost::Domain(name)) => return Self::of_name(name.trim_end_matches('.'), port),
            None => return Self::private("", port),
        };
        match address {
            address if fetch::is_public(address) => Self::named(&address.to_string()),
            IpAddr::V4(address) => Self::private(&address.to_string(), port),
            IpAddr::V6(address) => Self::private(&format!("[{address}]"), port),
        }
    }

    /// The host with this [`Host::name`].
    pub(crate) fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// Its registrable domain or address; for a private host with the port.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    fn of_name(name: &str, port: u16) -> Self {
        match psl::domain_str(name).filter(|_| has_known_suffix(name)) {
            Some(domain) => Self::named(domain),
            // A public suffix itself, such as github.io, can be a site too.
            None if has_known_suffix(name) => Self::named(name),
            None => Self::private(name, port),
        }
    }

    fn private(name: &str, port: u16) -> Self {
        Self(format!("{name}:{port}").into())
    }
}

fn has_known_suffix(name: &str) -> bool {
    psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> String {
        let host = Host::of(&Url::parse(url).unwrap());
        assert_eq!(Host::named(host.name()), host, "its name is all that is stored of it");
        host.to_string()
    }

    #[test]
    fn names_of_one_registrable_domain_are_one_host() {
        for (url, name) in [
            ("https://news.bbc.co.uk/a", "bbc.co.uk"),
            ("http://BBC.co.uk.:8080/b", "bbc.co.uk"),
            ("https://example.org/feed", "example.org"),
            ("https://one.github.io/", "one.github.io"),
            ("https://feeds.two.github.io/", "two.github.io"),
            ("https://github.io/", "github.io"),
            ("https://www.食狮.公司.cn/", "xn--85x722f.xn--55qx5d.cn"),
        ] {
            assert_eq!(host(url), name, "{url}");
        }
    }

    #[test]
    fn ip_addresses_are_hosts_and_private_hosts_keep_their_port() {
        for (url, name) in [
            ("http://8.8.8.8:8080/", "8.8.8.8"),
            ("http://[2606:4700::1]/", "2606:4700::1"),
            ("http://127.0.0.1:9000/", "127.0.0.1:9000"),
            ("http://[::ffff:127.0.0.1]/", "127.0.0.1:80"),
            ("http://[::1]:81/", "[::1]:81"),
            ("http://localhost/", "localhost:80"),
            ("https://rss.intranet/", "rss.intranet:443"),
        ] {
            assert_eq!(host(url), name, "{url}");
        }
    }
}
