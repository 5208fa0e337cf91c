//! The layout of the seen set, and what is kept of an item.
//!
//! ```text
//! layout 3:  newest 2 | quiet visits and flags 1 | damped since 6 | renewed at 6 | entries of 76 bytes
//! entry:     key 16 | guid 6 | link 6 | title 6 | text 6 | path 4 | page 4 | date 4 | first seen 6 | flags 1 | heat 1 | before 4 | sent 4 | shape 4 | media 4
//! from 1:    hash of the key 8 | hash of link and title 8 | zeros 36 | first seen 6 | flags 1 | zeros 17
//! layout 2:  as 3, without renewed at, and with entries of 64 bytes, without sent, shape and media
//! layout 1:  entries of 32 bytes: hash of the key 8 | hash of the content 8 | first seen 8 | hash of link and title 8
//! ```
//!
//! Numbers are little-endian. The entries are in the order in which they were last seen, the newest document first.

use news::{Item, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::damping::Damping;

pub(crate) const ENTRY: usize = 76;
const ENTRY_OF_2: usize = 64;
pub(crate) const HEADER: usize = 15;
const HEADER_OF_2: usize = 9;
const ENTRY_OF_1: usize = 32;
const FROM_VERSION_1: u8 = 1;
const GUID_FOLLOWS_LINK: u8 = 2;
const COUNTS: u8 = 4;
/// Flags beside the quiet visits, which are a few.
const FLAPPING: u8 = 0x80;
const WITHOUT_MIDDLE: u8 = 0x40;

/// Bytes that are no seen set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSeenSet {
    /// Of a layout this program does not know.
    #[error("it has layout {0}, which this version does not know; install the version that wrote it")]
    Layout(u8),
    /// Not a whole number of entries.
    #[error("it is truncated")]
    Cut,
    /// Complete, but not what is written here.
    #[error("its content is invalid")]
    Content,
}

/// What an item is recognised by: its evidence in 48 or 32 bits, which is enough for a few thousand items of one source.
/// 0 for what it does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    pub(crate) guid: u64,
    pub(crate) link: u64,
    pub(crate) title: u64,
    pub(crate) text: u64,
    pub(crate) path: u32,
    pub(crate) page: u32,
    /// The date of publication in seconds, modulo 2^32.
    pub(crate) date: u32,
    /// The paths of the enclosures.
    pub(crate) media: u32,
    pub(crate) guid_follows_link: bool,
}

impl Traits {
    pub(crate) fn of(item: &Item) -> Self {
        let evidence = &item.evidence;
        Self {
            guid: short(evidence.guid),
            link: short(evidence.link),
            title: short(evidence.title),
            text: short(evidence.text),
            path: shorter(evidence.path),
            page: shorter(evidence.page),
            date: item.published.map_or(0, |at| shorter_number(at.millis().div_euclid(1000))),
            media: shorter(evidence.media),
            guid_follows_link: evidence.guid_follows_link,
        }
    }

    /// What a reader reads, title and text, as one number.
    pub(crate) fn version(&self) -> u32 {
        shorter(self.title.rotate_left(7) ^ self.text)
    }
}

/// The low 48 bits; 0 only for 0.
fn short(hash: u64) -> u64 {
    if hash == 0 { 0 } else { (hash & 0xffff_ffff_ffff).max(1) }
}

/// The low 32 bits; 0 only for 0.
fn shorter(hash: u64) -> u32 {
    if hash == 0 { 0 } else { low_32(hash).max(1) }
}

fn shorter_number(number: i64) -> u32 {
    low_32(number.cast_unsigned()).max(1)
}

fn low_32(number: u64) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// 32 hexadecimal digits.
pub(crate) fn hex(key: [u8; 16]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
    key.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The bytes of a key of 32 lower-case hexadecimal digits; of any other text, its hash.
pub(crate) fn key_bytes(key: &str) -> [u8; 16] {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if key.len() == 32 && key.bytes().all(is_digit) {
        let number = u128::from_str_radix(key, 16).unwrap_or_default();
        return number.to_be_bytes();
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(key)[..16]);
    bytes
}

/// Whose entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryIdentity {
    Known {
        /// The key that was published first.
        key: [u8; 16],
        traits: Traits,
    },
    /// Written by the first version, and not seen since.
    Version1 {
        key_hash: u64,
        /// Hash of link and title; 0 if there is no link.
        second: u64,
    },
}

/// An item that the source had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenEntry {
    pub(crate) identity: EntryIdentity,
    pub(crate) first_seen: Timestamp,
    /// How often it has changed lately; see `damping`.
    pub(crate) heat: u8,
    /// Its last change was one of numbers and signs alone.
    pub(crate) counts: bool,
    /// The version before the one that was seen last; 0 if there was none.
    pub(crate) before: u32,
    /// The version that was sent last; 0 if that is not known, which is the one that was seen.
    pub(crate) sent: u32,
    /// Its words without numbers and signs; 0 if that is not known.
    pub(crate) shape: u32,
}

impl SeenEntry {
    pub(crate) fn traits(&self) -> Option<&Traits> {
        match &self.identity {
            EntryIdentity::Known { traits, .. } => Some(traits),
            EntryIdentity::Version1 { .. } => None,
        }
    }

    /// The key, or what an entry of the first version has instead.
    pub(crate) fn key(&self) -> [u8; 16] {
        match self.identity {
            EntryIdentity::Known { key, .. } => key,
            EntryIdentity::Version1 { key_hash, second } => {
                (u128::from(key_hash) | u128::from(second) << 64).to_le_bytes()
            }
        }
    }

    /// As it is written.
    pub(crate) fn bytes(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..16].copy_from_slice(&self.key());
        let mut flags = if self.counts { COUNTS } else { 0 };
        match &self.identity {
            EntryIdentity::Known { traits, .. } => {
                write_48(&mut bytes[16..22], traits.guid);
                write_48(&mut bytes[22..28], traits.link);
                write_48(&mut bytes[28..34], traits.title);
                write_48(&mut bytes[34..40], traits.text);
                bytes[40..44].copy_from_slice(&traits.path.to_le_bytes());
                bytes[44..48].copy_from_slice(&traits.page.to_le_bytes());
                bytes[48..52].copy_from_slice(&traits.date.to_le_bytes());
                bytes[72..].copy_from_slice(&traits.media.to_le_bytes());
                flags |= if traits.guid_follows_link { GUID_FOLLOWS_LINK } else { 0 };
            }
            EntryIdentity::Version1 { .. } => flags |= FROM_VERSION_1,
        }
        write_48(&mut bytes[52..58], self.first_seen.millis().cast_unsigned());
        bytes[58..60].copy_from_slice(&[flags, self.heat]);
        bytes[60..64].copy_from_slice(&self.before.to_le_bytes());
        bytes[64..68].copy_from_slice(&self.sent.to_le_bytes());
        bytes[68..72].copy_from_slice(&self.shape.to_le_bytes());
        bytes
    }

    pub(crate) fn read(mut rest: &[u8]) -> Option<Self> {
        let from = &mut rest;
        let key: [u8; 16] = take(from)?;
        let (guid, link, title, text) = (read_48(from)?, read_48(from)?, read_48(from)?, read_48(from)?);
        let [path, page, date] = [read_32(from)?, read_32(from)?, read_32(from)?];
        let first_seen = Timestamp::from_millis(sign_extended(read_48(from)?));
        let [flags, heat] = take(from)?;
        let before = read_32(from)?;
        // Layout 2 ends here.
        let [sent, shape, media] = [(); 3].map(|()| read_32(from).unwrap_or(0));
        let counts = flags & COUNTS != 0;
        let identity = match flags & !COUNTS {
            FROM_VERSION_1 => {
                let (first, second) = key.split_at(8);
                let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
                EntryIdentity::Version1 { key_hash: number(first)?, second: number(second)? }
            }
            kept @ (0 | GUID_FOLLOWS_LINK) => {
                let guid_follows_link = kept == GUID_FOLLOWS_LINK;
                let traits = Traits { guid, link, title, text, path, page, date, media, guid_follows_link };
                EntryIdentity::Known { key, traits }
            }
            _ => return None,
        };
        Some(Self { identity, first_seen, heat, counts, before, sent, shape })
    }
}

/// The decoded parts of a seen set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) entries: Vec<SeenEntry>,
    /// How many of the entries, from the first, were in the newest document.
    pub(crate) newest: usize,
    pub(crate) damping: Option<Damping>,
    /// When the newest document came, if nearly all of its items were new although the one before had others.
    pub(crate) renewed_at: Option<Timestamp>,
    /// The guids of the newest document were other ones than those of the document before.
    pub(crate) is_flapping: bool,
    /// The middle of the newest document was left out, because it had too many items.
    pub(crate) is_without_middle: bool,
}

pub(crate) fn encode(layout: &Layout) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + layout.entries.len() * ENTRY);
    write_header(&mut out, layout);
    for entry in &layout.entries {
        out.extend_from_slice(&entry.bytes());
    }
    out
}

/// Writes all but the entries.
pub(crate) fn write_header(out: &mut Vec<u8>, layout: &Layout) {
    let mut header = [0; HEADER];
    header[..2].copy_from_slice(&u16::try_from(layout.newest).unwrap_or(u16::MAX).to_le_bytes());
    // 0 and 0 is without damping: its time is never 0.
    let (quiet, since) =
        layout.damping.map_or((0, 0), |d| (d.quiet_visits, d.since.millis().cast_unsigned()));
    let flags = [(layout.is_flapping, FLAPPING), (layout.is_without_middle, WITHOUT_MIDDLE)];
    let flags: u8 = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum();
    header[2] = quiet.min(WITHOUT_MIDDLE - 1) | flags;
    write_48(&mut header[3..9], since);
    // 0 is without: no visit is made in 1970.
    write_48(&mut header[9..], layout.renewed_at.map_or(0, |at| at.millis().cast_unsigned()));
    out.extend_from_slice(&header);
}

/// Reads layout 3.
pub(crate) fn decode(bytes: &[u8]) -> Result<Layout, BadSeenSet> {
    decode_with(bytes, HEADER, ENTRY)
}

/// Reads layout 2.
pub(crate) fn decode_version2(bytes: &[u8]) -> Result<Layout, BadSeenSet> {
    decode_with(bytes, HEADER_OF_2, ENTRY_OF_2)
}

fn decode_with(bytes: &[u8], header: usize, entry: usize) -> Result<Layout, BadSeenSet> {
    let (header, rest) = bytes.split_at_checked(header).ok_or(BadSeenSet::Cut)?;
    if !rest.len().is_multiple_of(entry) {
        return Err(BadSeenSet::Cut);
    }
    let entries: Option<Vec<_>> = rest.chunks_exact(entry).map(SeenEntry::read).collect();
    let entries = entries.ok_or(BadSeenSet::Content)?;
    let layout = read_header(header).ok_or(BadSeenSet::Cut)?;
    Ok(Layout { newest: layout.newest.min(entries.len()), entries, ..layout })
}

/// Reads all but the entries.
pub(crate) fn read_header(mut header: &[u8]) -> Option<Layout> {
    let from = &mut header;
    let newest = usize::from(u16::from_le_bytes(take(from)?));
    let [quiet_and_flags] = take(from)?;
    let since = read_48(from)?;
    // Layout 2 ends here.
    let renewed_at = read_48(from).filter(|at| *at != 0).map(|at| Timestamp::from_millis(sign_extended(at)));
    let since_at = Timestamp::from_millis(sign_extended(since));
    let [is_flapping, is_without_middle] = [FLAPPING, WITHOUT_MIDDLE].map(|flag| quiet_and_flags & flag != 0);
    let quiet_visits = quiet_and_flags & !(FLAPPING | WITHOUT_MIDDLE);
    let damping = (since != 0).then_some(Damping { quiet_visits, since: since_at });
    Some(Layout { newest, entries: Vec::new(), damping, renewed_at, is_flapping, is_without_middle })
}

/// The entries of layout 1, the newest document first.
pub(crate) fn decode_version1(bytes: &[u8]) -> Result<Vec<SeenEntry>, BadSeenSet> {
    if !bytes.len().is_multiple_of(ENTRY_OF_1) {
        return Err(BadSeenSet::Cut);
    }
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes of an entry"));
    let entry = |bytes: &[u8]| SeenEntry {
        identity: EntryIdentity::Version1 { key_hash: word(&bytes[..8]), second: word(&bytes[24..]) },
        first_seen: Timestamp::from_millis(word(&bytes[16..24]).cast_signed()),
        heat: 0,
        counts: false,
        before: 0,
        sent: 0,
        shape: 0,
    };
    Ok(bytes.chunks_exact(ENTRY_OF_1).map(entry).collect())
}

pub(crate) fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*first)
}

fn read_32(from: &mut &[u8]) -> Option<u32> {
    take(from).map(u32::from_le_bytes)
}

fn read_48(from: &mut &[u8]) -> Option<u64> {
    let [a, b, c, d, e, f] = take(from)?;
    Some(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
}

fn write_48(out: &mut [u8], number: u64) {
    out.copy_from_slice(&number.to_le_bytes()[..6]);
}

/// A signed number of 48 bits.
fn sign_extended(number: u64) -> i64 {
    (number << 16).cast_signed() >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let traits = Traits {
            guid: 0xffff_ffff_ffff,
            link: 2,
            title: 3,
            text: 4,
            path: u32::MAX,
            page: 6,
            date: 7,
            media: 8,
            guid_follows_link: true,
        };
        let at = Timestamp::from_millis;
        let identity = |n: u8| EntryIdentity::Known { key: [n; 16], traits };
        Layout {
            entries: vec![
                SeenEntry {
                    identity: identity(1),
                    first_seen: at(1_800_000_000_123),
                    heat: 9,
                    counts: true,
                    before: u32::MAX,
                    sent: 7,
                    shape: u32::MAX,
                },
                SeenEntry {
                    identity: EntryIdentity::Version1 { key_hash: u64::MAX, second: 5 },
                    first_seen: at(-1),
                    heat: 0,
                    counts: false,
                    before: 0,
                    sent: 0,
                    shape: 0,
                },
            ],
            newest: 1,
            damping: Some(Damping { quiet_visits: 2, since: at(1_800_000_000_000) }),
            renewed_at: Some(at(1_800_000_000_001)),
            is_flapping: true,
            is_without_middle: true,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode(&encode(&layout())), Ok(layout()));
        assert_eq!(decode(&encode(&Layout::default())), Ok(Layout::default()));
        assert_eq!(encode(&layout()).len(), HEADER + 2 * ENTRY);
    }

    #[test]
    fn layout_2_is_read_without_what_it_does_not_have() {
        let bytes = encode(&layout());
        let (header, entries) = bytes.split_at(HEADER);
        let entries = entries.chunks(ENTRY).flat_map(|entry| &entry[..ENTRY_OF_2]);
        let version2: Vec<_> = header[..HEADER_OF_2].iter().chain(entries).copied().collect();
        let mut expected = Layout { renewed_at: None, ..layout() };
        for entry in &mut expected.entries {
            (entry.sent, entry.shape) = (0, 0);
            if let EntryIdentity::Known { traits, .. } = &mut entry.identity {
                traits.media = 0;
            }
        }
        assert_eq!(decode_version2(&version2), Ok(expected));
    }

    #[test]
    fn any_bytes_are_a_list_or_an_error() {
        let bytes = encode(&layout());
        for cut in (0..bytes.len()).filter(|cut| *cut != HEADER && *cut != HEADER + ENTRY) {
            assert_eq!(decode(&bytes[..cut]), Err(BadSeenSet::Cut), "{cut}");
        }
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0xff;
            decode(&other).ok();
            decode_version2(&other).ok();
        }
        assert_eq!(decode_version1(&[0; 33]), Err(BadSeenSet::Cut));
        assert_eq!(decode_version1(&[0; 64]).unwrap().len(), 2);
    }
}
