//! Step 7 of the life of an item, first half: whether its source had it before.
//!
//! ```text
//! evidence of the items ─┐
//!                        ├─► matching, strong evidence first ─► damping ─► item, update, or nothing
//! entries of the seen set┘
//! ```
//!
//! The log keeps a [`SeenSet`] per source; `newswire check --diff` makes one from two documents. Pure and bounded. Never
//! here: a file, a clock, randomness.

mod classify;
mod damping;
mod delta;
mod entry;
mod filter;
mod matching;
mod shape;
mod version1;

pub use classify::{Classification, Classified, ItemStatus, SeenSet, oldest_first};
pub use entry::BadSeenSet;
pub use matching::MatchReason;
