//! Why a visit gave no feed: the closed set of words that statuses, reports and metrics use, and nothing else.
//!
//! A visit fails in `fetch`, reading a document fails in `feed`; both say so in these words. A panic of ours is
//! none of them: it says nothing about the feed, and has a counter of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a visit gave no feed: a word in the status of a source and the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// The address is not public, or the port is not one of the web's.
    BlockedAddress,
    /// Not an address that can be visited, such as a redirect to `file:`.
    BadUrl,
    /// The name has no address, or the lookup failed.
    Dns,
    /// No connection.
    Connect,
    /// A connection, but no TLS session that can be trusted.
    Tls,
    /// A deadline passed, or the body came too slowly.
    Timeout,
    /// Too many redirects, a loop, or one that must not be followed.
    Redirect,
    /// The server answered with a status that brings no feed.
    HttpStatus,
    /// What came is not HTTP.
    BadHttp,
    /// The content coding is unknown, doubled or damaged.
    BadEncoding,
    /// The answer ended too early.
    Truncated,
    /// The body is longer than the cap.
    TooLarge,
    /// The document is built to exhaust a parser.
    TooComplex,
    /// The document is no feed.
    NotAFeed,
}

impl FailureClass {
    /// Every class.
    pub const ALL: [Self; 14] = [
        Self::BlockedAddress,
        Self::BadUrl,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Redirect,
        Self::HttpStatus,
        Self::BadHttp,
        Self::BadEncoding,
        Self::Truncated,
        Self::TooLarge,
        Self::TooComplex,
        Self::NotAFeed,
    ];

    /// The word in statuses and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlockedAddress => "blocked-address",
            Self::BadUrl => "bad-url",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Redirect => "redirect",
            Self::HttpStatus => "http-status",
            Self::BadHttp => "bad-http",
            Self::BadEncoding => "bad-encoding",
            Self::Truncated => "truncated",
            Self::TooLarge => "too-large",
            Self::TooComplex => "too-complex",
            Self::NotAFeed => "not-a-feed",
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_and_the_json_form_of_a_class_are_the_same() {
        for class in FailureClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
            assert_eq!(serde_json::from_value::<FailureClass>(class.as_str().into()).unwrap(), class);
        }
    }
}
