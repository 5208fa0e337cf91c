//! Pauses of sources that the operator's tool is about to list: they count before the first visits of these sources.

use std::{collections::HashMap, time::Duration};

use news::{Catalogue, Pause, SourceId};
use tokio::time::Instant;

/// How long a pause is kept for a source that is not listed. The tool waits a minute for other reloads at most.
const KEPT_FOR: Duration = Duration::from_secs(180);

/// Pauses without a source so far; at most as many as a catalogue has sources.
#[derive(Default)]
pub(super) struct ComingPauses(HashMap<SourceId, (Pause, Instant)>);

impl ComingPauses {
    /// Keeps a pause for these sources, instead of an earlier one. Ids that no source can have are ignored.
    pub(super) fn keep(&mut self, ids: &[String], pause: &Pause) {
        let until = Instant::now() + KEPT_FOR;
        for id in ids.iter().filter_map(|id| SourceId::try_new(id).ok()) {
            if self.0.len() < Catalogue::SOURCES_MAX || self.0.contains_key(&id) {
                self.0.insert(id, (pause.clone(), until));
            }
        }
    }

    /// The pause of a source that starts.
    pub(super) fn take(&mut self, id: &SourceId) -> Option<Pause> {
        let (pause, until) = self.0.remove(id)?;
        (Instant::now() < until).then_some(pause)
    }

    /// Forgets those of sources that were not listed in time.
    pub(super) fn remove_expired(&mut self) {
        let now = Instant::now();
        self.0.retain(|_, (_, until)| now < *until);
    }
}

#[cfg(test)]
mod tests {
    use news::Timestamp;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_kept_once_and_for_three_minutes() {
        let mut pauses = ComingPauses::default();
        let pause = Pause { since: Timestamp::from_millis(0), until: None, reason: None };
        let ids = ["a", "b", "c", "no id"].map(str::to_owned);
        let id = |id: &str| SourceId::try_new(id).unwrap();
        pauses.keep(&ids, &pause);
        assert_eq!(pauses.take(&id("a")), Some(pause));
        assert_eq!(pauses.take(&id("a")), None);
        tokio::time::advance(KEPT_FOR).await;
        assert_eq!(pauses.take(&id("b")), None, "it is too late");
        pauses.remove_expired();
        assert!(pauses.0.is_empty());
    }
}
