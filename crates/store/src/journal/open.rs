//! Finds what a journal has. Changes nothing.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    ops::Range,
    path::{Path, PathBuf},
};

use news::{Epoch, Seq};

use super::{
    record::{BadSegment, Operation, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader},
    segment::{
        FoundRecord, Journal, OwnerTotals, Records, Segment, add_totals, decode_index, index_name, number_of,
        segment_name,
    },
};

/// What was found in the folder of a journal.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// `None` if no segment has a whole header.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) totals: OwnerTotals,
    pub(super) folder: PathBuf,
    pub(super) segments: VecDeque<Segment>,
    /// Segments that were read because their index is missing or damaged.
    pub(super) without_index: Vec<(u64, OwnerTotals)>,
    /// The last segment, if its header never came to the disk. It has no records.
    pub(super) unfinished: Option<u64>,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a newer version of this program wrote it (layout {0})")]
    Newer(u16),
    #[error("it has segments of different logs ({0} and {1})")]
    Mixed(Epoch, Epoch),
}

impl Scanned {
    /// `None` if it is damaged; the records tell the same.
    fn read_header(&mut self, file: &mut File) -> Result<Option<SegmentHeader>, ScanError> {
        let mut bytes = Vec::new();
        file.take(SEGMENT_HEADER as u64).read_to_end(&mut bytes)?;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => header,
            Err(BadSegment::Header) => return Ok(None),
            Err(BadSegment::Layout(layout)) => return Err(ScanError::Newer(layout)),
        };
        match &self.epoch {
            Some(epoch) if *epoch != header.epoch => {
                return Err(ScanError::Mixed(epoch.clone(), header.epoch));
            }
            _ => self.epoch = Some(header.epoch.clone()),
        }
        Ok(Some(header))
    }

    fn add(&mut self, segment: Segment, totals: &OwnerTotals) {
        for (owner, added) in totals {
            let totals = self.totals.entry(*owner).or_default();
            totals.events += added.events;
            totals.bytes += added.bytes;
        }
        self.segments.push_back(segment);
    }

    pub(crate) fn has_segments(&self) -> bool {
        !self.segments.is_empty()
    }

    /// As [`Journal::operations_in`].
    pub(crate) fn operations_in<E: From<io::Error>>(
        &self,
        commits: Range<u64>,
        apply: impl FnMut(u64, Vec<Operation>) -> Result<(), E>,
    ) -> Result<u64, E> {
        // The epoch is of no importance for reading.
        let epoch = self.epoch.clone().unwrap_or_else(|| Epoch::try_new("none").expect("it is a name"));
        Journal::new(epoch, self.folder.clone(), self.segments.clone()).operations_in(commits, apply)
    }

    /// The commit and the event after the last ones.
    pub(crate) fn next(&self) -> (u64, Seq) {
        self.segments.back().map_or((1, Seq(1)), |last| (last.next_commit, last.next_event))
    }

    /// The oldest event that was kept at the last commit, as far as it is still there.
    pub(crate) fn oldest(&self) -> Seq {
        let kept = self.segments.iter().rev().map(|segment| segment.oldest).find(|oldest| oldest.0 > 0);
        let first = self.segments.front().map_or(Seq(1), |segment| segment.first);
        kept.unwrap_or(first).max(first)
    }
}

/// Removes the segment of a journal that was begun and has no segment yet.
pub(crate) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for number in numbers(folder)? {
        fs::remove_file(folder.join(segment_name(number)))?;
    }
    Ok(())
}

/// Looks into a folder; `None` if it has no segments. Reads the last segment, and those without an index.
pub(crate) fn scan(folder: &Path) -> Result<Option<Scanned>, ScanError> {
    let numbers = numbers(folder)?;
    let Some(last) = numbers.last().copied() else { return Ok(None) };
    let mut scanned = Scanned {
        epoch: None,
        totals: OwnerTotals::new(),
        folder: folder.to_owned(),
        segments: VecDeque::new(),
        without_index: Vec::new(),
        unfinished: None,
    };
    for number in numbers {
        let mut file = File::open(folder.join(segment_name(number)))?;
        let header = scanned.read_header(&mut file)?;
        if let Some((segment, totals)) = read_index(folder, number, &file).filter(|_| number != last) {
            scanned.add(segment, &totals);
        } else if let Some((segment, totals)) = read_segment(&mut file, number, header)? {
            scanned.add(segment, &totals);
            if number != last {
                scanned.without_index.push((number, totals));
            }
        } else if number == last {
            scanned.unfinished = Some(number);
        }
    }
    Ok(Some(scanned))
}

/// From its file, if that has the length that the index knows.
fn read_index(folder: &Path, number: u64, segment: &File) -> Option<(Segment, OwnerTotals)> {
    let bytes = fs::read(folder.join(index_name(number))).ok()?;
    let length = segment.metadata().ok()?.len();
    decode_index(number, &bytes).filter(|(segment, _)| segment.length == length)
}

/// `None` if it has neither a whole header nor a record.
fn read_segment(
    file: &mut File,
    number: u64,
    header: Option<SegmentHeader>,
) -> io::Result<Option<(Segment, OwnerTotals)>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let mut segment = header.map(|header| Segment::empty(number, header.commit, header.first));
    let mut totals = OwnerTotals::new();
    for found in Records::new(&bytes, SEGMENT_HEADER as u64) {
        let FoundRecord::Record(at, record) = found else { continue };
        let segment = segment.get_or_insert_with(|| Segment::empty(number, record.commit, record.first));
        if record.commit < segment.next_commit || record.first < segment.next_event {
            // Bytes that were here before.
            continue;
        }
        segment.add(at as u64, record);
        let table = at + RECORD_HEADER..at + RECORD_HEADER + record.table_length as usize;
        if let Some(table) = record.table(&bytes[table]) {
            add_totals(&mut totals, &table);
        }
    }
    Ok(segment.map(|segment| (segment, totals)))
}

fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        numbers.extend(entry?.file_name().to_str().and_then(number_of));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
