//! The list of sources on disk: `sources.toml` and the files that it includes, the files that its sources name, and
//! lists of feeds in OPML.
//!
//! The ingestion daemon and the operator's tool read them with this crate, so that both see the same sources. [`ListOnDisk`]
//! waits for the disk: call it on a thread that may.
//!
//! Never here: the network, the store.

mod credentials;
mod known;
mod list;
pub mod lists;
pub mod opml;

pub use credentials::CredentialFiles;
pub use known::KnownFeeds;
pub use list::{ListOnDisk, ListPart};
