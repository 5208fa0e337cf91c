//! Sources that another daemon visits from now on, or has visited until now: what it needs of them leaves one store and comes
//! into another one.
//!
//! ```text
//! export: state, seen set + what waits ──► NATS ──► adopt: instead of those here, and what was recorded since is known, too
//! ```
//!
//! Never here: an event. What another daemon has recorded is in its log, and in the stream.

use std::{collections::HashSet, fmt};

use news::{Event, Seq, SourceId, SourceState};
use seen::{RecordedItems, SeenSet};

use super::{AppendError, BYTES_PER_RECORD, LogWriter};
use crate::{
    commit::Changes,
    record::{self, Damage},
    seen_sets::StoredSeenSet,
    waiting::WaitingItems,
};

/// What a store has of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceExport {
    /// The source.
    pub source: SourceId,
    /// Its state; `None` if it was never visited.
    pub state: Option<SourceState>,
    /// The items that it had, and those that wait: a sealed value for [`AdoptedSource::seen`]. It has 76 bytes for each item
    /// that is remembered, up to 2.5 MB, and is the same as long as nothing of it has changed.
    pub seen: Vec<u8>,
    /// The newest event of the log. Each event of what is known here is this one or an older one.
    pub head: Seq,
}

/// A source that another daemon has visited.
#[derive(Clone, Debug)]
pub struct AdoptedSource {
    /// The source.
    pub source: SourceId,
    /// Its state there, instead of the one here; `None` if that stays.
    pub state: Option<SourceState>,
    /// [`SourceExport::seen`] of the other store, instead of what is here; `None` if that stays.
    pub seen: Option<Vec<u8>>,
    /// Its events that were recorded elsewhere after that, in their order. Their items have their evidence.
    pub events: Vec<Event>,
}

/// A value that is no [`SourceExport::seen`]: what the store had of the source stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadExport {
    /// Of which source.
    pub source: SourceId,
    damage: Damage,
}

impl fmt::Display for BadExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, damage } = self;
        write!(f, "what another daemon knows of source {source} cannot be read: {damage}")
    }
}

impl std::error::Error for BadExport {}

impl LogWriter {
    /// What the store has of these sources, all of one moment between two commits. Blocks.
    ///
    /// # Errors
    /// [`AppendError`] if sled fails or is damaged: the process must stop.
    pub fn export(&self, sources: &[SourceId]) -> Result<Vec<SourceExport>, AppendError> {
        self.check()?;
        let (table, head) = (&self.shared.table, self.shared.head());
        let export = |source: &SourceId| {
            let state = self.shared.state(source)?.map(|(state, _)| state);
            let seen = StoredSeenSet::read(table, source)?.set;
            let seen = seal_export(&seen, &WaitingItems::read(table, source)?);
            Ok(SourceExport { source: source.clone(), state, seen, head })
        };
        sources.iter().map(export).collect()
    }

    /// Takes over what other daemons know of sources. Blocks until it is on disk, as the state of a visit with news: a crash
    /// leaves each source as it was or as it is to be. Returns what could not be read; all else of these sources is taken.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub fn adopt(&mut self, sources: Vec<AdoptedSource>) -> Result<Vec<BadExport>, AppendError> {
        self.check()?;
        let (mut bad, mut changes) = (Vec::new(), Changes::default());
        let mut of_record = HashSet::new();
        for adopted in sources {
            let is_again = !of_record.insert(adopted.source.clone());
            if is_again || changes.journalled_bytes() >= BYTES_PER_RECORD {
                self.commit(Vec::new(), std::mem::take(&mut changes), self.shared.head())?;
                of_record = HashSet::from([adopted.source.clone()]);
            }
            bad.extend(self.add_adopted(adopted, &mut changes)?);
        }
        if !changes.is_empty() {
            self.commit(Vec::new(), changes, self.shared.head())?;
        }
        Ok(bad)
    }

    fn add_adopted(
        &self,
        adopted: AdoptedSource,
        changes: &mut Changes,
    ) -> Result<Option<BadExport>, AppendError> {
        let AdoptedSource { source, state, seen, events } = adopted;
        let table = &self.shared.table;
        if let Some(state) = state {
            changes.journalled(record::state_key(&source), Some(record::seal_state(&state)));
        }
        let (exported, bad) = match seen.map(|seen| unseal_export(&seen)).transpose() {
            Ok(exported) => (exported, None),
            Err(damage) => (None, Some(BadExport { source: source.clone(), damage })),
        };
        let mut stored = StoredSeenSet::read(table, &source)?;
        let waited = WaitingItems::read(table, &source)?;
        let mut waits = waited.clone();
        let is_replaced = exported.is_some();
        if let Some((set, waiting)) = exported {
            (stored.set, waits) = (set, waiting);
        }
        let mut items = RecordedItems::default();
        for event in &events {
            items.add(event.kind, &event.item, event.first_seen);
        }
        let has_added = stored.set.add_recorded(&items);
        if is_replaced {
            stored.write_whole(table, &source, true, changes)?;
        } else if has_added {
            stored.write(table, &source, true, changes)?;
        }
        // What was recorded elsewhere waits no longer.
        waits = waits.missing_from(events.iter().map(|event| event.item.key.as_str()));
        if waits != waited {
            waits.write(changes, &source);
        }
        Ok(bad)
    }
}

/// ```text
/// version 1 | crc32 of the rest, 4 LE | length of the seen set, 4 LE | the sealed seen set | hashes of what waits, 8 LE each
/// ```
fn seal_export(seen: &SeenSet, waiting: &WaitingItems) -> Vec<u8> {
    let seen = record::seal_seen(seen);
    let length = u32::try_from(seen.len()).expect("a seen set has some megabytes at most");
    record::seal(&[&length.to_le_bytes(), &seen, &waiting.to_bytes()])
}

fn unseal_export(value: &[u8]) -> Result<(SeenSet, WaitingItems), Damage> {
    let (length, rest) = record::unseal(value)?.split_first_chunk().ok_or(Damage::Cut)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Damage::Cut)?;
    let (seen, waiting) = rest.split_at_checked(length).ok_or(Damage::Cut)?;
    Ok((record::unseal_seen(seen)?, WaitingItems::from_bytes(waiting)?))
}
