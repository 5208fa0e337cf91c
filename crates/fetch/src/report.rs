//! The result of a visit.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use news::{Escaped, FeedUrl, ProxyUrl, Timestamp};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use url::Url;

use crate::{Failure, HeaderLinks};

/// Everything about one visit. As JSON it is the `fetch` of `newswire check`, without secrets.
#[derive(Clone, Debug)]
pub struct FetchReport {
    /// The result.
    pub answer: FetchResult,
    /// The last HTTP status; `None` if no server answered.
    pub code: Option<u16>,
    /// Whether validators were sent.
    pub is_conditional: bool,
    /// The redirects that were followed, in order.
    pub hops: Vec<RedirectHop>,
    /// How long each part took.
    pub timings: Timings,
    /// The headers of the last response that explain the visit; names in lower case, values cut at 1 KiB.
    pub headers: Vec<(String, String)>,
    /// The links in the head of the last response. Not shown: the addresses may have secrets.
    pub links: HeaderLinks,
    /// How long the response is fresh, according to the server (200 and 304).
    pub cache: Freshness,
    /// `Retry-After` of a status from 400 on, uncapped.
    pub retry_after: Option<Duration>,
    /// The address that answered last.
    pub remote: Option<SocketAddr>,
    /// Bytes of the body after decoding, also of a refused one.
    pub body_bytes: u64,
    /// The visit was throttled by a [`crate::HopGate`], before its last redirect was followed: the reason.
    pub held: Option<String>,
    /// When the certificate of a server of this visit has expired. It is trusted all the same, because it is one of the
    /// source's own.
    pub certificate_expired: Option<Timestamp>,
    /// The proxy that read the last request: it may have answered itself. `None` if it only passed bytes on.
    pub read_by: Option<ProxyUrl>,
}

/// The result of a visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchResult {
    /// A complete document.
    Full(Full),
    /// Not modified (304). Validators of the response replace the stored ones; `None` keeps them.
    NotModified {
        /// Its `ETag`, byte for byte.
        etag: Option<String>,
        /// Its `Last-Modified`, byte for byte.
        last_modified: Option<String>,
    },
    /// The server asks for fewer requests (429, 503).
    Throttled,
    /// The feed is gone (410).
    Gone,
    /// Failed.
    Failed(Failure),
}

impl FetchResult {
    /// Whether the feed is available: it was fetched, or has not changed.
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
    /// `ETag`, byte for byte; `None` if it is longer than 1 KiB.
    pub etag: Option<String>,
    /// `Last-Modified`, byte for byte; `None` if it is longer than 1 KiB.
    pub last_modified: Option<String>,
    /// [`crate::validator_key`] of the last address, which issued the validators.
    pub validator_key: u64,
    /// The last address, for relative links; without user name and password.
    pub url: Url,
    /// Only what is new since the validators (226, RFC 3229): an item that is absent was not removed.
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
    /// The address that redirected.
    pub from: FeedUrl,
    /// The target.
    pub to: FeedUrl,
}

impl RedirectHop {
    /// Whether the redirect is permanent (301, 308).
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self.code, 301 | 308)
    }
}

/// How long each part of a visit took; all hops together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Looking up names.
    pub dns: Duration,
    /// Connecting, without TLS; through a proxy until it has connected.
    pub connect: Duration,
    /// TLS handshakes.
    pub tls: Duration,
    /// From the connection to the head of the response.
    pub first_byte: Duration,
    /// From the head to the last byte of the body.
    pub body: Duration,
    /// From the first lookup to the last byte, without the time that redirects waited for their hosts.
    pub total: Duration,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Serialize for Timings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Timings", 7)?;
        out.serialize_field("dns_ms", &ms(self.dns))?;
        out.serialize_field("connect_ms", &ms(self.connect))?;
        out.serialize_field("tls_ms", &ms(self.tls))?;
        out.serialize_field("first_byte_ms", &ms(self.first_byte))?;
        // The older name of the same.
        out.serialize_field("head_ms", &ms(self.first_byte))?;
        out.serialize_field("body_ms", &ms(self.body))?;
        out.serialize_field("total_ms", &ms(self.total))?;
        out.end()
    }
}

/// How long a response is fresh, according to the server (RFC 9111, sections 4.2 and 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// `max-age`, else `Expires` minus `Date`; minus `Age`. `None` if the server does not say, or the response is stale
    /// already. Uncapped.
    pub fresh_for: Option<Duration>,
    /// The same before `Age` is subtracted: how long the response was fresh when it left its server.
    pub lifetime: Option<Duration>,
    /// How long ago that was.
    pub age: Duration,
    /// `Expires` said so: the response is fresh until that date, also if a later 304 does not mention it.
    pub is_by_date: bool,
    /// The response has `Cache-Control` or `Expires`. A 304 without both leaves what was said before (section 3.2).
    pub is_stated: bool,
}

impl FetchReport {
    /// A visit that failed before a request was sent.
    #[must_use]
    pub fn not_attempted(failure: Failure) -> Self {
        // It did not ask for the full feed, either.
        Self { is_conditional: true, ..Self::of(FetchResult::Failed(failure)) }
    }

    /// A result without anything else: no request of this process led to it.
    #[must_use]
    pub fn of(answer: FetchResult) -> Self {
        Self {
            answer,
            is_conditional: false,
            code: None,
            hops: Vec::new(),
            timings: Timings::default(),
            headers: Vec::new(),
            links: HeaderLinks::default(),
            cache: Freshness::default(),
            retry_after: None,
            remote: None,
            body_bytes: 0,
            held: None,
            certificate_expired: None,
            read_by: None,
        }
    }

    /// What answered last, as the subject of a sentence: one cannot always know whether that was a proxy.
    #[must_use]
    pub fn answerer(&self) -> String {
        answerer(self.read_by.as_ref())
    }
}

/// See [`FetchReport::answerer`].
pub(crate) fn answerer(read_by: Option<&ProxyUrl>) -> String {
    match read_by {
        Some(proxy) => format!("the server, or the proxy {proxy} in front of it,"),
        None => "the server".to_owned(),
    }
}

impl Serialize for FetchReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("FetchReport", 11)?;
        out.serialize_field("status", &self.code)?;
        out.serialize_field("answer", self.answer.as_str())?;
        out.serialize_field("redirects", &self.hops)?;
        out.serialize_field("headers", &Headers(&self.headers))?;
        out.serialize_field("timings", &self.timings)?;
        out.serialize_field("fresh_for_s", &self.cache.fresh_for.map(|d| d.as_secs()))?;
        out.serialize_field("retry_after_s", &self.retry_after.map(|d| d.as_secs()))?;
        out.serialize_field("remote", &self.remote)?;
        out.serialize_field("body_bytes", &self.body_bytes)?;
        out.serialize_field("certificate_expired", &self.certificate_expired)?;
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
