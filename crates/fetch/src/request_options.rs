//! How one source is asked where it differs from the others: its own headers, credentials, agent, proxy, authorities.
//!
//! Everything that may be a secret goes to the place it was meant for only: a redirect to another host loses it.
//! `Debug` shows none of it.

use std::fmt;

use news::FeedUrl;
use reqwest::{
    RequestBuilder,
    header::{COOKIE, HeaderMap, HeaderName, HeaderValue, USER_AGENT},
};
use sha2::{Digest, Sha256};

use crate::policy::{BadPolicy, Policy};

/// How a source is asked. `RequestOptions::default()` is how all the others are.
#[derive(Clone, Default)]
pub struct RequestOptions {
    headers: HeaderMap,
    agent: Option<HeaderValue>,
    credential: Option<Credential>,
    pub(crate) way: Way,
}

/// What decides which HTTP client makes the connection.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) proxy: Option<FeedUrl>,
    pub(crate) authorities_pem: Option<String>,
}

#[derive(Clone)]
enum Credential {
    Basic { user: String, password: String },
    Bearer(String),
}

/// What cannot be sent. It names no value, since that may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOptions {
    /// Not a header.
    #[error("a header has a name or a value that HTTP does not allow")]
    Header,
    /// Not `user:password`.
    #[error("`user:password` on one line is wanted")]
    Basic,
    /// Not a token.
    #[error("one line of visible ASCII characters is wanted")]
    Bearer,
    /// Not a cookie.
    #[error("one line such as `name=value; other=value` is wanted")]
    Cookie,
    /// Not a user agent.
    #[error("a user agent of printable ASCII characters is wanted")]
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

    /// Adds cookies, as they stand in a request. Nothing that the server sets is ever kept.
    ///
    /// # Errors
    /// [`InvalidOptions::Cookie`].
    pub fn with_cookie(mut self, cookie: &str) -> Result<Self, InvalidOptions> {
        let value = secret(cookie).filter(|_| cookie.contains('=')).ok_or(InvalidOptions::Cookie)?;
        self.headers.insert(COOKIE, value);
        Ok(self)
    }

    /// Calls us something else than [`crate::Policy::user_agent`].
    ///
    /// # Errors
    /// [`InvalidOptions::Agent`].
    pub fn with_agent(mut self, agent: &str) -> Result<Self, InvalidOptions> {
        let value = HeaderValue::from_str(agent).ok().filter(|value| value.to_str().is_ok());
        self.agent = Some(value.ok_or(InvalidOptions::Agent)?);
        Ok(self)
    }

    /// Goes through an `http://` proxy, which may be anywhere: it is the one hop that the guard does not judge. It
    /// also looks up the names, so only ports and addresses written as numbers are still judged here.
    #[must_use]
    pub fn with_proxy(mut self, proxy: FeedUrl) -> Self {
        self.way.proxy = Some(proxy);
        self
    }

    /// Trusts these certificate authorities, in PEM, and no others.
    #[must_use]
    pub fn with_authorities(mut self, pem: String) -> Self {
        self.way.authorities_pem = Some(pem);
        self
    }

    /// Makes the HTTP client that this way of asking needs, as a visit would, and lets it go.
    ///
    /// # Errors
    /// [`BadPolicy`]: every visit would fail so, for example because the authorities are not in PEM.
    pub fn try_out(&self, policy: &Policy) -> Result<(), BadPolicy> {
        crate::exchange::client(policy, &self.way).map(drop)
    }

    /// Whether there is anything that must not reach another host.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        self.credential.is_some() || !self.headers.is_empty()
    }

    pub(crate) fn has_credential(&self) -> bool {
        self.credential.is_some()
    }

    /// A number that changes when anything does that may change the answer; 0 when there is nothing of the kind.
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
        hash.finalize().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }

    /// Puts the agent on a request, and the rest where it belongs.
    pub(crate) fn dress(&self, mut question: RequestBuilder, belongs: bool) -> RequestBuilder {
        if let Some(agent) = &self.agent {
            question = question.header(USER_AGENT, agent);
        }
        if !belongs {
            return question;
        }
        question = question.headers(self.headers.clone());
        match &self.credential {
            Some(Credential::Basic { user, password }) => question.basic_auth(user, Some(password)),
            Some(Credential::Bearer(token)) => question.bearer_auth(token),
            None => question,
        }
    }
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for RequestOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manner")
            .field("headers", &self.headers.len())
            .field("agent", &self.agent)
            .field("credential", &self.credential.is_some())
            .field("proxy", &self.way.proxy)
            .field("authorities", &self.way.authorities_pem.is_some())
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
        let proxied = plain.clone().with_proxy(FeedUrl::try_new("http://proxy.example:3128").unwrap());
        assert_eq!(proxied.fingerprint(), 0, "another way to the same answer");
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
    fn nothing_secret_is_shown() {
        let manner = RequestOptions::default().with_basic("user:TOPSECRET").unwrap();
        let manner = manner.with_cookie("a=TOPSECRET").unwrap().with_header("x-key", "TOPSECRET").unwrap();
        let manner = manner.with_proxy(FeedUrl::try_new("http://u:TOPSECRET@proxy.example").unwrap());
        assert!(!format!("{manner:?}").contains("TOPSECRET"), "{manner:?}");
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let manner = RequestOptions::default;
        assert!(manner().with_basic("no colon").is_err());
        assert!(manner().with_basic("a:b\nc").is_err());
        assert!(manner().with_bearer("two words").is_err());
        assert!(manner().with_cookie("none").is_err());
        assert!(manner().with_header("x y", "v").is_err());
        assert!(manner().with_header("x", "a\r\nb: c").is_err());
        assert!(manner().with_agent("é").is_err());
    }
}
