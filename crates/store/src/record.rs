//! The layout of the data in sled, in one tree, and of an event.
//!
//! ```text
//! key                      value
//! d <source id> 0 <…>      version 1 | crc32 of the rest, 4 LE | a delta of the seen set: see seen_sets
//! k <source id>            version 1 to 3 | crc32 of the rest, 4 LE | the seen set in that layout (crate seen) | generation 4
//! p <key> <n, 4 bytes BE>  a piece of a value that is long: see pieces
//! m <name>                 version 4 for the epoch, else 1 | crc32 of the rest, 4 LE | the epoch (text), the held hosts as
//!                          JSON, or how far sled has come: see table
//! s <source id>            version 1 | crc32 of the rest, 4 LE | SourceState as JSON
//! w <source id>            version 1 | crc32 of the rest, 4 LE | hashes of the keys of what waits, 8 LE each
//!
//! event in the journal     version 1 | crc32 of the rest, 4 LE | kind 1 | recorded ms, 8 LE | the event's JSON
//! ```
//!
//! The number of its commit is behind each value. Stores of the layouts 1 to 3 had the events under `e <seq, 8 bytes BE>`.
//! sled checks its pages; the checksum here also detects a valid page that is not the one that was written.

use news::{EventKind, Seq, SourceId, SourceState, Timestamp};
use seen::{BadSeenSet, SeenSet};

/// Layout of every value but the seen set; a reader stops at any other one.
pub(crate) const VERSION: u8 = 1;
const HEADER: usize = 5;
/// Kind and time before the JSON of an event.
const EVENT_HEADER: usize = 9;
/// What is stored of an event before its JSON, in bytes.
pub(crate) const EVENT_SEAL: usize = HEADER + EVENT_HEADER;

/// Layout of the epoch, and with it of the whole: programs that know only stores without a journal stop at it.
pub(crate) const STORE_LAYOUT: u8 = 4;

pub(crate) const EPOCH: &[u8] = b"mepoch";
pub(crate) const HOSTS: &[u8] = b"mhosts";
/// With it the keys of seen sets begin.
pub(crate) const SEEN: &[u8] = b"k";

/// A value that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Shorter than its header.
    #[error("it is truncated")]
    Cut,
    /// Of a layout this program does not know.
    #[error("it has layout {0}, which this version does not know; install the version that wrote it")]
    Version(u8),
    /// Changed since it was written.
    #[error("its checksum does not match")]
    Checksum,
    /// Complete, but not what was written under this key.
    #[error("its content is invalid")]
    Content,
}

pub(crate) fn event_key(seq: Seq) -> [u8; 9] {
    let mut key = [b'e'; 9];
    key[1..].copy_from_slice(&seq.0.to_be_bytes());
    key
}

pub(crate) fn seq_of(key: &[u8]) -> Option<Seq> {
    let (first, rest) = key.split_first()?;
    (*first == b'e').then_some(())?;
    Some(Seq(u64::from_be_bytes(rest.try_into().ok()?)))
}

pub(crate) fn state_key(source: &SourceId) -> Vec<u8> {
    [b"s", source.as_str().as_bytes()].concat()
}

pub(crate) fn seen_key(source: &SourceId) -> Vec<u8> {
    [SEEN, source.as_str().as_bytes()].concat()
}

/// Of the keys of all deltas of a source.
pub(crate) fn deltas_prefix(source: &SourceId) -> Vec<u8> {
    [b"d", source.as_str().as_bytes(), &[0]].concat()
}

/// Of the keys of the deltas of this generation.
pub(crate) fn delta_prefix(source: &SourceId, generation: u32) -> Vec<u8> {
    [&deltas_prefix(source)[..], &generation.to_be_bytes()].concat()
}

pub(crate) fn waiting_key(source: &SourceId) -> Vec<u8> {
    [b"w", source.as_str().as_bytes()].concat()
}

/// The key of the base of the deltas to which a key belongs; `None` for other keys.
pub(crate) fn base_of_delta(key: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = key.split_first()?;
    let id = (*first == b'd').then(|| rest.split(|byte| *byte == 0).next())??;
    Some([b"k", id].concat())
}

/// Of the keys of all deltas of a base; `None` for other keys.
pub(crate) fn deltas_of_base(key: &[u8]) -> Option<Vec<u8>> {
    let (first, id) = key.split_first()?;
    (*first == b'k').then(|| [b"d", id, &[0]].concat())
}

/// Seals numbers, each as 8 bytes LE.
pub(crate) fn seal_numbers<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    seal(&[numbers.map(u64::to_le_bytes).as_flattened()])
}

pub(crate) fn unseal_numbers<const N: usize>(value: &[u8]) -> Result<[u64; N], Damage> {
    let (numbers, []) = unseal(value)?.as_chunks() else { return Err(Damage::Cut) };
    let numbers: [[u8; 8]; N] = numbers.try_into().map_err(|_| Damage::Cut)?;
    Ok(numbers.map(u64::from_le_bytes))
}

/// Prepends version and checksum.
pub(crate) fn seal(parts: &[&[u8]]) -> Vec<u8> {
    seal_version(VERSION, parts)
}

fn seal_version(version: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER + parts.iter().map(|part| part.len()).sum::<usize>());
    value.extend_from_slice(&[version, 0, 0, 0, 0]);
    for part in parts {
        value.extend_from_slice(part);
    }
    let crc = crc32fast::hash(&value[HEADER..]);
    value[1..HEADER].copy_from_slice(&crc.to_le_bytes());
    value
}

/// Checks and removes what [`seal`] has prepended.
pub(crate) fn unseal(value: &[u8]) -> Result<&[u8], Damage> {
    match unseal_version(value)? {
        (VERSION, rest) => Ok(rest),
        (other, _) => Err(Damage::Version(other)),
    }
}

pub(crate) fn seal_epoch(name: &str) -> Vec<u8> {
    seal_version(STORE_LAYOUT, &[name.as_bytes()])
}

/// The epoch of a store with a journal.
pub(crate) fn unseal_epoch(value: &[u8]) -> Result<&str, Damage> {
    match unseal_version(value)? {
        (STORE_LAYOUT, name) => std::str::from_utf8(name).map_err(|_| Damage::Content),
        (other, _) => Err(Damage::Version(other)),
    }
}

/// The version, and the rest if its checksum is right.
fn unseal_version(value: &[u8]) -> Result<(u8, &[u8]), Damage> {
    let (header, rest) = value.split_at_checked(HEADER).ok_or(Damage::Cut)?;
    if !(VERSION..=STORE_LAYOUT.max(SeenSet::LAYOUT)).contains(&header[0]) {
        return Err(Damage::Version(header[0]));
    }
    if header[1..] != crc32fast::hash(rest).to_le_bytes() {
        return Err(Damage::Checksum);
    }
    Ok((header[0], rest))
}

/// Whether a value has what was written, without its meaning.
pub(crate) fn check_value(key: &[u8], value: &[u8]) -> Result<(), Damage> {
    let sealed = match key.first() {
        // The generation of its deltas is behind it.
        Some(b'k') => value.split_last_chunk::<4>().ok_or(Damage::Cut)?.0,
        _ => value,
    };
    unseal_version(sealed).map(drop)
}

pub(crate) fn seal_state(state: &SourceState) -> Vec<u8> {
    seal(&[&serde_json::to_vec(state).expect("every field of a state has a JSON form")])
}

pub(crate) fn seal_seen(seen: &SeenSet) -> Vec<u8> {
    seal_version(SeenSet::LAYOUT, &[&seen.encode()])
}

pub(crate) fn unseal_seen(value: &[u8]) -> Result<SeenSet, Damage> {
    let (version, rest) = unseal_version(value)?;
    SeenSet::decode(version, rest).map_err(|bad| match bad {
        BadSeenSet::Layout(layout) => Damage::Version(layout),
        BadSeenSet::Cut => Damage::Cut,
        BadSeenSet::Content => Damage::Content,
    })
}

pub(crate) fn seal_event(kind: EventKind, recorded: Timestamp, json: &str) -> Vec<u8> {
    let kind = match kind {
        EventKind::Item => 0,
        EventKind::Update => 1,
    };
    seal(&[&[kind], &recorded.millis().to_le_bytes(), json.as_bytes()])
}

pub(crate) fn unseal_event(value: &[u8]) -> Result<(EventKind, Timestamp, &str), Damage> {
    let (header, json) = unseal(value)?.split_at_checked(EVENT_HEADER).ok_or(Damage::Cut)?;
    let kind = match header[0] {
        0 => EventKind::Item,
        1 => EventKind::Update,
        _ => return Err(Damage::Content),
    };
    let recorded = header[1..].try_into().map_err(|_| Damage::Cut)?;
    let json = std::str::from_utf8(json).map_err(|_| Damage::Content)?;
    Ok((kind, Timestamp::from_millis(i64::from_le_bytes(recorded)), json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_bit_of_a_value_is_detected() {
        let value = seal_event(EventKind::Update, Timestamp::from_millis(7), "{}");
        assert_eq!(unseal_event(&value), Ok((EventKind::Update, Timestamp::from_millis(7), "{}")));
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal_event(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..value.len() {
            assert!(unseal_event(&value[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn keys_of_events_are_in_the_order_of_their_sequence() {
        assert!(event_key(Seq(255)) < event_key(Seq(256)));
        assert_eq!(seq_of(&event_key(Seq(1 << 40))), Some(Seq(1 << 40)));
        assert_eq!(seq_of(EPOCH), None);
    }
}
