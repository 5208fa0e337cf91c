//! The rules of a visit: deadlines, caps, and whom we may talk to.

use std::time::Duration;

use crate::Cidr;

/// The rules of every visit. `Policy::default()` has the documented defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Longest time to look up the name, connect and shake hands, for each hop. 10 s.
    pub timeout_connect: Duration,
    /// Longest time from the connection to the end of the answer's head, for each hop. 10 s.
    pub timeout_head: Duration,
    /// Longest time for the whole visit, redirects and retry included; no drip outlives it. 30 s.
    pub timeout_total: Duration,
    /// Longest body, in bytes after decoding; a request may ask for another. 10 MiB.
    pub body_bytes_max: usize,
    /// Most redirects that are followed. 5.
    pub hops_max: usize,
    /// Slowest average of a body, in decoded bytes a second, once [`Policy::rate_grace`] is over. 1 KiB/s.
    pub rate_bytes_min: u32,
    /// How long a body may be slower than [`Policy::rate_bytes_min`]. 5 s.
    pub rate_grace: Duration,
    /// Mean pause before the one retry after a failed connection; the real one is between half and one and a
    /// half times as long. 500 ms.
    pub retry_pause: Duration,
    /// Ports that are dialled at any public address; other ports only at addresses in [`Policy::allow`], because
    /// a feed's address must not become a message to a mail server. 80, 443, 8080, 8443.
    pub ports: Vec<u16>,
    /// Addresses that may be dialled although they are not public, at any port. None.
    pub allow: Vec<Cidr>,
    /// Every address and port may be dialled: for development. False.
    pub allow_private: bool,
    /// Certificate authorities that are trusted besides the machine's own, in PEM. None.
    pub authorities_pem: Option<String>,
    /// Most name lookups at once; each holds a thread until libc gives up. 64.
    pub lookups_in_flight: usize,
    /// What we call ourselves. `newswire/VERSION`.
    pub user_agent: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout_connect: Duration::from_secs(10),
            timeout_head: Duration::from_secs(10),
            timeout_total: Duration::from_secs(30),
            body_bytes_max: 10 * 1024 * 1024,
            hops_max: 5,
            rate_bytes_min: 1024,
            rate_grace: Duration::from_secs(5),
            retry_pause: Duration::from_millis(500),
            ports: vec![80, 443, 8080, 8443],
            allow: Vec::new(),
            allow_private: false,
            authorities_pem: None,
            lookups_in_flight: 64,
            user_agent: concat!("newswire/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Why no visits can be made under a policy.
#[derive(Debug, thiserror::Error)]
pub enum BadPolicy {
    /// The user agent cannot stand in a header.
    #[error("the user agent {0:?} cannot stand in an HTTP header; use printable ASCII characters")]
    UserAgent(String),
    /// A limit is zero, so that no visit could ever succeed.
    #[error("{0} is zero, so that no visit could succeed; give it a positive value")]
    Zero(&'static str),
    /// The additional certificate authorities cannot be read.
    #[error("the additional certificate authorities are not in PEM")]
    Authorities(#[source] reqwest::Error),
    /// There is no certificate among them.
    #[error("there is no certificate among the additional certificate authorities; give them in PEM")]
    NoAuthority,
    /// The HTTP client refused its settings.
    #[error("could not set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl Policy {
    /// Finds the setting under which nothing could work.
    ///
    /// # Errors
    /// [`BadPolicy::Zero`] naming it.
    pub(crate) fn check(&self) -> Result<(), BadPolicy> {
        let limits = [
            ("timeout_connect", self.timeout_connect.is_zero()),
            ("timeout_head", self.timeout_head.is_zero()),
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
