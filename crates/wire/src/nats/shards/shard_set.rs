//! A set of shards; as text `0-511,700`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::SHARDS;

const WORDS: usize = SHARDS as usize / 64;

/// A set of shards.
#[derive(Clone, PartialEq, Eq)]
pub struct ShardSet([u64; WORDS]);

/// A text that is not a set of shards.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a set of shards, such as `0-511,700` with numbers below 4096")]
pub struct BadShardSet(String);

impl ShardSet {
    /// Every shard.
    #[must_use]
    pub fn all() -> Self {
        Self([u64::MAX; WORDS])
    }

    /// Whether the set has a shard.
    #[must_use]
    pub fn contains(&self, shard: u16) -> bool {
        let (word, bit) = place(shard);
        self.0[word] & bit != 0
    }

    /// Adds a shard; one that does not exist is left out.
    pub fn add(&mut self, shard: u16) {
        if shard < SHARDS {
            let (word, bit) = place(shard);
            self.0[word] |= bit;
        }
    }

    /// Adds the shards of another set.
    pub fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own |= other);
    }

    /// Removes the shards of another set.
    pub fn remove_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own &= !other);
    }

    /// Keeps only what the other set has, too.
    pub fn keep_common(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own &= other);
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// How many it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The shards in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..SHARDS).filter(|shard| self.contains(*shard))
    }

    /// The first shards, at most so many.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        self.iter().take(count).collect()
    }
}

fn place(shard: u16) -> (usize, u64) {
    (usize::from(shard) / 64 % WORDS, 1 << (shard % 64))
}

impl Default for ShardSet {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl FromIterator<u16> for ShardSet {
    fn from_iter<I: IntoIterator<Item = u16>>(shards: I) -> Self {
        let mut set = Self::default();
        shards.into_iter().for_each(|shard| set.add(shard));
        set
    }
}

impl fmt::Display for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shards = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = shards.next() {
            let mut last = first;
            while let Some(next) = shards.next_if(|next| *next == last + 1) {
                last = next;
            }
            match first == last {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardSet({self})")
    }
}

impl FromStr for ShardSet {
    type Err = BadShardSet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadShardSet(text.to_owned());
        let number = |text: &str| text.parse().ok().filter(|shard| *shard < SHARDS).ok_or_else(bad);
        let mut set = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            (number(first)?..=number(last)?).for_each(|shard| set.add(shard));
        }
        Ok(set)
    }
}

impl Serialize for ShardSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ShardSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_read_from_its_text() {
        for text in ["", "0", "4095", "0-4095", "0-9,17,63-65,4000-4095"] {
            assert_eq!(text.parse::<ShardSet>().unwrap().to_string(), text);
        }
        for text in ["4096", "-1", "1-", "a", "1-4096", "70000"] {
            assert_eq!(text.parse::<ShardSet>(), Err(BadShardSet(text.to_owned())));
        }
        assert_eq!(ShardSet::all().len(), 4096);
        assert_eq!(ShardSet::all().first(2).to_string(), "0-1");
    }
}
