//! How a seen set differs from the one before a visit: what the store writes for one new item of a source with thousands.
//!
//! ```text
//! delta:  layout 1 | entries before v | check of them 4 | header of the set after, as in the layout 15 | runs
//! run:    count and kind v, as count * 4 + kind | start v (copied, changed) | fields 2 (changed, new) | values
//! ```
//!
//! `v` is a variable-length number (LEB128). A run is `count` entries of the set after, in order: copies of entries before,
//! such entries with other values in the same fields, or new ones, of which the other fields are 0. It takes the entries
//! before from `start` on that no earlier run has taken, so that one run holds all that was not in the document. `start`
//! is relative to the first such entry after the end of the last run, zigzag.

use std::collections::HashMap;

use crate::{
    entry::{BadSeenSet, ENTRY, HEADER, Layout, SeenEntry, read_header, take, write_header},
    filter::ValueFilter,
};

/// Bytes of each field of an entry, in their order.
const FIELDS: [usize; 15] = [16, 6, 6, 6, 6, 4, 4, 4, 6, 1, 1, 4, 4, 4, 4];

const COPIED: u64 = 0;
const CHANGED: u64 = 1;
const NEW: u64 = 2;

/// What makes `after` of `before`; `layout` is the one of both.
pub(crate) fn between(layout: u8, before: &Layout, after: &Layout) -> Vec<u8> {
    let mut writer = Writer {
        out: vec![layout],
        untaken: Untaken::new(before.entries.len()),
        end: 0,
        run: Run { kind: COPIED, fields: 0, start: 0, count: 0, values: Vec::new() },
    };
    write_number(&mut writer.out, before.entries.len() as u64);
    let hashes = before.entries.iter().map(hash);
    writer.out.extend_from_slice(&check(hashes).to_le_bytes());
    write_header(&mut writer.out, after);
    let short =
        |entry: &SeenEntry| u64::from_le_bytes(*entry.key().first_chunk().expect("a key has 16 bytes"));
    let keys = ValueFilter::of(before.entries.iter().map(short));
    let mut by_key = HashMap::new();
    for entry in &after.entries {
        let next = writer.untaken.from(writer.end);
        let is_same = |n: &usize| before.entries.get(*n).is_some_and(|known| known.key() == entry.key());
        let known = Some(next).filter(is_same).or_else(|| {
            if !keys.may_have(short(entry)) {
                return None;
            }
            if by_key.is_empty() {
                by_key.extend(before.entries.iter().enumerate().map(|(n, known)| (known.key(), n)));
            }
            by_key.get(&entry.key()).copied().filter(|n| writer.untaken.has(*n))
        });
        match known.map(|n| (n, &before.entries[n])) {
            Some((n, known)) if known == entry => writer.add(COPIED, Some(n), 0, entry),
            Some((n, known)) => {
                let fields = fields_that_differ(&known.bytes(), &entry.bytes());
                writer.add(CHANGED, Some(n), fields, entry);
            }
            None => writer.add(NEW, None, fields_that_differ(&[0; ENTRY], &entry.bytes()), entry),
        }
    }
    writer.flush();
    writer.out
}

/// The set after deltas, each made from the one before it.
pub(crate) fn apply<'a>(
    layout: u8,
    before: &Layout,
    deltas: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Layout, BadSeenSet> {
    let entries = before.entries.clone();
    let mut reader =
        Reader { hashes: entries.iter().map(hash).collect(), order: (0..entries.len()).collect(), entries };
    let mut after = Layout::default();
    for delta in deltas {
        after = reader.read(layout, delta)?;
    }
    after.newest = after.newest.min(reader.order.len());
    after.entries = reader.order.iter().map(|n| reader.entries[*n]).collect();
    Ok(after)
}

/// The run that is being written, of entries that are alike.
struct Run {
    kind: u64,
    /// A bit for each of [`FIELDS`] that is written.
    fields: u16,
    /// The first entry before, as it is written.
    start: i64,
    count: u64,
    values: Vec<u8>,
}

struct Writer {
    out: Vec<u8>,
    untaken: Untaken,
    /// After the last entry before that was taken.
    end: usize,
    run: Run,
}

impl Writer {
    fn add(&mut self, kind: u64, known: Option<usize>, fields: u16, entry: &SeenEntry) {
        let next = self.untaken.from(self.end);
        let is_next = known.is_none_or(|n| n == next);
        if self.run.count == 0 || !is_next || (kind, fields) != (self.run.kind, self.run.fields) {
            self.flush();
            let start = known.map_or(0, |n| n as i64 - next as i64);
            self.run = Run { kind, fields, start, count: 0, values: Vec::new() };
        }
        if let Some(n) = known {
            self.untaken.take(n);
            self.end = n + 1;
        }
        self.run.count += 1;
        if fields != 0 {
            write_fields(&mut self.run.values, fields, &entry.bytes());
        }
    }

    fn flush(&mut self) {
        let Run { kind, fields, start, count, values } = &self.run;
        if *count == 0 {
            return;
        }
        write_number(&mut self.out, count << 2 | kind);
        if *kind != NEW {
            write_number(&mut self.out, (start << 1 ^ start >> 63).cast_unsigned());
        }
        if *kind != COPIED {
            self.out.extend_from_slice(&fields.to_le_bytes());
        }
        self.out.extend_from_slice(values);
    }
}

/// A set to which deltas are applied. Its entries are moved once, after the last delta.
struct Reader {
    /// Those of the set, and what deltas have added.
    entries: Vec<SeenEntry>,
    /// One for each of them.
    hashes: Vec<u32>,
    /// The entries of the set after the deltas so far.
    order: Vec<usize>,
}

impl Reader {
    /// Applies one delta, and returns the set without its entries.
    fn read(&mut self, layout: u8, mut delta: &[u8]) -> Result<Layout, BadSeenSet> {
        let from = &mut delta;
        let [version] = take(from).ok_or(BadSeenSet::Cut)?;
        if version != layout {
            return Err(BadSeenSet::Layout(version));
        }
        let count = read_number(from)?;
        let checked = u32::from_le_bytes(take(from).ok_or(BadSeenSet::Cut)?);
        let hashes = self.order.iter().map(|n| self.hashes[*n]);
        if count != self.order.len() as u64 || checked != check(hashes) {
            return Err(BadSeenSet::Content);
        }
        let header = from.split_off(..HEADER).ok_or(BadSeenSet::Cut)?;
        let after = read_header(header).ok_or(BadSeenSet::Cut)?;
        let mut untaken = Untaken::new(self.order.len());
        let mut order = Vec::with_capacity(self.order.len());
        let mut end = 0;
        while !from.is_empty() {
            self.read_run(from, &mut untaken, &mut end, &mut order)?;
        }
        self.order = order;
        Ok(after)
    }

    fn read_run(
        &mut self,
        from: &mut &[u8],
        untaken: &mut Untaken,
        end: &mut usize,
        order: &mut Vec<usize>,
    ) -> Result<(), BadSeenSet> {
        let head = read_number(from)?;
        let (kind, count) = (head & 3, head >> 2);
        if kind != NEW {
            *end = untaken.from(*end);
            let start = read_number(from)?;
            let start = (start >> 1).cast_signed() ^ -(start & 1).cast_signed();
            let start = i64::try_from(*end).ok().and_then(|end| end.checked_add(start));
            *end = start.and_then(|start| usize::try_from(start).ok()).ok_or(BadSeenSet::Content)?;
        }
        let fields = match kind {
            COPIED => 0,
            CHANGED | NEW => u16::from_le_bytes(take(from).ok_or(BadSeenSet::Cut)?),
            _ => return Err(BadSeenSet::Content),
        };
        // Each entry that is not copied has bytes of its own, so that the delta bounds what is read.
        if (kind == COPIED) != (fields == 0) || fields >> FIELDS.len() != 0 {
            return Err(BadSeenSet::Content);
        }
        for _ in 0..count {
            let mut bytes = [0; ENTRY];
            if kind != NEW {
                let n = untaken.from(*end);
                let known = *self.order.get(n).ok_or(BadSeenSet::Content)?;
                untaken.take(n);
                *end = n + 1;
                if kind == COPIED {
                    order.push(known);
                    continue;
                }
                bytes = self.entries[known].bytes();
            }
            read_fields(from, fields, &mut bytes)?;
            let entry = SeenEntry::read(&bytes).ok_or(BadSeenSet::Content)?;
            order.push(self.entries.len());
            self.hashes.push(hash(&entry));
            self.entries.push(entry);
        }
        Ok(())
    }
}

/// The entries before that no run has taken.
struct Untaken {
    /// For each entry itself, or a later one up to which all are taken.
    next: Vec<usize>,
}

impl Untaken {
    fn new(entries: usize) -> Self {
        Self { next: (0..=entries).collect() }
    }

    /// The first one from number `n` on; how many entries there are if there is none.
    fn from(&mut self, n: usize) -> usize {
        let mut n = n.min(self.next.len() - 1);
        while self.next[n] != n {
            // Later searches skip what this one has passed.
            self.next[n] = self.next[self.next[n]];
            n = self.next[n];
        }
        n
    }

    fn has(&self, n: usize) -> bool {
        self.next[n] == n
    }

    fn take(&mut self, n: usize) {
        self.next[n] = n + 1;
    }
}

/// A number that differs for other entries, and for the same ones in another order.
fn check(hashes: impl Iterator<Item = u32>) -> u32 {
    hashes.fold(0, |check: u32, hash| check.wrapping_mul(0x0100_0193).wrapping_add(hash))
}

/// Not against an adversary: the store has checksums. A delta that is applied to another set than it was made from is found.
fn hash(entry: &SeenEntry) -> u32 {
    let bytes = entry.bytes();
    let words = bytes.chunks(8).map(|word| {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        u64::from_le_bytes(bytes)
    });
    let hash =
        words.fold(0, |hash: u64, word| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95));
    u32::try_from(hash >> 32).unwrap_or_default()
}

fn fields_of(bits: u16) -> impl Iterator<Item = (usize, usize)> {
    let mut end = 0;
    let ranges = FIELDS.into_iter().map(move |width| {
        end += width;
        (end - width, end)
    });
    ranges.enumerate().filter(move |(n, _)| bits >> n & 1 == 1).map(|(_, range)| range)
}

fn fields_that_differ(a: &[u8; ENTRY], b: &[u8; ENTRY]) -> u16 {
    let all = (0..FIELDS.len()).map(|n| 1 << n);
    all.filter(|bit| fields_of(*bit).any(|(start, end)| a[start..end] != b[start..end])).sum()
}

fn write_fields(out: &mut Vec<u8>, fields: u16, entry: &[u8; ENTRY]) {
    for (start, end) in fields_of(fields) {
        out.extend_from_slice(&entry[start..end]);
    }
}

fn read_fields(from: &mut &[u8], fields: u16, entry: &mut [u8; ENTRY]) -> Result<(), BadSeenSet> {
    for (start, end) in fields_of(fields) {
        let value = from.split_off(..end - start).ok_or(BadSeenSet::Cut)?;
        entry[start..end].copy_from_slice(value);
    }
    Ok(())
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn read_number(from: &mut &[u8]) -> Result<u64, BadSeenSet> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let [byte] = take(from).ok_or(BadSeenSet::Cut)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(BadSeenSet::Content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{decode, encode};

    const LAYOUT: u8 = 3;

    /// An entry with one of twenty keys.
    fn entry() -> impl Strategy<Value = SeenEntry> {
        (0..20_u8, any::<[u8; ENTRY]>(), 0..4_u8, any::<u16>()).prop_map(|(key, mut bytes, flags, zeros)| {
            bytes[..16].fill(key);
            for (start, end) in fields_of(zeros & 0x7ffe) {
                bytes[start..end].fill(0);
            }
            // One written by the first version has nothing else.
            bytes[58] = [0, 1, 2, 4][usize::from(flags)];
            if flags == 1 {
                bytes[16..52].fill(0);
                bytes[59..].fill(0);
            }
            SeenEntry::read(&bytes).unwrap()
        })
    }

    fn set() -> impl Strategy<Value = Layout> {
        let header = any::<[u8; HEADER]>();
        (header, prop::collection::vec(entry(), 0..12)).prop_map(|(header, entries)| {
            let bytes =
                entries.iter().fold(header.to_vec(), |bytes, entry| [bytes, entry.bytes().to_vec()].concat());
            decode(&bytes).unwrap()
        })
    }

    /// A set, and one that a visit may have made of it: entries in another order, with other values, gone, new.
    fn later(before: Layout) -> impl Strategy<Value = (Layout, Layout)> {
        let entries = Just(before.entries.clone()).prop_shuffle();
        let changes = prop::collection::vec((0..8_u8, 0..FIELDS.len(), any::<u8>()), 12);
        (Just(before), entries, set(), changes).prop_map(|(before, entries, other, changes)| {
            let changed = entries.into_iter().zip(changes).filter_map(|(entry, (what, field, value))| {
                let mut bytes = entry.bytes();
                let (start, end) = fields_of(1 << field).next().unwrap();
                match what {
                    0 => return None,
                    1..4 => bytes[start..end].fill(value),
                    _ => {}
                }
                SeenEntry::read(&bytes).and_then(|entry| SeenEntry::read(&entry.bytes()))
            });
            let entries = changed.chain(other.entries.iter().copied().take(2)).collect();
            (before, Layout { entries, ..other })
        })
    }

    /// As it is after it was written and read.
    fn stored(layout: &Layout) -> Layout {
        decode(&encode(layout)).unwrap()
    }

    proptest! {
        #[test]
        fn a_set_and_its_deltas_are_the_later_set(
            (first, second) in set().prop_flat_map(later), third in set(),
        ) {
            let second = stored(&second);
            let deltas = [between(LAYOUT, &first, &second), between(LAYOUT, &second, &third)];
            prop_assert_eq!(apply(LAYOUT, &first, [&*deltas[0]]).unwrap(), second);
            prop_assert_eq!(&apply(LAYOUT, &first, deltas.iter().map(Vec::as_slice)).unwrap(), &third);
            if first != third && deltas[1] != deltas[0] {
                let swapped = apply(LAYOUT, &first, deltas.iter().rev().map(Vec::as_slice));
                prop_assert!(swapped != Ok(third));
            }
        }

        #[test]
        fn a_broken_delta_is_a_set_or_an_error(
            (before, after) in set().prop_flat_map(later), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let delta = between(LAYOUT, &before, &after);
            let at = at.index(delta.len());
            let mut broken = delta.clone();
            broken[at] = byte;
            if let Ok(layout) = apply(LAYOUT, &before, [&*broken]) {
                // Each entry of it is one of those before, or has bytes of its own.
                prop_assert!(layout.entries.len() <= before.entries.len() + broken.len());
            }
            apply(LAYOUT, &before, [&delta[..at]]).ok();
        }

        #[test]
        fn any_bytes_after_the_check_are_a_set_or_an_error(
            before in set(), runs in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut delta = between(LAYOUT, &before, &Layout::default());
            delta.extend_from_slice(&runs);
            if let Ok(layout) = apply(LAYOUT, &before, [&*delta]) {
                prop_assert!(layout.entries.len() <= before.entries.len() + delta.len());
            }
        }
    }

    fn numbered(n: u8) -> SeenEntry {
        let mut bytes = [0; ENTRY];
        bytes[0] = n;
        SeenEntry::read(&bytes).unwrap()
    }

    fn set_of(numbers: &[u8]) -> Layout {
        Layout { entries: numbers.iter().map(|n| numbered(*n)).collect(), ..Layout::default() }
    }

    #[test]
    fn a_delta_of_another_set_is_refused() {
        let before = set_of(&[1, 2, 3]);
        let delta = between(LAYOUT, &before, &set_of(&[3, 1, 2]));
        assert_eq!(apply(LAYOUT, &before, [&*delta]), Ok(set_of(&[3, 1, 2])));
        for other in [&[1, 2][..], &[1, 3, 2], &[1, 2, 4], &[1, 2, 3, 4]] {
            assert_eq!(apply(LAYOUT, &set_of(other), [&*delta]), Err(BadSeenSet::Content), "{other:?}");
        }
        let hotter = Layout {
            entries: vec![SeenEntry { heat: 1, ..numbered(1) }, numbered(2), numbered(3)],
            ..before.clone()
        };
        assert_eq!(apply(LAYOUT, &hotter, [&*delta]), Err(BadSeenSet::Content));
        assert_eq!(apply(LAYOUT + 1, &before, [&*delta]), Err(BadSeenSet::Layout(LAYOUT)));
        assert_eq!(apply(LAYOUT, &before, [&[][..]]), Err(BadSeenSet::Cut));
    }

    #[test]
    fn a_delta_that_promises_more_than_it_has_is_refused_at_once() {
        let before = set_of(&[1]);
        let start = between(LAYOUT, &before, &Layout::default());
        for kind in [COPIED, CHANGED, NEW, 3] {
            let mut delta = start.clone();
            write_number(&mut delta, (u64::MAX >> 3) & !3 | kind);
            delta.extend_from_slice(&[0, 1, 0, 1, 2, 3]);
            assert!(apply(LAYOUT, &before, [&*delta]).is_err(), "{kind}");
        }
        let mut delta = start;
        delta.extend_from_slice(&[0xff; 12]);
        assert_eq!(apply(LAYOUT, &before, [&*delta]), Err(BadSeenSet::Content));
    }

    #[test]
    fn the_fields_are_the_whole_entry() {
        assert_eq!(FIELDS.iter().sum::<usize>(), ENTRY);
    }
}
