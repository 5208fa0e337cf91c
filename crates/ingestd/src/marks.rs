//! Which documents were being read when the process died: one small file each in `store.path`/parsing.
//!
//! ```text
//! begin ─► parsing/ID "2 reading"   the end ─► removed   the next start: "2 reading" ─► "3"   a clean stop: all removed
//! ```
//!
//! A document that kills the process (a stack that overflows, memory that runs out) would kill it again after every
//! restart. Nothing is synced: what a process has written outlives its abort in the page cache, and when the whole
//! machine goes down no document was the cause.

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

/// A source whose document was being read at so many deaths of the process is quarantined.
pub(crate) const DEATHS_MAX: u32 = 3;

const READING: &str = " reading";

/// The marks of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Marks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// Deaths at which a source was being read, none of which was disproved yet.
    deaths: Mutex<HashMap<SourceId, u32>>,
    has_failed: AtomicBool,
}

/// A document that is being read; the mark goes when this is dropped, also by a panic.
pub(crate) struct Mark {
    marks: Marks,
    source: SourceId,
}

impl Marks {
    /// Finds out who was being read when the last process died. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    pub(crate) fn open(store: &Path) -> io::Result<Self> {
        let folder = store.join("parsing");
        fs::create_dir_all(&folder)?;
        let mut deaths = HashMap::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| SourceId::try_new(name.to_str()?).ok());
            let text = fs::read_to_string(&path).unwrap_or_default();
            // A file that was cut off was being written, so its document was being read.
            let before = text.trim_end_matches(READING).parse().unwrap_or(0_u32);
            let now = if text.parse::<u32>().is_ok() { before } else { before.saturating_add(1) };
            if let Some(id) = id {
                fs::write(&path, now.to_string())?;
                deaths.insert(id, now);
            }
        }
        Ok(Self(Arc::new(Inner { folder, deaths: Mutex::new(deaths), has_failed: AtomicBool::new(false) })))
    }

    fn deaths(&self) -> MutexGuard<'_, HashMap<SourceId, u32>> {
        self.0.deaths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At how many deaths of the process its document was being read.
    pub(crate) fn deaths_of(&self, source: &SourceId) -> u32 {
        self.deaths().get(source).copied().unwrap_or(0)
    }

    /// Marks a document. Blocks for a moment.
    #[expect(clippy::disallowed_methods, reason = "on the thread that is about to parse")]
    pub(crate) fn begin(&self, source: &SourceId) -> Mark {
        let text = format!("{}{READING}", self.deaths_of(source));
        if let Err(error) = fs::write(self.path(source), text)
            && !self.0.has_failed.swap(true, Relaxed)
        {
            tracing::warn!(%source, %error, "could not mark a document; one that kills the process will not be found");
        }
        Mark { marks: self.clone(), source: source.clone() }
    }

    /// The process ends as it should. Blocks.
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
    pub(crate) fn clear(&self) {
        // What cannot be removed is a false suspicion, and three of them are needed.
        fs::remove_dir_all(&self.0.folder).ok();
    }

    fn path(&self, source: &SourceId) -> PathBuf {
        self.0.folder.join(source.as_str())
    }
}

impl Drop for Mark {
    #[expect(clippy::disallowed_methods, reason = "on the thread that has parsed")]
    fn drop(&mut self) {
        self.marks.deaths().remove(&self.source);
        fs::remove_file(self.marks.path(&self.source)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SourceId {
        SourceId::try_new(text).unwrap()
    }

    /// The process dies while it reads: nothing is dropped.
    fn die_reading(store: &Path, source: &str) {
        let marks = Marks::open(store).unwrap();
        std::mem::forget(marks.begin(&id(source)));
    }

    #[test]
    fn whoever_was_being_read_at_three_deaths_is_found() {
        let store = tempfile::tempdir().unwrap();
        for deaths in 0..DEATHS_MAX {
            assert_eq!(Marks::open(store.path()).unwrap().deaths_of(&id("bad")), deaths);
            die_reading(store.path(), "bad");
        }
        let marks = Marks::open(store.path()).unwrap();
        assert_eq!((marks.deaths_of(&id("bad")), marks.deaths_of(&id("good"))), (DEATHS_MAX, 0));
        assert_eq!(
            Marks::open(store.path()).unwrap().deaths_of(&id("bad")),
            DEATHS_MAX,
            "a start is no death"
        );
    }

    #[test]
    fn a_document_that_was_read_to_its_end_and_a_clean_stop_clear_the_suspicion() {
        let store = tempfile::tempdir().unwrap();
        die_reading(store.path(), "a");
        die_reading(store.path(), "b");
        let marks = Marks::open(store.path()).unwrap();
        assert_eq!((marks.deaths_of(&id("a")), marks.deaths_of(&id("b"))), (1, 1));
        drop(marks.begin(&id("a")));
        let again = Marks::open(store.path()).unwrap();
        assert_eq!((again.deaths_of(&id("a")), again.deaths_of(&id("b"))), (0, 1));
        again.clear();
        assert_eq!(Marks::open(store.path()).unwrap().deaths_of(&id("b")), 0);
    }
}
