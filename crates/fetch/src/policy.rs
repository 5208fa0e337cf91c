//! The rules of all visits: time limits, size limits, and allowed addresses.

use std::time::Duration;

use news::ProxyUrl;

use crate::Cidr;

/// The rules of every visit. `Policy::default()` has the documented defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Time limit for looking up the name and connecting, TLS included, per hop. 10 s.
    pub timeout_connect: Duration,
    /// Time limit from the connection to the end of the response head, per hop, and from there to the first byte of the
    /// body. A request may override it. 10 s.
    pub timeout_first_byte: Duration,
    /// Time limit for the whole visit, including redirects and the retry. 30 s.
    pub timeout_total: Duration,
    /// Largest body, in bytes after decoding; a request may override it. 10 MiB.
    pub body_bytes_max: usize,
    /// Maximum number of redirects that are followed. 5.
    pub hops_max: usize,
    /// Slowest average rate of a body, in decoded bytes per second, after [`Policy::rate_grace`]. 1 KiB/s.
    pub rate_bytes_min: u32,
    /// For how long a body may be slower than [`Policy::rate_bytes_min`]. 5 s.
    pub rate_grace: Duration,
    /// Slowest rate of a large body while other visits wait for its memory ([`crate::ByteBudget::is_wanted`]), in bytes per
    /// second as sent, in each period of [`Policy::RATE_PERIOD`]. 16 KiB/s.
    pub rate_bytes_wanted: u32,
    /// Mean delay before the one retry after a failed connection; the actual delay is 0.5 to 1.5 times as long. 500 ms.
    pub retry_pause: Duration,
    /// Ports that are allowed at any public address; other ports only at addresses in [`Policy::allow`], so that a feed
    /// cannot make us talk to a mail server. 80, 443.
    pub ports: Vec<u16>,
    /// Networks that are allowed although they are not public, at any port. They count for a source whose configured address
    /// lies in them, and for its redirects as long as they stay inside: see [`crate::AddressScope`]. A network of everything
    /// (prefix 0) counts everywhere. None.
    pub allow: Vec<Cidr>,
    /// The proxy for everything that is requested, unless a source has another choice. None.
    pub proxy: Option<ProxyUrl>,
    /// Every address and port is allowed, for development. False.
    pub allow_private: bool,
    /// Certificate authorities that are trusted in addition to those of the machine, in PEM. None.
    pub authorities_pem: Option<String>,
    /// Maximum number of simultaneous name lookups; each holds a thread until libc returns. 64.
    pub lookups_in_flight: usize,
    /// `User-Agent`. `newswire/VERSION`.
    pub user_agent: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout_connect: Duration::from_secs(10),
            timeout_first_byte: Duration::from_secs(10),
            timeout_total: Duration::from_secs(30),
            body_bytes_max: 10 * 1024 * 1024,
            hops_max: 5,
            rate_bytes_min: 1024,
            rate_grace: Duration::from_secs(5),
            rate_bytes_wanted: 16 * 1024,
            retry_pause: Duration::from_millis(500),
            ports: vec![80, 443],
            allow: Vec::new(),
            proxy: None,
            allow_private: false,
            authorities_pem: None,
            lookups_in_flight: 64,
            user_agent: concat!("newswire/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Why no visit can be made under a policy.
#[derive(Debug, thiserror::Error)]
pub enum BadPolicy {
    /// The user agent is not a valid header value.
    #[error("the user agent {0:?} is not a valid HTTP header value; use printable ASCII characters")]
    UserAgent(String),
    /// A limit is zero, so that no visit can succeed.
    #[error("{0} is zero, so that no visit can succeed; set a positive value")]
    Zero(&'static str),
    /// The additional certificate authorities cannot be read.
    #[error("the additional certificate authorities are not in PEM")]
    Authorities(#[source] rustls::pki_types::pem::Error),
    /// They contain no certificate.
    #[error("the additional certificate authorities contain no certificate; write them in PEM")]
    NoAuthority,
    /// TLS refused its settings, such as an additional certificate authority that is no certificate.
    #[error("could not set up TLS with these certificate authorities")]
    Tls(#[source] rustls::Error),
    /// The address of a proxy is none for HTTP.
    #[error("the address of the proxy is invalid")]
    Proxy(#[source] http::uri::InvalidUri),
}

impl Policy {
    /// The periods of [`Policy::rate_bytes_wanted`].
    pub const RATE_PERIOD: Duration = Duration::from_secs(2);

    /// Checks that no limit is zero.
    ///
    /// # Errors
    /// [`BadPolicy::Zero`] with the name of the limit.
    pub(crate) fn check(&self) -> Result<(), BadPolicy> {
        let limits = [
            ("timeout_connect", self.timeout_connect.is_zero()),
            ("timeout_first_byte", self.timeout_first_byte.is_zero()),
            ("timeout_total", self.timeout_total.is_zero()),
            ("body_bytes_max", self.body_bytes_max == 0),
            ("lookups_in_flight", self.lookups_in_flight == 0),
        ];
        match limits.into_iter().find(|(_, zero)| *zero) {
            Some((name, _)) => Err(BadPolicy::Zero(name)),
            None => Ok(()),
        }
    }
}
