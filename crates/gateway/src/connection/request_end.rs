//! Where the first request of a connection ends: found as its bytes arrive, so that what a client sent behind it never
//! reaches the HTTP parser (RFC 9112, sections 6 and 9.6).
//!
//! ```text
//! Head ──empty line──► Length(n) ──n bytes──► End
//!                  ├─► Chunked ──last chunk, trailers──► End
//!                  └─► End
//! ```
//!
//! The parser behind it decides what a request is. Where the two could differ, this one ends the request earlier: a
//! request that the parser refuses ends with its head.

/// As many headers as actix accepts; with more it refuses the request.
const HEADERS_MAX: usize = 96;
/// As long a head as actix accepts.
const HEAD_BYTES_MAX: usize = 131_072;

/// How much of the first request has arrived.
#[derive(Debug)]
pub(super) enum RequestEnd {
    Head(HeadScan),
    /// So many bytes of the body are left.
    Length(u64),
    Chunked(ChunkedScan),
    /// It is complete.
    End,
}

/// A head that is not complete yet.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// What has arrived of it.
    bytes: Vec<u8>,
    /// A line with text was seen: empty lines before the first one do not count (RFC 9112, section 2.2).
    has_begun: bool,
    /// The current line has text.
    has_text: bool,
}

/// Where in a chunked body the next byte is; the same grammar as actix's.
#[derive(Clone, Copy, Debug)]
pub(super) enum ChunkedScan {
    SizeFirst,
    Size(u64),
    SizeSpace(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
    EndCr,
    EndLf,
}

impl Default for RequestEnd {
    fn default() -> Self {
        Self::Head(HeadScan::default())
    }
}

impl RequestEnd {
    pub(super) fn is_reached(&self) -> bool {
        matches!(self, Self::End)
    }

    /// Takes the next bytes of the connection; returns how many of them belong to the request.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            taken += match self {
                Self::End => return taken,
                Self::Head(scan) => match scan.advance(rest) {
                    Some((length, body)) => {
                        *self = body;
                        length
                    }
                    None => rest.len(),
                },
                Self::Length(left) => {
                    let length = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= length as u64;
                    if *left == 0 {
                        *self = Self::End;
                    }
                    length
                }
                Self::Chunked(ChunkedScan::Data(left)) => {
                    let length = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let left = *left - length as u64;
                    *self =
                        Self::Chunked(if left == 0 { ChunkedScan::DataCr } else { ChunkedScan::Data(left) });
                    length
                }
                Self::Chunked(scan) => {
                    *self = scan.step(rest[0]).map_or(Self::End, Self::Chunked);
                    1
                }
            };
        }
        taken
    }
}

impl HeadScan {
    /// Takes bytes up to the end of the head; returns how many, and what follows, once the end is among them.
    fn advance(&mut self, bytes: &[u8]) -> Option<(usize, RequestEnd)> {
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.has_begun && !self.has_text => {
                    let length = index + 1;
                    if self.bytes.is_empty() {
                        return Some((length, body_of(&bytes[..length])));
                    }
                    self.bytes.extend_from_slice(&bytes[..length]);
                    return Some((length, body_of(&self.bytes)));
                }
                b'\n' => self.has_text = false,
                b'\r' => {}
                _ => (self.has_begun, self.has_text) = (true, true),
            }
        }
        self.bytes.extend_from_slice(bytes);
        // The parser refuses a longer one.
        (self.bytes.len() > HEAD_BYTES_MAX).then_some((bytes.len(), RequestEnd::End))
    }
}

/// The body that follows a head.
fn body_of(head: &[u8]) -> RequestEnd {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        // The parser refuses it.
        _ => return RequestEnd::End,
    }
    let values = |name: &str| {
        let same = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
        let headers: Vec<_> = request.headers.iter().filter(same).collect();
        headers.into_iter().map(|header| std::str::from_utf8(header.value).unwrap_or_default().trim())
    };
    let is = |name: &str, value: &str| values(name).any(|found| found.eq_ignore_ascii_case(value));
    if is("transfer-encoding", "chunked") {
        return RequestEnd::Chunked(ChunkedScan::SizeFirst);
    }
    if is("upgrade", "websocket") {
        // It has no body that anybody here would read.
        return RequestEnd::End;
    }
    let length = values("content-length").next().filter(|length| !length.starts_with('+'));
    match length.and_then(|length| length.parse().ok()) {
        None | Some(0) => RequestEnd::End,
        Some(length) => RequestEnd::Length(length),
    }
}

impl ChunkedScan {
    /// The place after `byte`; `None` at the end of the body, and where the parser refuses it.
    fn step(self, byte: u8) -> Option<Self> {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        match (self, byte) {
            (Self::SizeFirst, _) => digit.map(Self::Size),
            (Self::Size(size) | Self::SizeSpace(size), b'\t' | b' ') => Some(Self::SizeSpace(size)),
            (Self::Size(size) | Self::SizeSpace(size), b';') => Some(Self::Extension(size)),
            (Self::Size(size) | Self::SizeSpace(size) | Self::Extension(size), b'\r') => {
                Some(Self::SizeLf(size))
            }
            (Self::Size(size), _) => size.checked_mul(16)?.checked_add(digit?).map(Self::Size),
            (Self::Extension(size), b'\t' | 0x20..=0x7e | 0x80..) => Some(Self::Extension(size)),
            (Self::SizeLf(0), b'\n') => Some(Self::EndCr),
            (Self::SizeLf(size), b'\n') => Some(Self::Data(size)),
            (Self::DataCr, b'\r') => Some(Self::DataLf),
            (Self::DataLf, b'\n') => Some(Self::SizeFirst),
            (Self::Trailer, b'\r') => Some(Self::TrailerLf),
            (Self::Trailer, _) => Some(Self::Trailer),
            (Self::TrailerLf, b'\n') => Some(Self::EndCr),
            (Self::EndCr, b'\r') => Some(Self::EndLf),
            (Self::EndCr, _) => Some(Self::Trailer),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many bytes belong to the request when they arrive in pieces of `piece` bytes; `None` if it is incomplete.
    fn end_in_pieces(bytes: &[u8], piece: usize) -> Option<usize> {
        let mut end = RequestEnd::default();
        let taken = bytes.chunks(piece).map(|piece| end.advance(piece)).sum();
        end.is_reached().then_some(taken)
    }

    #[test]
    fn the_request_ends_where_its_head_says_however_its_bytes_arrive() {
        let inner = "GET /inner HTTP/1.1\r\nhost: b\r\n\r\n";
        let get = "GET / HTTP/1.1\r\nhost: a\r\n";
        for request in [
            format!("{get}\r\n"),
            "GET / HTTP/1.1\nhost: a\n\n".to_owned(),
            "GET / HTTP/1.1\nhost: a\n\r\n".to_owned(),
            "\r\n\r\n\nGET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            format!("{get}content-length: 5\r\n\r\nGET /"),
            format!("{get}Content-Length:  0\r\n\r\n"),
            format!("{get}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"),
            format!("{get}transfer-encoding: CHUNKED\r\n\r\n0\r\nx: y\r\nz: w\r\n\r\n"),
            // What actix refuses ends with its head.
            format!("{get}content-length: +4\r\n\r\n"),
            format!("{get}content-length: 4, 60\r\n\r\n"),
            format!("{get}transfer-encoding: xchunked\r\n\r\n"),
            format!("{get}upgrade: websocket\r\ncontent-length: 30\r\n\r\n"),
            format!("{get}{}\r\n", "x: y\r\n".repeat(200)),
        ] {
            let bytes = format!("{request}{inner}{inner}");
            for piece in [1, 2, 3, 7, 16, 100_000] {
                let end = end_in_pieces(bytes.as_bytes(), piece);
                assert_eq!(end, Some(request.len()), "pieces of {piece}: {request:?}");
            }
        }
        assert_eq!(end_in_pieces(b"GET / HTTP/1.1\r\nhost: a\r\n", 5), None);
        assert_eq!(end_in_pieces(b"GET / HTTP/1.1\r\ncontent-length: 9\r\n\r\nx", 5), None);
        let long = vec![b'x'; HEAD_BYTES_MAX + 100];
        assert!(end_in_pieces(&long, 1000).is_some(), "what the parser refuses is not collected for ever");
    }

    #[test]
    fn a_chunked_body_that_actix_refuses_ends_there() {
        for body in ["x", "5\n", "5x\r\n", "5\r\nabcdef", "5;\n", "\r\n", "FFFFFFFFFFFFFFFFF\r\n"] {
            let bytes =
                format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}{body}{body}");
            assert!(end_in_pieces(bytes.as_bytes(), 3).is_some(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes in "(GET|POST|\r|\n| |/|x| HTTP/1.1|content-length: 3|transfer-encoding: chunked|:|0|3|;){0,60}", piece in 1_usize..20) {
            prop_assert_eq!(end_in_pieces(bytes.as_bytes(), piece), end_in_pieces(bytes.as_bytes(), 1));
        }
    }
}
