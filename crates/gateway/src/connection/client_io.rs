//! A client's socket as actix reads and writes it: the bytes of the first request, and no others.
//!
//! What a client sends behind its first request is read and thrown away, up to a bound, because unread bytes would make
//! the kernel reset the connection, and the client lose the answer. So the end of a stream's connection is noticed at
//! once, too. A client that has closed only its own side (`nc -N`) still gets the answer to a plain request.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::rt::net::TcpStream;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{ClientConnection, ending::ConnectionCut, request_end::RequestEnd};

/// Bytes behind the first request that are thrown away; with more the connection is closed.
const SURPLUS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The same on an open stream, whose client has nothing more to say.
const SURPLUS_BYTES_MAX_STREAM: usize = 64 * 1024;
/// The same in reads: each costs as much as a small answer, however few bytes it brings.
const SURPLUS_READS_MAX: usize = 8192;
/// Bytes that are thrown away before other connections get their turn.
const SURPLUS_BYTES_PER_POLL: usize = 64 * 1024;
/// How long a client has to close the connection when it has sent more than its request.
const LINGER: Duration = Duration::from_secs(1);

/// The first bytes of a connection, which the front loop has read: enough to tell where it is served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FirstBytes {
    bytes: [u8; Self::MAX],
    len: usize,
}

/// One client's socket.
#[derive(Debug)]
pub(crate) struct ClientIo {
    stream: TcpStream,
    connection: Rc<ClientConnection>,
    /// What the front loop has read, until actix takes it.
    first: FirstBytes,
    end: RequestEnd,
    surplus_bytes: usize,
    surplus_reads: usize,
    /// Runs while a connection is closed whose client has sent too much.
    linger: Option<Pin<Box<Sleep>>>,
}

impl FirstBytes {
    /// Enough for `HEAD /health?`.
    pub(crate) const MAX: usize = 16;

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The room that is left.
    pub(crate) fn unfilled(&mut self) -> &mut [u8] {
        &mut self.bytes[self.len..]
    }

    /// Takes the result of a read into [`FirstBytes::unfilled`]; a read that would have to wait has read nothing.
    ///
    /// # Errors
    /// If the read has failed, or was the end of the connection.
    pub(crate) fn after(&mut self, read: io::Result<usize>) -> io::Result<()> {
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.len = (self.len + length).min(Self::MAX);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What reading behind the end of the request has found.
enum Surplus {
    /// The client has closed its side.
    Eof,
    /// There was too much.
    TooMuch,
}

impl ClientIo {
    pub(crate) fn new(stream: TcpStream, first: FirstBytes, connection: Rc<ClientConnection>) -> Self {
        Self {
            stream,
            connection,
            first,
            end: RequestEnd::default(),
            surplus_bytes: 0,
            surplus_reads: 0,
            linger: None,
        }
    }

    pub(crate) fn connection(&self) -> &Rc<ClientConnection> {
        &self.connection
    }

    /// Reads and throws away what follows the request. `scratch` is room for it.
    fn poll_surplus(&mut self, cx: &mut Context<'_>, scratch: &mut ReadBuf<'_>) -> Poll<io::Result<Surplus>> {
        let until = self.surplus_bytes + SURPLUS_BYTES_PER_POLL;
        while self.surplus_bytes < until {
            let mut room = scratch.take(scratch.remaining());
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
            let bytes = room.filled().len();
            if bytes == 0 {
                return Poll::Ready(Ok(Surplus::Eof));
            }
            self.surplus_bytes += bytes;
            self.surplus_reads += 1;
            let bytes_max =
                if self.connection.is_stream() { SURPLUS_BYTES_MAX_STREAM } else { SURPLUS_BYTES_MAX };
            if self.surplus_bytes > bytes_max || self.surplus_reads > SURPLUS_READS_MAX {
                return Poll::Ready(Ok(Surplus::TooMuch));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end.is_reached() {
            return match ready!(this.poll_surplus(cx, buf)) {
                // actix would drop the request, and nothing tells a client that has left from one that waits: the answer
                // fails if it has left.
                Ok(Surplus::Eof) if !this.connection.is_stream() => Poll::Pending,
                Ok(Surplus::TooMuch) => {
                    this.connection.cut(ConnectionCut::Pipelining);
                    Poll::Ready(Ok(()))
                }
                left => {
                    this.connection.on_client_left();
                    Poll::Ready(left.map(drop))
                }
            };
        }
        let before = buf.filled().len();
        let first = std::mem::take(&mut this.first);
        if first.as_slice().is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            // actix always has room for more than these.
            buf.put_slice(first.as_slice());
        }
        let arrived = buf.filled().len() - before;
        let taken = this.end.advance(&buf.filled()[before..]);
        this.surplus_bytes += arrived - taken;
        buf.set_filled(before + taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes));
        if written.is_err() {
            this.connection.on_client_left();
        }
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Closes the connection after its answer. If the client has sent more than its request, what still arrives is read
    /// until the client has closed its side, too, or [`LINGER`] is over (RFC 9112, section 9.6).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.surplus_bytes == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 4096];
        ready!(this.poll_surplus(cx, &mut ReadBuf::new(&mut scratch))).ok();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        if self.connection.was_cut() {
            // What the kernel still holds for the client is discarded.
            SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).ok();
        }
    }
}
