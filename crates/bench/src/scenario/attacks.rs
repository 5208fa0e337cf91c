//! Whether one attacker delays or harms anybody else: each attack in turn on a new gateway with default limits, compared
//! with an idle twin: a gateway that is not attacked, probed in the same seconds on the same processors.
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
        catalogue::{ATTACKS, Attack, RingContent},
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
/// The same in brief.
const TIME_BRIEF: Duration = Duration::from_secs(2);
/// The attacks that are run in brief: one of each kind.
const BRIEF: &[&str] = &[
    "small/pipelined-64",
    "small/searches-words",
    "small/sources",
    "small/sources-unread",
    "small/streams-words-again",
    "small/callbacks",
    "small/half-heads",
    "large/pages-unread",
    "large/replays-unread",
    "large/everything",
];
/// Between two events.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// How long everything is watched after the attack: the gateway may still have much to do for it.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// When memory is read after the attack; sooner after a shorter one.
const SETTLE: Duration = Duration::from_secs(10);
const SOURCES: usize = 20_000;
const SMALL_BYTES: usize = 512;
const LARGE_BYTES: usize = 64 * 1024;
/// Events of the daemon's log: more than fit into the ring.
const SMALL_EVENTS: u64 = 30_000;
const LARGE_EVENTS: u64 = 1500;
/// In brief, this part of the events and of the sources, and of the ring.
const PART_BRIEF: u64 = 6;
const SETTINGS_BRIEF: &str = "ring_events = 3000\nring_bytes = 11000000\n";

/// No probe takes longer, in milliseconds.
const HEALTH_MS_MAX: f64 = 250.0;
/// No event is later, in milliseconds.
const EVENT_MS_MAX: f64 = 1000.0;
/// 70% of `MemoryMax` in `deploy/systemd/newswire-gateway.service`, in MiB.
const MEMORY_MIB_MAX: f64 = 0.7 * 512.0;
/// Compared with the twin, this is how much longer a probe or an event may take, in milliseconds: on a machine that is
/// busy with other things a thread waits for a processor, but not for seconds.
const BUSY_MS_MAX: f64 = 3000.0;
/// And how many times the twin's worst.
const BUSY_TIMES_MAX: f64 = 8.0;

/// A gateway with those who want something of it.
struct Watched {
    gateway: GatewayServer,
    head: u64,
    honest: HonestStream,
    probes: HealthProbes,
}

/// What those got.
struct Reached {
    probes: ProbeCounts,
    honest: HonestCounts,
}

/// What was noticed during one attack.
struct Noticed {
    attacked: Reached,
    twin: Reached,
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
    note(
        "memory is what the process has in pages and its sockets in the kernel, read in turn; not a cgroup's memory.peak",
    );
    let mut reports = Vec::new();
    for content in [RingContent::Small, RingContent::Large] {
        let name = |attack: &Attack| format!("{}/{}", content.name(), attack.name);
        // A whole name is that of one attack; a part of a name selects several.
        let selects = |part: &String, of: &str| match ATTACKS.iter().any(|attack| name(attack) == *part) {
            true => part == of,
            false => of.contains(part),
        };
        let is_chosen = |of: &str| match options.only.as_slice() {
            [] => !options.brief || BRIEF.contains(&of),
            only => only.iter().any(|part| selects(part, of)),
        };
        let chosen: Vec<_> = ATTACKS.iter().filter(|attack| is_chosen(&name(attack))).collect();
        if chosen.is_empty() {
            continue;
        }
        let log = content.log(if options.brief { PART_BRIEF } else { 1 });
        for attack in chosen {
            let noticed = measure(attack, content, &log, &cpus, options)?;
            note(&noticed.summary(&name(attack)));
            reports.push(ScenarioReport {
                scenario: "attacks",
                load: format!("{}: {}", name(attack), attack.what),
                columns: ["ours", "idle twin"],
                rows: rows(&noticed, options.brief),
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

    /// A log of one `part`th of the events and sources.
    fn log(self, part: u64) -> ScriptedLog {
        let events = match self {
            Self::Small => SMALL_EVENTS,
            Self::Large => LARGE_EVENTS,
        };
        let events = (1..=events / part).map(|seq| payload::json_of_words(seq, 0, self.item_bytes()));
        ScriptedLog::new(events, SOURCES / usize::try_from(part).unwrap_or(1))
    }
}

impl Watched {
    /// Connects to a gateway; `began` is the origin of the stamps.
    fn start(gateway: GatewayServer, head: usize, began: Instant) -> anyhow::Result<Self> {
        let server = gateway.address();
        let honest = HonestStream::start(server, HONEST, began)?;
        let probes = HealthProbes::start(server, PROBES)?;
        Ok(Self { gateway, head: head as u64, honest, probes })
    }

    fn publish(&mut self, stamp: u64, bytes: usize) {
        self.head += 1;
        self.gateway.daemon.publish([payload::json_of_words(self.head, stamp, bytes)]);
    }

    fn stop(self) -> anyhow::Result<(GatewayServer, Reached)> {
        let probes = self.probes.stop()?;
        Ok((self.gateway, Reached { probes, honest: self.honest.stop(self.head)? }))
    }
}

fn measure(
    attack: &Attack,
    content: RingContent,
    log: &ScriptedLog,
    cpus: &CpuPartition,
    options: &Options,
) -> anyhow::Result<Noticed> {
    let time = options.time.unwrap_or(if options.brief { TIME_BRIEF } else { TIME });
    let start = |settings: &str, log: ScriptedLog| {
        let listen_on = ListenOn::Address(free_address()?);
        GatewayServer::start(cpus, settings, listen_on, DaemonOf::Itself(log))
    };
    let settings = [attack.settings, "\n", if options.brief { SETTINGS_BRIEF } else { "" }].concat();
    let gateway = start(&settings, log.clone())?;
    let twin = start("", ScriptedLog::default())?;
    pause(AFTERWARDS);
    let (server, pid) = (gateway.address(), gateway.process().id());
    let before = MemoryUse::read(pid, server.port())?;
    let began = Instant::now();
    let mut both = [Watched::start(gateway, log.len(), began)?, Watched::start(twin, 0, began)?];
    let newcomer = Newcomer::start(server, NEWCOMER)?;
    let memory = MemoryWatch::start(pid, server.port())?;
    let mut publish = |until: Instant| {
        let mut next = Instant::now();
        while next < until {
            for watched in &mut both {
                let stamp = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                watched.publish(stamp, content.item_bytes());
            }
            next += PUBLISH_EVERY;
            pause(next.duration_since(Instant::now()));
        }
    };
    publish(Instant::now() + AFTERWARDS);
    let attacker = Attacker::start(server, ATTACKER, options.niceness, attack.connections, attack.script)?;
    publish(Instant::now() + time);
    let counts = attacker.stop()?;
    let ended = Instant::now();
    publish(ended + AFTERWARDS);
    let (peak, newcomer) = (memory.stop()?, newcomer.stop()?);
    let [attacked, twin] = both;
    let ((mut gateway, attacked), (_, twin)) = (attacked.stop()?, twin.stop()?);
    // In brief, memory afterwards is not waited for.
    let settle = if options.brief { Duration::ZERO } else { time.min(SETTLE) };
    pause((ended + settle).duration_since(Instant::now()));
    anyhow::ensure!(gateway.process.is_running(), "the gateway ended: {}", gateway.log());
    let is_bad = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    Ok(Noticed {
        attacked,
        twin,
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
        let Reached { probes, honest } = &self.attacked;
        let (health, delay, visits) = (&probes.took, &honest.delay, &self.newcomer.took);
        let outcomes: Vec<_> = self.attacker.outcomes.iter().map(|(how, n)| format!("{n} {how}")).collect();
        let faults = [&probes.fault, &honest.fault, &self.newcomer.fault];
        let faults: Vec<_> = faults.into_iter().flatten().map(String::as_str).collect();
        let warnings = self
            .warnings
            .last()
            .map_or(String::new(), |last| format!("; {} warnings, the last: {last}", self.warnings.len()));
        format!(
            "{name}: {} probes, {} failed, p99 {:.1} worst {:.1} (twin {:.1}) ms | {} events, p99 {:.1} worst {:.1} (twin {:.1}) ms, \
             {} lost, {} doubled, {} ends | newcomer p99 {:.0} worst {:.0} ms, {} of {} refused | MiB {:.0}, peak {:.0} (sockets \
             {:.0}), after {:.0} | {} connections, {:.0} MiB: {} | {}{warnings}",
            health.count(),
            probes.failed,
            ms(health.per_mille(990)),
            ms(health.max()),
            ms(self.twin.probes.took.max()),
            delay.count(),
            ms(delay.per_mille(990)),
            ms(delay.max()),
            ms(self.twin.honest.delay.max()),
            honest.lost,
            honest.doubled,
            honest.ended,
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
fn rows(noticed: &Noticed, brief: bool) -> Vec<Row> {
    let both = |measure: &str, unit: &'static str, value: &dyn Fn(&Reached) -> f64| {
        Row::new(measure, unit, value(&noticed.attacked), Some(value(&noticed.twin)))
    };
    let one = |measure: &str, unit: &'static str, value: f64| Row::new(measure, unit, value, None);
    let none = Bar::AtMost(0.0);
    let late = |value: &dyn Fn(&Reached) -> f64, most: f64| match brief {
        true => Bar::AtMost(BUSY_MS_MAX.max(BUSY_TIMES_MAX * value(&noticed.twin))),
        false => Bar::AtMost(most),
    };
    let health = |n: &Reached| ms(n.probes.took.max());
    let event = |n: &Reached| ms(n.honest.delay.max());
    vec![
        both("probes of /health", "", &|n| n.probes.took.count() as f64),
        both("failed", "", &|n| n.probes.failed as f64).bar(none),
        both("/health p99", "ms", &|n| ms(n.probes.took.per_mille(990))),
        both("/health worst", "ms", &health).bar(late(&health, HEALTH_MS_MAX)),
        both("events at the honest stream", "", &|n| n.honest.delay.count() as f64),
        both("event p99", "ms", &|n| ms(n.honest.delay.per_mille(990))),
        both("event worst", "ms", &event).bar(late(&event, EVENT_MS_MAX)),
        both("events lost", "", &|n| n.honest.lost as f64).bar(none),
        both("events doubled", "", &|n| n.honest.doubled as f64).bar(none),
        both("ends of the honest stream", "", &|n| n.honest.ended as f64),
        one("newcomer p99", "ms", ms(noticed.newcomer.took.per_mille(990))),
        one("newcomer refused", "", noticed.newcomer.refused as f64),
        one("memory before", "MiB", mib(noticed.before.total())),
        one("memory peak", "MiB", mib(noticed.peak.total())).bar(Bar::AtMost(MEMORY_MIB_MAX)),
        one("memory peak, of that sockets", "MiB", mib(noticed.peak.sockets)),
        one("memory afterwards", "MiB", mib(noticed.after.total())),
        one("connections of the attacker", "", noticed.attacker.opened as f64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_in_brief_exists() {
        let exists = |name: &str| {
            let (content, attack) = name.split_once('/').unwrap();
            matches!(content, "small" | "large") && ATTACKS.iter().any(|a| a.name == attack)
        };
        assert!(BRIEF.iter().all(|name| exists(name)));
    }
}
