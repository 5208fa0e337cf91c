//! What waits: the items of a source that a visit did not record, by their keys. A document that has one of them no longer
//! says that it is lost.

use std::collections::HashSet;

use news::SourceId;

use crate::{
    pieces,
    read::LogReadError,
    record::{self, Damage},
};

/// The items that wait, by the hashes of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitingItems(Vec<u64>);

impl WaitingItems {
    pub(crate) fn add(&mut self, key: &str) {
        self.0.push(news::stable_hash(key.as_bytes()));
    }

    pub(crate) fn read(db: &sled::Db, source: &SourceId) -> Result<Self, LogReadError> {
        let key = record::waiting_key(source);
        let Some(stored) = db.get(&key)? else { return Ok(Self::default()) };
        let damaged =
            |damage| LogReadError::Damaged { what: format!("what waits of source {source}"), damage };
        let value = pieces::value(db, &key, stored)?.map_err(damaged)?;
        let (hashes, rest) = record::unseal(&value).map_err(damaged)?.as_chunks();
        match rest {
            [] => Ok(Self(hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect())),
            _ => Err(damaged(Damage::Cut)),
        }
    }

    pub(crate) fn write(
        &self,
        db: &sled::Db,
        batch: &mut sled::Batch,
        source: &SourceId,
    ) -> sled::Result<()> {
        let key = record::waiting_key(source);
        if self.0.is_empty() {
            return pieces::remove_from(db, batch, &key);
        }
        let hashes: Vec<_> = self.0.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        pieces::replace(db, batch, &key, record::seal(&[&hashes]))
    }

    /// How many of them are not among the keys of a document.
    pub(crate) fn missing_from<'a>(&self, keys: impl Iterator<Item = &'a str>) -> u32 {
        if self.0.is_empty() {
            return 0;
        }
        let there: HashSet<_> = keys.map(|key| news::stable_hash(key.as_bytes())).collect();
        let missing = self.0.iter().filter(|hash| !there.contains(hash)).count();
        u32::try_from(missing).unwrap_or(u32::MAX)
    }
}
