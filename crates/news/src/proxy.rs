//! Proxies for the requests to sources.

use std::{fmt, sync::Arc};

use url::{Host, Url};

/// The address of a proxy: `http`, `https`, `socks5` or `socks5h`, with a host. Shown without user name and password.
/// Clones share it.
///
/// `socks5` is the same as `socks5h`: the proxy looks up names, so that no name that a feed chooses is looked up here.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ProxyUrl(Arc<Url>);

/// Why a text is not the address of a proxy. It does not repeat the text, which may have a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an http://, https://, socks5:// or socks5h:// address without path or query, such as \
     `http://proxy.example:3128`"
)]
pub struct BadProxyUrl;

impl ProxyUrl {
    /// Longest address, in bytes.
    pub const LENGTH_MAX: usize = 2048;
    /// Longest user name, and longest password, in bytes as written: those of SOCKS5 (RFC 1929).
    const CREDENTIAL_BYTES_MAX: usize = 255;
    /// The port of SOCKS (RFC 1928).
    const SOCKS_PORT: u16 = 1080;

    /// Checks an address.
    ///
    /// # Errors
    /// [`BadProxyUrl`].
    pub fn try_new(text: &str) -> Result<Self, BadProxyUrl> {
        if text.len() > Self::LENGTH_MAX {
            return Err(BadProxyUrl);
        }
        let mut url = Url::parse(text.trim()).map_err(|_| BadProxyUrl)?;
        let is_known = matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h");
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let fits = |text: &str| text.len() <= Self::CREDENTIAL_BYTES_MAX;
        if !is_known || !is_bare || !fits(url.username()) || !url.password().is_none_or(fits) {
            return Err(BadProxyUrl);
        }
        // The host of an unknown scheme is not looked at by `url`.
        let host = Host::parse(url.host_str().unwrap_or_default()).map_err(|_| BadProxyUrl)?;
        url.set_host(Some(&host.to_string())).map_err(|_| BadProxyUrl)?;
        Ok(Self(Arc::new(url)))
    }

    /// The complete address with secrets: for connections and for the list of sources, never for people.
    #[must_use]
    pub fn secret(&self) -> &Url {
        &self.0
    }

    /// Whether it speaks SOCKS, not HTTP.
    #[must_use]
    pub fn is_socks(&self) -> bool {
        self.0.scheme().starts_with("socks")
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> Host {
        Host::parse(self.0.host_str().unwrap_or_default()).expect("it was parsed before")
    }

    /// The port; 80, 443 or 1080 unless it is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(Self::SOCKS_PORT)
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_credentials = !self.0.username().is_empty() || self.0.password().is_some();
        let hidden = if has_credentials { "…@" } else { "" };
        write!(f, "{}://{hidden}{}:{}", self.0.scheme(), self.host(), self.port())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The proxy of a source that does not use `fetch.proxy`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProxyChoice {
    /// No proxy, written `direct`.
    Direct,
    /// A proxy of its own.
    Via(ProxyUrl),
}

impl ProxyChoice {
    /// What stands for [`ProxyChoice::Direct`].
    const DIRECT: &str = "direct";

    /// Reads a choice as it is written in the list of sources.
    ///
    /// # Errors
    /// [`BadProxyUrl`] if it is neither `direct` nor an address.
    pub fn parse(text: &str) -> Result<Self, BadProxyUrl> {
        if text.trim() == Self::DIRECT { Ok(Self::Direct) } else { ProxyUrl::try_new(text).map(Self::Via) }
    }

    /// The proxy.
    #[must_use]
    pub fn proxy(&self) -> Option<&ProxyUrl> {
        match self {
            Self::Direct => None,
            Self::Via(proxy) => Some(proxy),
        }
    }

    /// The choice as it is written in the list of sources, with its secrets.
    #[must_use]
    pub fn secret(&self) -> &str {
        self.proxy().map_or(Self::DIRECT, |proxy| proxy.secret().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_shown_without_its_secrets() {
        for (text, shown, port) in [
            ("http://proxy.example", "http://proxy.example:80", 80),
            ("HTTP://user:TOPSECRET@Proxy.example:3128/", "http://…@proxy.example:3128", 3128),
            ("https://TOPSECRET@proxy.example", "https://…@proxy.example:443", 443),
            ("socks5://:TOPSECRET@127.1", "socks5://…@127.0.0.1:1080", 1080),
            ("socks5h://user:TOPSECRET@[::1]:80", "socks5h://…@[::1]:80", 80),
            ("socks5h://Tor.Example:9050/", "socks5h://tor.example:9050", 9050),
        ] {
            let proxy = ProxyUrl::try_new(text).unwrap();
            assert_eq!((proxy.to_string().as_str(), proxy.port()), (shown, port));
            assert_eq!(format!("{proxy:?}"), shown);
            assert_eq!(ProxyUrl::try_new(proxy.secret().as_str()), Ok(proxy), "{shown}");
        }
        let proxy = ProxyUrl::try_new("socks5://127.1").unwrap();
        assert_eq!(proxy.host(), Host::<String>::Ipv4([127, 0, 0, 1].into()));
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_repeating_it() {
        let long = format!("socks5://{}:b@h", "a".repeat(256));
        for text in [
            "",
            "direct",
            "proxy.example:3128",
            "ftp://proxy.example",
            "socks4://proxy.example",
            "socks://proxy.example",
            "http://",
            "socks5://",
            "socks5://a b",
            "http://proxy.example/TOPSECRET",
            "socks5://proxy.example/TOPSECRET",
            "http://proxy.example?TOPSECRET",
            "socks5://proxy.example#TOPSECRET",
            "socks5://user:TOPSECRET@proxy.example:99999",
            &long,
        ] {
            let refused = ProxyUrl::try_new(text).unwrap_err();
            assert!(!format!("{refused} {refused:?}").contains("TOPSECRET"), "{text}");
        }
    }

    #[test]
    fn a_choice_reads_back_as_written() {
        for text in ["direct", "socks5://user:pass@proxy.example:1080", "http://proxy.example:3128/"] {
            let choice = ProxyChoice::parse(text).unwrap();
            assert_eq!((choice.secret(), choice.proxy().is_none()), (text, text == "direct"));
        }
        assert_eq!(ProxyChoice::parse("Direct"), Err(BadProxyUrl));
    }
}
