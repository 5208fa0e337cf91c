//! The epoch of the stream: a record in the bucket, changed by compare-and-set only.
//!
//! The record names the stream that it belongs to by the time of its creation. So a stream that was deleted and made again
//! has no epoch until a daemon begins one, and no reader takes its numbers for those of the old one.

use async_nats::jetstream::kv::{CreateErrorKind, Store, UpdateErrorKind};
use news::Epoch;
use serde::{Deserialize, Serialize};

use super::event_stream::{StreamProblem, StreamState};

/// The key of the record.
const KEY: &str = "epoch";

/// The epoch of a stream. As JSON in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch of the ids.
    pub epoch: Epoch,
    /// When the stream was made, as the server says it.
    pub created: String,
    /// The oldest event that retention had left when the record was last written.
    pub first: u64,
    /// When it began, RFC 3339.
    pub began: String,
    /// Why.
    pub reason: EpochChange,
}

/// Why an epoch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EpochChange {
    /// The stream has none: it is new, or it was deleted and made again.
    NewStream,
    /// The servers lost messages that they had acknowledged.
    SequenceWentBack,
    /// Messages were removed that retention would have kept.
    Purged,
}

impl EpochChange {
    /// The word in logs and in the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NewStream => "new-stream",
            Self::SequenceWentBack => "sequence-went-back",
            Self::Purged => "purged",
        }
    }
}

/// A record and its revision in the bucket.
#[derive(Clone, Debug)]
pub(super) struct StoredEpoch {
    pub(super) record: EpochRecord,
    revision: u64,
}

/// The record, whichever stream it belongs to.
pub(super) async fn read(bucket: &Store) -> Result<Option<StoredEpoch>, StreamProblem> {
    let entry = bucket.entry(KEY).await.map_err(|e| StreamProblem::NoAnswer(e.to_string()))?;
    let entry = entry.filter(|entry| entry.operation == async_nats::jetstream::kv::Operation::Put);
    let Some(entry) = entry else { return Ok(None) };
    let record = serde_json::from_slice(&entry.value)
        .map_err(|e| StreamProblem::Unreadable(format!("the record of the epoch is unreadable: {e}")))?;
    Ok(Some(StoredEpoch { record, revision: entry.revision }))
}

/// Begins a new epoch in the place of `before`; `false` if another process has changed the record in the meantime.
pub(super) async fn begin(
    bucket: &Store,
    before: Option<&StoredEpoch>,
    state: &StreamState,
    reason: EpochChange,
) -> Result<bool, StreamProblem> {
    let record = EpochRecord {
        epoch: Epoch::random(fastrand::digit),
        created: state.created.clone(),
        first: state.first,
        began: news::Timestamp::from_millis(now_ms()).to_string(),
        reason,
    };
    write(bucket, before, &record).await
}

/// Notes in the record that retention has removed what is before `first`.
pub(super) async fn note_first(
    bucket: &Store,
    before: &StoredEpoch,
    first: u64,
) -> Result<bool, StreamProblem> {
    write(bucket, Some(before), &EpochRecord { first, ..before.record.clone() }).await
}

async fn write(
    bucket: &Store,
    before: Option<&StoredEpoch>,
    record: &EpochRecord,
) -> Result<bool, StreamProblem> {
    let json = serde_json::to_vec(record).expect("a record has a JSON form").into();
    match before {
        Some(before) => match bucket.update(KEY, json, before.revision).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Err(error) => Err(StreamProblem::NoAnswer(error.to_string())),
        },
        None => match bucket.create(KEY, json).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(StreamProblem::NoAnswer(error.to_string())),
        },
    }
}

fn now_ms() -> i64 {
    i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
