//! The result of a visit, and the stored state of a source between visits.

use serde::{Deserialize, Serialize};

use crate::{
    Attempt, Cursor, NewsRhythm, PushStatus, Quiet, RedirectState, Silences, SourceId, Timestamp,
    WebSubState, attempt::rows,
};

/// How a visit ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VisitStatus {
    /// At least one item was new or had changed.
    New,
    /// No item was new or had changed.
    Unchanged,
    /// The visit failed.
    Error,
    /// The server asked for fewer requests (429, 503).
    Throttled,
    /// The feed is gone (410).
    Gone,
    /// The document was damaged; the items before the damage were kept.
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

    /// Whether the feed was fetched or has not changed.
    #[must_use]
    pub fn is_healthy(self) -> bool {
        matches!(self, Self::New | Self::Unchanged | Self::Partial)
    }
}

/// The data of a `source` event: a visit ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisitReport {
    /// The source.
    pub source: SourceId,
    /// How it ended.
    pub status: VisitStatus,
    /// Items recorded as new.
    pub new: u32,
    /// Items recorded as updates.
    pub updated: u32,
    /// Milliseconds from the first packet to the commit.
    pub took_ms: u64,
    /// When the next visit is due; `None` if there is none (disabled).
    pub next_visit: Option<Timestamp>,
    /// Why then.
    pub why: String,
    /// The error, as `class: message`; the class is one of a closed set.
    pub error: Option<String>,
}

/// What the ingestion daemon sends to its gateways after a visit: the report, and the status of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceNotice {
    /// The data of the `source` event.
    #[serde(flatten)]
    pub report: VisitReport,
    /// The new element of `GET /sources`.
    pub health: SourceStatus,
}

/// Totals of a source since its first visit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceTotals {
    /// Visits that ended.
    pub visits: u64,
    /// Of these, answered "not modified" or with the same bytes.
    pub unchanged: u64,
    /// Of these, answered "not modified" (304).
    pub not_modified: u64,
    /// Of these, failed.
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
    /// When it ends by itself; `None` if only an order ends it.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// The reason that the operator gave.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Pause {
    /// Longest reason, in bytes.
    pub const REASON_BYTES_MAX: usize = 200;

    /// Whether it is in effect.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// The reason why no visit is due, as a sentence.
    #[must_use]
    pub fn why(&self) -> String {
        let until = self.until.map_or(String::new(), |until| format!(" until {until}"));
        let reason =
            self.reason.as_deref().map_or(String::new(), |reason| format!(": {}", crate::Escaped(reason)));
        format!("paused{until}{reason}")
    }
}

/// The stored state of a source, committed together with the items of a visit.
///
/// New fields have a default, so that a store of an older version can be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceState {
    /// Hash of the address and the request settings that this state belongs to ([`crate::Source::request_hash`]); 0 in a
    /// store of an older version.
    #[serde(skip_serializing_if = "is_zero")]
    pub address: u64,
    /// Hash of the settings that its next visit was planned with ([`crate::Source::plan_hash`]).
    #[serde(skip_serializing_if = "is_zero")]
    pub plan: u64,
    /// It was taken out of the list while the daemon ran, and was not visited since.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// Its addresses before the last changes, as far as their servers have asked for pauses that are not over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former: Option<Box<FormerAddresses>>,
    /// Hash of the address and the credentials that the validators belong to; they are dropped when it changes.
    pub url_hash: u64,
    /// Hash of the address that issued the validators; they are sent to no other one.
    #[serde(rename = "issuer")]
    pub validator_key: Option<u64>,
    /// `ETag` of the last complete response, byte for byte.
    pub etag: Option<String>,
    /// `Last-Modified` of the last complete response, byte for byte.
    pub last_modified: Option<String>,
    /// Hash of the last decoded body: the same bytes are not parsed again.
    pub body_hash: Option<u64>,
    /// When the last full (200) response was received.
    pub last_full: Option<Timestamp>,
    /// How long the last response with a feed was fresh when it left its server, in seconds; a 304 that says nothing about
    /// it renews that, and a failing feed is not visited sooner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh_s: Option<u32>,
    /// When it stops being fresh, if the server has named a date: no 304 without a date renews it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh_until: Option<Timestamp>,
    /// When the last unconditional request was sent, whatever its result.
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
    /// The last error, until a visit succeeds.
    pub last_error: Option<String>,
    /// Failed visits in a row.
    pub failures: u32,
    /// 410 responses in a row.
    pub gone_in_a_row: u32,
    /// No visits to its host before this time (Retry-After of a 429).
    pub host_asked_until: Option<Timestamp>,
    /// The registrable domain of that host, which a redirect may lead to; of a private one its name or address, and the
    /// port. `None` in a store of an older version: that of the
    /// configured address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_asked: Option<Box<str>>,
    /// Why it is in quarantine: its document is dangerous to parse.
    pub quarantine: Option<String>,
    /// Schedule hints of the last document.
    pub rhythm: FeedRhythm,
    /// When the next visit is due; `None` if there is none.
    pub next_visit: Option<Timestamp>,
    /// Why then.
    pub why: String,
    /// Repairs of the last document, at most 8.
    pub warnings: Vec<String>,
    /// Whether the guids of the last document were other ones than before for the same items; one of the warnings says so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub guids_flap: bool,
    /// Whether updates of the last document were absorbed, because the source changes many items at most visits; one of the
    /// warnings says so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub updates_damped: bool,
    /// What waits because the source has more new bytes than it may record; `None` if nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flooding: Option<Box<FloodingState>>,
    /// Visits that found the document unchanged since it was read last: its items have been quiet for so long.
    #[serde(skip_serializing_if = "is_zero")]
    pub unchanged_visits: u32,
    /// Totals.
    pub counts: SourceTotals,
    /// The pause, if it is paused. A visit does not change it: the writer keeps the stored value.
    pub paused: Option<Pause>,
    /// Its WebSub state; `None` for most sources, which never had a hub.
    pub websub: Option<Box<WebSubState>>,
    /// The last visits, the newest last; at most [`Attempt::KEPT`].
    #[serde(with = "rows")]
    pub attempts: Vec<Attempt>,
    /// Its permanent redirects.
    pub moves: RedirectState,
    /// When its visits found new items.
    #[serde(skip_serializing_if = "is_zero")]
    pub news: NewsRhythm,
    /// How long it is usually silent.
    #[serde(skip_serializing_if = "is_zero")]
    pub silences: Silences,
    /// When the certificate of its server has expired: it is trusted all the same, because it is in `tls_ca_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expired: Option<Box<Timestamp>>,
}

/// The one rule behind `--failing`.
fn is_failing(failures: u32, last_status: Option<VisitStatus>, is_flooding: bool) -> bool {
    failures > 0 || last_status == Some(VisitStatus::Gone) || is_flooding
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

impl SourceState {
    /// See [`SourceStatus::is_failing`].
    #[must_use]
    pub fn is_failing(&self) -> bool {
        is_failing(self.failures, self.last_status, self.flooding.is_some())
    }

    /// Whether it was quiet when it answered last, whatever has happened since. While items wait, it has something new.
    #[must_use]
    pub fn quiet(&self) -> Option<Quiet> {
        if self.flooding.is_some() {
            return None;
        }
        self.silences.quiet(self.last_news?, self.last_success?)
    }

    /// Completes the newest attempt with the counts of the writer.
    pub fn finish_attempt(&mut self, new: u32, updated: u32) {
        if let (Some(attempt), Some(status)) = (self.attempts.last_mut(), self.last_status) {
            (attempt.status, attempt.new, attempt.updated) = (status, new, updated);
        }
    }
}

/// A pause that the server of a former address asked for: it holds again when the address returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerAddress {
    /// As [`SourceState::address`].
    pub address: u64,
    /// No visit before this time.
    pub not_before: Timestamp,
    /// Failed visits in a row.
    pub failures: u32,
}

/// The pauses of former addresses, and that of the present one if it has come back and was not visited since. Boxed, because
/// hardly any source has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredFormerAddresses")]
pub struct FormerAddresses(Vec<FormerAddress>);

impl FormerAddresses {
    /// So many are kept: those that end last.
    pub const KEPT: usize = 4;

    /// The pause of an address.
    #[must_use]
    pub fn get(&self, address: u64) -> Option<&FormerAddress> {
        self.0.iter().find(|former| former.address == address)
    }

    /// Adds a pause. The later one of an address holds.
    pub fn add(&mut self, pause: FormerAddress) {
        if self.get(pause.address).is_some_and(|other| other.not_before >= pause.not_before) {
            return;
        }
        self.forget(pause.address);
        self.0.push(pause);
        self.0.sort_by_key(|former| std::cmp::Reverse(former.not_before));
        self.0.truncate(Self::KEPT);
    }

    /// Removes the pause of an address.
    pub fn forget(&mut self, address: u64) {
        self.0.retain(|former| former.address != address);
    }

    /// Removes what is over.
    pub fn forget_over(&mut self, now: Timestamp) {
        self.0.retain(|former| now < former.not_before);
    }

    /// As a state has them.
    #[must_use]
    pub fn boxed(self) -> Option<Box<Self>> {
        (!self.0.is_empty()).then(|| Box::new(self))
    }
}

/// A store of an older version has one.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredFormerAddresses {
    One(FormerAddress),
    Several(Vec<FormerAddress>),
}

impl From<StoredFormerAddresses> for FormerAddresses {
    fn from(stored: StoredFormerAddresses) -> Self {
        match stored {
            StoredFormerAddresses::One(former) => Self(vec![former]),
            StoredFormerAddresses::Several(several) => Self(several),
        }
    }
}

/// What a source has that is new and not recorded yet, because it is more than it may record. Later visits record it, as far
/// as the document still has it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flooding {
    /// Since when something has been waiting.
    pub since: Timestamp,
    /// Items that waited after the last visit that read the document.
    pub waiting_items: u32,
    /// Their size in bytes, as they would be stored.
    pub waiting_bytes: u64,
    /// What they wait for.
    #[serde(default)]
    pub bound: FloodingBound,
    /// Items that waited and were lost, because the feed no longer has them.
    #[serde(default)]
    pub lost_items: u32,
}

/// A host that asked for a pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldHost {
    /// Its name, as the limiter of the daemon has it.
    pub host: Box<str>,
    /// No request before then.
    pub until: Timestamp,
    /// The status of the answer that asked for it.
    pub code: u16,
}

/// What keeps a visit from recording all that is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloodingBound {
    /// One visit has recorded as much as it may (`fetch.new_bytes_max`).
    #[default]
    Visit,
    /// The log is full, the source has its share of it (`store.source_share_percent`), and the next event to go is of another
    /// source.
    Retention,
    /// The same of what the gateways have in memory (`gateway.ring_events`, `gateway.ring_bytes`).
    Ring,
}

impl FloodingBound {
    /// The word for it in JSON and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Visit => "visit",
            Self::Retention => "retention",
            Self::Ring => "ring",
        }
    }
}

/// [`Flooding`], and what it costs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloodingState {
    /// What waits.
    #[serde(flatten)]
    pub flooding: Flooding,
    /// Requests without validators that were sent for it, although the document may not have changed.
    #[serde(default)]
    pub full_visits: u8,
}

impl FloodingState {
    /// After so many requests without validators, what waits is fetched when the document changes, and once a day.
    pub const FULL_VISITS_MAX: u8 = 8;
}

/// Schedule hints of a document; stored, because a 304 has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeedRhythm {
    /// `ttl` of RSS 2.0, in seconds.
    pub ttl_s: Option<u64>,
    /// `sy:updatePeriod` divided by `sy:updateFrequency`, in seconds.
    pub update_interval_s: Option<u64>,
    /// `skipHours`: bit n is the hour n of the day in UTC.
    pub skip_hours: u32,
    /// `skipDays`: bit 0 is Monday, bit 6 Sunday, in UTC.
    pub skip_days: u8,
    /// When its newest items were published, at most 20.
    pub recent: Vec<Timestamp>,
}

/// A source and its status: an element of `GET /sources`; with its last visits, `GET /sources/{id}`.
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
    /// Its keys in the catalogue about requests, such as `basic_file`.
    #[serde(default)]
    pub access: Vec<String>,
    /// The address that is fetched instead of `url` after a permanent redirect; without secrets.
    #[serde(default)]
    pub moved_to: Option<String>,
    /// Since when.
    #[serde(default)]
    pub moved_since: Option<Timestamp>,
    /// What its actor is doing: `idle`, `waiting`, `fetching`, `parsing`, `recording`, `down`, `paused` or
    /// `disabled`.
    pub activity: String,
    /// Since when.
    pub activity_since: Option<Timestamp>,
    /// What it is waiting for while a visit is due.
    #[serde(default)]
    pub waiting_for: Option<String>,
    /// Why it is in quarantine, until its document is parsed quickly or an operator orders a visit.
    #[serde(default)]
    pub quarantine: Option<String>,
    /// How the last visit ended.
    pub last_status: Option<VisitStatus>,
    /// The last HTTP status code.
    pub last_code: Option<u16>,
    /// When the last visit ended.
    pub last_visit: Option<Timestamp>,
    /// Its duration in milliseconds.
    pub last_took_ms: Option<u64>,
    /// Bytes of its decoded body.
    #[serde(default)]
    pub last_body_bytes: Option<u64>,
    /// When the last healthy visit ended.
    pub last_success: Option<Timestamp>,
    /// The last error.
    pub last_error: Option<String>,
    /// Failed visits in a row.
    pub consecutive_failures: u32,
    /// When the next visit is due.
    pub next_visit: Option<Timestamp>,
    /// Why then.
    pub why: String,
    /// Repairs of the last document.
    pub warnings: Vec<String>,
    /// Number of times that its actor died and was restarted.
    pub restarts: u32,
    /// Totals.
    pub counts: SourceTotals,
    /// Its newest event, if the daemon knows it.
    pub last_event: Option<Cursor>,
    /// The pause, while it is in effect.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// Its WebSub state.
    #[serde(default)]
    pub push: PushStatus,
    /// What waits because it has more new items than it may record at once.
    #[serde(default)]
    pub flooding: Option<Flooding>,
    /// Since when nothing was new, if that is much longer than usual although it answers.
    #[serde(default)]
    pub quiet: Option<Quiet>,
    /// The id of the list that it comes from; `None` if it is written in the catalogue itself.
    #[serde(default)]
    pub list: Option<SourceId>,
    /// Its last visits, the newest last; shown by [`SourceInFull`], not in lists.
    #[serde(default, with = "rows", skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

impl SourceStatus {
    /// Whether an operator should look at it: its last visit failed or found the feed gone, or some of its items wait.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        is_failing(self.consecutive_failures, self.last_status, self.flooding.is_some())
    }
}

/// A source, its status and its last visits: the response of `GET /sources/{id}`.
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
