//! The user name and the password of an address, and how a request sends them (RFC 7617).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;

/// Whether an address has a user name or a password.
pub(crate) fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// An address without user name and password.
pub(crate) fn without_credentials(url: &Url) -> Url {
    let mut url = url.clone();
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        // Fails for addresses without a host only, and those have no credentials.
    }
    url
}

/// The user name and the password of an address, decoded.
pub(crate) fn credentials(url: &Url) -> Option<(Vec<u8>, Vec<u8>)> {
    let decoded = |text: &str| percent_decode_str(text).collect();
    has_credentials(url).then(|| (decoded(url.username()), decoded(url.password().unwrap_or_default())))
}

/// The same as the value of `Authorization` or `Proxy-Authorization`.
pub(crate) fn basic_of(url: &Url) -> Option<HeaderValue> {
    credentials(url).map(|(user, password)| basic(&user, &password))
}

/// The value of `Authorization` for a user name and a password.
pub(crate) fn basic(user: &[u8], password: &[u8]) -> HeaderValue {
    let encoded = BASE64_STANDARD.encode([user, b":", password].concat());
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).expect("Base64 is ASCII");
    value.set_sensitive(true);
    value
}
