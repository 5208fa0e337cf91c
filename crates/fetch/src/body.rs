//! The body of a response: streamed, counted after decoding, returned complete or not at all.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    Failure, FailureClass, Policy,
    budget::BodyRoom,
    decode::{ContentCoding, ContentDecoder, GZIP_MAGIC, coded_bytes_max},
    exchange::{Response, ResponseBody},
    failure,
    limits::{Deadline, TimeLimits},
};

/// Memory reserved before the first byte: enough for most feeds, and a limit for a false `Content-Length`.
const RESERVED_BYTES_MAX: u64 = 64 * 1024;
/// Decoded bytes that are taken from the decoder at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// A complete body.
pub(crate) struct CompleteBody {
    pub(crate) bytes: Bytes,
    pub(crate) hash: u64,
}

/// Reads a body of at most `max` bytes after its codings were removed. `count` is updated as it goes, so that it is right after a failure, too.
///
/// # Errors
/// `too-large`, `timeout` (no first byte, the end of the visit, or slower than the policy's rate), `truncated`, `bad-encoding`.
pub(crate) async fn read(
    response: Response,
    codings: &[ContentCoding],
    policy: &Policy,
    max: usize,
    room: BodyRoom<'_>,
    limits: &TimeLimits,
    count: &mut u64,
) -> Result<CompleteBody, Failure> {
    let mut body = response.into_body();
    let announced = body.size_hint().exact().unwrap_or(0);
    let announced_max = if codings.is_empty() { max } else { coded_bytes_max(max) };
    if announced > announced_max as u64 {
        let message = format!("the server announces {announced} bytes; the limit is {max}");
        return Err(Failure::new(FailureClass::TooLarge, message));
    }
    let reserved = usize::try_from(announced.min(RESERVED_BYTES_MAX)).unwrap_or(0);
    let bytes = Vec::with_capacity(reserved);
    let mut document = Document { bytes, hash: Sha256::new(), max, room, waited: Duration::ZERO, count };
    let mut decoder = ContentDecoder::new(codings, max);
    let mut piece = vec![0; if decoder.is_some() { PIECE_BYTES } else { 0 }];
    let mut limits = *limits;
    // The server may still be busy with the document: the rate counts from the first byte on.
    let mut started = None;
    loop {
        let chunk = match started {
            None => first(&mut body, limits.first_byte()).await?,
            Some(started) => next(&mut body, policy, started, document.bytes.len(), limits.total).await?,
        };
        started = started.or_else(|| Some(Instant::now()));
        match (&mut decoder, &chunk) {
            (None, Some(chunk)) => document.push(chunk).await?,
            (None, None) => {}
            (Some(decoder), chunk) => {
                match chunk {
                    Some(chunk) => decoder.push(chunk)?,
                    None => decoder.end(),
                }
                document.push_decoded(decoder, &mut piece).await?;
            }
        }
        if chunk.is_none() {
            return document.complete(codings);
        }
        let waited = std::mem::take(&mut document.waited);
        limits.postpone(waited);
        started = started.map(|started| started + waited);
    }
}

/// What has been decoded so far.
struct Document<'c> {
    bytes: Vec<u8>,
    hash: Sha256,
    max: usize,
    room: BodyRoom<'c>,
    /// How long the last pieces waited for room.
    waited: Duration,
    count: &'c mut u64,
}

impl Document<'_> {
    async fn push(&mut self, piece: &[u8]) -> Result<(), Failure> {
        *self.count += piece.len() as u64;
        let max = self.max;
        if piece.len() > max - self.bytes.len() {
            let message = format!("the body is larger than the limit of {max} bytes (after decoding)");
            return Err(Failure::new(FailureClass::TooLarge, message));
        }
        self.waited += self.room.make(&mut self.bytes, piece.len()).await;
        self.hash.update(piece);
        self.bytes.extend_from_slice(piece);
        // A decompression bomb is always ready: yield to the other visits of this thread.
        tokio::task::consume_budget().await;
        Ok(())
    }

    /// Takes what the decoder has, through a buffer.
    async fn push_decoded(&mut self, decoder: &mut ContentDecoder, piece: &mut [u8]) -> Result<(), Failure> {
        loop {
            match decoder.read(piece)? {
                0 => return Ok(()),
                bytes => self.push(&piece[..bytes]).await?,
            }
        }
    }

    fn complete(self, codings: &[ContentCoding]) -> Result<CompleteBody, Failure> {
        if self.bytes.starts_with(&GZIP_MAGIC) {
            let message = if codings.is_empty() {
                "the body is compressed (gzip), but the server does not say so; its Content-Encoding is missing"
            } else {
                "the body is still compressed after its content coding was removed"
            };
            return Err(Failure::new(FailureClass::BadEncoding, message));
        }
        Ok(CompleteBody { bytes: self.bytes.into(), hash: prefix(self.hash) })
    }
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

async fn chunk(body: &mut ResponseBody) -> Result<Option<Bytes>, Failure> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(e)) => return Err(failure::of_body(&*e)),
            // Trailers are ignored.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn first(body: &mut ResponseBody, deadline: Deadline) -> Result<Option<Bytes>, Failure> {
    match tokio::time::timeout_at(deadline.at, chunk(body)).await {
        Ok(chunk) => chunk,
        Err(_) => Err(deadline.failure("waiting for the first byte of the body")),
    }
}

async fn next(
    body: &mut ResponseBody,
    policy: &Policy,
    started: Instant,
    received: usize,
    total: Deadline,
) -> Result<Option<Bytes>, Failure> {
    let too_slow = too_slow_at(policy, started, received);
    let until = too_slow.map_or(total.at, |at| at.min(total.at));
    match tokio::time::timeout_at(until, chunk(body)).await {
        Ok(chunk) => chunk,
        Err(_) if until == total.at => Err(total.failure("reading the body")),
        Err(_) => {
            let rate = policy.rate_bytes_min;
            let message = format!(
                "the body arrived slower than {rate} bytes per second, a fixed limit without a key: {received} bytes so far"
            );
            Err(Failure::new(FailureClass::Timeout, message))
        }
    }
}

/// When a body with this many bytes so far falls below the required average rate.
fn too_slow_at(policy: &Policy, started: Instant, received: usize) -> Option<Instant> {
    let earned_ms = (received as u64).saturating_mul(1000).checked_div(u64::from(policy.rate_bytes_min))?;
    started.checked_add(policy.rate_grace.max(Duration::from_millis(earned_ms)))
}
