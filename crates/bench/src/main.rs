//! `bench [SCENARIO]...`: benchmarks of the release gateway against a peer, nginx with nchan, and of the ingestion daemon.
//!
//! Measures the release programs from outside: CPU time and memory from `/proc`, and what thousands of clients receive.
//! Servers get one CPU and clients the others, unless `--shared` is given. Everything runs on this machine.
//!
//! Exit 0: every bar is met; 1: one is missed, or the measurement failed; 2: usage.

mod attack;
mod feeds;
mod fleet;
mod histogram;
mod ingestd;
mod parser;
mod payload;
mod process;
mod report;
mod scenario;
mod scripted_daemon;
mod server;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum as _};

use crate::{
    process::CpuPartition,
    report::{note, print_result},
    scenario::{Options, Scenario},
};

/// Open files besides those of the clients.
const FILES_OURS: u64 = 200;
/// Clients that can have a connection each.
const CONNECTED_MAX: u64 = 14_000;
/// Connections of the largest attack.
const ATTACKERS: u64 = 3000;

#[derive(Debug, Parser)]
#[command(about = "Benchmark the release gateway against nginx with nchan, and the ingestion daemon")]
struct Args {
    /// What to measure [default: everything]
    scenarios: Vec<Scenario>,
    /// Number of clients, instead of the scenario's default; at most 14000, but any number for `capacity`
    #[arg(long, value_parser = clap::value_parser!(u32).range(20..))]
    clients: Option<u32>,
    /// Measurements per side, alternating; the median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Duration of one steady measurement, or of one attack, in seconds [default: 10, attacks 30]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: Option<u16>,
    /// Size of an item in bytes
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(512..=65_536))]
    item_bytes: u32,
    /// Number of sources of `scale` (at most 200000) and `capacity` [default: 100000, 10000000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(100..=100_000_000))]
    sources: Option<u32>,
    /// What the made-up sources of `capacity` depend on; the same number, the same sources
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the attack of this name, such as small/searches, or those whose name contains this; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Lower priority of the attacker, which shares the CPUs with what it attacks; 0 for none
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i32).range(0..=19))]
    niceness: i32,
    /// Only some attacks for 2 s each, compared with an idle twin instead of absolute times: what the gate runs
    #[arg(long)]
    brief: bool,
    /// Measure only the gateway, not nginx
    #[arg(long)]
    no_peer: bool,
    /// Let clients and servers share all CPUs; by default servers get one of their own
    #[arg(long)]
    shared: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            note(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every bar is met.
fn run(args: &Args) -> anyhow::Result<bool> {
    let cpus = CpuPartition::detect(args.shared)?;
    if !cpus.is_split() {
        note("clients and servers share all CPUs: latencies include the work of the clients");
    }
    let files = process::raise_open_files()?;
    let options = Options {
        clients: args.clients.map(|clients| clients as usize),
        rounds: args.rounds.into(),
        time: args.seconds.map(|seconds| Duration::from_secs(seconds.into())),
        item_bytes: args.item_bytes as usize,
        sources: args.sources,
        seed: args.seed,
        peer: !args.no_peer,
        only: args.only.clone(),
        niceness: args.niceness,
        brief: args.brief,
        cpus,
    };
    let all = Scenario::value_variants();
    let chosen = if args.scenarios.is_empty() { all } else { &args.scenarios };
    let clients = match chosen {
        [Scenario::Attacks] => ATTACKERS,
        [Scenario::Capacity] => 0,
        _ => args.clients.unwrap_or(10_000).into(),
    };
    anyhow::ensure!(clients <= CONNECTED_MAX, "at most {CONNECTED_MAX} clients can be connected");
    let wanted = clients + FILES_OURS;
    anyhow::ensure!(
        files >= wanted,
        "the limit of open files is {files}, {wanted} are needed; raise it with ulimit -n"
    );
    let mut sections = Vec::new();
    for scenario in chosen {
        note(&format!("{scenario:?}"));
        for section in scenario.run(&options)? {
            if !args.json {
                print_result(&section.table());
            }
            sections.push(section);
        }
    }
    if args.json {
        print_result(&serde_json::to_string_pretty(&sections)?);
    }
    Ok(sections.iter().all(report::ScenarioReport::is_met))
}
