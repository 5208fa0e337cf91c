//! What waits: the items of a source that a visit did not record, by their keys. A document that has one of them no longer
//! says that it is lost.

use std::collections::HashSet;

use news::SourceId;

use crate::{
    commit::Changes,
    record::{self, Damage},
    table::{Table, TableError},
};

/// So many are remembered of a source of which the documents have only a part, or as many as the last document has.
const WAITING_MAX: usize = 4096;

/// The items that wait, by the hashes of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitingItems(Vec<u64>);

impl WaitingItems {
    pub(crate) fn add(&mut self, key: &str) {
        self.0.push(news::stable_hash(key.as_bytes()));
    }

    pub(crate) fn read(table: &Table, source: &SourceId) -> Result<Self, TableError> {
        let Some(stored) = table.get(&record::waiting_key(source))? else { return Ok(Self::default()) };
        let damaged = |damage| table.damaged(format!("what waits of source {source}"), damage);
        record::unseal(&stored.value).and_then(Self::from_bytes).map_err(damaged)
    }

    /// As [`WaitingItems::to_bytes`] returns them.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Damage> {
        match bytes.as_chunks() {
            (hashes, []) => Ok(Self(hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect())),
            _ => Err(Damage::Cut),
        }
    }

    /// 8 bytes LE for each.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }

    pub(crate) fn write(&self, changes: &mut Changes, source: &SourceId) {
        let value = (!self.0.is_empty()).then(|| record::seal(&[&self.to_bytes()]));
        changes.journalled(record::waiting_key(source), value);
    }

    /// Those that are not among the keys of a document.
    pub(crate) fn missing_from<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Self {
        if self.0.is_empty() {
            return Self::default();
        }
        let there: HashSet<_> = keys.map(|key| news::stable_hash(key.as_bytes())).collect();
        Self(self.0.iter().copied().filter(|hash| !there.contains(hash)).collect())
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Forgets the first of them that are too many, but never the last `kept`. Returns how many.
    pub(crate) fn limit(&mut self, kept: u32) -> u32 {
        let over = self.0.len().saturating_sub(WAITING_MAX.max(kept as usize));
        self.0.drain(..over);
        u32::try_from(over).unwrap_or(u32::MAX)
    }
}
