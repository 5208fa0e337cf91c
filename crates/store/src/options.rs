//! What an operator decides of a store, and why it cannot be opened.

use std::{io, path::PathBuf, time::Duration};

use crate::{journal::MisplacedSegment, share::SourceShare};

/// Options of the store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// sled's page cache, in bytes.
    pub cache_bytes: u64,
    /// How much of the log is kept.
    pub retention: Retention,
    /// Maximum size of the events that one visit records, in bytes as stored; the rest waits for the next visits.
    /// [`news::Source::new_bytes_max`] overrides it.
    pub new_bytes_max: u64,
    /// How much one source may take from the others.
    pub share: SourceShare,
    /// Whether a store whose journal is gone begins a new epoch, instead of being refused.
    pub accept_loss: bool,
}

/// How much of the log is kept; the oldest events are deleted first.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Maximum age of an event.
    pub age: Duration,
    /// Maximum number of events.
    pub events: u64,
    /// Maximum size of all events, in bytes as stored; the files take up to four times as much.
    pub bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let retention = Retention {
            age: Duration::from_secs(30 * 86_400),
            events: 1_000_000,
            bytes: 4 * 1024 * 1024 * 1024,
        };
        Self {
            cache_bytes: 32 * 1024 * 1024,
            retention,
            new_bytes_max: 8 * 1024 * 1024,
            share: SourceShare::default(),
            accept_loss: false,
        }
    }
}

/// Why the store could not be opened. The text ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// Another process uses it.
    #[error(
        "the data directory {path} is in use by {holder}; stop that process or choose another store.path"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds the lock, as written in the lock file.
        holder: String,
    },
    /// The directory cannot be used.
    #[error(
        "cannot use the data directory {path}: {source}; check that it exists, is writable and has space"
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file of the journal cannot be read.
    #[error(
        "cannot read {path}: {source}; check that it is a file that the user of the daemon may read and write, and the disk"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A later version of this program wrote it.
    #[error(
        "the data in {path} was written by a newer version of this program (layout {layout}); install that version \
         again, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The layout of its records.
        layout: u16,
    },
    /// The data is damaged, and there is nothing to make it again from.
    #[error(
        "the data in {path} is damaged ({what}); restore a backup (newswire log restore), or move the directory away to \
         start with an empty log"
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// A segment of the journal is under the name of another one.
    #[error("the journal is out of order: {0}")]
    Misplaced(MisplacedSegment),
    /// The journal is gone, while other files say that there was one.
    #[error(
        "the journal of the store in {path} is gone ({what}), and with it all events; restore a backup (newswire log \
         restore), or start once with --accept-loss: the log is then empty and has a new epoch, and clients are told so"
    )]
    Lost {
        /// The directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}
