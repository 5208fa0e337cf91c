//! The log on disk, and what is remembered of each source between visits.
//!
//! ```text
//!            Writer (one)                                  Reader (many)
//!  visits ──► append ──► sled batch ──► flush ──► fdatasync ──► head moves ──► page(after)
//!                        events + source state + keys met, all or nothing
//! ```
//!
//! An event is visible to a [`Reader`] only after it is on disk, and then it never changes. One process owns the
//! directory. Everything here blocks: never call it on an arbiter.

mod append;
mod open;
mod read;
mod record;
mod seen;

pub use append::{AppendError, Appended, Retained, Step, Visit, Writer};
pub use open::{OpenError, Options, Retention, open};
pub use read::{Page, ReadError, Reader, Record};
