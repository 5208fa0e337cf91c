//! What is known of a segment without reading it, and how its records are found.
//!
//! ```text
//! 00000007.index   magic 16 | layout 2 | zeros 6 | bytes of the segment 8 | first event 8 | next event 8 | first commit 8
//!                  | next commit 8 | oldest event kept 8 | count 4 | first event 8, place 8, each
//!                  | count 4 | hash of the source 8, events 8, bytes 8, each | CRC-32C of all 4
//! ```
//!
//! An index is written when its segment has ended. Without one, or with a damaged one, the segment is read.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use news::{Epoch, Seq};

use crate::{
    disk_work::DiskWork,
    totals::{EventTotals, OwnerTotals, owner_hash},
};

use super::record::{RECORD_HEADER, RECORD_MAGIC, RecordHeader, RecordTable, SEGMENT_HEADER, u32_at, u64_at};

/// Bytes between the places in an index, at least.
const INDEX_EVERY: u64 = 16 * 1024;
const INDEX_MAGIC: [u8; 16] = *b"newswire segment";
const INDEX_LAYOUT: u16 = 1;

/// The segments; shared by the writer and all readers.
#[derive(Debug)]
pub(crate) struct JournalFiles {
    pub(crate) epoch: Epoch,
    pub(super) folder: PathBuf,
    /// By their numbers. Missing files leave holes in them.
    segments: RwLock<VecDeque<Segment>>,
    /// The file of the last one, and its number: what is new is read also while the process may open no further file.
    last: RwLock<Option<(u64, Arc<File>)>>,
    /// Of the journal and of sled.
    pub(crate) disk_work: DiskWork,
}

impl JournalFiles {
    pub(super) fn new(epoch: Epoch, folder: PathBuf, segments: VecDeque<Segment>) -> Self {
        Self {
            epoch,
            folder,
            segments: RwLock::new(segments),
            last: RwLock::default(),
            disk_work: DiskWork::default(),
        }
    }

    pub(super) fn set_last(&self, number: u64, file: &Arc<File>) {
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Some((number, Arc::clone(file)));
    }

    /// Opens a segment for reading.
    pub(super) fn open(&self, number: u64) -> io::Result<SegmentReader> {
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner).clone();
        let file = match last.filter(|(last, _)| *last == number) {
            Some((_, file)) => file,
            None => Arc::new(File::open(self.folder.join(segment_name(number)))?),
        };
        Ok(SegmentReader { file, at: 0, bytes: Vec::new() })
    }

    /// Held for moments only.
    pub(super) fn segments(&self) -> RwLockReadGuard<'_, VecDeque<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn segments_mut(&self) -> RwLockWriteGuard<'_, VecDeque<Segment>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.length).sum()
    }

    /// The oldest event that is kept, as far as the last commits say it.
    pub(crate) fn noted_oldest(&self) -> Seq {
        noted_oldest(&self.segments()).unwrap_or(Seq::NONE)
    }

    /// Between these events, the segments are missing.
    pub(crate) fn missing_events(&self, oldest: Seq) -> Vec<Range<Seq>> {
        let mut missing = Vec::new();
        let mut end = oldest;
        for segment in self.segments().iter() {
            if segment.first > end {
                missing.push(end..segment.first);
            }
            end = end.max(segment.next_event);
        }
        missing
    }

    /// The first event that a segment may have.
    pub(crate) fn first_event(&self) -> Seq {
        self.segments().front().map_or(Seq(1), |segment| segment.first)
    }
}

/// `None` if there are no commits.
pub(super) fn noted_oldest(segments: &VecDeque<Segment>) -> Option<Seq> {
    segments.iter().rev().map(|segment| segment.oldest).find(|oldest| oldest.0 > 0)
}

/// What is known of a segment without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// Bytes of its file up to the end of its last record.
    pub(crate) length: u64,
    pub(crate) first: Seq,
    pub(crate) next_event: Seq,
    pub(crate) first_commit: u64,
    pub(crate) next_commit: u64,
    /// The oldest event that was kept at its last commit.
    pub(crate) oldest: Seq,
    /// Records at least [`INDEX_EVERY`] apart, in order.
    places: Vec<IndexPlace>,
}

/// Where a record begins, and the first event of it or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IndexPlace {
    first: Seq,
    at: u64,
}

impl Segment {
    /// One without records.
    pub(super) fn empty(number: u64, commit: u64, first: Seq) -> Self {
        Self {
            number,
            length: SEGMENT_HEADER as u64,
            first,
            next_event: first,
            first_commit: commit,
            next_commit: commit,
            oldest: Seq(0),
            places: Vec::new(),
        }
    }

    /// Notes a record that begins here and is now the last one.
    pub(super) fn add(&mut self, at: u64, record: RecordHeader) {
        if self.places.last().is_none_or(|last| at - last.at >= INDEX_EVERY) {
            self.places.push(IndexPlace { first: record.first, at });
        }
        self.length = at + record.whole_length();
        self.next_commit = record.commit + 1;
        self.next_event = record.next_event();
        self.oldest = record.oldest;
    }

    /// A place at or before the record that has an event.
    pub(super) fn place_before(&self, seq: Seq) -> u64 {
        let behind = self.places.partition_point(|place| place.first <= seq);
        behind.checked_sub(1).map_or(SEGMENT_HEADER as u64, |last| self.places[last].at)
    }
}

/// What is found in the bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundRecord {
    /// A record that begins here; its content has not been looked at.
    Record(usize, RecordHeader),
    /// Bytes that are no record, before one that is.
    Damage,
    /// Bytes from here to the end that are no record.
    Tail(usize),
}

/// Goes through the bytes of a segment, header included.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8], at: u64) -> Self {
        Self { bytes, at: usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len()) }
    }

    fn record_at(&self, at: usize) -> Option<RecordHeader> {
        let header = RecordHeader::decode(self.bytes.get(at..)?)?;
        let whole = usize::try_from(header.whole_length()).ok()?;
        (at.checked_add(whole)? <= self.bytes.len()).then_some(header)
    }
}

impl Iterator for Records<'_> {
    type Item = FoundRecord;

    fn next(&mut self) -> Option<FoundRecord> {
        let from = self.at;
        if from >= self.bytes.len() {
            return None;
        }
        if let Some(header) = self.record_at(from) {
            self.at = from + RECORD_HEADER + header.length as usize;
            return Some(FoundRecord::Record(from, header));
        }
        let next = memchr::memmem::find_iter(&self.bytes[from + 1..], &RECORD_MAGIC)
            .map(|at| from + 1 + at)
            .find(|at| self.record_at(*at).is_some());
        self.at = next.unwrap_or(self.bytes.len());
        Some(if next.is_some() { FoundRecord::Damage } else { FoundRecord::Tail(from) })
    }
}

/// Adds the events of a record.
pub(super) fn add_totals(totals: &mut OwnerTotals, table: &RecordTable) {
    let hashes: Vec<_> = table.owners.iter().map(|owner| owner_hash(owner.as_str())).collect();
    for event in &table.events {
        let owner = totals.entry(hashes[usize::from(event.owner)]).or_default();
        *owner = owner.with(u64::from(event.length));
    }
}

/// What the file of an index has.
pub(super) fn encode_index(segment: &Segment, totals: &OwnerTotals) -> Vec<u8> {
    let mut bytes = INDEX_MAGIC.to_vec();
    bytes.extend_from_slice(&INDEX_LAYOUT.to_le_bytes());
    bytes.extend_from_slice(&[0; 6]);
    let Segment { length, first, next_event, first_commit, next_commit, oldest, .. } = segment;
    let numbers = [*length, first.0, next_event.0, *first_commit, *next_commit, oldest.0];
    bytes.extend_from_slice(numbers.map(u64::to_le_bytes).as_flattened());
    let mut list = |entries: &mut dyn ExactSizeIterator<Item = Vec<u64>>| {
        let count = u32::try_from(entries.len()).expect("a segment has no 4 thousand million records");
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend(entries.flatten().flat_map(u64::to_le_bytes));
    };
    list(&mut segment.places.iter().map(|place| vec![place.first.0, place.at]));
    let mut owners: Vec<_> = totals.iter().collect();
    owners.sort_unstable_by_key(|(owner, _)| **owner);
    list(&mut owners.iter().map(|(owner, totals)| vec![**owner, totals.events, totals.bytes]));
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The segment of this number, from the file of its index; `None` if that is not what was written.
pub(super) fn decode_index(number: u64, bytes: &[u8]) -> Option<(Segment, OwnerTotals)> {
    const NUMBERS_AT: usize = 24;
    let (bytes, checksum) = bytes.split_last_chunk()?;
    if u32::from_le_bytes(*checksum) != crc32c::crc32c(bytes) || !bytes.starts_with(&INDEX_MAGIC) {
        return None;
    }
    let (head, mut rest) = bytes.split_at_checked(NUMBERS_AT + 6 * 8)?;
    if head[16..18] != INDEX_LAYOUT.to_le_bytes() {
        return None;
    }
    let number_at = |n: usize| u64_at(head, NUMBERS_AT + 8 * n);
    let mut list = |width: usize| {
        let (count, behind) = rest.split_at_checked(4)?;
        let (entries, behind) = behind.split_at_checked(width * 8 * u32_at(count, 0) as usize)?;
        rest = behind;
        Some(entries.chunks_exact(8).map(|number| u64_at(number, 0)).collect::<Vec<_>>())
    };
    let places = list(2)?.chunks(2).map(|n| IndexPlace { first: Seq(n[0]), at: n[1] }).collect();
    let totals = list(3)?.chunks(3).map(|n| (n[0], EventTotals { events: n[1], bytes: n[2] })).collect();
    let segment = Segment {
        number,
        length: number_at(0),
        first: Seq(number_at(1)),
        next_event: Seq(number_at(2)),
        first_commit: number_at(3),
        next_commit: number_at(4),
        oldest: Seq(number_at(5)),
        places,
    };
    Some((segment, totals))
}

/// Reads a file in parts of at least so many bytes.
const WINDOW: usize = 64 * 1024;

/// Reads a segment's file from front to back.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: Arc<File>,
    at: u64,
    bytes: Vec<u8>,
}

impl SegmentReader {
    /// Bytes of the file, which has records up to `end`; `None` if it has not so many.
    pub(super) fn get(&mut self, at: u64, length: usize, end: u64) -> io::Result<Option<&[u8]>> {
        let wanted_end = at + length as u64;
        if wanted_end > end {
            return Ok(None);
        }
        if at < self.at || wanted_end > self.at + self.bytes.len() as u64 {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            self.bytes.resize(length.max(WINDOW.min(left)), 0);
            self.at = at;
            if let Err(error) = read_what_can_be(&self.file, &mut self.bytes, at) {
                self.bytes.clear();
                let is_cut = error.kind() == io::ErrorKind::UnexpectedEof;
                return if is_cut { Ok(None) } else { Err(error) };
            }
        }
        let from = usize::try_from(at - self.at).unwrap_or_default();
        Ok(Some(&self.bytes[from..from + length]))
    }

    /// The place of the first record behind damage.
    pub(super) fn place_behind(&self, at: u64, end: u64) -> io::Result<Option<u64>> {
        let bytes = read_file_up_to(&self.file, end)?;
        // Never the same place again: a sector can be read at the second attempt.
        Ok(Records::new(&bytes, at.saturating_add(1)).find_map(|found| match found {
            FoundRecord::Record(at, _) => Some(at as u64),
            FoundRecord::Damage | FoundRecord::Tail(_) => None,
        }))
    }
}

/// What a disk reads and fails to read as a whole, in bytes.
const SECTOR: usize = 4096;

/// Whether the disk cannot read a sector.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}

/// Reads bytes of a file. Sectors that the disk cannot read are zeros: their records are damaged, and all others are not.
pub(crate) fn read_what_can_be(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    match file.read_exact_at(bytes, at) {
        Err(error) if is_unreadable(&error) => {}
        read => return read,
    }
    let mut from = 0;
    while from < bytes.len() {
        let place = at + from as u64;
        let left = SECTOR - usize::try_from(place % SECTOR as u64).unwrap_or_default();
        let to = (from + left).min(bytes.len());
        match file.read_exact_at(&mut bytes[from..to], place) {
            Err(error) if is_unreadable(&error) => bytes[from..to].fill(0),
            read => read?,
        }
        from = to;
    }
    Ok(())
}

/// All bytes of a file, as far as the disk has them.
pub(crate) fn read_file(file: &File) -> io::Result<Vec<u8>> {
    read_file_up_to(file, u64::MAX)
}

/// The first bytes of a file, as far as the disk has them.
pub(super) fn read_file_up_to(file: &File, length: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().min(length);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    read_what_can_be(file, &mut bytes, 0)?;
    Ok(bytes)
}

/// The name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:08}.segment")
}

/// The name of the file of a segment's index.
pub(super) fn index_name(number: u64) -> String {
    format!("{number:08}.index")
}

/// The number in the name of a segment's file; `None` for other files.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".segment")?.parse().ok()?;
    // Not another writing of the same number, with a sign or more zeros.
    (segment_name(number) == name).then_some(number)
}
