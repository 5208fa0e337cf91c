//! Options of the requests to one source: headers, credentials, user agent, proxy, certificate authorities.
//!
//! Everything that may be a secret is sent to the origin of the source only, also when a redirect returns there from another.
//! `Debug` shows none of it.

use std::fmt;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use news::ProxyChoice;
use sha2::{Digest, Sha256};

use crate::{
    BadPolicy, Policy,
    connection::{ConnectionProfile, HttpClient},
    userinfo::basic,
};

/// Options of the requests to one source. The default adds nothing.
#[derive(Clone, Default)]
pub struct RequestOptions {
    headers: HeaderMap,
    agent: Option<HeaderValue>,
    credential: Option<Credential>,
    pub(crate) profile: ConnectionProfile,
}

#[derive(Clone)]
enum Credential {
    Basic { user: String, password: String },
    Bearer(String),
}

/// Why an option is invalid. It shows no value, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOptions {
    /// Not a header.
    #[error("a header has a name or a value that HTTP does not allow")]
    Header,
    /// Not `user:password`.
    #[error("expected `user:password` on one line")]
    Basic,
    /// Not a token.
    #[error("expected one line of visible ASCII characters")]
    Bearer,
    /// Not a cookie.
    #[error("expected one line such as `name=value; other=value`")]
    Cookie,
    /// Not a user agent.
    #[error("expected a user agent of printable ASCII characters")]
    Agent,
}

impl RequestOptions {
    /// Adds a header.
    ///
    /// # Errors
    /// [`InvalidOptions::Header`].
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, InvalidOptions> {
        let name: HeaderName = name.parse().map_err(|_| InvalidOptions::Header)?;
        self.headers.insert(name, secret(value).ok_or(InvalidOptions::Header)?);
        Ok(self)
    }

    /// Adds a user name and a password (RFC 7617), written `user:password`.
    ///
    /// # Errors
    /// [`InvalidOptions::Basic`].
    pub fn with_basic(mut self, text: &str) -> Result<Self, InvalidOptions> {
        let (user, password) =
            text.split_once(':').filter(|_| !text.contains(char::is_control)).ok_or(InvalidOptions::Basic)?;
        self.credential = Some(Credential::Basic { user: user.to_owned(), password: password.to_owned() });
        Ok(self)
    }

    /// Adds a bearer token (RFC 6750).
    ///
    /// # Errors
    /// [`InvalidOptions::Bearer`].
    pub fn with_bearer(mut self, token: &str) -> Result<Self, InvalidOptions> {
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidOptions::Bearer);
        }
        self.credential = Some(Credential::Bearer(token.to_owned()));
        Ok(self)
    }

    /// Adds cookies, written as in a `Cookie` header. A server cannot replace them; what it sets
    /// with a redirect is sent beside them, for the rest of the visit.
    ///
    /// # Errors
    /// [`InvalidOptions::Cookie`].
    pub fn with_cookie(mut self, cookie: &str) -> Result<Self, InvalidOptions> {
        let value = secret(cookie).filter(|_| cookie.contains('=')).ok_or(InvalidOptions::Cookie)?;
        self.headers.insert(COOKIE, value);
        Ok(self)
    }

    /// Replaces [`crate::Policy::user_agent`].
    ///
    /// # Errors
    /// [`InvalidOptions::Agent`].
    pub fn with_agent(mut self, agent: &str) -> Result<Self, InvalidOptions> {
        let value = HeaderValue::from_str(agent).ok().filter(|value| value.to_str().is_ok());
        self.agent = Some(value.ok_or(InvalidOptions::Agent)?);
        Ok(self)
    }

    /// Uses a proxy, or none, instead of [`crate::Policy::proxy`]. Its address may be private: the guard does not check it.
    /// The proxy also looks up the names, so the guard checks only ports and IP addresses in URLs.
    #[must_use]
    pub fn with_proxy(mut self, proxy: ProxyChoice) -> Self {
        self.profile.proxy = Some(proxy);
        self
    }

    /// Trusts these certificates, in PEM, and no others: what they have signed as authorities, and exactly themselves,
    /// whatever their names and dates are. So a self-signed certificate can be trusted as it is.
    #[must_use]
    pub fn with_authorities(mut self, pem: String) -> Self {
        self.profile.authorities_pem = Some(pem);
        self
    }

    /// Builds the HTTP client that these options need, to check them.
    ///
    /// # Errors
    /// [`BadPolicy`]: every visit would fail this way, for example because the authorities are not in PEM.
    pub fn try_out(&self, policy: &Policy) -> Result<(), BadPolicy> {
        HttpClient::try_new(policy, &self.profile).map(drop)
    }

    /// Whether there is anything that must not be sent to another host.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        self.credential.is_some() || !self.headers.is_empty()
    }

    /// A hash of everything that may change the response; 0 if there is nothing of the kind.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Sha256::new();
        let mut is_plain = true;
        let mut add = |kind: &[u8], parts: [&[u8]; 2]| {
            is_plain = false;
            for part in [kind, parts[0], parts[1]] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        };
        match &self.credential {
            Some(Credential::Basic { user, password }) => {
                add(b"basic", [user.as_bytes(), password.as_bytes()]);
            }
            Some(Credential::Bearer(token)) => add(b"bearer", [token.as_bytes(), b""]),
            None => {}
        }
        for (name, value) in &self.headers {
            add(b"header", [name.as_str().as_bytes(), value.as_bytes()]);
        }
        if let Some(agent) = &self.agent {
            add(b"agent", [agent.as_bytes(), b""]);
        }
        if is_plain {
            return 0;
        }
        news::hash_prefix(&hash.finalize().into())
    }

    /// Adds the user agent to the headers of a request and, if it goes to the origin of the source, the rest.
    pub(crate) fn apply_to(&self, request: &mut HeaderMap, is_same_site: bool) {
        request.extend(self.agent.clone().map(|agent| (USER_AGENT, agent)));
        if !is_same_site {
            return;
        }
        request.extend(self.headers.clone());
        let authorization = match &self.credential {
            Some(Credential::Basic { user, password }) => Some(basic(user.as_bytes(), password.as_bytes())),
            Some(Credential::Bearer(token)) => secret(&format!("Bearer {token}")),
            None => None,
        };
        request.extend(authorization.map(|value| (AUTHORIZATION, value)));
    }
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for RequestOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestOptions")
            .field("headers", &self.headers.len())
            .field("agent", &self.agent)
            .field("credential", &self.credential.is_some())
            .field("proxy", &self.profile.proxy)
            .field("authorities", &self.profile.authorities_pem.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_changes_with_every_secret_and_with_nothing_else() {
        let plain = RequestOptions::default();
        assert_eq!(plain.fingerprint(), 0);
        let proxied = plain.clone().with_proxy(ProxyChoice::parse("http://proxy.example:3128").unwrap());
        assert_eq!(proxied.fingerprint(), 0, "the same response over another connection");
        let all = [
            plain.clone().with_basic("a:b").unwrap(),
            plain.clone().with_basic("a:c").unwrap(),
            plain.clone().with_bearer("a:b").unwrap(),
            plain.clone().with_cookie("a=b").unwrap(),
            plain.clone().with_header("x-a", "b").unwrap(),
            plain.clone().with_agent("a").unwrap(),
        ];
        let prints: std::collections::BTreeSet<_> = all.iter().map(RequestOptions::fingerprint).collect();
        assert_eq!(prints.len(), all.len());
    }

    #[test]
    fn debug_shows_no_secret() {
        let options = RequestOptions::default().with_basic("user:TOPSECRET").unwrap();
        let options = options.with_cookie("a=TOPSECRET").unwrap().with_header("x-key", "TOPSECRET").unwrap();
        let options = options.with_proxy(ProxyChoice::parse("http://u:TOPSECRET@proxy.example").unwrap());
        assert!(!format!("{options:?}").contains("TOPSECRET"), "{options:?}");
    }

    #[test]
    fn invalid_options_are_refused() {
        let options = RequestOptions::default;
        assert!(options().with_basic("no colon").is_err());
        assert!(options().with_basic("a:b\nc").is_err());
        assert!(options().with_bearer("two words").is_err());
        assert!(options().with_cookie("none").is_err());
        assert!(options().with_header("x y", "v").is_err());
        assert!(options().with_header("x", "a\r\nb: c").is_err());
        assert!(options().with_agent("é").is_err());
    }
}
