//! What the outbox knows of each subject: its last message, and the events of other logs on it that our log has not had yet.
//!
//! An event is published only when all events on its subject are known: those that the outbox has read, or published, and
//! those that the store knows ([`KnownEnds::know`]).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use news::{Cursor, Epoch, EventKind, Seq};

use crate::nats::identity::EventIdentity;

/// What an outbox knows of the subjects that it publishes to. Cheap to clone; all clones know the same.
#[derive(Clone, Debug, Default)]
pub struct KnownEnds(Arc<Mutex<KnownSubjects>>);

impl KnownEnds {
    /// The store knows all events on `subject` up to `at`, an id in the stream: an event of our log after `after` is not the
    /// same as one of them.
    pub fn know(&self, subject: &str, at: &Cursor, after: Seq) {
        let seed = Seed { at: at.clone(), after };
        self.subjects().seeds.insert(subject.into(), seed);
    }

    /// The id in the stream up to which a store knows all events on `subject`, if it has recorded those of its log up to `head`
    /// and no later one of this subject. `None` if that is not known: nothing was published there since the start, or an event
    /// after `head` was.
    #[must_use]
    pub fn last_of(&self, subject: &str, head: Seq) -> Option<Cursor> {
        self.subjects().seeds.get(subject).filter(|seed| seed.after <= head).map(|seed| seed.at.clone())
    }

    fn subjects(&self) -> MutexGuard<'_, KnownSubjects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct KnownSubjects {
    seeds: HashMap<Arc<str>, Seed>,
}

/// Up to where the store knows a subject.
#[derive(Debug)]
struct Seed {
    at: Cursor,
    /// For later events of the log than this one.
    after: Seq,
}
