//! How far a daemon has published, in the bucket: key `outbox.<epoch of its log>`.
//!
//! It is written at most once a second. One that is too low costs questions about events that are there already, never a second
//! publication.

use async_nats::jetstream::kv::{Operation, Store};
use news::{Epoch, Seq};
use serde::{Deserialize, Serialize};

use super::ledger::AliasLedger;
use crate::nats::{OUTBOX_KEY_PREFIX, event_stream::StreamProblem};

/// How far a daemon has published under one epoch of the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PublishedThrough {
    /// The epoch of the stream.
    pub(super) epoch: Epoch,
    /// The newest event of the log of which this one and all before were in the stream.
    pub(super) through: Seq,
    /// The newest message of the stream that it published.
    pub(super) newest: Option<PublishedMessage>,
    /// Which ids of the log and of the stream mean the same; gateways read that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ledger: Option<AliasLedger>,
}

/// A message of the stream, and the event of the log that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PublishedMessage {
    /// Its number in the stream.
    pub(super) stream_seq: u64,
    /// The event of the log.
    pub(super) origin: Seq,
}

fn key(log_epoch: &Epoch) -> String {
    format!("{OUTBOX_KEY_PREFIX}{log_epoch}")
}

/// As last written; one that cannot be read counts as none.
pub(super) async fn read(
    bucket: &Store,
    log_epoch: &Epoch,
) -> Result<Option<PublishedThrough>, StreamProblem> {
    let entry = bucket.entry(key(log_epoch)).await.map_err(|e| StreamProblem::NoAnswer(e.to_string()))?;
    let entry = entry.filter(|entry| entry.operation == Operation::Put);
    Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
}

pub(super) async fn write(
    bucket: &Store,
    log_epoch: &Epoch,
    published: &PublishedThrough,
) -> Result<(), StreamProblem> {
    let json = serde_json::to_vec(published).expect("a record has a JSON form").into();
    let written = bucket.put(key(log_epoch), json).await;
    written.map(|_| ()).map_err(|e| StreamProblem::NoAnswer(e.to_string()))
}
