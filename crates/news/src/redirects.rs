//! What is remembered of a feed's permanent redirects. The catalogue is never rewritten: an address that was adopted
//! stands here, beside the hash of the address that it stands in for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{FeedUrl, Timestamp};

/// The permanent redirects of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RedirectState {
    /// Hash of the catalogue's address: all of this is forgotten when that one changes.
    pub home: u64,
    /// The address that is asked instead.
    pub adopted: Option<Box<AdoptedRedirect>>,
    /// The one that the asked address redirects to for good, while it is not adopted.
    pub seen: Option<Box<ObservedRedirect>>,
}

/// An address that is asked instead of the catalogue's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedRedirect {
    /// Where.
    pub to: StoredUrl,
    /// Since when.
    pub since: Timestamp,
    /// Visits in a row that had no feed from it.
    pub failures: u32,
}

/// A permanent redirect that is being watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRedirect {
    /// Where to.
    pub to: StoredUrl,
    /// Since when, without any other answer in between.
    pub first: Timestamp,
    /// How often.
    pub times: u32,
}

/// An address as it is dialled. It is stored with its secrets, and shown without them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredUrl(Box<str>);

impl StoredUrl {
    /// Keeps an address.
    #[must_use]
    pub fn new(url: &FeedUrl) -> Self {
        Self(url.secret().as_str().into())
    }

    /// The address; nothing when what was stored is none.
    #[must_use]
    pub fn get(&self) -> Option<FeedUrl> {
        FeedUrl::try_new(&self.0).ok()
    }
}

impl fmt::Display for StoredUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(url) => url.fmt(f),
            None => f.write_str("(no address)"),
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
