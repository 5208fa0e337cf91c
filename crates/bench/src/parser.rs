//! An incremental parser of an event stream over HTTP: head, chunks, lines, blocks.
//!
//! It is cheap, because one thread parses ten thousand streams, and exact: an event counts once its block is complete
//! (WHATWG HTML, section 9.2.6), so a truncated one never counts.

use std::ops::ControlFlow;

use memchr::{memchr, memmem};

use crate::payload::{ID_MARK, STAMP_MARK};

/// Limit of the head of a response.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// More than an epoch has.
const EPOCH_BYTES_MAX: usize = 40;

/// What a stream can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamMessage {
    /// An item: its sequence number, and its stamp in microseconds.
    Item { seq: u64, stamp: u64 },
    /// The last event id is now this one.
    LastId(u64),
    /// The reconnection time in milliseconds.
    Retry(u64),
    /// The event `stream`: whether the stream resumes without loss.
    Opened { lossless: bool },
    /// The log no longer has the requested events.
    Gap,
}

/// Why a response is not an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParseError(pub(crate) String);

/// The state of one stream.
#[derive(Debug, Default)]
pub(crate) struct StreamParser {
    framing: Framing,
    /// The beginning of the head, or of an incomplete line.
    partial: Vec<u8>,
    item: Option<(u64, u64)>,
    last_id: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    #[default]
    Head,
    /// The rest is the body.
    Raw,
    /// In the line with the size of the next chunk.
    Size {
        so_far: usize,
        extension: bool,
    },
    Chunk {
        left: usize,
    },
    /// In the line end after a chunk; `left` bytes are missing.
    ChunkEnd {
        left: u8,
    },
    Ended,
}

impl StreamParser {
    /// Whether the response is complete.
    pub(crate) fn is_ended(&self) -> bool {
        self.framing == Framing::Ended
    }

    /// Parses the next bytes, split anywhere.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        emit: &mut impl FnMut(StreamMessage),
    ) -> Result<(), ParseError> {
        while !bytes.is_empty() {
            let used = match self.framing {
                Framing::Head => self.head(bytes)?,
                Framing::Raw => {
                    self.lines(bytes, emit);
                    bytes.len()
                }
                Framing::Size { so_far, extension } => self.size(bytes[0], so_far, extension)?,
                Framing::Chunk { left } => {
                    let here = left.min(bytes.len());
                    self.lines(&bytes[..here], emit);
                    self.framing = match left - here {
                        0 => Framing::ChunkEnd { left: 2 },
                        left => Framing::Chunk { left },
                    };
                    here
                }
                Framing::ChunkEnd { left: 1 } => {
                    self.framing = Framing::Size { so_far: 0, extension: false };
                    1
                }
                Framing::ChunkEnd { left } => {
                    self.framing = Framing::ChunkEnd { left: left - 1 };
                    1
                }
                Framing::Ended => return Ok(()),
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, ParseError> {
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        let Some(end) = memmem::find(&self.partial, b"\r\n\r\n") else {
            if self.partial.len() > HEAD_BYTES_MAX {
                return Err(ParseError("the head of the response is too long".to_owned()));
            }
            return Ok(bytes.len());
        };
        let head = String::from_utf8_lossy(&self.partial[..end]).to_ascii_lowercase();
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            return Err(ParseError(format!("the response is {status}")));
        }
        let chunked = head.lines().any(|l| l.starts_with("transfer-encoding:") && l.ends_with("chunked"));
        self.framing = if chunked { Framing::Size { so_far: 0, extension: false } } else { Framing::Raw };
        self.partial.clear();
        Ok(end + 4 - before)
    }

    fn size(&mut self, byte: u8, so_far: usize, extension: bool) -> Result<usize, ParseError> {
        self.framing = match (byte, char::from(byte).to_digit(16)) {
            (b'\n', _) if so_far == 0 => Framing::Ended,
            (b'\n', _) => Framing::Chunk { left: so_far },
            (b'\r', _) => Framing::Size { so_far, extension },
            (b';', _) => Framing::Size { so_far, extension: true },
            _ if extension => Framing::Size { so_far, extension },
            (_, Some(digit)) if so_far <= usize::MAX >> 8 => {
                Framing::Size { so_far: so_far * 16 + digit as usize, extension }
            }
            _ => return Err(ParseError("invalid size of a chunk".to_owned())),
        };
        Ok(1)
    }

    fn lines(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(StreamMessage)) {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.partial.is_empty() {
                self.line(&bytes[..end], emit);
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(&bytes[..end]);
                self.line(&line, emit);
                line.clear();
                self.partial = line;
            }
            bytes = &bytes[end + 1..];
        }
        self.partial.extend_from_slice(bytes);
    }

    fn line(&mut self, line: &[u8], emit: &mut impl FnMut(StreamMessage)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if let Some((seq, stamp)) = self.item.take() {
                emit(StreamMessage::Item { seq, stamp });
            }
            if let Some(last_id) = self.last_id.take() {
                emit(StreamMessage::LastId(last_id));
            }
        } else if let ControlFlow::Continue(()) = self.data(line, emit) {
            if let Some(id) = field(line, b"id:") {
                self.last_id = memchr(b'-', id).map(|dash| number(&id[dash + 1..]));
            } else if let Some(retry) = field(line, b"retry:") {
                emit(StreamMessage::Retry(number(retry)));
            } else if field(line, b"event:") == Some(b"gap") {
                emit(StreamMessage::Gap);
            }
        }
    }

    fn data(&mut self, line: &[u8], emit: &mut impl FnMut(StreamMessage)) -> ControlFlow<()> {
        let Some(data) = field(line, b"data:") else { return ControlFlow::Continue(()) };
        // The epoch has no dash.
        let seq_on = |id: &'_ [u8]| memchr(b'-', id.get(..EPOCH_BYTES_MAX).unwrap_or(id));
        if let Some((rest, dash)) = data.strip_prefix(ID_MARK).and_then(|id| Some((id, seq_on(id)?))) {
            let rest = &rest[dash + 1..];
            let stamp = memmem::find(rest, STAMP_MARK).map_or(0, |at| number(&rest[at + STAMP_MARK.len()..]));
            self.item = Some((number(rest), stamp));
        } else if let Some(rest) = data.strip_prefix(b"{\"resume\":\"") {
            let lossless = rest.starts_with(b"exact") || rest.starts_with(b"live");
            emit(StreamMessage::Opened { lossless });
        }
        ControlFlow::Break(())
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// The number at the beginning of `bytes`.
fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0, |n: u64, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";

    fn body() -> String {
        let (one, two) = (payload::json(41, 7, 300), payload::json(42, 8, 300));
        format!(
            "retry: 1500\nid: bench-40\nevent: stream\ndata: {{\"resume\":\"exact\"}}\n\n\
             id: bench-41\nevent: item\ndata: {one}\n\n: a comment\n\r\nid: bench-41\n\n\
             id: bench-42\r\ndata:{two}\r\n\r\nevent: gap\ndata: {{}}\n\nid: bench-43\ndata: {one}\n"
        )
    }

    fn expected() -> Vec<StreamMessage> {
        vec![
            StreamMessage::Retry(1500),
            StreamMessage::Opened { lossless: true },
            StreamMessage::LastId(40),
            StreamMessage::Item { seq: 41, stamp: 7 },
            StreamMessage::LastId(41),
            StreamMessage::LastId(41),
            StreamMessage::Item { seq: 42, stamp: 8 },
            StreamMessage::LastId(42),
            StreamMessage::Gap,
        ]
    }

    fn parse(text: &[u8], cuts: &[usize]) -> (Vec<StreamMessage>, StreamParser) {
        let (mut parser, mut messages, mut from) = (StreamParser::default(), Vec::new(), 0);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % text.len()).chain([text.len()]).collect();
        cuts.sort_unstable();
        for cut in cuts {
            parser.push(&text[from..cut], &mut |s| messages.push(s)).unwrap();
            from = cut;
        }
        (messages, parser)
    }

    fn chunked(body: &str, size: usize) -> String {
        let chunks = body.as_bytes().chunks(size);
        let chunks = chunks.map(|c| format!("{:X};x=1\r\n{}\r\n", c.len(), String::from_utf8_lossy(c)));
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.collect::<String>())
    }

    #[test]
    fn a_truncated_block_yields_no_message() {
        let (messages, parser) = parse(format!("{HEAD}\r\n{}", body()).as_bytes(), &[]);
        assert_eq!(messages, expected());
        assert!(!parser.is_ended());
    }

    #[test]
    fn an_item_counts_whatever_the_epoch_of_its_id() {
        let body = "data: {\"id\":\"k3x9qa-7\",\"title\":\"@12\"}\n\ndata: {\"id\":\"none\"}\n\n";
        let (messages, _) = parse(format!("{HEAD}\r\n{body}").as_bytes(), &[]);
        assert_eq!(messages, vec![StreamMessage::Item { seq: 7, stamp: 12 }]);
    }

    #[test]
    fn the_last_chunk_ends_the_stream_and_a_refusal_is_an_error() {
        assert!(parse(chunked(&body(), 7).as_bytes(), &[]).1.is_ended());
        let refused = StreamParser::default().push(b"HTTP/1.1 503 Busy\r\n\r\n", &mut |_| ());
        assert_eq!(refused, Err(ParseError("the response is http/1.1 503 busy".to_owned())));
        let nonsense = StreamParser {
            framing: Framing::Size { so_far: 0, extension: false },
            ..StreamParser::default()
        };
        assert!({ nonsense }.push(b"xyz", &mut |_| ()).is_err());
    }

    proptest! {
        #[test]
        fn a_stream_parses_the_same_however_it_is_split(size in 1..900usize, cuts in prop::collection::vec(0..10_000usize, 0..40)) {
            let text = chunked(&body(), size);
            prop_assert_eq!(parse(text.as_bytes(), &cuts).0, expected());
            let raw = format!("{HEAD}\r\n{}", body());
            prop_assert_eq!(parse(raw.as_bytes(), &cuts).0, expected());
        }
    }
}
