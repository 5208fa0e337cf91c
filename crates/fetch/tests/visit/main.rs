//! Visits to servers on loopback that are honest, slow, false or hostile.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

mod allowed_networks;
mod bodies;
mod conditional;
mod deadlines;
mod guard;
mod heads;
mod hostile;
mod origin;
mod redirects;
mod request_options;
mod tls;
mod tolerance;

use std::time::Duration;

use fetch::{Failure, FailureClass, FetchReport, FetchResult, Full, Policy, VisitRequest, Visitor};
use news::{FeedUrl, Timestamp};

/// 1994-11-06T08:49:37Z
const NOW_MS: i64 = 784_111_777_000;

/// The defaults, but only 127.0.0.1 is allowed, and the time limits are those that a busy machine does not reach: a test of
/// a limit sets a short one.
fn policy() -> Policy {
    Policy {
        timeout_connect: Duration::from_secs(60),
        timeout_first_byte: Duration::from_secs(60),
        timeout_total: Duration::from_secs(90),
        rate_grace: Duration::from_secs(30),
        retry_pause: Duration::from_millis(20),
        allow: vec!["127.0.0.1/32".parse().unwrap()],
        ..Policy::default()
    }
}

fn visitor() -> Visitor {
    Visitor::try_new(policy()).unwrap()
}

async fn visit_with(
    visitor: &Visitor,
    url: &str,
    etag: Option<&str>,
    last_modified: Option<&str>,
) -> FetchReport {
    let url = FeedUrl::try_new(url).unwrap();
    let now = Timestamp::from_millis(NOW_MS);
    visitor.visit(&VisitRequest { etag, last_modified, ..VisitRequest::new(&url, now) }).await
}

async fn visit(url: &str) -> FetchReport {
    visit_with(&visitor(), url, None, None).await
}

fn full(visit: FetchReport) -> Full {
    match visit.answer {
        FetchResult::Full(full) => full,
        other => panic!("expected a document, got {other:?}"),
    }
}

fn failure(visit: &FetchReport) -> Failure {
    match &visit.answer {
        FetchResult::Failed(failure) => failure.clone(),
        other => panic!("expected a failure, got {}", other.as_str()),
    }
}

fn class(visit: &FetchReport) -> FailureClass {
    failure(visit).class
}
