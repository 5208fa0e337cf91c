//! The scenarios, and what they have in common: a stand, a fleet, and what a stretch of time cost.

mod delivery;
mod idle;
mod restart;
mod resume;
mod scale;
mod slow;
mod visits;

use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::{
    fleet::{Fleet, Tally},
    histogram::median,
    process::Seats,
    report::{Bar, Row, Section, note},
    server::{Nchan, Server, Stand, Which},
};

/// Longest wait for so many clients to connect.
const CONNECT: Duration = Duration::from_secs(60);
/// Longest wait for everybody to have everything.
const CATCH_UP: Duration = Duration::from_secs(120);

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Memory of clients that get nothing but heartbeats
    Idle,
    /// Five items a second to everybody
    Broadcast,
    /// A hundred items at once to everybody
    Burst,
    /// Five in a hundred clients stop reading
    Slow,
    /// The gateway is killed, and comes back to clients that missed a thousand items
    Resume,
    /// The gateway is told to stop, and another takes over
    Restart,
    /// The daemon visits 2,000 feeds of which 1,000 hang or drip, beside 2,000 that answer
    Visits,
    /// The daemon visits 100,000 feeds of which 5 in a hundred hang
    Scale,
}

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Clients, where the scenario's own number is not wanted.
    pub(crate) clients: Option<usize>,
    /// How often each side is measured; what is told is the median.
    pub(crate) rounds: usize,
    /// How long the steady scenarios last.
    pub(crate) time: Duration,
    pub(crate) item_bytes: usize,
    /// Sources of `scale`.
    pub(crate) sources: usize,
    pub(crate) peer: bool,
    pub(crate) seats: Seats,
}

impl Scenario {
    pub(crate) fn run(self, options: &Options) -> anyhow::Result<Section> {
        match self {
            Self::Idle => idle::run(options),
            Self::Broadcast => delivery::broadcast(options),
            Self::Burst => delivery::burst(options),
            Self::Slow => slow::run(options),
            Self::Resume => resume::run(options),
            Self::Restart => restart::run(options),
            Self::Visits => visits::run(options),
            Self::Scale => scale::run(options),
        }
    }
}

impl Options {
    /// Who is measured: ours, and the peer where it is installed.
    fn sides(&self) -> Vec<Which> {
        match Nchan::missing() {
            _ if !self.peer => vec![Which::Ours],
            None => vec![Which::Ours, Which::Peer],
            Some(missing) => {
                note(&format!("NO PEER: {missing}; apt-get install nginx libnginx-mod-nchan"));
                vec![Which::Ours]
            }
        }
    }

    /// Measures each side so many times, in turns.
    fn in_turns<T>(&self, mut measure: impl FnMut(Which) -> anyhow::Result<T>) -> anyhow::Result<Both<T>> {
        let mut both = Both { ours: Vec::new(), peer: Vec::new() };
        for _ in 0..self.rounds {
            for which in self.sides() {
                let found = measure(which).with_context(|| format!("measure {which:?}"))?;
                if which == Which::Ours { both.ours.push(found) } else { both.peer.push(found) }
            }
        }
        Ok(both)
    }
}

/// What was found on each side.
struct Both<T> {
    ours: Vec<T>,
    peer: Vec<T>,
}

impl<T> Both<T> {
    fn row(&self, measure: &str, unit: &'static str, value: impl Fn(&T) -> f64) -> Row {
        let middle = |found: &[T]| median(&found.iter().map(&value).collect::<Vec<_>>());
        Row::new(measure, unit, middle(&self.ours), (!self.peer.is_empty()).then(|| middle(&self.peer)))
    }

    fn sum(&self, measure: &str, unit: &'static str, value: impl Fn(&T) -> f64) -> Row {
        let all = |found: &[T]| found.iter().map(&value).sum();
        Row::new(measure, unit, all(&self.ours), (!self.peer.is_empty()).then(|| all(&self.peer)))
    }
}

/// A stretch of time: what the server spent, and what the clients got for it.
struct Cost {
    cpu: Duration,
    tally: Tally,
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
impl Cost {
    /// Does `work` and adds up, until everybody has everything that was published.
    fn of<S: Server + ?Sized>(
        stand: &mut Stand<S>,
        fleet: &mut Fleet,
        work: impl FnOnce(&mut Stand<S>, &mut Fleet) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        // Everybody has something, so that everybody has a place to count from.
        stand.publish(1)?;
        anyhow::ensure!(
            fleet.until_current(stand.head, CATCH_UP)?,
            "the first event did not come to everybody"
        );
        fleet.tally = Tally::default();
        let before = stand.server.process().cpu()?;
        work(stand, fleet)?;
        if !fleet.until_current(stand.head, CATCH_UP)? {
            note("not everybody got everything in time");
        }
        let cpu = stand.server.process().cpu()?.saturating_sub(before);
        fleet.settle(stand.head);
        Ok(Self { cpu, tally: std::mem::take(&mut fleet.tally) })
    }

    fn per_delivery(&self, value: f64) -> f64 {
        value / self.tally.deliveries.max(1) as f64
    }

    fn cpu_micros(&self) -> f64 {
        self.per_delivery(self.cpu.as_secs_f64() * 1e6)
    }

    fn latency_ms(&self, per_mille: u64) -> f64 {
        self.tally.latency.per_mille(per_mille) as f64 / 1000.0
    }

    fn rows(both: &Both<Self>, bar: Bar) -> Vec<Row> {
        vec![
            both.row("CPU per delivery", "µs", Self::cpu_micros).bar(bar),
            both.row("latency p50", "ms", |cost| cost.latency_ms(500)),
            both.row("latency p99", "ms", |cost| cost.latency_ms(990)),
            both.row("latency max", "ms", |cost| cost.tally.latency.max() as f64 / 1000.0),
            both.row("reads per delivery", "", |cost| cost.per_delivery(cost.tally.reads as f64)),
            both.row("bytes per delivery", "B", |cost| cost.per_delivery(cost.tally.bytes as f64)),
            both.sum("deliveries", "", |cost| cost.tally.latency.count() as f64),
            both.sum("lost", "", |cost| cost.tally.lost as f64).bar(Bar::AtMost(0.0)),
            both.sum("doubled", "", |cost| cost.tally.doubled as f64).bar(Bar::AtMost(0.0)),
            both.sum("streams lost", "", |cost| cost.tally.ended as f64),
        ]
    }
}

/// A server with so many clients, the first `slow` of which stop reading.
fn filled(
    which: Which,
    options: &Options,
    clients: usize,
    slow: usize,
) -> anyhow::Result<(Stand<dyn Server>, Fleet)> {
    let stand = Stand::start(which, &options.seats, options.item_bytes)?;
    let mut fleet = Fleet::new(stand.server.target(), stand.began, clients, slow)?;
    fleet.connect(CONNECT)?;
    Ok((stand, fleet))
}

/// Publishes one item every 200 ms for as long as told.
fn publish_steadily<S: Server + ?Sized>(
    stand: &mut Stand<S>,
    fleet: &mut Fleet,
    time: Duration,
) -> anyhow::Result<()> {
    const EVERY: Duration = Duration::from_millis(200);
    let mut next = tokio::time::Instant::now();
    for _ in 0..time.as_millis() / EVERY.as_millis() {
        stand.publish(1)?;
        next += EVERY;
        fleet.read_until(next)?;
    }
    Ok(())
}
