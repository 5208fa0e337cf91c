//! The body of a response: streamed, counted after decoding, returned complete or not at all.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    Failure, FailureClass, Policy, failure,
    limits::{Deadline, TimeLimits},
};

/// Memory reserved before the first byte: enough for most feeds, and a limit for a false `Content-Length`.
const RESERVED_BYTES_MAX: u64 = 64 * 1024;
/// The first bytes of a gzip file; no feed begins with them.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A complete body.
pub(crate) struct CompleteBody {
    pub(crate) bytes: Bytes,
    pub(crate) hash: u64,
}

/// Reads a body of at most `max` bytes. `count` is updated as it goes, so that it is right after a failure, too.
///
/// # Errors
/// `too-large`, `timeout` (no first byte, the end of the visit, or slower than the policy's rate), `truncated`, `bad-encoding`.
pub(crate) async fn read(
    mut response: Response,
    policy: &Policy,
    max: usize,
    limits: &TimeLimits,
    count: &mut u64,
) -> Result<CompleteBody, Failure> {
    let announced = response.content_length().unwrap_or(0);
    if announced > max as u64 {
        let message = format!("the server announces {announced} bytes; the limit is {max}");
        return Err(Failure::new(FailureClass::TooLarge, message));
    }
    let mut bytes = BytesMut::with_capacity(usize::try_from(announced.min(RESERVED_BYTES_MAX)).unwrap_or(0));
    let mut hash = Sha256::new();
    // The server may still be busy with the document: the rate counts from the first byte on.
    let mut started = None;
    loop {
        let chunk = match started {
            None => first(&mut response, limits.first_byte()).await?,
            Some(started) => next(&mut response, policy, started, bytes.len(), limits.total).await?,
        };
        let Some(chunk) = chunk else { break };
        started = started.or_else(|| Some(Instant::now()));
        *count += chunk.len() as u64;
        if chunk.len() > max - bytes.len() {
            let message = format!("the body is larger than the limit of {max} bytes (after decoding)");
            return Err(Failure::new(FailureClass::TooLarge, message));
        }
        hash.update(&chunk);
        bytes.extend_from_slice(&chunk);
        // A decompression bomb is always ready: yield to the other visits of this thread.
        tokio::task::consume_budget().await;
    }
    if bytes.starts_with(&GZIP_MAGIC) {
        let message = "the body is still compressed after its content coding was removed";
        return Err(Failure::new(FailureClass::BadEncoding, message));
    }
    Ok(CompleteBody { bytes: bytes.freeze(), hash: prefix(hash) })
}

/// [`crate::Full::body_hash`] of a body.
#[must_use]
pub fn body_hash(bytes: &[u8]) -> u64 {
    prefix(Sha256::new_with_prefix(bytes))
}

fn prefix(hash: Sha256) -> u64 {
    // Stored states have it in big-endian order.
    news::hash_prefix(&hash.finalize().into()).swap_bytes()
}

async fn first(response: &mut Response, deadline: Deadline) -> Result<Option<Bytes>, Failure> {
    match tokio::time::timeout_at(deadline.at, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|e| failure::of_body(&e.without_url())),
        Err(_) => Err(deadline.failure("waiting for the first byte of the body")),
    }
}

async fn next(
    response: &mut Response,
    policy: &Policy,
    started: Instant,
    received: usize,
    total: Deadline,
) -> Result<Option<Bytes>, Failure> {
    let too_slow = too_slow_at(policy, started, received);
    let until = too_slow.map_or(total.at, |at| at.min(total.at));
    match tokio::time::timeout_at(until, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|e| failure::of_body(&e.without_url())),
        Err(_) if until == total.at => Err(total.failure("reading the body")),
        Err(_) => {
            let rate = policy.rate_bytes_min;
            let message =
                format!("the body arrived slower than {rate} bytes per second: {received} bytes so far");
            Err(Failure::new(FailureClass::Timeout, message))
        }
    }
}

/// When a body with this many bytes so far falls below the required average rate.
fn too_slow_at(policy: &Policy, started: Instant, received: usize) -> Option<Instant> {
    let earned_ms = (received as u64).saturating_mul(1000).checked_div(u64::from(policy.rate_bytes_min))?;
    started.checked_add(policy.rate_grace.max(Duration::from_millis(earned_ms)))
}
