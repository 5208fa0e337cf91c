//! Reads events from the journal, in the order of their numbers.

use std::{io, ops::Range};

use news::{Seq, SourceId, Timestamp};

use crate::{record, totals::owner_hash};

use super::{
    record::{Operation, RECORD_HEADER, RecordHeader, RecordTable, SEGMENT_HEADER},
    segment::{JournalFiles, Segment, SegmentReader},
};

/// What is known of an event without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventMeta {
    pub(crate) seq: Seq,
    /// As it is stored.
    pub(crate) bytes: u32,
    pub(crate) recorded: Timestamp,
    /// The hash of the id of its source.
    pub(crate) owner: u64,
    owner_place: usize,
    at: u64,
}

/// An event, or that it is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FoundEvent {
    Whole(Vec<u8>),
    Damaged(SourceId),
}

/// Goes through the events. An event that it jumps over is damaged, or gone.
pub(crate) struct EventCursor<'a> {
    records: RecordCursor<'a>,
    table: RecordTable,
    hashes: Vec<u64>,
    /// The next event of the table.
    place: usize,
    seq: Seq,
    at: u64,
}

impl JournalFiles {
    /// The events from this one on, as far as the journal has them.
    pub(crate) fn events_from(&self, first: Seq) -> EventCursor<'_> {
        EventCursor {
            records: RecordCursor { journal: self, wanted: first, place: None },
            table: RecordTable::default(),
            hashes: Vec::new(),
            place: 0,
            seq: first,
            at: 0,
        }
    }

    /// Calls `apply` with the operations of each of these commits, as far as the journal has them. Returns in how many records
    /// they are damaged; records that are missing before others count.
    pub(crate) fn operations_in<E: From<io::Error>>(
        &self,
        commits: Range<u64>,
        mut apply: impl FnMut(u64, Vec<Operation>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let first = self.segments().iter().find(|segment| segment.next_commit > commits.start).cloned();
        let Some(Segment { number: first, first_commit, .. }) = first else { return Ok(0) };
        let mut damaged = 0;
        let mut expected = commits.start.max(first_commit);
        let mut records = RecordCursor { journal: self, wanted: Seq::NONE, place: None };
        records.enter(first)?;
        while let Some((at, header)) = records.next_of_any_kind()? {
            damaged += header.commit.min(commits.end).saturating_sub(expected);
            if header.commit >= commits.end {
                break;
            }
            // Earlier ones are not wanted, or are bytes that were here before.
            if header.commit < expected {
                continue;
            }
            expected = header.commit.saturating_add(1);
            if header.operations == 0 {
                continue;
            }
            let length = usize::try_from(header.operations_length()).unwrap_or(usize::MAX);
            let bytes = records.bytes(at + header.operations_at(), length)?;
            match bytes.and_then(|bytes| header.operations(bytes)) {
                Some(operations) => apply(header.commit, operations)?,
                None => damaged += 1,
            }
        }
        Ok(damaged)
    }
}

impl EventCursor<'_> {
    /// The next event; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<EventMeta>> {
        loop {
            while let Some(event) = self.table.events.get(self.place) {
                let meta = EventMeta {
                    seq: self.seq,
                    bytes: event.length,
                    recorded: event.recorded,
                    owner: self.hashes[usize::from(event.owner)],
                    owner_place: usize::from(event.owner),
                    at: self.at,
                };
                self.place += 1;
                self.seq = self.seq.next();
                self.at += u64::from(event.length);
                if meta.seq >= self.records.wanted {
                    self.records.wanted = self.seq;
                    return Ok(Some(meta));
                }
            }
            let Some((at, header)) = self.records.next_with_events()? else { return Ok(None) };
            let bytes = self.records.bytes(at + RECORD_HEADER as u64, header.table_length as usize)?;
            // Without its table, the events of a record cannot be told apart.
            self.table = bytes.and_then(|bytes| header.table(bytes)).unwrap_or_default();
            self.hashes = self.table.owners.iter().map(|owner| owner_hash(owner.as_str())).collect();
            (self.place, self.seq, self.at) = (0, header.first, at + header.events_at());
        }
    }

    /// The source of the event that [`EventCursor::next`] returned last.
    pub(crate) fn owner(&self, meta: &EventMeta) -> &SourceId {
        &self.table.owners[meta.owner_place]
    }

    /// The event that [`EventCursor::next`] returned last.
    pub(crate) fn read(&mut self, meta: &EventMeta) -> io::Result<FoundEvent> {
        let bytes = self.records.bytes(meta.at, meta.bytes as usize)?;
        match bytes.filter(|bytes| record::unseal_event(bytes).is_ok()) {
            Some(bytes) => Ok(FoundEvent::Whole(bytes.to_vec())),
            None => Ok(FoundEvent::Damaged(self.owner(meta).clone())),
        }
    }
}

/// Goes through the records, from segment to segment.
struct RecordCursor<'a> {
    journal: &'a JournalFiles,
    /// Records whose events are all before this one are not wanted.
    wanted: Seq,
    place: Option<CursorPlace>,
}

struct CursorPlace {
    number: u64,
    /// `None` if the file is missing.
    reader: Option<SegmentReader>,
    at: u64,
    /// Where the last record ends that is on disk.
    end: u64,
}

impl RecordCursor<'_> {
    fn next_with_events(&mut self) -> io::Result<Option<(u64, RecordHeader)>> {
        if self.place.is_none() && !self.enter_wanted()? {
            return Ok(None);
        }
        while let Some((at, header)) = self.next_of_any_kind()? {
            if header.events > 0 && header.next_event() > self.wanted {
                return Ok(Some((at, header)));
            }
        }
        Ok(None)
    }

    fn next_of_any_kind(&mut self) -> io::Result<Option<(u64, RecordHeader)>> {
        while let Some(place) = &mut self.place {
            if place.at < place.end {
                let at = place.at;
                let Some(reader) = &mut place.reader else {
                    place.at = place.end;
                    continue;
                };
                let header = reader.get(at, RECORD_HEADER, place.end)?.and_then(RecordHeader::decode);
                match header.filter(|header| at + header.whole_length() <= place.end) {
                    Some(header) => {
                        place.at += header.whole_length();
                        return Ok(Some((at, header)));
                    }
                    None => place.at = reader.place_behind(at, place.end)?.unwrap_or(place.end),
                }
            } else if !self.go_on()? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn bytes(&mut self, at: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let Some(place) = &mut self.place else { return Ok(None) };
        let end = place.end;
        place.reader.as_mut().map_or(Ok(None), |reader| reader.get(at, length, end))
    }

    /// To the segment that has the wanted event.
    fn enter_wanted(&mut self) -> io::Result<bool> {
        let segments = self.journal.segments();
        let before = segments.partition_point(|segment| segment.next_event <= self.wanted);
        let Some(segment) = segments.get(before) else { return Ok(false) };
        let (number, at) = (segment.number, segment.place_before(self.wanted));
        drop(segments);
        self.enter(number)?;
        if let Some(place) = &mut self.place {
            place.at = at;
        }
        Ok(true)
    }

    /// More of this segment, or the next one. False if there is neither.
    fn go_on(&mut self) -> io::Result<bool> {
        let Some(place) = &mut self.place else { return Ok(false) };
        let segments = self.journal.segments();
        if let Some(same) = segments.iter().find(|segment| segment.number == place.number)
            && same.length > place.end
        {
            place.end = same.length;
            return Ok(true);
        }
        let next = segments.iter().find(|segment| segment.number > place.number).map(|next| next.number);
        drop(segments);
        let Some(next) = next else { return Ok(false) };
        self.enter(next)?;
        Ok(true)
    }

    /// To the start of a segment. Retention may remove it meanwhile; then it has no records.
    fn enter(&mut self, number: u64) -> io::Result<()> {
        let end = self.journal.segments().iter().find(|s| s.number == number).map(|s| s.length);
        let reader = match self.journal.open(number) {
            Ok(reader) => Some(reader),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let place = CursorPlace { number, reader, at: SEGMENT_HEADER as u64, end: end.unwrap_or_default() };
        self.place = Some(place);
        Ok(())
    }
}
