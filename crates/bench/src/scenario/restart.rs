//! The gateway is told to stop with everybody connected, and a successor takes over its socket.

use std::{net::TcpListener, time::Duration};

use anyhow::Context as _;
use rustix::net::listen;
use tokio::time::Instant;

use super::{CATCH_UP, CONNECT, Options};
use crate::{
    fleet::{Fleet, Tally},
    report::{Bar, Row, Section},
    server::{Door, Gateway, Server as _, Stand},
};

/// The window in which streams end.
const DRAIN: Duration = Duration::from_secs(10);
/// Until the last client is back: the window, and the longest wait that it is told.
const WATCHED: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(200);
/// Connections that may wait for the successor.
const BACKLOG: i32 = 4096;

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
pub(super) fn run(options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients.unwrap_or(10_000);
    let listener = TcpListener::bind("127.0.0.1:0").context("listen for both gateways")?;
    listen(&listener, BACKLOG).context("let more clients wait")?;
    let settings = format!("drain = \"{}s\"", DRAIN.as_secs());
    let old = Gateway::start(&options.seats, &settings, Door::Passed(&listener), None)?;
    let mut stand = Stand::of(Box::new(old), options.item_bytes);
    let mut fleet = Fleet::new(stand.server.target(), stand.began, clients, 0)?;
    fleet.connect(CONNECT)?;
    stand.publish(10)?;
    anyhow::ensure!(fleet.until_current(stand.head, CATCH_UP)?, "the first items did not come to everybody");
    fleet.tally = Tally::default();

    let told = Instant::now();
    stand.server.process.tell_to_stop();
    let successor = Gateway::start(&options.seats, &settings, Door::Passed(&listener), Some(&*stand.server))?;
    let (mut ended, mut next) = (None, Instant::now());
    while told.elapsed() < WATCHED {
        stand.publish(1)?;
        next += EVERY;
        fleet.read_until(next)?;
        if ended.is_none() && !stand.server.process.is_running() {
            ended = Some(told.elapsed());
        }
    }
    let all_back = fleet.streaming();
    fleet.until_current(stand.head, CATCH_UP)?;
    fleet.settle(stand.head);
    drop(successor);
    let tally = &fleet.tally;
    let bins = bins(tally.returned.iter().map(|at| *at - told));
    let fullest = bins.iter().max().copied().unwrap_or(0) as f64 * 100.0 / clients as f64;
    let ended = ended.map_or(f64::INFINITY, |ended| ended.as_secs_f64());
    let mut rows = vec![
        Row::new("the fullest second, of the clients", "%", fullest, None).bar(Bar::AtMost(15.0)),
        Row::new("exit after SIGTERM", "s", ended, None).bar(Bar::AtMost(DRAIN.as_secs_f64() + 2.0)),
        Row::new("without a stream at the end", "", (clients - all_back) as f64, None).bar(Bar::AtMost(0.0)),
        Row::new("deliveries", "", tally.deliveries as f64, None),
        Row::new("lost", "", tally.lost as f64, None).bar(Bar::AtMost(0.0)),
        Row::new("doubled", "", tally.doubled as f64, None).bar(Bar::AtMost(0.0)),
        Row::new("told of a gap or a reset", "", tally.gaps as f64, None).bar(Bar::AtMost(0.0)),
    ];
    rows.extend(
        (0..).zip(&bins).map(|(second, back)| {
            Row::new(format!("back in second {second}"), "clients", *back as f64, None)
        }),
    );
    let load = format!(
        "SIGTERM with {clients} clients, a drain of {DRAIN:?}, a successor at the same socket, 5 items/s"
    );
    Ok(Section { scenario: "restart", load, beside: "-", rows })
}

/// How many of them in each second.
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
