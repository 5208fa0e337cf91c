//! What each daemon has to do, what a host allows, and what the loss of a daemon moves to the others.

use std::collections::HashMap;

use super::{
    placement::{HostPlace, Placement, SharingGroup},
    population::{Population, SimulatedHost},
    unit_costs::{MachineShape, Needs, UnitCosts},
};

const DAY_S: f64 = 86_400.0;

/// What one daemon visits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DaemonLoad {
    /// Sources of its list.
    pub(super) listed: f64,
    pub(super) sources: f64,
    /// Per second.
    pub(super) visits: f64,
    /// Per second.
    pub(super) items: f64,
}

impl DaemonLoad {
    fn add(&mut self, host: &SimulatedHost, costs: &UnitCosts) {
        self.sources += f64::from(host.sources);
        self.visits += possible_visits(host, costs);
        self.items += f64::from(host.items_per_day) / DAY_S;
    }

    pub(super) fn needs(&self, costs: &UnitCosts) -> Needs {
        let unchanged = costs.unchanged_share.value;
        let mix = |with_304: f64, with_200: f64| unchanged * with_304 + (1.0 - unchanged) * with_200;
        let cpu = self.visits * mix(costs.visit_304.value, costs.visit_200.value)
            + (self.items + self.visits) * costs.publish_daemon.value;
        let memory = self.sources * costs.visited_bytes.value
            + (self.listed - self.sources) * costs.listed_bytes.value;
        let bytes = self.visits * mix(costs.unchanged_bytes.value, costs.body_bytes.value)
            + self.items * costs.event_bytes.value;
        Needs {
            cores: cpu / 1e6,
            memory_gb: costs.daemon_memory.value / 1e3 + memory / 1e9,
            gbit: bytes * 8.0 / 1e9,
        }
    }
}

/// Visits a second that the schedule asks for and the spacing of the host allows.
fn possible_visits(host: &SimulatedHost, costs: &UnitCosts) -> f64 {
    (f64::from(host.visits_per_day) / DAY_S).min(1.0 / costs.host_spacing.value)
}

/// The loads of all daemons, by name.
pub(super) fn daemon_loads<'p>(
    population: &Population,
    placement: &'p Placement,
    costs: &UnitCosts,
) -> HashMap<&'p str, DaemonLoad> {
    let listed = placement.daemons().map(|(group, daemon)| {
        let listed = f64::from(placement.groups[usize::from(group)].sources);
        (daemon, DaemonLoad { listed, ..DaemonLoad::default() })
    });
    let mut loads: HashMap<_, _> = listed.collect();
    let owners: Vec<_> = placement.groups.iter().map(|group| SharingGroup::owners(&group.table)).collect();
    for (host, place) in population.hosts.iter().zip(&placement.places) {
        let owner = owners[usize::from(place.group)][usize::from(place.shard)];
        if let Some(load) = owner.and_then(|owner| loads.get_mut(owner)) {
            load.add(host, costs);
        }
    }
    loads
}

/// What the largest hosts allow.
#[derive(Clone, Copy, Debug)]
pub(super) struct LargestHosts {
    pub(super) sources: f64,
    /// Hours for one visit to each source of the largest.
    pub(super) cycle_hours: f64,
    /// Hosts whose sources are visited less often than their schedule asks for.
    pub(super) held: f64,
    pub(super) held_sources: f64,
    /// Visits a second that are left out because of that.
    pub(super) left_out: f64,
}

pub(super) fn largest_hosts(population: &Population, costs: &UnitCosts) -> LargestHosts {
    let sources = population.hosts.first().map_or(0.0, |host| f64::from(host.sources));
    let missing =
        |host: &SimulatedHost| f64::from(host.visits_per_day) / DAY_S - possible_visits(host, costs);
    let held: Vec<_> = population.hosts.iter().filter(|host| missing(host) > 0.0).collect();
    LargestHosts {
        sources,
        cycle_hours: sources * costs.host_spacing.value / 3600.0,
        held: held.iter().map(|_| 1.0).sum(),
        held_sources: held.iter().map(|host| f64::from(host.sources)).sum(),
        left_out: held.iter().map(|host| missing(host)).sum(),
    }
}

/// What the loss of one daemon does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DaemonLoss {
    /// Sources that another daemon takes over.
    pub(super) moved: f64,
    /// Seconds until all of them are visited again.
    pub(super) seconds: f64,
    /// The most visits a second that another daemon has then.
    pub(super) visits: f64,
}

/// The loss of the daemon with the most sources.
pub(super) fn loss_of(
    population: &Population,
    placement: &Placement,
    lost: &str,
    costs: &UnitCosts,
) -> DaemonLoss {
    let Some((number, _)) = placement.daemons().find(|(_, daemon)| *daemon == lost) else {
        return DaemonLoss::default();
    };
    let group = &placement.groups[usize::from(number)];
    let after = group.without(lost);
    let (before, after) = (SharingGroup::owners(&group.table), SharingGroup::owners(&after));
    let (mut heirs, mut moved): (HashMap<_, DaemonLoad>, HashMap<_, f64>) = Default::default();
    let of_group = |(_, place): &(&SimulatedHost, &HostPlace)| place.group == number;
    for (host, place) in population.hosts.iter().zip(&placement.places).filter(of_group) {
        let shard = usize::from(place.shard);
        let Some(heir) = after[shard] else { continue };
        heirs.entry(heir).or_default().add(host, costs);
        if before[shard] == Some(lost) {
            *moved.entry(heir).or_default() += f64::from(host.sources);
        }
    }
    // The heirs work at the same time.
    let most = moved.values().copied().fold(0.0, f64::max);
    DaemonLoss {
        moved: moved.values().sum(),
        seconds: costs.lease_s.value + most * costs.taken_over.value / 1e3,
        visits: heirs.values().map(|load| load.visits).fold(0.0, f64::max),
    }
}

/// What all daemons need, and how many machines that is: the members of a group are on different ones.
pub(super) fn all_needs<'l>(
    loads: impl Iterator<Item = &'l DaemonLoad>,
    members: u16,
    costs: &UnitCosts,
    shape: &MachineShape,
) -> (Needs, f64, &'static str) {
    let all = loads.map(|load| load.needs(costs)).fold(Needs::default(), |sum, needs| Needs {
        cores: sum.cores + needs.cores,
        memory_gb: sum.memory_gb + needs.memory_gb,
        gbit: sum.gbit + needs.gbit,
    });
    let (machines, limit) = all.machines(shape);
    match f64::from(members) {
        members if members > machines => (all, members, "members on machines of their own"),
        _ => (all, machines, limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: UnitCosts = UnitCosts::USUAL;

    fn simulated(members: u16) -> (Population, Placement) {
        let population = Population::new(40_000, 3);
        let placement = Placement::new(&population, members);
        (population, placement)
    }

    #[test]
    fn the_daemons_of_a_group_have_about_equal_parts_and_no_visit_is_lost() {
        let (population, placement) = simulated(2);
        let loads = daemon_loads(&population, &placement, &COSTS);
        let sources: Vec<_> = loads.values().map(|load| load.sources).collect();
        assert!((sources.iter().sum::<f64>() - 40_000.0).abs() < 0.5);
        let mean = 40_000.0 / sources.len() as f64;
        for sources in sources {
            assert!((sources / mean - 1.0).abs() < 0.3, "{sources} of {mean}");
        }
        let visits: f64 = loads.values().map(|load| load.visits).sum();
        let possible: f64 = population.hosts.iter().map(|host| possible_visits(host, &COSTS)).sum();
        assert!((visits / possible - 1.0).abs() < 1e-6, "{visits} {possible}");
    }

    #[test]
    fn a_large_host_is_visited_once_a_spacing_at_most() {
        let host =
            SimulatedHost { number: 0, sources: 90_000, items_per_day: 0.0, visits_per_day: 400_000.0 };
        assert!((possible_visits(&host, &COSTS) - 1.0).abs() < 1e-9);
        let population = Population::new(40_000, 3);
        let largest = largest_hosts(&population, &COSTS);
        assert!((largest.sources - 400.0).abs() < 0.5, "a hundredth of all sources: {largest:?}");
        assert!((largest.cycle_hours - 400.0 / 3600.0).abs() < 1e-9);
    }

    #[test]
    fn what_a_lost_daemon_had_moves_and_the_other_has_the_work_of_both() {
        let (population, placement) = simulated(2);
        let loads = daemon_loads(&population, &placement, &COSTS);
        let (_, lost) = placement.daemons().next().unwrap();
        let loss = loss_of(&population, &placement, lost, &COSTS);
        assert!((loss.moved - loads[lost].sources).abs() < 0.5, "all of it, and nothing else");
        let group = &placement.groups[0].table.members;
        let both: f64 = group.iter().map(|daemon| loads[daemon.as_str()].visits).sum();
        assert!((loss.visits / both - 1.0).abs() < 1e-6, "{} {both}", loss.visits);
        assert!(loss.seconds > COSTS.lease_s.value);
    }
}
