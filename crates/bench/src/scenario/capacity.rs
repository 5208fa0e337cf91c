//! What a very large installation needs: no measurement, and no network.
//!
//! ```text
//! made-up hosts ─► the program's own hash and plan ─► daemons: visits, items, memory, what a lost one moves
//!                  costs that other scenarios measured ─► NATS, gateways, clients ─► the bill of machines
//! ```
//!
//! Two columns: all sources on one wire, and divided among ten. A gateway knows all sources of its wire, and looks at all of
//! its events for each client, so that wires are what keeps gateways small.

mod delivery;
mod ingestion;
mod placement;
mod population;
mod servers;
mod unit_costs;

use std::collections::HashMap;

use self::{
    delivery::{GatewayPlan, WireLoad},
    ingestion::{DaemonLoad, all_needs, daemon_loads, largest_hosts, loss_of},
    placement::Placement,
    population::Population,
    servers::{NatsLoad, SERVERS},
    unit_costs::{MachineShape, Needs, UnitCosts},
};
use super::Options;
use crate::report::{Row, ScenarioReport};

const SOURCES: u32 = 10_000_000;
const CLIENTS: f64 = 10e6;
/// Daemons of each group, each on a machine of its own.
const MEMBERS: u16 = 2;
/// What a client is sent, per second: one event a minute.
const RECEIVED: f64 = 1.0 / 60.0;
/// Days that the stream keeps.
const KEPT_DAYS: f64 = 7.0;
/// Into how many wires the sources are divided.
const WIRES: [f64; 2] = [1.0, 10.0];
const COLUMNS: [&str; 2] = ["1 wire", "10 wires"];

/// The same installation with all sources on one wire, or on several.
struct Variant {
    wires: f64,
    wire: WireLoad,
    gateways: GatewayPlan,
    nats: NatsLoad,
}

impl Variant {
    fn new(wires: f64, all: &WireLoad, costs: &UnitCosts, shape: &MachineShape) -> Self {
        let wire = WireLoad {
            daemons: all.daemons / wires,
            sources: all.sources / wires,
            events: all.events / wires,
            visits: all.visits / wires,
            clients: all.clients / wires,
            received: all.received,
        };
        let gateways = wire.gateways(costs, shape);
        let nats = NatsLoad::new(&wire, gateways.gateways, KEPT_DAYS, costs);
        Self { wires, wire, gateways, nats }
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<ScenarioReport>> {
    let (costs, shape) = (UnitCosts::USUAL, MachineShape::USUAL);
    let sources = options.sources.unwrap_or(SOURCES);
    let clients = options.clients.map_or(CLIENTS, |clients| clients as f64);
    let population = Population::new(sources, options.seed);
    let placement = Placement::new(&population, MEMBERS);
    let loads = daemon_loads(&population, &placement, &costs);
    let total = |of: fn(&DaemonLoad) -> f64| loads.values().map(of).sum::<f64>();
    let all = WireLoad {
        daemons: loads.len() as f64,
        sources: f64::from(sources),
        events: total(|load| load.items),
        visits: total(|load| load.visits),
        clients,
        received: RECEIVED,
    };
    let variants = WIRES.map(|wires| Variant::new(wires, &all, &costs, &shape));
    let daemons = all_needs(loads.values(), MEMBERS, &costs, &shape);
    Ok(vec![
        section("capacity: costs", "what one of each costs, and where the figure comes from", costs.rows()),
        section(
            "capacity: sources",
            "on daemons, by the program's own hash and plan",
            source_rows(&population, &placement, &loads, &costs),
        ),
        section(
            "capacity: NATS",
            "for each wire, three servers with everything",
            nats_rows(&variants, &shape),
        ),
        section(
            "capacity: clients",
            "on gateways, each on a machine of its own",
            client_rows(&variants, &costs),
        ),
        section(
            "capacity: bill",
            &format!(
                "{sources} sources, {clients} clients that are sent an event a minute each; machines of {} cores, {} GB, {} \
                 Gbit/s, used to {} % ({} % of memory)",
                shape.cores,
                shape.memory_gb,
                shape.gbit,
                shape.busy * 100.0,
                shape.filled * 100.0
            ),
            bill_rows(&variants, daemons, &shape),
        ),
    ])
}

fn section(scenario: &'static str, load: &str, rows: Vec<Row>) -> ScenarioReport {
    ScenarioReport { scenario, load: load.to_owned(), columns: COLUMNS, rows }
}

fn source_rows(
    population: &Population,
    placement: &Placement,
    loads: &HashMap<&str, DaemonLoad>,
    costs: &UnitCosts,
) -> Vec<Row> {
    let one = |measure: &str, unit, value: f64| Row::new(measure, unit, value, None);
    let count = loads.len() as f64;
    let total = |of: fn(&DaemonLoad) -> f64| loads.values().map(of).sum::<f64>();
    let most = |of: fn(&DaemonLoad) -> f64| loads.values().map(of).fold(0.0, f64::max);
    let largest = largest_hosts(population, costs);
    let busiest = loads.iter().max_by(|a, b| a.1.sources.total_cmp(&b.1.sources).then(b.0.cmp(a.0)));
    let (lost, busiest) = busiest.map_or(("", DaemonLoad::default()), |(name, load)| (*name, *load));
    let loss = loss_of(population, placement, lost, costs);
    vec![
        one("hosts", "", population.hosts.len() as f64).remark("registrable domains"),
        one("groups", "", placement.groups.len() as f64).remark("lists of at most 100000 sources"),
        one("daemons", "", count).remark(format!("{MEMBERS} in each group")),
        one("sources of a daemon, mean", "", total(|load| load.sources) / count),
        one("sources of a daemon, most", "", most(|load| load.sources))
            .remark("a host that fills a list is on one daemon"),
        one("visits, all", "1/s", total(|load| load.visits)),
        one("new items, all", "1/s", total(|load| load.items)),
        one("visits of a daemon, most", "1/s", most(|load| load.visits)),
        one(
            "cores of a daemon, most",
            "",
            loads.values().map(|load| load.needs(costs).cores).fold(0.0, f64::max),
        ),
        one("memory of a daemon, most", "GB", busiest.needs(costs).memory_gb),
        one("sources of the largest host", "", largest.sources),
        one("a visit to each of them takes", "h", largest.cycle_hours)
            .remark("one daemon, one visit a second"),
        one("hosts that are visited less often than due", "", largest.held),
        one("their sources", "", largest.held_sources),
        one("visits that are left out because of that", "1/s", largest.left_out),
        one("sources that move when the largest daemon is lost", "", loss.moved),
        one("until all of them are visited again", "s", loss.seconds),
        one("visits of the daemon that takes them over", "1/s", loss.visits),
    ]
}

/// Rows of both variants.
fn both(variants: &[Variant; 2]) -> impl Fn(&str, &'static str, fn(&Variant) -> f64) -> Row {
    move |measure, unit, of| Row::new(measure, unit, of(&variants[0]), Some(of(&variants[1])))
}

/// A remark that may differ between the variants.
fn either(of: [&str; 2]) -> String {
    if of[0] == of[1] { of[0].to_owned() } else { format!("{} | {}", of[0], of[1]) }
}

fn nats_rows(variants: &[Variant; 2], shape: &MachineShape) -> Vec<Row> {
    let row = both(variants);
    let limits = [variants[0].nats.limit(shape), variants[1].nats.limit(shape)];
    vec![
        row("messages that are stored", "1/s", |v| v.nats.stored).remark("events, checkpoints, leases"),
        row("part of what one stream stores", "%", |v| v.nats.stream_used * 100.0)
            .remark("the busiest stream"),
        row("messages to gateways", "1/s", |v| v.nats.delivered)
            .remark("events, notices of visits, heartbeats"),
        row("bytes to the other two servers", "MB/s", |v| v.nats.replicated_bytes / 1e6),
        row("bytes to gateways", "MB/s", |v| v.nats.delivered_bytes / 1e6),
        row("cores of the leader", "", |v| v.nats.leader.cores),
        row("memory of each server", "GB", |v| v.nats.leader.memory_gb)
            .remark("three subjects of each source"),
        row("network of the leader", "Gbit/s", |v| v.nats.leader.gbit),
        row("disk of each server", "GB", |v| v.nats.disk_gb)
            .remark(format!("events of {KEPT_DAYS} days, checkpoints")),
        row("events of one day", "million", |v| v.wire.events * 86_400.0 / 1e6)
            .remark("store.retention_events is 1 million: raise it"),
        row("clusters", "", |v| v.nats.leader.times(v.wires).machines(&MachineShape::USUAL).0)
            .remark(format!("for all wires; limit: {}", either(limits))),
    ]
}

fn client_rows(variants: &[Variant; 2], costs: &UnitCosts) -> Vec<Row> {
    let row = both(variants);
    let limits = [variants[0].gateways.limit, variants[1].gateways.limit];
    let herd = |share: f64| {
        [0, 1].map(|n| {
            let Variant { wire, gateways, .. } = &variants[n];
            gateways.herd((gateways.gateways * share).ceil().max(1.0), wire, costs)
        })
    };
    let (one, third) = (herd(0.0), herd(1.0 / 3.0));
    let pair = |measure: &str, unit, values: [f64; 2]| Row::new(measure, unit, values[0], Some(values[1]));
    vec![
        row("gateways of a wire", "", |v| v.gateways.gateways).remark("one more than needed"),
        row("clients of a gateway", "", |v| v.gateways.clients_of_each).remark(either(limits)),
        row("cores of a gateway", "", |v| v.gateways.needs.cores),
        row("memory of a gateway", "GB", |v| v.gateways.needs.memory_gb)
            .remark("2 KB per source of the wire, 16 KB per client"),
        row("network of a gateway", "Gbit/s", |v| v.gateways.needs.gbit),
        row("events of a wire", "1/s", |v| v.wire.events).remark("each client looks at each of them"),
        row("clients of a gateway, if sent every event", "", |v| v.gateways.unfiltered)
            .remark("without a filter"),
        pair("one gateway lost: new streams at each other", "1/s", one.map(|herd| herd.connects)),
        pair("cores that they take", "", one.map(|herd| herd.cores)),
        pair("a third lost: new streams at each other", "1/s", third.map(|herd| herd.connects)),
        pair("cores that they take meanwhile", "", third.map(|herd| herd.cores)),
        pair("cores of each of the others afterwards", "", third.map(|herd| herd.cores_after)),
        pair(
            "a gateway that starts reads the list of sources",
            "MB",
            [0, 1].map(|n| variants[n].wire.sources * costs.listed_json_bytes.value / 1e6),
        ),
    ]
}

fn bill_rows(
    variants: &[Variant; 2],
    (daemons, daemon_machines, daemon_limit): (Needs, f64, &str),
    shape: &MachineShape,
) -> Vec<Row> {
    let row = both(variants);
    // Wires share a cluster as long as one machine can lead all of their streams.
    let clusters = |v: &Variant| v.nats.leader.times(v.wires).machines(shape).0;
    let machines = |v: &Variant| [daemon_machines, v.wires * v.gateways.gateways, clusters(v) * SERVERS];
    let needs = |v: &Variant| {
        let (gateways, nats) =
            (v.gateways.needs.times(v.wires * v.gateways.gateways), v.nats.leader.times(v.wires));
        [daemons, gateways, Needs { memory_gb: nats.memory_gb * SERVERS, ..nats }]
    };
    let sum = |measure: &str, unit, of: &dyn Fn(&Variant) -> f64| {
        Row::new(measure, unit, of(&variants[0]), Some(of(&variants[1])))
    };
    let limits = [variants[0].gateways.limit, variants[1].gateways.limit];
    let nats_limits = [variants[0].nats.limit(shape), variants[1].nats.limit(shape)];
    vec![
        sum("machines of daemons", "", &|v| machines(v)[0]).remark(format!("limit: {daemon_limit}")),
        sum("machines of gateways", "", &|v| machines(v)[1]).remark(format!("limit: {}", either(limits))),
        sum("machines of NATS", "", &|v| machines(v)[2]).remark(format!("limit: {}", either(nats_limits))),
        sum("machines, all", "", &|v| machines(v).iter().sum()),
        sum("cores in use", "", &|v| needs(v).iter().map(|needs| needs.cores).sum()),
        sum("memory in use", "GB", &|v| needs(v).iter().map(|needs| needs.memory_gb).sum()),
        sum("to clients and from feeds", "Gbit/s", &|v| needs(v)[0].gbit + needs(v)[1].gbit),
        row("disk of NATS", "TB", |v| v.nats.disk_gb * v.wires * SERVERS / 1e3),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wires_divide_the_load_and_lose_nothing_of_it() {
        let all = WireLoad {
            daemons: 20.0,
            sources: 1e6,
            events: 16.0,
            visits: 50.0,
            clients: 1e6,
            received: RECEIVED,
        };
        let ten = Variant::new(10.0, &all, &UnitCosts::USUAL, &MachineShape::USUAL);
        assert!((ten.wire.events * ten.wires - all.events).abs() < 1e-9);
        assert!(ten.gateways.gateways * ten.gateways.clients_of_each * ten.wires >= all.clients - 1.0);
    }
}
