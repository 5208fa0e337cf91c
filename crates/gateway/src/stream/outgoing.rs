//! What a stream hands out next: blocks, in chunks that fit into the write buffer of its connection.
//!
//! A block of an event is shared by all clients. A large one is handed out in slices, over as many polls as the client's
//! socket needs, and the client's cursor moves when the last slice was handed out. Nothing comes in between.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use news::Seq;

use super::{encoding::BlockForm, frame::Frame};

/// Blocks that wait to be handed out: at most one large event, or about one chunk of small ones, and some notices.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    parts: VecDeque<Bytes>,
    /// The client's cursor when all parts were handed out.
    cursor: Option<Seq>,
}

impl Outgoing {
    /// Bytes of a chunk. actix gives each connection a write buffer of 8 KiB, asks for more while less than 1 KiB waits in
    /// it, and keeps what it grows to: with chunks of this size, and their frames, it never grows. It never even uses the
    /// second of the buffer's two pages: a client that was sent much takes no more memory than one that waits.
    pub(crate) const CHUNK_BYTES: usize = 3 * 1024 - 16;

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds whole blocks.
    pub(crate) fn push(&mut self, blocks: Bytes) {
        if !blocks.is_empty() {
            self.parts.push_back(blocks);
        }
    }

    /// Sets where the client is once everything added so far was handed out.
    pub(crate) fn then_cursor(&mut self, cursor: Seq) {
        self.cursor = Some(cursor);
    }

    /// The next chunk; with the last one, the client's new cursor.
    pub(crate) fn next_chunk(&mut self) -> Option<(Bytes, Option<Seq>)> {
        let first = self.parts.front_mut()?;
        let chunk = if first.len() > Self::CHUNK_BYTES {
            first.split_to(Self::CHUNK_BYTES)
        } else {
            self.parts.pop_front()?
        };
        let cursor = if self.parts.is_empty() { self.cursor.take() } else { None };
        Some((chunk, cursor))
    }

    /// The cursor, if nothing has to be handed out before.
    pub(crate) fn take_cursor(&mut self) -> Option<Seq> {
        if self.parts.is_empty() { self.cursor.take() } else { None }
    }
}

/// Joins the blocks of small events to one chunk; an event alone, the usual case, is not copied.
pub(crate) struct ChunkBuilder<'f> {
    form: BlockForm,
    alone: Option<&'f Frame>,
    joined: BytesMut,
    bytes: usize,
}

impl<'f> ChunkBuilder<'f> {
    pub(crate) fn new(form: BlockForm) -> Self {
        Self { form, alone: None, joined: BytesMut::new(), bytes: 0 }
    }

    /// Adds an event; false if there is no room for it. For the first one there always is.
    pub(crate) fn try_add(&mut self, frame: &'f Frame) -> bool {
        let block_bytes = frame.block_bytes(self.form);
        if self.bytes > 0 && self.bytes + block_bytes > Outgoing::CHUNK_BYTES {
            return false;
        }
        self.bytes += block_bytes;
        match self.alone.take() {
            None if self.joined.is_empty() => self.alone = Some(frame),
            first => {
                if let Some(first) = first {
                    self.joined.reserve(Outgoing::CHUNK_BYTES);
                    first.copy_block(self.form, &mut self.joined);
                }
                frame.copy_block(self.form, &mut self.joined);
            }
        }
        true
    }

    /// Hands the blocks over: a large one as slices, small ones as one chunk.
    pub(crate) fn finish(mut self, outgoing: &mut Outgoing) {
        if let Some(frame) = self.alone {
            if self.bytes > Outgoing::CHUNK_BYTES || frame.is_one_slice(self.form) {
                return frame.block(self.form).for_each(|slice| outgoing.push(slice));
            }
            frame.copy_block(self.form, &mut self.joined);
        }
        outgoing.push(self.joined.freeze());
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_moves_with_the_last_chunk_and_no_chunk_is_too_large() {
        let mut outgoing = Outgoing::default();
        outgoing.push(Bytes::from_static(b"gap"));
        outgoing.push(Bytes::from(vec![b'x'; 3 * Outgoing::CHUNK_BYTES + 1]));
        outgoing.push(Bytes::new());
        outgoing.then_cursor(Seq(7));
        assert_eq!(outgoing.take_cursor(), None, "something is to be handed out before");
        let mut chunks = Vec::new();
        while let Some((chunk, cursor)) = outgoing.next_chunk() {
            chunks.push((chunk.len(), cursor.map(|seq| seq.0)));
        }
        let full = (Outgoing::CHUNK_BYTES, None);
        assert_eq!(chunks, [(3, None), full, full, full, (1, Some(7))]);
        outgoing.then_cursor(Seq(9));
        assert_eq!((outgoing.take_cursor(), outgoing.take_cursor()), (Some(Seq(9)), None));
    }
}
