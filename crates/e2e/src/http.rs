//! HTTP/1.1 exchanges over TCP or a Unix socket, each on its own connection. Strict about framing and without a pool, so
//! that each call sees what `curl` would see.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpStream, UnixStream},
};

/// Longest line of a head, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Longest body that [`RawResponse::text`] reads, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A response: its head, and the body yet to be read.
pub struct RawResponse {
    /// Status code.
    pub status: u16,
    /// In the order sent, names in lower case.
    pub headers: Vec<(String, String)>,
    stream: BufReader<Box<dyn Stream>>,
    framing: Framing,
}

/// How the end of the body is determined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Bytes left.
    Length(u64),
    /// Bytes left of the current chunk.
    Chunk(u64),
    /// The body is complete.
    Ended,
    /// The body ends when the connection is closed.
    Close,
}

/// Sends a GET request and reads the head of the response.
///
/// # Errors
/// Errors of the socket, and [`io::ErrorKind::InvalidData`] if the response is not HTTP/1.1.
pub async fn get(address: &Address, path: &str, headers: &[(&str, &str)]) -> io::Result<RawResponse> {
    request("GET", address, path, headers).await
}

/// Like [`get`], with another method and no body.
///
/// # Errors
/// As [`get`].
pub async fn request(
    method: &str,
    address: &Address,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<RawResponse> {
    send(method, address, path, headers, "").await
}

/// Like [`request`], with a body. Adds `Content-Length`; the caller sets `Content-Type`.
///
/// # Errors
/// As [`get`].
pub async fn send(
    method: &str,
    address: &Address,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<RawResponse> {
    let (stream, host): (Box<dyn Stream>, String) = match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            (Box::new(stream), address.to_string())
        }
        Address::Unix(path) => (Box::new(UnixStream::connect(path).await?), "localhost".to_owned()),
    };
    let mut stream = BufReader::new(stream);
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    head.push_str(body);
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    RawResponse::read(stream, method == "HEAD").await
}

/// Sends a GET request and reads the whole response within `limit`: its status and body.
///
/// # Errors
/// As [`get`], and [`io::ErrorKind::TimedOut`].
pub async fn fetch(address: &Address, path: &str, limit: Duration) -> io::Result<(u16, String)> {
    let exchange = async {
        let answer = get(address, path, &[("Connection", "close"), ("Accept", "*/*")]).await?;
        let status = answer.status;
        Ok((status, answer.text().await?))
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))),
    }
}

impl RawResponse {
    async fn read(mut stream: BufReader<Box<dyn Stream>>, bodiless: bool) -> io::Result<Self> {
        let line = read_line(&mut stream).await?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| invalid(format!("not a status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(&mut stream).await?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| invalid(format!("not a header: {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Self { status, headers, stream, framing: Framing::Close };
        answer.framing = answer.framing_of_head(bodiless)?;
        Ok(answer)
    }

    fn framing_of_head(&self, bodiless: bool) -> io::Result<Framing> {
        if bodiless || self.status == 204 || self.status == 304 {
            return Ok(Framing::Ended);
        }
        if let Some(coding) = self.header("transfer-encoding") {
            return match coding {
                "chunked" => Ok(Framing::Chunk(0)),
                other => Err(invalid(format!("unknown transfer-encoding {other:?}"))),
            };
        }
        match self.header("content-length").map(str::parse) {
            Some(Ok(0)) => Ok(Framing::Ended),
            Some(Ok(length)) => Ok(Framing::Length(length)),
            Some(Err(_)) => Err(invalid("content-length is not a number".to_owned())),
            None => Ok(Framing::Close),
        }
    }

    /// The first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The next bytes of the body as they arrive; `None` if it is complete.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the connection ends before the body does.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.framing == Framing::Chunk(0) {
            self.framing = self.next_chunk().await?;
        }
        let left = match self.framing {
            Framing::Ended => return Ok(None),
            Framing::Length(left) | Framing::Chunk(left) => left,
            Framing::Close => u64::MAX,
        };
        let piece = self.stream.fill_buf().await?;
        if piece.is_empty() {
            return match self.framing {
                Framing::Close => Ok(None),
                _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body was cut off")),
            };
        }
        let taken = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = piece[..taken].to_vec();
        self.stream.consume(taken);
        self.framing = match self.framing {
            Framing::Length(left) if left == taken as u64 => Framing::Ended,
            Framing::Length(left) => Framing::Length(left - taken as u64),
            Framing::Chunk(left) => {
                if left == taken as u64 && !read_line(&mut self.stream).await?.is_empty() {
                    return Err(invalid("no line end after a chunk".to_owned()));
                }
                Framing::Chunk(left - taken as u64)
            }
            other => other,
        };
        Ok(Some(piece))
    }

    /// Reads the size of the next chunk; after the last one, the trailers too.
    async fn next_chunk(&mut self) -> io::Result<Framing> {
        let line = read_line(&mut self.stream).await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        match u64::from_str_radix(size, 16).map_err(|_| invalid(format!("not a chunk size: {line:?}")))? {
            0 => {
                while !read_line(&mut self.stream).await?.is_empty() {}
                Ok(Framing::Ended)
            }
            size => Ok(Framing::Chunk(size)),
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`RawResponse::next`], and if it is not UTF-8 or longer than 64 MiB.
    pub async fn text(mut self) -> io::Result<String> {
        let mut body = Vec::new();
        while let Some(piece) = self.next().await? {
            body.extend_from_slice(&piece);
            if body.len() > TEXT_BYTES_MAX {
                return Err(invalid(format!("a body of more than {TEXT_BYTES_MAX} bytes")));
            }
        }
        String::from_utf8(body).map_err(|_| invalid("the body is not UTF-8".to_owned()))
    }
}

/// Reads one line, which must end in CR LF, and returns it without its end.
async fn read_line(stream: &mut BufReader<Box<dyn Stream>>) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
    }
    let text = line.strip_suffix(b"\r\n").ok_or_else(|| invalid("a line without CR LF".to_owned()))?;
    String::from_utf8(text.to_vec()).map_err(|_| invalid("a line that is not UTF-8".to_owned()))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one connection with these bytes and closes it.
    async fn answering(bytes: &'static [u8]) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                seen.push(socket.read_u8().await.unwrap());
            }
            socket.write_all(bytes).await.unwrap();
        });
        address.into()
    }

    async fn body(bytes: &'static [u8]) -> io::Result<String> {
        get(&answering(bytes).await, "/", &[]).await?.text().await
    }

    #[tokio::test]
    async fn every_framing_is_read_to_its_end() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n";
        assert_eq!(body(chunked).await.unwrap(), "abcde");
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").await.unwrap(), "abc");
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\nabc").await.unwrap(), "abc");
        assert_eq!(body(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n").await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_an_error() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        ] {
            assert!(body(bytes).await.is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
