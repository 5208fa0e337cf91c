//! Why a visit failed: the closed set of words in statuses, reports and metrics.
//!
//! Both `fetch` and `feed` report failures in these words. A panic is not one of them: it is a bug of ours, not of the
//! feed, and has its own counter.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a visit failed: a word in the status of a source and a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// The address is not public, or the port is not a web port.
    BlockedAddress,
    /// The address cannot be visited, such as a redirect to `file:`.
    BadUrl,
    /// The name has no address, or the lookup failed.
    Dns,
    /// No connection was established.
    Connect,
    /// No trusted TLS session was established.
    Tls,
    /// A time limit was exceeded, or the body was too slow.
    Timeout,
    /// Too many redirects, a loop, or one that must not be followed.
    Redirect,
    /// The server answered with an error status.
    HttpStatus,
    /// The response is not HTTP.
    BadHttp,
    /// The content coding is unknown, repeated or damaged.
    BadEncoding,
    /// The response ended too early.
    Truncated,
    /// The body exceeds the limit.
    TooLarge,
    /// The document is built to exhaust a parser.
    TooComplex,
    /// The document is not a feed.
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
