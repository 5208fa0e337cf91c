//! Why a visit failed: a class of the closed set, and a sentence.

use std::{error::Error, fmt, io};

use news::{FailureClass, ProxyUrl};
use serde::Serialize;

use crate::{
    cause::{EndlessInterim, WantsClientCertificate, causes, is_alert, is_closed, root},
    limits::Deadline,
    phase::VisitPhase,
    stream::{HEAD_BYTES_MAX, HEADERS_MAX},
    verifier,
};

/// What hyper says of a head with too many bytes or headers. It has no type of its own.
const LARGE_HEAD: &str = "message head is too large";

/// Why a visit failed, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{class}: {message}")]
pub struct Failure {
    /// One of the closed set.
    #[serde(rename = "kind")]
    pub class: FailureClass,
    /// One sentence, without secrets and control characters.
    pub message: String,
    /// What answered to TLS does not speak it.
    #[serde(skip)]
    pub is_without_tls: bool,
    /// How far the visit had come.
    #[serde(skip)]
    pub at: FailedAt,
}

/// How far a visit had come when it failed: a time limit may be exceeded at each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailedAt {
    /// The name was being looked up.
    Lookup,
    /// The host was being connected to.
    Connection,
    /// The proxy was being connected to, or connected to the host.
    Proxy,
    /// Anywhere else: there was no request, or the host was connected to.
    #[default]
    Answer,
}

impl Failure {
    /// A failure with its message.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), is_without_tls: false, at: FailedAt::Answer }
    }

    pub(crate) fn at(self, at: FailedAt) -> Self {
        Self { at, ..self }
    }
}

/// The host of a request, and the proxy in front of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination<'a> {
    pub(crate) host: &'a str,
    pub(crate) proxy: Option<&'a ProxyUrl>,
}

impl Destination<'_> {
    /// How far a connection has come.
    fn stage(&self, phase: VisitPhase) -> FailedAt {
        match (phase, self.proxy) {
            (VisitPhase::Tls, _) => FailedAt::Answer,
            (_, Some(_)) => FailedAt::Proxy,
            (_, None) => FailedAt::Connection,
        }
    }
}

impl fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proxy {
            Some(proxy) => write!(f, "{} behind the proxy {proxy}", self.host),
            None => f.write_str(self.host),
        }
    }
}

/// A request that cannot be sent. The error must not contain the URL.
pub(crate) fn of_request(error: &(dyn Error + 'static), host: &str) -> Failure {
    Failure::new(FailureClass::BadUrl, format!("the request to {host} is invalid: {}", root(error)))
}

/// What a connection was waiting for at its deadline.
pub(crate) fn late(to: Destination<'_>, phase: VisitPhase, deadline: Deadline) -> Failure {
    let Destination { host, proxy } = to;
    let failure = deadline.failure(&match (phase, proxy) {
        (VisitPhase::Tls, _) => format!("waiting for the TLS handshake with {to}"),
        (_, None) => format!("connecting to {host}"),
        (VisitPhase::ProxyTls, Some(proxy)) => {
            format!("waiting for the TLS handshake with the proxy {proxy}")
        }
        (VisitPhase::Tunnel, Some(proxy)) => format!("waiting for the proxy {proxy} to connect to {host}"),
        (_, Some(proxy)) => format!("connecting to the proxy {proxy}"),
    });
    failure.at(to.stage(phase))
}

/// A connection that was not established.
pub(crate) fn of_connection(
    error: &(dyn Error + 'static),
    to: Destination<'_>,
    phase: VisitPhase,
    deadline: Deadline,
) -> Failure {
    let is_late = |e: &io::Error| e.kind() == io::ErrorKind::TimedOut;
    if causes(error).any(|cause| cause.downcast_ref().is_some_and(is_late)) {
        // The time is shared out among the addresses of the host.
        return late(to, phase, deadline);
    }
    if phase == VisitPhase::Tls
        && let Some(failure) = of_handshake(error, to)
    {
        return failure;
    }
    let through = to.proxy.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
    let why = match tls_words(error).filter(|_| phase == VisitPhase::ProxyTls) {
        Some(why) => format!("no trustworthy TLS session with it: {why}"),
        None => root(error),
    };
    let message = format!("could not connect to {}{through}: {why}", to.host);
    Failure::new(FailureClass::Connect, message).at(to.stage(phase))
}

/// TLS with the host failed. `None`: for another reason.
fn of_handshake(error: &(dyn Error + 'static), to: Destination<'_>) -> Option<Failure> {
    let why = tls_words(error)?;
    let failure = Failure::new(FailureClass::Tls, format!("no trustworthy TLS session with {to}: {why}"));
    let is_garbage = |cause: &(dyn Error + 'static)| {
        matches!(cause.downcast_ref(), Some(rustls::Error::InvalidMessage(_)))
    };
    let is_without_tls = is_closed(error) || causes(error).any(is_garbage);
    Some(Failure { is_without_tls, ..failure })
}

/// Why a TLS handshake failed; `None` if the failure has another cause than TLS.
fn tls_words(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(wanted) = causes(error).find_map(|cause| cause.downcast_ref::<WantsClientCertificate>()) {
        return Some(wanted.to_string());
    }
    let tls = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>());
    tls.map(verifier::in_words).or_else(|| {
        is_closed(error).then(|| {
            "it closed the connection during the TLS handshake; it may know no TLS version or cipher that newswire accepts; \
             then its operator must enable TLS 1.2 or 1.3 with ECDHE and AES-GCM, or a proxy of your own that speaks the \
             old one helps"
                .to_owned()
        })
    })
}

/// A connection without the head of a response.
pub(crate) fn of_head(
    error: &(dyn Error + 'static),
    to: Destination<'_>,
    is_certificate_wanted: bool,
) -> Failure {
    let is_garbage = |cause: &(dyn Error + 'static)| cause.downcast_ref().is_some_and(hyper::Error::is_parse);
    let why = root(error);
    if causes(error).any(<dyn Error>::is::<EndlessInterim>) {
        return Failure::new(FailureClass::BadHttp, format!("{to} sent {why}"));
    }
    // TLS 1.3 tells of a certificate that it misses only after the handshake.
    let misses_certificate = is_certificate_wanted && is_alert(error);
    if causes(error).any(<dyn Error>::is::<rustls::Error>)
        && let Some(failure) =
            of_handshake(if misses_certificate { &WantsClientCertificate } else { error }, to)
    {
        return failure;
    }
    if causes(error).any(is_garbage) && why == LARGE_HEAD {
        let message = format!(
            "the head of what {to} sent is larger than {HEAD_BYTES_MAX} bytes, or has more than {HEADERS_MAX} headers"
        );
        return Failure::new(FailureClass::BadHttp, message);
    }
    if causes(error).any(is_garbage) {
        return Failure::new(FailureClass::BadHttp, format!("what {to} sent is not HTTP: {why}"));
    }
    if is_certificate_wanted {
        let message = format!(
            "no trustworthy TLS session with {to}: it asked for a client certificate, which newswire does not have, and \
             closed the connection before it answered"
        );
        return Failure::new(FailureClass::Tls, message);
    }
    let message = format!("{to} closed the connection before it answered: {why}");
    Failure::new(FailureClass::Truncated, message)
}

/// An incomplete body.
pub(crate) fn of_body(error: &(dyn Error + 'static)) -> Failure {
    Failure::new(FailureClass::Truncated, format!("the body ended too early: {}", root(error)))
}
