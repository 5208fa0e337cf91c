//! What an open found and mended.

use news::Seq;

/// What an open found and mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenNote {
    /// There was no store; a new log was begun.
    Begun,
    /// A store of an earlier version was brought into the layout of this one; it had so many events.
    Migrated {
        /// Events that are in the journal now.
        events: u64,
    },
    /// The states of sources were made again from the journal.
    Rebuilt {
        /// Why.
        why: String,
    },
    /// The end of the journal is gone or damaged; these events are lost. Their numbers are not used again.
    EndLost {
        /// The first of them.
        first: Seq,
        /// How many.
        count: u64,
    },
    /// The end of the journal was a commit that was not finished when the process or the machine ended; it was removed.
    /// Nothing of it had been announced, unless the disk has damaged it since.
    EndUnfinished {
        /// How long it was.
        bytes: u64,
    },
    /// Records whose changes of states are damaged; their events are not.
    DamagedChanges {
        /// How many.
        records: u64,
    },
    /// One of the two files that say that the store is no copy was missing or damaged. It was written again.
    IdentityRepaired,
    /// Files of the journal are copies of segments that are there, too. They were given other names, and nothing is lost.
    Strays {
        /// The numbers that their names had.
        segments: Vec<u64>,
    },
    /// The files are a copy of another store, or of an older state of this one.
    Copied,
    /// The log is empty and has a new epoch, as the caller has accepted.
    NewEpoch,
}
