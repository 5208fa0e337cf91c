//! What an operator does with the files of a store: check, count, export, import, salvage, restore, back up.
//!
//! ```text
//! journal/ ──► reading ──► survey (verify, stats) | export | backup | draft ──► a new store, put in place at once
//! any file ──► salvage
//! ```
//!
//! Only segments are read, and of sled only a copy: what is read is not changed, not even by a lock. A record is whole or it is not
//! there, so that a store can be read while a daemon writes to it: what is read then ends at a whole record.

mod backup;
mod draft;
mod export;
mod import;
mod reading;
mod restore;
mod salvage;
mod states;
mod survey;
mod witness;

use std::{io, path::PathBuf};

use news::{Cursor, Epoch, Seq};

use crate::{MisplacedSegment, StoreOpenError};

pub use backup::{
    BackupManifest, BackupReport, BackupSegment, BackupTarget, DaemonLog, FolderBackup, MANIFEST, backup,
};
pub use export::{ExportReport, export};
pub use import::{ImportedEvent, StoreImport};
pub use reading::{DamageKind, DamagedPlace};
pub use restore::{RestoreOptions, RestoreReport, RestoredEpoch, restore, restore_in_place};
pub use salvage::{SalvageReport, salvage};
pub use survey::{SourceEvents, StoreSurvey, survey};
pub use witness::EndWitness;

/// Why a command on the files of a store failed. The text ends with what to do.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There is nothing to read.
    #[error("there is no store in {0}; set store.path, or name the folder")]
    NoStore(PathBuf),
    /// There is neither a folder nor a file.
    #[error("{0} is neither a folder nor a file; name the folder of a damaged store, or a file of it")]
    NothingThere(PathBuf),
    /// It has no journal.
    #[error(
        "the store in {0} has no journal: if it is of an earlier version, newswire-ingestd brings it into the layout of \
         this one at its next start; if the journal was lost, `newswire log salvage` finds what is left"
    )]
    NoJournal(PathBuf),
    /// A later version wrote it.
    #[error("{path} was written by a newer version of this program (layout {layout}); use that version")]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its layout.
        layout: u16,
    },
    /// A segment of its journal is under the name of another one.
    #[error("the journal is out of order: {0}")]
    Misplaced(#[from] MisplacedSegment),
    /// A process uses it, or its folder cannot be used.
    #[error(transparent)]
    Open(#[from] StoreOpenError),
    /// There is something where a new store should come.
    #[error("{0} is not empty; name an empty folder or a new one, or move this one away")]
    NotEmpty(PathBuf),
    /// What is to be restored from is where it should come.
    #[error("{0} is the store itself; leave FROM out to decide about a store that is a copy")]
    IsTheStore(PathBuf),
    /// What is to be restored is not all there.
    #[error(
        "{path} is not whole, and nothing was restored: {what}; restore another copy, or add --accept-loss to go on without \
         what is missing"
    )]
    NotWhole {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// The folder that a backup would come into is missing.
    #[error(
        "{0} does not exist, so no backup was begun in it; mount the disk that should be there, or create the folder"
    )]
    NoParent(PathBuf),
    /// The backup would come into the store.
    #[error("{path} is in the store {store}; name a folder elsewhere, best on another disk")]
    InsideStore {
        /// The folder.
        path: PathBuf,
        /// The store.
        store: PathBuf,
    },
    /// A backup cannot go on from one of which it is not known what it has.
    #[error(
        "the file `backup` in {0} is damaged; name another folder, or move this one away: a new backup is whole"
    )]
    DamagedManifest(PathBuf),
    /// The id to begin after is of another log.
    #[error("the id is of the epoch {asked}, and the log is {epoch}; take an id of this log")]
    OtherEpoch {
        /// The epoch of the id.
        asked: Epoch,
        /// The epoch of the log.
        epoch: Epoch,
    },
    /// The log does not have the id to begin after.
    #[error("the log ends at {head}, and so it has no event {asked} to begin after; take an id of this log")]
    AboveHead {
        /// The id.
        asked: Cursor,
        /// The newest event of the log.
        head: Cursor,
    },
    /// An event of an import is larger than what is served.
    #[error(
        "the JSON of the event has {bytes} bytes, and at most {limit} can be served; shorten the event or leave it out"
    )]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Two events of an import have the same id.
    #[error(
        "another event with the id {id} is in line {first_line}, and it is not the same; one of them was changed, or they are \
         of two copies of one log that went on by themselves: leave one of them out"
    )]
    OtherContent {
        /// The id.
        id: Cursor,
        /// The line of the first of the two.
        first_line: u64,
    },
    /// The folder has a backup of another log.
    #[error("{path} has a backup of the log {found}, and this is the log {epoch}; choose another folder")]
    OtherLog {
        /// The folder.
        path: PathBuf,
        /// The epoch of what it has.
        found: Epoch,
        /// The epoch of the store.
        epoch: Epoch,
    },
    /// The folder has a backup of a later state of the store.
    #[error(
        "{path} has a backup with events up to {kept}, and the store has them up to {head}: it is an older state of that \
         store, or its end is damaged (`newswire log verify` tells); the backup is kept, choose another folder"
    )]
    OlderStore {
        /// The folder.
        path: PathBuf,
        /// The newest event of the backup.
        kept: Seq,
        /// The newest event of the store.
        head: Seq,
    },
    /// The daemon serves another log than the one in the folder.
    #[error(
        "newswire-ingestd serves the log {served} up to {head}, and {path} has the log {found} up to {found_head}; is \
         store.path the one that the daemon has?"
    )]
    NotServed {
        /// The folder.
        path: PathBuf,
        /// What the daemon serves.
        served: Epoch,
        /// Its newest event.
        head: Seq,
        /// What the folder has.
        found: Epoch,
        /// Its newest event.
        found_head: Seq,
    },
    /// A file cannot be read or written.
    #[error("cannot {attempt} {path}: {source}; {}", remedy(source))]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The reader of what is written has gone, or cannot be written to.
    #[error(transparent)]
    Output(io::Error),
}

impl ToolError {
    fn file(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { attempt, path, source }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or choose a place on another disk; what was there before has not changed"
        }
        io::ErrorKind::PermissionDenied => "run this as root, or as the user of newswire-ingestd",
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::NotADirectory => "a part of the path is a file; check the path",
        io::ErrorKind::IsADirectory => "it is a folder; name a file",
        io::ErrorKind::BrokenPipe => {
            "the program that reads it has ended; see why it did, and start both again"
        }
        io::ErrorKind::ReadOnlyFilesystem => "choose a folder that can be written to",
        io::ErrorKind::ResourceBusy => {
            "a file system is mounted there; set store.path to a folder inside it, or restore into another folder"
        }
        _ => "check the disk",
    }
}
