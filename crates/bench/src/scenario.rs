//! The scenarios and their common parts: a measured server, a fleet of clients, and the cost of a period.

mod attacks;
mod capacity;
mod delivery;
mod filtered;
mod hang;
mod idle;
mod memory;
mod nats;
mod restart;
mod resume;
mod scale;
mod slow;
mod start;
mod store;
mod visits;

use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::{
    fleet::{DeliveryCounts, Fleet},
    histogram::median,
    process::CpuPartition,
    report::{Bar, Row, ScenarioReport, note},
    server::{MeasuredServer, Nchan, Server, Side},
};

/// Deadline for all clients to connect.
const CONNECT: Duration = Duration::from_secs(60);
/// Deadline for all clients to have all events.
const CATCH_UP: Duration = Duration::from_secs(120);

/// Duration of a steady measurement, if none was given.
const STEADY: Duration = Duration::from_secs(10);

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Memory of clients that receive only heartbeats
    Idle,
    /// Memory of clients after bursts of large items, and after they have left
    Memory,
    /// Five items per second to all clients
    Broadcast,
    /// A hundred items at once to all clients
    Burst,
    /// What an event costs that the filters of all clients leave out
    Filtered,
    /// 5% of the clients stop reading
    Slow,
    /// The gateway is killed and restarted; its clients have missed a thousand items
    Resume,
    /// The gateway is stopped by SIGTERM, and another one takes over
    Restart,
    /// One attacker; other clients must not notice it
    Attacks,
    /// The daemon visits 2,000 feeds of which 1,000 hang or drip, compared with 2,000 that answer
    Visits,
    /// `/health` while half of 200 feeds hang or drip and streams are aborted, compared with 200 that answer
    Hang,
    /// The daemon visits 100,000 feeds of which 5% hang
    Scale,
    /// What a commit, a new item and a start cost the store, beside the same bytes written and synced by hand
    Store,
    /// The first start of the daemon with 300 feeds of 300 items each: most memory, and memory a minute later
    Start,
    /// Events through one NATS server, and through three, beside the local wire: latency, events per second, processor time
    Nats,
    /// No measurement: the machines for 10 million sources and 10 million clients, from measured costs and the program's own
    /// division of sources among daemons
    Capacity,
}

/// Options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Number of clients, instead of the scenario's default.
    pub(crate) clients: Option<usize>,
    /// Measurements per side; the median is reported.
    pub(crate) rounds: usize,
    /// Duration of the steady scenarios and of an attack, instead of the default.
    pub(crate) time: Option<Duration>,
    pub(crate) item_bytes: usize,
    /// Number of sources, instead of the scenario's default.
    pub(crate) sources: Option<u32>,
    /// Of the sources of `capacity`.
    pub(crate) seed: u64,
    pub(crate) peer: bool,
    /// Parts of the names of attacks; all of them if there are none.
    pub(crate) only: Vec<String>,
    /// Lower priority of the attacker.
    pub(crate) niceness: i32,
    /// Some attacks only, each briefly, compared with an idle twin instead of absolute times.
    pub(crate) brief: bool,
    pub(crate) cpus: CpuPartition,
}

impl Scenario {
    pub(crate) fn run(self, options: &Options) -> anyhow::Result<Vec<ScenarioReport>> {
        let report = match self {
            Self::Attacks => return attacks::run(options),
            Self::Capacity => return capacity::run(options),
            Self::Nats => return nats::run(options),
            Self::Idle => idle::run(options),
            Self::Memory => memory::run(options),
            Self::Broadcast => delivery::broadcast(options),
            Self::Burst => delivery::burst(options),
            Self::Filtered => filtered::run(options),
            Self::Slow => slow::run(options),
            Self::Resume => resume::run(options),
            Self::Restart => restart::run(options),
            Self::Visits => visits::run(options),
            Self::Hang => hang::run(options),
            Self::Scale => scale::run(options),
            Self::Start => start::run(options),
            Self::Store => store::run(options),
        };
        Ok(vec![report?])
    }
}

impl Options {
    /// Duration of a steady measurement.
    fn steady(&self) -> Duration {
        self.time.unwrap_or(STEADY)
    }

    /// The sides to measure: ours, and the peer if it is installed.
    fn sides(&self) -> Vec<Side> {
        match Nchan::missing() {
            _ if !self.peer => vec![Side::Ours],
            None => vec![Side::Ours, Side::Peer],
            Some(missing) => {
                note(&format!("NO PEER: {missing}; apt-get install nginx libnginx-mod-nchan"));
                vec![Side::Ours]
            }
        }
    }

    /// Measures each side `rounds` times, alternating.
    fn measure_alternating<T>(
        &self,
        mut measure: impl FnMut(Side) -> anyhow::Result<T>,
    ) -> anyhow::Result<Sides<T>> {
        let mut both = Sides { ours: Vec::new(), peer: Vec::new() };
        for _ in 0..self.rounds {
            for side in self.sides() {
                let measured = measure(side).with_context(|| format!("measure {side:?}"))?;
                if side == Side::Ours { both.ours.push(measured) } else { both.peer.push(measured) }
            }
        }
        Ok(both)
    }
}

/// The measurements of each side.
struct Sides<T> {
    ours: Vec<T>,
    peer: Vec<T>,
}

impl<T> Sides<T> {
    fn row(&self, measure: &str, unit: &'static str, value: impl Fn(&T) -> f64) -> Row {
        let median_of = |values: &[T]| median(&values.iter().map(&value).collect::<Vec<_>>());
        Row::new(measure, unit, median_of(&self.ours), (!self.peer.is_empty()).then(|| median_of(&self.peer)))
    }

    fn sum(&self, measure: &str, unit: &'static str, value: impl Fn(&T) -> f64) -> Row {
        let all = |values: &[T]| values.iter().map(&value).sum();
        Row::new(measure, unit, all(&self.ours), (!self.peer.is_empty()).then(|| all(&self.peer)))
    }
}

/// The cost of a period: CPU time of the server, and what the clients received.
struct Cost {
    cpu: Duration,
    counts: DeliveryCounts,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl Cost {
    /// Measures `work`, until all clients have everything that was published.
    fn measure<S: Server + ?Sized>(
        measured: &mut MeasuredServer<S>,
        fleet: &mut Fleet,
        work: impl FnOnce(&mut MeasuredServer<S>, &mut Fleet) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        // Every client needs a first event to count from.
        measured.publish(1)?;
        anyhow::ensure!(
            fleet.until_current(measured.head, CATCH_UP)?,
            "the first event did not reach all clients"
        );
        fleet.counts = DeliveryCounts::default();
        let before = measured.server.process().cpu()?;
        work(measured, fleet)?;
        if !fleet.until_current(measured.head, CATCH_UP)? {
            note("not all clients received everything in time");
        }
        let cpu = measured.server.process().cpu()?.saturating_sub(before);
        fleet.count_missing(measured.head);
        Ok(Self { cpu, counts: std::mem::take(&mut fleet.counts) })
    }

    fn per_delivery(&self, value: f64) -> f64 {
        value / self.counts.deliveries.max(1) as f64
    }

    fn cpu_micros(&self) -> f64 {
        self.per_delivery(self.cpu.as_secs_f64() * 1e6)
    }

    fn latency_ms(&self, per_mille: u64) -> f64 {
        self.counts.latency.per_mille(per_mille) as f64 / 1000.0
    }

    fn rows(both: &Sides<Self>, bar: Bar) -> Vec<Row> {
        vec![
            both.row("CPU per delivery", "µs", Self::cpu_micros).bar(bar),
            both.row("latency p50", "ms", |cost| cost.latency_ms(500)),
            both.row("latency p99", "ms", |cost| cost.latency_ms(990)),
            both.row("latency max", "ms", |cost| cost.counts.latency.max() as f64 / 1000.0),
            both.row("reads per delivery", "", |cost| cost.per_delivery(cost.counts.reads as f64)),
            both.row("bytes per delivery", "B", |cost| cost.per_delivery(cost.counts.bytes as f64)),
            both.sum("deliveries", "", |cost| cost.counts.latency.count() as f64),
            both.sum("lost", "", |cost| cost.counts.lost as f64).bar(Bar::AtMost(0.0)),
            both.sum("duplicates", "", |cost| cost.counts.doubled as f64).bar(Bar::AtMost(0.0)),
            both.sum("streams lost", "", |cost| cost.counts.ended as f64),
        ]
    }
}

/// Starts a server and connects clients, the first `slow` of which stop reading.
fn start_with_clients(
    side: Side,
    options: &Options,
    clients: usize,
    slow: usize,
) -> anyhow::Result<(MeasuredServer<dyn Server>, Fleet)> {
    let measured = MeasuredServer::start(side, &options.cpus, options.item_bytes)?;
    let mut fleet = Fleet::new(measured.server.target(), measured.began, clients, slow)?;
    fleet.connect(CONNECT)?;
    Ok((measured, fleet))
}

/// Publishes one item every 200 ms for `time`.
fn publish_steadily<S: Server + ?Sized>(
    measured: &mut MeasuredServer<S>,
    fleet: &mut Fleet,
    time: Duration,
) -> anyhow::Result<()> {
    const EVERY: Duration = Duration::from_millis(200);
    let mut next = tokio::time::Instant::now();
    for _ in 0..time.as_millis() / EVERY.as_millis() {
        measured.publish(1)?;
        next += EVERY;
        fleet.read_until(next)?;
    }
    Ok(())
}
