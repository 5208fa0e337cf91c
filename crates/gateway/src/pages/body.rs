//! The body of a plain answer: shared bytes, handed out in chunks. Nothing is copied whole, and actix's buffer of the
//! connection does not grow.

use std::{
    collections::VecDeque,
    convert::Infallible,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::unsent::UnsentBytes;

/// Largest chunk. actix asks for another one while less than 2 KiB wait in its buffer, which then needs no more than the
/// 8 KiB that it begins with.
const CHUNK_BYTES: usize = 6 * 1024;

/// Parts of a body, in order.
#[derive(Debug, Default)]
pub(crate) struct SharedBody {
    parts: VecDeque<Bytes>,
    /// Bytes of the parts.
    length: usize,
    reserved: Option<UnsentBytes>,
    /// Handed out since the last release.
    handed_out: usize,
}

impl SharedBody {
    pub(crate) fn push(&mut self, part: impl Into<Bytes>) {
        let part = part.into();
        self.length += part.len();
        self.parts.push_back(part);
    }

    /// Bytes that are still to be handed out.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The same body, which releases `reserved` as it is handed out.
    #[must_use]
    pub(crate) fn with_reservation(self, reserved: UnsentBytes) -> Self {
        Self { reserved: Some(reserved), ..self }
    }

    fn next_chunk(&mut self) -> Option<Bytes> {
        let first = self.parts.front_mut()?;
        let chunk = match first.len() {
            0..=CHUNK_BYTES => self.parts.pop_front()?,
            _ => first.split_to(CHUNK_BYTES),
        };
        self.length -= chunk.len();
        self.handed_out += chunk.len();
        // Not for every comma: that would be a lock each.
        if self.handed_out >= CHUNK_BYTES
            && let Some(reserved) = &mut self.reserved
        {
            reserved.release(mem::take(&mut self.handed_out));
        }
        Some(chunk)
    }
}

impl<B: Into<Bytes>> From<B> for SharedBody {
    fn from(part: B) -> Self {
        let mut body = Self::default();
        body.push(part);
        body
    }
}

impl MessageBody for SharedBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.length as u64)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Poll::Ready(self.get_mut().next_chunk().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use daemon::metrics::MetricsRegistry;

    use super::*;
    use crate::unsent::UnsentBudget;

    #[test]
    fn the_chunks_are_the_parts_in_order_none_of_them_large_and_none_copied() {
        let large = Bytes::from(vec![b'x'; 3 * CHUNK_BYTES + 1]);
        let mut body = SharedBody::default();
        for part in [Bytes::from_static(b"["), large.clone(), Bytes::from_static(b"]")] {
            body.push(part);
        }
        assert_eq!(body.len(), large.len() + 2);
        let chunks: Vec<_> = std::iter::from_fn(|| body.next_chunk()).collect();
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES));
        assert_eq!(chunks.concat(), [b"[", &large[..], b"]"].concat());
        assert_eq!(chunks[1].as_ptr(), large.as_ptr(), "a slice of the same bytes");
        assert_eq!(body.len(), 0);
    }

    #[test]
    fn what_was_handed_out_is_released_and_the_rest_with_the_body() {
        let registry = MetricsRegistry::new();
        let budget = UnsentBudget::new(1 << 20, &registry);
        let unsent = || {
            let text = registry.encode();
            let value = text.lines().find_map(|l| l.strip_prefix("newswire_gateway_unsent_bytes "));
            value.unwrap().parse::<usize>().unwrap()
        };
        let mut body = SharedBody::from(vec![b'x'; 3 * CHUNK_BYTES]);
        let reserved = budget.reserve("192.0.2.1".parse().unwrap(), body.len()).unwrap();
        body = body.with_reservation(reserved);
        assert_eq!(unsent(), 3 * CHUNK_BYTES);
        body.next_chunk();
        assert_eq!(unsent(), 2 * CHUNK_BYTES);
        drop(body);
        assert_eq!(unsent(), 0);
    }
}
