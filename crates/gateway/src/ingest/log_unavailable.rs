//! Why the daemon's log could not be read, for a page or for a stream.

use super::no_answer::NoAnswer;

/// Why there is nothing of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogUnavailable {
    /// Too many requests wait already.
    Busy,
    /// The daemon was not asked, because it has not answered an earlier request yet.
    Silent,
    /// The daemon was asked in vain.
    NoAnswer(NoAnswer),
    /// The daemon's log is another one.
    OtherLog,
}

impl LogUnavailable {
    /// All of them.
    const ALL: [Self; 6] = [
        Self::Busy,
        Self::Silent,
        Self::NoAnswer(NoAnswer::NotConnected),
        Self::NoAnswer(NoAnswer::Late),
        Self::NoAnswer(NoAnswer::Unusable),
        Self::OtherLog,
    ];

    fn result(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Silent => "not_asked",
            Self::NoAnswer(NoAnswer::NotConnected) => "not_connected",
            Self::NoAnswer(NoAnswer::Late) => "late",
            Self::NoAnswer(NoAnswer::Unusable) => "unusable",
            Self::OtherLog => "other_log",
        }
    }
}

/// The results of requests for a part of the log, as the metric names them.
pub(crate) fn results() -> impl Iterator<Item = &'static str> {
    ["answered"].into_iter().chain(LogUnavailable::ALL.map(LogUnavailable::result))
}

/// A result, as the metric names it.
pub(crate) fn result_of<T>(result: &Result<T, LogUnavailable>) -> &'static str {
    result.as_ref().map_or_else(|error| error.result(), |_| "answered")
}
