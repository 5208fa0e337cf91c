//! Causes of errors below HTTP, for people and for decisions.

use std::{error::Error, io};

use news::Escaped;

/// In the text that rustls has for an end of the connection without an end of the session. It has no type of its own.
const NO_CLOSE_NOTIFY: &str = "without sending TLS close_notify";

/// The server ended a handshake after it had asked for a certificate.
#[derive(Debug, thiserror::Error)]
#[error("it wants a client certificate, which newswire does not have")]
pub(crate) struct WantsClientCertificate;

/// There were too many interim responses.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more than {bytes_max} bytes of interim responses (1xx) and no answer")]
pub(crate) struct EndlessInterim {
    pub(crate) bytes_max: usize,
}

/// The chain of causes of an error, itself first. It includes errors inside an [`io::Error`], which `source()` skips.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// The root cause, escaped for a log line.
pub(crate) fn root(error: &(dyn Error + 'static)) -> String {
    let text = causes(error).last().map(ToString::to_string).unwrap_or_default();
    if text.contains(NO_CLOSE_NOTIFY) {
        return "the connection ended in the middle of the TLS session".to_owned();
    }
    Escaped(&text).to_string()
}

/// Whether the other side has ended TLS with an alert.
pub(crate) fn is_alert(error: &(dyn Error + 'static)) -> bool {
    let is_alert = |error: &rustls::Error| matches!(error, rustls::Error::AlertReceived(_));
    causes(error).any(|cause| cause.downcast_ref().is_some_and(is_alert))
}

/// Whether the other side has closed the connection.
pub(crate) fn is_closed(error: &(dyn Error + 'static)) -> bool {
    let is_closing = |e: &io::Error| {
        matches!(
            e.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        )
    };
    causes(error).any(|cause| cause.downcast_ref().is_some_and(is_closing))
}
