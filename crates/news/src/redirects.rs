//! The stored state of permanent redirects. The catalogue is never rewritten: an adopted address is stored here, with the
//! hash of the configured address that it replaces.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{FeedUrl, Timestamp};

/// The permanent redirects of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RedirectState {
    /// Hash of the configured address; a change of it resets this state.
    pub home: u64,
    /// The address that is fetched instead.
    pub adopted: Option<Box<AdoptedRedirect>>,
    /// A permanent redirect of the fetched address that is not adopted yet.
    pub seen: Option<Box<ObservedRedirect>>,
}

/// An address that is fetched instead of the configured one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedRedirect {
    /// The address.
    pub to: StoredUrl,
    /// When it was adopted.
    pub since: Timestamp,
    /// Failed visits in a row.
    pub failures: u32,
}

/// A permanent redirect that is observed until it is adopted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRedirect {
    /// The target.
    pub to: StoredUrl,
    /// When it was first seen, without another response since then.
    pub first: Timestamp,
    /// Number of times it was seen.
    pub times: u32,
}

/// A complete address. It is stored with its secrets and shown without them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredUrl(Box<str>);

impl StoredUrl {
    /// Stores an address.
    #[must_use]
    pub fn new(url: &FeedUrl) -> Self {
        Self(url.secret().as_str().into())
    }

    /// The address; `None` if the stored text is invalid.
    #[must_use]
    pub fn get(&self) -> Option<FeedUrl> {
        FeedUrl::try_new(&self.0).ok()
    }
}

impl fmt::Display for StoredUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(url) => url.fmt(f),
            None => f.write_str("(invalid address)"),
        }
    }
}

impl fmt::Debug for StoredUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_stored_with_its_secrets_and_shown_without() {
        let url = FeedUrl::try_new("https://example.org/feed?token=TOPSECRET").unwrap();
        let kept = StoredUrl::new(&url);
        assert_eq!(format!("{kept} {kept:?}"), format!("{url} {url}"));
        let json = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<StoredUrl>(&json).unwrap().get(), Some(url));
        assert_eq!(StoredUrl("nonsense".into()).get(), None);
    }
}
