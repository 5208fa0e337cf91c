//! Which daemon visits which sources, if several divide one list among them.
//!
//! ```text
//! a source ─► the host of its address ─► one of 4,096 shards ─► its owner, in the table of the group
//! ```
//!
//! The daemons with the same `ingestd.share_group` are the members of a group. Rendezvous hashing over the live members names the owner that each shard should have; the
//! table says which one it has, and changes by compare-and-set only. So two members never own a shard at once, whatever they
//! believe about each other.

mod membership;
mod shard_set;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub(in crate::nats) use membership::{MEMBER_KEY_PREFIX, TABLE_KEY_PREFIX};
pub use membership::{Membership, StoredTable};
pub use shard_set::{BadShardSet, ShardSet};

/// Number of shards. Enough that the shares of a hundred members differ little.
pub const SHARDS: u16 = 4096;
/// A member renews its lease so often.
pub const LEASE_RENEWED_EVERY: std::time::Duration = std::time::Duration::from_secs(2);
/// A member whose lease was not confirmed for so long visits nothing. Shorter than [`LEASE_EXPIRES_AFTER`], by more than an
/// answer may take.
pub const LEASE_TRUSTED_FOR: std::time::Duration = std::time::Duration::from_secs(6);
/// A member whose lease was not renewed for so long has lost its shards to the others.
pub const LEASE_EXPIRES_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

/// The shard of all sources of a host, which is named by its registrable domain.
#[must_use]
pub fn shard_of(host: &str) -> u16 {
    u16::try_from(news::stable_hash(host.as_bytes()) % u64::from(SHARDS)).expect("it is less than 4,096")
}

/// What a member says of itself with each renewal of its lease: key `member.<group>.<daemon>` of the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The name of the daemon: the epoch of its log.
    pub daemon: String,
    /// The name of its machine.
    pub machine: String,
    /// When it began to share, RFC 3339.
    pub since: String,
    /// A hash of its list of sources, 16 hexadecimal digits: those of all members should be the same.
    pub list: String,
    /// Number of sources in its list.
    pub listed: u64,
    /// Number of them that it visits.
    pub visited: u64,
}

/// The members of a group, and which shards each owns: key `shards.<group>` of the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardTable {
    /// All members that are or were there.
    pub members: BTreeSet<String>,
    /// The shards of each; a free shard is in none of them.
    pub owners: BTreeMap<String, ShardSet>,
}

impl ShardTable {
    /// The shards of a member.
    #[must_use]
    pub fn of(&self, member: &str) -> ShardSet {
        self.owners.get(member).cloned().unwrap_or_default()
    }

    /// The shards without an owner.
    #[must_use]
    pub fn free(&self) -> ShardSet {
        let mut free = ShardSet::all();
        self.owners.values().for_each(|owned| free.remove_all(owned));
        free
    }

    /// The same with these shards owned by `member`, and by no other.
    #[must_use]
    pub fn with(mut self, shards: &ShardSet, member: &str) -> Self {
        self.owners.values_mut().for_each(|owned| owned.remove_all(shards));
        self.owners.entry(member.to_owned()).or_default().add_all(shards);
        self.owners.retain(|_, owned| !owned.is_empty());
        self
    }

    /// What `me` does about the shards that it should have and has not, and the other way round.
    #[must_use]
    pub fn plan(&self, me: &str, members: &MemberStates) -> ShardPlan {
        let candidates: Vec<_> = self
            .members
            .iter()
            .filter(|member| *member == me || members.of(member) != MemberState::Gone)
            .map(|member| (member.as_str(), news::stable_hash(member.as_bytes())))
            .collect();
        let owner_of = self.owner_of_each();
        let mut plan = ShardPlan::default();
        for shard in 0..SHARDS {
            let wanted = preferred(&candidates, shard);
            match owner_of[usize::from(shard)] {
                Some(owner) if owner == me => {
                    if let Some(successor) = wanted.filter(|successor| *successor != me)
                        && members.of(successor) == MemberState::Live
                    {
                        plan.handed_over.entry(successor.to_owned()).or_default().add(shard);
                    }
                }
                Some(owner) if members.of(owner) == MemberState::Gone && wanted == Some(me) => {
                    plan.taken.add(shard);
                }
                None if wanted == Some(me) => plan.free.add(shard),
                Some(_) | None => {}
            }
        }
        plan
    }

    fn owner_of_each(&self) -> Vec<Option<&str>> {
        let mut owner_of = vec![None; usize::from(SHARDS)];
        for (owner, shards) in &self.owners {
            for shard in shards.iter() {
                owner_of[usize::from(shard)] = Some(owner.as_str());
            }
        }
        owner_of
    }
}

/// What a member does next about its shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardPlan {
    /// Shards of members that are gone.
    pub taken: ShardSet,
    /// Shards that no member has.
    pub free: ShardSet,
    /// Its own shards that another member should have, by that member.
    pub handed_over: BTreeMap<String, ShardSet>,
}

/// Whether a member is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It was seen to renew its lease.
    Live,
    /// It was not seen to renew it, but might have: it was not looked at for long enough.
    Unclear,
    /// Its lease has expired.
    Gone,
}

/// The states of all members. One that was never heard of is unclear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStates(pub BTreeMap<String, MemberState>);

impl MemberStates {
    fn of(&self, member: &str) -> MemberState {
        self.0.get(member).copied().unwrap_or(MemberState::Unclear)
    }
}

/// The member that should own a shard: the one whose hash with it is the greatest. Of each candidate the hash of its name.
fn preferred<'a>(candidates: &[(&'a str, u64)], shard: u16) -> Option<&'a str> {
    let weight = |candidate: &&(&str, u64)| mixed(candidate.1 ^ u64::from(shard).wrapping_mul(GOLDEN));
    candidates.iter().max_by_key(weight).map(|(member, _)| *member)
}

/// 2^64 divided by the golden ratio: numbers that follow each other are far apart once multiplied by it.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Each bit of the result depends on each bit of the number (the finalizer of SplitMix64).
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(members: &[&str]) -> ShardTable {
        ShardTable { members: members.iter().copied().map(str::to_owned).collect(), owners: BTreeMap::new() }
    }

    fn states(states: &[(&str, MemberState)]) -> MemberStates {
        MemberStates(states.iter().map(|(member, state)| ((*member).to_owned(), *state)).collect())
    }

    /// Each live member does what its plan says, until none has anything left to do.
    fn settle(mut table: ShardTable, states: &MemberStates) -> ShardTable {
        loop {
            let before = table.clone();
            for (member, state) in &states.0 {
                if *state != MemberState::Live {
                    continue;
                }
                let plan = table.plan(member, states);
                table = table.with(&plan.free, member).with(&plan.taken, member);
                for (successor, shards) in &plan.handed_over {
                    table = table.with(shards, successor);
                }
            }
            if table == before {
                return table;
            }
        }
    }

    #[test]
    fn live_members_have_all_shards_in_about_equal_parts_and_only_what_must_move_moves() {
        use MemberState::*;
        let two = settle(table(&["a", "b"]), &states(&[("a", Live), ("b", Live)]));
        assert!(two.free().is_empty());
        let count = |table: &ShardTable, member: &str| table.of(member).len();
        assert!((1_800..2_300).contains(&count(&two, "a")), "{}", count(&two, "a"));
        let mut joined = two.clone();
        joined.members.insert("c".to_owned());
        let three = settle(joined, &states(&[("a", Live), ("b", Live), ("c", Live)]));
        assert!((1_200..1_550).contains(&count(&three, "c")), "{}", count(&three, "c"));
        let mut kept = two.of("a");
        kept.remove_all(&three.of("a"));
        kept.remove_all(&three.of("c"));
        assert!(kept.is_empty(), "what a had goes to c, nothing to b");
        let again = settle(three, &states(&[("a", Live), ("b", Live), ("c", Gone)]));
        assert_eq!(again.owners, two.owners, "and comes back when c is gone");
    }

    #[test]
    fn a_member_that_may_be_there_keeps_its_shards_and_gets_none() {
        use MemberState::*;
        let alone = settle(table(&["a"]), &states(&[("a", Live)]));
        let mut joined = alone.clone();
        joined.members.insert("b".to_owned());
        assert_eq!(settle(joined.clone(), &states(&[("a", Live), ("b", Unclear)])).owners, alone.owners);
        let both = settle(joined, &states(&[("a", Live), ("b", Live)]));
        let unclear = both.plan("a", &states(&[("a", Live)]));
        assert_eq!(unclear, ShardPlan::default());
        let gone = both.plan("a", &states(&[("a", Live), ("b", Gone)]));
        assert_eq!(gone.taken, both.of("b"));
    }

    #[test]
    fn the_table_is_short_json() {
        let table = table(&["a", "b"]).with(&ShardSet::all(), "a").with(&"0-9,17".parse().unwrap(), "b");
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(json, r#"{"members":["a","b"],"owners":{"a":"10-16,18-4095","b":"0-9,17"}}"#);
        assert_eq!(serde_json::from_str::<ShardTable>(&json).unwrap(), table);
    }
}
