//! Removes the content codings of a body (RFC 9110, section 8.4), piece by piece. Besides a few kilobytes of the body it has
//! the windows of the decoders in memory, and says how much that is ([`ContentDecoder::bytes`]).
//!
//! ```text
//!   body ─► stage (the coding that was applied last) ─► … ─► stage (the one applied first) ─► document
//! ```

mod brotli;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use brotli::CountedBrotli;
use bytes::{Buf as _, BytesMut};
use compression_codecs::{
    DecodeV2, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
    core::util::{PartialBuffer, WriteBuffer},
    zstd::params::DParameter,
};
use encoding_rs::Encoding;
use news::{Escaped, FailureClass};

use crate::Failure;

/// Bytes that pass from one stage to the next at a time.
const PIECE_BYTES: usize = 16 * 1024;
/// How much longer a coded body may be than the longest document: what codings add to data that cannot be compressed.
const OVERHEAD_BYTES: usize = 64 * 1024;
/// Largest window of zstd, as a power of two: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Longest block of zstd (RFC 8878, section 3.1.1.2).
const ZSTD_BLOCK_BYTES_MAX: usize = 128 * 1024;
/// What a decoder has besides its window: its state, and the buffers around it.
const STATE_BYTES: usize = 32 * 1024;
/// The same of zstd, with its tables and literals.
const ZSTD_STATE_BYTES: usize = 96 * 1024;
/// The window of deflate (RFC 1951, section 2).
const DEFLATE_WINDOW_BYTES: usize = 32 * 1024;
/// The first bytes of a member of a gzip file; no feed begins with them.
pub(crate) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentCoding {
    Gzip,
    /// Gzip if the body begins like it, otherwise none.
    GzipFile,
    Deflate,
    Brotli,
    Zstd,
}

impl ContentCoding {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip | Self::GzipFile => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// Why the codings of a body cannot be removed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnusableCodings {
    /// One that is not known, in lower case.
    #[error("the content coding {} is not supported", Escaped(.0))]
    Unknown(String),
    /// The same one twice: no server does that on purpose, and compressed bombs do.
    #[error("the content coding {0} is repeated")]
    Repeated(&'static str),
}

/// The codings of a list such as `deflate, gzip`, in the order in which they were applied. Names are compared without case,
/// with their old forms (RFC 9110, section 8.4.1).
///
/// # Errors
/// [`UnusableCodings`].
pub(crate) fn codings(list: &str) -> Result<Vec<ContentCoding>, UnusableCodings> {
    let mut found = Vec::new();
    for name in list.split(',').map(str::trim).filter(|name| !is_plain(name)) {
        let name = name.to_ascii_lowercase();
        let coding = match name.as_str() {
            "gzip" | "x-gzip" => ContentCoding::Gzip,
            "deflate" | "x-deflate" => ContentCoding::Deflate,
            "br" => ContentCoding::Brotli,
            "zstd" => ContentCoding::Zstd,
            _ => return Err(UnusableCodings::Unknown(name)),
        };
        if found.contains(&coding) {
            return Err(UnusableCodings::Repeated(coding.name()));
        }
        found.push(coding);
    }
    Ok(found)
}

/// Whether a name stands for no coding. Besides `identity` servers send `none`, charsets such as `UTF-8`, and the transfer
/// encodings of mail.
fn is_plain(name: &str) -> bool {
    let plain = ["", "identity", "none", "7bit", "8bit", "binary"];
    plain.iter().any(|plain| name.eq_ignore_ascii_case(plain))
        || Encoding::for_label(name.as_bytes()).is_some()
}

/// Why a body cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
enum DecodeError {
    /// It ends in the middle.
    Cut(ContentCoding),
    /// It is not what its coding says, or was damaged.
    Corrupt { coding: ContentCoding, looks_plain: bool, why: String },
    /// Before decoding, or between two codings.
    TooLarge { max: usize },
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Cut(coding) => {
                let message = format!("the body ended too early: its {} data is incomplete", coding.name());
                Self::new(FailureClass::Truncated, message)
            }
            DecodeError::Corrupt { coding, looks_plain: true, .. } => {
                let message = format!(
                    "the server says that the body is compressed ({}), but it is plain text; its Content-Encoding is wrong",
                    coding.name()
                );
                Self::new(FailureClass::BadEncoding, message)
            }
            DecodeError::Corrupt { coding, why, .. } => {
                let name = coding.name();
                let message = format!("the body does not match its content coding {name}: {}", Escaped(&why));
                Self::new(FailureClass::BadEncoding, message)
            }
            DecodeError::TooLarge { max } => {
                let message = format!("the compressed body is larger than the limit of {max} bytes");
                Self::new(FailureClass::TooLarge, message)
            }
        }
    }
}

/// Removes the codings of one body.
pub(crate) struct ContentDecoder {
    /// In the order of decoding. Never empty.
    stages: Vec<Stage>,
}

/// The longest coded body for a document of at most `max` bytes.
pub(crate) fn coded_bytes_max(max: usize) -> usize {
    max.saturating_add(max / 256).saturating_add(OVERHEAD_BYTES)
}

impl ContentDecoder {
    /// A decoder for a document of at most `max` bytes; `None` if there are no codings.
    pub(crate) fn new(codings: &[ContentCoding], max: usize) -> Option<Self> {
        let max = coded_bytes_max(max);
        let stages: Vec<_> = codings.iter().rev().map(|coding| Stage::new(*coding, max)).collect();
        if stages.is_empty() { None } else { Some(Self { stages }) }
    }

    /// Takes the next bytes of the body. All of the document so far must have been read.
    ///
    /// # Errors
    /// `too-large`.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.stages[0].push(bytes)?)
    }

    /// The body is complete.
    pub(crate) fn end(&mut self) {
        self.stages[0].is_complete = true;
    }

    /// Bytes of memory that it has: the windows, as far as they are filled, and what the decoders have besides.
    pub(crate) fn bytes(&self) -> usize {
        self.stages.iter().map(Stage::bytes).sum()
    }

    /// Reads the next bytes of the document. 0: the decoder needs more of the body, or the document is complete.
    ///
    /// # Errors
    /// `bad-encoding`, `truncated`, `too-large`.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<usize, Failure> {
        match pull(&mut self.stages, out)? {
            Step::Made(bytes) => Ok(bytes),
            Step::Starved | Step::Ended => Ok(0),
        }
    }
}

/// What one step of a stage has done.
enum Step {
    /// Decoded bytes, at least one.
    Made(usize),
    /// It needs more input.
    Starved,
    /// Everything is decoded.
    Ended,
}

/// Reads from the last of the stages.
fn pull(stages: &mut [Stage], out: &mut [u8]) -> Result<Step, DecodeError> {
    let Some((stage, before)) = stages.split_last_mut() else { return Ok(Step::Starved) };
    loop {
        match stage.step(out)? {
            Step::Starved if !before.is_empty() => {}
            other => return Ok(other),
        }
        let mut piece = [0; PIECE_BYTES];
        match pull(before, &mut piece)? {
            Step::Made(bytes) => stage.push(&piece[..bytes])?,
            Step::Starved => return Ok(Step::Starved),
            Step::Ended => stage.is_complete = true,
        }
    }
}

/// Where a stage is in its input.
enum Position {
    /// Before the first bytes, which say what kind of deflate it is.
    Start,
    /// There is no coding.
    Plain,
    /// In a member of gzip, a frame of zstd, or the only one of other codings.
    Member(Box<dyn DecodeV2 + Send>),
    /// After it.
    Between(Box<dyn DecodeV2 + Send>),
    /// The rest is not part of the document. Some servers send a few zeros or a line end, and browsers ignore that.
    End,
}

/// Removes one coding.
struct Stage {
    coding: ContentCoding,
    position: Position,
    input: BytesMut,
    /// No more input follows.
    is_complete: bool,
    /// The decoder may have more output without more input.
    has_more: bool,
    /// The input begins like a text.
    looks_plain: bool,
    /// Bytes of input so far, and their maximum.
    received: usize,
    max: usize,
    /// Bytes of output so far.
    made: usize,
    /// What the decoder has allocated, if it counts that.
    allocated: Arc<AtomicUsize>,
}

impl Stage {
    fn new(coding: ContentCoding, max: usize) -> Self {
        Self {
            coding,
            position: Position::Start,
            input: BytesMut::new(),
            is_complete: false,
            has_more: false,
            looks_plain: false,
            received: 0,
            max,
            made: 0,
            allocated: Arc::default(),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        if self.received == 0 {
            self.looks_plain = looks_plain(bytes);
        }
        self.received = self.received.saturating_add(bytes.len());
        if self.received > self.max {
            return Err(DecodeError::TooLarge { max: self.max });
        }
        self.input.extend_from_slice(bytes);
        Ok(())
    }

    /// Bytes of memory that it has.
    fn bytes(&self) -> usize {
        let decoder = match (&self.position, self.coding) {
            (Position::Start | Position::Plain | Position::End, _) => 0,
            (_, ContentCoding::Gzip | ContentCoding::GzipFile | ContentCoding::Deflate) => {
                STATE_BYTES + DEFLATE_WINDOW_BYTES
            }
            (_, ContentCoding::Brotli) => STATE_BYTES + self.allocated.load(Ordering::Relaxed),
            (_, ContentCoding::Zstd) => {
                // The memory of a window that is not filled yet is not in use.
                let window = (1 << ZSTD_WINDOW_LOG_MAX) + 2 * ZSTD_BLOCK_BYTES_MAX;
                ZSTD_STATE_BYTES + self.received.min(ZSTD_BLOCK_BYTES_MAX) + self.made.min(window)
            }
        };
        decoder + self.input.capacity()
    }

    fn step(&mut self, out: &mut [u8]) -> Result<Step, DecodeError> {
        loop {
            // An error leaves the stage at its end.
            match std::mem::replace(&mut self.position, Position::End) {
                Position::Start if self.input.len() < 2 && !self.is_complete => {
                    self.position = Position::Start;
                    return Ok(Step::Starved);
                }
                // Without a body there is nothing to decode.
                Position::Start if self.input.is_empty() => {}
                Position::Start if self.is_plain() => self.position = Position::Plain,
                Position::Start => self.position = Position::Member(self.decoder()),
                Position::Plain if self.input.is_empty() => {
                    self.position = Position::Plain;
                    return Ok(if self.is_complete { Step::Ended } else { Step::Starved });
                }
                Position::Plain => {
                    self.position = Position::Plain;
                    let made = self.input.len().min(out.len());
                    self.input.copy_to_slice(&mut out[..made]);
                    return Ok(Step::Made(made));
                }
                Position::Member(decoder) => {
                    if let Some(step) = self.decode(decoder, out)? {
                        return Ok(step);
                    }
                }
                Position::Between(mut decoder) => match self.has_next_member() {
                    None => {
                        self.position = Position::Between(decoder);
                        return Ok(Step::Starved);
                    }
                    Some(false) => {}
                    Some(true) => {
                        decoder.reinit().map_err(|e| self.corrupt(&e))?;
                        self.position = Position::Member(decoder);
                    }
                },
                Position::End => {
                    self.input.clear();
                    return Ok(if self.is_complete { Step::Ended } else { Step::Starved });
                }
            }
        }
    }

    fn is_plain(&self) -> bool {
        self.coding == ContentCoding::GzipFile && !self.input.starts_with(&GZIP_MAGIC)
    }

    /// The decoder for input that begins with these bytes.
    fn decoder(&self) -> Box<dyn DecodeV2 + Send> {
        match self.coding {
            ContentCoding::Gzip | ContentCoding::GzipFile => Box::new(GzipDecoder::new()),
            ContentCoding::Deflate if has_zlib_head(&self.input) => Box::new(ZlibDecoder::new()),
            ContentCoding::Deflate => Box::new(DeflateDecoder::new()),
            ContentCoding::Brotli => Box::new(CountedBrotli::new(&self.allocated)),
            ContentCoding::Zstd => {
                Box::new(ZstdDecoder::new_with_params(&[DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)]))
            }
        }
    }

    /// Decodes within a member. `None`: the position has changed.
    fn decode(
        &mut self,
        mut decoder: Box<dyn DecodeV2 + Send>,
        out: &mut [u8],
    ) -> Result<Option<Step>, DecodeError> {
        let mut output = WriteBuffer::new_initialized(out);
        let mut input = PartialBuffer::new(&self.input[..]);
        let has_input = !self.input.is_empty();
        let is_done = if has_input {
            decoder.decode(&mut input, &mut output).map_err(|e| self.corrupt(&e))?
        } else if self.has_more {
            // Decoders report a lack of input as an error; a real one is reported again with the next input.
            decoder.decode(&mut input, &mut output).unwrap_or(false)
        } else if self.is_complete {
            // Without input any error means that some is missing.
            let is_done = decoder.finish(&mut output).map_err(|_| DecodeError::Cut(self.coding))?;
            if !is_done && output.written_len() == 0 {
                return Err(DecodeError::Cut(self.coding));
            }
            is_done
        } else {
            self.position = Position::Member(decoder);
            return Ok(Some(Step::Starved));
        };
        let (used, made) = (input.written_len(), output.written_len());
        self.has_more = output.has_no_spare_space() && !is_done;
        if has_input && used == 0 && made == 0 && !is_done {
            return Err(self.corrupt(&"the decoder makes no progress"));
        }
        self.input.advance(used);
        self.made = self.made.saturating_add(made);
        self.position = if is_done { Position::Between(decoder) } else { Position::Member(decoder) };
        Ok((made > 0).then_some(Step::Made(made)))
    }

    /// Whether another member follows; `None` if that is not known yet.
    fn has_next_member(&self) -> Option<bool> {
        let needed = match self.coding {
            ContentCoding::Gzip | ContentCoding::GzipFile => GZIP_MAGIC.len(),
            ContentCoding::Zstd => 4,
            ContentCoding::Deflate | ContentCoding::Brotli => return Some(false),
        };
        if self.input.len() < needed {
            return self.is_complete.then_some(false);
        }
        Some(match self.coding {
            ContentCoding::Zstd => is_zstd_frame(&self.input),
            _ => self.input.starts_with(&GZIP_MAGIC),
        })
    }

    fn corrupt(&self, why: &dyn ToString) -> DecodeError {
        DecodeError::Corrupt { coding: self.coding, looks_plain: self.looks_plain, why: why.to_string() }
    }
}

/// Whether the first bytes are those of a text in ASCII, or begin with the mark of UTF-8.
fn looks_plain(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xef\xbb\xbf")
        || bytes.iter().take(16).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
}

/// Whether deflated data begins with the header of zlib (RFC 1950, section 2.2), as RFC 9110 says it should, or without, as
/// some servers send it. No encoder begins a raw stream with such bytes.
fn has_zlib_head(input: &[u8]) -> bool {
    let [method, flags, ..] = input else { return false };
    method & 0x0f == 8 && method >> 4 <= 7 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
}

/// Whether a frame of zstd begins here, or one to skip (RFC 8878, section 3.1).
fn is_zstd_frame(input: &[u8]) -> bool {
    input.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || matches!(input, [skippable, 0x2a, 0x4d, 0x18, ..] if skippable >> 4 == 5)
}

#[cfg(test)]
mod tests;
