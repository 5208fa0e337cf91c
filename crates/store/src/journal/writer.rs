//! Appends records, begins segments, removes the oldest ones.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use news::{Epoch, Seq};

use crate::{disk_work::DiskPhase, totals::OwnerTotals};

use super::{
    open::{JournalScan, set_aside},
    record::{CommitRecord, RecordHeader, RecordTable, SegmentHeader},
    segment::{JournalFiles, Segment, add_totals, encode_index, index_name, segment_name},
};

/// When a segment ends: at the first of these, with the record that reaches it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentLimits {
    pub(crate) bytes: u64,
    pub(crate) events: u64,
}

/// The only writer of the journal.
#[derive(Debug)]
pub(crate) struct JournalWriter {
    journal: Arc<JournalFiles>,
    file: Arc<File>,
    limits: SegmentLimits,
    /// Of the last segment.
    totals: OwnerTotals,
    /// Bytes behind the last record that were removed.
    removed_end: u64,
}

impl JournalWriter {
    /// Begins a journal in an empty folder, or in one that does not exist. Its first event has this number.
    pub(crate) fn create(folder: &Path, epoch: Epoch, first: Seq, limits: SegmentLimits) -> io::Result<Self> {
        Self::create_behind(0, folder, epoch, first, limits)
    }

    /// As [`Self::create`], with segments whose numbers come after this one.
    pub(crate) fn create_behind(
        number: u64,
        folder: &Path,
        epoch: Epoch,
        first: Seq,
        limits: SegmentLimits,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        sync_folder(folder.parent().unwrap_or(folder))?;
        let number = number + 1;
        let (file, segment) = begin_segment(folder, &epoch, Segment::empty(number, 1, first))?;
        let journal = JournalFiles::new(epoch, folder.to_owned(), VecDeque::from([segment]));
        journal.set_last(number, &file);
        Ok(Self { journal: Arc::new(journal), file, limits, totals: OwnerTotals::new(), removed_end: 0 })
    }

    /// Continues a journal: behind its last record, which is what counts, and from this commit and this event on if they are
    /// later than that. What is behind the last record was never announced, and is removed.
    pub(crate) fn resume(
        scanned: JournalScan,
        epoch: Epoch,
        (commit, first): (u64, Seq),
        limits: SegmentLimits,
    ) -> io::Result<Self> {
        let JournalScan { folder, mut segments, without_index, without_records, strays, .. } = scanned;
        for stray in strays {
            rename_copy(&folder, stray)?;
        }
        let last = segments.back().map_or(0, |last| last.number);
        // Its number is the next one, whether it was the last of these or not.
        let unfinished = without_records.last().copied().filter(|unfinished| *unfinished > last);
        for number in without_records {
            set_aside(&folder, number)?;
        }
        for (number, totals) in without_index {
            if let Some(segment) = segments.iter().find(|segment| segment.number == number) {
                write_index(&folder, segment, &totals)?;
            }
        }
        // A process that was killed between a write and its sync has left bytes that a loss of power would still take, and so
        // has a copy. From now on they are served.
        for segment in &segments {
            File::open(folder.join(segment_name(segment.number)))?.sync_all()?;
        }
        sync_folder(&folder)?;
        let (commit, first) = segments
            .back()
            .map_or((commit, first), |last| (commit.max(last.next_commit), first.max(last.next_event)));
        let continues =
            |last: &&Segment| unfinished.is_none() && (last.next_commit, last.next_event) == (commit, first);
        let mut removed_end = 0;
        let file = if let Some(last) = segments.back().filter(continues) {
            let file =
                OpenOptions::new().read(true).append(true).open(folder.join(segment_name(last.number)))?;
            let length = file.metadata()?.len();
            if length != last.length {
                removed_end = length.saturating_sub(last.length);
                file.set_len(last.length)?;
                file.sync_all()?;
                crate::crash::point("open-truncated");
            }
            Arc::new(file)
        } else {
            let number = unfinished.unwrap_or_else(|| segments.back().map_or(1, |last| last.number + 1));
            let (file, segment) = begin_segment(&folder, &epoch, Segment::empty(number, commit, first))?;
            segments.push_back(segment);
            file
        };
        let last = segments.back().map_or(1, |last| last.number);
        let journal = JournalFiles::new(epoch, folder, segments);
        journal.set_last(last, &file);
        let mut writer =
            Self { journal: Arc::new(journal), file, limits, totals: OwnerTotals::new(), removed_end };
        writer.count_last()?;
        Ok(writer)
    }

    /// Counts the owners of the last segment's events.
    fn count_last(&mut self) -> io::Result<()> {
        let Some(first) = self.journal.segments().back().map(|last| last.first) else { return Ok(()) };
        let mut events = self.journal.events_from(first);
        while let Some(event) = events.next()? {
            let totals = self.totals.entry(event.owner).or_default();
            *totals = totals.with(u64::from(event.bytes));
        }
        Ok(())
    }

    /// Bytes of a commit that was not finished, which the open has removed.
    pub(crate) fn removed_end(&self) -> u64 {
        self.removed_end
    }

    pub(crate) fn journal(&self) -> &Arc<JournalFiles> {
        &self.journal
    }

    /// The number of the next commit, and of its first event.
    pub(crate) fn next(&self) -> (u64, Seq) {
        self.journal.segments().back().map_or((1, Seq(1)), |last| (last.next_commit, last.next_event))
    }

    /// Appends a commit, and returns once it is on disk. Blocks.
    ///
    /// # Errors
    /// Nothing more may be written then: it is unknown what is on disk.
    pub(crate) fn append(&mut self, commit: &CommitRecord) -> io::Result<()> {
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "a commit of 4 GiB");
        let (header, table, bytes) = commit.encode().ok_or_else(too_large)?;
        if self.is_full() {
            let journal = Arc::clone(&self.journal);
            match journal.disk_work.during(DiskPhase::Sync, || self.roll()) {
                // The segment becomes a little longer.
                Err(error) if has_too_many_files(&error) => {}
                rolled => rolled?,
            }
        }
        let work = &self.journal.disk_work;
        work.during(DiskPhase::Write, || (&*self.file).write_all(&bytes))?;
        crate::crash::point("append-written");
        work.during(DiskPhase::Sync, || self.file.sync_data())?;
        crate::crash::point("append-synced");
        self.add(header, &table);
        Ok(())
    }

    /// Whether the last segment is where it was made, and as long as it was written: what goes into a file that another
    /// program has removed, replaced or cut is announced, and no start would find it.
    ///
    /// # Errors
    /// If it is not. Nothing more may be written then.
    pub(crate) fn check_place(&self) -> io::Result<()> {
        let Some((number, length)) = self.journal.segments().back().map(|last| (last.number, last.length))
        else {
            return Ok(());
        };
        let path = self.journal.folder.join(segment_name(number));
        let changed =
            |how: &str| Err(io::Error::other(format!("another program has {how} {}", path.display())));
        let open = self.file.metadata()?;
        match fs::metadata(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                changed("removed")
            }
            Err(error) => Err(error),
            Ok(found) if (found.dev(), found.ino()) != (open.dev(), open.ino()) => changed("replaced"),
            Ok(_) if open.len() != length => changed("written to or cut"),
            Ok(_) => Ok(()),
        }
    }

    fn is_full(&self) -> bool {
        let segments = self.journal.segments();
        segments.back().is_some_and(|last| {
            last.length >= self.limits.bytes || last.next_event.0 - last.first.0 >= self.limits.events
        })
    }

    fn add(&mut self, header: RecordHeader, table: &RecordTable) {
        add_totals(&mut self.totals, table);
        if let Some(last) = self.journal.segments_mut().back_mut() {
            last.add(last.length, header);
        }
    }

    /// Ends the last segment and begins the next one.
    fn roll(&mut self) -> io::Result<()> {
        let Some(last) = self.journal.segments().back().cloned() else { return Ok(()) };
        write_index(&self.journal.folder, &last, &self.totals)?;
        let next = Segment::empty(last.number + 1, last.next_commit, last.next_event);
        let (file, segment) = begin_segment(&self.journal.folder, &self.journal.epoch, next)?;
        self.totals.clear();
        self.journal.set_last(segment.number, &file);
        self.file = file;
        self.journal.segments_mut().push_back(segment);
        Ok(())
    }

    /// The oldest segment, if all of its events are before this one: its number, and the commits that it has. The last segment
    /// stays.
    pub(crate) fn removable(&self, oldest: Seq) -> Option<(u64, std::ops::Range<u64>)> {
        let segments = self.journal.segments();
        let first = segments.front().filter(|first| segments.len() > 1 && first.next_event <= oldest)?;
        Some((first.number, first.first_commit..first.next_commit))
    }

    /// Removes the oldest segment, of this number.
    pub(crate) fn remove_oldest(&mut self, number: u64) -> io::Result<()> {
        let folder = &self.journal.folder;
        self.journal.segments_mut().pop_front_if(|first| first.number == number);
        for name in [segment_name(number), index_name(number)] {
            match fs::remove_file(folder.join(name)) {
                // It has gone already: there is nothing to lose any more.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_folder(folder)
    }
}

/// Renames the copy of a segment to what no segment is called: the next segment may need its own.
fn rename_copy(folder: &Path, stray: u64) -> io::Result<()> {
    let names = (1..u32::MAX).map(|n| folder.join(format!("{stray:08}.copy-{n}")));
    let is_free = |path: &std::path::PathBuf| path.symlink_metadata().is_err();
    let free = { names }.find(is_free).ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))?;
    fs::rename(folder.join(segment_name(stray)), free)
}

/// Its file has its header, and its folder has its file, before anything depends on it.
fn begin_segment(folder: &Path, epoch: &Epoch, segment: Segment) -> io::Result<(Arc<File>, Segment)> {
    let header = SegmentHeader {
        epoch: epoch.clone(),
        number: segment.number,
        commit: segment.first_commit,
        first: segment.first,
    };
    let path = folder.join(segment_name(segment.number));
    // Before the file is made: later, no further file might be opened.
    let opened_folder = File::open(folder)?;
    let mut file = OpenOptions::new().read(true).append(true).create_new(true).open(path)?;
    crate::crash::point("roll-created");
    file.write_all(&header.encode())?;
    file.sync_all()?;
    opened_folder.sync_all()?;
    crate::crash::point("roll-synced");
    Ok((Arc::new(file), segment))
}

/// Whether the process, or the system, has as many open files as it may have. That passes.
pub(crate) fn has_too_many_files(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Not synced: after a loss of power its segment is read instead.
fn write_index(folder: &Path, segment: &Segment, totals: &OwnerTotals) -> io::Result<()> {
    fs::write(folder.join(index_name(segment.number)), encode_index(segment, totals))
}

/// Creates a folder and those that it is in, and returns once their names are on disk.
pub(crate) fn create_folders(folder: &Path) -> io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing = folder.ancestors().take_while(is_missing).count();
    fs::create_dir_all(folder)?;
    // One that was there may be of a start that was killed before this.
    for (n, created) in folder.ancestors().take(missing.max(1)).enumerate() {
        let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty());
        match sync_folder(parent.unwrap_or(Path::new("."))) {
            // A folder that may be written to, and not read.
            Err(error) if n < missing && error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

/// A name in a folder is on disk only once the folder is.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
