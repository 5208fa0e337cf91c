//! Which daemon of a group has which part of its list of sources, and whether the lists are the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_nats::{datetime::DateTime, jetstream::kv::Store};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use crate::nats::{
    event_stream::{EventStream, StreamProblem, chain},
    shards::{LEASE_EXPIRES_AFTER, MEMBER_KEY_PREFIX, MemberRecord, ShardTable, TABLE_KEY_PREFIX},
};

/// Keys of the bucket that are read.
const KEYS_MAX: usize = 1024;
/// A shard is handed over, or taken from a daemon that is gone, well within this time, in milliseconds.
const MOVES_WITHIN_MS: u64 = 30_000;

/// Daemons that share one list of sources: those with the same `ingestd.share_group`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SurveyedGroup {
    /// The name of the group.
    pub name: String,
    /// The daemons that have a lease or shards.
    pub members: Vec<SurveyedMember>,
    /// Number of shards without an owner.
    pub free: usize,
    /// How long ago a shard changed its owner, by the clock of the servers, in milliseconds; `None` if none ever had one.
    pub changed_ms_ago: Option<u64>,
}

/// A daemon of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SurveyedMember {
    /// The daemon: the epoch of its log.
    pub daemon: String,
    /// Its machine, if it has said that.
    pub machine: Option<String>,
    /// The hash of its list of sources.
    pub list: Option<String>,
    /// Number of sources in its list.
    pub listed: u64,
    /// Number of them that it visits.
    pub visited: u64,
    /// Number of shards that it owns.
    pub shards: usize,
    /// How long ago it renewed its lease, by the clock of the servers, in milliseconds; `None` if it has none.
    pub renewed_ms_ago: Option<u64>,
}

impl SurveyedGroup {
    /// Shards whose sources are visited by no daemon, and will not be soon: they are free, or their owner is gone, and that does
    /// not change.
    #[must_use]
    pub fn unvisited(&self) -> usize {
        let free = match self.changed_ms_ago {
            Some(ms) if ms > MOVES_WITHIN_MS => self.free,
            _ => 0,
        };
        let abandoned =
            self.members.iter().filter(|member| member.renewed_ms_ago.is_none_or(|ms| ms > MOVES_WITHIN_MS));
        free + abandoned.map(|member| member.shards).sum::<usize>()
    }

    /// The members whose lease has not expired.
    pub fn live(&self) -> impl Iterator<Item = &SurveyedMember> {
        self.members.iter().filter(|member| member.is_live())
    }

    /// Whether live members have different lists of sources.
    #[must_use]
    pub fn lists_differ(&self) -> bool {
        self.live().filter_map(|member| member.list.as_deref()).collect::<BTreeSet<_>>().len() > 1
    }
}

impl SurveyedMember {
    /// Its lease has not expired.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.renewed_ms_ago.is_some_and(|ms| u128::from(ms) <= LEASE_EXPIRES_AFTER.as_millis())
    }
}

/// A value of the bucket.
struct Stored {
    json: Vec<u8>,
    time: DateTime,
}

/// All groups, by their names.
pub(super) async fn groups(stream: &EventStream) -> Result<Vec<SurveyedGroup>, StreamProblem> {
    let Some(bucket) = stream.bucket().await? else { return Ok(Vec::new()) };
    let keys = bucket.keys().await.map_err(|error| StreamProblem::NoAnswer(chain(&error)))?;
    let keys: Vec<_> = keys.take(KEYS_MAX).filter_map(|key| async { key.ok() }).collect().await;
    let is_ours = |key: &&String| key.starts_with(TABLE_KEY_PREFIX) || key.starts_with(MEMBER_KEY_PREFIX);
    let mut values = BTreeMap::new();
    for key in keys.iter().filter(is_ours) {
        if let Some(stored) = last(&bucket, key).await? {
            values.insert(key.clone(), stored);
        }
    }
    if values.is_empty() {
        return Ok(Vec::new());
    }
    // Asked last, so that nothing is from the future.
    let now = servers_time(stream, &bucket).await?;
    Ok(grouped(&values, now))
}

fn grouped(values: &BTreeMap<String, Stored>, now: DateTime) -> Vec<SurveyedGroup> {
    let mut groups = BTreeMap::<&str, SurveyedGroup>::new();
    let age = |stored: &Stored| {
        let age = Duration::try_from(now - stored.time).unwrap_or_default();
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    };
    for (key, stored) in values {
        if let Some(name) = key.strip_prefix(TABLE_KEY_PREFIX) {
            let Ok(table) = serde_json::from_slice::<ShardTable>(&stored.json) else { continue };
            let group = groups.entry(name).or_default();
            group.free = table.free().len();
            group.changed_ms_ago = Some(age(stored));
            for (daemon, shards) in &table.owners {
                member(group, daemon).shards = shards.len();
            }
        } else if let Some((name, daemon)) =
            key.strip_prefix(MEMBER_KEY_PREFIX).and_then(|rest| rest.split_once('.'))
        {
            let Ok(record) = serde_json::from_slice::<MemberRecord>(&stored.json) else { continue };
            let member = member(groups.entry(name).or_default(), daemon);
            member.machine = Some(record.machine);
            member.list = Some(record.list).filter(|list| !list.is_empty());
            (member.listed, member.visited) = (record.listed, record.visited);
            member.renewed_ms_ago = Some(age(stored));
        }
    }
    for (name, group) in &mut groups {
        (*name).clone_into(&mut group.name);
        // A daemon that has left long ago is of no interest.
        group.members.retain(|member| member.shards > 0 || member.is_live());
    }
    groups.into_values().collect()
}

fn member<'a>(group: &'a mut SurveyedGroup, daemon: &str) -> &'a mut SurveyedMember {
    let at = group.members.iter().position(|member| member.daemon == daemon).unwrap_or_else(|| {
        group.members.push(SurveyedMember { daemon: daemon.to_owned(), ..SurveyedMember::default() });
        group.members.len() - 1
    });
    &mut group.members[at]
}

/// The value of a key, as the leader has it: a server that lags would show leases as expired.
async fn last(bucket: &Store, key: &str) -> Result<Option<Stored>, StreamProblem> {
    let subject = format!("{}{key}", bucket.prefix);
    let Ok(message) = bucket.stream.get_last_raw_message_by_subject(&subject).await else { return Ok(None) };
    // A deleted key has a marker without a value.
    let json = message.payload.to_vec();
    Ok(Some(Stored { json, time: message.time }).filter(|stored| !stored.json.is_empty()))
}

/// The clock of the server that leads the bucket, which has stamped the values.
async fn servers_time(stream: &EventStream, bucket: &Store) -> Result<DateTime, StreamProblem> {
    #[derive(Deserialize)]
    struct Answer {
        ts: String,
    }
    let no_answer = |why: String| StreamProblem::NoAnswer(why);
    let subject = format!("$JS.API.STREAM.INFO.{}", bucket.stream_name);
    let answer = stream.connection().client().request(subject, "".into()).await;
    let answer = answer.map_err(|error| no_answer(chain(&error)))?;
    let answer: Answer =
        serde_json::from_slice(&answer.payload).map_err(|error| no_answer(error.to_string()))?;
    async_nats::datetime::parse_rfc3339(&answer.ts).map_err(|error| no_answer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> DateTime {
        async_nats::datetime::parse_rfc3339(&format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60))
            .unwrap()
    }

    fn record(daemon: &str, list: &str) -> String {
        format!(
            r#"{{"daemon":"{daemon}","machine":"m-{daemon}","since":"s","list":"{list}","listed":9,"visited":4}}"#
        )
    }

    fn group(values: &[(&str, &str, u64)], now: u64) -> SurveyedGroup {
        let stored = |json: &str, second| Stored { json: json.as_bytes().to_vec(), time: at(second) };
        let values =
            values.iter().map(|(key, json, second)| ((*key).to_owned(), stored(json, *second))).collect();
        let mut groups = grouped(&values, at(now));
        assert_eq!(groups.len(), 1, "{groups:?}");
        groups.remove(0)
    }

    const TABLE: &str = r#"{"members":["a","b","old"],"owners":{"a":"0-2047","b":"2048-4000"}}"#;

    #[test]
    fn shards_of_a_daemon_that_is_gone_and_free_ones_are_unvisited_once_that_lasts() {
        let (a, b, old) = (record("a", "1"), record("b", "1"), record("old", "1"));
        let values = |a_at, b_at, table_at| {
            [
                ("member.main.a", a.as_str(), a_at),
                ("member.main.b", b.as_str(), b_at),
                ("member.main.old", old.as_str(), 0),
                ("shards.main", TABLE, table_at),
            ]
        };
        let fresh = group(&values(100, 101, 90), 102);
        assert_eq!((fresh.name.as_str(), fresh.free, fresh.changed_ms_ago), ("main", 95, Some(12_000)));
        let shown: Vec<_> =
            fresh.members.iter().map(|m| (m.daemon.as_str(), m.shards, m.renewed_ms_ago)).collect();
        assert_eq!(shown, [("a", 2048, Some(2_000)), ("b", 1953, Some(1_000))]);
        assert_eq!(fresh.unvisited(), 0, "shards have just moved");
        assert_eq!(group(&values(160, 161, 90), 162).unvisited(), 95, "free ones stay free");
        let abandoned = group(&values(100, 161, 155), 162);
        assert_eq!(
            (abandoned.unvisited(), abandoned.live().count()),
            (2048, 1),
            "its lease is over for long"
        );
        assert_eq!(group(&values(145, 161, 155), 162).unvisited(), 0, "the others take them soon");
    }

    #[test]
    fn lists_differ_only_if_those_of_live_members_do() {
        let (a, b) = (record("a", "1"), record("b", "2"));
        let values = |b_at| [("member.main.a", a.as_str(), 100), ("member.main.b", b.as_str(), b_at)];
        assert!(group(&values(99), 102).lists_differ());
        assert!(!group(&values(30), 102).lists_differ());
    }
}
