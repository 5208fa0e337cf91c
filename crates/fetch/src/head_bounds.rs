//! How much is read as the head of a response: at most [`INTERIM_BYTES_MAX`] of interim responses (1xx), which hyper reads and
//! forgets without end, and at most [`HEAD_BYTES_MAX`](crate::stream::HEAD_BYTES_MAX) of the head itself.
//!
//! Bytes are read in small portions; until the head is complete, none crosses a bound. So the bounds are exact,
//! however the server cuts what it sends; with interim responses that of the head is exact to one portion.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};

use crate::{
    cause::EndlessInterim,
    stream::{BoxStream, HEAD_BYTES_MAX},
};

/// Maximum number of bytes of all interim responses before the response.
const INTERIM_BYTES_MAX: usize = 64 * 1024;
/// Largest portion that is read. hyper's buffer grows to 256 KiB with what one read finds, and the memory budget does not
/// count it: with a hundred large bodies at once it would be 25 MiB.
const PORTION_BYTES_MAX: usize = 8 * 1024;

/// How much was read so far, and how much of it when the last interim response was complete.
#[derive(Default)]
pub(crate) struct HeadMeter {
    read: AtomicUsize,
    interim: AtomicUsize,
    is_complete: AtomicBool,
}

impl HeadMeter {
    /// Notes that an interim response is complete.
    pub(crate) fn note_interim(&self) {
        self.interim.store(self.read.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Notes that the head is complete: what follows is the body.
    ///
    /// # Errors
    /// [`EndlessInterim`], if what came before it was too much.
    pub(crate) fn complete(&self) -> Result<(), EndlessInterim> {
        self.is_complete.store(true, Ordering::Relaxed);
        self.check()
    }

    /// Whether a part of the head was read, interim responses apart.
    pub(crate) fn has_begun(&self) -> bool {
        self.read.load(Ordering::Relaxed) > self.interim.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), EndlessInterim> {
        match self.interim.load(Ordering::Relaxed) {
            0..=INTERIM_BYTES_MAX => Ok(()),
            _ => Err(EndlessInterim { bytes_max: INTERIM_BYTES_MAX }),
        }
    }

    /// How much may be read next, in bytes.
    fn portion(&self) -> u64 {
        if self.is_complete.load(Ordering::Relaxed) {
            return PORTION_BYTES_MAX as u64;
        }
        let read = self.read.load(Ordering::Relaxed);
        // Where the last byte of the last interim response, and of a head without any, may be.
        let bounds = [INTERIM_BYTES_MAX, HEAD_BYTES_MAX];
        let to_bound = bounds.iter().filter_map(|bound| bound.checked_sub(read)).find(|left| *left > 0);
        to_bound.map_or(PORTION_BYTES_MAX, |left| left.min(PORTION_BYTES_MAX)) as u64
    }
}

/// A connection from which nothing more is read after too many interim responses.
pub(crate) struct MeteredStream {
    stream: Take<BoxStream>,
    meter: Arc<HeadMeter>,
}

impl MeteredStream {
    /// A connection over which one request is sent, and what counts the head of its response.
    pub(crate) fn new(stream: BoxStream) -> (Self, Arc<HeadMeter>) {
        let meter = Arc::<HeadMeter>::default();
        (Self { stream: stream.take(0), meter: Arc::clone(&meter) }, meter)
    }

    pub(crate) fn into_inner(self) -> BoxStream {
        self.stream.into_inner()
    }
}

impl AsyncRead for MeteredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.meter.check().map_err(io::Error::other)?;
        let portion = self.meter.portion();
        self.stream.set_limit(portion);
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.meter.read.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for MeteredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.stream.get_mut()).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.get_mut()).poll_shutdown(cx)
    }
}
