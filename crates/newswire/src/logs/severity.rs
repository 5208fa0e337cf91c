//! How severe a line is, and the words for it.

use serde::Serialize;

/// How severe a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// A warning.
    Warn,
    /// An error.
    Error,
    /// A thread panicked.
    Panic,
}

impl Severity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Panic => "panic",
        }
    }
}

/// Whether a word is a level as newswire writes it.
pub(super) fn is_level(word: &str) -> bool {
    ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&word)
}

/// The severity that a word means, if it is a warning or worse.
pub(super) fn level_of(word: &str) -> Option<Severity> {
    match word.to_ascii_lowercase().as_str() {
        "error" | "err" | "fatal" | "critical" | "crit" | "alert" | "emerg" | "emergency" | "severe" => {
            Some(Severity::Error)
        }
        "warn" | "warning" => Some(Severity::Warn),
        _ => None,
    }
}
