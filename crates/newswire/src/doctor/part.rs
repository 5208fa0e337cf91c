//! A part of the evidence that may be unavailable.

use serde::Serialize;

/// A part of the evidence, or why it is missing.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Part<T> {
    /// It is available.
    Found(T),
    /// It is not.
    Missing {
        /// Why not, for people.
        missing: String,
        /// Why not, for the rules.
        #[serde(skip)]
        cause: MissingCause,
    },
}

/// Why a part of the evidence is missing, as far as the rules tell reasons apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingCause {
    /// The options exclude it.
    NotAsked,
    /// There was no complete answer in time.
    TimedOut,
    /// The process answered, but not as this version of the tool expects.
    OtherVersion,
    /// This user may not look.
    Denied,
    /// There is no socket, or no process listens on it.
    NoSocket,
    /// Anything else.
    Other,
}

impl<T> Part<T> {
    pub(crate) fn missing(why: impl Into<String>) -> Self {
        Self::Missing { missing: why.into(), cause: MissingCause::Other }
    }

    pub(crate) fn from_result(result: Result<T, impl std::fmt::Display>) -> Self {
        match result {
            Ok(found) => Self::Found(found),
            Err(error) => Self::missing(error.to_string()),
        }
    }

    pub(crate) fn not_asked() -> Self {
        Self::Missing { missing: "not asked".to_owned(), cause: MissingCause::NotAsked }
    }

    pub(crate) fn timed_out(why: impl Into<String>) -> Self {
        Self::Missing { missing: why.into(), cause: MissingCause::TimedOut }
    }

    pub(crate) fn is_missing_because(&self, expected: MissingCause) -> bool {
        matches!(self, Self::Missing { cause, .. } if *cause == expected)
    }

    pub(crate) fn get(&self) -> Option<&T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Missing { .. } => None,
        }
    }
}
