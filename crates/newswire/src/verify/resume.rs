//! Whether a client that comes back with its last id gets what comes after it: all of it, once, in order.

use std::time::Duration;

use news::{Cursor, Epoch, Seq};
use serde_json::json;
use tokio::time::{Instant, timeout};
use wire::Resume;

use super::{
    gateway::{ClientStream, GatewayClient},
    report::CheckResult,
};

pub(super) const NAME: &str = "resume-is-exact";
/// Events that are looked at.
const EVENTS: usize = 20;
/// How long they may take.
const EVENTS_WITHIN: Duration = Duration::from_secs(5);
/// How long is listened for events that come twice.
const AFTERMATH: Duration = Duration::from_millis(500);
const PATH: &str = "/news/stream?kinds=item,update&snapshot=20";
/// No log is called so: theirs are made by chance and of one length.
const OTHER_LOG: &str = "0verify";

pub(super) async fn check(gateway: &GatewayClient) -> CheckResult {
    match look(gateway).await {
        Ok(check) => check,
        Err(error) => CheckResult::failed(NAME, error, json!({})),
    }
}

async fn look(gateway: &GatewayClient) -> Result<CheckResult, String> {
    let mut stream = gateway.stream(PATH, None).await?;
    let hello = stream.hello().await?;
    let Some(head) = hello.head else {
        return Ok(CheckResult::skipped(NAME, "the gateway does not know the log yet".to_owned()));
    };
    if head.seq == Seq(0) {
        return Ok(CheckResult::skipped(NAME, "the log is empty".to_owned()));
    }
    let known = ids(&mut stream, &head, EVENTS).await?;
    drop(stream);
    if known.len() < 3 {
        return Ok(CheckResult::skipped(NAME, format!("there are {} events, and 3 are wanted", known.len())));
    }
    let (before, after) = known.split_at(known.len() / 2);
    let last = &before[before.len() - 1];

    let mut stream = gateway.stream(PATH, Some(last)).await?;
    let hello = stream.hello().await?;
    let newest = &after[after.len() - 1];
    let mut came = ids(&mut stream, newest, usize::MAX).await?;
    came.extend(aftermath(&mut stream).await?);
    drop(stream);
    let figures = json!({
        "resumed_after": last.to_string(), "resume": hello.resume, "expected": after.len(), "came": came.len(),
    });
    if hello.resume != Resume::Exact {
        return Ok(CheckResult::failed(
            NAME,
            format!("resuming after {last} was {}", hello.resume.as_str()),
            figures,
        ));
    }
    if let Err(fault) = judge(after, &came) {
        return Ok(CheckResult::failed(NAME, fault, figures));
    }
    let other = Cursor { epoch: Epoch::try_new(OTHER_LOG).map_err(|error| error.to_string())?, seq: Seq(1) };
    let told = gateway.stream(PATH, Some(&other)).await?.hello().await?.resume;
    if told != Resume::Reset {
        let fault = format!("an id of another log was {} and not reset", told.as_str());
        return Ok(CheckResult::failed(NAME, fault, figures));
    }
    Ok(CheckResult::passed(NAME, figures))
}

/// The ids of the events until `last` has come, or so many, or there are no more.
async fn ids(stream: &mut ClientStream, last: &Cursor, most: usize) -> Result<Vec<Cursor>, String> {
    let until = Instant::now() + EVENTS_WITHIN;
    let mut ids = Vec::new();
    // A filter of categories may keep the head from us: then a heartbeat or the deadline is the end.
    while ids.len() < most {
        let Some(left) = until.checked_duration_since(Instant::now()) else { break };
        let Ok(message) = timeout(left, stream.next(EVENTS_WITHIN * 2)).await else { break };
        let message = message?;
        let id = message.id.as_deref().map(str::parse::<Cursor>).transpose().map_err(|e| e.to_string())?;
        let Some(id) = id else { continue };
        let passed = id.epoch == last.epoch && id.seq >= last.seq;
        if message.event.is_some() {
            ids.push(id);
        }
        if passed {
            break;
        }
    }
    Ok(ids)
}

/// What still comes for a moment.
async fn aftermath(stream: &mut ClientStream) -> Result<Vec<Cursor>, String> {
    let until = Instant::now() + AFTERMATH;
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

/// Exactly the expected ones first; newer ones may follow, each after the one before.
fn judge(expected: &[Cursor], came: &[Cursor]) -> Result<(), String> {
    for (n, expected) in expected.iter().enumerate() {
        match came.get(n) {
            Some(id) if id == expected => {}
            Some(id) => return Err(format!("{id} came where {expected} was expected")),
            None => return Err(format!("{expected} did not come")),
        }
    }
    match came.windows(2).find(|pair| pair[0].epoch != pair[1].epoch || pair[0].seq >= pair[1].seq) {
        Some(pair) => Err(format!("{} came after {}", pair[1], pair[0])),
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
    fn a_hole_a_double_and_a_wrong_order_are_found() {
        let expected = ids(&[5, 6, 8]);
        assert_eq!(judge(&expected, &ids(&[5, 6, 8])), Ok(()));
        assert_eq!(judge(&expected, &ids(&[5, 6, 8, 9, 12])), Ok(()), "newer ones may follow");
        for wrong in
            [&[5, 6][..], &[5, 8, 6], &[5, 6, 6, 8], &[5, 6, 8, 8], &[5, 6, 7, 8], &[4, 5, 6, 8], &[]]
        {
            assert!(judge(&expected, &ids(wrong)).is_err(), "{wrong:?}");
        }
    }
}
