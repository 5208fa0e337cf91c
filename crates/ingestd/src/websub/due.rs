//! When which source is due: one date per source, however often it is changed.

use std::collections::{BTreeSet, HashMap};

use news::{SourceId, Timestamp};

/// The date of each source.
#[derive(Debug, Default)]
pub(crate) struct DueDates {
    by_time: BTreeSet<(Timestamp, SourceId)>,
    by_source: HashMap<SourceId, Timestamp>,
}

impl DueDates {
    /// Sets the date of a source, or moves it.
    pub(crate) fn set(&mut self, source: &SourceId, at: Timestamp) {
        if let Some(before) = self.by_source.insert(source.clone(), at) {
            self.by_time.remove(&(before, source.clone()));
        }
        self.by_time.insert((at, source.clone()));
    }

    pub(crate) fn remove(&mut self, source: &SourceId) {
        if let Some(before) = self.by_source.remove(source) {
            self.by_time.remove(&(before, source.clone()));
        }
    }

    /// Takes the source whose date is the earliest, if it is not after `now`.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<SourceId> {
        let (at, source) = self.by_time.pop_first()?;
        if at > now {
            self.by_time.insert((at, source));
            return None;
        }
        self.by_source.remove(&source);
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + ms)
    }

    #[test]
    fn a_source_has_one_date_however_often_its_hub_verifies() {
        let [a, b, c] = ["a", "b", "c"].map(|id| SourceId::try_new(id).unwrap());
        let mut due = DueDates::default();
        for n in (0..1000).rev() {
            due.set(&a, at(n));
            due.set(&b, at(1000 - n));
            due.set(&c, at(n * n));
        }
        due.remove(&c);
        assert_eq!((due.by_time.len(), due.by_source.len()), (2, 2));
        assert_eq!((due.pop(at(0)), due.pop(at(999))), (Some(a), None));
        assert_eq!((due.pop(at(1000)), due.pop(at(i64::from(u16::MAX)))), (Some(b), None));
        assert!(due.by_time.is_empty() && due.by_source.is_empty());
    }
}
