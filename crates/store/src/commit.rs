//! What one commit changes in sled, and what of it the journal has, too.

use std::collections::BTreeMap;

use crate::{
    journal::Operation,
    table::{StoredValue, TableChange},
};

/// A change of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// It is in the record of the commit.
    Journalled(Option<Vec<u8>>),
    /// It is in sled only. If that is lost, it is what the journal has: of this commit, 0 for none.
    Sled(Option<Vec<u8>>, u64),
}

/// Changes of values, each at most once; the last one counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes(BTreeMap<Vec<u8>, Change>);

impl Changes {
    pub(crate) fn journalled(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.0.insert(key, Change::Journalled(value));
    }

    /// A change of a value of which the journal has the one of this commit.
    pub(crate) fn in_sled(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, commit: u64) {
        self.0.insert(key, Change::Sled(value, commit));
    }

    /// In the journal, too, or the journal has no such value.
    pub(crate) fn either(&mut self, is_journalled: bool, key: Vec<u8>, value: Option<Vec<u8>>) {
        if is_journalled { self.journalled(key, value) } else { self.in_sled(key, value, 0) }
    }

    /// What the record of the commit has.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let journalled = self.0.iter().filter_map(|(key, change)| match change {
            Change::Journalled(value) => Some(Operation { key: key.clone(), value: value.clone() }),
            Change::Sled(..) => None,
        });
        journalled.collect()
    }

    /// Bytes of the values that the record of the commit has.
    pub(crate) fn journalled_bytes(&self) -> usize {
        let bytes = |change: &Change| match change {
            Change::Journalled(value) => value.as_ref().map_or(0, Vec::len),
            Change::Sled(..) => 0,
        };
        self.0.values().map(bytes).sum()
    }

    /// What sled gets, if the record has this number.
    pub(crate) fn into_table(self, number: u64) -> Vec<TableChange> {
        let change = |(key, change)| {
            let (value, commit) = match change {
                Change::Journalled(value) => (value, number),
                Change::Sled(value, commit) => (value, commit),
            };
            TableChange { key, value: value.map(|value| StoredValue { value, commit }) }
        };
        self.0.into_iter().map(change).collect()
    }

    /// Whether sled gets what the record does not have.
    pub(crate) fn are_in_sled_only(&self) -> bool {
        self.0.values().any(|change| matches!(change, Change::Sled(..)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
