//! The end of a document with more items than are read: it may list the newest item last.

use std::collections::VecDeque;

use crate::limits::{ITEMS_KEPT_MAX, ITEMS_READ_MAX};

/// So many items are read as they come.
const FIRST_MAX: usize = ITEMS_READ_MAX - ITEMS_KEPT_MAX;

/// The last items of a document, after the first ones; at most [`ITEMS_KEPT_MAX`].
#[derive(Debug)]
pub(crate) struct LastItems<T> {
    items: VecDeque<T>,
    /// Items between the first and the last ones.
    pub(crate) dropped: usize,
}

impl<T> Default for LastItems<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), dropped: 0 }
    }
}

impl<T> LastItems<T> {
    /// Keeps an item if `first` ones were read already; else returns it, to be read.
    pub(crate) fn keep(&mut self, item: T, first: usize) -> Option<T> {
        if first < FIRST_MAX {
            return Some(item);
        }
        if self.items.len() >= ITEMS_KEPT_MAX {
            self.items.pop_front();
            self.dropped += 1;
        }
        self.items.push_back(item);
        None
    }

    /// Takes those that were kept, in their order.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.items).into_iter()
    }

    /// What a warning says about a document of which some were dropped.
    pub(crate) fn warning() -> String {
        format!("only the first {FIRST_MAX} and the last {ITEMS_KEPT_MAX} items were read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_items_are_read_in_order() {
        for count in [0, 1, 9_999, 10_000, 10_001, 12_000, 30_000] {
            let (mut read, mut last) = (Vec::new(), LastItems::default());
            for n in 0..count {
                read.extend(last.keep(n, read.len()));
            }
            read.extend(last.take());
            assert_eq!(read.len(), count.min(ITEMS_READ_MAX));
            assert!(read.is_sorted() && read.last().copied() == count.checked_sub(1));
            assert_eq!(last.dropped, count - read.len());
        }
    }
}
