//! What an open found and mended.

use news::Seq;

/// What an open found and mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenNote {
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
    /// Records whose changes of states are damaged; their events are not.
    DamagedChanges {
        /// How many.
        records: u64,
    },
    /// Files of the journal are copies of segments that are there, too. They were given other names, and nothing is lost.
    Strays {
        /// The numbers that their names had.
        segments: Vec<u64>,
    },
    /// The files are a copy of another store, or were restored.
    Copied,
    /// The log is empty and has a new epoch, as the caller has accepted.
    NewEpoch,
}
