//! Finds events in files of any kind: a damaged journal, or a sled that does not open.
//!
//! ```text
//! version 1 | crc32 of the rest 4 | kind 1 | recorded 8 | {"id":"k3v9q2-412",…}
//! ```
//!
//! Stores of earlier versions have long events in pieces of 2 KiB, one behind the other with their lengths between them, as
//! sled writes the values of a page. The pieces of one event that are in different pages are not found.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use news::Cursor;
use serde::Deserialize;

use crate::{journal::read_what_can_be, record};

use super::ToolError;

/// With these bytes the JSON of each event begins.
const BEGIN: &[u8] = br#"{"id":""#;
/// Bytes before it.
const SEAL: usize = 14;
/// Longest event that is found in one look.
const EVENT_MAX: usize = 16 << 20;
/// What is read at once.
const WINDOW: usize = 48 << 20;
/// Bytes of a piece.
const PIECE: usize = 2048;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SalvageReport {
    /// Events of each epoch.
    pub events: BTreeMap<String, u64>,
    /// The files that were looked at.
    pub files: u64,
    /// Files that could not be read to their end.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Events that begin somewhere and are not whole there or elsewhere.
    pub broken: u64,
}

/// Calls `write` with the JSON of each event that is found in the files below `folder`, or in the file of that name, in the order of
/// its number, each once;
/// if there are several logs, one after the other. Among them can be events that retention had removed.
///
/// # Errors
/// [`ToolError`] if the folder cannot be read, or `write` fails.
pub fn salvage(
    folder: &Path,
    mut write: impl FnMut(&str) -> io::Result<()>,
) -> Result<SalvageReport, ToolError> {
    let mut found = FoundEvents::default();
    if folder.is_dir() {
        found.add_folder(folder)?;
    } else if folder.is_file() {
        found.try_file(folder.to_owned());
    } else {
        return Err(ToolError::NothingThere(folder.to_owned()));
    }
    let mut report = SalvageReport { files: found.files.len() as u64, ..found.report };
    let broken = found.broken.keys().filter(|id| !found.places.contains_key(*id)).count();
    report.broken = broken as u64;
    for ((epoch, _), place) in &found.places {
        let path = &found.files[place.file];
        let sealed = place.read(path).map_err(ToolError::file("read", path))?;
        if let Some(json) = whole(&sealed) {
            write(json).map_err(ToolError::Output)?;
            *report.events.entry(epoch.clone()).or_default() += 1;
        }
    }
    Ok(report)
}

/// Where an event is.
#[derive(Clone, Copy, Debug)]
struct EventPlace {
    file: usize,
    at: u64,
    /// With its seal.
    bytes: usize,
    is_in_pieces: bool,
}

#[derive(Debug, Default)]
struct FoundEvents {
    files: Vec<PathBuf>,
    places: BTreeMap<(String, u64), EventPlace>,
    broken: BTreeMap<(String, u64), ()>,
    report: SalvageReport,
}

impl FoundEvents {
    fn add_folder(&mut self, folder: &Path) -> Result<(), ToolError> {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = entries.map_err(ToolError::file("read", folder))?;
        entries.sort_by_key(fs::DirEntry::path);
        for entry in entries {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                self.add_folder(&path)?;
            } else if kind.is_file() {
                self.try_file(path);
            }
        }
        Ok(())
    }

    fn try_file(&mut self, path: PathBuf) {
        self.files.push(path.clone());
        if let Err(error) = self.add_file(&path) {
            self.report.unreadable.push((path, error.to_string()));
        }
    }

    fn add_file(&mut self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let (mut bytes, mut base) = (Vec::new(), 0_u64);
        loop {
            let (has, at) = (bytes.len(), base + bytes.len() as u64);
            let left = usize::try_from(length - at).unwrap_or(usize::MAX);
            bytes.resize(has + left.min(WINDOW - has), 0);
            read_what_can_be(&file, &mut bytes[has..], at)?;
            let is_end = base + bytes.len() as u64 == length;
            let searched = if is_end { bytes.len() } else { bytes.len() - EVENT_MAX };
            self.add_window(&bytes, searched, base);
            if is_end {
                return Ok(());
            }
            // The seal of what begins next may be behind.
            let gone = searched - SEAL - BEGIN.len();
            base += gone as u64;
            bytes.drain(..gone);
        }
    }

    fn add_window(&mut self, bytes: &[u8], searched: usize, base: u64) {
        let file = self.files.len() - 1;
        for begin in memchr::memmem::find_iter(bytes, BEGIN) {
            let Some(at) = begin.checked_sub(SEAL).filter(|_| begin < searched) else { continue };
            if bytes[at] != record::VERSION {
                continue;
            }
            let rest = &bytes[at..bytes.len().min(at + EVENT_MAX)];
            let place = EventPlace { file, at: base + at as u64, bytes: 0, is_in_pieces: false };
            let id = |sealed: &[u8]| whole(sealed).and_then(id_of);
            if let Some((id, sealed)) = sealed_in(rest).and_then(|sealed| Some((id(sealed)?, sealed))) {
                self.places.entry(id).or_insert(EventPlace { bytes: sealed.len(), ..place });
                continue;
            }
            let joined = joined(rest);
            if let Some((id, sealed)) = sealed_in(&joined).and_then(|sealed| Some((id(sealed)?, sealed))) {
                let place = EventPlace { bytes: sealed.len(), is_in_pieces: true, ..place };
                self.places.entry(id).or_insert(place);
            } else if let Some(id) = begun_id(&bytes[begin..]) {
                self.broken.insert(id, ());
            }
        }
    }
}

impl EventPlace {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let lengths = if self.is_in_pieces { 2 * self.bytes.div_ceil(PIECE) } else { 0 };
        let file = File::open(path)?;
        let left = usize::try_from(file.metadata()?.len().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(self.bytes + lengths)];
        read_what_can_be(&file, &mut bytes, self.at)?;
        if self.is_in_pieces {
            bytes = joined(&bytes);
        }
        bytes.truncate(self.bytes);
        Ok(bytes)
    }
}

/// The sealed event at the start of these bytes, as far as its JSON goes.
fn sealed_in(bytes: &[u8]) -> Option<&[u8]> {
    let mut values =
        serde_json::Deserializer::from_slice(bytes.get(SEAL..)?).into_iter::<serde::de::IgnoredAny>();
    values.next()?.ok()?;
    bytes.get(..SEAL + values.byte_offset())
}

/// The JSON of an event, if it is what was written.
fn whole(sealed: &[u8]) -> Option<&str> {
    record::unseal_event(sealed).ok().map(|(_, _, json)| json)
}

fn id_of(json: &str) -> Option<(String, u64)> {
    #[derive(Deserialize)]
    struct IdOnly {
        id: Cursor,
    }
    let IdOnly { id } = serde_json::from_str(json).ok()?;
    Some((id.epoch.to_string(), id.seq.0))
}

/// The id at the start of the JSON of an event that is not whole.
fn begun_id(bytes: &[u8]) -> Option<(String, u64)> {
    let id = bytes.get(BEGIN.len()..)?.split(|byte| *byte == b'"').next()?;
    let (epoch, seq) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some((epoch.to_owned(), seq.parse().ok()?))
}

/// Pieces that are one behind the other, without the lengths between them.
fn joined(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut all = Vec::new();
    let mut length = PIECE;
    while length <= PIECE {
        let Some((piece, behind)) = rest.split_at_checked(length) else { break };
        all.extend_from_slice(piece);
        if length < PIECE {
            break;
        }
        match piece_length(behind) {
            Some((next, behind)) => (length, rest) = (next, behind),
            None => break,
        }
    }
    all
}

/// A length as sled 0.34 writes it, up to that of a piece.
fn piece_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    match first {
        0..=240 => Some((usize::from(*first), rest)),
        241..=248 => {
            let (second, rest) = rest.split_first()?;
            Some((240 + 256 * (usize::from(*first) - 241) + usize::from(*second), rest))
        }
        _ => None,
    }
}
