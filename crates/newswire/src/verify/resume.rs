//! Checks that a client which reconnects with its last id receives everything after it: once, and in order.

use std::time::Duration;

use news::{Cursor, Epoch, Seq};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use wire::Resume;

use super::{
    gateway::{ClientStream, GatewayClient},
    report::CheckResult,
};

pub(super) const NAME: &str = "resume-is-exact";
/// Events to compare.
const EVENTS: usize = 20;
/// How long receiving them may take.
const EVENTS_WITHIN: Duration = Duration::from_secs(5);
/// How long to listen for events that are received twice.
const DUPLICATES_WITHIN: Duration = Duration::from_millis(500);
const PATH: &str = "/news/stream?kinds=item,update&snapshot=20";
/// An epoch that no log has: theirs are random and of another length.
const OTHER_EPOCH: &str = "0verify";

pub(super) async fn check(gateway: &GatewayClient) -> CheckResult {
    match run(gateway).await {
        Ok(check) => check,
        Err(error) => CheckResult::failed(NAME, error, json!({})),
    }
}

async fn run(gateway: &GatewayClient) -> Result<CheckResult, String> {
    let mut stream = gateway.stream(PATH, None).await?;
    let opened = stream.first_event().await?;
    let Some(head) = opened.head else {
        return Ok(CheckResult::skipped(NAME, "the gateway does not know the log yet".to_owned()));
    };
    if head.seq == Seq(0) {
        return Ok(CheckResult::not_applicable(NAME, "the log is empty".to_owned()));
    }
    let known = ids(&mut stream, &head, EVENTS).await?;
    drop(stream);
    if known.len() < 3 {
        return Ok(CheckResult::not_applicable(
            NAME,
            format!("the log has {} events, and at least 3 are needed", known.len()),
        ));
    }
    let (before, after) = known.split_at(known.len() / 2);
    let last = &before[before.len() - 1];

    let mut stream = gateway.stream(PATH, Some(last)).await?;
    let opened = stream.first_event().await?;
    let newest = &after[after.len() - 1];
    let mut received = ids(&mut stream, newest, usize::MAX).await?;
    received.extend(further_ids(&mut stream).await?);
    drop(stream);
    let figures = figures(last, opened.resume, after.len(), received.len());
    if opened.resume != Resume::Exact {
        return Ok(CheckResult::failed(
            NAME,
            format!("resuming after {last} was answered with `{}`, expected `exact`", opened.resume.as_str()),
            figures,
        ));
    }
    if let Err(reason) = compare(after, &received) {
        return Ok(CheckResult::failed(NAME, reason, figures));
    }
    let other =
        Cursor { epoch: Epoch::try_new(OTHER_EPOCH).map_err(|error| error.to_string())?, seq: Seq(1) };
    let resume = gateway.stream(PATH, Some(&other)).await?.first_event().await?.resume;
    if resume != Resume::Reset {
        let reason =
            format!("an id of another log was answered with `{}`, expected `reset`", resume.as_str());
        return Ok(CheckResult::failed(NAME, reason, figures));
    }
    Ok(CheckResult::passed(NAME, figures))
}

/// What was measured. Events that were published meanwhile follow the expected ones, and are no mistake.
fn figures(last: &Cursor, resume: Resume, expected: usize, received: usize) -> Value {
    let newer = received.saturating_sub(expected);
    json!({
        "resumed_after": last.to_string(), "resume": resume, "expected": expected, "received": received - newer,
        "newer": newer,
    })
}

/// The ids of the next events: until `last` is received, or `most` are, or no more arrive.
async fn ids(stream: &mut ClientStream, last: &Cursor, most: usize) -> Result<Vec<Cursor>, String> {
    let until = Instant::now() + EVENTS_WITHIN;
    let mut ids = Vec::new();
    // A token may not allow the category of the head: then a heartbeat or the deadline ends this.
    while ids.len() < most {
        let Some(left) = until.checked_duration_since(Instant::now()) else { break };
        let Ok(message) = timeout(left, stream.next(EVENTS_WITHIN * 2)).await else { break };
        let message = message?;
        let id = message.id.as_deref().map(str::parse::<Cursor>).transpose().map_err(|e| e.to_string())?;
        let Some(id) = id else { continue };
        let reached = id.epoch == last.epoch && id.seq >= last.seq;
        if message.event.is_some() {
            ids.push(id);
        }
        if reached {
            break;
        }
    }
    Ok(ids)
}

/// The ids of events that are received within a moment.
async fn further_ids(stream: &mut ClientStream) -> Result<Vec<Cursor>, String> {
    let until = Instant::now() + DUPLICATES_WITHIN;
    let mut ids = Vec::new();
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let Ok(message) = timeout(left, stream.next(EVENTS_WITHIN)).await else { break };
        let message = message?;
        if let (Some(id), Some(_)) = (&message.id, &message.event) {
            ids.push(id.parse().map_err(|error: news::BadCursor| error.to_string())?);
        }
    }
    Ok(ids)
}

/// Checks that exactly the expected ids were received first; newer ones may follow in order.
fn compare(expected: &[Cursor], received: &[Cursor]) -> Result<(), String> {
    for (n, expected) in expected.iter().enumerate() {
        match received.get(n) {
            Some(id) if id == expected => {}
            Some(id) => return Err(format!("received {id}, expected {expected}")),
            None => return Err(format!("{expected} was not received")),
        }
    }
    match received.windows(2).find(|pair| pair[0].epoch != pair[1].epoch || pair[0].seq >= pair[1].seq) {
        Some(pair) => Err(format!("{} was received after {}", pair[1], pair[0])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<Cursor> {
        numbers.iter().map(|n| Cursor { epoch: Epoch::try_new("k3").unwrap(), seq: Seq(*n) }).collect()
    }

    #[test]
    fn events_that_were_published_meanwhile_are_not_among_the_expected_ones() {
        let of = |received| {
            let figures = figures(&ids(&[4])[0], Resume::Exact, 10, received);
            (figures["received"].clone(), figures["newer"].clone())
        };
        assert_eq!(of(10), (10.into(), 0.into()));
        assert_eq!(of(11), (10.into(), 1.into()));
        assert_eq!(of(9), (9.into(), 0.into()));
    }

    #[test]
    fn a_missing_event_a_duplicate_and_a_wrong_order_are_found() {
        let expected = ids(&[5, 6, 8]);
        assert_eq!(compare(&expected, &ids(&[5, 6, 8])), Ok(()));
        assert_eq!(compare(&expected, &ids(&[5, 6, 8, 9, 12])), Ok(()), "newer ones may follow");
        for wrong in
            [&[5, 6][..], &[5, 8, 6], &[5, 6, 6, 8], &[5, 6, 8, 8], &[5, 6, 7, 8], &[4, 5, 6, 8], &[]]
        {
            assert!(compare(&expected, &ids(wrong)).is_err(), "{wrong:?}");
        }
    }
}
