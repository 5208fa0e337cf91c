//! Which ids of the logs and of the stream mean the same, for a gateway: every daemon writes its part into the bucket once a
//! second, and what changes there is sent to all who watch. No client's id is ever looked up in NATS.

use std::time::Duration;

use async_nats::jetstream::kv::{Operation, Watch};
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::{
    OUTBOX_KEY_PREFIX,
    event_stream::{EventStream, StreamProblem, chain},
};
use crate::aliases::IdAliases;

/// How long to wait after the watch could not be begun, or has ended.
const RETRY: Duration = Duration::from_secs(1);

/// What the daemons say of their ids, as it changes.
pub struct AliasWatch {
    stream: EventStream,
    watch: Option<Watch>,
}

/// As the outbox writes it.
#[derive(Deserialize)]
struct StoredOutbox {
    #[serde(default)]
    ledger: Option<StoredLedger>,
}

#[derive(Deserialize)]
struct StoredLedger {
    aliases: IdAliases,
}

impl AliasWatch {
    /// Over this stream. Nothing is asked yet.
    #[must_use]
    pub fn new(stream: EventStream) -> Self {
        Self { stream, watch: None }
    }

    /// The next part of a daemon that is new; at first all that there are. Waits for NATS as long as it takes. Cancel-safe: what a
    /// dropped call has not returned is returned by the next one, or is told anew.
    pub async fn next(&mut self) -> IdAliases {
        loop {
            let watch = match &mut self.watch {
                Some(watch) => watch,
                None => match self.begin().await {
                    Ok(watch) => self.watch.insert(watch),
                    Err(_) => {
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                },
            };
            match watch.next().await {
                Some(Ok(entry)) if entry.operation == Operation::Put => {
                    let stored = serde_json::from_slice::<StoredOutbox>(&entry.value);
                    if let Some(ledger) = stored.ok().and_then(|stored| stored.ledger) {
                        return ledger.aliases;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.watch = None;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn begin(&self) -> Result<Watch, StreamProblem> {
        let no_bucket = || StreamProblem::NoAnswer("the bucket does not exist".to_owned());
        let bucket = self.stream.bucket().await?.ok_or_else(no_bucket)?;
        let watch = bucket.watch_with_history(format!("{OUTBOX_KEY_PREFIX}*")).await;
        watch.map_err(|e| StreamProblem::NoAnswer(chain(&e)))
    }
}
