//! The list of sources on disk: `sources.toml` and the files that it includes, and the files that its sources name.
//!
//! The ingestion daemon and the operator's tool read them with this crate, so that both see the same sources. [`ListOnDisk`]
//! waits for the disk: call it on a thread that may.
//!
//! Never here: the network, the store.

mod credentials;
mod list;

pub use credentials::CredentialFiles;
pub use list::{ListOnDisk, ListPart};
