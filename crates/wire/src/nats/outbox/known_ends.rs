//! What the outbox knows of each subject: its last message, and the events of other logs on it that our log has not had yet.
//!
//! An event is published only when all events on its subject are known: those that the outbox has published or read, and
//! those that the store knows ([`KnownEnds::know`]). So what another daemon has published of the same source is not
//! published again, whatever daemons believe about which of them visits it.
//!
//! Not covered: the same item under another category, which is another subject.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use news::{Cursor, Epoch, EventKind, Seq};

use super::window::OutgoingEvent;
use crate::nats::{EventMessage, identity::EventIdentity, subject_events::SUBJECT_MESSAGES_MAX};

/// Subjects that are remembered; of others the server is asked.
const SUBJECTS_MAX: usize = 64 * 1024;
/// Events of other logs that are remembered, 24 bytes each; with more, all is forgotten, and read again as it is needed.
const OTHERS_MAX: usize = 2 * 1024 * 1024;

/// What an outbox knows of the subjects that it publishes to. Cheap to clone; all clones know the same.
#[derive(Clone, Debug, Default)]
pub struct KnownEnds(Arc<Mutex<KnownSubjects>>);

/// The last message of a subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SubjectEnd {
    /// Its number; 0 without one.
    pub(super) sequence: u64,
    /// The event of our log that it is; `None` if it is of another log.
    pub(super) origin: Option<Seq>,
    /// The newest message of another log up to this one; 0 without one.
    pub(super) other: u64,
}

/// A message of a subject as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadEvent {
    pub(super) sequence: u64,
    /// The event of our log that it is.
    pub(super) origin: Option<Seq>,
    pub(super) kind: EventKind,
    pub(super) identity: EventIdentity,
}

/// What is to be done with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was done before.
    Done(SubjectEnd),
    /// Another daemon has published the same.
    Same,
    /// It is to be published after this message.
    Due(SubjectEnd),
}

impl KnownEnds {
    /// The store knows all events on `subject` up to `at`, an id in the stream: of our log, events after `after` are not the
    /// same as one of these.
    pub fn know(&self, subject: &str, at: &Cursor, after: Seq) {
        let seed = Seed { at: at.clone(), after };
        self.subjects().seeds.insert(subject.into(), seed);
    }

    /// The id in the stream up to which a store knows all events on `subject` that has recorded the log up to `head`. `None` if
    /// that is not known: nothing was published there since the start, or an event after `head` was.
    #[must_use]
    pub fn last_of(&self, subject: &str, head: Seq) -> Option<Cursor> {
        let subjects = self.subjects();
        let epoch = subjects.epoch.clone()?;
        let seed = subjects.seed(subject, head.next()).map_or(0, |seed| seed.sequence);
        let known = match subjects.by_name.get(subject) {
            Some(known) if known.own > head => return None,
            Some(known) => known.known_to_store(seed),
            None => 0,
        };
        let seq = known.max(seed);
        (seq > 0).then_some(Cursor { epoch, seq: Seq(seq) })
    }

    /// Another epoch: numbers of an earlier one mean nothing. `is_complete` says that nothing was published under it before.
    pub(super) fn begin_epoch(&self, epoch: &Epoch, is_complete: bool) {
        let mut subjects = self.subjects();
        subjects.forget_all();
        subjects.is_complete = is_complete;
        subjects.seeds.retain(|_, seed| seed.at.epoch == *epoch);
        subjects.epoch = Some(epoch.clone());
    }

    /// Whether all subjects that were published to under this epoch are remembered: what comes to one that is not has no
    /// event before it.
    pub(super) fn is_complete(&self) -> bool {
        self.subjects().is_complete
    }

    /// What is to be done with an event, if its subject is known.
    pub(super) fn standing(&self, outgoing: &OutgoingEvent) -> Option<Standing> {
        let mut subjects = self.subjects();
        let seed = subjects.seed(&outgoing.subject, outgoing.seq);
        let known = subjects.by_name.get_mut(&outgoing.subject)?;
        let before = known.others.len();
        let standing = known.standing(outgoing, seed);
        let released = before - known.others.len();
        subjects.others -= released;
        if standing.is_none() {
            subjects.forget(&outgoing.subject);
        }
        standing
    }

    /// The number after which messages of the subject are to be read before this event is published, if its last message is
    /// this one.
    pub(super) fn unread(&self, outgoing: &OutgoingEvent, last: SubjectEnd) -> Option<u64> {
        let after = self.subjects().known_to(outgoing);
        // Before our own message, all was known when it was published; but for those of other logs, that is all our own.
        (last.other > after).then_some(after)
    }

    /// The last message of the subject of this event, and what was read before it, after the number `after`.
    pub(super) fn learn(
        &self,
        outgoing: &OutgoingEvent,
        last: SubjectEnd,
        after: u64,
        read: &[ReadEvent],
        unread_from: Option<u64>,
    ) {
        let mut subjects = self.subjects();
        subjects.make_room(&outgoing.subject, read.len());
        if subjects.known_to(outgoing) < after {
            // What was before it has been forgotten in the meantime.
            return;
        }
        let seed = subjects.seed(&outgoing.subject, outgoing.seq);
        let known = subjects.by_name.entry(Arc::clone(&outgoing.subject)).or_default();
        let before = known.others.len();
        known.learn(last, read, unread_from);
        known.rely_on(seed);
        let now = known.others.len();
        subjects.others = subjects.others + now - before;
    }

    /// What is to be done with the first event of a subject that has none.
    pub(super) fn first_of(&self, outgoing: &OutgoingEvent) -> Option<Standing> {
        self.learn(outgoing, SubjectEnd::default(), 0, &[], None);
        self.standing(outgoing)
    }

    /// An event of our log is in the stream, after `before`.
    pub(super) fn published(
        &self,
        outgoing: &OutgoingEvent,
        before: SubjectEnd,
        sequence: u64,
    ) -> SubjectEnd {
        let end = SubjectEnd { sequence, origin: Some(outgoing.seq), other: before.other };
        let mut subjects = self.subjects();
        // Without it, it was forgotten in the meantime, and what was before this event is not known.
        if let Some(known) = subjects.by_name.get_mut(&outgoing.subject) {
            let before = known.others.len();
            known.published(outgoing, end);
            let released = before - known.others.len();
            subjects.others -= released;
        }
        end
    }

    /// An event of our log was found at this number.
    pub(super) fn found(&self, outgoing: &OutgoingEvent, sequence: u64) {
        let mut subjects = self.subjects();
        match subjects.by_name.get_mut(&outgoing.subject) {
            Some(known) if sequence <= known.end.sequence => known.own = known.own.max(outgoing.seq),
            // What is before it is not known.
            _ => subjects.forget(&outgoing.subject),
        }
    }

    fn subjects(&self) -> MutexGuard<'_, KnownSubjects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct KnownSubjects {
    epoch: Option<Epoch>,
    by_name: HashMap<Arc<str>, KnownSubject>,
    seeds: HashMap<Arc<str>, Seed>,
    /// Events of other logs in `by_name`.
    others: usize,
    is_complete: bool,
}

/// Up to where the store knows a subject.
#[derive(Debug)]
struct Seed {
    at: Cursor,
    after: Seq,
}

/// The same under the epoch of the stream.
#[derive(Clone, Copy, Debug)]
struct KnownToStore {
    sequence: u64,
    /// For later events of the log than this one.
    after: Seq,
}

impl KnownSubjects {
    /// Up to where the store knows a subject, if that holds for this event of the log.
    fn seed(&self, subject: &str, seq: Seq) -> Option<KnownToStore> {
        let seed = self.seeds.get(subject)?;
        let holds = Some(&seed.at.epoch) == self.epoch.as_ref() && seq > seed.after;
        holds.then_some(KnownToStore { sequence: seed.at.seq.0, after: seed.after })
    }

    /// Up to which number all on the subject of this event is known.
    fn known_to(&self, outgoing: &OutgoingEvent) -> u64 {
        let known = self.by_name.get(&outgoing.subject).map_or(0, |known| known.end.sequence);
        let seed = self.seed(&outgoing.subject, outgoing.seq);
        known.max(seed.map_or(0, |seed| seed.sequence))
    }

    fn make_room(&mut self, subject: &Arc<str>, events: usize) {
        let is_full = self.by_name.len() >= SUBJECTS_MAX && !self.by_name.contains_key(subject);
        if is_full || self.others + events > OTHERS_MAX {
            self.forget_all();
        }
    }

    fn forget(&mut self, subject: &str) {
        if let Some(known) = self.by_name.remove(subject) {
            self.others -= known.others.len();
            self.is_complete = false;
        }
    }

    fn forget_all(&mut self) {
        self.by_name.clear();
        self.others = 0;
        self.is_complete = false;
    }
}

/// An event of another log that our log has not had yet.
#[derive(Clone, Copy, Debug)]
struct OtherEvent {
    sequence: u64,
    key: u64,
    content: u32,
    is_item: bool,
}

#[derive(Debug, Default)]
struct KnownSubject {
    end: SubjectEnd,
    /// The newest event of our log that is on it, or was passed over.
    own: Seq,
    /// In order. Those before an event of our log with the same key have gone: its reader got that after them.
    others: Vec<OtherEvent>,
    /// Some from this number on were not read.
    unread_from: Option<u64>,
    /// It is so for later events of our log only: the store knew others when it recorded these.
    after: Seq,
}

impl KnownSubject {
    /// `None` if not enough is known.
    fn standing(&mut self, outgoing: &OutgoingEvent, seed: Option<KnownToStore>) -> Option<Standing> {
        if self.own >= outgoing.seq {
            return Some(Standing::Done(self.end));
        }
        if outgoing.seq <= self.after {
            return None;
        }
        self.rely_on(seed);
        if self.is_same(&outgoing.message) {
            self.own = outgoing.seq;
            return Some(Standing::Same);
        }
        Some(Standing::Due(self.end))
    }

    /// From the next event of our log on, the store knows others up to there.
    fn rely_on(&mut self, seed: Option<KnownToStore>) {
        if let Some(KnownToStore { sequence, after }) = seed {
            self.others.retain(|other| other.sequence > sequence);
            self.unread_from = self.unread_from.filter(|unread| *unread > sequence);
            self.after = self.after.max(after);
        }
    }

    /// Whether an event of another log is the same; it and what came before it are not compared again.
    fn is_same(&mut self, message: &EventMessage) -> bool {
        let Some(identity) = self.identity(message) else { return false };
        let mut of_key = self.others.iter().filter(|other| other.key == identity.key);
        let found = match message.kind {
            EventKind::Item => of_key.next(),
            EventKind::Update => of_key.find(|other| other.content == identity.content),
        };
        let Some(&found) = found else { return false };
        // An update that stands for an item whose first event has gone may be in our log, too.
        if message.kind == EventKind::Update || found.is_item {
            self.release(identity.key, found.sequence);
        }
        true
    }

    /// Most often there is nothing to compare an event with.
    fn identity(&self, message: &EventMessage) -> Option<EventIdentity> {
        if self.others.is_empty() { None } else { EventIdentity::of(&message.json_without_id) }
    }

    fn release(&mut self, key: u64, up_to: u64) {
        self.others.retain(|other| other.key != key || other.sequence > up_to);
        if self.others.is_empty() {
            self.others = Vec::new();
        }
    }

    fn learn(&mut self, last: SubjectEnd, read: &[ReadEvent], unread_from: Option<u64>) {
        for event in read {
            let EventIdentity { key, content } = event.identity;
            match event.origin {
                Some(origin) => {
                    self.own = self.own.max(origin);
                    self.release(key, event.sequence);
                }
                None => self.others.push(OtherEvent {
                    sequence: event.sequence,
                    key,
                    content,
                    is_item: event.kind == EventKind::Item,
                }),
            }
        }
        if let Some(first) = unread_from {
            self.unread_from.get_or_insert(first);
        }
        let surplus = self.others.len().saturating_sub(SUBJECT_MESSAGES_MAX);
        if surplus > 0 {
            self.unread_from.get_or_insert(self.others[0].sequence);
            self.others.drain(..surplus);
        }
        self.own = self.own.max(last.origin.unwrap_or(Seq::NONE));
        self.end = last;
    }

    fn published(&mut self, outgoing: &OutgoingEvent, end: SubjectEnd) {
        if let Some(identity) = self.identity(&outgoing.message) {
            self.release(identity.key, end.sequence);
        }
        self.own = outgoing.seq;
        self.end = end;
    }

    /// Up to which number a store knows all of it that knows it up to `seed`, and its own log.
    fn known_to_store(&self, seed: u64) -> u64 {
        let unknown = self.others.iter().map(|other| other.sequence).chain(self.unread_from);
        unknown.filter(|unknown| *unknown > seed).min().map_or(self.end.sequence, |first| first - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(seq: u64, kind: EventKind, key: &str, title: &str) -> OutgoingEvent {
        let json =
            format!("{{\"key\":\"{key}\",\"title\":\"{title}\",\"summary\":\"\",\"content_html\":null}}");
        let origin = Cursor { epoch: Epoch::try_new("ours").unwrap(), seq: Seq(seq) };
        let message = EventMessage { origin, kind, json_without_id: json.into() };
        OutgoingEvent { seq: Seq(seq), message, subject: "subject".into() }
    }

    fn item(seq: u64, key: &str) -> OutgoingEvent {
        outgoing(seq, EventKind::Item, key, "0")
    }

    fn read(sequence: u64, origin: Option<u64>, kind: EventKind, key: &str, title: &str) -> ReadEvent {
        let identity =
            EventIdentity::of(&outgoing(0, kind, key, title).message.json_without_id).expect("an event");
        ReadEvent { sequence, origin: origin.map(Seq), kind, identity }
    }

    fn other(sequence: u64, key: &str) -> ReadEvent {
        read(sequence, None, EventKind::Item, key, "0")
    }

    fn last_other(sequence: u64) -> SubjectEnd {
        SubjectEnd { sequence, origin: None, other: sequence }
    }

    fn known() -> KnownEnds {
        let known = KnownEnds::default();
        known.begin_epoch(&Epoch::try_new("stream").unwrap(), true);
        known
    }

    fn at(seq: u64) -> Cursor {
        Cursor { epoch: Epoch::try_new("stream").unwrap(), seq: Seq(seq) }
    }

    #[test]
    fn an_event_is_the_same_as_an_item_of_its_key_and_as_an_update_that_came_after_our_last_one() {
        let known = known();
        let update = |seq, title| outgoing(seq, EventKind::Update, "k", title);
        assert_eq!(known.unread(&item(1, "k"), last_other(9)), Some(0));
        let others = [
            other(3, "k"),
            read(4, None, EventKind::Update, "k", "1"),
            read(5, None, EventKind::Update, "k", "2"),
            read(9, None, EventKind::Update, "gone", "1"),
        ];
        known.learn(&item(1, "k"), last_other(9), 0, &others, None);
        assert_eq!(known.standing(&item(1, "k")), Some(Standing::Same));
        assert_eq!(known.standing(&item(1, "k")), Some(Standing::Done(last_other(9))), "asked again");
        assert_eq!(known.standing(&update(2, "2")), Some(Standing::Same));
        assert_eq!(known.standing(&update(3, "1")), Some(Standing::Due(last_other(9))), "changed back");
        assert_eq!(known.standing(&item(4, "new")), Some(Standing::Due(last_other(9))));
        // The item itself was removed by retention.
        assert_eq!(known.standing(&item(5, "gone")), Some(Standing::Same));
        assert_eq!(known.standing(&outgoing(6, EventKind::Update, "gone", "1")), Some(Standing::Same));
        let end = known.published(&item(7, "new"), last_other(9), 10);
        assert_eq!(end, SubjectEnd { sequence: 10, origin: Some(Seq(7)), other: 9 });
        assert_eq!(known.unread(&item(8, "more"), end), None);
        assert_eq!(known.unread(&item(8, "more"), last_other(12)), Some(10));
    }

    #[test]
    fn what_the_store_knew_when_it_recorded_an_event_says_nothing_of_an_earlier_one() {
        let known = known();
        known.know("subject", &at(9), Seq(5));
        assert_eq!(known.unread(&item(6, "k"), last_other(9)), None);
        known.learn(&item(6, "k"), last_other(9), 0, &[], None);
        assert_eq!(known.standing(&item(6, "k")), Some(Standing::Due(last_other(9))));
        // The session with the server has ended, and earlier ones come again.
        assert_eq!(known.standing(&item(5, "k")), None);
        assert_eq!(known.unread(&item(5, "k"), last_other(9)), Some(0), "all is read");
        known.learn(&item(5, "k"), last_other(9), 0, &[other(9, "k")], None);
        assert_eq!(known.standing(&item(5, "k")), Some(Standing::Same));
        assert_eq!(known.standing(&item(6, "k")), Some(Standing::Due(last_other(9))));
    }

    #[test]
    fn what_is_forgotten_while_a_subject_is_read_is_read_again() {
        let known = known();
        known.learn(&item(1, "k"), last_other(3), 0, &[other(3, "k")], None);
        known.subjects().forget("subject");
        known.learn(&item(1, "k"), last_other(5), 3, &[other(5, "more")], None);
        assert_eq!(known.standing(&item(1, "k")), None, "3 would be missing");
        assert_eq!(known.unread(&item(1, "k"), last_other(5)), Some(0));
        // Nor is what is before our own event known after it was forgotten.
        known.published(&item(1, "k"), last_other(5), 6);
        assert_eq!(known.standing(&item(2, "more")), None);
        assert!(!known.is_complete());
    }

    #[test]
    fn a_store_knows_a_subject_up_to_what_it_has_not_recorded_or_what_was_left_unread() {
        let known = known();
        assert_eq!(known.last_of("subject", Seq(9)), None);
        known.learn(&item(1, "k"), last_other(8), 0, &[other(4, "a"), other(8, "b")], None);
        assert_eq!(known.last_of("subject", Seq(9)), Some(at(3)));
        assert_eq!(known.standing(&item(2, "a")), Some(Standing::Same));
        assert_eq!(known.last_of("subject", Seq(9)), Some(at(7)));
        assert_eq!(known.last_of("subject", Seq(1)), None, "the exported state does not have the event 2");
        known.know("subject", &at(8), Seq(2));
        assert_eq!(known.last_of("subject", Seq(9)), Some(at(8)));
        known.learn(&item(3, "k"), last_other(20), 8, &[other(20, "d")], Some(12));
        assert_eq!(known.last_of("subject", Seq(9)), Some(at(11)));
        known.know("subject", &at(20), Seq(2));
        assert_eq!(known.last_of("subject", Seq(9)), Some(at(20)));
        known.begin_epoch(&Epoch::try_new("next").unwrap(), true);
        assert_eq!(known.last_of("subject", Seq(9)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_in_subjects_and_in_events() {
        let known = known();
        for n in 0..=SUBJECTS_MAX {
            let outgoing = OutgoingEvent { subject: n.to_string().into(), ..item(1, "k") };
            known.learn(&outgoing, last_other(1), 0, &[other(1, "k")], None);
        }
        let counts = |subjects: &KnownSubjects| (subjects.by_name.len(), subjects.others);
        assert_eq!(counts(&known.subjects()), (1, 1));
        let many: Vec<_> = (1..=2 * SUBJECT_MESSAGES_MAX as u64).map(|n| other(n, "k")).collect();
        for n in 0..=OTHERS_MAX / SUBJECT_MESSAGES_MAX {
            let outgoing = OutgoingEvent { subject: n.to_string().into(), ..item(1, "k") };
            known.learn(&outgoing, last_other(many.len() as u64), 0, &many, None);
            assert!(known.subjects().others <= OTHERS_MAX);
        }
        let subjects = known.subjects();
        assert_eq!(subjects.others, subjects.by_name.values().map(|known| known.others.len()).sum::<usize>());
    }
}
