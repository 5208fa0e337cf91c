//! Why a visit failed: a class of the closed set, and a sentence.

use std::{error::Error, io};

use news::{Escaped, FailureClass};
use serde::Serialize;

use crate::{connection::EndlessInterim, limits::Deadline};

/// Why a visit failed, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{class}: {message}")]
pub struct Failure {
    /// One of the closed set.
    #[serde(rename = "kind")]
    pub class: FailureClass,
    /// One sentence, without secrets and control characters.
    pub message: String,
}

impl Failure {
    /// A failure with its message.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }
}

/// The chain of causes of an error, itself first. It includes errors inside an [`io::Error`], which `source()` skips.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// The root cause, escaped for a log line.
fn root(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(|cause| Escaped(&cause.to_string()).to_string()).unwrap_or_default()
}

/// A request that cannot be sent. The error must not contain the URL.
pub(crate) fn of_request(error: &(dyn Error + 'static), host: &str) -> Failure {
    Failure::new(FailureClass::BadUrl, format!("the request to {host} is invalid: {}", root(error)))
}

/// A connection that was not established by its deadline.
pub(crate) fn of_connection(error: &(dyn Error + 'static), host: &str, deadline: Deadline) -> Failure {
    let why = root(error);
    if causes(error).any(<dyn Error>::is::<rustls::Error>) {
        return Failure::new(FailureClass::Tls, format!("no trustworthy TLS session with {host}: {why}"));
    }
    let is_late = |e: &io::Error| e.kind() == io::ErrorKind::TimedOut;
    if causes(error).any(|cause| cause.downcast_ref().is_some_and(is_late)) {
        // The time is shared out among the addresses of the host.
        return deadline.failure(&format!("connecting to {host}"));
    }
    Failure::new(FailureClass::Connect, format!("could not connect to {host}: {why}"))
}

/// A connection without the head of a response.
pub(crate) fn of_head(error: &(dyn Error + 'static), host: &str) -> Failure {
    let is_garbage = |cause: &(dyn Error + 'static)| cause.downcast_ref().is_some_and(hyper::Error::is_parse);
    let why = root(error);
    if causes(error).any(<dyn Error>::is::<EndlessInterim>) {
        return Failure::new(FailureClass::BadHttp, format!("{host} sent {why}"));
    }
    if causes(error).any(is_garbage) {
        return Failure::new(FailureClass::BadHttp, format!("what {host} sent is not HTTP: {why}"));
    }
    Failure::new(FailureClass::Truncated, format!("{host} closed the connection before it answered: {why}"))
}

/// An incomplete body.
pub(crate) fn of_body(error: &(dyn Error + 'static)) -> Failure {
    Failure::new(FailureClass::Truncated, format!("the body ended too early: {}", root(error)))
}
