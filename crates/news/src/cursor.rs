//! The cursor of a reader: `<epoch>-<seq>`, the id of an event and the value of `Last-Event-ID`.
//!
//! It has only characters that the Fetch standard lets a browser send in `Last-Event-ID` without a CORS preflight.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The sequence number of an event: starts at 1, has no holes, is never used twice within an [`Epoch`].
///
/// `Seq::NONE` (0) is before the first event: nothing seen yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first event.
    pub const NONE: Self = Self(0);

    /// The last one, which no log reaches: only a reader that made its id up has it.
    pub const LAST: Self = Self(u64::MAX);

    /// The next sequence number; that of [`Seq::LAST`] is itself.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The sequence number before; that of [`Seq::NONE`] is itself.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many sequence numbers lie between this one and `later`, both excluded.
    #[must_use]
    pub fn missing_before(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0).saturating_sub(1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of one life of a log. Sequence numbers of different epochs cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Epoch(Box<str>);

/// Why a text is not an epoch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is 1 to 16 characters of a-z and 0-9")]
pub struct BadEpoch;

impl Epoch {
    /// Longest epoch, in bytes.
    pub const LENGTH_MAX: usize = 16;

    /// Checks a name.
    ///
    /// # Errors
    /// [`BadEpoch`] unless it is 1 to 16 characters of `a-z0-9`.
    pub fn try_new(name: &str) -> Result<Self, BadEpoch> {
        let fits = (1..=Self::LENGTH_MAX).contains(&name.len());
        if fits && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            Ok(Self(name.into()))
        } else {
            Err(BadEpoch)
        }
    }

    /// A new name of six letters and digits; `digit(36)` returns a random one, in lower case. Two logs get the same one with a
    /// probability of one in two thousand million.
    #[must_use]
    pub fn random(digit: impl Fn(u32) -> char) -> Self {
        let name: String = std::iter::repeat_with(|| digit(36)).take(6).collect();
        Self::try_new(&name).expect("six lower-case letters and digits")
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::try_new(&name).map_err(serde::de::Error::custom)
    }
}

/// The id of an event, and the cursor of a reader that has seen everything up to and including it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The last event seen.
    pub seq: Seq,
}

/// Why a text is not a cursor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event id is <epoch>-<seq>, such as k3v9q2-412")]
pub struct BadCursor;

impl Cursor {
    /// Longest id that is parsed, in bytes; longer texts are not ids of newswire.
    pub const LENGTH_MAX: usize = 64;
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        if text.len() > Self::LENGTH_MAX {
            return Err(BadCursor);
        }
        let (epoch, seq) = text.split_once('-').ok_or(BadCursor)?;
        let epoch = Epoch::try_new(epoch).map_err(|BadEpoch| BadCursor)?;
        let canonical = seq == "0" || !seq.starts_with('0');
        if !canonical || seq.is_empty() || !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadCursor);
        }
        let seq = seq.parse().map_err(|_| BadCursor)?;
        Ok(Self { epoch, seq: Seq(seq) })
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        let cursor = Cursor { epoch: Epoch::try_new("k3v9q2").unwrap(), seq: Seq(412) };
        assert_eq!(cursor.to_string(), "k3v9q2-412");
        assert_eq!("k3v9q2-412".parse(), Ok(cursor));
    }

    #[test]
    fn at_either_end_there_is_no_sequence_number_beyond() {
        assert_eq!((Seq::LAST.next(), Seq::LAST.previous()), (Seq::LAST, Seq(u64::MAX - 1)));
        assert_eq!((Seq::NONE.previous(), Seq::NONE.next()), (Seq::NONE, Seq(1)));
        let last: Cursor = "e-18446744073709551615".parse().unwrap();
        assert_eq!(last.seq, Seq::LAST);
        for (from, later, missing) in
            [(0, 1, 0), (0, 0, 0), (5, 9, 3), (9, 5, 0), (0, u64::MAX, u64::MAX - 1), (u64::MAX, 0, 0)]
        {
            assert_eq!(Seq(from).missing_before(Seq(later)), missing, "{from} to {later}");
        }
    }

    #[test]
    fn other_texts_are_not_cursors() {
        let long = format!("a-{}", "1".repeat(80));
        for text in [
            "",
            "-",
            "a",
            "a-",
            "-1",
            "A-1",
            "a-01",
            "a--1",
            "a-+1",
            "a-1 ",
            " a-1",
            "a-1-2",
            "é-1",
            "a-1\n",
            "a-99999999999999999999",
            "abcdefghijklmnopq-1",
            long.as_str(),
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(BadCursor), "{text:?}");
        }
    }
}
