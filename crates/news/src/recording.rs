//! Why the ingestion daemon records nothing for a while: a closed set, on the wire, in `/ready`, metrics and the doctor.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Why recording is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordingPauseReason {
    /// The file system of the store has too little free space.
    DiskSpace,
    /// The file system of the store has too few free inodes.
    DiskInodes,
    /// A gateway has newer events of the same epoch than the log: the store is an older copy of itself.
    LogBehind,
    /// The files of the store are a copy of another store, and the operator has not decided which epoch it has.
    StoreCopied,
    /// The daemon shares its list of sources, and NATS has not confirmed lately that it may visit its part.
    NoLease,
    /// A reason of a later version.
    #[serde(other)]
    Unknown,
}

impl RecordingPauseReason {
    /// All that this version knows, for metric labels.
    pub const ALL: [Self; 5] =
        [Self::DiskSpace, Self::DiskInodes, Self::LogBehind, Self::StoreCopied, Self::NoLease];

    /// The word in JSON, in metric labels and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DiskSpace => "disk-space",
            Self::DiskInodes => "disk-inodes",
            Self::LogBehind => "log-behind",
            Self::StoreCopied => "store-copied",
            Self::NoLease => "no-lease",
            Self::Unknown => "unknown",
        }
    }

    /// As a sentence for clients: without paths and figures.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::DiskSpace => "recording is paused: the disk of the store is nearly full",
            Self::DiskInodes => "recording is paused: the disk of the store has hardly any inodes left",
            Self::LogBehind => "recording is paused: the log is behind what was sent from it before",
            Self::StoreCopied => "recording is paused: the store is a copy of another one",
            Self::NoLease => "recording is paused: NATS does not confirm which sources this daemon visits",
            Self::Unknown => "recording is paused",
        }
    }
}

/// Since when and why nothing is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingPause {
    /// The kind of the reason.
    pub reason: RecordingPauseReason,
    /// When it began.
    pub since: Timestamp,
    /// The reason with its figures, and the remedy, for the operator.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_reason_is_the_one_in_its_json_and_one_of_a_later_version_is_read() {
        for reason in RecordingPauseReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        let later = r#"{"reason": "moon-phase", "since": "2026-01-02T03:04:05Z", "detail": "full"}"#;
        let pause: RecordingPause = serde_json::from_str(later).unwrap();
        assert_eq!((pause.reason, pause.detail.as_str()), (RecordingPauseReason::Unknown, "full"));
    }
}
