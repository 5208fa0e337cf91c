//! Goes through the bytes of the segments without opening the journal, and changes nothing: for the operator's tools.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use news::{Cursor, Epoch, Seq, SourceId, Timestamp};
use serde::Deserialize;

use crate::record;

use crate::totals::OwnerTotals;

use super::{
    open::numbers,
    record::{
        BadSegment, Operation, RECORD_HEADER, RecordHeader, RecordTable, SEGMENT_HEADER, SegmentHeader,
    },
    segment::{
        FoundRecord, Records, Segment, add_totals, decode_index, index_name, read_file, read_file_up_to,
        segment_name,
    },
};

/// A segment that was read whole.
#[derive(Debug)]
pub(crate) struct WalkedSegment {
    pub(crate) number: u64,
    pub(crate) header: Result<SegmentHeader, BadSegment>,
    pub(crate) bytes: Vec<u8>,
}

/// A part of a segment, in order.
#[derive(Debug)]
pub(crate) enum WalkedPart<'a> {
    Record(WalkedRecord<'a>),
    /// Bytes before a record that are none.
    Damage {
        at: u64,
    },
    /// Bytes behind the last record.
    Tail {
        at: u64,
    },
}

/// A record with a right header.
#[derive(Debug)]
pub(crate) struct WalkedRecord<'a> {
    pub(crate) at: u64,
    pub(crate) header: RecordHeader,
    bytes: &'a [u8],
}

/// An event of a record.
#[derive(Debug)]
pub(crate) struct WalkedEvent<'a> {
    pub(crate) seq: Seq,
    pub(crate) owner: SourceId,
    pub(crate) recorded: Timestamp,
    /// Its bytes; `None` if they are not what was written.
    pub(crate) sealed: Option<&'a [u8]>,
}

/// Whether the index of a segment is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexState {
    Right,
    Missing,
    Wrong,
}

/// The numbers of the segments in a folder, in order; none if there is no folder.
pub(crate) fn segment_numbers(folder: &Path) -> io::Result<Vec<u64>> {
    numbers(folder)
}

/// The file of a segment.
pub(crate) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(segment_name(number))
}

/// What the indexes of missing segments say: the number of the segment, and its last event.
pub(crate) fn index_ends(folder: &Path) -> io::Result<Vec<(u64, Seq)>> {
    let mut ends = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".index")?.parse().ok());
        let Some(number) = number.filter(|number| !segment_path(folder, *number).is_file()) else { continue };
        let Some((segment, _)) = fs::read(&path).ok().and_then(|bytes| decode_index(number, &bytes)) else {
            continue;
        };
        ends.push((number, Seq(segment.next_event.0.saturating_sub(1))));
    }
    Ok(ends)
}

/// The header of a segment; `None` if it is damaged, or the file is gone.
pub(crate) fn segment_header(folder: &Path, number: u64) -> io::Result<Option<SegmentHeader>> {
    let file = match File::open(segment_path(folder, number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    Ok(SegmentHeader::decode(&read_file_up_to(&file, SEGMENT_HEADER as u64)?).ok())
}

/// The epoch that the events of a journal have in their ids, if that can be told.
pub(crate) fn epoch_of_events(folder: &Path) -> Option<Epoch> {
    let of_segment = |number| WalkedSegment::read(folder, number).ok()??.epoch_of_events();
    numbers(folder).ok()?.into_iter().find_map(of_segment)
}

impl WalkedSegment {
    /// `None` if the file is gone.
    pub(crate) fn read(folder: &Path, number: u64) -> io::Result<Option<Self>> {
        let bytes = match File::open(segment_path(folder, number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => read_file(&file?)?,
        };
        Ok(Some(Self { number, header: SegmentHeader::decode(&bytes), bytes }))
    }

    /// What it has, in order. Records that were there before the segment was written are left out.
    pub(crate) fn parts(&self) -> impl Iterator<Item = WalkedPart<'_>> {
        let (mut end, mut next_commit, mut is_behind_damage) = (SEGMENT_HEADER, 0, false);
        Records::new(&self.bytes, SEGMENT_HEADER as u64).flat_map(move |found| {
            let mut parts = Vec::new();
            match found {
                FoundRecord::Damage => is_behind_damage = true,
                FoundRecord::Record(at, header) if header.commit >= next_commit => {
                    if is_behind_damage {
                        parts.push(WalkedPart::Damage { at: end as u64 });
                    }
                    is_behind_damage = false;
                    end = at + RECORD_HEADER + header.length as usize;
                    next_commit = header.commit + 1;
                    let bytes = &self.bytes[at..end];
                    parts.push(WalkedPart::Record(WalkedRecord { at: at as u64, header, bytes }));
                }
                FoundRecord::Record(..) => {}
                FoundRecord::Tail(_) => parts.push(WalkedPart::Tail { at: end as u64 }),
            }
            parts
        })
    }

    /// From the id of an event, if the headers of all segments are damaged.
    pub(crate) fn epoch_of_events(&self) -> Option<Epoch> {
        #[derive(Deserialize)]
        struct IdOnly {
            id: Cursor,
        }
        let epoch = |sealed: &[u8]| {
            let (_, _, json) = record::unseal_event(sealed).ok()?;
            Some(serde_json::from_str::<IdOnly>(json).ok()?.id.epoch)
        };
        self.parts().find_map(|part| match part {
            WalkedPart::Record(record) => {
                record.events()?.iter().find_map(|event| event.sealed.and_then(epoch))
            }
            WalkedPart::Damage { .. } | WalkedPart::Tail { .. } => None,
        })
    }

    /// The commit after its last one; `None` if that cannot be told.
    pub(crate) fn next_commit(&self) -> Option<u64> {
        let commits = self.parts().filter_map(|part| match part {
            WalkedPart::Record(record) => Some(record.header.commit.saturating_add(1)),
            WalkedPart::Damage { .. } | WalkedPart::Tail { .. } => None,
        });
        commits.last().or_else(|| self.header.as_ref().ok().map(|header| header.commit))
    }

    /// Where its last record ends.
    pub(crate) fn end(&self) -> usize {
        let ends = self.parts().filter_map(|part| match part {
            WalkedPart::Record(record) => usize::try_from(record.at).ok().map(|at| at + record.bytes.len()),
            WalkedPart::Damage { .. } | WalkedPart::Tail { .. } => None,
        });
        ends.last().unwrap_or(SEGMENT_HEADER).min(self.bytes.len())
    }

    /// Whether the file of its index says what it has.
    pub(crate) fn index_state(&self, folder: &Path) -> io::Result<IndexState> {
        let found = match fs::read(folder.join(index_name(self.number))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(IndexState::Missing),
            found => decode_index(self.number, &found?),
        };
        let Ok(header) = &self.header else { return Ok(IndexState::Wrong) };
        let mut segment = Segment::empty(self.number, header.commit, header.first);
        let mut totals = OwnerTotals::new();
        for part in self.parts() {
            let WalkedPart::Record(record) = part else { continue };
            segment.add(record.at, record.header);
            if let Some(table) = record.table() {
                add_totals(&mut totals, &table);
            }
        }
        let is_right = found.is_some_and(|found| found == (segment, totals));
        Ok(if is_right { IndexState::Right } else { IndexState::Wrong })
    }
}

impl<'a> WalkedRecord<'a> {
    fn table(&self) -> Option<RecordTable> {
        let end = RECORD_HEADER + self.header.table_length as usize;
        self.header.table(self.bytes.get(RECORD_HEADER..end)?)
    }

    /// `None` if the table is damaged: the events cannot be told apart then.
    pub(crate) fn events(&self) -> Option<Vec<WalkedEvent<'a>>> {
        let table = self.table()?;
        let (mut at, mut seq) = (usize::try_from(self.header.events_at()).ok()?, self.header.first);
        let mut events = Vec::with_capacity(table.events.len());
        for event in &table.events {
            let sealed = self.bytes.get(at..at + event.length as usize);
            events.push(WalkedEvent {
                seq,
                owner: table.owners.get(usize::from(event.owner))?.clone(),
                recorded: event.recorded,
                sealed: sealed.filter(|sealed| record::unseal_event(sealed).is_ok()),
            });
            at += event.length as usize;
            seq = seq.next();
        }
        Some(events)
    }

    /// `None` if they are damaged.
    pub(crate) fn operations(&self) -> Option<Vec<Operation>> {
        let at = usize::try_from(self.header.operations_at()).ok()?;
        self.header.operations(self.bytes.get(at..)?)
    }
}
