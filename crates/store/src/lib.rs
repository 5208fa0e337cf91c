//! The log on disk, and the state of each source between visits.
//!
//! ```text
//!            LogWriter (one)                                                     LogReader (many)
//!  visits ──► append ──► one record ──► journal, fdatasync ──► sled ──► head changes ──► page(after), from the journal
//!                        events + source state + seen set, all or nothing
//! ```
//!
//! The journal is what is durable, and the events are only there. sled has what visits need of each source; it is flushed in
//! the background, and made again from the journal if need be.
//!
//! An event is visible to a [`LogReader`] only after it is on disk, and then it never changes. One process at a time uses
//! the directory. Everything here blocks: never call it on an event loop.

mod append;
mod commit;
pub mod crash;
pub mod disk_work;
mod flush;
mod identity;
mod journal;
mod lock;
mod migrate;
mod notes;
mod open;
mod options;
mod pieces;
mod read;
mod record;
mod retire;
mod seen_sets;
mod share;
pub mod space;
mod table;
pub mod tools;
mod totals;
mod waiting;

pub use append::{
    AdoptedSource, AppendError, AppendedVisit, BadExport, LogWriter, NewsPlan, Retained, SoonerVisit,
    SourceExport, VisitRecord,
};
pub use journal::MisplacedSegment;
pub use notes::OpenNote;
pub use open::open;
pub use options::{Retention, StoreOpenError, StoreOptions};
pub use read::{DamagedEvents, EventPage, LogReadError, LogReader, StoredEvent};
pub use share::SourceShare;
pub use table::{TableError, is_in_sled};
pub use totals::EventTotals;
