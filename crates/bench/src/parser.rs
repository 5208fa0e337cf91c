//! An event stream as it comes off a socket, in whatever pieces: HTTP head, chunks, lines, blocks.
//!
//! Cheap, because one thread reads ten thousand of these; and exact: an event counts when its block is complete
//! (WHATWG HTML §9.2.6), so one that was cut off in the middle never counts.

use std::ops::ControlFlow;

use memchr::{memchr, memmem};

use crate::payload::{ITEM_MARK, STAMP_MARK};

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What a stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// An item that we published: its number, and its stamp in microseconds.
    Item { seq: u64, stamp: u64 },
    /// The last event id is now this one.
    Place(u64),
    /// How long to wait after a loss, in milliseconds.
    Retry(u64),
    /// The gateway's verdict on the id that we came with.
    Hello { lossless: bool },
    /// The log no longer has what we asked for.
    Gap,
}

/// Why a stream is no stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) String);

/// One stream, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    framing: Framing,
    /// The part of the head or of a line that has come.
    partial: Vec<u8>,
    item: Option<(u64, u64)>,
    place: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    #[default]
    Head,
    /// The body is what follows.
    Raw,
    /// In a line that says how long the next chunk is.
    Size {
        so_far: usize,
        extension: bool,
    },
    Chunk {
        left: usize,
    },
    /// Of the line end after a chunk so many bytes are missing.
    ChunkEnd {
        left: u8,
    },
    Ended,
}

impl Parser {
    /// Whether the answer has come to its own end.
    pub(crate) fn is_ended(&self) -> bool {
        self.framing == Framing::Ended
    }

    /// Takes what has come, in pieces of any size.
    pub(crate) fn take(&mut self, mut bytes: &[u8], say: &mut impl FnMut(Said)) -> Result<(), Broken> {
        while !bytes.is_empty() {
            let used = match self.framing {
                Framing::Head => self.head(bytes)?,
                Framing::Raw => {
                    self.lines(bytes, say);
                    bytes.len()
                }
                Framing::Size { so_far, extension } => self.size(bytes[0], so_far, extension)?,
                Framing::Chunk { left } => {
                    let here = left.min(bytes.len());
                    self.lines(&bytes[..here], say);
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

    fn head(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes);
        let Some(end) = memmem::find(&self.partial, b"\r\n\r\n") else {
            if self.partial.len() > HEAD_BYTES_MAX {
                return Err(Broken("the head of the answer has no end".to_owned()));
            }
            return Ok(bytes.len());
        };
        let head = String::from_utf8_lossy(&self.partial[..end]).to_ascii_lowercase();
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            return Err(Broken(format!("the answer is {status}")));
        }
        let chunked = head.lines().any(|l| l.starts_with("transfer-encoding:") && l.ends_with("chunked"));
        self.framing = if chunked { Framing::Size { so_far: 0, extension: false } } else { Framing::Raw };
        self.partial.clear();
        Ok(end + 4 - before)
    }

    fn size(&mut self, byte: u8, so_far: usize, extension: bool) -> Result<usize, Broken> {
        self.framing = match (byte, char::from(byte).to_digit(16)) {
            (b'\n', _) if so_far == 0 => Framing::Ended,
            (b'\n', _) => Framing::Chunk { left: so_far },
            (b'\r', _) => Framing::Size { so_far, extension },
            (b';', _) => Framing::Size { so_far, extension: true },
            _ if extension => Framing::Size { so_far, extension },
            (_, Some(digit)) if so_far <= usize::MAX >> 8 => {
                Framing::Size { so_far: so_far * 16 + digit as usize, extension }
            }
            _ => return Err(Broken("a chunk has no length".to_owned())),
        };
        Ok(1)
    }

    fn lines(&mut self, mut bytes: &[u8], say: &mut impl FnMut(Said)) {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.partial.is_empty() {
                self.line(&bytes[..end], say);
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(&bytes[..end]);
                self.line(&line, say);
                line.clear();
                self.partial = line;
            }
            bytes = &bytes[end + 1..];
        }
        self.partial.extend_from_slice(bytes);
    }

    fn line(&mut self, line: &[u8], say: &mut impl FnMut(Said)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if let Some((seq, stamp)) = self.item.take() {
                say(Said::Item { seq, stamp });
            }
            if let Some(place) = self.place.take() {
                say(Said::Place(place));
            }
        } else if let ControlFlow::Continue(()) = self.data(line, say) {
            if let Some(id) = field(line, b"id:") {
                self.place = memchr(b'-', id).map(|dash| number(&id[dash + 1..]));
            } else if let Some(retry) = field(line, b"retry:") {
                say(Said::Retry(number(retry)));
            } else if field(line, b"event:") == Some(b"gap") {
                say(Said::Gap);
            }
        }
    }

    fn data(&mut self, line: &[u8], say: &mut impl FnMut(Said)) -> ControlFlow<()> {
        let Some(data) = field(line, b"data:") else { return ControlFlow::Continue(()) };
        if let Some(rest) = data.strip_prefix(ITEM_MARK) {
            let stamp = memmem::find(rest, STAMP_MARK).map_or(0, |at| number(&rest[at + STAMP_MARK.len()..]));
            self.item = Some((number(rest), stamp));
        } else if let Some(rest) = data.strip_prefix(b"{\"resume\":\"") {
            let lossless = rest.starts_with(b"exact") || rest.starts_with(b"live");
            say(Said::Hello { lossless });
        }
        ControlFlow::Break(())
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// The digits that something begins with.
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

    fn expected() -> Vec<Said> {
        vec![
            Said::Retry(1500),
            Said::Hello { lossless: true },
            Said::Place(40),
            Said::Item { seq: 41, stamp: 7 },
            Said::Place(41),
            Said::Place(41),
            Said::Item { seq: 42, stamp: 8 },
            Said::Place(42),
            Said::Gap,
        ]
    }

    fn parse(text: &[u8], cuts: &[usize]) -> (Vec<Said>, Parser) {
        let (mut parser, mut said, mut from) = (Parser::default(), Vec::new(), 0);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % text.len()).chain([text.len()]).collect();
        cuts.sort_unstable();
        for cut in cuts {
            parser.take(&text[from..cut], &mut |s| said.push(s)).unwrap();
            from = cut;
        }
        (said, parser)
    }

    fn chunked(body: &str, size: usize) -> String {
        let chunks = body.as_bytes().chunks(size);
        let chunks = chunks.map(|c| format!("{:X};x=1\r\n{}\r\n", c.len(), String::from_utf8_lossy(c)));
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.collect::<String>())
    }

    #[test]
    fn a_truncated_block_yields_no_message() {
        let (said, parser) = parse(format!("{HEAD}\r\n{}", body()).as_bytes(), &[]);
        assert_eq!(said, expected());
        assert!(!parser.is_ended());
    }

    #[test]
    fn the_last_chunk_ends_the_stream_and_a_refusal_is_an_error() {
        assert!(parse(chunked(&body(), 7).as_bytes(), &[]).1.is_ended());
        let refused = Parser::default().take(b"HTTP/1.1 503 Busy\r\n\r\n", &mut |_| ());
        assert_eq!(refused, Err(Broken("the answer is http/1.1 503 busy".to_owned())));
        let nonsense = Parser { framing: Framing::Size { so_far: 0, extension: false }, ..Parser::default() };
        assert!({ nonsense }.take(b"xyz", &mut |_| ()).is_err());
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
