//! The seen set of a source, as it is stored: a base, and what visits have changed since.
//!
//! ```text
//! k <source id>                                     the sealed set | generation, 4 BE
//! d <source id> 0 <generation, 4 BE> <n, 4 BE>      a sealed delta of it, in order from 0 on
//! ```
//!
//! A delta has about 100 bytes for each new item, while a set of 3,000 items has 228 KB. Deltas of another generation are of an
//! older base. A visit without news changes sled only; the next one with news puts what the journal does not have into its
//! record as well, so that the journal always has a whole chain.
//!
//! A chain of which a record was damaged ends before it: what is made again from the journal is mended.

use news::SourceId;
use seen::SeenSet;

use crate::{
    commit::Changes,
    record::{self, Damage},
    table::{StoredValue, Table, TableChange, TableError},
};

/// So many deltas at most, so that reading a set stays quick,
const DELTAS_MAX: usize = 512;
/// and so many bytes of them for each byte of the base.
const DELTA_BYTES_PER_BASE: usize = 1;
/// Shorter sets are always written whole.
const WHOLE_MAX: usize = 1024;

/// A seen set that was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoredSeenSet {
    pub(crate) set: SeenSet,
    /// As it is stored.
    before: SeenSet,
    base: Option<StoredValue>,
    generation: u32,
    deltas: Vec<(Vec<u8>, StoredValue)>,
}

impl StoredSeenSet {
    pub(crate) fn read(table: &Table, source: &SourceId) -> Result<Self, TableError> {
        let key = record::seen_key(source);
        let Some(base) = table.get(&key)? else { return Ok(Self::default()) };
        let damaged = |damage| table.damaged(format!("the list of keys of source {source}"), damage);
        let (sealed, generation) = base.value.split_last_chunk().ok_or_else(|| damaged(Damage::Cut))?;
        let generation = u32::from_be_bytes(*generation);
        let mut set = record::unseal_seen(sealed).map_err(damaged)?;
        let deltas = table.scan(&record::delta_prefix(source, generation))?;
        let unsealed: Result<Vec<_>, _> =
            deltas.iter().map(|(_, delta)| record::unseal(&delta.value)).collect();
        set.apply_deltas(unsealed.map_err(damaged)?).map_err(|_| damaged(Damage::Content))?;
        Ok(Self { before: set.clone(), set, base: Some(base), generation, deltas })
    }

    /// Writes what has changed. With `is_news`, the journal must have all of it.
    pub(crate) fn write(
        self,
        table: &Table,
        source: &SourceId,
        is_news: bool,
        changes: &mut Changes,
    ) -> Result<(), TableError> {
        let delta = record::seal(&[&self.set.delta_from(&self.before)]);
        let Some(base) = self.base.as_ref().filter(|base| self.takes(base, &delta)) else {
            return self.write_whole(table, source, is_news, changes);
        };
        if is_news {
            let unjournalled = |(_, stored): &&(Vec<u8>, StoredValue)| stored.commit == 0;
            if base.commit == 0 {
                changes.journalled(record::seen_key(source), Some(base.value.clone()));
            }
            for (key, delta) in self.deltas.iter().filter(unjournalled) {
                changes.journalled(key.clone(), Some(delta.value.clone()));
            }
        }
        let n = u32::try_from(self.deltas.len()).expect("there are few");
        let key = [&record::delta_prefix(source, self.generation)[..], &n.to_be_bytes()].concat();
        changes.either(is_news, key, Some(delta));
        Ok(())
    }

    fn takes(&self, base: &StoredValue, delta: &[u8]) -> bool {
        let bytes: usize = self.deltas.iter().map(|(_, delta)| delta.value.len()).sum();
        // A set of an older layout is read as such until it is written anew.
        base.value.first() == Some(&SeenSet::LAYOUT)
            && base.value.len() > WHOLE_MAX
            && self.deltas.len() < DELTAS_MAX
            && bytes + delta.len() <= base.value.len() * DELTA_BYTES_PER_BASE
    }

    /// Writes the whole set, of which the deltas that are stored are none.
    pub(crate) fn write_whole(
        self,
        table: &Table,
        source: &SourceId,
        is_news: bool,
        changes: &mut Changes,
    ) -> Result<(), TableError> {
        let value = whole_value(&self.set, self.generation);
        changes.either(is_news, record::seen_key(source), Some(value));
        for (key, _) in table.scan(&record::deltas_prefix(source))? {
            changes.either(is_news, key, None);
        }
        Ok(())
    }
}

/// Makes every list of keys readable, as far as its chain goes, after records of the journal were left out. Without it, each
/// start would make the same broken chain again, and the first visit of the source would end the process.
pub(crate) fn mend_all(table: &Table) -> Result<(), TableError> {
    let mut key = record::SEEN.to_vec();
    while let Some(next) = table.keys_after(&key, 1)?.pop().filter(|key| key.starts_with(record::SEEN)) {
        key = next;
        let Some(base) = table.get(&key)? else { continue };
        let changes = mended(table, &key, &base)?;
        if !changes.is_empty() {
            let applied = table.applied();
            table.apply(changes, applied.commit, applied.head)?;
        }
    }
    Ok(())
}

/// What mends one list; nothing if it is whole.
fn mended(table: &Table, key: &[u8], base: &StoredValue) -> Result<Vec<TableChange>, TableError> {
    let Some(prefix) = record::deltas_of_base(key) else { return Ok(Vec::new()) };
    let deltas = table.scan(&prefix)?;
    let read = base.value.split_last_chunk::<4>().and_then(|(sealed, generation)| {
        Some((record::unseal_seen(sealed).ok()?, u32::from_be_bytes(*generation)))
    });
    let read = read.map(|(mut set, generation)| {
        let of_base = [&prefix[..], &generation.to_be_bytes()].concat();
        let mut chain = deltas.iter().filter(|(key, _)| key.starts_with(&of_base));
        let is_whole = chain.all(|(_, delta)| {
            record::unseal(&delta.value).is_ok_and(|delta| set.apply_deltas([delta]).is_ok())
        });
        (set, generation, is_whole)
    });
    // The journal gets it with the next news of the source: it has nothing like it.
    let base = match read {
        Some((_, _, true)) => return Ok(Vec::new()),
        Some((set, generation, false)) => {
            Some(StoredValue { value: whole_value(&set, generation), commit: 0 })
        }
        None => None,
    };
    let gone = deltas.into_iter().map(|(key, _)| TableChange { key, value: None });
    Ok(gone.chain([TableChange { key: key.to_vec(), value: base }]).collect())
}

/// A whole set, which no delta of this generation or an earlier one belongs to.
fn whole_value(set: &SeenSet, generation: u32) -> Vec<u8> {
    [&record::seal_seen(set)[..], &generation.wrapping_add(1).to_be_bytes()].concat()
}
