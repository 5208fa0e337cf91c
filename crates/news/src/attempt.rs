//! The last visits of a source, in short, as shown in its status.

use serde::{Deserialize, Serialize};

use crate::{FailureClass, Timestamp, VisitStatus};

/// One finished visit. 40 bytes, without texts, because every source keeps ten of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub at: Timestamp,
    /// How it ended.
    pub status: VisitStatus,
    /// The HTTP status, if a server answered.
    pub code: Option<u16>,
    /// Duration in milliseconds.
    pub took_ms: u32,
    /// Bytes of the decoded body.
    pub body_bytes: u32,
    /// Items recorded as new.
    pub new: u32,
    /// Items recorded as updates.
    pub updated: u32,
    /// Why it failed, if it did.
    pub class: Option<FailureClass>,
}

impl Attempt {
    /// Number of attempts kept per source.
    pub const KEPT: usize = 10;

    /// Adds the newest and removes the oldest beyond the limit.
    pub fn push(attempts: &mut Vec<Self>, attempt: Self) {
        while attempts.len() >= Self::KEPT {
            attempts.remove(0);
        }
        attempts.reserve_exact(1);
        attempts.push(attempt);
    }
}

/// Attempts as rows without field names, for the store and the wire: for 100,000 sources the names would be 60 MB.
pub(crate) mod rows {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Attempt;
    use crate::{FailureClass, Timestamp, VisitStatus};

    type Row = (i64, VisitStatus, Option<u16>, u32, u32, u32, u32, Option<FailureClass>);

    pub(crate) fn serialize<S: Serializer>(attempts: &[Attempt], serializer: S) -> Result<S::Ok, S::Error> {
        let row = |a: &Attempt| -> Row {
            (a.at.millis(), a.status, a.code, a.took_ms, a.body_bytes, a.new, a.updated, a.class)
        };
        serializer.collect_seq(attempts.iter().map(row))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Attempt>, D::Error> {
        let rows = Vec::<Row>::deserialize(deserializer)?;
        let attempt = |(at, status, code, took_ms, body_bytes, new, updated, class)| {
            let at = Timestamp::from_millis(at);
            Attempt { at, status, code, took_ms, body_bytes, new, updated, class }
        };
        Ok(rows.into_iter().map(attempt).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceState;

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
        let state = SourceState { attempts: attempts.clone(), ..SourceState::default() };
        let json = serde_json::to_string(&state).unwrap();
        assert!(json.contains(r#"[24,"new",200,1,2,3,4,null]"#), "{json}");
        assert_eq!(serde_json::from_str::<SourceState>(&json).unwrap(), state);
        assert!(attempts.capacity() * size_of::<Attempt>() <= 400, "{}", size_of::<Attempt>());
    }
}
