//! Which daemon visits which host: by the program's own hash of the host and its own plan for the shards.
//!
//! ```text
//! host ─► a group, chosen by the operator (a list has 100,000 sources at most) ─► a shard ─► a member of the group
//! ```
//!
//! A host is in one group only, and in one shard of it: so one daemon keeps its spacing.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use wire::nats::{MemberState, MemberStates, SHARDS, ShardTable, shard_of};

use super::population::{LIST_SOURCES_MAX, Population};

/// Part of a list that is filled at first, so that it can grow.
const FILLED: f64 = 0.9;

/// The daemons that divide one list of sources.
#[derive(Clone, Debug)]
pub(super) struct SharingGroup {
    /// Sources of its list.
    pub(super) sources: u32,
    pub(super) table: ShardTable,
}

/// Where a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPlace {
    pub(super) group: u16,
    pub(super) shard: u16,
}

/// All groups, and the place of each host.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) groups: Vec<SharingGroup>,
    /// In the order of the population.
    pub(super) places: Vec<HostPlace>,
}

impl Placement {
    /// Divides the hosts among groups of so many daemons.
    pub(super) fn new(population: &Population, members: u16) -> Self {
        let total: f64 = population.hosts.iter().map(|host| f64::from(host.sources)).sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let at_first = (total / (f64::from(LIST_SOURCES_MAX) * FILLED)).ceil().max(1.0) as u16;
        let mut emptiest: BinaryHeap<_> = (0..at_first).map(|group| Reverse((0, group))).collect();
        let mut places = Vec::with_capacity(population.hosts.len());
        for host in &population.hosts {
            // The largest come first, so the lists end up about equal.
            let fits = |top: &Reverse<(u32, u16)>| top.0.0 + host.sources <= LIST_SOURCES_MAX;
            let next = u16::try_from(emptiest.len()).unwrap_or(u16::MAX);
            let Reverse((sources, group)) = match emptiest.peek() {
                Some(top) if fits(top) => emptiest.pop().unwrap_or(Reverse((0, next))),
                _ => Reverse((0, next)),
            };
            emptiest.push(Reverse((sources + host.sources, group)));
            places.push(HostPlace { group, shard: shard_of(&population.name(host)) });
        }
        let mut filled = emptiest.into_vec();
        filled.sort_unstable_by_key(|Reverse((_, group))| *group);
        let groups = filled.into_iter().map(|Reverse((sources, group))| {
            let names = (0..members).map(|member| daemon_name(group, member));
            let table = ShardTable { members: names.collect(), ..ShardTable::default() };
            SharingGroup { sources, table: settled(table, None) }
        });
        Self { groups: groups.collect(), places }
    }

    /// The names of all daemons, with the numbers of their groups.
    pub(super) fn daemons(&self) -> impl Iterator<Item = (u16, &str)> {
        (0..).zip(&self.groups).flat_map(|(number, group)| {
            group.table.members.iter().map(move |member| (number, member.as_str()))
        })
    }
}

impl SharingGroup {
    /// The table once the others have taken over what a lost member had.
    pub(super) fn without(&self, lost: &str) -> ShardTable {
        settled(self.table.clone(), Some(lost))
    }

    /// The owner of each shard, in order.
    pub(super) fn owners(table: &ShardTable) -> Vec<Option<&str>> {
        let mut owners = vec![None; usize::from(SHARDS)];
        for (owner, shards) in &table.owners {
            shards.iter().for_each(|shard| owners[usize::from(shard)] = Some(owner.as_str()));
        }
        owners
    }
}

/// A name as daemons have it: of letters and digits that mean nothing.
fn daemon_name(group: u16, member: u16) -> String {
    format!("{:06x}", news::stable_hash(format!("{group}/{member}").as_bytes()) >> 40)
}

/// Each live member does what its plan says, until none has anything left to do.
fn settled(mut table: ShardTable, lost: Option<&str>) -> ShardTable {
    let state = |member: &String| match Some(member.as_str()) == lost {
        true => (member.clone(), MemberState::Gone),
        false => (member.clone(), MemberState::Live),
    };
    let states = MemberStates(table.members.iter().map(state).collect::<BTreeMap<_, _>>());
    loop {
        let before = table.clone();
        for member in before.members.iter().filter(|member| Some(member.as_str()) != lost) {
            let plan = table.plan(member, &states);
            table = table.with(&plan.free, member).with(&plan.taken, member);
            for (heir, shards) in &plan.handed_over {
                table = table.with(shards, heir);
            }
        }
        if table == before {
            return table;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn placed(sources: u32, members: u16) -> (Population, Placement) {
        let population = Population::new(sources, 1);
        let placement = Placement::new(&population, members);
        (population, placement)
    }

    #[test]
    fn every_source_is_on_exactly_one_daemon_and_all_of_a_host_on_the_same() {
        let (population, placement) = placed(30_000, 3);
        let owners: Vec<_> =
            placement.groups.iter().map(|group| SharingGroup::owners(&group.table)).collect();
        let mut sources_of = HashMap::new();
        for (host, place) in population.hosts.iter().zip(&placement.places) {
            let owner = owners[usize::from(place.group)][usize::from(place.shard)];
            *sources_of.entry(owner.expect("every shard has an owner")).or_insert(0_u32) += host.sources;
        }
        assert_eq!(sources_of.values().sum::<u32>(), 30_000);
        assert_eq!(
            sources_of.len(),
            placement.groups.len() * 3,
            "no daemon is without work, and no two have one name"
        );
        for group in &placement.groups {
            let shards: usize = group.table.owners.values().map(wire::nats::ShardSet::len).sum();
            assert_eq!(shards, usize::from(SHARDS), "no shard has two owners");
        }
    }

    #[test]
    fn no_list_has_more_than_it_may_and_they_are_about_equal() {
        let (_, placement) = placed(120_000, 2);
        let sources = placement.groups.iter().map(|group| group.sources);
        assert!(sources.clone().max() <= Some(LIST_SOURCES_MAX));
        let (most, least) = (sources.clone().max().unwrap(), sources.min().unwrap());
        assert!(most - least <= 1200, "a host of 1,200 is the largest: {least} to {most}");
    }

    #[test]
    fn only_the_sources_of_a_lost_daemon_move() {
        let (_, placement) = placed(10_000, 3);
        let group = &placement.groups[0];
        let lost = group.table.members.first().unwrap();
        let after = group.without(lost);
        let (before, after) = (SharingGroup::owners(&group.table), SharingGroup::owners(&after));
        for (before, after) in before.iter().zip(after) {
            assert_ne!(after, Some(lost.as_str()));
            assert!(*before == Some(lost.as_str()) || *before == after, "it had another owner and moved");
        }
    }
}
