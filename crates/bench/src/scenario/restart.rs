//! The gateway is stopped with all clients connected, and a successor takes over its listening socket.

use std::{net::TcpListener, time::Duration};

use anyhow::Context as _;
use rustix::net::listen;
use tokio::time::Instant;

use super::{CATCH_UP, CONNECT, Options};
use crate::{
    fleet::{DeliveryCounts, Fleet},
    report::{Bar, Row, ScenarioReport},
    scripted_daemon::ScriptedLog,
    server::{DaemonOf, GatewayServer, ListenOn, MeasuredServer, Server as _, for_many_clients},
};

/// The period over which streams are closed.
const DRAIN: Duration = Duration::from_secs(10);
/// Until the last client has reconnected: the drain, and the longest retry time.
const WATCHED: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(200);
/// Connections that may wait for the successor.
const BACKLOG: i32 = 4096;

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<ScenarioReport> {
    let clients = options.clients.unwrap_or(10_000);
    let listener = TcpListener::bind("127.0.0.1:0").context("bind the socket of both gateways")?;
    listen(&listener, BACKLOG).context("raise the backlog")?;
    let settings = format!("drain = \"{}s\"\n{}", DRAIN.as_secs(), for_many_clients());
    let listen_on = ListenOn::Inherited(&listener);
    let daemon = DaemonOf::Itself(ScriptedLog::default());
    let old = GatewayServer::start(&options.cpus, &settings, listen_on, daemon)?;
    let mut measured = MeasuredServer::of(Box::new(old), options.item_bytes);
    let mut fleet = Fleet::new(measured.server.target(), measured.began, clients, 0)?;
    fleet.connect(CONNECT)?;
    measured.publish(10)?;
    anyhow::ensure!(
        fleet.until_current(measured.head, CATCH_UP)?,
        "the first items did not reach all clients"
    );
    fleet.counts = DeliveryCounts::default();

    let stopped_at = Instant::now();
    measured.server.process.terminate();
    let successor = GatewayServer::start(
        &options.cpus,
        &settings,
        ListenOn::Inherited(&listener),
        DaemonOf::Other(&measured.server),
    )?;
    let (mut ended, mut next) = (None, Instant::now());
    while stopped_at.elapsed() < WATCHED {
        measured.publish(1)?;
        next += EVERY;
        fleet.read_until(next)?;
        if ended.is_none() && !measured.server.process.is_running() {
            ended = Some(stopped_at.elapsed());
        }
    }
    let all_back = fleet.streaming();
    fleet.until_current(measured.head, CATCH_UP)?;
    fleet.count_missing(measured.head);
    drop(successor);
    let counts = &fleet.counts;
    let bins = bins(counts.reconnected.iter().map(|at| *at - stopped_at));
    let fullest = bins.iter().max().copied().unwrap_or(0) as f64 * 100.0 / clients as f64;
    let ended = ended.map_or(f64::INFINITY, |ended| ended.as_secs_f64());
    let mut rows = vec![
        Row::new("reconnections in the busiest second, of the clients", "%", fullest, None)
            .bar(Bar::AtMost(15.0)),
        Row::new("exit after SIGTERM", "s", ended, None).bar(Bar::AtMost(DRAIN.as_secs_f64() + 2.0)),
        Row::new("clients without a stream at the end", "", (clients - all_back) as f64, None)
            .bar(Bar::AtMost(0.0)),
        Row::new("deliveries", "", counts.deliveries as f64, None),
        Row::new("lost", "", counts.lost as f64, None).bar(Bar::AtMost(0.0)),
        Row::new("duplicates", "", counts.doubled as f64, None).bar(Bar::AtMost(0.0)),
        Row::new("gaps or resets", "", counts.gaps as f64, None).bar(Bar::AtMost(0.0)),
    ];
    rows.extend((0..).zip(&bins).map(|(second, back)| {
        Row::new(format!("reconnected in second {second}"), "clients", *back as f64, None)
    }));
    let load = format!(
        "SIGTERM with {clients} clients, a drain of {DRAIN:?}, a successor at the same socket, 5 items/s"
    );
    Ok(ScenarioReport { scenario: "restart", load, columns: ["ours", "-"], rows })
}

/// The number of times in each second.
fn bins(times: impl Iterator<Item = Duration>) -> Vec<usize> {
    let mut bins = Vec::new();
    for time in times {
        let second = usize::try_from(time.as_secs()).unwrap_or(usize::MAX).min(WATCHED.as_secs() as usize);
        if bins.len() <= second {
            bins.resize(second + 1, 0);
        }
        bins[second] += 1;
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_a_bin_and_late_values_are_in_the_last() {
        let times = [100, 999, 2000, 2001, 99_000].map(Duration::from_millis);
        let bins = bins(times.into_iter());
        assert_eq!((bins.len(), &bins[..4], bins[20]), (21, &[2, 0, 2, 0][..], 1));
    }
}
