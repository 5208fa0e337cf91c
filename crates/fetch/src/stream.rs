//! The bytes of a connection, and HTTP/1.1 on them.

use std::error::Error;

use http::Uri;
use hyper::client::conn::http1;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

/// Maximum number of headers of a response.
pub(crate) const HEADERS_MAX: usize = 256;
/// Longest head of a response in bytes, and largest buffer of a connection.
pub(crate) const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Any error of a connection or a body.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// A connection, or a layer on top of one.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}
pub(crate) type BoxStream = Box<dyn ByteStream>;

/// What hyper reads as the head of a response. Servers send heads that RFC 9112 does not allow, and browsers read them.
pub(crate) fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    http
}

pub(crate) fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// The task that reads and writes for a connection. It ends when this is dropped.
pub(crate) struct ConnectionTask(pub(crate) JoinHandle<hyper::Result<()>>);

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
