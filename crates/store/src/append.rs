//! Step 7 of the life of an item: a sequence number, on disk.
//!
//! ```text
//! classify (new, changed, known) → number → one record → journal → fdatasync → sled → head changes
//! ```
//!
//! The events of a visit, the seen set and the state of its source are one record: after a crash either all of it is there
//! or nothing. A visit without news changes sled only, which is flushed in the background.

mod adopt;

use std::{
    collections::{HashMap, HashSet},
    io,
    ops::Range,
    sync::Arc,
};

use news::{
    Attempt, Cursor, Event, EventKind, Flooding, FloodingBound, FloodingState, HeldHost, Item, Pause, Seq,
    Source, SourceId, SourceState, Timestamp, VisitStatus, WebSubState,
};

use seen::{Classification, ItemStatus, SeenSet};

use crate::{
    commit::Changes,
    flush::Flusher,
    journal::{CommitRecord, JournalWriter, NewRecordEvent, Operation, has_too_many_files},
    lock::Lock,
    options::{Retention, StoreOptions},
    read::{LogReadError, SharedLog},
    record,
    retire::RetiringSegment,
    seen_sets::StoredSeenSet,
    share::{NewEvent, RemovedEvents, Shares},
    table::TableError,
    totals::{EventTotals, OwnerTotals},
    waiting::WaitingItems,
};

pub use adopt::{AdoptedSource, BadExport, SourceExport};

/// The result of one visit, to be appended to the log.
#[derive(Clone, Debug)]
pub struct VisitRecord {
    /// The source that was visited.
    pub source: Arc<Source>,
    /// The items of the document, oldest first; empty if nothing was parsed.
    pub items: Vec<Item>,
    /// The state to store. The writer completes it: it adds to `counts.items` and `counts.updates`, sets `last_news`,
    /// changes a `last_status` of `new` to `unchanged` if no item was, and adds both counts to the newest of `attempts`.
    /// `paused` stays as set by [`LogWriter::pause`], unless that pause is over.
    pub state: SourceState,
    /// When the visit ended.
    pub now: Timestamp,
    /// What the writer does with the number of new items, which it alone knows.
    pub plan: NewsPlan,
}

/// How new items of a visit change the state of its source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewsPlan {
    /// The new items have appeared after this time; `None` at the first visit of a source.
    pub since: Option<Timestamp>,
    /// The next visit, if enough items are new.
    pub sooner: Option<SoonerVisit>,
    /// The visits before were as usual, so that new items end a silence of the source, not of its visits.
    pub was_watched: bool,
    /// The document has only what has changed (226): an item that is absent has not left the feed.
    pub is_delta: bool,
}

/// The next visit of a source that turns out to publish much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoonerVisit {
    /// If so many items are new.
    pub items: u32,
    /// When it is due.
    pub at: Timestamp,
    /// Why then.
    pub why: String,
}

/// What was appended for a visit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendedVisit {
    /// Items that were new.
    pub new: u32,
    /// Items that had changed.
    pub updated: u32,
    /// New items that are held back, because the guids of the source flap.
    pub held: u32,
    /// The source has changed the guids of its items, or the links that it has instead; they were matched by what else
    /// they have.
    pub flapping: bool,
    /// A later visit sends something even if the document has not changed then: what is held, or was absorbed.
    pub waiting: bool,
    /// Changed items whose update was absorbed, because the source changes them at most visits.
    pub absorbed: u32,
    /// Items that are no longer remembered, because the source has had more than [`SeenSet::ENTRIES_MAX`] others since: they
    /// are new if they appear again.
    pub forgotten: u32,
    /// New and changed items that a later visit records, because this one has recorded as much as it may.
    pub deferred: u32,
    /// Their size in bytes, as they would be stored.
    pub deferred_bytes: u64,
    /// What they wait for.
    pub bound: Option<FloodingBound>,
    /// Items that waited and are no longer in the document: they are never recorded.
    pub lost: u32,
    /// The first event.
    pub first: Option<Seq>,
    /// The last event.
    pub last: Option<Seq>,
    /// The state as stored.
    pub state: SourceState,
}

/// What retention removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Events removed.
    pub removed: u64,
    /// Whether there is more to remove.
    pub more: bool,
}

/// Why an append failed. Nothing of it is visible, nothing more may be appended, and the process must stop: after a
/// failed write it is unknown what is on disk.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The journal could not be written, synced or read.
    #[error("cannot write the journal: {0}; check the disk and its free space, then start again")]
    Journal(#[from] io::Error),
    /// sled could not be written or read.
    #[error("cannot use the states of sources: {0}; check the disk and its free space, then start again")]
    Table(#[from] TableError),
    /// What sled has could not be brought to the disk.
    #[error(
        "cannot bring the states of sources to the disk: {0}; check the disk and its free space, then start again"
    )]
    Flush(Arc<TableError>),
}

impl From<LogReadError> for AppendError {
    fn from(error: LogReadError) -> Self {
        match error {
            LogReadError::Journal(error) => Self::Journal(error),
            LogReadError::Table(error) => Self::Table(error),
        }
    }
}

/// The warning in the state of a source whose guids flap.
const FLAPPING: &str =
    "guid-flap: guids or links change from visit to visit; items are matched by link, title, text and date";
/// The warning in the state of a source whose updates are absorbed.
const DAMPED: &str = "update-flap: the text of many items changes from visit to visit; their updates are not sent until it stops";

/// The seen sets of one commit, in entries: about 20 MB.
const SEEN_ENTRIES_PER_COMMIT: usize = 100_000;
/// Values that are journalled again in one record.
const KEYS_PER_RECORD: usize = 256;
/// Bytes of them, about; each may have some megabytes.
const BYTES_PER_RECORD: usize = 1 << 20;

/// The only writer of the log.
pub struct LogWriter {
    shared: Arc<SharedLog>,
    journal: JournalWriter,
    flusher: Flusher,
    _lock: Lock,
    live_bytes: u64,
    retention: Retention,
    retiring: Option<RetiringSegment>,
    new_bytes_max: u64,
    shares: Shares,
    share_percent: u64,
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter")
            .field("epoch", &self.shared.journal.epoch)
            .field("head", &self.shared.head())
            .finish()
    }
}

/// A commit that is being built.
struct Commit {
    events: Vec<NewRecordEvent>,
    changes: Changes,
    seen: HashMap<SourceId, StoredSeenSet>,
    /// The sources of which `seen` has changed.
    changed_seen: HashSet<SourceId>,
    waiting: HashMap<SourceId, WaitingItems>,
    /// The state of each source, and the commit whose record has the one before.
    states: HashMap<SourceId, (Vec<u8>, u64)>,
    /// The sources with news, whose state and seen set must be in the journal.
    with_news: HashSet<SourceId>,
    head: Seq,
    live_bytes: u64,
}

/// A visit that has read a document.
struct DocumentVisit<'a> {
    source: &'a Source,
    now: Timestamp,
    unchanged_visits: u32,
    /// What waited before it.
    waited: &'a WaitingItems,
    /// The document may not have all that the feed has.
    is_incomplete: bool,
}

impl DocumentVisit<'_> {
    /// What has waited and still does, although the document with these keys does not have it. Of a complete one, that is
    /// lost.
    fn absent<'k>(&self, keys: impl Iterator<Item = &'k str>, result: &mut AppendedVisit) -> WaitingItems {
        let absent = self.waited.missing_from(keys);
        if self.is_incomplete {
            return absent;
        }
        result.lost = absent.count();
        WaitingItems::default()
    }
}

/// After so many visits in a row whose document was cut off, that is all there is.
const CUT_OFF_MAX: usize = 8;

/// Whether a document was cut off, and may be whole at the next visit.
fn is_cut_off(state: &SourceState) -> bool {
    let is_partial = |attempt: &&Attempt| attempt.status == VisitStatus::Partial;
    state.last_status == Some(VisitStatus::Partial)
        && state.attempts.iter().rev().take_while(is_partial).count() < CUT_OFF_MAX
}

/// How often the source publishes, and when the next visit is due because of that.
fn note_news(
    state: &mut SourceState,
    plan: NewsPlan,
    result: &AppendedVisit,
    now: Timestamp,
    is_in_parts: bool,
) {
    if result.last.is_some() {
        if let Some(before) = state.last_news.filter(|_| plan.was_watched && !is_in_parts) {
            state.silences.note(before, now);
        }
        state.last_news = Some(now);
    }
    if let Some(since) = plan.since.filter(|_| !is_in_parts) {
        state.news.note(result.new, since, now);
    }
    if let Some(sooner) = plan.sooner.filter(|sooner| !is_in_parts && result.new >= sooner.items) {
        (state.next_visit, state.why) = (Some(sooner.at), sooner.why);
    }
}

impl LogWriter {
    /// Maximum number of events that one [`LogWriter::retain`] removes, so that an append never waits long for it.
    pub const REMOVED_MAX: usize = 2000;

    /// Of a log that was just opened, whose sources have so many events.
    pub(crate) fn try_new(
        shared: Arc<SharedLog>,
        journal: JournalWriter,
        lock: Lock,
        totals: OwnerTotals,
        options: &StoreOptions,
    ) -> io::Result<Self> {
        let Retention { age, events, bytes } = options.retention;
        let live_bytes = totals.values().map(|totals| totals.bytes).sum();
        let kept = EventTotals { events, bytes };
        Ok(Self {
            shares: Shares::open(&shared, options.share, totals, kept, age)?,
            flusher: Flusher::start(&shared)?,
            shared,
            journal,
            _lock: lock,
            live_bytes,
            retention: options.retention,
            retiring: None,
            new_bytes_max: options.new_bytes_max,
            share_percent: options.share.percent,
        })
    }

    /// Appends the visits in order, and makes them visible once they are on disk: as one commit, or as several if their seen
    /// sets are large. A visit is never divided. Blocks.
    ///
    /// # Errors
    /// [`AppendError`]: nothing of a commit that failed is visible, and the process must stop.
    pub fn append(&mut self, visits: Vec<VisitRecord>) -> Result<Vec<AppendedVisit>, AppendError> {
        self.append_noting(visits, &mut || {})
    }

    /// As [`LogWriter::append`]. Calls `prepared` before each commit, when it is known what it has, and only the writing is left:
    /// for those who measure.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn append_noting(
        &mut self,
        visits: Vec<VisitRecord>,
        prepared: &mut dyn FnMut(),
    ) -> Result<Vec<AppendedVisit>, AppendError> {
        let mut appended = Vec::with_capacity(visits.len());
        let mut commit = self.begin();
        for visit in visits {
            appended.push(self.add(&mut commit, visit)?);
            let entries: usize = commit.seen.values().map(|seen| seen.set.item_count()).sum();
            if entries > SEEN_ENTRIES_PER_COMMIT {
                self.finish(commit, prepared)?;
                commit = self.begin();
            }
        }
        self.finish(commit, prepared)?;
        Ok(appended)
    }

    fn begin(&mut self) -> Commit {
        self.shares.begin();
        Commit {
            events: Vec::new(),
            changes: Changes::default(),
            seen: HashMap::new(),
            changed_seen: HashSet::new(),
            waiting: HashMap::new(),
            states: HashMap::new(),
            with_news: HashSet::new(),
            head: self.shared.head(),
            live_bytes: self.live_bytes,
        }
    }

    fn finish(&mut self, commit: Commit, prepared: &mut dyn FnMut()) -> Result<(), AppendError> {
        let Commit {
            events,
            mut changes,
            mut seen,
            changed_seen,
            waiting,
            states,
            with_news,
            head,
            live_bytes,
        } = commit;
        for source in changed_seen {
            let Some(seen) = seen.remove(&source) else { continue };
            seen.write(&self.shared.table, &source, with_news.contains(&source), &mut changes)?;
        }
        for (source, waits) in waiting {
            waits.write(&mut changes, &source);
        }
        for (source, (state, before)) in states {
            let key = record::state_key(&source);
            if with_news.contains(&source) {
                changes.journalled(key, Some(state));
            } else {
                changes.in_sled(key, Some(state), before);
            }
        }
        prepared();
        self.commit(events, changes, head)?;
        self.live_bytes = live_bytes;
        self.shared.set_head(head);
        crate::crash::point("append-visible");
        Ok(())
    }

    /// Brings a commit to the disk, and then to sled. `head` is its last event. The journal has it unless it would be empty
    /// there.
    fn commit(
        &mut self,
        events: Vec<NewRecordEvent>,
        changes: Changes,
        head: Seq,
    ) -> Result<(), AppendError> {
        self.check()?;
        let operations = changes.operations();
        crate::crash::point("append-built");
        let number = if events.is_empty() && operations.is_empty() {
            self.journal.next().0 - 1
        } else {
            self.append_record(events, operations)?
        };
        if changes.are_in_sled_only() {
            self.shared.table.apply(changes.into_table(number), number, head)?;
            // What the journal does not have must outlive this process at least: a visit that is forgotten is made again, which
            // a host may not allow.
            self.shared.table.write()?;
        } else {
            self.shared.table.apply_journalled(changes.into_table(number), number, head)?;
        }
        crate::crash::point("append-applied");
        self.flusher.notify();
        Ok(())
    }

    /// Returns the number of its commit.
    fn append_record(&mut self, events: Vec<NewRecordEvent>, operations: Vec<Operation>) -> io::Result<u64> {
        self.journal.check_place()?;
        let (number, first) = self.journal.next();
        let oldest = self.shared.oldest();
        self.journal.append(&CommitRecord { number, first, oldest, events, operations })?;
        Ok(number)
    }

    /// Writes into the journal again what sled has of these commits, and what it has of none if 0 is one of them.
    pub(crate) fn journal_again(&mut self, commits: &[Range<u64>]) -> Result<(), AppendError> {
        let mut last = Vec::new();
        loop {
            let keys = self.shared.table.keys_after(&last, KEYS_PER_RECORD)?;
            let Some(end) = keys.last().cloned() else { return Ok(()) };
            last = end;
            let mut changes = Changes::default();
            let mut bytes = 0;
            for key in keys {
                let Some(stored) = self.shared.table.get(&key)? else { continue };
                if commits.iter().any(|commits| commits.contains(&stored.commit)) {
                    bytes += stored.value.len();
                    changes.journalled(key, Some(stored.value));
                }
                if bytes >= BYTES_PER_RECORD {
                    bytes = 0;
                    self.commit(Vec::new(), std::mem::take(&mut changes), self.shared.head())?;
                }
            }
            if !changes.is_empty() {
                self.commit(Vec::new(), changes, self.shared.head())?;
            }
        }
    }

    /// Fails if sled could not be flushed in the background, or another program has changed the journal.
    ///
    /// # Errors
    /// [`AppendError::Flush`] or [`AppendError::Journal`]: the process must stop.
    pub fn check(&self) -> Result<(), AppendError> {
        self.journal.check_place()?;
        self.flusher.failure().map_or(Ok(()), |error| Err(AppendError::Flush(error)))
    }

    /// Brings everything to the disk, so that the next start has nothing to do. Without it, nothing is lost either.
    ///
    /// # Errors
    /// [`AppendError`] if the disk fails.
    pub fn close(self) -> Result<(), AppendError> {
        self.check()?;
        self.flusher.stop();
        self.shared.table.close()?;
        self.shared.identity.renew()?;
        crate::crash::point("shutdown-flushed");
        Ok(())
    }

    fn add(&mut self, commit: &mut Commit, visit: VisitRecord) -> Result<AppendedVisit, AppendError> {
        let VisitRecord { source, items, mut state, now, plan } = visit;
        let mut result = AppendedVisit::default();
        let is_document =
            !items.is_empty() || matches!(state.last_status, Some(VisitStatus::New | VisitStatus::Partial));
        let was_flooding = state.flooding.is_some();
        let mut waiting = 0;
        if is_document {
            let unchanged_visits =
                if items.is_empty() { 0 } else { std::mem::take(&mut state.unchanged_visits) };
            let waited =
                if was_flooding { self.waiting_items(commit, &source.id)? } else { WaitingItems::default() };
            let is_incomplete = plan.is_delta || is_cut_off(&state);
            let visit =
                DocumentVisit { source: &source, now, unchanged_visits, waited: &waited, is_incomplete };
            let mut waits = self.add_items(commit, &visit, items, &mut result)?;
            result.lost += waits.limit(result.deferred);
            waiting = waits.count();
            if waits != waited {
                commit.waiting.insert(source.id.clone(), waits);
                // The state says what waits.
                commit.with_news.insert(source.id.clone());
            }
        } else if state.last_status == Some(VisitStatus::Unchanged) {
            state.unchanged_visits = state.unchanged_visits.saturating_add(1);
        }
        if result.waiting {
            // The next visit reads the document, even if it has not changed.
            (state.etag, state.last_modified, state.body_hash) = (None, None, None);
        }
        if result.flapping {
            state.guids_flap = true;
            state.warnings.push(FLAPPING.to_owned());
        }
        if is_document {
            self.note_flooding(&mut state, &source, &result, waiting, now);
        }
        if result.absorbed > 0 || (result.waiting && result.held == 0) {
            state.updates_damped = true;
            state.warnings.push(DAMPED.to_owned());
        }
        if result.forgotten > 0 {
            state.warnings.push(format!(
                "too-many-items: the last {} are remembered; older ones are new if they appear again",
                SeenSet::ENTRIES_MAX
            ));
        }
        // A pause may have been ordered during the visit.
        let stored = self.shared.state(&source.id)?;
        let stored_commit = stored.as_ref().map_or(0, |(_, commit)| *commit);
        state.paused = stored.and_then(|(state, _)| state.paused).filter(|pause| pause.is_active(now));
        state.counts.items += u64::from(result.new);
        state.counts.updates += u64::from(result.updated);
        // A document that is recorded in parts says nothing about how often the feed publishes.
        let is_in_parts = was_flooding || result.deferred > 0;
        note_news(&mut state, plan, &result, now, is_in_parts);
        if state.last_status == Some(VisitStatus::New) && result.last.is_none() {
            state.last_status = Some(VisitStatus::Unchanged);
            state.counts.unchanged += 1;
        }
        state.finish_attempt(result.new, result.updated);
        if result.last.is_some() {
            commit.with_news.insert(source.id.clone());
        }
        commit.states.insert(source.id.clone(), (record::seal_state(&state), stored_commit));
        result.state = state;
        Ok(result)
    }

    /// What waits must be in the status, and the next visits must read the document again: the same bytes are not skipped,
    /// and the request is without validators, as far as `full_visits` allows it. `waiting` counts also what this document does
    /// not have.
    fn note_flooding(
        &self,
        state: &mut SourceState,
        source: &Source,
        result: &AppendedVisit,
        waiting: u32,
        now: Timestamp,
    ) {
        let before = state.flooding.take();
        if waiting == 0 {
            return;
        }
        let known = before.as_ref().map(|before| before.flooding);
        let bound = result.bound.or(known.map(|known| known.bound)).unwrap_or_default();
        // Of the size of what is absent, only the average is known.
        let absent = u64::from(waiting.saturating_sub(result.deferred));
        let absent_bytes = known.map_or(0, |known| {
            known.waiting_bytes.saturating_mul(absent) / u64::from(known.waiting_items.max(1))
        });
        let (items, bytes) = (waiting, result.deferred_bytes + absent_bytes);
        let was_full = before.is_some() && state.asked_in_full == Some(now);
        let full_visits = before.as_ref().map_or(0, |before| before.full_visits);
        let since = before.as_ref().map_or(now, |before| before.flooding.since);
        let lost_before = before.map_or(0, |before| before.flooding.lost_items);
        let lost_items = lost_before.saturating_add(result.lost);
        let flooding = Flooding { since, waiting_items: items, waiting_bytes: bytes, bound, lost_items };
        let full_visits = full_visits.saturating_add(u8::from(was_full));
        state.flooding = Some(Box::new(FloodingState { flooding, full_visits }));
        state.body_hash = None;
        let lost = match lost_items {
            0 => String::new(),
            lost => format!("; {lost} that waited have left the feed and are lost"),
        };
        let why = self.why_waits(bound, source);
        state
            .warnings
            .push(format!("flooding: {items} items of {bytes} bytes wait for later visits; {why}{lost}"));
    }

    fn why_waits(&self, bound: FloodingBound, source: &Source) -> String {
        let share = |of: &str| {
            let percent = self.share_percent;
            format!(
                "the source has its share of {of} ({percent} %, store.source_share_percent), and would displace items of \
                 others"
            )
        };
        match bound {
            FloodingBound::Visit => {
                let max = self.new_bytes_max(source);
                format!("one visit records at most {max} bytes (fetch.new_bytes_max)")
            }
            FloodingBound::Retention => share("the log (store.retention_events, store.retention_bytes)"),
            FloodingBound::Ring => {
                share("what the gateways keep in memory (gateway.ring_events, gateway.ring_bytes)")
            }
        }
    }

    fn new_bytes_max(&self, source: &Source) -> u64 {
        source.new_bytes_max.unwrap_or(self.new_bytes_max)
    }

    fn waiting_items(&self, commit: &Commit, source: &SourceId) -> Result<WaitingItems, TableError> {
        match commit.waiting.get(source) {
            Some(waiting) => Ok(waiting.clone()),
            None => WaitingItems::read(&self.shared.table, source),
        }
    }

    fn classify(
        &self,
        commit: &mut Commit,
        visit: &DocumentVisit<'_>,
        items: &[Item],
        result: &mut AppendedVisit,
    ) -> Result<Classification, TableError> {
        let source = &visit.source.id;
        let seen = match commit.seen.entry(source.clone()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(StoredSeenSet::read(&self.shared.table, source)?)
            }
        };
        let seen = &mut seen.set;
        seen.pass_unchanged(visit.unchanged_visits);
        let classification = seen.classify(items, visit.now);
        let count = |status| u32::try_from(classification.count(status)).unwrap_or(u32::MAX);
        result.flapping = classification.flapping;
        result.waiting = classification.waiting;
        result.held = count(ItemStatus::Held);
        result.absorbed = count(ItemStatus::Absorbed);
        result.forgotten = u32::try_from(classification.forgotten).unwrap_or(u32::MAX);
        Ok(classification)
    }

    /// Adds what is new of a document. Returns what waits.
    fn add_items(
        &mut self,
        commit: &mut Commit,
        visit: &DocumentVisit<'_>,
        items: Vec<Item>,
        result: &mut AppendedVisit,
    ) -> Result<WaitingItems, AppendError> {
        if items.is_empty() {
            return Ok(visit.absent(std::iter::empty(), result));
        }
        let &DocumentVisit { source, now, .. } = visit;
        let classification = self.classify(commit, visit, &items, result)?;
        let keys = classification.items.iter().map(|item| item.key.as_str());
        let mut waits = visit.absent(keys, result);
        if !classification.changed {
            return Ok(waits);
        }
        let max = self.new_bytes_max(source);
        let event_of_source = NewEvent::of(&source.id, now);
        let mut bytes = 0_u64;
        let mut deferred_from = None;
        for (n, (mut item, classified)) in items.into_iter().zip(&classification.items).enumerate() {
            item.key.clone_from(&classified.key);
            let (kind, first_seen) = match classified.status {
                ItemStatus::Known | ItemStatus::Held | ItemStatus::Absorbed => continue,
                ItemStatus::New => (EventKind::Item, now),
                ItemStatus::Changed { first_seen } => (EventKind::Update, first_seen),
            };
            let seq = commit.head.next();
            let id = Cursor { epoch: self.shared.journal.epoch.clone(), seq };
            let event = Event::new(id, kind, source, first_seen, item);
            let value = record::seal_event(kind, now, &event.to_json());
            let size = value.len() as u64;
            let new_event = event_of_source.sized(size);
            // After the first item that does not fit the others wait, too, so that the order stays. One always fits into a
            // visit, or it would wait for ever.
            if deferred_from.is_none() {
                result.bound = if bytes > 0 && bytes + size > max {
                    Some(FloodingBound::Visit)
                } else {
                    self.shares.bound_met(&self.shared, commit.head, commit.live_bytes, new_event)?
                };
            }
            if result.bound.is_some() {
                deferred_from.get_or_insert(n);
                result.deferred += 1;
                result.deferred_bytes += size;
                waits.add(&classified.key);
                continue;
            }
            match kind {
                EventKind::Item => result.new += 1,
                EventKind::Update => result.updated += 1,
            }
            bytes += size;
            commit.live_bytes += size;
            let owner = source.id.clone();
            commit.events.push(NewRecordEvent { owner, recorded: now, sealed: value });
            commit.head = seq;
            self.shares.add(new_event);
            result.first.get_or_insert(seq);
            result.last = Some(seq);
        }
        if let Some((from, seen)) = deferred_from.zip(commit.seen.get_mut(&source.id)) {
            seen.set.defer(&classification, from);
        }
        commit.changed_seen.insert(source.id.clone());
        Ok(waits)
    }

    /// Sets or ends the pause of sources; the rest of their state is unchanged. Blocks until it is on disk.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn pause(&mut self, orders: Vec<(SourceId, Option<Pause>)>) -> Result<(), AppendError> {
        let mut changes = Changes::default();
        for (source, paused) in orders {
            let mut state = self.shared.state(&source)?.map(|(state, _)| state).unwrap_or_default();
            state.paused = paused;
            changes.journalled(record::state_key(&source), Some(record::seal_state(&state)));
        }
        self.commit(Vec::new(), changes, self.shared.head())
    }

    /// Stores the WebSub state of sources without a visit; sources that were never visited are ignored. Blocks until it is
    /// on disk.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn write_subscriptions(
        &mut self,
        changes: Vec<(SourceId, Option<Box<WebSubState>>)>,
    ) -> Result<(), AppendError> {
        self.change_states(changes, |state, websub| state.websub = websub)
    }

    /// Marks the states of sources that were taken out of the list; sources that were never visited are ignored. Blocks until
    /// it is on disk.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn mark_removed(&mut self, sources: Vec<SourceId>) -> Result<(), AppendError> {
        self.change_states(sources.into_iter().map(|source| (source, ())).collect(), |state, ()| {
            state.removed = true;
        })
    }

    fn change_states<T>(
        &mut self,
        of: Vec<(SourceId, T)>,
        change: impl Fn(&mut SourceState, T),
    ) -> Result<(), AppendError> {
        let mut changes = Changes::default();
        for (source, to) in of {
            let Some((mut state, _)) = self.shared.state(&source)? else { continue };
            change(&mut state, to);
            changes.journalled(record::state_key(&source), Some(record::seal_state(&state)));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.commit(Vec::new(), changes, self.shared.head())
    }

    /// Replaces the hosts that asked for a pause. Blocks until they are on disk.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn write_held_hosts(&mut self, hosts: &[HeldHost]) -> Result<(), AppendError> {
        let json = serde_json::to_vec(hosts).expect("every field of a held host has a JSON form");
        let mut changes = Changes::default();
        changes.journalled(record::HOSTS.to_vec(), Some(record::seal(&[&json])));
        self.commit(Vec::new(), changes, self.shared.head())
    }

    /// Removes the oldest events beyond the limits of [`Retention`] in number and bytes, and those recorded before
    /// `aged_before`; at most [`LogWriter::REMOVED_MAX`] per call. The caller, who knows whether the clock can be trusted,
    /// applies [`Retention::age`]; with `None` no event is removed because of its age. The newest event always stays, so that
    /// the sequence continues after a restart. Blocks.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn retain(&mut self, aged_before: Option<Timestamp>) -> Result<Retained, AppendError> {
        self.check()?;
        match self.remove_oldest(aged_before) {
            // The next step may open files again.
            Err(AppendError::Journal(error)) if has_too_many_files(&error) => Ok(Retained::default()),
            retained => retained,
        }
    }

    fn remove_oldest(&mut self, aged_before: Option<Timestamp>) -> Result<Retained, AppendError> {
        let (oldest, head) = (self.shared.oldest(), self.shared.head());
        let mut first_kept = oldest;
        let mut gone = RemovedEvents::default();
        let mut events = self.shared.journal.events_from(oldest);
        let mut removed = 0;
        while removed < Self::REMOVED_MAX as u64 {
            // What is damaged goes with what is before it.
            let Some(event) = events.next()?.filter(|event| event.seq < head) else { break };
            let kept = head.0 - event.seq.0 + 1;
            let within = kept <= self.retention.events
                && self.live_bytes.saturating_sub(gone.bytes) <= self.retention.bytes
                && aged_before.is_none_or(|instant| event.recorded >= instant);
            if within {
                break;
            }
            gone.add(&event);
            first_kept = event.seq.next();
            removed += 1;
        }
        if first_kept > oldest {
            self.shares.remove(&gone, first_kept);
            self.live_bytes = self.live_bytes.saturating_sub(gone.bytes);
            self.shared.set_oldest(first_kept);
            self.shared.table.set_oldest(first_kept)?;
            self.flusher.notify();
            crate::crash::point("retain-noted");
        }
        let is_retiring = self.retire()?;
        let removed = first_kept.0 - oldest.0;
        Ok(Retained { removed, more: removed >= Self::REMOVED_MAX as u64 || is_retiring })
    }

    /// Removes the oldest segment if all of its events are gone, after what only it knows of sources was written again. Returns
    /// whether there is more to do.
    fn retire(&mut self) -> Result<bool, AppendError> {
        let Some((number, commits)) = self.journal.removable(self.shared.oldest()) else { return Ok(false) };
        let mut retiring = match self.retiring.take() {
            Some(retiring) => retiring,
            None => RetiringSegment::read(&self.shared.journal, commits)?,
        };
        if let Some(changes) = retiring.next_changes(&self.shared.table)? {
            self.retiring = Some(retiring);
            if !changes.is_empty() {
                self.commit(Vec::new(), changes, self.shared.head())?;
            }
            return Ok(true);
        }
        if self.shared.journal.noted_oldest() < self.shared.oldest() {
            // A segment that is missing without such a note is damage.
            let number = self.append_record(Vec::new(), Vec::new())?;
            self.shared.table.apply([], number, self.shared.head())?;
        }
        crate::crash::point("retain-carried");
        self.journal.remove_oldest(number)?;
        crate::crash::point("retain-unlinked");
        Ok(self.journal.removable(self.shared.oldest()).is_some())
    }

    /// Bytes of events kept, as stored.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of the segments of the journal.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        self.shared.journal.bytes()
    }
}
