//! What an event costs that no client wants: each looks at it, and its filter leaves it out.

use std::time::Duration;

use super::{CATCH_UP, CONNECT, Options};
use crate::{
    fleet::{Fleet, StreamTarget},
    report::{Row, ScenarioReport},
    server::{GatewayServer, MeasuredServer, Server as _, for_many_clients},
};

/// A stream of a source that publishes nothing, without a snapshot.
const PATH: &str = "/news/stream?snapshot=0&source=another";
/// Events are published in turns, as by many sources.
const TURN: Duration = Duration::from_millis(10);

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<ScenarioReport> {
    let clients = options.clients.unwrap_or(2000);
    let gateway = GatewayServer::start_empty(&options.cpus, &for_many_clients())?;
    let mut measured = MeasuredServer::of(Box::new(gateway), options.item_bytes);
    let target = StreamTarget { path: PATH, ..measured.server.target() };
    let mut fleet = Fleet::new(target, measured.began, clients, 0)?;
    fleet.connect(CONNECT)?;
    let cpu = |measured: &MeasuredServer<GatewayServer>| measured.server.process().cpu();
    let turns = u64::try_from(options.steady().as_millis() / TURN.as_millis())?;
    let before = cpu(&measured)?;
    fleet.read_for(options.steady())?;
    let idle = cpu(&measured)?.saturating_sub(before);
    let mut rows = Vec::new();
    for per_turn in [1, 10] {
        let before = cpu(&measured)?;
        for _ in 0..turns {
            measured.publish(per_turn)?;
            fleet.read_for(TURN)?;
        }
        let used = cpu(&measured)?.saturating_sub(before).saturating_sub(idle);
        let events = (turns * per_turn) as f64;
        rows.push(Row::new(
            format!("CPU per event and client, {per_turn} at once"),
            "µs",
            used.as_secs_f64() * 1e6 / events / clients as f64,
            None,
        ));
    }
    anyhow::ensure!(fleet.streaming() == clients, "a client lost its stream within {CATCH_UP:?}");
    let load = format!("{clients} clients whose filters leave out every event");
    Ok(ScenarioReport { scenario: "filtered", load, columns: ["ours", "-"], rows })
}
