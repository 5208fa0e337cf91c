//! The last step of retention: before a segment is removed, what only it has of sources is written again.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    ops::Range,
};

use crate::{
    commit::Changes,
    journal::JournalFiles,
    record,
    table::{StoredValue, Table, TableError},
};

/// What one step looks at and writes, so that no append waits long for it.
const KEYS_PER_STEP: usize = 200;
const BYTES_PER_STEP: usize = 256 * 1024;

/// A segment that is about to be removed.
#[derive(Debug)]
pub(crate) struct RetiringSegment {
    /// Its last commit.
    last: u64,
    /// Of the values that it has, and of the bases of deltas that it has.
    keys: VecDeque<Vec<u8>>,
    /// Records of it cannot be read.
    is_damaged: bool,
}

/// A key, or that of the base if it is one of a delta.
fn with_base(key: Vec<u8>) -> Vec<u8> {
    record::base_of_delta(&key).unwrap_or(key)
}

impl RetiringSegment {
    pub(crate) fn read(journal: &JournalFiles, commits: Range<u64>) -> io::Result<Self> {
        let last = commits.end - 1;
        let mut keys = BTreeSet::new();
        let damaged = journal.operations_in::<io::Error>(commits, |_, operations| {
            keys.extend(operations.into_iter().map(|operation| with_base(operation.key)));
            Ok(())
        })?;
        Ok(Self { last, keys: keys.into_iter().collect(), is_damaged: damaged > 0 })
    }

    /// Which values the damaged records had cannot be told; sled has all of them.
    fn add_all_keys(&mut self, table: &Table) -> Result<(), TableError> {
        let mut keys: BTreeSet<_> = self.keys.drain(..).collect();
        let mut after = Vec::new();
        while let Some(key) = table.keys_after(&after, 1)?.pop() {
            after.clone_from(&key);
            keys.insert(with_base(key));
        }
        self.keys = keys.into_iter().collect();
        Ok(())
    }

    /// What the next step writes again; `None` if nothing is left.
    pub(crate) fn next_changes(&mut self, table: &Table) -> Result<Option<Changes>, TableError> {
        if std::mem::take(&mut self.is_damaged) {
            self.add_all_keys(table)?;
        }
        if self.keys.is_empty() {
            return Ok(None);
        }
        let mut changes = Changes::default();
        let mut bytes = 0;
        for _ in 0..KEYS_PER_STEP {
            if bytes >= BYTES_PER_STEP {
                break;
            }
            let Some(key) = self.keys.pop_front() else { break };
            let deltas = record::deltas_of_base(&key);
            let Some(value) = table.get(&key)? else { continue };
            let mut values = vec![(key, value)];
            if let Some(prefix) = deltas {
                values.extend(table.scan(&prefix)?);
            }
            for (key, StoredValue { value, commit }) in values {
                if commit <= self.last {
                    bytes += value.len();
                    changes.journalled(key, Some(value));
                }
            }
        }
        Ok(Some(changes))
    }
}
