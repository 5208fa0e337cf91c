//! The lease of a member and the table of shards, in the bucket.
//!
//! Both are read from the leader of the bucket: a server that lags would show members that have renewed their leases as gone.

use std::sync::Arc;

use async_nats::jetstream::{
    kv::{CreateErrorKind, Store, UpdateErrorKind},
    stream::LastRawMessageErrorKind,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::OnceCell;

use super::{MemberRecord, ShardTable};
use crate::nats::event_stream::{EventStream, StreamProblem, chain};

/// With it the keys of the tables begin; the name of the group follows.
pub(in crate::nats) const TABLE_KEY_PREFIX: &str = "shards.";
/// With it the keys of the members begin; the names of the group and of the daemon follow.
pub(in crate::nats) const MEMBER_KEY_PREFIX: &str = "member.";
/// Records of members that are read at once.
const READS_MAX: usize = 32;

/// The table as it was read.
#[derive(Clone, Debug, Default)]
pub struct StoredTable {
    /// The table; an empty one if there is none.
    pub table: ShardTable,
    /// 0 if there is none.
    revision: u64,
}

/// The bucket, for what the members of one group do with it. Each request is answered within seconds or fails.
#[derive(Clone)]
pub struct Membership {
    stream: EventStream,
    group: Arc<str>,
    bucket: Arc<OnceCell<Store>>,
}

impl Membership {
    /// Of a group, beside this stream.
    #[must_use]
    pub fn new(stream: EventStream, group: &str) -> Self {
        Self { stream, group: group.into(), bucket: Arc::default() }
    }

    /// Renews the lease of a member; returns when the servers have stored it.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn renew(&self, record: &MemberRecord) -> Result<(), StreamProblem> {
        let json = serde_json::to_vec(record).expect("a record has a JSON form").into();
        let renewed = self.bucket().await?.put(self.member_key(&record.daemon), json).await;
        renewed.map(drop).map_err(|e| no_answer(&e))
    }

    /// The leases of these members, each with a number that grows with each renewal. A member without one is left out.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn leases<'a>(
        &self,
        members: impl Iterator<Item = &'a String>,
    ) -> Result<Vec<(MemberRecord, u64)>, StreamProblem> {
        let bucket = self.bucket().await?;
        let read = |member: String| async move { last(bucket, &self.member_key(&member)).await };
        let leases: Vec<_> = stream::iter(members.cloned().collect::<Vec<_>>())
            .map(read)
            .buffered(READS_MAX)
            .try_collect()
            .await?;
        let record = |(json, revision): (Vec<u8>, u64)| {
            serde_json::from_slice(&json).ok().map(|record: MemberRecord| (record, revision))
        };
        Ok(leases.into_iter().flatten().filter_map(record).collect())
    }

    /// The table.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn table(&self) -> Result<StoredTable, StreamProblem> {
        let Some((json, revision)) = last(self.bucket().await?, &self.table_key()).await? else {
            return Ok(StoredTable::default());
        };
        let table = serde_json::from_slice(&json)
            .map_err(|e| StreamProblem::Unreadable(format!("the table of shards is unreadable: {e}")))?;
        Ok(StoredTable { table, revision })
    }

    /// Changes the table; `None` if another member has changed it since it was read.
    ///
    /// # Errors
    /// [`StreamProblem`]
    pub async fn change(
        &self,
        before: &StoredTable,
        table: ShardTable,
    ) -> Result<Option<StoredTable>, StreamProblem> {
        let json = serde_json::to_vec(&table).expect("a table has a JSON form").into();
        let bucket = self.bucket().await?;
        let revision = match before.revision {
            0 => match bucket.create(self.table_key(), json).await {
                Ok(revision) => revision,
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => return Ok(None),
                Err(error) => return Err(no_answer(&error)),
            },
            revision => match bucket.update(self.table_key(), json, revision).await {
                Ok(revision) => revision,
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => return Ok(None),
                Err(error) => return Err(no_answer(&error)),
            },
        };
        Ok(Some(StoredTable { table, revision }))
    }

    fn table_key(&self) -> String {
        format!("{TABLE_KEY_PREFIX}{}", self.group)
    }

    fn member_key(&self, daemon: &str) -> String {
        format!("{MEMBER_KEY_PREFIX}{}.{daemon}", self.group)
    }

    /// It goes by its name: one that is made anew is the same to it.
    async fn bucket(&self) -> Result<&Store, StreamProblem> {
        let missing = || StreamProblem::NoAnswer("the bucket does not exist yet".to_owned());
        self.bucket.get_or_try_init(|| async { self.stream.bucket().await?.ok_or_else(missing) }).await
    }
}

/// The value of a key and its revision, as the leader has them.
async fn last(bucket: &Store, key: &str) -> Result<Option<(Vec<u8>, u64)>, StreamProblem> {
    let subject = format!("{}{key}", bucket.prefix);
    match bucket.stream.get_last_raw_message_by_subject(&subject).await {
        // A deleted key has a marker without a value.
        Ok(message) if message.payload.is_empty() => Ok(None),
        Ok(message) => Ok(Some((message.payload.to_vec(), message.sequence))),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(no_answer(&error)),
    }
}

fn no_answer(error: &dyn std::error::Error) -> StreamProblem {
    StreamProblem::NoAnswer(chain(error))
}
