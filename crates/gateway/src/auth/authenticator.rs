//! Authorises readers. Without configured tokens every client may read everything; with them, a reader sees the
//! categories of its token and the public ones, and the rest behaves as if it did not exist.
//!
//! ```text
//! Authorization: Bearer ─┐  known static token ──┐
//!                        ├► else a JWT ──────────┼─► AuthorisedReader { scope, expires } ─► AND of every filter
//! Cookie: newswire_read ─┘  no token: the public ┘
//! ```
//!
//! An invalid token is refused, even where something is public: a reader whose token has expired must get an error,
//! not silently fewer items.

use std::{collections::BTreeSet, sync::Arc};

use actix_web::http::header::HeaderMap;
use control::CredentialChanges;
use daemon::config;
use news::Timestamp;
use notation::Complaints;

use super::{
    bearer::{PresentedToken, TOKEN_BYTES_MAX, TokenHash},
    credential_changes::difference,
    error::AuthError,
    files::AuthFile,
    jwt::{ClaimRules, JwtKeys, has_jwt_form},
    scope::CategoryScope,
    static_tokens::StaticTokens,
    token_grant::TokenGrant,
};

/// The cookie of clients that cannot set headers, such as the `EventSource` of a page. The gateway reads it and never
/// sets it.
const COOKIE: &str = "newswire_read";

/// The keys of the configuration that name the files.
const TOKENS_KEY: &str = "gateway.read_tokens_file";
const JWKS_KEY: &str = "gateway.jwks_file";

/// Everything that is wrong with the files of tokens and keys, one complaint per line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthFileErrors(Complaints);

/// Authorises readers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Authenticator(Option<Arc<AuthRules>>);

#[derive(Debug)]
struct AuthRules {
    /// `None` without `gateway.read_tokens_file`.
    tokens: Option<StaticTokens>,
    keys: Option<JwtKeys>,
    /// What a client may read without a token, if anything.
    public: Option<Arc<CategoryScope>>,
}

/// A client that may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthorisedReader {
    /// What it may read; `None` for everything.
    pub(crate) scope: Option<Arc<CategoryScope>>,
    /// When its token expires.
    pub(crate) expires: Option<Timestamp>,
    /// Of its static token, or of the keys that verified its JWT.
    credential_hash: u64,
    /// How it was authorised; `None` if no tokens are configured.
    pub(crate) method: Option<AuthMethod>,
}

/// How a reader was authorised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthMethod {
    /// Without a token, for the public categories.
    Public,
    StaticToken,
    Jwt,
}

impl AuthMethod {
    /// The label of the metric.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::StaticToken => "static",
            Self::Jwt => "jwt",
        }
    }
}

impl AuthorisedReader {
    pub(crate) fn may_see(&self, category: &str) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.allows(category))
    }
}

impl Authenticator {
    /// Reads the files that the configuration names; without any, every client may read everything.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn load(gateway: &config::GatewaySection) -> Result<Self, AuthFileErrors> {
        let public = &gateway.public_categories;
        let tokens = gateway.read_tokens_file.as_deref();
        let tokens = tokens.map(|path| StaticTokens::load(AuthFile { key: TOKENS_KEY, path }, public));
        let keys = gateway.jwks_file.as_deref().map(|path| {
            let claims = ClaimRules {
                issuer: gateway.jwt_issuer.clone(),
                audience: gateway.jwt_audience.clone(),
                categories: gateway.jwt_categories_claim.clone(),
                public: public.clone(),
            };
            JwtKeys::load(AuthFile { key: JWKS_KEY, path }, claims)
        });
        if tokens.is_none() && keys.is_none() {
            return Ok(Self(None));
        }
        match (tokens.transpose(), keys.transpose()) {
            (Ok(tokens), Ok(keys)) => {
                let scope = || Arc::new(CategoryScope::new(public.iter().map(String::as_str)));
                let public = (!public.is_empty()).then(scope);
                Ok(Self(Some(Arc::new(AuthRules { tokens, keys, public }))))
            }
            (tokens, keys) => {
                let errors = [tokens.err(), keys.err()];
                Err(AuthFileErrors(errors.into_iter().flatten().flatten().collect()))
            }
        }
    }

    /// The categories that `gateway.public_categories` and the static tokens name, in lower case.
    pub(crate) fn granted_categories(&self) -> BTreeSet<&str> {
        let Some(rules) = &self.0 else { return BTreeSet::new() };
        let scopes =
            rules.public.as_deref().into_iter().chain(rules.tokens.iter().flat_map(StaticTokens::scopes));
        scopes.flat_map(CategoryScope::categories).collect()
    }

    /// What differs from earlier files of tokens and keys.
    pub(crate) fn changes_since(&self, old: &Self) -> Vec<CredentialChanges> {
        let tokens = |all: &Self| {
            let tokens = all.0.as_ref().and_then(|rules| rules.tokens.as_ref());
            tokens.map(StaticTokens::grants).unwrap_or_default()
        };
        let keys = |all: &Self| {
            let keys = all.0.as_ref().and_then(|rules| rules.keys.as_ref());
            keys.map(JwtKeys::key_hashes).unwrap_or_default()
        };
        let tokens = difference(TOKENS_KEY, &tokens(old), &tokens(self));
        tokens.into_iter().chain(difference(JWKS_KEY, &keys(old), &keys(self))).collect()
    }

    /// Whether responses depend on the client's token.
    pub(crate) fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a reader that was authorised before would be authorised now, for the same categories. A reader with a JWT would
    /// have to present it again if the keys or the rules for claims have changed.
    pub(crate) fn still_authorised(&self, reader: &AuthorisedReader) -> bool {
        let Some(rules) = &self.0 else { return true };
        match reader.method {
            None => false,
            Some(AuthMethod::StaticToken) => rules.tokens.as_ref().is_some_and(|tokens| {
                tokens.still_grant(reader.credential_hash, reader.scope.as_ref(), reader.expires)
            }),
            Some(AuthMethod::Jwt) => {
                rules.keys.as_ref().is_some_and(|keys| keys.config_hash() == reader.credential_hash)
            }
            Some(AuthMethod::Public) => rules.public == reader.scope,
        }
    }

    /// Authorises a reader by its headers. A header counts before a cookie, which a browser sends unasked.
    ///
    /// # Errors
    /// Why it is not authorised.
    pub(crate) fn authorise(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<AuthorisedReader, AuthError> {
        let Some(rules) = &self.0 else {
            return Ok(AuthorisedReader { scope: None, expires: None, credential_hash: 0, method: None });
        };
        let presented = match PresentedToken::from_authorization(headers) {
            PresentedToken::Missing => PresentedToken::from_cookie(headers, COOKIE),
            presented => presented,
        };
        match presented {
            PresentedToken::Missing => {
                let scope = Some(rules.public.clone().ok_or(AuthError::Missing)?);
                let method = Some(AuthMethod::Public);
                Ok(AuthorisedReader { scope, expires: None, credential_hash: 0, method })
            }
            PresentedToken::Several => Err(AuthError::Several),
            PresentedToken::One(token) if token.len() > TOKEN_BYTES_MAX => Err(AuthError::TooLong),
            PresentedToken::One(token) => rules.verify(token, now),
        }
    }
}

impl AuthRules {
    fn verify(&self, token: &[u8], now: Timestamp) -> Result<AuthorisedReader, AuthError> {
        let listed = self.tokens.as_ref().and_then(|tokens| tokens.find(token, now));
        let (method, credential_hash, grant) = match (listed, &self.keys) {
            (Some(grant), _) => (AuthMethod::StaticToken, TokenHash::of(token).prefix(), grant?),
            // Its reader meant a static token, and must not look for a mistake in its form.
            (None, Some(_)) if self.tokens.is_some() && !has_jwt_form(token) => {
                return Err(AuthError::Unknown);
            }
            (None, Some(keys)) => (AuthMethod::Jwt, keys.config_hash(), keys.verify(token, now)?),
            (None, None) => return Err(AuthError::Unknown),
        };
        let TokenGrant { scope, expires } = grant;
        Ok(AuthorisedReader { scope, expires, credential_hash, method: Some(method) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_stays_authorised_while_its_token_grants_the_same() {
        use actix_web::http::header::{AUTHORIZATION, HeaderValue};
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens.toml");
        let gateway = config::GatewaySection {
            read_tokens_file: Some(file.clone()),
            ..config::GatewaySection::default()
        };
        let load = |tokens: &[(&str, &str)]| {
            let entry = |(name, categories): &(&str, &str)| {
                format!(
                    "[[token]]\nname = \"{name}\"\ntoken = \"{name}-token-0123456789\"\ncategories = {categories}\n"
                )
            };
            std::fs::write(&file, tokens.iter().map(entry).collect::<String>()).unwrap();
            Authenticator::load(&gateway).unwrap()
        };
        let before = load(&[("desk", "[\"sport\"]"), ("chief", "\"all\"")]);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer desk-token-0123456789"));
        let desk = before.authorise(&headers, Timestamp::from_millis(0)).unwrap();
        let anonymous = Authenticator::default().authorise(&headers, Timestamp::from_millis(0)).unwrap();
        assert!(load(&[("desk", "[\"sport\"]")]).still_authorised(&desk), "another token was removed");
        assert!(!load(&[("chief", "\"all\"")]).still_authorised(&desk), "it was removed");
        assert!(!load(&[("desk", "[\"culture\"]")]).still_authorised(&desk), "it grants something else");
        assert!(!before.still_authorised(&anonymous), "tokens are required now");
        assert!(Authenticator::default().still_authorised(&desk), "tokens are no longer required");
        let changes = |new: &Authenticator, old: &Authenticator| -> Vec<String> {
            new.changes_since(old).iter().map(ToString::to_string).collect()
        };
        let replaced = load(&[("desk", "[\"culture\"]"), ("new", "\"all\"")]);
        let key = "gateway.read_tokens_file";
        assert_eq!(changes(&before, &before), [""; 0]);
        assert_eq!(changes(&replaced, &before), [format!("{key}: 1 added, 1 changed, 1 removed")]);
        let none = Authenticator::default();
        assert_eq!(changes(&none, &before), [format!("{key}: 0 added, 0 changed, 2 removed")]);
        assert_eq!(changes(&before, &none), [format!("{key}: 2 added, 0 changed, 0 removed")]);
    }

    #[test]
    fn debug_output_has_nothing_of_a_token_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens.toml");
        let text = "[[token]]\nname = \"desk\"\ntoken = \"desk-token-0123456789\"\ncategories = \"all\"\n";
        std::fs::write(&file, text).unwrap();
        let gateway =
            config::GatewaySection { read_tokens_file: Some(file), ..config::GatewaySection::default() };
        let authenticator = Authenticator::load(&gateway).unwrap();
        let debug = format!("{authenticator:?}");
        assert!(debug.contains("TokenHash(…)") && !debug.contains("desk-token"), "{debug}");
        assert!(
            authenticator.is_enabled()
                && !Authenticator::load(&config::GatewaySection::default()).unwrap().is_enabled()
        );
    }
}
