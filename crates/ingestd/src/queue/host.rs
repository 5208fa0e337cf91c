//! What counts as one host for the limiter: the registrable domain of a URL, by the public suffix list.
//!
//! `news.bbc.co.uk` and `www.bbc.co.uk` are one host, two users of `github.io` are two: the private part of the list
//! counts, so that the 429 of one user does not hold the others. Private hosts (loopback, private networks, names
//! without a known suffix) are distinguished by port as well: there each port is a separate service.

use std::{fmt, net::IpAddr, sync::Arc};

use url::{Host as UrlHost, Url};

/// One host. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Host {
    name: Arc<str>,
    is_public: bool,
}

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
            address if fetch::is_public(address) => {
                Self { name: address.to_string().into(), is_public: true }
            }
            IpAddr::V4(address) => Self::private(&address.to_string(), port),
            IpAddr::V6(address) => Self::private(&format!("[{address}]"), port),
        }
    }

    /// The public host with this [`Host::name`].
    pub(crate) fn public(name: &str) -> Self {
        Self { name: name.into(), is_public: true }
    }

    /// Its registrable domain or address; for a private host with the port.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn of_name(name: &str, port: u16) -> Self {
        match psl::domain_str(name).filter(|_| has_known_suffix(name)) {
            Some(domain) => Self { name: domain.into(), is_public: true },
            // A public suffix itself, such as github.io, can be a site too.
            None if has_known_suffix(name) => Self { name: name.into(), is_public: true },
            None => Self::private(name, port),
        }
    }

    fn private(name: &str, port: u16) -> Self {
        Self { name: format!("{name}:{port}").into(), is_public: false }
    }

    /// Whether it is on the public internet.
    pub(crate) fn is_public(&self) -> bool {
        self.is_public
    }
}

fn has_known_suffix(name: &str) -> bool {
    psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known())
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> (String, bool) {
        let host = Host::of(&Url::parse(url).unwrap());
        (host.to_string(), host.is_public())
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
            assert_eq!(host(url), (name.to_owned(), true), "{url}");
        }
    }

    #[test]
    fn ip_addresses_are_hosts_and_private_hosts_keep_their_port() {
        for (url, name, is_public) in [
            ("http://8.8.8.8:8080/", "8.8.8.8", true),
            ("http://[2606:4700::1]/", "2606:4700::1", true),
            ("http://127.0.0.1:9000/", "127.0.0.1:9000", false),
            ("http://[::ffff:127.0.0.1]/", "127.0.0.1:80", false),
            ("http://[::1]:81/", "[::1]:81", false),
            ("http://localhost/", "localhost:80", false),
            ("https://rss.intranet/", "rss.intranet:443", false),
        ] {
            assert_eq!(host(url), (name.to_owned(), is_public), "{url}");
        }
    }
}
