//! Where everything is in the file, and how it is written. No I/O here.
//!
//! ```text
//! 0     header, twice: a copy that is torn costs nothing
//! 2048  pulse, twice, written in turn
//! 4096  ring of records, each at a multiple of 32 bytes, with its own checksum; the oldest are overwritten
//! ```
//!
//! A header or pulse is `magic, length, CRC-32, JSON`; a record is `magic, sequence number, both times, length, CRC-32,
//! JSON`. Numbers are little-endian. The checksum of a record covers its sequence number, its times and the number of the run,
//! so that neither a torn record nor text that looks like one is taken for a record.

use serde::Serialize;

use super::{BlackBoxEvent, BlackBoxHeader, BlackBoxPulse};

/// Bytes of each copy of the header and of each pulse.
pub(super) const SLOT_BYTES: usize = 1024;
/// Where the pulses begin.
pub(super) const PULSES_AT: usize = 2 * SLOT_BYTES;
/// Where the ring begins.
pub const RING_AT: u64 = 4 * SLOT_BYTES as u64;
/// The smallest ring, bytes.
pub const RING_BYTES_MIN: u64 = 64 * 1024 - RING_AT;
/// Records begin at multiples of this.
pub(super) const BLOCK_BYTES: usize = 32;
/// Longest JSON of a record, bytes; a longer one is left out.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;

pub(super) const SLOT_MAGIC: [u8; 4] = *b"NWbh";
pub(super) const SLOT_HEAD_BYTES: usize = 12;
pub(super) const RECORD_MAGIC: [u8; 4] = *b"NWbr";
pub(super) const RECORD_HEAD_BYTES: usize = 36;

/// Bytes, and where in the file they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlackBoxWrite {
    /// Bytes from the beginning of the file.
    pub offset: u64,
    /// What to write there.
    pub bytes: Vec<u8>,
}

/// Places records in the ring of one run.
#[derive(Clone, Debug)]
pub struct BlackBoxRing {
    run: u64,
    ring_bytes: u64,
    /// Where the next record goes, from the beginning of the ring.
    next: u64,
    seq: u64,
    pulses: u64,
}

impl BlackBoxRing {
    /// An empty ring of the run that `header` describes.
    #[must_use]
    pub fn new(header: &BlackBoxHeader) -> Self {
        Self { run: header.run, ring_bytes: header.ring_bytes, next: 0, seq: 0, pulses: 0 }
    }

    /// Both copies of a header.
    #[must_use]
    pub fn header(header: &BlackBoxHeader) -> [BlackBoxWrite; 2] {
        [0, SLOT_BYTES as u64].map(|offset| BlackBoxWrite { offset, bytes: slot(header) })
    }

    /// A sign of life, at the place of the one before the last one.
    pub fn pulse(&mut self, pulse: &BlackBoxPulse) -> BlackBoxWrite {
        let offset = PULSES_AT + if self.pulses.is_multiple_of(2) { 0 } else { SLOT_BYTES };
        self.pulses += 1;
        BlackBoxWrite { offset: offset as u64, bytes: slot(pulse) }
    }

    /// The next record. `None` if it is longer than [`RECORD_BYTES_MAX`].
    pub fn record(&mut self, wall_ms: i64, boot_ms: u64, event: &BlackBoxEvent) -> Option<BlackBoxWrite> {
        let payload = json(event);
        if payload.len() > RECORD_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(RECORD_HEAD_BYTES + payload.len() + BLOCK_BYTES);
        bytes.extend_from_slice(&RECORD_MAGIC);
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&wall_ms.to_le_bytes());
        bytes.extend_from_slice(&boot_ms.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&checksum(self.run, &bytes[RECORD_MAGIC.len()..], &payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        let length = bytes.len() as u64;
        if self.next + length > self.ring_bytes {
            self.next = 0;
        }
        let offset = RING_AT + self.next;
        self.next += length;
        self.seq += 1;
        Some(BlackBoxWrite { offset, bytes })
    }
}

/// The checksum of a record: of the run, what is between the magic and the checksum, and the JSON.
pub(super) fn checksum(run: u64, head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&run.to_le_bytes());
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

fn slot(content: &impl Serialize) -> Vec<u8> {
    let payload = json(content);
    let mut bytes = Vec::with_capacity(SLOT_BYTES);
    bytes.extend_from_slice(&SLOT_MAGIC);
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes.resize(SLOT_BYTES, 0);
    bytes
}

fn json(content: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(content).expect("these types have string keys and no other way to fail")
}
