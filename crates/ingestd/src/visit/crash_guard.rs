//! Which documents were being parsed when the process crashed: one small file each in `store.path`/parsing.
//!
//! ```text
//! begin ─► parsing/ID "2 reading"   the end ─► removed   the next start: "2 reading" ─► "3"   a clean stop: all removed
//! ```
//!
//! A document that crashes the process (stack overflow, out of memory) would crash it again after every restart.
//! Nothing is synced: what a process has written survives its abort in the page cache, and when the whole machine
//! goes down no document was the cause.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use news::SourceId;

/// A source whose document was being parsed at so many crashes is quarantined.
pub(crate) const CRASHES_MAX: u32 = 3;

const READING: &str = " reading";

/// Counts the crashes at which each source was being parsed. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CrashGuard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// Crashes at which a source was being parsed, since its last document that was parsed to the end.
    crashes: Mutex<HashMap<SourceId, u32>>,
    has_failed: AtomicBool,
}

/// A document that is being parsed; its file is removed when this is dropped, also by a panic.
pub(crate) struct ParseGuard {
    guard: CrashGuard,
    source: SourceId,
}

impl CrashGuard {
    /// Finds out what was being parsed when the last process crashed. On a full disk it continues without what it cannot
    /// write. Blocks.
    ///
    /// # Errors
    /// If the folder cannot be created or read.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    pub(crate) fn open(store: &Path) -> io::Result<Self> {
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
        Ok(Self(Arc::new(Inner { folder, crashes: Mutex::new(crashes), has_failed: AtomicBool::new(false) })))
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

    /// Writes the file of a source. Blocks for a moment.
    #[expect(clippy::disallowed_methods, reason = "on the thread that is about to parse")]
    pub(crate) fn begin(&self, source: &SourceId) -> ParseGuard {
        let text = format!("{}{READING}", self.crashes_of(source));
        let path = self.path(source);
        let written = match fs::write(&path, &text) {
            // The disk was full at the start.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.0.folder).and_then(|()| fs::write(&path, &text))
            }
            written => written,
        };
        if let Err(error) = written
            && !self.0.has_failed.swap(true, Relaxed)
        {
            tracing::warn!(%source, %error, "crash guard: cannot write; a document that crashes the process will not be found");
        }
        ParseGuard { guard: self.clone(), source: source.clone() }
    }

    /// Removes all files, at a clean stop. Blocks.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    pub(crate) fn clear(&self) {
        // A file that cannot be removed counts as one crash, and three are needed.
        fs::remove_dir_all(&self.0.folder).ok();
    }

    fn path(&self, source: &SourceId) -> PathBuf {
        self.0.folder.join(source.as_str())
    }
}

impl Drop for ParseGuard {
    #[expect(clippy::disallowed_methods, reason = "on the thread that has parsed")]
    fn drop(&mut self) {
        self.guard.crashes().remove(&self.source);
        fs::remove_file(self.guard.path(&self.source)).ok();
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

    /// The process crashes while it parses: nothing is dropped.
    fn crash_while_parsing(store: &Path, source: &str) {
        let guard = CrashGuard::open(store).unwrap();
        std::mem::forget(guard.begin(&id(source)));
    }

    #[test]
    fn a_document_that_was_being_parsed_at_three_crashes_is_found() {
        let store = tempfile::tempdir().unwrap();
        for crashes in 0..CRASHES_MAX {
            assert_eq!(CrashGuard::open(store.path()).unwrap().crashes_of(&id("bad")), crashes);
            crash_while_parsing(store.path(), "bad");
        }
        let guard = CrashGuard::open(store.path()).unwrap();
        assert_eq!((guard.crashes_of(&id("bad")), guard.crashes_of(&id("good"))), (CRASHES_MAX, 0));
        assert_eq!(
            CrashGuard::open(store.path()).unwrap().crashes_of(&id("bad")),
            CRASHES_MAX,
            "a start is not a crash"
        );
    }

    #[test]
    fn a_full_disk_is_no_reason_not_to_start_and_other_errors_are() {
        assert!(unless_full(Err(io::ErrorKind::StorageFull.into())).is_ok());
        assert!(unless_full(Err(io::ErrorKind::PermissionDenied.into())).is_err());
        let store = tempfile::tempdir().unwrap();
        fs::write(store.path().join("parsing"), "").unwrap();
        assert!(CrashGuard::open(store.path()).is_err(), "there is a file in its place");
    }

    #[test]
    fn a_folder_that_could_not_be_created_at_the_start_is_created_by_the_first_document() {
        let store = tempfile::tempdir().unwrap();
        let guard = CrashGuard::open(store.path()).unwrap();
        fs::remove_dir(store.path().join("parsing")).unwrap();
        std::mem::forget(guard.begin(&id("bad")));
        assert_eq!(CrashGuard::open(store.path()).unwrap().crashes_of(&id("bad")), 1);
    }

    #[test]
    fn a_document_parsed_to_the_end_and_a_clean_stop_reset_the_count() {
        let store = tempfile::tempdir().unwrap();
        crash_while_parsing(store.path(), "a");
        crash_while_parsing(store.path(), "b");
        let guard = CrashGuard::open(store.path()).unwrap();
        assert_eq!((guard.crashes_of(&id("a")), guard.crashes_of(&id("b"))), (1, 1));
        drop(guard.begin(&id("a")));
        let again = CrashGuard::open(store.path()).unwrap();
        assert_eq!((again.crashes_of(&id("a")), again.crashes_of(&id("b"))), (0, 1));
        again.clear();
        assert_eq!(CrashGuard::open(store.path()).unwrap().crashes_of(&id("b")), 0);
    }
}
