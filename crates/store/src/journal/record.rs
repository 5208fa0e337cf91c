//! The bytes of a segment's header and of a record.

use news::{Epoch, Seq, SourceId, Timestamp};

/// The layout of the journal that this program writes.
const LAYOUT: u16 = 1;
/// Bytes of the header of a segment.
pub(crate) const SEGMENT_HEADER: usize = 64;
/// Bytes of the header of a record.
pub(crate) const RECORD_HEADER: usize = 64;

const SEGMENT_MAGIC: [u8; 16] = *b"newswire journal";
/// The first bytes of each record: a reader finds the next record by them after a damaged one.
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"\xf1NWR";
/// The length of a value that is removed.
const REMOVED: u32 = u32::MAX;
/// Bytes of an event in the table.
const TABLE_EVENT: usize = 14;

/// A change of a value in sled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) key: Vec<u8>,
    /// `None`: it is removed.
    pub(crate) value: Option<Vec<u8>>,
}

/// An event of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewRecordEvent {
    pub(crate) owner: SourceId,
    pub(crate) recorded: Timestamp,
    pub(crate) sealed: Vec<u8>,
}

/// What is in one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitRecord {
    /// Commits are numbered from 1 on, without holes.
    pub(crate) number: u64,
    /// The first event; the next one of the log if there is none.
    pub(crate) first: Seq,
    /// The oldest event that is kept.
    pub(crate) oldest: Seq,
    /// In order.
    pub(crate) events: Vec<NewRecordEvent>,
    pub(crate) operations: Vec<Operation>,
}

/// The head of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) epoch: Epoch,
    /// Segments are numbered from 1 on, without holes.
    pub(crate) number: u64,
    /// The first commit in it.
    pub(crate) commit: u64,
    /// The next event when it was made: the first one in it.
    pub(crate) first: Seq,
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// Bytes after the header.
    pub(crate) length: u32,
    pub(crate) commit: u64,
    pub(crate) first: Seq,
    pub(crate) oldest: Seq,
    pub(crate) events: u32,
    pub(crate) operations: u32,
    /// Bytes of the table, which follows the header.
    pub(crate) table_length: u32,
    /// Bytes of the events, which follow the table; the operations are the rest.
    pub(crate) events_length: u32,
    table_checksum: u32,
    operations_checksum: u32,
}

/// An event in the table of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableEvent {
    pub(crate) length: u32,
    /// Its source, by its place among the owners.
    pub(crate) owner: u16,
    pub(crate) recorded: Timestamp,
}

/// What a record has, without the events themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordTable {
    pub(crate) owners: Vec<SourceId>,
    pub(crate) events: Vec<TableEvent>,
}

/// Why the first bytes of a file are not the header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadSegment {
    /// It is damaged, or the file is no segment.
    Header,
    /// A later version of this program wrote it.
    Layout(u16),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        let epoch = self.epoch.as_str().as_bytes();
        bytes[..16].copy_from_slice(&SEGMENT_MAGIC);
        bytes[16..18].copy_from_slice(&LAYOUT.to_le_bytes());
        bytes[20..20 + epoch.len()].copy_from_slice(epoch);
        bytes[36..44].copy_from_slice(&self.number.to_le_bytes());
        bytes[44..52].copy_from_slice(&self.commit.to_le_bytes());
        bytes[52..60].copy_from_slice(&self.first.0.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadSegment> {
        let bytes = bytes.get(..SEGMENT_HEADER).ok_or(BadSegment::Header)?;
        if bytes[..16] != SEGMENT_MAGIC || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err(BadSegment::Header);
        }
        let layout = u16::from_le_bytes([bytes[16], bytes[17]]);
        if layout != LAYOUT {
            return Err(BadSegment::Layout(layout));
        }
        let epoch = bytes[20..36].split(|byte| *byte == 0).next().unwrap_or_default();
        let epoch = std::str::from_utf8(epoch).map_err(|_| BadSegment::Header)?;
        Ok(Self {
            epoch: Epoch::try_new(epoch).map_err(|_| BadSegment::Header)?,
            number: u64_at(bytes, 36),
            commit: u64_at(bytes, 44),
            first: Seq(u64_at(bytes, 52)),
        })
    }
}

impl RecordHeader {
    fn encode(self) -> [u8; RECORD_HEADER] {
        let mut bytes = [0; RECORD_HEADER];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.commit.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.oldest.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.events.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.operations.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.table_length.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.events_length.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.table_checksum.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.operations_checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` if these are not the first bytes of a record.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        if bytes[..4] != RECORD_MAGIC || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return None;
        }
        let header = Self {
            length: u32_at(bytes, 4),
            commit: u64_at(bytes, 8),
            first: Seq(u64_at(bytes, 16)),
            oldest: Seq(u64_at(bytes, 24)),
            events: u32_at(bytes, 32),
            operations: u32_at(bytes, 36),
            table_length: u32_at(bytes, 40),
            events_length: u32_at(bytes, 44),
            table_checksum: u32_at(bytes, 48),
            operations_checksum: u32_at(bytes, 52),
        };
        let inside = u64::from(header.table_length) + u64::from(header.events_length);
        (inside <= u64::from(header.length)).then_some(header)
    }

    /// Bytes of the record with its header.
    pub(crate) fn whole_length(self) -> u64 {
        RECORD_HEADER as u64 + u64::from(self.length)
    }

    /// Where the events begin, from the start of the record.
    pub(crate) fn events_at(self) -> u64 {
        RECORD_HEADER as u64 + u64::from(self.table_length)
    }

    /// Where the operations begin, from the start of the record.
    pub(crate) fn operations_at(self) -> u64 {
        self.events_at() + u64::from(self.events_length)
    }

    /// Bytes of the operations.
    pub(crate) fn operations_length(self) -> u64 {
        self.whole_length() - self.operations_at()
    }

    /// The table, from its bytes; `None` if they are not what was written.
    pub(crate) fn table(self, bytes: &[u8]) -> Option<RecordTable> {
        if crc32c::crc32c(bytes) != self.table_checksum {
            return None;
        }
        let from = &mut &*bytes;
        let count = u16_at(take(from, 2)?);
        let mut owners = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let length = take(from, 1)?[0];
            let id = std::str::from_utf8(take(from, usize::from(length))?).ok()?;
            owners.push(SourceId::try_new(id).ok()?);
        }
        let (events, []) = from.as_chunks::<TABLE_EVENT>() else { return None };
        let events: Vec<_> = events.iter().map(TableEvent::decode).collect();
        let sum: u64 = events.iter().map(|event| u64::from(event.length)).sum();
        let fits = events.len() == self.events as usize
            && sum == u64::from(self.events_length)
            && events.iter().all(|event| usize::from(event.owner) < owners.len());
        fits.then_some(RecordTable { owners, events })
    }

    /// The operations, from their bytes; `None` if they are not what was written.
    pub(crate) fn operations(self, bytes: &[u8]) -> Option<Vec<Operation>> {
        if crc32c::crc32c(bytes) != self.operations_checksum {
            return None;
        }
        let from = &mut &*bytes;
        let mut operations = Vec::new();
        for _ in 0..self.operations {
            let length = u16_at(take(from, 2)?);
            let key = take(from, usize::from(length))?.to_vec();
            let length = u32_at(take(from, 4)?, 0);
            let value = if length == REMOVED { None } else { Some(take(from, length as usize)?.to_vec()) };
            operations.push(Operation { key, value });
        }
        from.is_empty().then_some(operations)
    }

    /// The event after the last one of the record.
    pub(crate) fn next_event(self) -> Seq {
        Seq(self.first.0.saturating_add(u64::from(self.events)))
    }
}

impl TableEvent {
    fn encode(self) -> [u8; TABLE_EVENT] {
        let mut bytes = [0; TABLE_EVENT];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.owner.to_le_bytes());
        bytes[6..].copy_from_slice(&self.recorded.millis().to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; TABLE_EVENT]) -> Self {
        Self {
            length: u32_at(bytes, 0),
            owner: u16_at(&bytes[4..]),
            recorded: Timestamp::from_millis(u64_at(bytes, 6).cast_signed()),
        }
    }
}

impl CommitRecord {
    /// The header of the record, its table and all of its bytes; `None` if it has 4 GiB or more.
    pub(crate) fn encode(&self) -> Option<(RecordHeader, RecordTable, Vec<u8>)> {
        let table = self.table()?;
        let mut bytes = Vec::with_capacity(self.capacity(&table));
        bytes.resize(RECORD_HEADER, 0);
        table.encode(&mut bytes)?;
        let events_at = bytes.len();
        for event in &self.events {
            bytes.extend_from_slice(&event.sealed);
        }
        let operations_at = bytes.len();
        for Operation { key, value } in &self.operations {
            bytes.extend_from_slice(&u16::try_from(key.len()).ok()?.to_le_bytes());
            bytes.extend_from_slice(key);
            let length = match value {
                Some(value) => u32::try_from(value.len()).ok().filter(|length| *length != REMOVED)?,
                None => REMOVED,
            };
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        let header = RecordHeader {
            length: u32::try_from(bytes.len() - RECORD_HEADER).ok()?,
            commit: self.number,
            first: self.first,
            oldest: self.oldest,
            events: u32::try_from(self.events.len()).ok()?,
            operations: u32::try_from(self.operations.len()).ok()?,
            table_length: u32::try_from(events_at - RECORD_HEADER).ok()?,
            events_length: u32::try_from(operations_at - events_at).ok()?,
            table_checksum: crc32c::crc32c(&bytes[RECORD_HEADER..events_at]),
            operations_checksum: crc32c::crc32c(&bytes[operations_at..]),
        };
        bytes[..RECORD_HEADER].copy_from_slice(&header.encode());
        Some((header, table, bytes))
    }

    /// Bytes of the whole record: a buffer that grows would copy its events several times.
    fn capacity(&self, table: &RecordTable) -> usize {
        let owners: usize = table.owners.iter().map(|owner| 1 + owner.as_str().len()).sum();
        let events: usize = self.events.iter().map(|event| TABLE_EVENT + event.sealed.len()).sum();
        let operations = self.operations.iter();
        let operations: usize =
            operations.map(|of| 6 + of.key.len() + of.value.as_ref().map_or(0, Vec::len)).sum();
        RECORD_HEADER + 2 + owners + events + operations
    }

    fn table(&self) -> Option<RecordTable> {
        let mut table = RecordTable::default();
        for event in &self.events {
            // The events of a visit are in a row.
            if table.owners.last() != Some(&event.owner) {
                table.owners.push(event.owner.clone());
            }
            table.events.push(TableEvent {
                length: u32::try_from(event.sealed.len()).ok()?,
                owner: u16::try_from(table.owners.len() - 1).ok()?,
                recorded: event.recorded,
            });
        }
        Some(table)
    }
}

impl RecordTable {
    fn encode(&self, bytes: &mut Vec<u8>) -> Option<()> {
        bytes.extend_from_slice(&u16::try_from(self.owners.len()).ok()?.to_le_bytes());
        for owner in &self.owners {
            bytes.push(u8::try_from(owner.as_str().len()).ok()?);
            bytes.extend_from_slice(owner.as_str().as_bytes());
        }
        bytes.extend(self.events.iter().flat_map(|event| event.encode()));
        Some(())
    }
}

fn take<'a>(from: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(count)?;
    *from = rest;
    Some(taken)
}

/// From bytes of which there are enough.
fn u16_at(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
