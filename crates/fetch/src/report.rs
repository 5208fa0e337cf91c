//! What a visit brought home.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use news::{Escaped, FeedUrl};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use url::Url;

use crate::{Failure, HeaderLinks};

/// What one visit brought home. As JSON it is the `fetch` of `newswire check`, without any secret.
#[derive(Clone, Debug)]
pub struct FetchReport {
    /// The result.
    pub answer: FetchResult,
    /// The last HTTP status; nothing when no server answered.
    pub code: Option<u16>,
    /// Whether validators were sent, so that a 304 was possible.
    pub is_conditional: bool,
    /// The redirects that were followed, in order.
    pub hops: Vec<RedirectHop>,
    /// Where the time went.
    pub timings: Timings,
    /// The headers of the last answer that matter to a visit, lower-case names, values cut at 1 KiB.
    pub headers: Vec<(String, String)>,
    /// What the head of the last answer links to. Not shown: the addresses may hold secrets.
    pub links: HeaderLinks,
    /// How long the server says that its answer stays fresh (200 and 304).
    pub cache: Freshness,
    /// How long the server asks us to stay away (`Retry-After` of a status from 400 on), uncapped.
    pub retry_after: Option<Duration>,
    /// Who answered last.
    pub remote: Option<SocketAddr>,
    /// Bytes of the body after decoding, also of one that was refused.
    pub body_bytes: u64,
}

/// The result of a visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchResult {
    /// A complete document.
    Full(Full),
    /// We have it already (304). Validators that the answer carried replace ours; `None` keeps ours.
    NotModified {
        /// Its `ETag`, byte for byte.
        etag: Option<String>,
        /// Its `Last-Modified`, byte for byte.
        last_modified: Option<String>,
    },
    /// Come later (429, 503).
    Throttled,
    /// The feed is no more (410).
    Gone,
    /// No feed.
    Failed(Failure),
}

impl FetchResult {
    /// Whether we have the feed now: it came, or we had it already.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        matches!(self, Self::Full(_) | Self::NotModified { .. })
    }

    /// One word for it: `full`, `not-modified`, `throttled`, `gone` or `failed`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Full(_) => "full",
            Self::NotModified { .. } => "not-modified",
            Self::Throttled => "throttled",
            Self::Gone => "gone",
            Self::Failed(_) => "failed",
        }
    }
}

/// A complete document.
#[derive(Clone, PartialEq, Eq)]
pub struct Full {
    /// Its bytes, decoded.
    pub body: Bytes,
    /// The first 64 bits of the SHA-256 of the body: equal bytes need no second parse.
    pub body_hash: u64,
    /// `Content-Type` as sent.
    pub content_type: Option<String>,
    /// `ETag`, byte for byte; nothing when it is longer than 1 KiB.
    pub etag: Option<String>,
    /// `Last-Modified`, byte for byte; nothing when it is longer than 1 KiB.
    pub last_modified: Option<String>,
    /// Which address gave it in the end: [`crate::validator_key`]. The validators are this address's alone.
    pub validator_key: u64,
    /// Where it came from in the end, for relative links; user name and password removed.
    pub url: Url,
    /// Only what is new since our validator (226, RFC 3229): an item that is not in it is not gone.
    pub is_delta: bool,
}

/// Without the body, and without the secrets of the address.
impl fmt::Debug for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Full")
            .field("body_bytes", &self.body.len())
            .field("content_type", &self.content_type)
            .field("etag", &self.etag)
            .field("last_modified", &self.last_modified)
            .field("url", &FeedUrl::try_new(self.url.as_str()).ok())
            .field("is_delta", &self.is_delta)
            .finish_non_exhaustive()
    }
}

/// A redirect that was followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RedirectHop {
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
    /// Who redirected.
    pub from: FeedUrl,
    /// Where to.
    pub to: FeedUrl,
}

impl RedirectHop {
    /// Whether the server says that the feed has moved for good (301, 308).
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self.code, 301 | 308)
    }
}

/// Where the time of a visit went; all hops together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Looking up names.
    pub dns: Duration,
    /// Connecting and shaking hands.
    pub connect: Duration,
    /// Waiting for heads.
    pub head: Duration,
    /// Reading the body.
    pub body: Duration,
    /// From the first lookup to the last byte.
    pub total: Duration,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Serialize for Timings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Timings", 5)?;
        out.serialize_field("dns_ms", &ms(self.dns))?;
        out.serialize_field("connect_ms", &ms(self.connect))?;
        out.serialize_field("head_ms", &ms(self.head))?;
        out.serialize_field("body_ms", &ms(self.body))?;
        out.serialize_field("total_ms", &ms(self.total))?;
        out.end()
    }
}

/// How long an answer stays fresh, as its server says (RFC 9111, sections 4.2 and 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// `max-age`, else `Expires` less `Date`; less `Age`. Nothing when the server says nothing, or that the answer
    /// is stale already. Uncapped.
    pub fresh_for: Option<Duration>,
}

impl FetchReport {
    /// A visit that came to nothing before anybody was asked.
    #[must_use]
    pub fn not_attempted(failure: Failure) -> Self {
        Self {
            answer: FetchResult::Failed(failure),
            // Nothing was asked for in full either.
            is_conditional: true,
            code: None,
            hops: Vec::new(),
            timings: Timings::default(),
            headers: Vec::new(),
            links: HeaderLinks::default(),
            cache: Freshness::default(),
            retry_after: None,
            remote: None,
            body_bytes: 0,
        }
    }
}

impl Serialize for FetchReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Visit", 10)?;
        out.serialize_field("status", &self.code)?;
        out.serialize_field("answer", self.answer.as_str())?;
        out.serialize_field("redirects", &self.hops)?;
        out.serialize_field("headers", &Headers(&self.headers))?;
        out.serialize_field("timings", &self.timings)?;
        out.serialize_field("fresh_for_s", &self.cache.fresh_for.map(|d| d.as_secs()))?;
        out.serialize_field("retry_after_s", &self.retry_after.map(|d| d.as_secs()))?;
        out.serialize_field("remote", &self.remote)?;
        out.serialize_field("body_bytes", &self.body_bytes)?;
        let error = match &self.answer {
            FetchResult::Failed(failure) => Some(failure),
            _ => None,
        };
        out.serialize_field("error", &error)?;
        out.end()
    }
}

struct Headers<'a>(&'a [(String, String)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, Escaped(value).to_string())))
    }
}
