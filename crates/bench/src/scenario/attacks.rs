//! Whether one attacker delays or harms anybody else: each attack in turn on a new gateway with default limits, compared
//! with the same gateway without an attack.
//!
//! ```text
//! 127.0.0.2  the attacker, on a thread of low priority
//! 127.0.0.1  /health every 50 ms
//! 127.0.0.3  a stream, with 20 events per second
//! 127.0.0.4  a newcomer: a page, a stream, a page …
//! ```

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::Options;
use crate::{
    attack::{
        attacker::{AttackCounts, Attacker},
        catalogue::{ATTACKS, Attack, CONTROL, RingContent},
        honest::{HonestCounts, HonestStream, Newcomer, NewcomerCounts},
        memory::{MemoryUse, MemoryWatch},
        probe::{HealthProbes, ProbeCounts},
    },
    payload,
    process::{CpuPartition, pause},
    report::{Bar, Row, ScenarioReport, note},
    scripted_daemon::ScriptedLog,
    server::{DaemonOf, GatewayServer, ListenOn, Server as _, free_address},
};

const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const PROBES: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));
const NEWCOMER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 4));

/// Duration of an attack, if none was given.
const TIME: Duration = Duration::from_secs(30);
/// Between two events.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// How long everything is watched after the attack: the gateway may still have much to do for it.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// When memory is read after the attack.
const SETTLE: Duration = Duration::from_secs(10);
const SOURCES: usize = 20_000;
const SMALL_BYTES: usize = 512;
const LARGE_BYTES: usize = 64 * 1024;
/// Events of the daemon's log: more than fit into the ring.
const SMALL_EVENTS: u64 = 30_000;
const LARGE_EVENTS: u64 = 1500;

/// No probe takes longer, in milliseconds.
const HEALTH_MS_MAX: f64 = 250.0;
/// No event is later, in milliseconds.
const EVENT_MS_MAX: f64 = 1000.0;
/// 70% of `MemoryMax` in `deploy/systemd/newswire-gateway.service`, in MiB.
const MEMORY_MIB_MAX: f64 = 0.7 * 512.0;
/// Compared with the control, this is how much longer a probe or an event may take, in milliseconds: on a machine that is
/// busy with other things a thread waits for a processor, but not for seconds.
const BUSY_MS_MAX: f64 = 1500.0;
/// And how many times the control's worst.
const BUSY_TIMES_MAX: f64 = 4.0;

/// What was noticed during one attack.
struct Noticed {
    probes: ProbeCounts,
    honest: HonestCounts,
    newcomer: NewcomerCounts,
    attacker: AttackCounts,
    before: MemoryUse,
    peak: MemoryUse,
    after: MemoryUse,
    /// Warnings and errors that the gateway logged.
    warnings: Vec<String>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<ScenarioReport>> {
    let cpus = options.cpus.shared()?;
    let niceness = options.niceness;
    note(&format!("attacks share the processors with the gateway; the attacker has niceness {niceness}"));
    let mut reports = Vec::new();
    for content in [RingContent::Small, RingContent::Large] {
        let name = |attack: &Attack| format!("{}/{}", content.name(), attack.name);
        let chosen = ATTACKS.iter().filter(|attack| {
            options.only.is_empty() || options.only.iter().any(|part| name(attack).contains(part))
        });
        let chosen: Vec<_> = chosen.collect();
        if chosen.is_empty() {
            continue;
        }
        let log = content.log();
        let control = measure(&CONTROL, content, &log, &cpus, options)?;
        note(&control.summary(&name(&CONTROL)));
        for attack in chosen {
            let noticed = measure(attack, content, &log, &cpus, options)?;
            note(&noticed.summary(&name(attack)));
            reports.push(ScenarioReport {
                scenario: "attacks",
                load: format!("{}: {}", name(attack), attack.what),
                baseline: "without",
                rows: rows(&noticed, &control, options.against_control),
            });
        }
    }
    anyhow::ensure!(!reports.is_empty(), "no attack has such a name: {:?}", options.only);
    Ok(reports)
}

impl RingContent {
    fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }

    fn item_bytes(self) -> usize {
        match self {
            Self::Small => SMALL_BYTES,
            Self::Large => LARGE_BYTES,
        }
    }

    fn log(self) -> ScriptedLog {
        let events = match self {
            Self::Small => SMALL_EVENTS,
            Self::Large => LARGE_EVENTS,
        };
        ScriptedLog::new((1..=events).map(|seq| payload::json_of_words(seq, 0, self.item_bytes())), SOURCES)
    }
}

fn measure(
    attack: &Attack,
    content: RingContent,
    log: &ScriptedLog,
    cpus: &CpuPartition,
    options: &Options,
) -> anyhow::Result<Noticed> {
    let listen_on = ListenOn::Address(free_address()?);
    let mut gateway = GatewayServer::start(cpus, attack.settings, listen_on, DaemonOf::Itself(log.clone()))?;
    let (server, pid) = (gateway.address(), gateway.process().id());
    pause(AFTERWARDS);
    let before = MemoryUse::read(pid, server.port())?;
    let began = Instant::now();
    let honest = HonestStream::start(server, HONEST, began)?;
    let newcomer = Newcomer::start(server, NEWCOMER)?;
    let probes = HealthProbes::start(server, PROBES)?;
    let memory = MemoryWatch::start(pid, server.port())?;
    let mut head = log.len() as u64;
    let mut publish = |until: Instant| {
        let mut next = Instant::now();
        while next < until {
            head += 1;
            let stamp = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            gateway.daemon.publish([payload::json_of_words(head, stamp, content.item_bytes())]);
            next += PUBLISH_EVERY;
            pause(next.duration_since(Instant::now()));
        }
        head
    };
    publish(Instant::now() + AFTERWARDS);
    let attacker = Attacker::start(server, ATTACKER, options.niceness, attack.connections, attack.script)?;
    publish(Instant::now() + options.time.unwrap_or(TIME));
    let counts = attacker.stop()?;
    let ended = Instant::now();
    let head = publish(ended + AFTERWARDS);
    let peak = memory.stop()?;
    let (probes, newcomer, honest) = (probes.stop()?, newcomer.stop()?, honest.stop(head)?);
    let settle = options.time.map_or(SETTLE, |time| time.min(SETTLE));
    pause((ended + settle).duration_since(Instant::now()));
    anyhow::ensure!(gateway.process.is_running(), "the gateway ended: {}", gateway.log());
    let is_bad = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    Ok(Noticed {
        probes,
        honest,
        newcomer,
        attacker: counts,
        before,
        peak,
        after: MemoryUse::read(pid, server.port())?,
        warnings: gateway.log().lines().filter(is_bad).map(str::to_owned).collect(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

impl Noticed {
    /// One line.
    fn summary(&self, name: &str) -> String {
        let (health, delay, visits) = (&self.probes.took, &self.honest.delay, &self.newcomer.took);
        let outcomes: Vec<_> = self.attacker.outcomes.iter().map(|(how, n)| format!("{n} {how}")).collect();
        let faults = [&self.probes.fault, &self.honest.fault, &self.newcomer.fault];
        let faults: Vec<_> = faults.into_iter().flatten().map(String::as_str).collect();
        let warnings = self
            .warnings
            .last()
            .map_or(String::new(), |last| format!("; {} warnings, the last: {last}", self.warnings.len()));
        format!(
            "{name}: {} probes, {} failed, p99 {:.1} worst {:.1} ms | {} events, p99 {:.1} worst {:.1} ms, {} lost, {} \
             doubled, {} ends | newcomer p99 {:.0} worst {:.0} ms, {} of {} refused | MiB {:.0}, peak {:.0} (sockets {:.0}), after \
             {:.0} | {} connections, {:.0} MiB: {} | {}{warnings}",
            health.count(),
            self.probes.failed,
            ms(health.per_mille(990)),
            ms(health.max()),
            delay.count(),
            ms(delay.per_mille(990)),
            ms(delay.max()),
            self.honest.lost,
            self.honest.doubled,
            self.honest.ended,
            ms(visits.per_mille(990)),
            ms(visits.max()),
            self.newcomer.refused,
            visits.count(),
            mib(self.before.total()),
            mib(self.peak.total()),
            mib(self.peak.sockets),
            mib(self.after.total()),
            self.attacker.opened,
            mib(self.attacker.bytes),
            outcomes.join(", "),
            faults.join("; "),
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn rows(ours: &Noticed, control: &Noticed, against_control: bool) -> Vec<Row> {
    let row = |measure: &str, unit: &'static str, value: &dyn Fn(&Noticed) -> f64| {
        Row::new(measure, unit, value(ours), Some(value(control)))
    };
    let none = Bar::AtMost(0.0);
    let late = |value: &dyn Fn(&Noticed) -> f64, most: f64| match against_control {
        true => Bar::AtMost(BUSY_MS_MAX.max(BUSY_TIMES_MAX * value(control))),
        false => Bar::AtMost(most),
    };
    let health = |n: &Noticed| ms(n.probes.took.max());
    let event = |n: &Noticed| ms(n.honest.delay.max());
    vec![
        row("probes of /health", "", &|n| n.probes.took.count() as f64),
        row("failed", "", &|n| n.probes.failed as f64).bar(none),
        row("/health p99", "ms", &|n| ms(n.probes.took.per_mille(990))),
        row("/health worst", "ms", &health).bar(late(&health, HEALTH_MS_MAX)),
        row("events at the honest stream", "", &|n| n.honest.delay.count() as f64),
        row("event p99", "ms", &|n| ms(n.honest.delay.per_mille(990))),
        row("event worst", "ms", &event).bar(late(&event, EVENT_MS_MAX)),
        row("events lost", "", &|n| n.honest.lost as f64).bar(none),
        row("events doubled", "", &|n| n.honest.doubled as f64).bar(none),
        row("ends of the honest stream", "", &|n| n.honest.ended as f64),
        row("newcomer p99", "ms", &|n| ms(n.newcomer.took.per_mille(990))),
        row("newcomer refused", "", &|n| n.newcomer.refused as f64),
        row("memory before", "MiB", &|n| mib(n.before.total())),
        row("memory peak", "MiB", &|n| mib(n.peak.total())).bar(Bar::AtMost(MEMORY_MIB_MAX)),
        row("memory peak, of that sockets", "MiB", &|n| mib(n.peak.sockets)),
        row("memory afterwards", "MiB", &|n| mib(n.after.total())),
        row("connections of the attacker", "", &|n| n.attacker.opened as f64),
    ]
}
