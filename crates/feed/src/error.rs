//! Why there is no feed in the bytes.

use std::fmt;

use news::FailureClass;

/// Why nothing of a feed could be had from the bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The character encoding is one that we refuse or do not know.
    #[error("the document is written in {0}, which is not read: ask the publisher for UTF-8")]
    BadEncoding(String),
    /// The document ends before its first item is complete.
    #[error("the document ends before its first item is complete")]
    Truncated,
    /// The document is longer than we read.
    #[error("the document has {bytes} bytes, more than the {bytes_max} that are read")]
    TooLarge {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The document is built so that reading it would cost too much.
    #[error("the document has more than {max} {what} (line {line})")]
    TooComplex {
        /// What there is too much of, in words: "levels of nested elements".
        what: &'static str,
        /// How much there may be.
        max: usize,
        /// Where the limit was passed, from 1.
        line: u32,
    },
    /// The document is something else.
    #[error("this is {looks_like}, not a feed{}", Named(.feeds))]
    NotAFeed {
        /// What it looks like, in words: "an HTML page", "empty".
        looks_like: String,
        /// The feeds that the page itself names (`<link rel="alternate">`), absolute where a base is known.
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

/// The feeds a page names, as the tail of a sentence.
struct Named<'a>(&'a [String]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str("; the page names: ")?;
        for (n, feed) in self.0.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, news::Escaped(feed))?;
        }
        Ok(())
    }
}
