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
    record,
};

use super::{
    ToolError,
    draft::{DraftJournal, StorePlace},
    reading::{ClosedJournal, DamagedPlace, LogPart},
    survey::{StoreSurvey, survey},
};

/// So many places are named in an error.
const PLACES_NAMED: usize = 5;

/// Which epoch the restored log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoredEpoch {
    /// A new one: clients that have been ahead of the copy are answered with `reset`.
    New,
    /// That of the copy. Right only if no client has been ahead of it.
    Same,
}

/// How a store is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Which epoch the log has then.
    pub epoch: RestoredEpoch,
    /// Whether a copy that is not whole is restored, instead of being refused.
    pub accept_loss: bool,
}

impl From<RestoredEpoch> for RestoreOptions {
    fn from(epoch: RestoredEpoch) -> Self {
        Self { epoch, accept_loss: false }
    }
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
pub fn restore(
    from: &Path,
    store: &Path,
    options: impl Into<RestoreOptions>,
) -> Result<RestoreReport, ToolError> {
    if let (Ok(found), Ok(of_store)) = (fs::canonicalize(from), fs::canonicalize(store))
        && found == of_store
    {
        return Err(ToolError::IsTheStore(from.to_owned()));
    }
    restore_from(from, store, options.into())
}

fn restore_from(from: &Path, store: &Path, options: RestoreOptions) -> Result<RestoreReport, ToolError> {
    let mut place = StorePlace::take(store)?;
    let survey = survey(from)?;
    if !options.accept_loss {
        check_whole(from, &survey)?;
    }
    let journal = ClosedJournal::find(from)?;
    let mut report = RestoreReport {
        epoch: journal.epoch.clone(),
        oldest: journal.oldest,
        head: journal.head,
        lost: survey.lost_events,
        damaged_places: survey.damaged_places,
        before: None,
    };
    match options.epoch {
        RestoredEpoch::New => {
            report.epoch = Epoch::random(fastrand::digit);
            write_anew(&journal, &mut place, &mut report)?;
        }
        RestoredEpoch::Same => copy(&journal, &mut place)?,
    }
    report.before = place.replace()?;
    Ok(report)
}

/// Names what is missing, beside what the log itself had lost.
fn check_whole(from: &Path, survey: &StoreSurvey) -> Result<(), ToolError> {
    let missing = |place: &&DamagedPlace| !place.kind.is_as_the_log_was();
    let count = survey.places.iter().filter(missing).count();
    if count == 0 {
        return Ok(());
    }
    let mut what: Vec<_> =
        survey.places.iter().filter(missing).take(PLACES_NAMED).map(ToString::to_string).collect();
    if count > PLACES_NAMED {
        what.push(format!("and {} more places, which `newswire log verify` names", count - PLACES_NAMED));
    }
    Err(ToolError::NotWhole { path: from.to_owned(), what: what.join("; ") })
}

/// Decides about a copied store where it is: with a new epoch, it is written anew; with the same one, it is accepted as the
/// original.
///
/// # Errors
/// [`ToolError`]; the store is as it was then.
pub fn restore_in_place(
    store: &Path,
    options: impl Into<RestoreOptions>,
) -> Result<RestoreReport, ToolError> {
    let options = options.into();
    if !store.is_dir() {
        return Err(ToolError::NoStore(store.to_owned()));
    }
    if options.epoch == RestoredEpoch::New {
        return restore_from(store, store, options);
    }
    let _lock = lock(store)?;
    let ClosedJournal { epoch, oldest, head, .. } = ClosedJournal::find(store)?;
    identity::write(store, &epoch).map_err(ToolError::file("write", store))?;
    Ok(RestoreReport { epoch, oldest, head, lost: 0, damaged_places: 0, before: None })
}

fn write_anew(
    journal: &ClosedJournal,
    place: &mut StorePlace,
    report: &mut RestoreReport,
) -> Result<(), ToolError> {
    let mut draft = DraftJournal::begin(place, report.epoch.clone(), journal.oldest, journal.last())?;
    journal.read(Seq::NONE, |part| {
        match part {
            LogPart::Segment { .. } | LogPart::Damage(_) => {}
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

fn copy(journal: &ClosedJournal, place: &mut StorePlace) -> Result<(), ToolError> {
    let new = place.create()?;
    identity::write(&new, &journal.epoch).map_err(ToolError::file("write", &new))?;
    let folder = new.join(JOURNAL);
    fs::create_dir(&folder).map_err(ToolError::file("create", &folder))?;
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
            LogPart::Event { .. } | LogPart::Changes(_) | LogPart::Damage(_) => {}
        }
        Ok(())
    })?;
    sync_folder(&folder).map_err(ToolError::file("sync", &folder))
}
