//! What is kept of the lists on disk: for each its sources, in the form of `sources.toml`, and what is known about the last
//! read.
//!
//! A file is replaced atomically and is on disk when that returns, so that a start without the network has the sources of
//! the last good read.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    ops::Deref,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use news::{Catalogue, Source, SourceId, Timestamp};
use serde::{Deserialize, Serialize};

use super::left::{LeftFeeds, LostFeeds};

/// Permissions of the files: an address may have a secret.
const MODE: u32 = 0o600;

/// What is known about the reads of one list.
///
/// New fields have a default, so that a file of an older version can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListMemory {
    /// What the rest belongs to ([`news::FeedList::reading_hash`]).
    pub reading: u64,
    /// Hash of what is sent with a request; the validators belong to it as well.
    pub fingerprint: u64,
    /// `ETag` of the document that was taken last, byte for byte.
    pub etag: Option<String>,
    /// `Last-Modified` of it, byte for byte.
    pub last_modified: Option<String>,
    /// The hash of the address that issued them.
    pub validator_key: Option<u64>,
    /// When a whole document was received last.
    pub last_full: Option<Timestamp>,
    /// The copy, that of another address included, is of a document that came from a network of `fetch.allow`, or is a file.
    pub is_trusted: bool,
    /// When it was read last, with or without success.
    pub last_read: Option<Timestamp>,
    /// When it was taken last, or had not changed.
    pub last_success: Option<Timestamp>,
    /// Not before then.
    pub next_read: Option<Timestamp>,
    /// The `every` with which that was planned, in milliseconds; 0 if an older version did.
    pub every_ms: u64,
    /// The server asked for fewer requests at the last read.
    pub is_throttled: bool,
    /// How long its host asked to wait then, in milliseconds.
    pub asked_ms: Option<u64>,
    /// Reads in a row that failed.
    pub failures: u32,
    /// Why the last read was not taken.
    pub error: Option<String>,
    /// Since when it has lost so many feeds that this may be a fault.
    pub doubtful_since: Option<Timestamp>,
    /// Outlines that are no feed.
    pub refused: usize,
    /// The feeds of the loss that may be a fault.
    pub lost: LostFeeds,
    /// Where the copy is from ([`news::FeedList::origin_hash`]); 0 if that is not known.
    pub copied_from: u64,
}

/// The directory with the files.
#[derive(Clone, Debug)]
pub struct ListCopies {
    directory: PathBuf,
    lock: Arc<Mutex<()>>,
}

/// The files, which only the owner of this changes: what it has read stays as it is until it has written.
#[derive(Debug)]
pub struct LockedCopies<'a> {
    copies: &'a ListCopies,
    _guard: MutexGuard<'a, ()>,
}

impl Deref for LockedCopies<'_> {
    type Target = ListCopies;

    fn deref(&self) -> &ListCopies {
        self.copies
    }
}

impl ListCopies {
    /// Those below the directory of the store. Creates nothing.
    #[must_use]
    pub fn new(store: &Path) -> Self {
        Self { directory: store.join("lists"), lock: Arc::default() }
    }

    /// Waits until no other thread changes the files, and keeps others from it. For one process: no other one writes them.
    #[must_use]
    pub fn lock(&self) -> LockedCopies<'_> {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        LockedCopies { copies: self, _guard: guard }
    }

    /// The sources of a list; none if there is no copy.
    ///
    /// # Errors
    /// If the copy cannot be read, or is damaged.
    pub fn sources(&self, list: &SourceId) -> io::Result<Vec<Source>> {
        let Some(text) = self.read(list, "toml")? else { return Ok(Vec::new()) };
        let catalogue = Catalogue::parse(&text).map_err(|complaints| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                complaints.in_file(self.path(list, "toml").display()).to_string(),
            )
        });
        catalogue.map(|catalogue| catalogue.sources)
    }

    /// Every copy that can be read, whichever lists there are now: its file, and its sources.
    #[must_use]
    pub fn all(&self) -> Vec<(PathBuf, Vec<Source>)> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let paths = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "toml"));
        let read = |path: PathBuf| {
            let catalogue = Catalogue::parse(&fs::read_to_string(&path).ok()?).ok()?;
            Some((path, catalogue.sources))
        };
        paths.filter_map(read).collect()
    }

    /// The feeds that have left a list; none if that is damaged.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn left(&self, list: &SourceId) -> io::Result<LeftFeeds> {
        let text = self.read(list, "left")?.unwrap_or_default();
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// What is known about a list; nothing if that is damaged: then it is read again. Without a copy there are no validators:
    /// its whole document is needed.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn memory(&self, list: &SourceId) -> io::Result<ListMemory> {
        let text = self.read(list, "json")?.unwrap_or_default();
        let memory: ListMemory = serde_json::from_str(&text).unwrap_or_default();
        if self.path(list, "toml").exists() {
            return Ok(memory);
        }
        Ok(ListMemory { etag: None, last_modified: None, ..memory })
    }

    fn path(&self, list: &SourceId, ending: &str) -> PathBuf {
        self.directory.join(format!("{list}.{ending}"))
    }

    fn read(&self, list: &SourceId, ending: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.path(list, ending)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }
}

impl LockedCopies<'_> {
    /// Replaces the sources of a list.
    ///
    /// # Errors
    /// If they cannot be written; the old ones stay.
    pub fn write_sources(&self, list: &SourceId, sources: Vec<Source>) -> io::Result<()> {
        let text = Catalogue { sources, ..Catalogue::default() }.to_toml();
        self.write(list, "toml", &text)
    }

    /// Replaces the feeds that have left a list. Before its sources, so that no id is lost in between.
    ///
    /// # Errors
    /// If they cannot be written; the old ones stay.
    pub fn write_left(&self, list: &SourceId, left: &LeftFeeds) -> io::Result<()> {
        self.write(list, "left", &serde_json::to_string(left)?)
    }

    /// Replaces what is known about a list.
    ///
    /// # Errors
    /// If it cannot be written; the old one stays.
    pub fn write_memory(&self, list: &SourceId, memory: &ListMemory) -> io::Result<()> {
        self.write(list, "json", &serde_json::to_string_pretty(memory)?)
    }

    /// Removes the files of all lists but these. A draft of one of these stays: its next write replaces it.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn keep_only(&self, lists: &HashSet<&str>) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let is_kept = entry.file_name().to_str().is_some_and(|name| {
                let id = name.split_once('.').map_or(name, |(id, _)| id);
                lists.contains(id)
            });
            if !is_kept {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn write(&self, list: &SourceId, ending: &str, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let (path, draft) = (self.path(list, ending), self.path(list, &format!("{ending}.new")));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use news::FeedUrl;

    use super::*;

    fn id(text: &str) -> SourceId {
        SourceId::try_new(text).unwrap()
    }

    #[test]
    fn what_was_written_is_read_and_lists_that_are_gone_leave_nothing() {
        let store = tempfile::tempdir().unwrap();
        let copies = ListCopies::new(store.path());
        let list = id("planet");
        assert_eq!((copies.sources(&list).unwrap(), copies.memory(&list).unwrap()), Default::default());
        copies.lock().keep_only(&HashSet::new()).unwrap();
        let mut source =
            Source::new(id("planet-a"), FeedUrl::try_new("https://u:p@example.org/?key=x").unwrap());
        source.tags = vec!["tag".to_owned()];
        let left = LeftFeeds::default().after(&[source.clone()], &[], Timestamp::from_millis(7));
        let memory = ListMemory { reading: 7, etag: Some("\"x\"".to_owned()), ..ListMemory::default() };
        for list in [&list, &id("other")] {
            let copies = copies.lock();
            copies.write_sources(list, vec![source.clone()]).unwrap();
            copies.write_memory(list, &memory).unwrap();
            copies.write_left(list, &left).unwrap();
            fs::write(store.path().join(format!("lists/{list}.toml.new")), "").unwrap();
        }
        assert_eq!(copies.sources(&list).unwrap(), [source]);
        assert_eq!(copies.memory(&list).unwrap(), memory);
        assert_eq!(copies.left(&list).unwrap(), left);
        let file = store.path().join("lists/planet.toml");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        copies.lock().keep_only(&HashSet::from(["planet"])).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(store.path().join("lists")).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["planet.json", "planet.left", "planet.toml", "planet.toml.new"]);

        fs::write(&file, "[[source]]\nid = \"x\"\n").unwrap();
        let damaged = copies.sources(&list).unwrap_err().to_string();
        assert!(damaged.contains("planet.toml:1: source.url: is missing"), "{damaged}");
        fs::remove_file(&file).unwrap();
        assert_eq!(copies.memory(&list).unwrap(), ListMemory { etag: None, ..memory });
        fs::write(file.with_extension("json"), "{").unwrap();
        assert_eq!(copies.memory(&list).unwrap(), ListMemory::default());
    }

    #[test]
    fn no_reload_breaks_a_write() {
        let store = tempfile::tempdir().unwrap();
        let copies = ListCopies::new(store.path());
        let writer = copies.clone();
        let writer = std::thread::spawn(move || {
            for n in 0..50 {
                let memory = ListMemory { reading: n, ..ListMemory::default() };
                writer.lock().write_memory(&id("planet"), &memory).unwrap();
            }
        });
        while !writer.is_finished() {
            copies.lock().keep_only(&HashSet::from(["planet"])).unwrap();
        }
        writer.join().unwrap();
        assert_eq!(copies.memory(&id("planet")).unwrap().reading, 49);
    }
}
