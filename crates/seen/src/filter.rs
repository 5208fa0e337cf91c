//! Which of many entries may have one of a few values: a document of 50 items against tens of thousands of entries.

/// Bits of a filter. A document of 1,000 items sets a tenth of them.
const BITS: usize = 1 << 16;

/// A set of values that is asked before a hash map, in a fifth of the time: it may have what was not added.
#[derive(Debug)]
pub(crate) struct ValueFilter {
    words: Vec<u64>,
}

impl ValueFilter {
    pub(crate) fn of(values: impl IntoIterator<Item = u64>) -> Self {
        let mut words = vec![0; BITS / 64];
        for value in values {
            let (word, bit) = place(value);
            words[word] |= bit;
        }
        Self { words }
    }

    /// Whether the value was added; sometimes also if it was not.
    pub(crate) fn may_have(&self, value: u64) -> bool {
        let (word, bit) = place(value);
        self.words[word] & bit != 0
    }
}

fn place(value: u64) -> (usize, u64) {
    let hash = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [.., low, high] = hash.to_le_bytes();
    let n = usize::from(u16::from_le_bytes([low, high]));
    (n / 64, 1 << (n % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_and_hardly_anything_else() {
        let hash = |n: u64| news::stable_hash(&n.to_le_bytes());
        let filter = ValueFilter::of((0..1000).map(hash));
        assert!((0..1000).all(|n| filter.may_have(hash(n))));
        let others = (1000..11_000).filter(|n| filter.may_have(hash(*n))).count();
        assert!(others < 300, "{others} of 10,000");
    }
}
