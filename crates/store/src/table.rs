//! What is in sled: the states of sources, their seen sets and what waits, each with the number of the commit whose record has
//! it. It can be made again from the journal, so that a failure of sled costs the next start some seconds, and nothing else.
//!
//! ```text
//! key        value: what is stored | number of the commit, 8 LE; 0 if the journal does not have it
//! mapplied   number of the last commit that is in sled, its last event, the oldest event that is kept, and the last commit
//!            that is on disk, 8 LE each
//! ```
//!
//! sled can panic, on damaged pages above all. No panic of it leaves this module.

use std::{
    cell::Cell,
    fs::{self, File},
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use news::{Epoch, Seq};

use crate::{
    journal::{Operation, is_unreadable},
    pieces::{self, EntryChanges},
    record::{self, Damage},
};

/// Why sled could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// sled or the disk failed.
    #[error(transparent)]
    Sled(#[from] sled::Error),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// sled stopped at what it did not expect.
    #[error("sled panicked: {0}")]
    Panicked(String),
    /// A value is not what was written.
    #[error("{what} is damaged: {damage}")]
    Damaged {
        /// Which one.
        what: String,
        /// In what way.
        damage: Damage,
    },
}

impl TableError {
    /// Whether the data are wrong, and not the disk.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Sled(sled::Error::Io(_)) | Self::Io(_) => false,
            Self::Sled(_) | Self::Panicked(_) | Self::Damaged { .. } => true,
        }
    }

    /// Whether the disk cannot read what is there.
    pub(crate) fn is_unreadable(&self) -> bool {
        match self {
            Self::Sled(sled::Error::Io(error)) | Self::Io(error) => is_unreadable(error),
            _ => false,
        }
    }
}

/// A value, and the commit whose record has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredValue {
    pub(crate) value: Vec<u8>,
    /// 0 if the journal does not have it.
    pub(crate) commit: u64,
}

/// A change of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableChange {
    pub(crate) key: Vec<u8>,
    /// `None`: it is removed.
    pub(crate) value: Option<StoredValue>,
}

impl TableChange {
    /// What a commit changes.
    pub(crate) fn of(Operation { key, value }: Operation, commit: u64) -> Self {
        Self { key, value: value.map(|value| StoredValue { value, commit }) }
    }
}

/// How far sled has what the journal has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppliedCommits {
    /// The last commit.
    pub(crate) commit: u64,
    /// The last event up to there.
    pub(crate) head: Seq,
    /// The oldest event that is kept.
    pub(crate) oldest: Seq,
    /// What sled has up to this commit was on disk when this was written.
    pub(crate) flushed: u64,
}

/// sled, and how far it has come.
#[derive(Debug)]
pub(crate) struct Table {
    /// `None` once it is dropped.
    db: Option<sled::Db>,
    file: File,
    /// Where a failure of sled is noted, so that the next start makes it again.
    note: PathBuf,
    noted: OnceLock<()>,
    has_failed: AtomicBool,
    applied: AtomicU64,
    head: AtomicU64,
    oldest: AtomicU64,
    flushed: AtomicU64,
}

/// The file that says that sled must be made again.
pub(crate) const REBUILD_NOTE: &str = "rebuild";
const APPLIED: &[u8] = b"mapplied";
/// Keys that are looked at together.
const KEYS_PER_READ: usize = 1000;

impl Table {
    /// Opens or creates it in `folder`, inside the folder of the store.
    pub(crate) fn open(folder: &Path, cache_bytes: u64) -> Result<Self, TableError> {
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .mode(sled::Mode::LowSpace);
        let db = caught(|| config.open())?;
        let file = File::open(folder.join("db"))?;
        let note = folder.parent().unwrap_or(folder).join(REBUILD_NOTE);
        let table = Self {
            db: Some(db),
            file,
            note,
            noted: OnceLock::new(),
            has_failed: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            head: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
        };
        if let Some(stored) = caught(|| table.db().get(APPLIED))? {
            let [commit, head, oldest, flushed] =
                table.checked("how far it has come", record::unseal_numbers(&stored))?;
            table.applied.store(commit, Ordering::Release);
            table.head.store(head, Ordering::Release);
            table.oldest.store(oldest, Ordering::Release);
            table.flushed.store(flushed, Ordering::Release);
        }
        Ok(table)
    }

    fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("only the drop takes it")
    }

    pub(crate) fn applied(&self) -> AppliedCommits {
        AppliedCommits {
            commit: self.applied.load(Ordering::Acquire),
            head: Seq(self.head.load(Ordering::Acquire)),
            oldest: Seq(self.oldest.load(Ordering::Acquire)),
            flushed: self.flushed.load(Ordering::Acquire),
        }
    }

    /// The epoch of the log; `None` in an empty table.
    pub(crate) fn epoch(&self) -> Result<Option<Epoch>, TableError> {
        let Some(stored) = self.watched(|| self.db().get(record::EPOCH))? else { return Ok(None) };
        let epoch =
            record::unseal_epoch(&stored).and_then(|name| Epoch::try_new(name).map_err(|_| Damage::Content));
        self.checked("the epoch", epoch).map(Some)
    }

    /// Begins a log without commits and events; the values stay, and the journal has none of them.
    pub(crate) fn begin_epoch(&self, epoch: &Epoch) -> Result<(), TableError> {
        self.set_epoch(epoch)?;
        self.flushed.store(0, Ordering::Release);
        self.oldest.store(0, Ordering::Release);
        let mut after = Vec::new();
        while let Some(key) = self.keys_after(&after, 1)?.pop() {
            // The numbers of the log before say nothing about the commits of this one: they would win against those.
            let unnumbered = self.get(&key)?.map(|stored| StoredValue { commit: 0, ..stored });
            self.apply([TableChange { key: key.clone(), value: unnumbered }], 0, Seq::NONE)?;
            after = key;
        }
        self.apply([], 0, Seq::NONE)?;
        self.flush()
    }

    pub(crate) fn set_epoch(&self, epoch: &Epoch) -> Result<(), TableError> {
        self.watched(|| self.db().insert(record::EPOCH, record::seal_epoch(epoch.as_str()))).map(drop)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<StoredValue>, TableError> {
        let Some(stored) = self.watched(|| self.db().get(key))? else { return Ok(None) };
        self.whole(key, stored).map(Some)
    }

    fn whole(&self, key: &[u8], stored: sled::IVec) -> Result<StoredValue, TableError> {
        let whole = self.watched(|| pieces::value(self.db(), key, stored))?;
        let split = whole.and_then(|bytes| {
            let (value, commit) = bytes.split_last_chunk().ok_or(Damage::Cut)?;
            Ok(StoredValue { value: value.to_vec(), commit: u64::from_le_bytes(*commit) })
        });
        self.checked(&String::from_utf8_lossy(key), split)
    }

    /// The values whose keys begin so, in the order of their keys.
    pub(crate) fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, StoredValue)>, TableError> {
        let entries = self.watched(|| self.db().scan_prefix(prefix).collect::<sled::Result<Vec<_>>>())?;
        let whole = |(key, stored): (sled::IVec, _)| Ok((key.to_vec(), self.whole(&key, stored)?));
        entries.into_iter().map(whole).collect()
    }

    /// Reads everything, so that what is damaged is found now and not by a visit.
    pub(crate) fn verify(&self) -> Result<(), TableError> {
        let mut after = Vec::new();
        loop {
            let keys = self.keys_after(&after, KEYS_PER_READ)?;
            let Some(last) = keys.last().cloned() else { return Ok(()) };
            after = last;
            for key in keys {
                let Some(stored) = self.get(&key)? else { continue };
                let checked = record::check_value(&key, &stored.value);
                self.checked(&String::from_utf8_lossy(&key), checked)?;
            }
        }
    }

    /// At most so many keys after this one, in order; keys of this module are left out.
    pub(crate) fn keys_after(&self, key: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, TableError> {
        use std::ops::Bound;
        let range = (Bound::Excluded(key.to_vec()), Bound::<Vec<u8>>::Unbounded);
        let is_value =
            |key: &sled::IVec| !key.starts_with(b"p") && **key != *APPLIED && **key != *record::EPOCH;
        self.watched(|| {
            let keys = self.db().range(range).keys();
            keys.filter(|key| key.as_ref().map_or(true, is_value))
                .take(limit)
                .map(|key| Ok(key?.to_vec()))
                .collect()
        })
    }

    /// Applies changes, all or nothing, each key at most once. They are visible at once, and on disk after the next flush.
    pub(crate) fn apply(
        &self,
        changes: impl IntoIterator<Item = TableChange>,
        commit: u64,
        head: Seq,
    ) -> Result<(), TableError> {
        self.put(changes, commit, head, true)
    }

    /// As [`Table::apply`], for changes that the record of this commit has. They need not be all or nothing: a start does again
    /// what is not in sled, and leaves what is. So they are a batch only if pieces are replaced: sled writes what came before a
    /// batch to its file at once, and wakes all of its threads for that, while the journal waits for the same disk.
    pub(crate) fn apply_journalled(
        &self,
        changes: impl IntoIterator<Item = TableChange>,
        commit: u64,
        head: Seq,
    ) -> Result<(), TableError> {
        self.put(changes, commit, head, false)
    }

    fn put(
        &self,
        changes: impl IntoIterator<Item = TableChange>,
        commit: u64,
        head: Seq,
        at_once: bool,
    ) -> Result<(), TableError> {
        let flushed = self.flushed.load(Ordering::Acquire);
        let oldest = self.oldest.load(Ordering::Acquire);
        let applied = record::seal_numbers([commit, head.0, oldest, flushed]);
        self.watched(|| {
            let mut entries = EntryChanges::default();
            for TableChange { key, value } in changes {
                match value {
                    Some(StoredValue { mut value, commit }) => {
                        value.extend_from_slice(&commit.to_le_bytes());
                        entries.replace(self.db(), &key, value)?;
                    }
                    None => entries.remove_from(self.db(), &key)?,
                }
            }
            if at_once || entries.replaces_pieces() {
                entries.replace(self.db(), APPLIED, applied)?;
                return entries.apply_at_once(self.db());
            }
            entries.apply_in_turn(self.db())?;
            // After what it says is there.
            self.db().insert(APPLIED, applied).map(drop)
        })?;
        self.applied.store(commit, Ordering::Release);
        self.head.store(head.0, Ordering::Release);
        Ok(())
    }

    /// Notes the oldest event that is kept.
    pub(crate) fn set_oldest(&self, oldest: Seq) -> Result<(), TableError> {
        self.oldest.store(oldest.0, Ordering::Release);
        let AppliedCommits { commit, head, .. } = self.applied();
        self.apply([], commit, head)
    }

    /// Writes what was applied before to the file, so that it is still there if this process dies.
    pub(crate) fn write(&self) -> Result<(), TableError> {
        self.watched(|| self.db().flush()).map(drop)
    }

    /// Brings to disk what was applied before. sled's own flush does not sync its file.
    pub(crate) fn flush(&self) -> Result<(), TableError> {
        let applied = self.applied.load(Ordering::Acquire);
        crate::crash::point("flush-started");
        self.write()?;
        self.noting(self.file.sync_data().map_err(TableError::from))?;
        crate::crash::point("flush-synced");
        self.flushed.store(applied, Ordering::Release);
        Ok(())
    }

    /// Brings everything to disk, and notes that it is there.
    pub(crate) fn close(&self) -> Result<(), TableError> {
        self.flush()?;
        let AppliedCommits { commit, head, .. } = self.applied();
        self.apply([], commit, head)?;
        crate::crash::point("flush-noted");
        self.flush()
    }

    fn watched<T>(&self, call: impl FnOnce() -> sled::Result<T>) -> Result<T, TableError> {
        self.noting(caught(call))
    }

    fn checked<T>(&self, what: &str, value: Result<T, Damage>) -> Result<T, TableError> {
        self.noting(value.map_err(|damage| TableError::Damaged { what: what.to_owned(), damage }))
    }

    /// Notes for the next start that the data are wrong, or for the end of this process that the disk has failed.
    fn noting<T>(&self, result: Result<T, TableError>) -> Result<T, TableError> {
        let Err(error) = &result else { return result };
        if error.is_damage() {
            self.noted.get_or_init(|| {
                // Without the note, the next start finds the damage itself, or at the same place again.
                fs::write(&self.note, format!("{error}\n")).ok();
            });
        } else {
            self.has_failed.store(true, Ordering::Release);
        }
        result
    }

    /// A value of this table is not what was written.
    pub(crate) fn damaged(&self, what: String, damage: Damage) -> TableError {
        let result: Result<(), _> = self.noting(Err(TableError::Damaged { what, damage }));
        result.expect_err("it is one")
    }
}

impl Drop for Table {
    /// sled flushes and syncs when it is dropped, and panics if that fails. If the disk has failed before, it is never
    /// dropped: it may wait for ever.
    fn drop(&mut self) {
        let db = self.db.take();
        if self.has_failed.load(Ordering::Acquire) {
            mem::forget(db);
        } else {
            caught(|| {
                drop(db);
                Ok(())
            })
            .ok();
        }
    }
}

thread_local! {
    static IN_SLED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in a call of sled whose panic is an error of the store, and not one of the program.
#[must_use]
pub fn is_in_sled() -> bool {
    IN_SLED.get()
}

fn caught<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, TableError> {
    IN_SLED.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IN_SLED.set(false);
    match result {
        Ok(result) => Ok(result?),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
            Err(TableError::Panicked(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use news::{FeedUrl, Item, ItemEvidence, Source, SourceId, SourceState, Timestamp};

    use super::*;
    use crate::{LogWriter, NewsPlan, StoreOptions, VisitRecord, lock::SLED, open::wait_until_sled_unlocks};

    fn append(writer: &mut LogWriter, now: i64) {
        let url = FeedUrl::try_new("https://example.org/feed").unwrap();
        let source = Arc::new(Source::new(SourceId::try_new("a").unwrap(), url));
        // So many that their seen set is in pieces.
        let items = (0..100).map(|n| {
            let key = format!("{now} {n}");
            let guid = news::stable_hash(key.as_bytes());
            Item { key, evidence: ItemEvidence { guid, ..ItemEvidence::default() }, ..Item::default() }
        });
        let state = SourceState { etag: Some(now.to_string()), ..SourceState::default() };
        let (items, now) = (items.collect(), Timestamp::from_millis(now));
        writer.append(vec![VisitRecord { source, items, state, now, plan: NewsPlan::default() }]).unwrap();
    }

    /// Opens the store, and does something with it.
    fn opened(folder: &Path, work: impl FnOnce(&mut LogWriter)) {
        let (mut writer, reader) = crate::open(folder, &StoreOptions::default()).unwrap();
        work(&mut writer);
        drop(reader);
        writer.close().unwrap();
    }

    fn table(folder: &Path) -> Table {
        let folder = folder.join(SLED);
        wait_until_sled_unlocks(&folder).unwrap();
        Table::open(&folder, 1 << 20).unwrap()
    }

    fn values(folder: &Path) -> BTreeMap<Vec<u8>, StoredValue> {
        let table = table(folder);
        let keys = table.keys_after(&[], usize::MAX).unwrap();
        keys.into_iter().map(|key| (key.clone(), table.get(&key).unwrap().unwrap())).collect()
    }

    #[test]
    fn a_start_completes_a_commit_of_which_sled_has_a_part() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        opened(folder, |writer| append(writer, 1));
        let (before, applied) = (values(folder), table(folder).applied());
        opened(folder, |writer| append(writer, 2));
        let after = values(folder);
        let changed: Vec<_> = after.keys().filter(|key| before.get(*key) != after.get(*key)).collect();
        assert!(changed.len() > 1, "{}", changed.len());
        for done in 0..changed.len() {
            let table = table(folder);
            let undone = changed[done..].iter().map(|key| {
                let (key, value) = (key.to_vec(), before.get(*key).cloned());
                TableChange { key, value }
            });
            table.flushed.store(0, Ordering::Release);
            table.apply(undone, applied.commit, applied.head).unwrap();
            table.write().unwrap();
            drop(table);
            assert_ne!(values(folder), after, "{done}");
            opened(folder, |_| {});
            assert_eq!(values(folder), after, "{done}");
        }
    }

    #[test]
    fn values_of_a_log_before_do_not_win_against_the_commits_of_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let table = Table::open(&folder.path().join("sled"), 1 << 20).unwrap();
        let value = Some(StoredValue { value: vec![7; 9000], commit: 500 });
        let change = |key: &[u8]| TableChange { key: key.to_vec(), value: value.clone() };
        table.apply([change(b"sa"), change(b"sb")], 500, Seq(900)).unwrap();
        table.begin_epoch(&Epoch::try_new("k3v9q2").unwrap()).unwrap();
        assert_eq!(table.applied(), AppliedCommits::default());
        for key in [b"sa", b"sb"] {
            let kept = table.get(key).unwrap();
            assert_eq!(kept, Some(StoredValue { value: vec![7; 9000], commit: 0 }));
        }
    }
}
