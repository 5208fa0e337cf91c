//! Which documents were being parsed when the process crashed: one small file each in `store.path`/parsing.
//!
//! ```text
//! begin ─► parsing/ID "2 reading"   the end ─► removed   the next start: "2 reading" ─► "3"   a clean stop: all removed
//! ```
//!
//! A document that crashes the process (stack overflow, out of memory) would crash it again after every restart.
//! A thread of its own writes the files, and a document waits for it a moment at most: a disk that hangs must hold up neither
//! visits nor the threads that parse. What was parsed meanwhile without a file is not recognised after a crash.
//!
//! Nothing is synced: what a process has written survives its abort in the page cache, and when the whole machine
//! goes down no document was the cause.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use daemon::{
    watch::{HELPER_BEAT_EVERY, HelperThread, Watch, WatchKind},
    work,
};
use news::SourceId;

/// A source whose document was being parsed at so many crashes is quarantined.
pub(crate) const CRASHES_MAX: u32 = 3;

const READING: &str = " reading";

/// How long a document waits for its file. If the disk has already hung for longer, it does not wait at all.
const MARK_WAIT_MAX: Duration = Duration::from_secs(2);

/// Writes the file of a source with this text, or removes it.
type ApplyMark = fn(&Path, Option<&str>) -> io::Result<()>;

/// Counts the crashes at which each source was being parsed. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CrashGuard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    marks: Arc<Marks>,
    /// Crashes at which a source was being parsed, since its last document that was parsed to the end.
    crashes: Mutex<HashMap<SourceId, u32>>,
}

/// What the thread that writes the files shares with those that parse.
#[derive(Debug)]
struct Marks {
    folder: PathBuf,
    apply: ApplyMark,
    has_failed: AtomicBool,
    state: Mutex<MarkState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct MarkState {
    /// Files that are to be written, or removed: one per source at most.
    wanted: BTreeMap<SourceId, Option<String>>,
    /// The file that is being written.
    in_progress: Option<SourceId>,
    /// A document has waited for this file in vain.
    is_stuck: bool,
    is_closed: bool,
}

/// A document that is being parsed; its file is removed soon after this is dropped, also by a panic.
pub(crate) struct ParseGuard {
    guard: CrashGuard,
    source: SourceId,
    is_marked: bool,
}

impl CrashGuard {
    /// Starts the thread that writes, and finds out what was being parsed when the last process crashed. On a full disk it continues without what it cannot
    /// write. Blocks.
    ///
    /// # Errors
    /// If the folder cannot be created or read, or the thread not be started.
    pub(crate) fn open(store: &Path, watch: &Watch) -> io::Result<Self> {
        Self::open_with(store, watch, apply_mark)
    }

    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    fn open_with(store: &Path, watch: &Watch, apply: ApplyMark) -> io::Result<Self> {
        let folder = store.join("parsing");
        unless_full(fs::create_dir_all(&folder))?;
        let mut crashes = HashMap::new();
        let files = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            files => files?.collect(),
        };
        for entry in files {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| SourceId::try_new(name.to_str()?).ok());
            let text = fs::read_to_string(&path).unwrap_or_default();
            // A truncated file was being written, so its document was being parsed.
            let before = text.trim_end_matches(READING).parse().unwrap_or(0_u32);
            let now = if text.parse::<u32>().is_ok() { before } else { before.saturating_add(1) };
            if let Some(id) = id {
                unless_full(fs::write(&path, now.to_string()))?;
                crashes.insert(id, now);
            }
        }
        let marks = Arc::new(Marks {
            folder,
            apply,
            has_failed: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (shared, watch) = (Arc::clone(&marks), watch.clone());
        let work = move || shared.write_all(&watch.helper_thread("marks", WatchKind::Helper));
        // It ends when the last guard is dropped. It may wait for the disk then, so nothing waits for it.
        std::thread::Builder::new().name("marks".to_owned()).spawn(work)?;
        Ok(Self(Arc::new(Inner { marks, crashes: Mutex::new(crashes) })))
    }

    fn crashes(&self) -> MutexGuard<'_, HashMap<SourceId, u32>> {
        self.0.crashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of crashes of the process while the document of this source was being parsed.
    pub(crate) fn crashes_of(&self, source: &SourceId) -> u32 {
        self.crashes().get(source).copied().unwrap_or(0)
    }

    /// Forgets the crashes of a source: its document is another one now.
    pub(crate) fn forget(&self, source: &SourceId) {
        self.crashes().remove(source);
    }

    /// Writes the file of a source. Blocks for a moment, at most [`MARK_WAIT_MAX`].
    pub(crate) fn begin(&self, source: &SourceId) -> ParseGuard {
        let text = format!("{}{READING}", self.crashes_of(source));
        let is_marked = self.0.marks.write_within(source, text);
        ParseGuard { guard: self.clone(), source: source.clone(), is_marked }
    }

    /// Removes all files, at a clean stop. Blocks.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    pub(crate) fn clear(&self) {
        let marks = &self.0.marks;
        let mut state = marks.state();
        state.is_closed = true;
        marks.changed.notify_all();
        let is_writing = |state: &mut MarkState| state.in_progress.is_some();
        drop(marks.changed.wait_timeout_while(state, MARK_WAIT_MAX, is_writing));
        // A file that cannot be removed counts as one crash, and three are needed.
        fs::remove_dir_all(&marks.folder).ok();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.marks.state().is_closed = true;
        self.marks.changed.notify_all();
    }
}

impl Marks {
    fn state(&self) -> MutexGuard<'_, MarkState> {
        // Every change is one call or assignment, so a panic while it is locked leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a file written or removed.
    fn want(&self, source: &SourceId, text: Option<String>) -> MutexGuard<'_, MarkState> {
        let mut state = self.state();
        if !state.is_closed {
            state.wanted.insert(source.clone(), text);
            self.changed.notify_all();
        }
        state
    }

    /// Has a file written; returns whether that is done. Waits [`MARK_WAIT_MAX`] at most.
    #[expect(clippy::disallowed_methods, reason = "on the thread that is about to parse")]
    fn write_within(&self, source: &SourceId, text: String) -> bool {
        let state = self.want(source, Some(text));
        if state.is_closed || state.is_stuck {
            return false;
        }
        let is_pending = |state: &mut MarkState| {
            let is_in_progress = state.in_progress.as_ref() == Some(source);
            !state.is_closed && (is_in_progress || state.wanted.contains_key(source))
        };
        let waited = self.changed.wait_timeout_while(state, MARK_WAIT_MAX, is_pending);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_late = waited.timed_out();
        state.is_stuck |= is_late;
        drop(state);
        if is_late && !self.has_failed.swap(true, Relaxed) {
            let wait_ms = u64::try_from(MARK_WAIT_MAX.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%source, wait_ms, "crash guard: the disk does not answer; documents are parsed without it");
        }
        !is_late
    }

    /// The work of the thread, until the guard is closed.
    #[expect(clippy::disallowed_methods, reason = "on a thread of its own")]
    fn write_all(&self, watched: &HelperThread) {
        loop {
            watched.beat();
            let is_idle = |state: &mut MarkState| !state.is_closed && state.wanted.is_empty();
            let waited = self.changed.wait_timeout_while(self.state(), HELPER_BEAT_EVERY, is_idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.is_closed {
                return;
            }
            let Some((source, text)) = state.wanted.pop_first() else { continue };
            state.in_progress = Some(source.clone());
            drop(state);
            self.write(&source, text.as_deref());
            let mut state = self.state();
            (state.in_progress, state.is_stuck) = (None, false);
            drop(state);
            self.changed.notify_all();
        }
    }

    fn write(&self, source: &SourceId, text: Option<&str>) {
        let _at_work = work::on("marking", source.as_str());
        let written = (self.apply)(&self.folder.join(source.as_str()), text);
        if let Err(error) = written
            && !self.has_failed.swap(true, Relaxed)
        {
            tracing::warn!(%source, %error, "crash guard: cannot write; a document that crashes the process will not be found");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "on the thread that writes the files")]
fn apply_mark(path: &Path, text: Option<&str>) -> io::Result<()> {
    let Some(text) = text else {
        // It is gone already, or counts as one crash.
        fs::remove_file(path).ok();
        return Ok(());
    };
    match (fs::write(path, text), path.parent()) {
        // The disk was full at the start.
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).and_then(|()| fs::write(path, text))
        }
        (written, _) => written,
    }
}

impl ParseGuard {
    /// Whether the file was written in time.
    pub(crate) fn is_marked(&self) -> bool {
        self.is_marked
    }
}

impl Drop for ParseGuard {
    fn drop(&mut self) {
        self.guard.crashes().remove(&self.source);
        // Nothing waits for the removal: a crash in the next moment would count as one, and three are needed.
        drop(self.guard.0.marks.want(&self.source, None));
    }
}

/// A full disk must not keep the daemon from serving what is recorded.
fn unless_full(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            tracing::warn!(%error, "crash guard: the disk is full; crashes may be counted wrongly");
            Ok(())
        }
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SourceId {
        SourceId::try_new(text).unwrap()
    }

    impl CrashGuard {
        /// Waits for the thread that writes.
        #[expect(clippy::disallowed_methods, reason = "a test may wait for a thread")]
        fn settle(&self) {
            let is_busy = |state: &mut MarkState| state.in_progress.is_some() || !state.wanted.is_empty();
            drop(self.0.marks.changed.wait_while(self.0.marks.state(), is_busy));
        }
    }

    /// The process crashes while it parses: nothing is dropped.
    fn crash_while_parsing(store: &Path, source: &str) {
        let guard = CrashGuard::open(store, &Watch::new()).unwrap();
        std::mem::forget(guard.begin(&id(source)));
    }

    #[test]
    fn a_document_that_was_being_parsed_at_three_crashes_is_found() {
        let store = tempfile::tempdir().unwrap();
        for crashes in 0..CRASHES_MAX {
            assert_eq!(
                CrashGuard::open(store.path(), &Watch::new()).unwrap().crashes_of(&id("bad")),
                crashes
            );
            crash_while_parsing(store.path(), "bad");
        }
        let guard = CrashGuard::open(store.path(), &Watch::new()).unwrap();
        assert_eq!((guard.crashes_of(&id("bad")), guard.crashes_of(&id("good"))), (CRASHES_MAX, 0));
        assert_eq!(
            CrashGuard::open(store.path(), &Watch::new()).unwrap().crashes_of(&id("bad")),
            CRASHES_MAX,
            "a start is not a crash"
        );
    }

    #[test]
    fn a_disk_that_hangs_holds_up_one_document_and_the_others_not_at_all() {
        fn hang(_: &Path, _: Option<&str>) -> io::Result<()> {
            loop {
                std::thread::park();
            }
        }
        let store = tempfile::tempdir().unwrap();
        let guard = CrashGuard::open_with(store.path(), &Watch::new(), hang).unwrap();
        let first = guard.begin(&id("first"));
        assert!(!first.is_marked());
        assert!(guard.0.marks.state().is_stuck, "none waits from now on");
        let others: Vec<_> = (0..100).map(|n| guard.begin(&id(&format!("s{n}")))).collect();
        assert!(others.iter().all(|other| !other.is_marked()));
        drop(others);
        assert!(guard.0.marks.state().wanted.len() <= 101, "one per source");
        assert_eq!(CrashGuard::open(store.path(), &Watch::new()).unwrap().crashes_of(&id("first")), 0);
    }

    #[test]
    fn a_full_disk_is_no_reason_not_to_start_and_other_errors_are() {
        assert!(unless_full(Err(io::ErrorKind::StorageFull.into())).is_ok());
        assert!(unless_full(Err(io::ErrorKind::PermissionDenied.into())).is_err());
        let store = tempfile::tempdir().unwrap();
        fs::write(store.path().join("parsing"), "").unwrap();
        assert!(CrashGuard::open(store.path(), &Watch::new()).is_err(), "there is a file in its place");
    }

    #[test]
    fn a_folder_that_could_not_be_created_at_the_start_is_created_by_the_first_document() {
        let store = tempfile::tempdir().unwrap();
        let guard = CrashGuard::open(store.path(), &Watch::new()).unwrap();
        fs::remove_dir(store.path().join("parsing")).unwrap();
        std::mem::forget(guard.begin(&id("bad")));
        assert_eq!(CrashGuard::open(store.path(), &Watch::new()).unwrap().crashes_of(&id("bad")), 1);
    }

    #[test]
    fn a_document_parsed_to_the_end_and_a_clean_stop_reset_the_count() {
        let store = tempfile::tempdir().unwrap();
        crash_while_parsing(store.path(), "a");
        crash_while_parsing(store.path(), "b");
        let guard = CrashGuard::open(store.path(), &Watch::new()).unwrap();
        assert_eq!((guard.crashes_of(&id("a")), guard.crashes_of(&id("b"))), (1, 1));
        drop(guard.begin(&id("a")));
        guard.settle();
        let again = CrashGuard::open(store.path(), &Watch::new()).unwrap();
        assert_eq!((again.crashes_of(&id("a")), again.crashes_of(&id("b"))), (0, 1));
        again.clear();
        assert_eq!(CrashGuard::open(store.path(), &Watch::new()).unwrap().crashes_of(&id("b")), 0);
    }
}
