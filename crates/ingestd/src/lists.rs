//! The lists of feeds of the catalogue (`[[list]]`): they are read again and again beside the control loop, and their feeds
//! are sources for as long as they are in them.
//!
//! ```text
//! due ─► read ─► copy on disk ─► own sources of the supervisor + all copies ─► new catalogue
//! ```
//!
//! Memory has no second copy of the sources: those of the files are the supervisor's, those of the lists are on disk.

mod read;
mod result;
mod schedule;

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use control::{ListAnswer, ListOrder};
use daemon::work;
use fetch::schedule::IntervalBounds;
use futures_util::FutureExt as _;
use news::{Catalogue, FeedList, ListMark, ListOrigin, ListStatus, Source, SourceId, Timestamp};
use sources::lists::{LeftFeeds, ListCopies, ListMemory, ListedSources, MergeCounts, merge};
use tokio::{sync::oneshot, task::JoinSet, time::Instant};

pub(crate) use self::{read::read_file, result::ReadResult};
use self::{
    read::{ListRead, ReadJob},
    schedule::{ReadEnd, next_read},
};
use crate::{queue::wait_reason::ListWait, visit::context::VisitContext};

/// How many lists are read at once.
const READS_MAX: usize = 4;
/// How often the clock of the machine is compared with the dates of the next reads.
const CLOCK_EVERY: Duration = Duration::from_secs(10);

/// A change waits so long for other lists that are being read: merging many lists one by one would take its time.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

/// What the lists have to say in the status; readable from any thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListBoard(Arc<Mutex<Vec<(ListStatus, ListWait)>>>);

impl ListBoard {
    /// All lists, in the order of the catalogue.
    pub(crate) fn statuses(&self) -> Vec<ListStatus> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |(status, wait): &(ListStatus, ListWait)| {
            let waiting_for = wait.text().or_else(|| status.waiting_for.clone());
            ListStatus { waiting_for, ..status.clone() }
        };
        held.iter().map(status).collect()
    }

    fn set(&self, statuses: Vec<(ListStatus, ListWait)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = statuses;
    }
}

/// An order to read lists now.
pub(crate) struct ListReadRequest {
    pub(crate) order: ListOrder,
    pub(crate) reply: oneshot::Sender<ListAnswer>,
}

/// All lists of the catalogue.
pub(crate) struct FeedLists {
    ctx: Rc<VisitContext>,
    copies: ListCopies,
    board: ListBoard,
    /// That of the catalogue, to which the paths of lists are relative.
    directory: PathBuf,
    held: Vec<HeldList>,
    reads: JoinSet<ListRead>,
    /// Since when lists have had other sources than the catalogue.
    changed_since: Option<Instant>,
}

struct HeldList {
    list: Arc<FeedList>,
    memory: ListMemory,
    counts: MergeCounts,
    is_reading: bool,
    /// It is due, and as many others as may be are being read.
    is_queued: bool,
    wait: ListWait,
    /// An operator wants what it has, whatever it has lost.
    takes_all: bool,
}

impl HeldList {
    fn new(list: FeedList, memory: ListMemory) -> Self {
        let reading = list.reading_hash();
        let ListMemory { is_trusted, copied_from, .. } = memory;
        // What is known of another address says nothing about this one; but the copy is still that from there.
        let memory = if memory.reading == reading {
            memory
        } else {
            ListMemory { reading, is_trusted, copied_from, ..Default::default() }
        };
        Self {
            list: Arc::new(list),
            memory,
            counts: MergeCounts::default(),
            is_reading: false,
            is_queued: false,
            wait: ListWait::default(),
            takes_all: false,
        }
    }

    /// Plans the next read again if the interval is another one than it was planned with.
    fn plan_again(&mut self, bounds: IntervalBounds) {
        let memory = &mut self.memory;
        let (Some(last_read), Some(_)) = (memory.last_read, memory.next_read) else { return };
        let every_ms = millis(self.list.every);
        // An older version stored nothing of the interval, nor of what the server asked for.
        let is_known = memory.every_ms != 0 || memory.failures == 0;
        if memory.every_ms != every_ms && is_known {
            let next = next_read(self.list.every, bounds, last_read, end_of(memory), fastrand::f64());
            (memory.every_ms, memory.next_read) = (every_ms, Some(next));
        }
    }

    /// When it is to be read; `None` if it is not.
    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        if !self.list.enabled || self.is_reading {
            return None;
        }
        // The clock may have gone back.
        let is_early = self.memory.last_read.is_none_or(|last| last > now);
        Some(self.memory.next_read.filter(|_| !is_early).unwrap_or(now))
    }

    fn mark(&self) -> Arc<ListMark> {
        Arc::new(ListMark { id: self.list.id.clone(), is_trusted: self.memory.is_trusted })
    }

    fn status(&self) -> ListStatus {
        let (memory, counts) = (&self.memory, self.counts);
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let left_out = (counts.left_out > 0).then(|| {
            let (left_out, max) = (counts.left_out, Catalogue::SOURCES_MAX);
            format!("{left_out} of its feeds are left out, because there are {max} sources without them")
        });
        ListStatus {
            id: self.list.id.clone(),
            origin: self.list.origin.to_string(),
            every_s: self.list.every.as_secs(),
            enabled: self.list.enabled,
            sources: count(counts.taken),
            known: count(counts.known),
            refused: count(memory.refused),
            last_read: memory.last_read,
            last_success: memory.last_success,
            next_read: memory.next_read.filter(|_| self.list.enabled),
            waiting_for: self.is_queued.then(|| format!("{READS_MAX} other lists are being read")),
            failures: memory.failures,
            error: memory.error.clone().or(left_out),
        }
    }
}

impl FeedLists {
    /// No lists yet; the files about them are below the directory of the store.
    pub(crate) fn new(ctx: Rc<VisitContext>, store: &Path, board: ListBoard) -> Self {
        let (copies, directory) = (ListCopies::new(store), PathBuf::new());
        Self { ctx, copies, board, directory, held: Vec::new(), reads: JoinSet::new(), changed_since: None }
    }

    /// Takes the lists of a catalogue whose main file is `main`, and reads those in files; returns the catalogue with the
    /// sources of all lists.
    ///
    /// # Errors
    /// If the thread that merges them died.
    pub(crate) async fn complete(&mut self, catalogue: Catalogue, main: &Path) -> anyhow::Result<Catalogue> {
        self.directory = main.parent().unwrap_or(Path::new("")).to_owned();
        if catalogue.lists.is_empty() && self.held.is_empty() {
            self.remove_copies().await;
            return Ok(catalogue);
        }
        self.take_lists(catalogue.lists).await?;
        self.read_files().await;
        self.merge(catalogue.sources).await
    }

    async fn take_lists(&mut self, lists: Vec<FeedList>) -> anyhow::Result<()> {
        let mut before = std::mem::take(&mut self.held);
        for list in lists {
            let held =
                before.iter().position(|held| held.list.id == list.id).map(|at| before.swap_remove(at));
            let mut held = match held {
                Some(HeldList { memory, is_reading, wait, takes_all, .. }) => {
                    HeldList { is_reading, wait, takes_all, ..HeldList::new(list, memory) }
                }
                None => {
                    let memory = self.stored_memory(&list.id).await?;
                    HeldList::new(list, memory)
                }
            };
            held.plan_again(self.ctx.interval_bounds.get());
            self.held.push(held);
        }
        self.remove_copies().await;
        Ok(())
    }

    async fn stored_memory(&self, list: &SourceId) -> anyhow::Result<ListMemory> {
        let (copies, id) = (self.copies.clone(), list.clone());
        let read = tokio::task::spawn_blocking(move || copies.memory(&id)).await;
        Ok(read.context("read what is known of a list")?.unwrap_or_else(|error| {
            tracing::warn!(%list, %error, "what is known of a list cannot be read");
            ListMemory::default()
        }))
    }

    /// Of lists that are no longer in the catalogue.
    async fn remove_copies(&self) {
        let kept: HashSet<_> = self.held.iter().map(|held| held.list.id.clone()).collect();
        let copies = self.copies.clone();
        let removed = tokio::task::spawn_blocking(move || {
            copies.lock().keep_only(&kept.iter().map(SourceId::as_str).collect())
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(%error, "the copies of lists that are gone cannot be removed");
        }
    }

    /// Reads the lists that are files.
    async fn read_files(&mut self) {
        let is_file = |held: &HeldList| matches!(held.list.origin, ListOrigin::File(_)) && held.list.enabled;
        for at in 0..self.held.len() {
            if is_file(&self.held[at]) && !self.held[at].is_reading {
                self.start(at);
            }
        }
        while self.held.iter().any(|held| is_file(held) && held.is_reading)
            && let Some(read) = self.reads.join_next().await
        {
            if let Ok(read) = read {
                self.take(read);
            }
        }
    }

    /// Completes when lists have other sources than the catalogue; what is read meanwhile is waited for, but not for long.
    /// Nothing is lost if this is cancelled.
    pub(crate) async fn changed(&mut self) {
        loop {
            let now = self.ctx.now();
            self.start_due(now);
            let next = self.held.iter().filter_map(|held| held.due(now)).filter(|due| *due > now).min();
            let mut wait = next.map_or(CLOCK_EVERY, |next| next.since(now).min(CLOCK_EVERY));
            if let Some(since) = self.changed_since {
                let left = SETTLED_AFTER.saturating_sub(since.elapsed());
                if self.reads.is_empty() || left.is_zero() {
                    self.changed_since = None;
                    return;
                }
                wait = wait.min(left);
            }
            tokio::select! {
                Some(read) = self.reads.join_next() => if let Ok(read) = read {
                    self.take(read);
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Starts the reads that are due, as many as may be; the other lists say that they wait.
    fn start_due(&mut self, now: Timestamp) {
        let mut has_changed = false;
        for at in 0..self.held.len() {
            let is_due = self.held[at].due(now).is_some_and(|due| due <= now);
            let is_queued = is_due && self.reads.len() >= READS_MAX;
            has_changed |= std::mem::replace(&mut self.held[at].is_queued, is_queued) != is_queued;
            if is_due && !is_queued {
                self.start(at);
            }
        }
        if has_changed {
            self.show();
        }
    }

    /// Makes lists due now. The limits of their hosts hold for them, too.
    pub(crate) fn order(&mut self, ListOrder { lists, take }: ListOrder) -> ListAnswer {
        let mut answer = ListAnswer::default();
        for id in lists {
            let group = match self.held.iter_mut().find(|held| held.list.id.as_str() == id) {
                None => &mut answer.unknown,
                Some(held) if !held.list.enabled => &mut answer.disabled,
                Some(held) if held.is_reading => &mut answer.busy,
                Some(held) => {
                    (held.memory.next_read, held.takes_all) = (None, take);
                    &mut answer.accepted
                }
            };
            group.push(id);
        }
        self.show();
        answer
    }

    fn start(&mut self, at: usize) {
        let held = &mut self.held[at];
        held.is_reading = true;
        let job = ReadJob {
            list: Arc::clone(&held.list),
            memory: held.memory.clone(),
            directory: self.directory.clone(),
            copies: self.copies.clone(),
            wait: held.wait.clone(),
            takes_all: std::mem::take(&mut held.takes_all),
        };
        let (ctx, id) = (Rc::clone(&self.ctx), Arc::<str>::from(held.list.id.as_str()));
        let failed = job.clone();
        let read = AssertUnwindSafe(read::read(Rc::clone(&ctx), job)).catch_unwind();
        self.reads.spawn_local(work::during("reading a list", id, async move {
            read.await.unwrap_or_else(|panic| {
                ctx.metrics.panics.inc();
                failed.panicked(&ctx, daemon::panics::message(&*panic))
            })
        }));
    }

    /// Takes the result of a read.
    fn take(&mut self, read: ListRead) {
        let ListRead { list, memory, result } = read;
        // The copy of a list that is gone meanwhile is removed with the next catalogue.
        let Some(held) = self.held.iter_mut().find(|held| held.list.id == list) else { return };
        held.is_reading = false;
        held.wait.set(None);
        if held.memory.reading != memory.reading {
            // It has another address by now, and is read again; but the copy may be that of the old one.
            (held.memory.is_trusted, held.memory.copied_from) = (memory.is_trusted, memory.copied_from);
            return;
        }
        self.ctx.metrics.list_reads.get_or_create(&[("result", result.as_str())]).inc();
        let before = std::mem::replace(&mut held.memory, memory);
        held.plan_again(self.ctx.interval_bounds.get());
        log(held, &before, &result);
        if result.is_change() || before.is_trusted != held.memory.is_trusted {
            self.changed_since.get_or_insert_with(Instant::now);
        }
        self.show();
    }

    /// The catalogue of these sources and those of all lists.
    ///
    /// # Errors
    /// If the thread that merges them died.
    pub(crate) async fn merge(&mut self, own: Vec<Source>) -> anyhow::Result<Catalogue> {
        let marks: Vec<_> = self
            .held
            .iter()
            .map(|held| held.list.enabled.then(|| (held.mark(), held.list.category.clone())))
            .collect();
        let copies = self.copies.clone();
        let merged = tokio::task::spawn_blocking(move || merge_copies(own, marks, &copies)).await;
        let (catalogue, counts) = merged.context("merge the lists of feeds")?;
        self.changed_since = None;
        for (held, counts) in self.held.iter_mut().zip(counts) {
            if counts.is_none() {
                // Its whole document is needed again.
                let ListMemory { reading, is_trusted, .. } = held.memory;
                held.memory = ListMemory { reading, is_trusted, ..Default::default() };
            }
            held.counts = counts.unwrap_or_default();
        }
        self.show();
        Ok(catalogue)
    }

    fn show(&self) {
        let statuses: Vec<_> = self.held.iter().map(|held| (held.status(), held.wait.clone())).collect();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.ctx.metrics.lists.set(count(statuses.len()));
        self.ctx
            .metrics
            .lists_failing
            .set(count(statuses.iter().filter(|(status, _)| status.is_failing()).count()));
        self.board.set(statuses);
    }
}

/// How the last read ended.
fn end_of(memory: &ListMemory) -> ReadEnd {
    let &ListMemory { failures, is_throttled, asked_ms, .. } = memory;
    match memory.doubtful_since {
        _ if failures > 0 => {
            ReadEnd::Failed { failures, is_throttled, wait: asked_ms.map(Duration::from_millis) }
        }
        Some(since) => ReadEnd::Doubtful(since),
        None => ReadEnd::Fine,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What marks the sources of a list, and the category of all of them. `None` for a list that is not read.
type ListLook = Option<(Arc<ListMark>, Option<String>)>;

/// Reads all copies, merges them, and writes those whose ids have changed. No counts for a list whose copy is damaged.
/// Blocks, and no list is read meanwhile: what that writes would be lost.
fn merge_copies(
    own: Vec<Source>,
    marks: Vec<ListLook>,
    copies: &ListCopies,
) -> (Catalogue, Vec<Option<MergeCounts>>) {
    let copies = copies.lock();
    let is_on: Vec<_> = marks.iter().map(Option::is_some).collect();
    let mut is_damaged = vec![false; marks.len()];
    let sources = |(at, look): (usize, ListLook)| {
        let (mark, category) = look?;
        let sources = copies.sources(&mark.id).unwrap_or_else(|error| {
            tracing::error!(list = %mark.id, %error, "the copy of a list cannot be read; it has no sources until it is read again");
            is_damaged[at] = true;
            Vec::new()
        });
        let left = copies.left(&mark.id).unwrap_or_else(|error| {
            tracing::warn!(list = %mark.id, %error, "the feeds that have left a list cannot be read");
            LeftFeeds::default()
        });
        Some(ListedSources { mark, category, sources, left })
    };
    let mut lists: Vec<_> = marks.into_iter().enumerate().filter_map(sources).collect();
    let ids = |list: &ListedSources| list.sources.iter().map(|source| source.id.clone()).collect::<Vec<_>>();
    let before: Vec<_> = lists.iter().map(ids).collect();
    let (catalogue, counts) = merge(own, &mut lists);
    for (list, before) in lists.into_iter().zip(before) {
        if ids(&list) != before
            && let Err(error) = copies.write_sources(&list.mark.id, list.sources)
        {
            tracing::warn!(list = %list.mark.id, %error, "the copy of a list cannot be written");
        }
    }
    let mut counts = counts.into_iter();
    let counts = is_on.into_iter().zip(is_damaged).map(|(is_on, is_damaged)| {
        let counts = if is_on { counts.next() } else { None }.unwrap_or_default();
        (!is_damaged).then_some(counts)
    });
    (catalogue, counts.collect())
}

/// Reports what has changed since the last read.
fn log(held: &HeldList, before: &ListMemory, result: &ReadResult) {
    let list = &held.list.id;
    match (&held.memory.error, &before.error) {
        (Some(error), None) => {
            tracing::warn!(%list, error, failures = held.memory.failures, "list of feeds not taken; it takes no source away");
        }
        (Some(error), Some(_)) => {
            tracing::debug!(%list, error, failures = held.memory.failures, "list of feeds not taken again");
        }
        (None, Some(_)) => tracing::info!(%list, "list of feeds read again"),
        (None, None) => {}
    }
    if let ReadResult::Doubtful { added: added @ 1.., .. } = result {
        tracing::info!(%list, added, "new feeds of a doubtful list of feeds taken");
    }
    if let ReadResult::Changed { sources, added, removed, refused } = result {
        tracing::info!(%list, sources, added, removed, "list of feeds changed");
        if !refused.is_empty() {
            tracing::info!(%list, items = held.memory.refused, "list of feeds has outlines that are no feed");
        }
        for (line, reason) in refused {
            tracing::info!(%list, reason = %format!("line {line}: {reason}"), "outline of a list of feeds is no feed");
        }
    }
}

#[cfg(test)]
mod tests;
