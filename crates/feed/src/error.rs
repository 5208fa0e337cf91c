//! Why a document could not be read as a feed.

use std::fmt;

use news::FailureClass;

/// Why a document could not be read as a feed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The character encoding is unknown or not supported.
    #[error("the document is encoded in {0}, which is not supported; ask the publisher for UTF-8")]
    BadEncoding(String),
    /// The document ends before its first item is complete.
    #[error("the document ends before its first item is complete")]
    Truncated,
    /// The document is too long.
    #[error("the document has {bytes} bytes; the limit is {bytes_max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The document exceeds a limit of complexity.
    #[error("the document has more than {max} {what} (line {line})")]
    TooComplex {
        /// What there is too much of, such as "levels of nested elements".
        what: &'static str,
        /// The limit.
        max: usize,
        /// The line at which the limit was exceeded, from 1.
        line: u32,
    },
    /// The document is not a feed.
    #[error("this is {looks_like}, not a feed{}", LinkedFeeds(.feeds))]
    NotAFeed {
        /// What it looks like, such as "an HTML page", "empty".
        looks_like: String,
        /// The feeds that the page links to (`<link rel="alternate">`), absolute if a base is known.
        feeds: Vec<String>,
    },
}

impl FeedError {
    /// The class of this failure: one of `bad-encoding`, `truncated`, `too-large`, `too-complex`, `not-a-feed`.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::BadEncoding(_) => FailureClass::BadEncoding,
            Self::Truncated => FailureClass::Truncated,
            Self::TooLarge { .. } => FailureClass::TooLarge,
            Self::TooComplex { .. } => FailureClass::TooComplex,
            Self::NotAFeed { .. } => FailureClass::NotAFeed,
        }
    }
}

/// The feeds that a page links to, as the end of a sentence.
struct LinkedFeeds<'a>(&'a [String]);

impl fmt::Display for LinkedFeeds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str("; the page links to: ")?;
        for (n, feed) in self.0.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, news::Escaped(feed))?;
        }
        Ok(())
    }
}
