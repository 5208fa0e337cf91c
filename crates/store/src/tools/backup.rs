//! Copies the journal of a store, also beside a daemon.
//!
//! Segments are copied from the oldest to the newest, and the newest up to its last whole record. A copy that is made so is
//! consistent without a word of the daemon: a segment never changes but at its end; and before retention removes one, what only
//! that one has of sources is written to the newest, which is copied later. So nothing waits for a backup.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use news::{Epoch, Seq, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    journal::{create_folders, read_file, segment_name, segment_numbers, segment_path, sync_folder},
    lock::JOURNAL,
};

use super::{
    ToolError,
    reading::{ClosedJournal, LogPart},
};

/// The file in a backup that says what it has.
pub const MANIFEST: &str = "backup";
const LAYOUT: u32 = 1;
/// The extension of a file that is not whole yet.
const UNFINISHED: &str = "new";

/// What a backup has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupManifest {
    /// The layout of this file.
    pub layout: u32,
    /// When it was made.
    pub made: Timestamp,
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The oldest event that is kept.
    pub oldest: Seq,
    /// The newest event.
    pub head: Seq,
    /// The files of the journal, in order.
    pub segments: Vec<BackupSegment>,
}

/// A segment in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSegment {
    /// Its number.
    pub segment: u64,
    /// Its length.
    pub bytes: u64,
    /// Its CRC-32C.
    pub crc32c: u32,
}

/// What a backup did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// What the backup has now.
    pub manifest: BackupManifest,
    /// Segments that were copied.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Segments that the backup had before.
    pub kept: u64,
    /// Segments that are damaged, cut or missing in the store while the backup has them right: those are kept.
    pub damaged_since: Vec<u64>,
    /// Events that are damaged or missing in the store.
    pub lost: u64,
    /// Damaged places.
    pub damaged_places: u64,
}

/// What a daemon serves, to compare with what is in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonLog {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its newest event before the backup began.
    pub head: Seq,
}

/// Where a backup goes.
pub trait BackupTarget {
    /// What the target has of the backup before.
    fn before(&self) -> Option<&BackupManifest>;
    /// Whether it has the file of a segment with this length and this checksum.
    ///
    /// # Errors
    /// If it cannot be read.
    fn has(&self, segment: &BackupSegment) -> io::Result<bool>;
    /// Writes a segment, and returns once it is there.
    ///
    /// # Errors
    /// If it cannot be written.
    fn put(&mut self, segment: &BackupSegment, bytes: &[u8]) -> io::Result<()>;
    /// Writes what the backup has, removes what it no longer has, and returns once that is on disk.
    ///
    /// # Errors
    /// If it cannot be written.
    fn finish(&mut self, manifest: &BackupManifest) -> io::Result<()>;
    /// Where it is, for messages.
    fn name(&self) -> PathBuf;
}

/// The file of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ManifestFile {
    Missing,
    /// It is not what was written, or cannot be read.
    Damaged,
    Whole(BackupManifest),
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct SealedManifest {
    #[serde(flatten)]
    manifest: BackupManifest,
    /// CRC-32C of the manifest as JSON without white space. Earlier versions have not written it.
    #[serde(default)]
    crc32c: Option<u32>,
}

impl ManifestFile {
    pub(super) fn read(folder: &Path) -> Self {
        match fs::read(folder.join(MANIFEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Missing,
            bytes => bytes.ok().and_then(|bytes| whole(&bytes)).map_or(Self::Damaged, Self::Whole),
        }
    }
}

fn whole(bytes: &[u8]) -> Option<BackupManifest> {
    let SealedManifest { manifest, crc32c } = serde_json::from_slice(bytes).ok()?;
    let is_right = crc32c.is_none_or(|crc32c| crc32c == manifest.checksum());
    (is_right && manifest.layout == LAYOUT).then_some(manifest)
}

impl BackupManifest {
    /// Of the backup in this folder; `None` if there is none, or its manifest is damaged.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        match ManifestFile::read(folder) {
            ManifestFile::Whole(manifest) => Some(manifest),
            ManifestFile::Missing | ManifestFile::Damaged => None,
        }
    }

    /// As it is in its file, with a checksum.
    #[must_use]
    pub fn to_json(&self) -> String {
        let sealed = SealedManifest { manifest: self.clone(), crc32c: Some(self.checksum()) };
        serde_json::to_string_pretty(&sealed).expect("every field of a manifest has a JSON form") + "\n"
    }

    fn checksum(&self) -> u32 {
        let text = serde_json::to_vec(self).expect("every field of a manifest has a JSON form");
        crc32c::crc32c(&text)
    }
}

impl BackupSegment {
    /// Its file in a backup.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{JOURNAL}/{}", segment_name(self.segment))
    }
}

/// Backs up the store in `store`. `daemon` is what a running daemon says that it serves.
///
/// # Errors
/// [`ToolError`]; what the target had before is still good then.
pub fn backup(
    store: &Path,
    target: &mut dyn BackupTarget,
    daemon: Option<DaemonLog>,
    made: Timestamp,
) -> Result<BackupReport, ToolError> {
    let journal = ClosedJournal::find(store)?;
    if let Some(DaemonLog { epoch, head }) = daemon
        && (epoch != journal.epoch || head > journal.head)
    {
        return Err(ToolError::NotServed {
            path: store.to_owned(),
            served: epoch,
            head,
            found: journal.epoch,
            found_head: journal.head,
        });
    }
    if let Some(before) = target.before().filter(|before| before.epoch != journal.epoch) {
        let (path, found) = (target.name(), before.epoch.clone());
        return Err(ToolError::OtherLog { path, found, epoch: journal.epoch });
    }
    if let Some(kept) = target.before().map(|before| before.head).filter(|kept| *kept > journal.head) {
        return Err(ToolError::OlderStore { path: target.name(), kept, head: journal.head });
    }
    let before = target.before().map(|before| before.segments.clone()).unwrap_or_default();
    let before: BTreeMap<_, _> = before.into_iter().map(|segment| (segment.segment, segment)).collect();
    let manifest = BackupManifest {
        layout: LAYOUT,
        made,
        epoch: journal.epoch.clone(),
        oldest: journal.oldest,
        head: journal.head,
        segments: Vec::new(),
    };
    let mut report = BackupReport {
        manifest,
        copied: 0,
        copied_bytes: 0,
        kept: 0,
        damaged_since: Vec::new(),
        lost: 0,
        damaged_places: 0,
    };
    journal.read(Seq::NONE, |part| {
        match part {
            LogPart::Segment { segment, is_last } => {
                let end = if is_last { segment.end() } else { segment.bytes.len() };
                let bytes = &segment.bytes[..end];
                let is_cut = !is_last && journal.is_cut(segment)?;
                report.add(target, before.get(&segment.number), segment.number, bytes, is_cut)?;
            }
            LogPart::Damage(damage) => {
                report.lost += damage.events;
                report.damaged_places += 1;
            }
            LogPart::Event { .. } | LogPart::Changes(_) => {}
        }
        Ok(())
    })?;
    report.keep_missing(target, &journal, before)?;
    target.finish(&report.manifest).map_err(ToolError::file("write", target.name()))?;
    crate::crash::point("backup-done");
    Ok(report)
}

impl BackupReport {
    fn add(
        &mut self,
        target: &mut dyn BackupTarget,
        before: Option<&BackupSegment>,
        number: u64,
        bytes: &[u8],
        is_cut: bool,
    ) -> Result<(), ToolError> {
        let segment =
            BackupSegment { segment: number, bytes: bytes.len() as u64, crc32c: crc32c::crc32c(bytes) };
        let failed = |source| ToolError::File { attempt: "read", path: target.name(), source };
        let is_longer = |before: &&BackupSegment| is_cut && before.bytes > segment.bytes;
        if let Some(before) = before.filter(|before| before.bytes == segment.bytes || is_longer(before))
            && target.has(before).map_err(failed)?
        {
            if *before != segment {
                self.damaged_since.push(number);
            }
            self.kept += 1;
            self.manifest.segments.push(before.clone());
            return Ok(());
        }
        target.put(&segment, bytes).map_err(ToolError::file("write", target.name()))?;
        crate::crash::point("backup-segment");
        self.copied += 1;
        self.copied_bytes += segment.bytes;
        self.manifest.segments.push(segment);
        Ok(())
    }

    /// Keeps what the backup has of segments that are missing in the store and that retention has not removed.
    fn keep_missing(
        &mut self,
        target: &dyn BackupTarget,
        journal: &ClosedJournal,
        before: BTreeMap<u64, BackupSegment>,
    ) -> Result<(), ToolError> {
        let first = if journal.begins_late()? { 0 } else { journal.numbers[0] };
        let is_missing = |number: &u64| *number > first && !journal.numbers.contains(number);
        for (number, segment) in before.into_iter().filter(|(number, _)| is_missing(number)) {
            if target.has(&segment).map_err(ToolError::file("read", target.name()))? {
                self.damaged_since.push(number);
                self.kept += 1;
                self.manifest.segments.push(segment);
            }
        }
        self.damaged_since.sort_unstable();
        self.manifest.segments.sort_by_key(|segment| segment.segment);
        Ok(())
    }
}

/// A backup in a folder.
#[derive(Debug)]
pub struct FolderBackup {
    folder: PathBuf,
    journal: PathBuf,
    before: Option<BackupManifest>,
}

impl FolderBackup {
    /// Opens a folder with a backup of the store `store`, or an empty or new one.
    ///
    /// # Errors
    /// [`ToolError`] if it has something else, is in the store, or cannot be used.
    pub fn open(folder: &Path, store: &Path) -> Result<Self, ToolError> {
        let Ok(store) = fs::canonicalize(store) else { return Err(ToolError::NoStore(store.to_owned())) };
        // A disk that is not mounted has no folders.
        let parent =
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let found = fs::canonicalize(folder).or_else(|_| fs::canonicalize(parent));
        let Ok(found) = found else { return Err(ToolError::NoParent(parent.to_owned())) };
        if found.starts_with(&store) {
            return Err(ToolError::InsideStore { path: folder.to_owned(), store });
        }
        let before = match ManifestFile::read(folder) {
            ManifestFile::Missing => None,
            ManifestFile::Damaged => return Err(ToolError::DamagedManifest(folder.to_owned())),
            ManifestFile::Whole(manifest) => Some(manifest),
        };
        let journal = folder.join(JOURNAL);
        let names = [OsString::from(JOURNAL), Path::new(MANIFEST).with_extension(UNFINISHED).into()];
        let others = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            entries => entries
                .map_err(ToolError::file("read", folder))?
                .any(|entry| !entry.is_ok_and(|entry| names.contains(&entry.file_name()))),
        };
        // A first backup that was interrupted has the folder of the journal, and perhaps a manifest that is not whole.
        if before.is_none() && others {
            return Err(ToolError::NotEmpty(folder.to_owned()));
        }
        create_folders(&journal).map_err(ToolError::file("create", &journal))?;
        Ok(Self { folder: folder.to_owned(), journal, before })
    }
}

impl BackupTarget for FolderBackup {
    fn before(&self) -> Option<&BackupManifest> {
        self.before.as_ref()
    }

    fn has(&self, segment: &BackupSegment) -> io::Result<bool> {
        let bytes = match File::open(segment_path(&self.journal, segment.segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => read_file(&file?)?,
        };
        Ok(bytes.len() as u64 == segment.bytes && crc32c::crc32c(&bytes) == segment.crc32c)
    }

    fn put(&mut self, segment: &BackupSegment, bytes: &[u8]) -> io::Result<()> {
        write_at_once(&segment_path(&self.journal, segment.segment), bytes)
    }

    fn finish(&mut self, manifest: &BackupManifest) -> io::Result<()> {
        write_at_once(&self.folder.join(MANIFEST), manifest.to_json().as_bytes())?;
        for number in segment_numbers(&self.journal)? {
            if !manifest.segments.iter().any(|segment| segment.segment == number) {
                fs::remove_file(segment_path(&self.journal, number))?;
            }
        }
        for entry in fs::read_dir(&self.journal)? {
            let path = entry?.path();
            // Of an interrupted backup.
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        sync_folder(&self.journal)
    }

    fn name(&self) -> PathBuf {
        self.folder.clone()
    }
}

/// The file has the bytes, or what it had before.
fn write_at_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension(UNFINISHED);
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    if let Err(error) = write() {
        // Part of a file on a full disk is of no use.
        fs::remove_file(&new).ok();
        return Err(error);
    }
    sync_folder(path.parent().unwrap_or(path))
}
