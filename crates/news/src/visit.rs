//! What one visit to a source came to, and what is remembered of a source between visits.

use serde::{Deserialize, Serialize};

use crate::{Attempt, Cursor, PushStatus, RedirectState, SourceId, Timestamp, WebSubState, attempt::rows};

/// How a visit ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VisitStatus {
    /// At least one item was new or had changed.
    New,
    /// Nothing had.
    Unchanged,
    /// No feed was had from it.
    Error,
    /// The server asked us to come later (429, 503).
    Throttled,
    /// The server says the feed is no more (410).
    Gone,
    /// The document was damaged; what stood before the damage was kept.
    Partial,
}

impl VisitStatus {
    /// Every status, for metric labels.
    pub const ALL: [Self; 6] =
        [Self::New, Self::Unchanged, Self::Error, Self::Throttled, Self::Gone, Self::Partial];

    /// The word on the wire and in metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Unchanged => "unchanged",
            Self::Error => "error",
            Self::Throttled => "throttled",
            Self::Gone => "gone",
            Self::Partial => "partial",
        }
    }

    /// Whether the source gave us its feed (or said that we have it).
    #[must_use]
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::New | Self::Unchanged | Self::Partial)
    }
}

/// The data of a `source` event: a visit ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisitReport {
    /// Which source.
    pub source: SourceId,
    /// How it ended.
    pub status: VisitStatus,
    /// Items recorded as new.
    pub new: u32,
    /// Items recorded as updates.
    pub updated: u32,
    /// Milliseconds from the first packet to the commit.
    pub took_ms: u64,
    /// When the next visit is due; nothing when none is planned (gone, disabled).
    pub next_visit: Option<Timestamp>,
    /// Why then.
    pub why: String,
    /// What went wrong, as `class: sentence`; the class is one of a closed set.
    pub error: Option<String>,
}

/// What the ingestion process tells its gateways when a visit ended: the report, and the source's health after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceNotice {
    /// What clients are told.
    #[serde(flatten)]
    pub report: VisitReport,
    /// The new element of `GET /sources`.
    pub health: SourceStatus,
}

/// What has been counted of a source since it was first visited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceTotals {
    /// Visits that ended.
    pub visits: u64,
    /// Of these, answered "not modified" or with the same bytes.
    pub unchanged: u64,
    /// Of these, answered "not modified" (304).
    pub not_modified: u64,
    /// Of these, ended without a feed.
    pub errors: u64,
    /// Items recorded as new.
    pub items: u64,
    /// Items recorded as updates.
    pub updates: u64,
    /// Bytes of bodies, decoded.
    pub body_bytes: u64,
}

/// An operator's order not to visit a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it was ordered.
    pub since: Timestamp,
    /// When it ends by itself; nothing when only an order ends it.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Why, in the operator's words.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Pause {
    /// Longest reason, in bytes.
    pub const REASON_BYTES_MAX: usize = 200;

    /// Whether it still holds.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The answer to why no visit is planned.
    #[must_use]
    pub fn why(&self) -> String {
        let until = self.until.map_or(String::new(), |until| format!(" until {until}"));
        let reason =
            self.reason.as_deref().map_or(String::new(), |reason| format!(": {}", crate::Escaped(reason)));
        format!("paused{until}{reason}")
    }
}

/// What is remembered of a source between visits; committed together with the items of the visit that set it.
///
/// New fields get a default, so that a store written by an older version opens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceState {
    /// Hash of the address and the credentials that the validators belong to; they are dropped when it changes.
    pub url_hash: u64,
    /// Which address in the end gave the validators: they are sent to no other on the way.
    #[serde(rename = "issuer")]
    pub validator_key: Option<u64>,
    /// `ETag` of the last complete answer, byte for byte.
    pub etag: Option<String>,
    /// `Last-Modified` of the last complete answer, byte for byte.
    pub last_modified: Option<String>,
    /// Hash of the last decoded body: the same bytes are not parsed again.
    pub body_hash: Option<u64>,
    /// When the last full (200) answer was had.
    pub last_full: Option<Timestamp>,
    /// When everything was last asked for, without validators, whatever came of it.
    pub asked_in_full: Option<Timestamp>,
    /// When the last visit ended.
    pub last_visit: Option<Timestamp>,
    /// When the last healthy visit ended.
    pub last_success: Option<Timestamp>,
    /// When something new was last recorded.
    pub last_news: Option<Timestamp>,
    /// How the last visit ended.
    pub last_status: Option<VisitStatus>,
    /// The last HTTP status code.
    pub last_code: Option<u16>,
    /// Milliseconds that the last visit took.
    pub last_took_ms: Option<u64>,
    /// What went wrong last, until a visit succeeds.
    pub last_error: Option<String>,
    /// Visits in a row that ended without a feed.
    pub failures: u32,
    /// Answers 410 in a row.
    pub gone_in_a_row: u32,
    /// Until when its host sent all visits away (Retry-After of a 429).
    pub host_asked_until: Option<Timestamp>,
    /// Why it is visited no more often than must be: its document is dangerous to read.
    pub quarantine: Option<String>,
    /// What the last document says about when to come again.
    pub rhythm: FeedRhythm,
    /// When to come again; nothing when no visit is planned.
    pub next_visit: Option<Timestamp>,
    /// Why then.
    pub why: String,
    /// Repairs that the last document needed (at most 8 are kept).
    pub warnings: Vec<String>,
    /// Whether the guids of the last document were other ones than before for the same items; one of the warnings says so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub guids_flap: bool,
    /// Totals.
    pub counts: SourceTotals,
    /// Not visited, by order. No visit changes this: the writer keeps what stands in the store.
    pub paused: Option<Pause>,
    /// Its hub; nothing where it never named one, which is most sources.
    pub websub: Option<Box<WebSubState>>,
    /// The last visits, the newest last; at most [`Attempt::KEPT`].
    #[serde(with = "rows")]
    pub attempts: Vec<Attempt>,
    /// Where the feed has moved to for good.
    pub moves: RedirectState,
}

impl SourceState {
    /// Completes the newest attempt with what only the writer of the log knows.
    pub fn finish_attempt(&mut self, new: u32, updated: u32) {
        if let (Some(attempt), Some(status)) = (self.attempts.last_mut(), self.last_status) {
            (attempt.status, attempt.new, attempt.updated) = (status, new, updated);
        }
    }
}

/// What a document says about when to come again; kept, because a 304 says nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeedRhythm {
    /// `ttl` of RSS 2.0, in seconds.
    pub ttl_s: Option<u64>,
    /// `sy:updatePeriod` divided by `sy:updateFrequency`, in seconds.
    pub update_interval_s: Option<u64>,
    /// `skipHours`: bit n stands for the hour n of the day in UTC.
    pub skip_hours: u32,
    /// `skipDays`: bit 0 stands for Monday, bit 6 for Sunday, in UTC.
    pub skip_days: u8,
    /// When its newest items were published, at most 20.
    pub recent: Vec<Timestamp>,
}

/// A source and its health: an element of `GET /sources`; with its last visits, `GET /sources/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// From the catalogue.
    pub id: SourceId,
    /// From the catalogue.
    pub name: String,
    /// From the catalogue, secrets removed.
    pub url: String,
    /// From the catalogue.
    pub category: String,
    /// From the catalogue.
    pub country: Option<String>,
    /// From the catalogue.
    pub language: Option<String>,
    /// From the catalogue.
    pub tags: Vec<String>,
    /// From the catalogue.
    pub enabled: bool,
    /// The keys of the catalogue by which it is asked differently from the others, such as `basic_file`.
    #[serde(default)]
    pub access: Vec<String>,
    /// The address that is asked instead of `url`, because the feed has moved there for good; without its secrets.
    #[serde(default)]
    pub moved_to: Option<String>,
    /// Since when.
    #[serde(default)]
    pub moved_since: Option<Timestamp>,
    /// What its actor does now: `idle`, `waiting`, `fetching`, `parsing`, `recording`, `down`, `paused` or
    /// `disabled`.
    pub activity: String,
    /// Since when.
    pub activity_since: Option<Timestamp>,
    /// What it waits for while it is due and may not begin yet.
    #[serde(default)]
    pub waiting_for: Option<String>,
    /// Why it is visited no more often than must be, until its document is read fast or an operator asks for a visit.
    #[serde(default)]
    pub quarantine: Option<String>,
    /// How the last visit ended.
    pub last_status: Option<VisitStatus>,
    /// The last HTTP status code.
    pub last_code: Option<u16>,
    /// When the last visit ended.
    pub last_visit: Option<Timestamp>,
    /// Milliseconds that it took.
    pub last_took_ms: Option<u64>,
    /// Bytes of its body, decoded.
    #[serde(default)]
    pub last_body_bytes: Option<u64>,
    /// When the last healthy visit ended.
    pub last_success: Option<Timestamp>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Visits in a row without a feed.
    pub consecutive_failures: u32,
    /// When the next visit is due.
    pub next_visit: Option<Timestamp>,
    /// Why then.
    pub why: String,
    /// Repairs that the last document needed.
    pub warnings: Vec<String>,
    /// Times that its actor died and was rebuilt.
    pub restarts: u32,
    /// Totals.
    pub counts: SourceTotals,
    /// Its newest event, when the daemon knows it.
    pub last_event: Option<Cursor>,
    /// The order not to visit it, while it holds.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// How it stands with its hub.
    #[serde(default)]
    pub push: PushStatus,
    /// Its last visits, the newest last; [`SourceInFull`] shows them to people, lists have none.
    #[serde(default, with = "rows", skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

/// A source, its health, and its last visits: the answer of `GET /sources/{id}`.
#[derive(Clone, Debug, Serialize)]
pub struct SourceInFull {
    #[serde(flatten)]
    status: SourceStatus,
    attempts: Vec<Attempt>,
}

impl From<SourceStatus> for SourceInFull {
    fn from(mut status: SourceStatus) -> Self {
        let attempts = std::mem::take(&mut status.attempts);
        Self { status, attempts }
    }
}
