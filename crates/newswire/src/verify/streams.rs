//! Opens streams and aborts them in every way a client can, and checks that the gateway frees all their resources.

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
/// How long the gateway may take to free them.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);
/// Pause between two rounds, and between two measurements.
const PAUSE: Duration = Duration::from_millis(200);

/// Threads that the gateway may start meanwhile for other reasons.
const THREADS_TOLERATED: u64 = 2;

/// Other clients connect and disconnect meanwhile; a leak of one stream in 25 is still found.
fn tolerance(aborts: u16) -> u64 {
    2 + u64::from(aborts) / 50
}

/// How the attempts to open a stream ended.
#[derive(Debug, Default)]
struct AbortCounts {
    opened: u64,
    not_awaited: u64,
    full: u64,
    failed: u64,
    first: Option<String>,
}

/// Opens and aborts streams in rounds of `at_once`, then waits until the gateway uses no more resources than before, but not
/// after `deadline`.
pub(super) async fn check(
    gateway: &GatewayClient,
    resources: &GatewayResources,
    at_once: u16,
    aborts: u16,
    deadline: Instant,
) -> CheckResult {
    let before = resources.measure(gateway).await;
    let mut counts = AbortCounts::default();
    let mut left = aborts;
    while left > 0 && Instant::now() < deadline {
        let round = left.min(at_once);
        let numbers = aborts - left..aborts - left + round;
        left -= round;
        let answered = counts.opened + counts.not_awaited;
        open_and_abort(gateway, numbers, &mut counts).await;
        if counts.opened + counts.not_awaited == answered {
            break; // the gateway does not answer any more; reported below
        }
        sleep(PAUSE).await;
    }
    let tolerated = tolerance(aborts);
    let (after, excess) = settle(gateway, resources, before, tolerated, deadline).await;
    let figures = figures(&counts, before, after, tolerated);
    if counts.opened == 0 {
        let reason = match (&counts.first, counts.full) {
            (Some(first), _) => format!("no stream could be opened: {first}"),
            (None, 0) => "no stream was answered".to_owned(),
            (None, _) => "the gateway is full, or draining".to_owned(),
        };
        return CheckResult::failed(NAME, reason, figures);
    }
    if let Some(first) = &counts.first {
        return CheckResult::failed(
            NAME,
            format!("{} streams failed to open: {first}", counts.failed),
            figures,
        );
    }
    if !excess.is_empty() {
        let reason = format!("{}, which were not freed in time", excess.join(", "));
        return CheckResult::failed(NAME, reason, figures);
    }
    match resources.unavailable() {
        // Of a gateway on another machine nothing else can be measured.
        Some(why) => {
            let reason = format!("only the number of streams could be measured: {why}");
            CheckResult::skipped_with(NAME, reason, figures, resources.is_expected())
        }
        None => CheckResult::passed(NAME, figures),
    }
}

async fn open_and_abort(gateway: &GatewayClient, numbers: Range<u16>, counts: &mut AbortCounts) {
    let mut opening = JoinSet::new();
    for number in numbers {
        let gateway = gateway.clone();
        opening.spawn(async move {
            // Every way to abort: before or in the middle of the answer, by closing or by a reset.
            let (wait, reset) = (number % 4 != 3, number / 4 % 2 == 0);
            (gateway.stream_to_abort(wait).await, wait, reset)
        });
    }
    let mut open: Vec<(AbortedStream, bool)> = Vec::new();
    while let Some(opened) = opening.join_next().await {
        match opened.expect("opening does not panic") {
            (Ok(stream), wait, reset) => {
                match stream.first_response {
                    FirstResponse::Stream => counts.opened += 1,
                    FirstResponse::NotAwaited => counts.not_awaited += 1,
                    FirstResponse::Full => counts.full += 1,
                }
                if wait {
                    open.push((stream, reset));
                } else {
                    stream.abort(reset);
                }
            }
            (Err(error), ..) => {
                counts.failed += 1;
                counts.first.get_or_insert(error);
            }
        }
    }
    // All of these are open at the same time.
    open.into_iter().for_each(|(stream, reset)| stream.abort(reset));
}

/// Measures until all resources are freed or the deadline has passed; returns the last measurement and its excess.
async fn settle(
    gateway: &GatewayClient,
    resources: &GatewayResources,
    before: ResourceCounts,
    tolerated: u64,
    deadline: Instant,
) -> (ResourceCounts, Vec<String>) {
    let until = deadline.min(Instant::now() + SETTLED_WITHIN);
    loop {
        let after = resources.measure(gateway).await;
        let excess = excess(before, after, tolerated);
        if excess.is_empty() || Instant::now() >= until {
            return (after, excess);
        }
        sleep(PAUSE).await;
    }
}

/// What there is more of than before, beyond what is tolerated for other clients.
fn excess(before: ResourceCounts, after: ResourceCounts, tolerated: u64) -> Vec<String> {
    let (Some(clients_before), Some(clients_after)) = (before.clients, after.clients) else {
        return vec!["/health does not contain the number of streams".to_owned()];
    };
    // New clients have a descriptor each; that they are not our streams is checked by the first row below.
    let connected = clients_after.saturating_sub(clients_before);
    [
        ("streams", before.clients, after.clients, tolerated),
        ("threads", before.threads, after.threads, THREADS_TOLERATED),
        ("descriptors", before.descriptors, after.descriptors, tolerated + connected),
    ]
    .into_iter()
    .filter_map(|(what, before, after, tolerated)| {
        let (before, after) = (before?, after?);
        (after > before + tolerated).then(|| format!("{before} {what} became {after}"))
    })
    .collect()
}

fn figures(counts: &AbortCounts, before: ResourceCounts, after: ResourceCounts, tolerated: u64) -> Value {
    json!({
        "opened": counts.opened,
        "left_unheard": counts.not_awaited,
        "refused_as_full": counts.full,
        "failed": counts.failed,
        "streams": [before.clients, after.clients],
        "threads": [before.threads, after.threads],
        "descriptors": [before.descriptors, after.descriptors],
        "tolerated_for_other_clients": tolerated,
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
        let tolerated = tolerance(100);
        assert!(excess(before, held(8, 30, 5), tolerated).is_empty());
        assert!(excess(before, held(7, 33, 8), tolerated).is_empty(), "three others connected");
        assert_eq!(excess(before, held(8, 130, 5), tolerated), ["30 descriptors became 130"]);
        assert_eq!(excess(before, held(28, 30, 105), tolerated).len(), 2);
        assert_eq!(excess(before, ResourceCounts::default(), tolerated).len(), 1);
    }
}
