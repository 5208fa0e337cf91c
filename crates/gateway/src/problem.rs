//! The one place where something that went wrong becomes an answer: RFC 9457 problem JSON with a stable `code`, and
//! no inner text.

use std::fmt;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use serde_json::json;

use crate::readers::Refusal;

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    status: u16,
    code: &'static str,
    detail: String,
    retry_after_s: Option<u64>,
}

impl Problem {
    fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after_s: None }
    }

    /// 400: `name` is one of ours, the value is not shown again.
    pub(crate) fn bad_parameter(name: &str, wanted: &str) -> Self {
        Self::new(400, "bad-parameter", format!("{name}: {wanted}"))
    }

    /// 400.
    pub(crate) fn many_values(name: &str) -> Self {
        Self::bad_parameter(name, "at most 32 values are taken")
    }

    /// 414.
    pub(crate) fn long_query() -> Self {
        Self::new(414, "long-query", "a query has at most 2048 bytes")
    }

    /// 401; the answer names the scheme.
    pub(crate) fn not_the_operator() -> Self {
        Self::new(401, "not-the-operator", "this needs the operator's token, as Authorization: Bearer")
    }

    /// 401: no reader; the answer names the scheme.
    pub(crate) fn no_reader(refusal: Refusal) -> Self {
        let (code, detail) = refusal.told();
        Self::new(401, code, detail)
    }

    /// 400: the token is not shown again.
    pub(crate) fn token_in_query() -> Self {
        let detail = "a token never stands in an address; send it as Authorization: Bearer";
        Self::new(400, "token-in-query", detail)
    }

    /// 403.
    pub(crate) fn no_operator() -> Self {
        Self::new(403, "no-operator", "orders are off; set gateway.operator_token_file to turn them on")
    }

    /// 503: the daemon did not answer; what exactly is for the log.
    pub(crate) fn no_daemon() -> Self {
        let detail = "the ingestion daemon did not answer in time";
        Self { retry_after_s: Some(5), ..Self::new(503, "no-daemon", detail) }
    }

    /// 503: too many orders wait.
    pub(crate) fn busy() -> Self {
        Self {
            retry_after_s: Some(5),
            ..Self::new(503, "busy", "too many orders wait for the ingestion daemon")
        }
    }

    /// 408: the body did not come in time.
    pub(crate) fn slow_body() -> Self {
        Self::new(408, "slow-body", "the request's body did not come in time")
    }

    /// 413.
    pub(crate) fn large_body() -> Self {
        Self::new(413, "large-body", "a request's body has at most 16 KiB")
    }

    /// 413 for a hub.
    pub(crate) fn large_push() -> Self {
        Self::new(413, "large-body", "a push has at most 1 MiB")
    }

    /// 429: an address that tries one id of a callback after the other.
    pub(crate) fn guessing() -> Self {
        let detail = "too many ids that are none were tried from this address";
        Self { retry_after_s: Some(60), ..Self::new(429, "too-many-unknown", detail) }
    }

    /// 503: we took too long ourselves.
    pub(crate) fn slow_answer() -> Self {
        Self { retry_after_s: Some(5), ..Self::new(503, "slow-answer", "there was no answer in time") }
    }

    /// 503: nearly all connections are in use.
    pub(crate) fn overloaded() -> Self {
        let detail = "too many connections are open";
        Self { retry_after_s: Some(5), ..Self::new(503, "overloaded", detail) }
    }

    /// 404.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(404, "not-found", what)
    }

    /// 405; the route adds `Allow`.
    pub(crate) fn method() -> Self {
        Self::new(405, "method-not-allowed", "GET and HEAD are served here")
    }

    /// 405 where orders are taken; the route adds `Allow`.
    pub(crate) fn method_post() -> Self {
        Self::new(405, "method-not-allowed", "POST is served here")
    }

    /// 405 where hubs call; the route adds `Allow`.
    pub(crate) fn method_hub() -> Self {
        Self::new(405, "method-not-allowed", "GET and POST are served here")
    }

    /// 410: an event that retention has removed.
    pub(crate) fn no_longer_kept() -> Self {
        Self::new(410, "no-longer-kept", "this event is older than what is kept")
    }

    /// 410: an id of another life of the log.
    pub(crate) fn other_log() -> Self {
        Self::new(410, "other-log", "this id belongs to another log; begin without it")
    }

    /// 505: a client that could not tell our chunks from our events.
    pub(crate) fn version() -> Self {
        Self::new(505, "http-version", "the stream needs HTTP/1.1 or newer")
    }

    /// 421: a `Host` that is not ours.
    pub(crate) fn wrong_host() -> Self {
        Self::new(421, "wrong-host", "this host name is not served here; see gateway.hosts")
    }

    /// 503: the events are not here yet.
    pub(crate) fn not_filled() -> Self {
        let detail = "no events have been received from the ingestion daemon yet";
        Self { retry_after_s: Some(2), ..Self::new(503, "not-filled", detail) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut answer = HttpResponse::build(status);
        answer.content_type("application/problem+json").insert_header(("cache-control", "no-store"));
        if self.status == 401 {
            answer.insert_header(("www-authenticate", "Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            answer.insert_header(("retry-after", seconds.to_string()));
        }
        let title = status.canonical_reason().unwrap_or("error");
        let body = json!({
            "type": "about:blank", "title": title, "status": self.status, "code": self.code, "detail": self.detail,
        });
        answer.body(body.to_string())
    }
}
