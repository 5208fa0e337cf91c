//! What can go wrong with a visit: one of the closed set of classes, and a sentence.

use std::{error::Error, io};

use news::{Escaped, FailureClass};
use serde::Serialize;

/// Why a visit gave no feed, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{class}: {message}")]
pub struct Failure {
    /// One of the closed set.
    #[serde(rename = "kind")]
    pub class: FailureClass,
    /// One sentence, with no secret and no control character in it.
    pub message: String,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }
}

/// The errors that led to an error, itself first. Errors inside an [`io::Error`] are found too, which hides them
/// from `source()`.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// What was wrong at the bottom of it, fit for a log line.
fn root(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(|cause| Escaped(&cause.to_string()).to_string()).unwrap_or_default()
}

/// The total deadline passed.
pub(crate) fn out_of_time(doing: &str) -> Failure {
    Failure::new(FailureClass::Timeout, format!("the visit ran out of time while {doing}"))
}

/// A connection that could not be had. The error must have lost its URL.
pub(crate) fn of_connection(error: &reqwest::Error, host: &str) -> Failure {
    let why = root(error);
    if error.is_builder() {
        return Failure::new(FailureClass::BadUrl, format!("{host} cannot be asked: {why}"));
    }
    if causes(error).any(<dyn Error>::is::<rustls::Error>) {
        return Failure::new(FailureClass::Tls, format!("no trustworthy TLS session with {host}: {why}"));
    }
    if error.is_timeout() {
        return Failure::new(FailureClass::Timeout, format!("connecting to {host} took too long"));
    }
    Failure::new(FailureClass::Connect, format!("could not connect to {host}: {why}"))
}

/// A connection that brought no head. The error must have lost its URL.
pub(crate) fn of_head(error: &reqwest::Error, host: &str) -> Failure {
    let is_garbage = |cause: &(dyn Error + 'static)| cause.downcast_ref().is_some_and(hyper::Error::is_parse);
    let why = root(error);
    if causes(error).any(is_garbage) {
        return Failure::new(FailureClass::BadHttp, format!("what {host} sent is not HTTP: {why}"));
    }
    Failure::new(FailureClass::Truncated, format!("{host} ended the connection before it answered: {why}"))
}

/// A body that did not arrive whole. The error must have lost its URL.
pub(crate) fn of_body(error: &reqwest::Error) -> Failure {
    let why = root(error);
    // What the connection did is a `hyper::Error`; what the decoder found is not.
    let is_cut = |cause: &(dyn Error + 'static)| {
        let ended = |e: &io::Error| e.kind() == io::ErrorKind::UnexpectedEof;
        cause.is::<hyper::Error>() || cause.downcast_ref().is_some_and(ended)
    };
    if causes(error).any(is_cut) {
        return Failure::new(FailureClass::Truncated, format!("the body ended too early: {why}"));
    }
    Failure::new(FailureClass::BadEncoding, format!("the body does not match its content coding: {why}"))
}
