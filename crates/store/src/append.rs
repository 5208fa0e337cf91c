//! Step 7 of the life of an item: a sequence number, on disk.
//!
//! ```text
//! classify (new, changed, known) → number → one sled batch → flush → fdatasync → head changes
//! ```
//!
//! The events of a visit, the seen set and the state of its source are one commit: after a crash either all of it is
//! there or nothing. sled's flush only starts the write-back, so the file is synced here.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    sync::Arc,
};

use news::{
    Attempt, Cursor, Event, EventKind, Flooding, FloodingBound, FloodingState, HeldHost, Item, Pause, Seq,
    Source, SourceId, SourceState, Timestamp, VisitStatus, WebSubState,
};

use seen::{Classification, ItemStatus, SeenSet};

use crate::{
    Retention, StoreOptions,
    open::Lock,
    pieces,
    read::{LogReadError, SharedLog},
    record::{self, Damage},
    share::{NewEvent, RemovedEvents, Shares},
    waiting::WaitingItems,
};

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
    /// The log could not be written.
    #[error("cannot write the log: {0}; check the disk and its free space, then start again")]
    Sled(#[from] sled::Error),
    /// The log could not be synced.
    #[error("cannot sync the log to disk: {0}; check the disk and its free space, then start again")]
    Sync(#[from] io::Error),
    /// The data is damaged.
    #[error(transparent)]
    Read(#[from] LogReadError),
}

/// The warning in the state of a source whose guids flap.
const FLAPPING: &str =
    "guid-flap: guids or links change from visit to visit; items are matched by link, title, text and date";
/// The warning in the state of a source whose updates are absorbed.
const DAMPED: &str = "update-flap: the text of many items changes from visit to visit; their updates are not sent until it stops";

/// The steps of an append after which tests crash the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrashPoint {
    /// The batch is built and nothing is written.
    Built,
    /// The batch is in sled, not yet on disk.
    Applied,
    /// sled has flushed it.
    Flushed,
    /// The file is synced; the head has not changed.
    Synced,
    /// It is visible to readers.
    Visible,
}

impl CrashPoint {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Built, Self::Applied, Self::Flushed, Self::Synced, Self::Visible];
}

/// The only writer of the log.
pub struct LogWriter {
    shared: Arc<SharedLog>,
    file: File,
    _lock: Lock,
    live_bytes: u64,
    retention: Retention,
    new_bytes_max: u64,
    shares: Shares,
    share_percent: u64,
    on_step: Option<Box<dyn FnMut(CrashPoint) + Send>>,
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter")
            .field("epoch", &self.shared.epoch)
            .field("head", &self.shared.head())
            .finish()
    }
}

/// A commit that is being built.
struct Commit {
    batch: sled::Batch,
    seen: HashMap<SourceId, SeenSet>,
    /// The sources of which `seen` has changed.
    changed_seen: HashSet<SourceId>,
    waiting: HashMap<SourceId, WaitingItems>,
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

impl LogWriter {
    /// Maximum number of events that one [`LogWriter::retain`] removes, so that an append never waits long for it.
    pub const REMOVED_MAX: usize = 2000;

    pub(crate) fn new(
        shared: Arc<SharedLog>,
        file: File,
        lock: Lock,
        live_bytes: u64,
        shares: Shares,
        options: &StoreOptions,
    ) -> Self {
        Self {
            shared,
            file,
            _lock: lock,
            live_bytes,
            retention: options.retention,
            new_bytes_max: options.new_bytes_max,
            shares,
            share_percent: options.share.percent,
            on_step: None,
        }
    }

    /// Calls `on_step` at each [`CrashPoint`] of every append: crash tests kill the process there.
    #[must_use]
    pub fn with_steps(mut self, on_step: impl FnMut(CrashPoint) + Send + 'static) -> Self {
        self.on_step = Some(Box::new(on_step));
        self
    }

    /// Appends the visits in order, as one commit, and makes it visible once it is on disk. Blocks.
    ///
    /// # Errors
    /// [`AppendError`]: nothing of it is visible, and the process must stop.
    pub fn append(&mut self, visits: Vec<VisitRecord>) -> Result<Vec<AppendedVisit>, AppendError> {
        self.shares.begin();
        let mut commit = Commit {
            batch: sled::Batch::default(),
            seen: HashMap::new(),
            changed_seen: HashSet::new(),
            waiting: HashMap::new(),
            head: self.shared.head(),
            live_bytes: self.live_bytes,
        };
        let before = commit.head;
        let mut appended = Vec::with_capacity(visits.len());
        for visit in visits {
            appended.push(self.add(&mut commit, visit)?);
        }
        let db = &self.shared.db;
        for source in &commit.changed_seen {
            let Some(seen) = commit.seen.get(source) else { continue };
            pieces::replace(db, &mut commit.batch, &record::seen_key(source), record::seal_seen(seen))?;
        }
        for (source, waits) in &commit.waiting {
            waits.write(db, &mut commit.batch, source)?;
        }
        if commit.head > before {
            commit.batch.insert(record::LIVE_BYTES, record::seal(&[&commit.live_bytes.to_le_bytes()]));
            self.shares.finish(&mut commit.batch, self.shared.oldest(), commit.head);
        }
        self.step(CrashPoint::Built);
        self.shared.db.apply_batch(commit.batch)?;
        self.step(CrashPoint::Applied);
        self.shared.db.flush()?;
        self.step(CrashPoint::Flushed);
        self.file.sync_data()?;
        self.step(CrashPoint::Synced);
        self.live_bytes = commit.live_bytes;
        self.shared.set_head(commit.head);
        self.step(CrashPoint::Visible);
        Ok(appended)
    }

    fn step(&mut self, step: CrashPoint) {
        if let Some(on_step) = &mut self.on_step {
            on_step(step);
        }
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
        state.paused = stored.and_then(|s| s.paused).filter(|pause| pause.is_active(now));
        state.counts.items += u64::from(result.new);
        state.counts.updates += u64::from(result.updated);
        // A document that is recorded in parts says nothing about how often the feed publishes.
        let is_in_parts = was_flooding || result.deferred > 0;
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
        if state.last_status == Some(VisitStatus::New) && result.last.is_none() {
            state.last_status = Some(VisitStatus::Unchanged);
            state.counts.unchanged += 1;
        }
        state.finish_attempt(result.new, result.updated);
        let json = serde_json::to_vec(&state).expect("every field of a state has a JSON form");
        commit.batch.insert(record::state_key(&source.id), record::seal(&[&json]));
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

    fn waiting_items(&self, commit: &Commit, source: &SourceId) -> Result<WaitingItems, LogReadError> {
        match commit.waiting.get(source) {
            Some(waiting) => Ok(waiting.clone()),
            None => WaitingItems::read(&self.shared.db, source),
        }
    }

    fn classify(
        &self,
        commit: &mut Commit,
        visit: &DocumentVisit<'_>,
        items: &[Item],
        result: &mut AppendedVisit,
    ) -> Result<Classification, LogReadError> {
        let source = &visit.source.id;
        let seen = match commit.seen.entry(source.clone()) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(self.load_seen(source)?),
        };
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
            let id = Cursor { epoch: self.shared.epoch.clone(), seq };
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
            pieces::insert(&mut commit.batch, &record::event_key(seq), value);
            commit.head = seq;
            self.shares.add(&self.shared, new_event)?;
            result.first.get_or_insert(seq);
            result.last = Some(seq);
        }
        let seen = commit.seen.entry(source.id.clone()).or_default();
        if let Some(from) = deferred_from {
            seen.defer(&classification, from);
        }
        commit.changed_seen.insert(source.id.clone());
        Ok(waits)
    }

    /// Sets or ends the pause of sources; the rest of their state is unchanged. Blocks until it is on disk.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn pause(&mut self, orders: Vec<(SourceId, Option<Pause>)>) -> Result<(), AppendError> {
        let mut batch = sled::Batch::default();
        for (source, paused) in orders {
            let mut state = self.shared.state(&source)?.unwrap_or_default();
            state.paused = paused;
            let json = serde_json::to_vec(&state).expect("every field of a state has a JSON form");
            batch.insert(record::state_key(&source), record::seal(&[&json]));
        }
        self.shared.db.apply_batch(batch)?;
        self.shared.db.flush()?;
        Ok(self.file.sync_data()?)
    }

    fn load_seen(&self, source: &SourceId) -> Result<SeenSet, LogReadError> {
        let key = record::seen_key(source);
        let Some(stored) = self.shared.db.get(&key)? else { return Ok(SeenSet::default()) };
        let value = pieces::value(&self.shared.db, &key, stored)?;
        value.and_then(|value| record::unseal_seen(&value)).map_err(|damage| LogReadError::Damaged {
            what: format!("the list of keys of source {source}"),
            damage,
        })
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
        let mut batch = sled::Batch::default();
        for (source, websub) in changes {
            let Some(mut state) = self.shared.state(&source)? else { continue };
            state.websub = websub;
            let json = serde_json::to_vec(&state).expect("every field of a state has a JSON form");
            batch.insert(record::state_key(&source), record::seal(&[&json]));
        }
        self.shared.db.apply_batch(batch)?;
        self.shared.db.flush()?;
        Ok(self.file.sync_data()?)
    }

    /// Marks the states of sources that were taken out of the list; sources that were never visited are ignored. Blocks until
    /// it is on disk.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn mark_removed(&mut self, sources: Vec<SourceId>) -> Result<(), AppendError> {
        let mut batch = sled::Batch::default();
        for source in sources {
            let Some(mut state) = self.shared.state(&source)? else { continue };
            state.removed = true;
            let json = serde_json::to_vec(&state).expect("every field of a state has a JSON form");
            batch.insert(record::state_key(&source), record::seal(&[&json]));
        }
        self.shared.db.apply_batch(batch)?;
        self.shared.db.flush()?;
        Ok(self.file.sync_data()?)
    }

    /// Replaces the hosts that asked for a pause. Blocks until they are on disk.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn write_held_hosts(&mut self, hosts: &[HeldHost]) -> Result<(), AppendError> {
        let json = serde_json::to_vec(hosts).expect("every field of a held host has a JSON form");
        let mut batch = sled::Batch::default();
        pieces::replace(&self.shared.db, &mut batch, record::HOSTS, record::seal(&[&json]))?;
        self.shared.db.apply_batch(batch)?;
        self.shared.db.flush()?;
        Ok(self.file.sync_data()?)
    }

    /// Removes the oldest events beyond the limits of [`Retention`], at most [`LogWriter::REMOVED_MAX`] per call. The newest
    /// event always stays, so that the sequence continues after a restart. Blocks.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn retain(&mut self, now: Timestamp) -> Result<Retained, AppendError> {
        let (oldest, head) = (self.shared.oldest(), self.shared.head());
        let mut batch = sled::Batch::default();
        let mut live_bytes = self.live_bytes;
        let mut first_kept = oldest;
        let mut gone = RemovedEvents::default();
        for entry in self.shared.db.range(record::event_key(oldest)..record::event_key(head)) {
            let (key, stored) = entry?;
            let damaged = |damage| LogReadError::Damaged { what: format!("event {first_kept}"), damage };
            let seq = record::seq_of(&key).ok_or_else(|| damaged(Damage::Content))?;
            let value = pieces::value(&self.shared.db, &key, stored.clone())?.map_err(damaged)?;
            let (_, recorded, json) = record::unseal_event(&value).map_err(damaged)?;
            let kept = head.0 - seq.0 + 1;
            let within = kept <= self.retention.events
                && live_bytes <= self.retention.bytes
                && now.since(recorded) <= self.retention.age;
            if within || first_kept.0 - oldest.0 >= Self::REMOVED_MAX as u64 {
                break;
            }
            let bytes = value.len() as u64;
            live_bytes -= bytes.min(live_bytes);
            gone.add(json, bytes, self.shares.counts(seq)).map_err(damaged)?;
            pieces::remove(&mut batch, &key, &stored);
            first_kept = seq.next();
        }
        let removed = first_kept.0 - oldest.0;
        if removed > 0 {
            batch.insert(record::LIVE_BYTES, record::seal(&[&live_bytes.to_le_bytes()]));
            self.shares.remove(&self.shared, &mut batch, gone, first_kept)?;
            // Announced first, then removed: a reader in between finds more than announced, never less.
            self.shared.set_oldest(first_kept);
            self.shared.db.apply_batch(batch)?;
            self.live_bytes = live_bytes;
        }
        Ok(Retained { removed, more: removed >= Self::REMOVED_MAX as u64 })
    }

    /// Bytes of events kept, as stored.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }
}
