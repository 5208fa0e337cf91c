//! Hashes of 64 bits that are stored: the same for ever, on every machine.

use sha2::{Digest as _, Sha256};

/// The first 64 bits of the SHA-256 of these bytes, little-endian.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    hash_prefix(&Sha256::digest(bytes).into())
}

/// The first 64 bits of a SHA-256 digest, little-endian.
#[must_use]
pub fn hash_prefix(digest: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_hash_never_changes() {
        // The SHA-256 of nothing begins with e3b0c44298fc1c14.
        assert_eq!(stable_hash(b""), 0x141c_fc98_42c4_b0e3);
    }
}
