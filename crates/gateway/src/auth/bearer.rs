//! A token that a client presents, the operator's or a reader's: where it may be, how long it may be, and how it is
//! compared. Only its hash is stored, and it is never repeated.

use std::fmt;

use actix_web::http::header::HeaderMap;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Longest token, in bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 4096;
/// Shortest token that is accepted in a file: 16 characters of base64 are 96 bits.
pub(crate) const TOKEN_BYTES_MIN: usize = 16;

/// Parameters by which clients put tokens into URLs, where browser histories and the logs of proxies keep them; in lower
/// case, without hyphens and underscores. `key` is not among them: it is a field of an item.
const NAMES_IN_QUERIES: [&str; 19] = [
    "token",
    "accesstoken",
    "idtoken",
    "refreshtoken",
    "authtoken",
    "apitoken",
    "bearertoken",
    "sessiontoken",
    "xauthtoken",
    "jwt",
    "bearer",
    "auth",
    "authorization",
    "apikey",
    "xapikey",
    "newswireread",
    "password",
    "secret",
    "clientsecret",
];

/// A token as its SHA-256: comparing hashes in constant time reveals nothing of it, not even its length.
#[derive(Clone, Copy)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(crate) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// As `sha256sum` writes it.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(hash))
    }

    /// Whether it is the hash of the same token; in constant time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// Its first eight bytes, for a lookup among many hashes: a client that learns them from the time of the lookup
    /// learns nothing about the token.
    pub(crate) fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// What a request has in one header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PresentedToken<'r> {
    Missing,
    One(&'r [u8]),
    /// Several: a client that injects a second one must not decide which counts.
    Several,
}

impl<'r> PresentedToken<'r> {
    fn one_of(mut tokens: impl Iterator<Item = &'r [u8]>) -> Self {
        match (tokens.next(), tokens.next()) {
            (None, _) => Self::Missing,
            (Some(token), None) => Self::One(token),
            (Some(_), Some(_)) => Self::Several,
        }
    }

    /// `Authorization: Bearer` (RFC 6750 §2.1). Other schemes are ignored: a proxy may have requested them.
    pub(crate) fn from_authorization(headers: &'r HeaderMap) -> Self {
        let bearer = |header: &'r [u8]| {
            let space = header.iter().position(|b| *b == b' ').unwrap_or(header.len());
            let (scheme, token) = header.split_at(space);
            scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
        };
        Self::one_of(headers.get_all("authorization").filter_map(|h| bearer(h.as_bytes())))
    }

    /// A cookie (RFC 6265 §4.2.1).
    pub(crate) fn from_cookie(headers: &'r HeaderMap, name: &str) -> Self {
        let pairs = headers.get_all("cookie").flat_map(|header| header.as_bytes().split(|b| *b == b';'));
        Self::one_of(pairs.filter_map(|pair| {
            let pair = pair.trim_ascii();
            let equals = pair.iter().position(|b| *b == b'=')?;
            (&pair[..equals] == name.as_bytes()).then(|| &pair[equals + 1..])
        }))
    }
}

/// Whether a query has a parameter that looks like a token.
pub(crate) fn is_in_query(query: &str) -> bool {
    let letters = |name: &str| -> String {
        name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
    };
    let is_token = |name: &str| NAMES_IN_QUERIES.contains(&letters(name).as_str());
    !query.is_empty() && url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| is_token(&name))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_token_is_found_in_its_header_and_only_once() {
        let token = |name: &'static str, values: &[&'static str]| {
            let request = values.iter().fold(TestRequest::default(), |r, v| r.append_header((name, *v)));
            let request = request.to_http_request();
            let headers = request.headers();
            let presented = match name {
                "cookie" => PresentedToken::from_cookie(headers, "newswire_read"),
                _ => PresentedToken::from_authorization(headers),
            };
            match presented {
                PresentedToken::Missing => None,
                PresentedToken::One(token) => Some(String::from_utf8(token.to_vec()).unwrap()),
                PresentedToken::Several => Some("(several)".to_owned()),
            }
        };
        let several = Some("(several)".to_owned());
        assert_eq!(token("authorization", &["bearer  abc "]), Some("abc".to_owned()));
        assert_eq!(token("authorization", &["Bearer"]), Some(String::new()), "an empty token counts");
        assert_eq!(token("authorization", &["Basic abc"]), None);
        assert_eq!(token("authorization", &["Basic abc", "Bearer d"]), Some("d".to_owned()));
        assert_eq!(token("authorization", &["Bearer abc", "Bearer abc"]), several);
        assert_eq!(token("cookie", &["a=b; newswire_read=x=y; c"]), Some("x=y".to_owned()));
        assert_eq!(token("cookie", &["xnewswire_read=a", "newswire_reader=b", "newswire_read"]), None);
        assert_eq!(token("cookie", &["newswire_read=a;newswire_read=b"]), several);
        assert_eq!(token("cookie", &["newswire_read=a", "newswire_read=b"]), several);
    }

    #[test]
    fn a_hash_is_compared_as_a_whole_and_never_printed() {
        let hash = TokenHash::of(b"0123456789abcdef");
        let hex = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
        assert!(TokenHash::from_hex(hex).unwrap().is(&hash));
        assert!(TokenHash::from_hex(&hex.to_uppercase()).unwrap().is(&hash));
        assert!(!TokenHash::from_hex(&hex.replace("9f9f", "9f9e")).unwrap().is(&hash));
        assert_eq!(hash.prefix(), 0x9f9f_5111_f7b2_7a78);
        for bad in ["", &hex[1..], &format!("{}é", &hex[..62]), &format!("+{}", &hex[1..])] {
            assert!(TokenHash::from_hex(bad).is_none(), "{bad}");
        }
        assert_eq!(format!("{hash:?}"), "TokenHash(…)");
    }

    #[test]
    fn a_token_in_a_query_is_found_however_it_is_written() {
        for query in [
            "token=x",
            "a=b&access_token",
            "%74oken=x",
            "Access_Token=x",
            "newswire_read=",
            "jwt=x",
            "JWT",
            "apiKey=x",
            "X-API-Key=x",
            "id-token=x",
            "Auth=x",
            "bearer=x",
        ] {
            assert!(is_in_query(query), "{query}");
        }
        for query in
            ["", "q=token", "category=token&x=access_token", "tokens=x", "key=x", "author=x", "jwts=x"]
        {
            assert!(!is_in_query(query), "{query}");
        }
    }
}
