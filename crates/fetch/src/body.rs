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
    // The server may still be busy with the document: the rates count from the first byte on.
    let mut arrival: Option<Arrival> = None;
    loop {
        let chunk = match &mut arrival {
            None => first(&mut body, limits.first_byte()).await?,
            Some(arrival) => next(&mut body, policy, arrival, &document, limits.total).await?,
        };
        let sent = chunk.as_ref().map_or(0, Bytes::len);
        arrival.get_or_insert_with(Arrival::begin).sent_in_period += sent;
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
        if let Some(arrival) = &mut arrival {
            arrival.postpone(waited);
        }
    }
}

/// How a body arrives: from its first byte on, and in this period of [`Policy::RATE_PERIOD`].
struct Arrival {
    started: Instant,
    period_began: Instant,
    sent_in_period: usize,
}

impl Arrival {
    fn begin() -> Self {
        let now = Instant::now();
        Self { started: now, period_began: now, sent_in_period: 0 }
    }

    fn period_end(&self) -> Instant {
        self.period_began + Policy::RATE_PERIOD
    }

    /// A period has ended. Returns whether less was sent in it than a body must that others wait for.
    fn end_period(&mut self, policy: &Policy) -> bool {
        let needed = u64::from(policy.rate_bytes_wanted) * Policy::RATE_PERIOD.as_secs();
        let sent = std::mem::take(&mut self.sent_in_period);
        self.period_began = Instant::now();
        (sent as u64) < needed
    }

    /// It has waited for others, which does not count.
    fn postpone(&mut self, waited: Duration) {
        self.started += waited;
        self.period_began += waited;
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
            let read = decoder.read(piece)?;
            self.room.decoder_has(decoder.bytes() + piece.len(), self.bytes.capacity());
            match read {
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
    arrival: &mut Arrival,
    document: &Document<'_>,
    total: Deadline,
) -> Result<Option<Bytes>, Failure> {
    let received = document.bytes.len();
    let too_slow = too_slow_at(policy, arrival.started, received);
    let until = too_slow.map_or(total.at, |at| at.min(total.at));
    let slower_than = |rate: u32, why: &str| {
        let message =
            format!("the body arrived slower than {rate} bytes per second{why}: {received} bytes so far");
        Failure::new(FailureClass::Timeout, message)
    };
    loop {
        // Also while bytes keep coming, or a server could send one at a time.
        if arrival.period_end() <= Instant::now() && arrival.end_period(policy) && document.room.is_wanted() {
            return Err(slower_than(
                policy.rate_bytes_wanted,
                " while other visits waited for its memory (fetch.memory_bytes)",
            ));
        }
        match tokio::time::timeout_at(arrival.period_end().min(until), chunk(body)).await {
            Ok(chunk) => return chunk,
            Err(_) if Instant::now() < until => {}
            Err(_) if until == total.at => return Err(total.failure("reading the body")),
            Err(_) => return Err(slower_than(policy.rate_bytes_min, ", a fixed limit without a key")),
        }
    }
}

/// When a body with this many bytes so far falls below the required average rate.
fn too_slow_at(policy: &Policy, started: Instant, received: usize) -> Option<Instant> {
    let earned_ms = (received as u64).saturating_mul(1000).checked_div(u64::from(policy.rate_bytes_min))?;
    started.checked_add(policy.rate_grace.max(Duration::from_millis(earned_ms)))
}
