//! The journal: what is durable. Everything in sled can be made again from it, and events are only here.
//!
//! ```text
//! journal/00000007.segment   header 64 | record | record | …                  at most about 16 MiB; the last one grows
//! record                     header 64 | table | sealed events | operations   one commit
//! table                      owners: count 2 | length 1, source id, each | events: length 4, owner 2, recorded ms 8, each
//! operation                  length 2 | key | length 4, all ones for a removal | value
//! journal/00000007.index     what is known of a segment that has ended: see segment
//! ```
//!
//! Numbers are little-endian. The header, the table and the operations have a CRC-32C each, and each event has its own
//! checksum: a wrong bit costs one event, or one record. A record is written with one call and synced before anything of it
//! is visible. Segments are numbered without holes, and so are commits and events within an epoch.

mod open;
mod reader;
mod record;
mod segment;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

pub use open::MisplacedSegment;
pub(crate) use open::{JournalScan, ScanError, SegmentFiles, remains, scan, set_aside_all};
pub(crate) use reader::{EventCursor, EventMeta, FoundEvent};
pub(crate) use record::{BadSegment, CommitRecord, NewRecordEvent, Operation};
pub(crate) use segment::{JournalFiles, is_unreadable, read_file, read_what_can_be, segment_name};
pub(crate) use walk::{
    IndexState, WalkedPart, WalkedRecord, WalkedSegment, epoch_of_events, index_ends, segment_header,
    segment_numbers, segment_path,
};
pub(crate) use writer::{JournalWriter, SegmentLimits, create_folders, has_too_many_files, sync_folder};
