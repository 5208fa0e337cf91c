//! Makes a store of a backup or of a copy, and puts it in place of the one that is there.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use news::{Cursor, Epoch, Event, EventKind, Seq, Timestamp};

use crate::{
    identity,
    journal::{segment_path, sync_folder},
    lock::{JOURNAL, lock},
    open::new_epoch,
    record,
};

use super::{
    ToolError,
    backup::BackupManifest,
    draft::{DraftJournal, StorePlace},
    reading::{ClosedJournal, LogPart},
};

/// Which epoch the restored log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoredEpoch {
    /// A new one: clients that have been ahead of the copy are answered with `reset`.
    New,
    /// That of the copy. Right only if no client has been ahead of it.
    Same,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// Its oldest event.
    pub oldest: Seq,
    /// Its newest event.
    pub head: Seq,
    /// Events that the copy should have and that cannot be read.
    pub lost: u64,
    /// Damaged places in the copy.
    pub damaged_places: u64,
    /// Where the store before is, if there was one.
    pub before: Option<PathBuf>,
}

/// Restores the backup or the copied store in `from` into `store`. What is there is moved aside.
///
/// # Errors
/// [`ToolError`]; the store is as it was then.
pub fn restore(from: &Path, store: &Path, epoch: RestoredEpoch) -> Result<RestoreReport, ToolError> {
    let place = StorePlace::take(store)?;
    let journal = ClosedJournal::find(from)?;
    let mut report = RestoreReport {
        epoch: journal.epoch.clone(),
        oldest: journal.oldest,
        head: journal.head,
        lost: 0,
        damaged_places: 0,
        before: None,
    };
    // What a backup is known to have, and has no more.
    let promised = BackupManifest::read(from).filter(|manifest| manifest.epoch == journal.epoch);
    report.lost += promised.map_or(0, |manifest| manifest.head.0.saturating_sub(journal.head.0));
    match epoch {
        RestoredEpoch::New => {
            report.epoch = new_epoch();
            write_anew(&journal, &place, &mut report)?;
        }
        RestoredEpoch::Same => copy(&journal, &place, &mut report)?,
    }
    report.before = place.replace(&report.epoch)?;
    Ok(report)
}

/// Decides about a copied store where it is: with a new epoch, it is written anew; with the same one, it is accepted as the
/// original.
///
/// # Errors
/// [`ToolError`]; the store is as it was then.
pub fn restore_in_place(store: &Path, epoch: RestoredEpoch) -> Result<RestoreReport, ToolError> {
    if !store.is_dir() {
        return Err(ToolError::NoStore(store.to_owned()));
    }
    if epoch == RestoredEpoch::New {
        return restore(store, store, epoch);
    }
    let _lock = lock(store)?;
    let ClosedJournal { epoch, oldest, head, .. } = ClosedJournal::find(store)?;
    identity::write(store, &epoch).map_err(ToolError::file("write", store))?;
    Ok(RestoreReport { epoch, oldest, head, lost: 0, damaged_places: 0, before: None })
}

fn write_anew(
    journal: &ClosedJournal,
    place: &StorePlace,
    report: &mut RestoreReport,
) -> Result<(), ToolError> {
    let mut draft = DraftJournal::begin(place, report.epoch.clone(), journal.oldest)?;
    journal.read(Seq::NONE, |part| {
        match part {
            LogPart::Segment { .. } => {}
            LogPart::Event { seq, source, recorded, sealed } => {
                let id = Cursor { epoch: report.epoch.clone(), seq };
                match with_id(sealed, &id) {
                    Some((kind, json)) => {
                        draft.add_event(seq, source, recorded, record::seal_event(kind, recorded, &json))?;
                    }
                    None => report.lost += 1,
                }
            }
            LogPart::Changes(operations) => draft.add_operations(operations)?,
            LogPart::Damage(damage) => {
                report.lost += damage.events;
                report.damaged_places += 1;
            }
        }
        Ok(())
    })?;
    draft.finish()
}

/// The kind and the JSON of an event, with another id.
fn with_id(sealed: &[u8], id: &Cursor) -> Option<(EventKind, String)> {
    const BEGIN: &str = r#"{"id":""#;
    let (kind, _, json): (_, Timestamp, _) = record::unseal_event(sealed).ok()?;
    if let Some((_, rest)) = json.strip_prefix(BEGIN).and_then(|json| json.split_once('"')) {
        return Some((kind, format!("{BEGIN}{id}\"{rest}")));
    }
    let mut event: Event = serde_json::from_str(json).ok()?;
    event.id = id.clone();
    Some((kind, event.to_json()))
}

fn copy(journal: &ClosedJournal, place: &StorePlace, report: &mut RestoreReport) -> Result<(), ToolError> {
    place.create()?;
    let folder = place.new.join(JOURNAL);
    fs::create_dir_all(&folder).map_err(ToolError::file("create", &folder))?;
    journal.read(Seq::NONE, |part| {
        match part {
            LogPart::Segment { segment, is_last } => {
                let path = segment_path(&folder, segment.number);
                let end = if is_last { segment.end() } else { segment.bytes.len() };
                let written = File::create(&path).and_then(|mut file| {
                    file.write_all(&segment.bytes[..end])?;
                    file.sync_all()
                });
                written.map_err(ToolError::file("write", &path))?;
            }
            LogPart::Damage(damage) => {
                report.lost += damage.events;
                report.damaged_places += 1;
            }
            LogPart::Event { .. } | LogPart::Changes(_) => {}
        }
        Ok(())
    })?;
    sync_folder(&folder).map_err(ToolError::file("sync", &folder))
}
