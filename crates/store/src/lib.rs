//! The log on disk, and what is remembered of each source between visits.
//!
//! ```text
//!            Writer (one)                                  Reader (many)
//!  visits ──► append ──► sled batch ──► flush ──► fdatasync ──► head moves ──► page(after)
//!                        events + source state + keys met, all or nothing
//! ```
//!
//! An event is visible to a [`LogReader`] only after it is on disk, and then it never changes. One process owns the
//! directory. Everything here blocks: never call it on an arbiter.

mod append;
mod open;
mod read;
mod record;
mod seen;

pub use append::{AppendError, AppendedVisit, CrashPoint, LogWriter, Retained, VisitRecord};
pub use open::{Retention, StoreOpenError, StoreOptions, open};
pub use read::{EventPage, LogReadError, LogReader, StoredEvent};
