//! Reads a file of a black box, whatever state its process left it in.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, de::DeserializeOwned};

use super::layout::{
    BLOCK_BYTES, PULSES_AT, RECORD_BYTES_MAX, RECORD_HEAD_BYTES, RECORD_MAGIC, RING_AT, SLOT_BYTES,
    SLOT_HEAD_BYTES, SLOT_MAGIC, checksum,
};
use super::{BlackBoxEvent, BlackBoxHeader, BlackBoxPulse, BlackBoxRecord, FORMAT};

/// The largest file that is read, bytes.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct BlackBoxContents {
    /// Whose file it is.
    pub header: BlackBoxHeader,
    /// The last sign of life; `None` before the first one.
    pub pulse: Option<BlackBoxPulse>,
    /// The records that are whole, the oldest first.
    pub records: Vec<BlackBoxRecord>,
    /// Records that are not.
    pub damaged: u64,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BlackBoxError {
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
    /// It is another kind of file, or both copies of its header are damaged.
    #[error("{} is not the file of a black box, or its header is damaged", path.display())]
    Header {
        /// The file.
        path: PathBuf,
    },
    /// A process of another version wrote it.
    #[error("{} has format {format}, and this program reads format {FORMAT}; use the newswire of version {version}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The version of the process that wrote it.
        version: String,
    },
}

/// The part of a header that every format has.
#[derive(Deserialize)]
struct FormatOfFile {
    format: u32,
    version: String,
}

impl BlackBoxContents {
    /// Reads a file. Blocks; at most [`FILE_BYTES_MAX`] are read.
    ///
    /// # Errors
    /// See [`BlackBoxError`]. A damaged record is not an error, and is counted.
    pub fn read(path: &Path) -> Result<Self, BlackBoxError> {
        let failed = |source| BlackBoxError::Io { path: path.to_owned(), source };
        if !std::fs::symlink_metadata(path).map_err(failed)?.is_file() {
            return Err(BlackBoxError::Header { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let unreadable = || BlackBoxError::Header { path: path.to_owned() };
        let copies = [bytes.get(..SLOT_BYTES), bytes.get(SLOT_BYTES..2 * SLOT_BYTES)];
        let mut copies = copies.into_iter().flatten();
        let FormatOfFile { format, version } = copies.clone().find_map(slot).ok_or_else(unreadable)?;
        if format != FORMAT {
            return Err(BlackBoxError::Format { path: path.to_owned(), format, version });
        }
        let header = copies.find_map(slot::<BlackBoxHeader>).ok_or_else(unreadable)?;
        Ok(Self::parse(header, &bytes))
    }

    fn parse(header: BlackBoxHeader, bytes: &[u8]) -> Self {
        let pulse_at = |at: usize| bytes.get(at..at + SLOT_BYTES).and_then(slot::<BlackBoxPulse>);
        let pulses = [pulse_at(PULSES_AT), pulse_at(PULSES_AT + SLOT_BYTES)];
        let pulse = pulses.into_iter().flatten().max_by_key(|pulse| pulse.boot_ms);
        let begin = usize::try_from(RING_AT).unwrap_or(usize::MAX).min(bytes.len());
        let ring = &bytes[begin..];
        let ring = &ring[..ring.len().min(usize::try_from(header.ring_bytes).unwrap_or(usize::MAX))];
        let (mut records, mut damaged, mut at) = (Vec::new(), 0, 0);
        while at + RECORD_HEAD_BYTES <= ring.len() {
            let mut length = BLOCK_BYTES;
            if ring[at..].starts_with(&RECORD_MAGIC) {
                match record(header.run, &ring[at..]) {
                    Some((found, bytes)) => {
                        length = bytes;
                        records.push(found);
                    }
                    None => damaged += 1,
                }
            }
            at += length;
        }
        records.sort_by_key(|record: &BlackBoxRecord| record.seq);
        Self { header, pulse, records, damaged }
    }

    /// The last moment at which the process is known to have lived, by `CLOCK_BOOTTIME` and the wall clock, milliseconds.
    #[must_use]
    pub fn last_sign(&self) -> (u64, i64) {
        let header = (self.header.started_boot_ms, self.header.started_wall_ms);
        let records = self.records.iter().map(|record| (record.boot_ms, record.wall_ms));
        let pulse = self.pulse.map(|pulse| (pulse.boot_ms, pulse.wall_ms));
        records.chain(pulse).fold(header, std::cmp::max)
    }
}

/// The record at the beginning of `bytes`, and how many of them it takes; `None` if it is not whole.
fn record(run: u64, bytes: &[u8]) -> Option<(BlackBoxRecord, usize)> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(short(28)?).ok().filter(|length| *length <= RECORD_BYTES_MAX)?;
    let end = RECORD_HEAD_BYTES + length;
    let payload = bytes.get(RECORD_HEAD_BYTES..end)?;
    if checksum(run, &bytes[RECORD_MAGIC.len()..32], payload) != short(32)? {
        return None;
    }
    // An event of another version may have other fields under the same name.
    let event = serde_json::from_slice(payload).unwrap_or(BlackBoxEvent::Unknown);
    let (seq, wall_ms, boot_ms) = (number(4)?, number(12)?.cast_signed(), number(20)?);
    Some((BlackBoxRecord { seq, wall_ms, boot_ms, event }, end.next_multiple_of(BLOCK_BYTES)))
}

/// The content of a header or a pulse.
fn slot<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let short = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(short(4)?).ok()?;
    let payload = bytes.get(SLOT_HEAD_BYTES..)?.get(..length)?;
    let is_whole = bytes.starts_with(&SLOT_MAGIC) && crc32fast::hash(payload) == short(8)?;
    is_whole.then(|| serde_json::from_slice(payload).ok()).flatten()
}
