//! The result of parsing: a feed, its items, and the repairs.

use std::{fmt, time::Duration};

use news::{Item, Timestamp, Warning};
use serde::{Serialize, Serializer};
use url::Url;

use crate::decode::Encoding;

/// What is known about a document from outside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// Where the bytes came from, after redirects: relative links are resolved against it.
    pub url: Option<&'a Url>,
    /// The `Content-Type` header, parameters included.
    pub content_type: Option<&'a str>,
    /// The language of the source in the catalogue, BCP 47: used if the feed has none.
    pub language: Option<&'a str>,
}

/// A parsed feed.
#[derive(Clone, Debug)]
pub struct FeedDocument {
    /// The format.
    pub format: FeedFormat,
    /// How the bytes were decoded.
    pub encoding: Encoding,
    /// What the feed says about itself.
    pub feed: FeedInfo,
    /// In document order; at most [`ITEMS_KEPT_MAX`](crate::limits::ITEMS_KEPT_MAX), the newest, or those at both ends.
    pub items: Vec<Item>,
    /// What had to be repaired, in document order; at most [`WARNINGS_MAX`](crate::limits::WARNINGS_MAX).
    pub warnings: Vec<Warning>,
    /// The document was truncated or broken: `items` has the complete items before that point.
    pub damaged: bool,
    /// The feed's hints about when to fetch it again.
    pub rhythm: Rhythm,
    /// Items dropped because there were too many.
    pub dropped: usize,
}

impl FeedDocument {
    /// Bytes of memory that its items take, the allocator's rounding aside.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.items.iter().map(Item::memory_bytes).sum()
    }
}

/// What a feed says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FeedInfo {
    /// Plain text.
    pub title: Option<String>,
    /// The page that the feed belongs to: `http` or `https`, absolute.
    pub link: Option<String>,
    /// Plain text.
    pub description: Option<String>,
    /// BCP 47, as sent.
    pub language: Option<String>,
    /// When the publisher says the feed last changed.
    pub updated: Option<Timestamp>,
    /// `http` or `https`, absolute.
    pub image: Option<String>,
    /// How long the feed may be cached, in seconds (RSS `ttl`).
    pub ttl_s: Option<u64>,
    /// Its WebSub hub (`rel="hub"`): `http` or `https`, absolute.
    pub hub: Option<String>,
    /// Its own URL (`rel="self"`, `feed_url`), the topic of WebSub: `http` or `https`, absolute. Not serialised.
    #[serde(skip)]
    pub self_url: Option<String>,
}

/// A feed format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeedFormat {
    /// RSS 0.90 to 0.94, Netscape and UserLand.
    Rss0,
    /// RSS 1.0 (RDF), also 1.1.
    Rss1,
    /// RSS 2.0, also `<rss>` without a version.
    Rss2,
    /// Atom 0.3.
    Atom03,
    /// Atom 1.0 (RFC 4287).
    Atom10,
    /// JSON Feed 1.0.
    Json10,
    /// JSON Feed 1.1.
    Json11,
}

impl FeedFormat {
    /// Whether the format is based on RDF.
    pub(crate) fn is_rdf(self) -> bool {
        matches!(self, Self::Rss0 | Self::Rss1)
    }

    /// Whether it is Atom of any version.
    pub(crate) fn is_atom(self) -> bool {
        matches!(self, Self::Atom03 | Self::Atom10)
    }

    /// Its name, as `newswire check` shows it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rss0 => "rss0.9x",
            Self::Rss1 => "rss1.0",
            Self::Rss2 => "rss2.0",
            Self::Atom03 => "atom0.3",
            Self::Atom10 => "atom1.0",
            Self::Json10 => "json1.0",
            Self::Json11 => "json1.1",
        }
    }
}

impl fmt::Display for FeedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for FeedFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A feed's hints about when to fetch it again. They never override configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rhythm {
    /// RSS `ttl`.
    pub ttl: Option<Duration>,
    /// Hours of the day, in UTC, without new items (RSS `skipHours`).
    pub skip_hours: Hours,
    /// Days of the week, in UTC, without new items (RSS `skipDays`).
    pub skip_days: Days,
    /// The mean time between updates (`sy:updatePeriod` divided by `sy:updateFrequency`).
    pub update_interval: Option<Duration>,
}

/// A set of hours of the day, 0 to 23: bit `n` is the hour `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hours(pub u32);

impl Hours {
    /// Whether the hour (0 to 23) is in the set.
    #[must_use]
    pub fn contains(self, hour: u32) -> bool {
        hour < 24 && self.0 & (1 << hour) != 0
    }
}

/// A set of days of the week: bit 0 is Monday, bit 6 is Sunday.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Days(pub u8);

impl Days {
    /// Whether the day is in the set, counted from Monday = 0.
    #[must_use]
    pub fn contains(self, day_from_monday: u32) -> bool {
        day_from_monday < 7 && self.0 & (1 << day_from_monday) != 0
    }
}
