//! The list of sources on disk: `sources.toml` and the files that it includes.
//!
//! The ingestion daemon and the operator's tool read the list with this crate, so that both see the same sources. Waits for
//! the disk: call it on a thread that may.
//!
//! Never here: a runtime, the network, the store.

mod list;

pub use list::{ListOnDisk, ListPart};
