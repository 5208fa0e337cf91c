//! `bench [SCENARIO]...`: benchmarks of the running release gateway beside a peer, nginx with nchan, and of the daemon.
//!
//! What is measured is always the shipped process, over sockets, from outside: its processor time and its memory as
//! `/proc` tells, and what thousands of clients see. Servers have one processor and the clients the others, unless told. Everything
//! is on this machine, ends by itself, and ends what it started.
//!
//! Exit 0: every bar is met; 1: one is not, or it could not be measured; 2: usage.

mod feeds;
mod fleet;
mod histogram;
mod ingestd;
mod parser;
mod payload;
mod process;
mod report;
mod scenario;
mod script;
mod server;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum as _};

use crate::{
    process::Seats,
    report::{note, say},
    scenario::{Options, Scenario},
};

/// Sockets and files beside the clients.
const FILES_OURS: u64 = 200;

#[derive(Debug, Parser)]
#[command(about = "Benchmarks of the running release gateway beside nginx with nchan")]
struct Args {
    /// What to measure; everything when nothing is named
    scenarios: Vec<Scenario>,
    /// Clients, instead of the scenario's own number
    #[arg(long, value_parser = clap::value_parser!(u32).range(20..=14_000))]
    clients: Option<u32>,
    /// How often each side is measured, in turns; the median is told
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Seconds of one steady measurement
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Bytes of an item
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(512..=65_536))]
    item_bytes: u32,
    /// Sources of the scenario `scale`
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=200_000))]
    sources: u32,
    /// Only ours
    #[arg(long)]
    no_peer: bool,
    /// Clients and servers share all processors; otherwise servers have one of their own
    #[arg(long)]
    shared: bool,
    /// JSON instead of tables
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

/// Tells whether every bar was met.
fn run(args: &Args) -> anyhow::Result<bool> {
    let seats = Seats::of_ours(args.shared)?;
    if !seats.are_apart() {
        note("both sides share their processors: latencies measure the clients, too");
    }
    let files = process::raise_open_files()?;
    let options = Options {
        clients: args.clients.map(|clients| clients as usize),
        rounds: args.rounds.into(),
        time: Duration::from_secs(args.seconds.into()),
        item_bytes: args.item_bytes as usize,
        sources: args.sources as usize,
        peer: !args.no_peer,
        seats,
    };
    let wanted = u64::from(args.clients.unwrap_or(10_000)) + FILES_OURS;
    anyhow::ensure!(files >= wanted, "{files} files may be open, {wanted} are needed: ulimit -n");
    let all = Scenario::value_variants();
    let chosen = if args.scenarios.is_empty() { all } else { &args.scenarios };
    let mut sections = Vec::new();
    for scenario in chosen {
        note(&format!("{scenario:?}"));
        let section = scenario.run(&options)?;
        if !args.json {
            say(&section.table());
        }
        sections.push(section);
    }
    if args.json {
        say(&serde_json::to_string_pretty(&sections)?);
    }
    Ok(sections.iter().all(report::Section::is_met))
}
