//! Who may read what. Without configuration everybody may read everything; with tokens, a reader sees the categories
//! that its token names and those that are public, and the rest behaves as if it did not exist.
//!
//! ```text
//! Authorization: Bearer ─┐  known static token ─┐
//!                        ├► else a JWT ─────────┼─► Reader { scope, until } ─► AND of every filter
//! Cookie: newswire_read ─┘  none: the public ───┘
//! ```
//!
//! What is shown and is no good is refused, also where something is public: a reader whose token has ended must hear
//! of that, and not get less in silence.

mod files;
mod keys;
mod scope;
mod signatures;
mod tokens;

use std::sync::Arc;

use actix_web::http::header::HeaderMap;
use daemon::config;
use news::Timestamp;
use notation::Complaints;

use self::{
    files::File,
    keys::{Claims, Keys},
    tokens::{Grant, Tokens},
};
use crate::bearer::{Shown, TOKEN_BYTES_MAX, TokenHash};

pub(crate) use scope::Scope;

/// The cookie of those who cannot set headers: an `EventSource` of a page. We read it and never set it.
const COOKIE: &str = "newswire_read";

/// Everything that is wrong with the files of tokens and keys, one a line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadFiles(Complaints);

/// Tells readers from strangers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers(Option<Arc<Rules>>);

#[derive(Debug)]
struct Rules {
    tokens: Tokens,
    keys: Option<Keys>,
    /// What everybody may see, if that is anything.
    public: Option<Arc<Scope>>,
}

/// Somebody who may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// Nothing for everything.
    pub(crate) scope: Option<Arc<Scope>>,
    /// When that ends.
    pub(crate) until: Option<Timestamp>,
    /// What it was let in for: its token, or the keys that its token was judged by.
    pub(crate) mark: u64,
    /// By what it came in, for the metrics; nothing when nobody is asked.
    pub(crate) by: Option<&'static str>,
}

impl Reader {
    pub(crate) fn may_see(&self, category: &str) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.allows(category))
    }
}

/// Why somebody may not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Missing,
    Several,
    TooLong,
    Malformed,
    Algorithm,
    Signature,
    Unknown,
    Expired,
    NotYet,
    Audience,
    Issuer,
    NoCategories,
}

impl Refusal {
    /// Every reason.
    pub(crate) const ALL: [Self; 12] = [
        Self::Missing,
        Self::Several,
        Self::TooLong,
        Self::Malformed,
        Self::Algorithm,
        Self::Signature,
        Self::Unknown,
        Self::Expired,
        Self::NotYet,
        Self::Audience,
        Self::Issuer,
        Self::NoCategories,
    ];

    /// For the metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Several => "several",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::NoCategories => "no_categories",
        }
    }

    /// For the client: a code that stays, and a sentence.
    pub(crate) fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Missing => (
                "token-required",
                "this wire needs a read token, as Authorization: Bearer or in the cookie newswire_read",
            ),
            Self::Several => ("token-invalid", "more than one token was sent"),
            Self::TooLong => ("token-invalid", "a token has at most 4096 bytes"),
            Self::Malformed => ("token-invalid", "the token is malformed"),
            Self::Algorithm => ("token-invalid", "the token's algorithm is not that of its key"),
            Self::Signature => ("token-invalid", "the token's signature is wrong"),
            Self::Unknown => ("token-unknown", "the token is not known here"),
            Self::Expired => ("token-expired", "the token has expired"),
            Self::NotYet => ("token-not-yet-valid", "the token is not valid yet"),
            Self::Audience => ("token-wrong-audience", "the token is for another audience"),
            Self::Issuer => ("token-wrong-issuer", "the token is of another issuer"),
            Self::NoCategories => ("token-without-categories", "the token names no categories"),
        }
    }
}

impl Readers {
    /// Reads the files that the configuration names; without any, everybody may read everything.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(crate) fn load(gateway: &config::GatewaySection) -> Result<Self, BadFiles> {
        let public = &gateway.public_categories;
        let tokens = gateway.read_tokens_file.as_deref();
        let tokens = tokens.map(|path| Tokens::load(File { key: "gateway.read_tokens_file", path }, public));
        let keys = gateway.jwks_file.as_deref().map(|path| {
            let claims = Claims {
                issuer: gateway.jwt_issuer.clone(),
                audience: gateway.jwt_audience.clone(),
                categories: gateway.jwt_categories_claim.clone(),
                public: public.clone(),
            };
            Keys::load(File { key: "gateway.jwks_file", path }, claims)
        });
        if tokens.is_none() && keys.is_none() {
            return Ok(Self(None));
        }
        match (tokens.transpose(), keys.transpose()) {
            (Ok(tokens), Ok(keys)) => {
                let scope = || Arc::new(Scope::new(public.iter().map(String::as_str)));
                let public = (!public.is_empty()).then(scope);
                Ok(Self(Some(Arc::new(Rules { tokens: tokens.unwrap_or_default(), keys, public }))))
            }
            (tokens, keys) => {
                let bad = [tokens.err(), keys.err()];
                Err(BadFiles(bad.into_iter().flatten().flatten().collect()))
            }
        }
    }

    /// Whether answers depend on who asks.
    pub(crate) fn are_asked(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a reader that was let in before would be let in now, and see the same. One with a JSON Web Token would
    /// have to show that again when the keys or what is asked of a token have changed.
    pub(crate) fn still_admit(&self, reader: &Reader) -> bool {
        let Some(rules) = &self.0 else { return true };
        match reader.by {
            None => false,
            Some("static") => rules.tokens.still_grant(reader.mark, reader.scope.as_ref(), reader.until),
            Some("jwt") => rules.keys.as_ref().is_some_and(|keys| keys.mark() == reader.mark),
            Some(_) => rules.public == reader.scope,
        }
    }

    /// Lets a reader pass. A header counts before a cookie, which a browser sends unasked.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn admit(&self, headers: &HeaderMap, now: Timestamp) -> Result<Reader, Refusal> {
        let Some(rules) = &self.0 else { return Ok(Reader { scope: None, until: None, mark: 0, by: None }) };
        let shown = match Shown::in_authorization(headers) {
            Shown::Nothing => Shown::in_cookie(headers, COOKIE),
            shown => shown,
        };
        match shown {
            Shown::Nothing => {
                let scope = rules.public.clone().ok_or(Refusal::Missing)?;
                Ok(Reader { scope: Some(scope), until: None, mark: 0, by: Some("public") })
            }
            Shown::Several => Err(Refusal::Several),
            Shown::Token(token) if token.len() > TOKEN_BYTES_MAX => Err(Refusal::TooLong),
            Shown::Token(token) => rules.judge(token, now),
        }
    }
}

impl Rules {
    fn judge(&self, token: &[u8], now: Timestamp) -> Result<Reader, Refusal> {
        let (by, mark, grant) = match (self.tokens.find(token, now), &self.keys) {
            (Some(grant), _) => ("static", TokenHash::of(token).prefix(), grant?),
            (None, Some(keys)) => ("jwt", keys.mark(), keys.verify(token, now)?),
            (None, None) => return Err(Refusal::Unknown),
        };
        let Grant { scope, until } = grant;
        Ok(Reader { scope, until, mark, by: Some(by) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_code_of_the_document_and_tells_nothing_of_the_token() {
        use Refusal::{
            Algorithm, Audience, Expired, Issuer, Malformed, Missing, NoCategories, NotYet, Several,
            Signature, TooLong, Unknown,
        };
        for refusal in [
            Missing,
            Several,
            TooLong,
            Malformed,
            Algorithm,
            Signature,
            Unknown,
            Expired,
            NotYet,
            Audience,
            Issuer,
            NoCategories,
        ] {
            let (code, detail) = refusal.told();
            assert!(include_str!("openapi.json").contains(&format!("\"{code}\"")), "{code}");
            assert!(
                !detail.is_empty() && refusal.reason().bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            );
        }
    }

    #[test]
    fn a_reader_stays_as_long_as_its_token_grants_the_same() {
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
            Readers::load(&gateway).unwrap()
        };
        let before = load(&[("desk", "[\"sport\"]"), ("chief", "\"all\"")]);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer desk-token-0123456789"));
        let desk = before.admit(&headers, Timestamp::from_millis(0)).unwrap();
        let anybody = Readers::default().admit(&headers, Timestamp::from_millis(0)).unwrap();
        assert!(load(&[("desk", "[\"sport\"]")]).still_admit(&desk), "another one was removed");
        assert!(!load(&[("chief", "\"all\"")]).still_admit(&desk), "it was removed");
        assert!(!load(&[("desk", "[\"culture\"]")]).still_admit(&desk), "it grants something else");
        assert!(!before.still_admit(&anybody), "from now on readers are asked who they are");
        assert!(Readers::default().still_admit(&desk), "nobody is asked any more");
    }

    #[test]
    fn nothing_of_a_file_stands_in_a_debug_output() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens.toml");
        let text = "[[token]]\nname = \"desk\"\ntoken = \"desk-token-0123456789\"\ncategories = \"all\"\n";
        std::fs::write(&file, text).unwrap();
        let gateway =
            config::GatewaySection { read_tokens_file: Some(file), ..config::GatewaySection::default() };
        let readers = Readers::load(&gateway).unwrap();
        let shown = format!("{readers:?}");
        assert!(shown.contains("TokenHash(…)") && !shown.contains("desk-token"), "{shown}");
        assert!(
            readers.are_asked() && !Readers::load(&config::GatewaySection::default()).unwrap().are_asked()
        );
    }
}
