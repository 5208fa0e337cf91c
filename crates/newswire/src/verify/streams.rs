//! Streams that are opened and aborted in every way a client can, and what is left of them.

use std::{ops::Range, time::Duration};

use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    gateway::{AbortedStream, FirstResponse, GatewayClient},
    report::CheckResult,
    resources::{GatewayResources, ResourceCounts},
};

pub(super) const NAME: &str = "aborted-streams-leave-nothing";
/// How long the gateway may take to let go.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);
/// Pause between two rounds, and between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Threads that may come meanwhile for reasons of their own.
const THREADS_MORE: u64 = 2;

/// Other clients come and go meanwhile; what is left of one abort in 25 would still be found.
fn tolerance(aborts: u16) -> u64 {
    2 + u64::from(aborts) / 50
}

/// What became of the openings.
#[derive(Debug, Default)]
struct AbortCounts {
    opened: u64,
    unheard: u64,
    full: u64,
    failed: u64,
    first: Option<String>,
}

/// Opens so many at once, aborts them, and so on; then waits until the gateway holds what it held before.
pub(super) async fn check(
    gateway: &GatewayClient,
    resources: &GatewayResources,
    at_once: u16,
    aborts: u16,
) -> CheckResult {
    let before = resources.look(gateway).await;
    let mut tally = AbortCounts::default();
    let mut left = aborts;
    while left > 0 {
        let round = left.min(at_once);
        let numbers = aborts - left..aborts - left + round;
        left -= round;
        let heard = tally.opened + tally.unheard;
        open_and_abort(gateway, numbers, &mut tally).await;
        if tally.opened + tally.unheard == heard {
            break; // nobody answers any more, which is told below
        }
        sleep(PAUSE).await;
    }
    let more = tolerance(aborts);
    let (after, excess) = settle(gateway, resources, before, more).await;
    let figures = figures(&tally, before, after, more);
    if tally.opened == 0 {
        let reason = match (&tally.first, tally.full) {
            (Some(first), _) => format!("no stream could be opened: {first}"),
            (None, 0) => "no stream was heard".to_owned(),
            (None, _) => "the gateway is full, or draining".to_owned(),
        };
        return CheckResult::failed(NAME, reason, figures);
    }
    if let Some(first) = &tally.first {
        return CheckResult::failed(
            NAME,
            format!("{} streams failed to open: {first}", tally.failed),
            figures,
        );
    }
    if !excess.is_empty() {
        let reason = format!("{} after {SETTLED_WITHIN:?}", excess.join(", "));
        return CheckResult::failed(NAME, reason, figures);
    }
    match resources.blind() {
        Some(why) => {
            let reason = format!("nothing but the number of streams can be had: {why}");
            CheckResult::skipped_with(NAME, reason, figures)
        }
        None => CheckResult::passed(NAME, figures),
    }
}

async fn open_and_abort(gateway: &GatewayClient, numbers: Range<u16>, tally: &mut AbortCounts) {
    let mut opening = JoinSet::new();
    for number in numbers {
        let gateway = gateway.clone();
        opening.spawn(async move {
            // Every way to leave: unheard or in the middle of the answer, by closing or by a reset.
            let (wait, reset) = (number % 4 != 3, number / 4 % 2 == 0);
            (gateway.doomed(wait).await, wait, reset)
        });
    }
    let mut open: Vec<(AbortedStream, bool)> = Vec::new();
    while let Some(opened) = opening.join_next().await {
        match opened.expect("opening does not panic") {
            (Ok(doomed), wait, reset) => {
                match doomed.opened {
                    FirstResponse::Stream => tally.opened += 1,
                    FirstResponse::Unheard => tally.unheard += 1,
                    FirstResponse::Full => tally.full += 1,
                }
                if wait {
                    open.push((doomed, reset));
                } else {
                    doomed.abort(reset);
                }
            }
            (Err(error), ..) => {
                tally.failed += 1;
                tally.first.get_or_insert(error);
            }
        }
    }
    // All of these were open at the same time.
    open.into_iter().for_each(|(doomed, reset)| doomed.abort(reset));
}

/// Looks until nothing is left over, or the deadline has passed; gives the last look and what is too much in it.
async fn settle(
    gateway: &GatewayClient,
    resources: &GatewayResources,
    before: ResourceCounts,
    more: u64,
) -> (ResourceCounts, Vec<String>) {
    let until = Instant::now() + SETTLED_WITHIN;
    loop {
        let after = resources.look(gateway).await;
        let excess = excess(before, after, more);
        if excess.is_empty() || Instant::now() >= until {
            return (after, excess);
        }
        sleep(PAUSE).await;
    }
}

/// What is more than before, beyond what others may have brought.
fn excess(before: ResourceCounts, after: ResourceCounts, more: u64) -> Vec<String> {
    let (Some(clients_before), Some(clients_after)) = (before.clients, after.clients) else {
        return vec!["/health does not tell the number of streams".to_owned()];
    };
    // Others that came have a descriptor each; that these are not ours is what the first line below looks after.
    let came = clients_after.saturating_sub(clients_before);
    [
        ("streams", before.clients, after.clients, more),
        ("threads", before.threads, after.threads, THREADS_MORE),
        ("descriptors", before.descriptors, after.descriptors, more + came),
    ]
    .into_iter()
    .filter_map(|(what, before, after, more)| {
        let (before, after) = (before?, after?);
        (after > before + more).then(|| format!("{before} {what} became {after}"))
    })
    .collect()
}

fn figures(tally: &AbortCounts, before: ResourceCounts, after: ResourceCounts, more: u64) -> Value {
    json!({
        "opened": tally.opened,
        "left_unheard": tally.unheard,
        "refused_as_full": tally.full,
        "failed": tally.failed,
        "streams": [before.clients, after.clients],
        "threads": [before.threads, after.threads],
        "descriptors": [before.descriptors, after.descriptors],
        "tolerated_for_other_clients": more,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_found_and_other_clients_are_tolerated() {
        let held = |threads, descriptors, clients| ResourceCounts {
            threads: Some(threads),
            descriptors: Some(descriptors),
            clients: Some(clients),
        };
        let before = held(8, 30, 5);
        let more = tolerance(100);
        assert!(excess(before, held(8, 30, 5), more).is_empty());
        assert!(excess(before, held(7, 33, 8), more).is_empty(), "three others came");
        assert_eq!(excess(before, held(8, 130, 5), more), ["30 descriptors became 130"]);
        assert_eq!(excess(before, held(28, 30, 105), more).len(), 2);
        assert_eq!(excess(before, ResourceCounts::default(), more).len(), 1);
    }
}
