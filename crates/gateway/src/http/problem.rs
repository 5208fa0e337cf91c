//! The one place where an error becomes a response: RFC 9457 problem JSON with a stable `code`. The text of inner
//! errors is for the log, and never in here.

use std::{fmt, time::Duration};

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use control::{Problem, problem::PROBLEM_MEDIA_TYPE};

use crate::{
    auth::{error::AuthError, operator::OperatorError},
    ingest::{log_unavailable::LogUnavailable, no_answer::NoAnswer},
    pages::{news_page::NewsPageError, pool::PageRefused},
    unsent::UnsentRefused,
};

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpProblem {
    problem: Problem,
    retry_after_s: Option<u64>,
}

impl HttpProblem {
    fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self { problem: Problem::new(status, code, detail), retry_after_s: None }
    }

    fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// 400: `name` is a known parameter; its value is not repeated.
    pub(crate) fn bad_parameter(name: &str, expected: &str) -> Self {
        Self::new(400, "bad-parameter", format!("{name}: {expected}"))
    }

    /// 400
    pub(crate) fn many_values(name: &str) -> Self {
        Self::bad_parameter(name, "expected at most 32 values")
    }

    /// 414
    pub(crate) fn long_query() -> Self {
        Self::new(414, "long-query", "the query is longer than 2048 bytes")
    }

    /// 400: the token is not repeated.
    pub(crate) fn token_in_query() -> Self {
        let detail = "tokens are not accepted in the URL; send an `Authorization: Bearer` header";
        Self::new(400, "token-in-query", detail)
    }

    /// 503: the daemon did not answer; more of the reason is in the log.
    pub(crate) fn no_daemon(why: NoAnswer) -> Self {
        Self::new(503, "no-daemon", why.to_string()).retry_after(5)
    }

    /// 503: too many orders wait.
    pub(crate) fn busy() -> Self {
        Self::new(503, "busy", "too many requests wait for the ingestion daemon").retry_after(5)
    }

    /// 408
    pub(crate) fn slow_body() -> Self {
        Self::new(408, "slow-body", "the request body did not arrive in time")
    }

    /// 413
    pub(crate) fn large_body() -> Self {
        Self::new(413, "large-body", "the request body is larger than 16 KiB")
    }

    /// 413 for a hub.
    pub(crate) fn large_push() -> Self {
        Self::new(413, "large-body", "the push is larger than 1 MiB")
    }

    /// 429: an address probes for callback ids.
    pub(crate) fn too_many_unknown() -> Self {
        let detail = "too many unknown callback ids were requested from this address";
        Self::new(429, "too-many-unknown", detail).retry_after(60)
    }

    /// 429: the address has used up its requests per second.
    pub(crate) fn too_many_requests(wait: Duration) -> Self {
        Self::too_much("too many requests came from this address; send fewer per second", wait)
    }

    /// 429: the address has read as much of the log as it may per second.
    fn too_many_old_events(wait: Duration) -> Self {
        Self::too_much("this address has read too many older events; request fewer per second", wait)
    }

    /// 429: too many requests of one address to `/websub/{id}` are in progress.
    pub(crate) fn too_many_callbacks(wait: Duration) -> Self {
        Self::too_much("too many requests of this address are in progress", wait)
    }

    fn too_much(detail: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self::new(429, "too-many-requests", detail).retry_after(seconds.max(1))
    }

    /// 503: the handler took too long.
    pub(crate) fn slow_answer() -> Self {
        Self::new(503, "slow-answer", "the request was not answered in time").retry_after(5)
    }

    /// 503: nearly all connections are in use.
    pub(crate) fn overloaded() -> Self {
        Self::new(503, "overloaded", "too many connections are open").retry_after(5)
    }

    /// 404
    pub(crate) fn not_found(detail: &str) -> Self {
        Self::new(404, "not-found", detail)
    }

    /// 405; the route adds `Allow`.
    pub(crate) fn method_not_allowed(detail: &str) -> Self {
        Self::new(405, "method-not-allowed", detail)
    }

    /// 410: an event that retention has removed.
    pub(crate) fn no_longer_kept() -> Self {
        Self::new(410, "no-longer-kept", "this event is older than the events kept")
    }

    /// 410: an id of another epoch.
    pub(crate) fn other_log() -> Self {
        Self::new(410, "other-log", "this id belongs to another log; start again without it")
    }

    /// 410: an id of this epoch that is newer than the log, as after a restore from an older copy.
    pub(crate) fn beyond_the_log() -> Self {
        Self::new(
            410,
            "other-log",
            "this id is newer than the newest event of the log; start again without it",
        )
    }

    /// 421: a `Host` that is not served.
    pub(crate) fn wrong_host() -> Self {
        Self::new(421, "wrong-host", "this host name is not served; add it to gateway.hosts")
    }

    /// 429: one address asks for too much at the same time.
    fn too_many_at_once(detail: &str) -> Self {
        Self::too_much(detail, Duration::from_secs(1))
    }

    /// 503: all clients together ask for too much at the same time.
    fn too_many_pages(detail: &str) -> Self {
        Self::new(503, "overloaded", detail).retry_after(2)
    }

    /// 503: the ring is not filled yet.
    pub(crate) fn not_filled() -> Self {
        Self::new(503, "not-filled", "no events were received from the ingestion daemon yet").retry_after(2)
    }

    /// 503: the list of sources was not received yet.
    pub(crate) fn not_listed() -> Self {
        let detail = "the list of sources was not received from the ingestion daemon yet";
        Self::new(503, "not-filled", detail).retry_after(2)
    }
}

impl From<AuthError> for HttpProblem {
    /// 401; the response names the scheme.
    fn from(error: AuthError) -> Self {
        let (code, detail) = error.client_message();
        Self::new(401, code, detail)
    }
}

impl From<OperatorError> for HttpProblem {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::NotConfigured => Self::new(
                403,
                "no-operator",
                "orders are disabled; set gateway.operator_token_file to enable them",
            ),
            // The response names the scheme.
            OperatorError::WrongToken => {
                Self::new(401, "not-the-operator", "send the operator's token as `Authorization: Bearer`")
            }
        }
    }
}

impl From<PageRefused> for HttpProblem {
    fn from(refused: PageRefused) -> Self {
        match refused {
            PageRefused::Address | PageRefused::Network => {
                Self::too_many_at_once("too many requests of this address wait for their answers")
            }
            PageRefused::Total => Self::too_many_pages("too many requests wait for their answers"),
            PageRefused::Late => Self::slow_answer(),
        }
    }
}

impl From<UnsentRefused> for HttpProblem {
    fn from(refused: UnsentRefused) -> Self {
        match refused {
            UnsentRefused::Address => {
                Self::too_many_at_once("this address has not read the answers to its earlier requests")
            }
            UnsentRefused::Total => {
                Self::too_many_pages("too many answers wait for clients that do not read")
            }
        }
    }
}

impl From<LogUnavailable> for HttpProblem {
    fn from(unavailable: LogUnavailable) -> Self {
        match unavailable {
            LogUnavailable::Busy => Self::busy(),
            LogUnavailable::Silent => Self::no_daemon(NoAnswer::Late),
            LogUnavailable::NoAnswer(why) => Self::no_daemon(why),
            LogUnavailable::OtherLog => Self::other_log(),
        }
    }
}

impl From<NewsPageError> for HttpProblem {
    fn from(error: NewsPageError) -> Self {
        match error {
            NewsPageError::OtherLog => Self::other_log(),
            NewsPageError::Log(unavailable) => unavailable.into(),
            NewsPageError::Late => Self::slow_answer(),
            NewsPageError::Unsent(refused) => refused.into(),
            NewsPageError::OverBudget(wait) => Self::too_many_old_events(wait),
        }
    }
}

impl fmt::Display for HttpProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem.code, self.problem.detail)
    }
}

impl ResponseError for HttpProblem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        response.insert_header(("cache-control", "no-store"));
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header(("www-authenticate", "Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            response.insert_header(("retry-after", seconds.to_string()));
        }
        response.content_type(PROBLEM_MEDIA_TYPE);
        response.body(serde_json::to_string(&self.problem).expect("a problem has a JSON form"))
    }
}
