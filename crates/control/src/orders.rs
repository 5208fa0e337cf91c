//! Orders of an operator: visit, pause and resume sources, and change the log level.

use serde::{Deserialize, Serialize};

/// Sources per order; an order with more is refused.
pub const ORDER_SOURCES_MAX: usize = 1000;

/// Sources by what they are: enabled ones, of which each condition that is given holds; `{}` is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSelection {
    /// The last visit failed or found the feed gone, or new items wait (`SourceStatus::is_failing`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failing: bool,
    /// Of one of these categories, in upper or lower case; of any if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

/// `POST /visits`: visit sources now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisitOrder {
    /// Their ids; without them and without a selection every source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<String>>,
    /// Others, however many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<SourceSelection>,
    /// Once without validators, and whatever the answer has is read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
}

/// The result of a [`VisitOrder`]: the ids of its sources, by what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisitAnswer {
    /// Visited as soon as their hosts allow it.
    pub accepted: Vec<String>,
    /// Not in the catalogue.
    pub unknown: Vec<String>,
    /// Disabled in the catalogue.
    pub disabled: Vec<String>,
    /// An earlier order has not been carried out yet.
    pub busy: Vec<String>,
    /// Not visited before they are resumed.
    pub paused: Vec<String>,
    /// Categories of the selection that no source has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_categories: Vec<String>,
}

/// `POST /pauses`: do not visit sources, until a date or until they are resumed. `T` is the type of a date, RFC 3339 in
/// JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseOrder<T = String> {
    /// Their ids.
    pub sources: Vec<String>,
    /// For how long, in seconds. `until` takes precedence; without either, only an order ends the pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
    /// When the pause ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<T>,
    /// The reason, shown with the source. At most 200 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Other sources, however many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<SourceSelection>,
    /// The pause is kept for those of `sources` that are not in the catalogue yet (they are in [`PauseAnswer::unknown`]): they
    /// have it before their first visit if they are listed within three minutes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub coming: bool,
}

/// `POST /pauses/end`: resume sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeOrder {
    /// Their ids.
    pub sources: Vec<String>,
    /// Other sources, however many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<SourceSelection>,
}

/// The result of a [`PauseOrder`] or a [`ResumeOrder`]: the ids of its sources, by what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseAnswer {
    /// Paused or resumed, and written to disk.
    pub done: Vec<String>,
    /// Not resumed, because they were not paused.
    pub idle: Vec<String>,
    /// Not in the catalogue.
    pub unknown: Vec<String>,
    /// Disabled in the catalogue.
    pub disabled: Vec<String>,
    /// Categories of the selection that no source has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_categories: Vec<String>,
}

/// `POST /lists/reads`: read lists of feeds now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListOrder {
    /// Their ids.
    pub lists: Vec<String>,
    /// What they have is taken, however many feeds they have lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub take: bool,
}

/// The result of a [`ListOrder`]: the ids of its lists, by what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAnswer {
    /// Read as soon as their hosts allow it.
    pub accepted: Vec<String>,
    /// Not in the catalogue.
    pub unknown: Vec<String>,
    /// Disabled in the catalogue.
    pub disabled: Vec<String>,
    /// Being read.
    pub busy: Vec<String>,
}

/// The answer of `GET /log-level` and `PUT /log-level`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// The level or filter in force, in the syntax of `log.level`.
    pub level: String,
}
