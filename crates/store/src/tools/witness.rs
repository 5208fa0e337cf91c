//! Compares a journal with what else knows how much it should have: the file `backup`, the states of sources, and the indexes
//! of segments that are missing.

use std::path::Path;

use news::{Epoch, Seq};
use serde::Serialize;

use crate::{identity, journal::index_ends};

use super::{
    ToolError,
    backup::{BackupManifest, BackupSegment, ManifestFile},
    reading::{ClosedJournal, DamageKind, DamagedPlace, place},
    states::head_in_states,
};

/// What the end of a log was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndWitness {
    /// The file `backup`.
    Backup,
    /// The states of sources.
    States,
    /// The states of sources, which know newer events: a copy was made file by file while the daemon ran, or its end is missing.
    NewerStates,
    /// Nothing: it cannot be told whether newer events were there.
    None,
}

/// What a folder says that its journal has. Looked at before the journal: a daemon may write both.
#[derive(Debug)]
pub(super) struct LogWitness {
    manifest: ManifestFile,
    states: Option<(Epoch, Seq)>,
    is_store: bool,
    /// Its files are where they were written, not copied one after the other.
    is_original: bool,
    /// Segments that are not what the manifest has.
    changed: Vec<u64>,
}

impl LogWitness {
    pub(super) fn of(folder: &Path) -> Self {
        let is_store = identity::exists(folder);
        // A daemon that was started on a backup has gone on, and its `backup` is of the past.
        let manifest = if is_store { ManifestFile::Missing } else { ManifestFile::read(folder) };
        let is_original = identity::is_original(folder);
        Self { manifest, states: head_in_states(folder), is_store, is_original, changed: Vec::new() }
    }

    /// Compares the bytes of a segment. The backup that was made next, and not to its end, may have appended some.
    pub(super) fn check_segment(&mut self, number: u64, bytes: &[u8]) {
        let ManifestFile::Whole(manifest) = &self.manifest else { return };
        let has = |expected: &BackupSegment| {
            let bytes = usize::try_from(expected.bytes).ok().and_then(|length| bytes.get(..length));
            bytes.is_some_and(|bytes| crc32c::crc32c(bytes) == expected.crc32c)
        };
        let expected = manifest.segments.iter().find(|expected| expected.segment == number);
        if expected.is_some_and(|expected| !has(expected)) {
            self.changed.push(number);
        }
    }

    /// With what the end is compared, and the newest event that is known.
    pub(super) fn end(&self, journal: &ClosedJournal) -> (EndWitness, Seq) {
        if let ManifestFile::Whole(BackupManifest { epoch, head, .. }) = &self.manifest
            && *epoch == journal.epoch
        {
            return (EndWitness::Backup, *head.max(&journal.head));
        }
        match &self.states {
            Some((epoch, head)) if *epoch == journal.epoch => {
                let is_newer = *head > journal.head && !self.is_original;
                let end = if is_newer { EndWitness::NewerStates } else { EndWitness::States };
                (end, *head.max(&journal.head))
            }
            _ => (EndWitness::None, journal.head),
        }
    }

    /// What is missing, beside the places that the journal itself has shown.
    pub(super) fn places(
        &self,
        journal: &ClosedJournal,
        found: &[DamagedPlace],
    ) -> Result<Vec<DamagedPlace>, ToolError> {
        let indexes = index_ends(&journal.folder).map_err(ToolError::file("read", &journal.folder))?;
        let behind: Vec<_> = indexes.into_iter().filter(|(number, _)| *number > journal.last()).collect();
        let mut places: Vec<DamagedPlace> = Vec::new();
        let missing = behind.iter().map(|(number, _)| (journal.why_missing(*number), *number));
        for (kind, segment) in self.wrong(journal).into_iter().chain(missing) {
            let is_it = |place: &DamagedPlace| place.segment == segment && place.kind != DamageKind::Index;
            if !found.iter().chain(&places).any(is_it) {
                places.push(place(kind, segment, None));
            }
        }
        places.sort_by_key(|place| place.segment);
        let known = match self.end(journal) {
            (EndWitness::NewerStates, _) => journal.head,
            (_, known) => known,
        };
        let known = behind.into_iter().map(|(_, end)| end).fold(known, Seq::max);
        let missing = known.0 - journal.head.0;
        if missing > 0 {
            // With the first segment that is missing behind the last one, if that is known.
            let end = places.iter().position(|place| place.segment > journal.last()).unwrap_or_else(|| {
                places.push(place(DamageKind::Head, journal.last(), None));
                places.len() - 1
            });
            (places[end].first, places[end].events) = (Some(journal.head.next()), missing);
        }
        Ok(places)
    }

    fn wrong(&self, journal: &ClosedJournal) -> Vec<(DamageKind, u64)> {
        let mut wrong = Vec::new();
        match &self.manifest {
            ManifestFile::Missing if self.is_store => {}
            ManifestFile::Missing => wrong.push((DamageKind::Unnamed, 0)),
            ManifestFile::Damaged => wrong.push((DamageKind::Manifest, 0)),
            ManifestFile::Whole(manifest) if manifest.epoch != journal.epoch => {
                wrong.push((DamageKind::Manifest, 0));
            }
            ManifestFile::Whole(manifest) => {
                let expected = manifest.segments.iter().map(|segment| segment.segment);
                let missing = expected.filter(|number| !journal.numbers.contains(number));
                wrong.extend(missing.map(|number| (journal.why_missing(number), number)));
                wrong.extend(self.changed.iter().map(|number| (DamageKind::Changed, *number)));
            }
        }
        wrong.extend(journal.not_files.iter().map(|number| (DamageKind::NotAFile, *number)));
        wrong.extend(journal.copies.iter().map(|number| (DamageKind::Copy, *number)));
        wrong
    }
}
