//! Events from real feeds to clients, over the local wire and over NATS, in one run: what NATS adds.
//!
//! ```text
//! feeds ─► newswire-ingestd ─► Unix socket                ─► newswire-gateway ─► clients
//!                            └► nats-server, one or three ─┘
//! ```
//!
//! Latency counts from a feed's answer to the client's read, so it contains the visit and the disk; the difference between the
//! columns is the wire.

use std::time::Duration;

use tokio::time::Instant;

use super::{CATCH_UP, CONNECT, Options, Sides};
use crate::{
    feeds::{FeedBehaviour, Feeds},
    fleet::{DeliveryCounts, Fleet, StreamTarget},
    ingestd::Ingestd,
    process::{ServerProcess, pause, wait_for},
    report::{Bar, Row, ScenarioReport, note},
    server::{NatsServers, for_many_clients},
};

/// Feeds, each on its own host.
const SOURCES: usize = 200;
const CLIENTS: usize = 100;
/// So many feeds have a new item each, so often: 200 events a second.
const TURN_SOURCES: usize = 40;
const TURN: Duration = Duration::from_millis(200);
/// At once, each of the feeds has so many new items.
const BURSTS: usize = 3;
const BURST_ITEMS: u64 = 10;
/// Visits are asked for as often as this scenario likes.
const FETCH: &str = "host_spacing = \"0s\"\ninterval_min = \"100ms\"";
/// Deadline of the first visits.
const FIRST: Duration = Duration::from_secs(60);
const PATH: &str = "/news/stream?snapshot=0";

/// What carries the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Local,
    Servers(usize),
}

/// The programs of one measurement.
struct Programs {
    nats: Option<NatsServers>,
    daemon: Ingestd,
    gateway: ServerProcess,
    fleet: Fleet,
    feeds: Feeds,
}

/// Processor time so far.
#[derive(Clone, Copy, Debug, Default)]
struct CpuTimes {
    daemon: Duration,
    gateway: Duration,
    nats: Duration,
}

/// What a phase cost.
#[derive(Debug)]
struct PhaseCost {
    events: f64,
    took: Duration,
    cpu: CpuTimes,
    counts: DeliveryCounts,
}

/// Both phases of one round.
struct RoundCost {
    steady: PhaseCost,
    burst: PhaseCost,
    nats_bytes: f64,
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
impl Programs {
    fn start(options: &Options, carrier: Carrier) -> anyhow::Result<Self> {
        let nats = match carrier {
            Carrier::Local => None,
            Carrier::Servers(count) => Some(NatsServers::start(&options.cpus, count)?),
        };
        let feeds = Feeds::start()?;
        let wire = nats.as_ref().map_or(String::new(), NatsServers::wire_settings);
        let urls = (0..SOURCES).map(|n| feeds.url(n, FeedBehaviour::News));
        let daemon = Ingestd::start(&options.cpus, &format!("{FETCH}\n{wire}"), urls)?;
        let settings = format!("{}\n{wire}", for_many_clients());
        let (gateway, address) = daemon.start_gateway(&options.cpus, &settings)?;
        let visited = || {
            let visits = daemon.sum("newswire_ingestd_visits_total{status=\"new\"").ok()?;
            (visits >= SOURCES as f64).then_some(())
        };
        wait_for("the first visits", FIRST, visited)?;
        let clients = options.clients.unwrap_or(CLIENTS);
        let target = StreamTarget { address, path: PATH };
        let mut fleet = Fleet::new(target, feeds.began(), clients, 0)?;
        fleet.connect(CONNECT)?;
        let mut programs = Self { nats, daemon, gateway, fleet, feeds };
        // Every client needs a first event to count from, and every program has done everything once.
        for _ in 0..2 {
            programs.daemon.visit_all()?;
            programs.catch_up()?;
        }
        Ok(programs)
    }

    /// Reads until every client has what the feeds have published; the numbers of events begin at 1 on each wire.
    fn catch_up(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + CATCH_UP;
        // What is ordered is published a little later.
        let mut published = 0;
        while published != self.feeds.published() {
            published = self.feeds.published();
            self.fleet.until_current(published, until.saturating_duration_since(Instant::now()))?;
            self.fleet.read_for(Duration::from_millis(50))?;
        }
        anyhow::ensure!(Instant::now() < until, "not all clients received everything in {CATCH_UP:?}");
        Ok(())
    }

    fn cpu(&self) -> anyhow::Result<CpuTimes> {
        Ok(CpuTimes {
            daemon: self.daemon.process.cpu()?,
            gateway: self.gateway.cpu()?,
            nats: self.nats.as_ref().map_or(Ok(Duration::ZERO), NatsServers::cpu)?,
        })
    }

    fn measure(
        &mut self,
        work: impl FnOnce(&mut Self) -> anyhow::Result<Duration>,
    ) -> anyhow::Result<PhaseCost> {
        self.fleet.counts = DeliveryCounts::default();
        let (published, before) = (self.feeds.published(), self.cpu()?);
        let took = work(self)?;
        self.catch_up()?;
        let after = self.cpu()?;
        self.fleet.count_missing(self.feeds.published());
        Ok(PhaseCost {
            events: (self.feeds.published() - published) as f64,
            took,
            cpu: CpuTimes {
                daemon: after.daemon.saturating_sub(before.daemon),
                gateway: after.gateway.saturating_sub(before.gateway),
                nats: after.nats.saturating_sub(before.nats),
            },
            counts: std::mem::take(&mut self.fleet.counts),
        })
    }

    /// Turns of visits; another thread orders them, so that the clients read meanwhile.
    fn steady(&mut self, time: Duration) -> anyhow::Result<Duration> {
        self.feeds.set_new_items(1);
        let (daemon, fleet) = (&self.daemon, &mut self.fleet);
        let began = Instant::now();
        std::thread::scope(|scope| {
            let orders = scope.spawn(move || {
                for turn in 0..usize::try_from(time.as_millis() / TURN.as_millis())? {
                    let first = turn * TURN_SOURCES;
                    daemon.visit((first..first + TURN_SOURCES).map(|n| n % SOURCES))?;
                    let next = TURN * u32::try_from(turn + 1)?;
                    pause(next.saturating_sub(began.elapsed()));
                }
                anyhow::Ok(())
            });
            while !orders.is_finished() {
                fleet.read_for(Duration::from_millis(10))?;
            }
            orders.join().map_err(|_| anyhow::anyhow!("the thread that orders visits has panicked"))?
        })?;
        Ok(began.elapsed())
    }

    /// All feeds have several new items; once more when every client has them.
    fn bursts(&mut self) -> anyhow::Result<Duration> {
        self.feeds.set_new_items(BURST_ITEMS);
        let mut took = Duration::ZERO;
        for _ in 0..BURSTS {
            let (began, goal) = (Instant::now(), self.feeds.published() + SOURCES as u64 * BURST_ITEMS);
            self.daemon.visit_all()?;
            anyhow::ensure!(self.fleet.until_current(goal, CATCH_UP)?, "a burst did not reach all clients");
            took += began.elapsed();
        }
        Ok(took)
    }
}

fn measure(options: &Options, carrier: Carrier) -> anyhow::Result<RoundCost> {
    let mut programs = Programs::start(options, carrier)?;
    let steady = programs.measure(|programs| programs.steady(options.steady()))?;
    let burst = programs.measure(Programs::bursts)?;
    let memory = programs.nats.as_ref().map_or(Ok(0), NatsServers::memory)?;
    #[expect(clippy::cast_precision_loss, reason = "numbers for people")]
    Ok(RoundCost { steady, burst, nats_bytes: memory as f64 })
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
impl PhaseCost {
    fn per_event(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.events.max(1.0)
    }

    fn per_second(&self) -> f64 {
        self.events / self.took.as_secs_f64()
    }

    fn latency_ms(&self, per_mille: u64) -> f64 {
        self.counts.latency.per_mille(per_mille) as f64 / 1000.0
    }

    fn rows(rounds: &Sides<RoundCost>, phase: &str, of: fn(&RoundCost) -> &Self) -> Vec<Row> {
        let row = |measure: &str, unit, value: fn(&Self) -> f64| {
            rounds.row(&format!("{phase}: {measure}"), unit, |round| value(of(round)))
        };
        let sum = |measure: &str, value: fn(&Self) -> f64| {
            rounds.sum(&format!("{phase}: {measure}"), "", |round| value(of(round))).bar(Bar::AtMost(0.0))
        };
        let latency = |name: &str, value: fn(&Self) -> f64| {
            let row = row(name, "ms", value);
            let added = row.peer.map(|local| format!("{:+.1} ms", row.ours - local));
            row.remark(added.unwrap_or_default())
        };
        vec![
            row("events", "1/s", Self::per_second),
            latency("latency p50", |phase| phase.latency_ms(500)),
            latency("latency p99", |phase| phase.latency_ms(990)),
            row("CPU of the daemon per event", "µs", |phase| phase.per_event(phase.cpu.daemon)),
            row("CPU of the gateway per event", "µs", |phase| phase.per_event(phase.cpu.gateway)),
            row("CPU of NATS per event, all servers", "µs", |phase| phase.per_event(phase.cpu.nats)),
            sum("lost", |phase| phase.counts.lost as f64),
            sum("duplicates", |phase| phase.counts.doubled as f64),
        ]
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<ScenarioReport>> {
    let carriers = [Carrier::Local, Carrier::Servers(1), Carrier::Servers(3)];
    let mut found = carriers.map(|_| Vec::new());
    for round in 1..=options.rounds {
        for (carrier, found) in carriers.iter().zip(&mut found) {
            note(&format!("round {round}: {carrier:?}"));
            found.push(measure(options, *carrier)?);
        }
    }
    let [local, one, three] = found;
    let both = Sides { ours: one, peer: local };
    let first = report("nats", "1 server", &both, options);
    let both = Sides { ours: three, peer: both.peer };
    Ok(vec![first, report("nats cluster", "3 servers", &both, options)])
}

fn report(
    scenario: &'static str,
    servers: &'static str,
    rounds: &Sides<RoundCost>,
    options: &Options,
) -> ScenarioReport {
    let mut rows = PhaseCost::rows(rounds, "steady", |round| &round.steady);
    rows.extend(PhaseCost::rows(rounds, "burst", |round| &round.burst));
    rows.push(rounds.row("memory (PSS) of a NATS server", "MB", |round| round.nats_bytes / 1e6));
    let clients = options.clients.unwrap_or(CLIENTS);
    let burst = SOURCES as u64 * BURST_ITEMS;
    let load = format!(
        "{SOURCES} feeds, {clients} clients; 200 events/s for {:?}, then {BURSTS} times {burst} at once; median of {}",
        options.steady(),
        options.rounds
    );
    ScenarioReport { scenario, load, columns: [servers, "local wire"], rows }
}
