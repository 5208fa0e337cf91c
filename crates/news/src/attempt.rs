//! The last visits of a source, as short as they can be told: what its status shows besides the totals.

use serde::{Deserialize, Serialize};

use crate::{FailureClass, Timestamp, VisitStatus};

/// One visit that ended. 40 bytes; no text, because every source keeps ten of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub status: VisitStatus,
    /// The HTTP status, if a server answered.
    pub code: Option<u16>,
    /// Milliseconds that it took.
    pub took_ms: u32,
    /// Bytes of its body, decoded.
    pub body_bytes: u32,
    /// Items recorded as new.
    pub new: u32,
    /// Items recorded as updates.
    pub updated: u32,
    /// Why there was no feed.
    pub class: Option<FailureClass>,
}

impl Attempt {
    /// How many are kept of a source.
    pub const KEPT: usize = 10;

    /// Adds the newest; the oldest makes room.
    pub fn push(attempts: &mut Vec<Self>, attempt: Self) {
        while attempts.len() >= Self::KEPT {
            attempts.remove(0);
        }
        attempts.reserve_exact(1);
        attempts.push(attempt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ten_are_kept_and_are_small() {
        let mut attempts = Vec::new();
        for n in 0..25 {
            let at = Timestamp::from_millis(n);
            let status = VisitStatus::New;
            let (code, took_ms, body_bytes) = (Some(200), 1, 2);
            let attempt = Attempt { at, status, code, took_ms, body_bytes, new: 3, updated: 4, class: None };
            Attempt::push(&mut attempts, attempt);
        }
        let times: Vec<_> = attempts.iter().map(|a| a.at.millis()).collect();
        assert_eq!(times, (15..25).collect::<Vec<_>>());
        assert!(attempts.capacity() * size_of::<Attempt>() <= 400, "{}", size_of::<Attempt>());
    }
}
