//! Values in pieces: sled keeps what its cache forgets in pages of up to 16 values, however large they are.
//!
//! ```text
//! key                  value, if it is short; else 255 | number of pieces, 4 LE | bytes of the value, 4 LE
//! p <key> <n, 4 BE>    a piece of it
//! ```
//!
//! Large pages cost memory, because each of the 256 parts of sled's cache keeps at least one page and notices only every 64th
//! access: with items of 90 KB that was more than a gigabyte. And sled writes a page of over 128 KiB to a file of its own,
//! which it does not sync.

use std::collections::BTreeMap;

use sled::{Batch, Db, IVec};

use crate::record::Damage;

/// Longest value that is stored as it is, in bytes: most lists of keys.
const WHOLE_MAX: usize = 4096;
/// Bytes of each piece but the last.
const PIECE: usize = 2048;
/// The first byte of a value that is in pieces; others begin with their layout.
const IN_PIECES: u8 = u8::MAX;

/// Changes of the entries of sled, each at most once; the last one counts.
#[derive(Debug, Default)]
pub(crate) struct EntryChanges {
    pieces: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Values that are stored as they are, and what is stored under the key of one in pieces.
    values: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    replaces_pieces: bool,
}

impl EntryChanges {
    /// Inserts a value under a key that has none.
    fn insert(&mut self, key: &[u8], value: Vec<u8>) {
        if value.len() <= WHOLE_MAX {
            self.values.insert(key.to_vec(), Some(value));
            return;
        }
        let count = value.len().div_ceil(PIECE);
        let numbers = u32::try_from(count).ok().zip(u32::try_from(value.len()).ok());
        let (count, length) = numbers.expect("no item and no list of keys has 4 GiB");
        for (n, piece) in (0..count).zip(value.chunks(PIECE)) {
            self.pieces.insert(piece_key(key, n), Some(piece.to_vec()));
        }
        let head = [&[IN_PIECES][..], &count.to_le_bytes(), &length.to_le_bytes()].concat();
        self.values.insert(key.to_vec(), Some(head));
    }

    /// Inserts a value, and removes what is left of the one before.
    pub(crate) fn replace(&mut self, db: &Db, key: &[u8], value: Vec<u8>) -> sled::Result<()> {
        self.remove_from(db, key)?;
        self.insert(key, value);
        Ok(())
    }

    /// Removes a value, if there is one.
    pub(crate) fn remove_from(&mut self, db: &Db, key: &[u8]) -> sled::Result<()> {
        if let Some(before) = db.get(key)? {
            self.remove(key, &before);
        }
        Ok(())
    }

    /// Removes a value; `stored` is what is stored under its key.
    fn remove(&mut self, key: &[u8], stored: &[u8]) {
        let (count, _) = in_pieces(stored).unwrap_or_default();
        self.replaces_pieces |= count > 0;
        for n in 0..count {
            self.pieces.insert(piece_key(key, n), None);
        }
        self.values.insert(key.to_vec(), None);
    }

    /// Whether a value that is in pieces is replaced or removed: old pieces beside new ones are damage.
    pub(crate) fn replaces_pieces(&self) -> bool {
        self.replaces_pieces
    }

    /// Applies them, all or nothing.
    pub(crate) fn apply_at_once(self, db: &Db) -> sled::Result<()> {
        let mut batch = Batch::default();
        for (key, value) in self.in_turn() {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        db.apply_batch(batch)
    }

    /// Applies one after the other.
    pub(crate) fn apply_in_turn(self, db: &Db) -> sled::Result<()> {
        for (key, value) in self.in_turn() {
            match value {
                Some(value) => db.insert(key, value)?,
                None => db.remove(key)?,
            };
        }
        Ok(())
    }

    /// The pieces come first: without what is stored under the key of their value they are not there.
    fn in_turn(self) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        self.pieces.into_iter().chain(self.values)
    }
}

/// A value; `stored` is what is stored under its key.
///
/// # Errors
/// [`Damage::Cut`] if a piece is missing. A reader may also meet that while the writer removes the value.
pub(crate) fn value(db: &Db, key: &[u8], stored: IVec) -> sled::Result<Result<IVec, Damage>> {
    let Some((count, length)) = in_pieces(&stored) else { return Ok(Ok(stored)) };
    let mut value = Vec::new();
    for entry in db.range(piece_key(key, 0)..piece_key(key, count)) {
        value.extend_from_slice(&entry?.1);
    }
    Ok(if value.len() == length as usize { Ok(value.into()) } else { Err(Damage::Cut) })
}

/// The number of pieces, and the bytes of the value.
fn in_pieces(stored: &[u8]) -> Option<(u32, u32)> {
    let (first, numbers) = stored.split_first()?;
    let ([count, length], []) = numbers.as_chunks() else { return None };
    (*first == IN_PIECES).then(|| (u32::from_le_bytes(*count), u32::from_le_bytes(*length)))
}

fn piece_key(key: &[u8], n: u32) -> Vec<u8> {
    [b"p", key, &n.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db(folder: &tempfile::TempDir) -> Db {
        sled::open(folder.path()).unwrap()
    }

    fn stored(db: &Db, key: &[u8]) -> Option<IVec> {
        let stored = db.get(key).unwrap()?;
        Some(value(db, key, stored).unwrap().unwrap())
    }

    #[test]
    fn a_value_of_any_length_is_read_as_written_and_leaves_nothing_when_it_is_replaced_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let db = db(&folder);
        let neighbours: [&[u8]; 3] = [b"ka", b"kab", b"k"];
        for length in [0, 1, WHOLE_MAX, WHOLE_MAX + 1, 3 * PIECE, 300_000, 5000, 9, 70_000] {
            for (n, key) in neighbours.iter().enumerate() {
                let bytes = vec![u8::try_from(n).unwrap(); length + n];
                let mut changes = EntryChanges::default();
                changes.replace(&db, key, bytes).unwrap();
                changes.apply_at_once(&db).unwrap();
            }
            for (n, key) in neighbours.iter().enumerate() {
                let expected = vec![u8::try_from(n).unwrap(); length + n];
                assert_eq!(stored(&db, key).as_deref(), Some(&expected[..]), "{length}");
            }
            let pieces = |n: usize| if length + n <= WHOLE_MAX { 0 } else { (length + n).div_ceil(PIECE) };
            assert_eq!(db.len(), 3 + pieces(0) + pieces(1) + pieces(2), "{length}");
        }
        for key in neighbours {
            let mut changes = EntryChanges::default();
            changes.remove_from(&db, key).unwrap();
            changes.apply_at_once(&db).unwrap();
        }
        assert!(db.is_empty());
    }

    #[test]
    fn a_missing_piece_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let db = db(&folder);
        for gone in 0..5 {
            let mut changes = EntryChanges::default();
            changes.insert(b"e1", vec![7; 4 * PIECE + 1]);
            changes.remove(&piece_key(b"e1", gone), &[]);
            changes.apply_at_once(&db).unwrap();
            let stored = db.get(b"e1").unwrap().unwrap();
            assert_eq!(value(&db, b"e1", stored).unwrap(), Err(Damage::Cut), "{gone}");
        }
    }

    #[test]
    fn a_new_value_whose_pieces_come_in_turn_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let db = db(&folder);
        let mut last = None;
        for length in [3 * PIECE, 4 * PIECE + 1, 5 * PIECE] {
            let changes = |db| {
                let mut changes = EntryChanges::default();
                changes.replace(db, b"s1", vec![7; length]).unwrap();
                changes
            };
            let entries: Vec<_> = changes(&db).in_turn().collect();
            for done in 0..entries.len() {
                assert!(!changes(&db).replaces_pieces(), "{length}, {done}");
                for (key, value) in &entries[..done] {
                    db.insert(key, value.as_deref().unwrap()).unwrap();
                }
                assert_eq!(stored(&db, b"s1"), last, "{length}, {done}");
            }
            changes(&db).apply_in_turn(&db).unwrap();
            assert_eq!(stored(&db, b"s1").as_deref(), Some(&vec![7; length][..]));
            assert!(changes(&db).replaces_pieces());
            // The next one replaces a short value.
            let mut shorter = EntryChanges::default();
            shorter.replace(&db, b"s1", vec![1]).unwrap();
            assert!(shorter.replaces_pieces());
            shorter.apply_at_once(&db).unwrap();
            last = stored(&db, b"s1");
        }
    }
}
