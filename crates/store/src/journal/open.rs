//! Finds what a journal has. Changes nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use news::{Epoch, Seq};

use crate::record;

use crate::totals::OwnerTotals;

use super::{
    record::{BadSegment, Operation, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader},
    segment::{
        FoundRecord, JournalFiles, Records, Segment, add_totals, decode_index, index_name, noted_oldest,
        number_of, read_file, read_file_up_to, segment_name,
    },
};

/// What was found in the folder of a journal.
#[derive(Debug)]
pub(crate) struct JournalScan {
    /// `None` if no segment has a whole header.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) totals: OwnerTotals,
    pub(super) folder: PathBuf,
    pub(super) segments: VecDeque<Segment>,
    /// Segments that were read because their index is missing or damaged.
    pub(super) without_index: Vec<(u64, OwnerTotals)>,
    torn: Option<Box<TornRecord>>,
    /// Segments without a header and without a record: the last one if its header never came to the disk, and those in which
    /// nothing can be read.
    pub(super) without_records: Vec<u64>,
    /// Files that are copies of other segments. They are not read.
    pub(crate) strays: Vec<u64>,
}

/// What has the name of a segment in the folder of a journal, by its number.
#[derive(Debug, Default)]
pub(crate) struct SegmentFiles {
    /// The segments, in order.
    pub(crate) numbers: Vec<u64>,
    /// Copies of segments that are there under their own names, too.
    pub(crate) strays: Vec<u64>,
    /// What is no file.
    pub(crate) not_files: Vec<u64>,
}

/// The last record of the last segment, if parts of it are not what was written.
#[derive(Debug)]
struct TornRecord {
    /// The segment without it.
    segment: Segment,
    /// What it has.
    totals: OwnerTotals,
}

/// A segment whose file was read.
struct ReadSegment {
    segment: Segment,
    totals: OwnerTotals,
    torn: Option<Box<TornRecord>>,
}

/// A segment under the name of another one. Nothing of it is lost, and nothing may be concluded from its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file} has the content of {}: it was renamed, or copied; give it that name, or move it away if there is such a file",
    segment_name(*number)
)]
pub struct MisplacedSegment {
    /// The file.
    pub file: PathBuf,
    /// The number that its header has.
    pub number: u64,
}

impl MisplacedSegment {
    /// Checks the header of the segment `number` in `folder`.
    pub(crate) fn check(folder: &Path, number: u64, header: &SegmentHeader) -> Result<(), Self> {
        let file = || folder.join(segment_name(number));
        if header.number == number { Ok(()) } else { Err(Self { file: file(), number: header.number }) }
    }
}

/// What is wrong with a folder, a pipe or a link to nothing in place of a file.
const NOT_A_FILE: &str = "it is no file, and no link to one";

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("a newer version of this program wrote it (layout {0})")]
    Newer(u16),
    #[error(
        "{} is of the log {epoch}, and the segments before it are of {before}: a copying tool has mixed two logs; move away \
         the files of one of them",
        path.display()
    )]
    Mixed { path: PathBuf, epoch: Epoch, before: Epoch },
    #[error(transparent)]
    Misplaced(#[from] MisplacedSegment),
}

impl JournalScan {
    /// `None` if it is damaged; the records tell the same.
    fn read_header(&mut self, bytes: &[u8], number: u64) -> Result<Option<SegmentHeader>, ScanError> {
        let header = match SegmentHeader::decode(bytes) {
            Ok(header) => header,
            Err(BadSegment::Header) => return Ok(None),
            Err(BadSegment::Layout(layout)) => return Err(ScanError::Newer(layout)),
        };
        match &self.epoch {
            Some(epoch) if *epoch != header.epoch => {
                let path = self.folder.join(segment_name(number));
                return Err(ScanError::Mixed { path, epoch: header.epoch, before: epoch.clone() });
            }
            _ => self.epoch = Some(header.epoch.clone()),
        }
        MisplacedSegment::check(&self.folder, number, &header)?;
        Ok(Some(header))
    }

    fn add(&mut self, segment: Segment, totals: &OwnerTotals) {
        add_all(&mut self.totals, totals);
        self.segments.push_back(segment);
    }

    /// Leaves the last record out if parts of it never came to the disk. sled has what was announced, up to this commit, or
    /// less: a record that it has is damaged, and stays.
    pub(crate) fn leave_out_torn(&mut self, applied: u64) {
        let Some(torn) = self.torn.take() else { return };
        let TornRecord { segment, totals } = *torn;
        let Some(last) = self.segments.back_mut().filter(|last| applied + 1 < last.next_commit) else {
            return;
        };
        *last = segment;
        for (owner, torn) in totals {
            if let Some(has) = self.totals.get_mut(&owner) {
                *has = has.without(torn);
            }
        }
    }

    pub(crate) fn has_segments(&self) -> bool {
        !self.segments.is_empty()
    }

    pub(crate) fn has_commits(&self) -> bool {
        self.segments.iter().any(|segment| segment.next_commit > segment.first_commit)
    }

    /// The commits of segments that are missing; what retention removed is not.
    pub(crate) fn missing_commits(&self) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let Some(first) = self.segments.front() else { return missing };
        let mut end = if self.oldest() < first.first { 1 } else { first.first_commit };
        for segment in &self.segments {
            if segment.first_commit > end {
                missing.push(end..segment.first_commit);
            }
            end = segment.next_commit;
        }
        missing
    }

    /// As [`JournalFiles::operations_in`].
    pub(crate) fn operations_in<E: From<io::Error>>(
        &self,
        commits: Range<u64>,
        apply: impl FnMut(u64, Vec<Operation>) -> Result<(), E>,
    ) -> Result<u64, E> {
        // The epoch is of no importance for reading.
        let epoch = self.epoch.clone().unwrap_or_else(|| Epoch::try_new("none").expect("it is a name"));
        JournalFiles::new(epoch, self.folder.clone(), self.segments.clone()).operations_in(commits, apply)
    }

    /// The commit and the event after the last ones.
    pub(crate) fn next(&self) -> (u64, Seq) {
        self.segments.back().map_or((1, Seq(1)), |last| (last.next_commit, last.next_event))
    }

    /// The oldest event that was kept at the last commit. Segments before it are noted to be gone before they are removed.
    pub(crate) fn oldest(&self) -> Seq {
        let first = || self.segments.front().map_or(Seq(1), |segment| segment.first);
        noted_oldest(&self.segments).unwrap_or_else(first)
    }
}

/// Whether a folder in which no segment can be read has more than the segment of a journal that was just begun.
pub(crate) fn remains(folder: &Path) -> io::Result<bool> {
    for number in numbers(folder)? {
        if fs::metadata(folder.join(segment_name(number)))?.len() > SEGMENT_HEADER as u64 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// As [`set_aside`], for all segments of a folder in which none can be read.
pub(crate) fn set_aside_all(folder: &Path) -> io::Result<()> {
    numbers(folder)?.into_iter().try_for_each(|number| set_aside(folder, number))
}

/// Removes a segment that was begun and has nothing. One in which nothing can be read is renamed to `00000007.damaged`: events
/// of it may still be salvaged.
pub(super) fn set_aside(folder: &Path, number: u64) -> io::Result<()> {
    let path = folder.join(segment_name(number));
    if fs::metadata(&path)?.len() > SEGMENT_HEADER as u64 {
        fs::rename(&path, path.with_extension("damaged"))
    } else {
        fs::remove_file(&path)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ScanError + use<> {
    let path = path.to_owned();
    |source| ScanError::File { path, source }
}

impl SegmentFiles {
    /// Looks at the names in a folder, and at the headers behind them.
    pub(crate) fn find(folder: &Path) -> Result<Self, ScanError> {
        let mut found = Self::default();
        let mut headers = BTreeMap::new();
        for number in numbers(folder).map_err(failed(folder))? {
            let path = folder.join(segment_name(number));
            // Never opens what is none: to open a pipe can take for ever.
            let is_file = match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => path.symlink_metadata().is_err(),
                metadata => metadata.map_err(failed(&path))?.is_file(),
            };
            if !is_file {
                found.not_files.push(number);
                continue;
            }
            found.numbers.push(number);
            headers.insert(number, header_of(&path)?);
        }
        let is_stray = |number: &u64| {
            let Some(Some(header)) = headers.get(number).filter(|_| headers.len() > 1) else { return false };
            let of = headers.get(&header.number).and_then(Option::as_ref);
            header.number != *number && of.is_some_and(|of| of == header)
        };
        (found.strays, found.numbers) = found.numbers.iter().partition(|number| is_stray(number));
        Ok(found)
    }
}

/// `None` if it is damaged, or the file was removed just now.
fn header_of(path: &Path) -> Result<Option<SegmentHeader>, ScanError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed(path))?,
    };
    let begin = read_file_up_to(&file, SEGMENT_HEADER as u64).map_err(failed(path))?;
    Ok(SegmentHeader::decode(&begin).ok())
}

/// Looks into a folder; `None` if it has no segments. Reads the last segment, and those without an index.
pub(crate) fn scan(folder: &Path) -> Result<Option<JournalScan>, ScanError> {
    let SegmentFiles { numbers, strays, not_files } = SegmentFiles::find(folder)?;
    if let Some(number) = not_files.first().copied() {
        let path = folder.join(segment_name(number));
        return Err(ScanError::File { path, source: io::Error::other(NOT_A_FILE) });
    }
    let Some(last) = numbers.last().copied() else { return Ok(None) };
    let mut scanned = JournalScan {
        epoch: None,
        totals: OwnerTotals::new(),
        folder: folder.to_owned(),
        segments: VecDeque::new(),
        without_index: Vec::new(),
        torn: None,
        without_records: Vec::new(),
        strays,
    };
    for number in numbers {
        let path = folder.join(segment_name(number));
        let file = File::open(&path).map_err(failed(&path))?;
        let begin = read_file_up_to(&file, SEGMENT_HEADER as u64).map_err(failed(&path))?;
        let header = scanned.read_header(&begin, number)?;
        let index = read_index(folder, number, &file).filter(|(segment, _)| {
            // One that was copied or renamed can be of another segment.
            let begin = header.as_ref().map(|header| (header.commit, header.first));
            number != last && begin.is_none_or(|begin| begin == (segment.first_commit, segment.first))
        });
        if let Some((segment, totals)) = index {
            scanned.add(segment, &totals);
        } else if let Some(ReadSegment { segment, totals, torn }) =
            read_segment(&file, number, header).map_err(failed(&path))?
        {
            scanned.add(segment, &totals);
            if number == last {
                scanned.torn = torn;
            } else {
                scanned.without_index.push((number, totals));
            }
        } else {
            scanned.without_records.push(number);
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
fn read_segment(file: &File, number: u64, header: Option<SegmentHeader>) -> io::Result<Option<ReadSegment>> {
    let bytes = read_file(file)?;
    let begin = header.map(|header| (header.commit, header.first));
    let mut next = begin.unwrap_or((0, Seq::NONE));
    let mut records = Vec::new();
    for found in Records::new(&bytes, SEGMENT_HEADER as u64) {
        let FoundRecord::Record(at, record) = found else { continue };
        // Others are bytes that were here before.
        if record.commit >= next.0 && record.first >= next.1 {
            next = (record.commit + 1, record.next_event());
            records.push((at, record));
        }
    }
    let Some((commit, first)) =
        begin.or_else(|| records.first().map(|(_, first)| (first.commit, first.first)))
    else {
        return Ok(None);
    };
    let mut read = ReadSegment {
        segment: Segment::empty(number, commit, first),
        totals: OwnerTotals::new(),
        torn: None,
    };
    for (n, (at, record)) in records.iter().enumerate() {
        let mut totals = OwnerTotals::new();
        let is_last = n + 1 == records.len();
        if let Some(table) = record.table(&bytes[at + RECORD_HEADER..*at + to_usize(record.events_at())]) {
            add_totals(&mut totals, &table);
        }
        if is_last && !is_whole(&bytes[*at..], *record) {
            read.torn = Some(Box::new(TornRecord { segment: read.segment.clone(), totals: totals.clone() }));
        }
        read.segment.add(*at as u64, *record);
        add_all(&mut read.totals, &totals);
    }
    Ok(Some(read))
}

/// Whether each part of a record is what was written; `bytes` begin with it, and have all of it.
fn is_whole(bytes: &[u8], header: RecordHeader) -> bool {
    let table = header.table(&bytes[RECORD_HEADER..to_usize(header.events_at())]);
    let operations = &bytes[to_usize(header.operations_at())..to_usize(header.whole_length())];
    let Some(table) = table.filter(|_| header.operations(operations).is_some()) else { return false };
    let mut at = to_usize(header.events_at());
    table.events.iter().all(|event| {
        let from = at;
        at += event.length as usize;
        record::unseal_event(&bytes[from..at]).is_ok()
    })
}

/// Of a place in bytes that are in memory.
fn to_usize(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

fn add_all(totals: &mut OwnerTotals, all: &OwnerTotals) {
    for (owner, added) in all {
        let totals = totals.entry(*owner).or_default();
        totals.events += added.events;
        totals.bytes += added.bytes;
    }
}

pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
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
