//! Reads the journal of a store that is not open, in order, and finds what is damaged.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use news::{Epoch, Seq, SourceId, Timestamp};
use serde::Serialize;

use crate::{
    MisplacedSegment,
    journal::{
        BadSegment, Operation, ScanError, SegmentFiles, WalkedPart, WalkedRecord, WalkedSegment,
        segment_header, segment_path,
    },
    lock::JOURNAL,
};

use super::ToolError;

/// Bytes behind the last record may be a record that a daemon writes just now: so often they are looked at again.
const WRITE_ATTEMPTS: u32 = 10;
const WRITE_DELAY: Duration = Duration::from_millis(25);

/// What is wrong in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DamageKind {
    /// An event is not what was written.
    Event,
    /// The list of the events of a record is damaged, and with it they are.
    Table,
    /// Bytes that are no record.
    Record,
    /// Events are missing between two records: a start found that they were lost.
    Missing,
    /// The file of a segment is missing.
    Segment,
    /// The header of a segment is damaged; its records are not.
    Header,
    /// The segment is of another log.
    Epoch,
    /// The changes of source states in a record are damaged; its events are not.
    Changes,
    /// The index of a segment is damaged; the next start makes it again.
    Index,
    /// Bytes behind the last record: a write was cut off, which loses nothing, or the last record is damaged.
    End,
    /// There is a folder, or a link to nothing, in place of the file of a segment.
    NotAFile,
    /// The file is a copy of another segment.
    Copy,
    /// The newest events are missing.
    Head,
    /// The file is not what the backup has written.
    Changed,
    /// The file `backup` is not what was written, or is of another log.
    Manifest,
    /// Neither of the files is there that say what a store or a backup has.
    Unnamed,
}

impl DamageKind {
    /// What is wrong, for people.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Event => "the event is damaged",
            Self::Table => "the list of events of a record is damaged",
            Self::Record => "these bytes are no record",
            Self::Missing => "events are missing here; a start has found that they were lost",
            Self::Segment => "the file is missing",
            Self::Header => "the header of the file is damaged; what follows it is not",
            Self::Epoch => {
                "the file is of another log: a copying tool has mixed two, or left it from before a restore; move it away"
            }
            Self::Changes => "the changes of source states in a record are damaged; its events are not",
            Self::Index => "the index of the segment is damaged; the next start makes it again",
            Self::End => {
                "the last bytes are no whole record: a write was cut off, which loses nothing, or the last record is damaged; \
                 the next start tells which"
            }
            Self::NotAFile => "there is no file, but a folder or a link to nothing",
            Self::Copy => {
                "the file is a copy of another segment, which is there, too: nothing is lost, and it can be removed"
            }
            Self::Head => "the end of the log is missing: other files know newer events",
            Self::Changed => "the file is not what the backup had written",
            Self::Manifest => {
                "the file `backup` is damaged or of another log, and so it is not known what the backup should have"
            }
            Self::Unnamed => {
                "there is neither `identity`, as in a store, nor `backup`, which a backup has once it is complete: more may be \
                 missing, as in an archive that was cut off"
            }
        }
    }

    /// Whether all events of the log can be there nevertheless, or the log had lost them itself.
    #[must_use]
    pub fn is_as_the_log_was(self) -> bool {
        matches!(self, Self::Missing | Self::Header | Self::Index | Self::End | Self::Copy)
    }
}

/// A place that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedPlace {
    /// What is wrong.
    pub kind: DamageKind,
    /// The number of the segment; 0 if it is in no segment.
    pub segment: u64,
    /// Where in its file, in bytes.
    pub at: Option<u64>,
    /// The first event that is lost with it.
    pub first: Option<Seq>,
    /// How many are.
    pub events: u64,
    /// Their source, if that can be told.
    pub source: Option<SourceId>,
}

impl fmt::Display for DamagedPlace {
    /// Where, what, and what is lost.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segment > 0 {
            write!(f, "segment {}", self.segment)?;
            if let Some(at) = self.at {
                write!(f, ", byte {at}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(self.kind.sentence())?;
        let Some(first) = self.first else { return Ok(()) };
        if self.events == 1 {
            write!(f, ": event {first}")?;
        } else {
            write!(f, ": events {first} to {}", first.0 + self.events - 1)?;
        }
        if let Some(source) = &self.source {
            write!(f, " of {source}")?;
        }
        f.write_str(if self.events == 1 { " is lost" } else { " are lost" })
    }
}

/// What a journal has in one place.
pub(crate) enum LogPart<'a> {
    /// A segment that is read next.
    Segment {
        segment: &'a WalkedSegment,
        is_last: bool,
    },
    Event {
        seq: Seq,
        source: SourceId,
        recorded: Timestamp,
        sealed: &'a [u8],
    },
    Changes(Vec<Operation>),
    Damage(DamagedPlace),
}

/// The journal of a store that is not open.
#[derive(Debug)]
pub(crate) struct ClosedJournal {
    pub(crate) folder: PathBuf,
    pub(crate) numbers: Vec<u64>,
    /// Files that are copies of other segments. They are not read.
    pub(crate) copies: Vec<u64>,
    /// Segments in whose place there is no file.
    pub(crate) not_files: Vec<u64>,
    pub(crate) epoch: Epoch,
    pub(crate) oldest: Seq,
    pub(crate) head: Seq,
    last: WalkedSegment,
}

impl ClosedJournal {
    /// Finds out what there is.
    pub(crate) fn find(store: &Path) -> Result<Self, ToolError> {
        let folder = store.join(JOURNAL);
        if !store.is_dir() {
            return Err(ToolError::NoStore(store.to_owned()));
        }
        let SegmentFiles { numbers, strays, not_files } = segment_files(&folder)?;
        let (mut epoch, mut oldest, mut next, mut first, mut last) = (None, None, None, Seq(1), None);
        for number in numbers.iter().rev().copied() {
            let is_needed = epoch.is_none() || oldest.is_none() || Some(number) == numbers.first().copied();
            if !is_needed {
                continue;
            }
            let read = if last.is_none() { read_last(&folder, number)? } else { read(&folder, number)? };
            let Some(segment) = read else { continue };
            if let Err(BadSegment::Layout(layout)) = segment.header {
                return Err(ToolError::Newer { path: store.to_owned(), layout });
            }
            let header = segment.header.as_ref().ok();
            let record = last_record(&segment);
            epoch = epoch.or_else(|| header.map(|header| header.epoch.clone()));
            oldest = oldest.or(record.map(|(oldest, _)| oldest));
            next = next.or(record.map(|(_, next)| next)).or(header.map(|header| header.first));
            first = header.map_or(first, |header| header.first);
            last.get_or_insert(segment);
        }
        let epoch = epoch.or_else(|| last.as_ref().and_then(WalkedSegment::epoch_of_events));
        let (Some(epoch), Some(last)) = (epoch, last) else {
            return Err(ToolError::NoJournal(store.to_owned()));
        };
        for number in numbers.iter().copied() {
            let header = segment_header(&folder, number);
            let header = header.map_err(ToolError::file("read", segment_path(&folder, number)))?;
            if let Some(header) = header.filter(|header| header.epoch == epoch) {
                MisplacedSegment::check(&folder, number, &header)?;
            }
        }
        let head = Seq(next.map_or(0, |next| next.0.saturating_sub(1)));
        // The last record says what retention had removed; if the first segment has less, it is not the first one.
        let oldest = oldest.unwrap_or(first).min(head.next());
        Ok(Self { folder, numbers, copies: strays, not_files, epoch, oldest, head, last })
    }

    /// Reads it from this event on, or all of it with [`Seq::NONE`].
    pub(crate) fn read(
        &self,
        from: Seq,
        mut each: impl FnMut(LogPart<'_>) -> Result<(), ToolError>,
    ) -> Result<(), ToolError> {
        let mut pass = JournalPass { journal: self, expected: Some(self.oldest), cause: None, before: None };
        for (n, number) in self.numbers.iter().copied().enumerate() {
            if number == self.last.number {
                return pass.segment(&self.last, &mut each);
            }
            if from > Seq::NONE && self.first_of(self.numbers.get(n + 1))?.is_some_and(|next| next <= from) {
                continue;
            }
            match read(&self.folder, number)? {
                Some(segment) => pass.segment(&segment, &mut each)?,
                // A running daemon has removed this segment, because its events were too old. They are not missing.
                None if self.numbers[..n].iter().all(|n| !segment_path(&self.folder, *n).exists()) => {
                    pass = JournalPass { journal: self, expected: None, cause: None, before: None };
                }
                None => {}
            }
        }
        Ok(())
    }

    pub(super) fn why_missing(&self, number: u64) -> DamageKind {
        if self.not_files.contains(&number) { DamageKind::NotAFile } else { DamageKind::Segment }
    }

    /// The number of the last segment.
    pub(crate) fn last(&self) -> u64 {
        self.last.number
    }

    /// Whether the first segment does not have the oldest event that is kept, nor an earlier one.
    pub(crate) fn begins_late(&self) -> Result<bool, ToolError> {
        Ok(self.first_of(self.numbers.first())?.is_some_and(|first| first > self.oldest))
    }

    /// Whether commits are missing between a segment and the next one.
    pub(crate) fn is_cut(&self, segment: &WalkedSegment) -> Result<bool, ToolError> {
        let path = segment_path(&self.folder, segment.number + 1);
        let next = segment_header(&self.folder, segment.number + 1).map_err(ToolError::file("read", path))?;
        Ok(next.is_some_and(|next| segment.next_commit().is_none_or(|commit| commit < next.commit)))
    }

    /// The first event of a segment, without reading it.
    fn first_of(&self, number: Option<&u64>) -> Result<Option<Seq>, ToolError> {
        let Some(number) = number.copied() else { return Ok(None) };
        let header = segment_header(&self.folder, number);
        let header = header.map_err(ToolError::file("read", segment_path(&self.folder, number)))?;
        Ok(header.map(|header| header.first))
    }
}

fn segment_files(folder: &Path) -> Result<SegmentFiles, ToolError> {
    SegmentFiles::find(folder).map_err(|error| match error {
        ScanError::File { path, source } => ToolError::File { attempt: "read", path, source },
        // It has not looked at more than the headers.
        other => {
            ToolError::File { attempt: "read", path: folder.to_owned(), source: io::Error::other(other) }
        }
    })
}

fn read(folder: &Path, number: u64) -> Result<Option<WalkedSegment>, ToolError> {
    WalkedSegment::read(folder, number).map_err(ToolError::file("read", segment_path(folder, number)))
}

#[expect(clippy::disallowed_methods, reason = "a tool may wait; nothing here is called on an event loop")]
fn read_last(folder: &Path, number: u64) -> Result<Option<WalkedSegment>, ToolError> {
    for _ in 0..WRITE_ATTEMPTS {
        match read(folder, number)? {
            Some(segment) if segment.parts().any(|part| matches!(part, WalkedPart::Tail { .. })) => {
                thread::sleep(WRITE_DELAY);
            }
            segment => return Ok(segment),
        }
    }
    read(folder, number)
}

/// The oldest event that its last record keeps, and the event after it.
fn last_record(segment: &WalkedSegment) -> Option<(Seq, Seq)> {
    let records = segment.parts().filter_map(|part| match part {
        WalkedPart::Record(record) => Some((record.header.oldest, record.header.next_event())),
        WalkedPart::Damage { .. } | WalkedPart::Tail { .. } => None,
    });
    records.last()
}

/// Goes from segment to segment.
struct JournalPass<'j> {
    journal: &'j ClosedJournal,
    /// The next event, once that is known.
    expected: Option<Seq>,
    /// Why the events before the next record are missing, if they are: the kind, the segment, the place.
    cause: Option<(DamageKind, u64, Option<u64>)>,
    /// The number of the segment before.
    before: Option<u64>,
}

type EachPart<'e> = &'e mut dyn FnMut(LogPart<'_>) -> Result<(), ToolError>;

impl JournalPass<'_> {
    fn segment(&mut self, segment: &WalkedSegment, each: EachPart<'_>) -> Result<(), ToolError> {
        let number = segment.number;
        let is_last = number == self.journal.last.number;
        if let Some(missing) = self.before.map(|before| before + 1).filter(|missing| *missing < number) {
            self.cause = Some((self.journal.why_missing(missing), missing, None));
        }
        let begins_late = |first: Seq| self.before.is_none() && self.expected.is_some_and(|e| e < first);
        if number > 1 && segment.header.as_ref().is_ok_and(|header| begins_late(header.first)) {
            self.cause = Some((self.journal.why_missing(number - 1), number - 1, None));
        }
        self.before = Some(number);
        match &segment.header {
            Ok(header) if header.epoch != self.journal.epoch => {
                return each(LogPart::Damage(place(DamageKind::Epoch, number, None)));
            }
            Ok(header) => self.reach(number, header.first, each)?,
            Err(_) if segment.end() > 0 && segment.parts().next().is_some() => {
                each(LogPart::Damage(place(DamageKind::Header, number, Some(0))))?;
            }
            Err(_) => {}
        }
        each(LogPart::Segment { segment, is_last })?;
        for part in segment.parts() {
            match part {
                WalkedPart::Record(record) => self.record(number, &record, each)?,
                WalkedPart::Damage { at } => self.cause = Some((DamageKind::Record, number, Some(at))),
                WalkedPart::Tail { at } if is_last => {
                    each(LogPart::Damage(place(DamageKind::End, number, Some(at))))?;
                }
                WalkedPart::Tail { at } => self.cause = Some((DamageKind::Record, number, Some(at))),
            }
        }
        Ok(())
    }

    /// The next record begins with this event: those before it are missing.
    fn reach(&mut self, number: u64, first: Seq, each: EachPart<'_>) -> Result<(), ToolError> {
        let expected = self.expected.unwrap_or(first).max(self.journal.oldest);
        self.expected = self.expected.max(Some(first));
        let missing = first.0.saturating_sub(expected.0);
        let cause = self.cause.take();
        let (kind, segment, at) = match cause {
            Some(cause) => cause,
            None if missing > 0 => (DamageKind::Missing, number, None),
            None => return Ok(()),
        };
        let first = (missing > 0).then_some(expected);
        each(LogPart::Damage(DamagedPlace { first, events: missing, ..place(kind, segment, at) }))
    }

    fn record(
        &mut self,
        number: u64,
        record: &WalkedRecord<'_>,
        each: EachPart<'_>,
    ) -> Result<(), ToolError> {
        let header = record.header;
        self.reach(number, header.first, each)?;
        self.expected = Some(header.next_event());
        let at = Some(record.at);
        let oldest = self.journal.oldest;
        match record.events() {
            None => {
                let first = header.first.max(oldest);
                let events = header.next_event().0.saturating_sub(first.0);
                let first = (events > 0).then_some(first);
                each(LogPart::Damage(DamagedPlace {
                    first,
                    events,
                    ..place(DamageKind::Table, number, at)
                }))?;
            }
            Some(events) => {
                for event in events.into_iter().filter(|event| event.seq >= oldest) {
                    let (seq, source) = (event.seq, event.owner);
                    each(match event.sealed {
                        Some(sealed) => LogPart::Event { seq, source, recorded: event.recorded, sealed },
                        None => LogPart::Damage(DamagedPlace {
                            first: Some(seq),
                            events: 1,
                            source: Some(source),
                            ..place(DamageKind::Event, number, at)
                        }),
                    })?;
                }
            }
        }
        match record.operations() {
            None => each(LogPart::Damage(place(DamageKind::Changes, number, at))),
            Some(operations) if operations.is_empty() => Ok(()),
            Some(operations) => each(LogPart::Changes(operations)),
        }
    }
}

pub(super) fn place(kind: DamageKind, segment: u64, at: Option<u64>) -> DamagedPlace {
    DamagedPlace { kind, segment, at, first: None, events: 0, source: None }
}
