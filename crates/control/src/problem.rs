//! Problem details for HTTP (RFC 9457), the form of every error answer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The media type of a problem (RFC 9457, section 6.1).
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// The `code` of a route that does not exist.
pub const UNKNOWN_ROUTE: &str = "not-found";

/// The `type` of a problem, a URI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProblemType {
    /// Described by its status and `code` alone (RFC 9457, section 4.2.1), as all problems of newswire are.
    #[default]
    #[serde(rename = "about:blank")]
    AboutBlank,
    /// Any other type.
    #[serde(other)]
    Other,
}

/// An error answer. Programs decide by `status` and `code`; `title` and `detail` are for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `type`
    #[serde(rename = "type", default)]
    pub problem_type: ProblemType,
    /// The kind of problem: the reason phrase of the status.
    #[serde(default)]
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// The stable name of the problem, such as `reload-busy`.
    pub code: String,
    /// What happened in this case.
    #[serde(default)]
    pub detail: String,
    /// All complaints about a file, each with file, line and key. Left out if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<String>,
}

impl Problem {
    /// The title follows from the status.
    #[must_use]
    pub fn new(status: u16, code: impl Into<String>, detail: impl Into<String>) -> Self {
        let phrase = hyper::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        Self {
            problem_type: ProblemType::AboutBlank,
            title: phrase.unwrap_or("error").to_owned(),
            status,
            code: code.into(),
            detail: detail.into(),
            complaints: Vec::new(),
        }
    }

    /// 404: there is no such route.
    #[must_use]
    pub fn unknown_route() -> Self {
        Self::new(404, UNKNOWN_ROUTE, "unknown route")
    }

    /// 422: the configuration was not reloaded.
    #[must_use]
    pub fn bad_configuration(complaints: Vec<String>) -> Self {
        let detail = "the configuration has mistakes; the old one stays in force";
        Self { complaints, ..Self::new(422, "bad-configuration", detail) }
    }

    /// 422: the ingestion daemon reloaded nothing, because of its configuration or of the list of sources.
    #[must_use]
    pub fn bad_catalogue(complaints: Vec<String>) -> Self {
        let detail = "the configuration or the list of sources has mistakes; the old ones stay in force";
        Self { complaints, ..Self::new(422, "bad-catalogue", detail) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.detail.as_str(), self.title.as_str()) {
            ("", "") => write!(f, "status {}, {}", self.status, self.code),
            ("", title) => f.write_str(title),
            (detail, _) => f.write_str(detail),
        }
    }
}

impl std::error::Error for Problem {}
