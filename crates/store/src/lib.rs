//! The log on disk, and the state of each source between visits.
//!
//! ```text
//!            LogWriter (one)                                          LogReader (many)
//!  visits ──► append ──► sled batch ──► flush ──► fdatasync ──► head changes ──► page(after)
//!                        events + source state + seen set, all or nothing
//! ```
//!
//! An event is visible to a [`LogReader`] only after it is on disk, and then it never changes. One process at a time uses
//! the directory. Everything here blocks: never call it on an event loop.

mod append;
mod open;
mod pieces;
mod read;
mod record;
mod share;
pub mod space;
mod waiting;

pub use append::{
    AppendError, AppendedVisit, CrashPoint, LogWriter, NewsPlan, Retained, SoonerVisit, VisitRecord,
};
pub use open::{Retention, StoreOpenError, StoreOptions, open};
pub use read::{EventPage, LogReadError, LogReader, StoredEvent};
pub use share::{EventTotals, SourceShare};
