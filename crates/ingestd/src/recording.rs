//! Whether visits are recorded, and if not, why. One state, several reasons: recording resumes with the end of the last.
//!
//! ```text
//! pause(reason) ─► no visit begins (limiter); with AllWrites, what is under way waits too (recorder)
//!               ─► one WARN line, the metric, heartbeats of the wire ─► /ready and the page, /watch ─► the doctor
//! resume(reason) ─► one INFO line; without another reason, visits begin again
//! ```
//!
//! Nothing here waits: it is called from any thread.

use std::sync::Arc;

use control::black_box::BlackBoxEvent;
use daemon::{Clock, black_box};
use news::{RecordingPause, RecordingPauseReason, Timestamp};
use tokio::sync::watch;

use crate::status::metrics::IngestMetrics;

/// What a pause keeps from happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PausedWork {
    /// No visit begins. What visits under way have found is recorded, and so are an operator's orders.
    NewVisits,
    /// Nothing is written to the store: visits under way wait with what they have found.
    AllWrites,
}

/// Why recording is paused, and what that keeps from happening.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ActivePause {
    pause: RecordingPause,
    work: PausedWork,
}

/// The reasons in effect, in the order of the enum; none while visits are recorded.
type ActivePauses = Vec<ActivePause>;

/// Whether visits are recorded. Cheap to clone; all clones are one state.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    active: Arc<watch::Sender<ActivePauses>>,
    clock: Clock,
    metrics: IngestMetrics,
}

impl Recording {
    /// Not paused.
    pub(crate) fn new(clock: Clock, metrics: IngestMetrics) -> Self {
        Self { active: Arc::new(watch::channel(ActivePauses::new()).0), clock, metrics }
    }

    /// Pauses recording for this reason, or changes what its pause says and keeps from happening. `detail` is for the
    /// operator: the reason with its figures, then the remedy.
    pub(crate) fn pause(&self, reason: RecordingPauseReason, work: PausedWork, detail: String) {
        let since = Timestamp::from_millis(self.clock.now_millis());
        let mut began = false;
        self.active.send_if_modified(|active| {
            match active.iter_mut().find(|active| active.pause.reason == reason) {
                Some(before) if before.work == work && before.pause.detail == detail => return false,
                Some(before) => {
                    before.work = work;
                    before.pause.detail.clone_from(&detail);
                }
                None => {
                    let pause = RecordingPause { reason, since, detail: detail.clone() };
                    active.push(ActivePause { pause, work });
                    active.sort_by_key(|active| active.pause.reason);
                    began = true;
                }
            }
            true
        });
        if began {
            black_box::record(BlackBoxEvent::RecordingPaused { reason: reason.as_str().into() });
            self.metrics.recording_paused.get_or_create(&[("reason", reason.as_str())]).set(1);
            tracing::warn!(
                reason = reason.as_str(),
                why = detail,
                "recording paused; what is recorded is still served"
            );
        }
    }

    /// Ends the pause for this reason, if there is one.
    pub(crate) fn resume(&self, reason: RecordingPauseReason) {
        let mut ended = None;
        self.active.send_if_modified(|active| {
            let position = active.iter().position(|active| active.pause.reason == reason);
            ended = position.map(|position| active.remove(position));
            ended.is_some()
        });
        if let Some(ActivePause { pause, .. }) = ended {
            black_box::record(BlackBoxEvent::RecordingResumed { reason: reason.as_str().into() });
            self.metrics.recording_paused.get_or_create(&[("reason", reason.as_str())]).set(0);
            let lasted_s = Timestamp::from_millis(self.clock.now_millis()).since(pause.since).as_secs();
            match self.paused_by() {
                None => tracing::info!(reason = reason.as_str(), lasted_s, "recording resumed"),
                Some(_) => tracing::info!(
                    reason = reason.as_str(),
                    lasted_s,
                    "recording stays paused for another reason"
                ),
            }
        }
    }

    /// The reasons in effect; none while visits are recorded.
    pub(crate) fn pauses(&self) -> Vec<RecordingPause> {
        self.active.borrow().iter().map(|active| active.pause.clone()).collect()
    }

    /// Why no visit may begin.
    pub(crate) fn paused_by(&self) -> Option<RecordingPauseReason> {
        self.active.borrow().first().map(|active| active.pause.reason)
    }

    /// Whether this reason is in effect.
    pub(crate) fn is_paused_by(&self, reason: RecordingPauseReason) -> bool {
        self.active.borrow().iter().any(|active| active.pause.reason == reason)
    }

    /// Whether nothing may be written.
    pub(crate) fn holds_writes(&self) -> bool {
        self.active.borrow().iter().any(|active| active.work == PausedWork::AllWrites)
    }

    /// Why nothing may be written; `None` if something may.
    pub(crate) fn writes_held_by(&self) -> Option<RecordingPause> {
        let active = self.active.borrow();
        active.iter().find(|active| active.work == PausedWork::AllWrites).map(|active| active.pause.clone())
    }

    /// Completes when the store may be written to.
    pub(crate) async fn writable(&self) {
        let mut active = self.active.subscribe();
        let is_writable =
            |active: &ActivePauses| active.iter().all(|active| active.work != PausedWork::AllWrites);
        // The sender is in `self`.
        active.wait_for(is_writable).await.ok();
    }

    /// Calls `apply` with the reason why no visit may begin: now, and whenever it changes.
    pub(crate) async fn follow(self, mut apply: impl FnMut(Option<RecordingPauseReason>)) {
        let mut active = self.active.subscribe();
        loop {
            drop(active.borrow_and_update());
            apply(self.paused_by());
            if active.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use daemon::metrics::MetricsRegistry;
    use futures_util::FutureExt as _;

    use super::{PausedWork::*, RecordingPauseReason::*, *};

    /// A state that is not paused, of no daemon.
    pub(crate) fn recording() -> Recording {
        Recording::new(Clock::system(), IngestMetrics::register(&MetricsRegistry::new()))
    }

    #[test]
    fn recording_resumes_with_the_end_of_the_last_reason() {
        let recording = recording();
        let reasons =
            || recording.pauses().into_iter().map(|pause| (pause.reason, pause.detail)).collect::<Vec<_>>();
        let paused = |reason: RecordingPauseReason| {
            recording.metrics.recording_paused.get_or_create(&[("reason", reason.as_str())]).get()
        };
        assert_eq!((recording.paused_by(), reasons()), (None, vec![]));
        recording.pause(LogBehind, NewVisits, "at 412".into());
        recording.pause(DiskSpace, NewVisits, "3 left".into());
        recording.pause(DiskSpace, NewVisits, "2 left".into());
        assert_eq!(reasons(), [(DiskSpace, "2 left".to_owned()), (LogBehind, "at 412".to_owned())]);
        assert_eq!((paused(DiskSpace), paused(DiskInodes), paused(LogBehind)), (1, 0, 1));
        recording.resume(DiskInodes);
        recording.resume(DiskSpace);
        assert_eq!((recording.paused_by(), paused(DiskSpace)), (Some(LogBehind), 0));
        recording.resume(LogBehind);
        assert_eq!((recording.paused_by(), reasons(), paused(LogBehind)), (None, vec![], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_keeps_its_beginning_while_its_figures_change() {
        let metrics = IngestMetrics::register(&MetricsRegistry::new());
        let recording = Recording::new(Clock::from_tokio(1_000), metrics);
        recording.pause(DiskSpace, NewVisits, "3 left".into());
        tokio::time::advance(std::time::Duration::from_secs(8)).await;
        recording.pause(DiskSpace, AllWrites, "2 left".into());
        assert_eq!(recording.pauses()[0].since, Timestamp::from_millis(1_000));
    }

    #[tokio::test]
    async fn writes_wait_while_one_reason_holds_them() {
        let recording = recording();
        assert!(recording.writable().now_or_never().is_some());
        recording.pause(DiskSpace, NewVisits, "3 left".into());
        assert!(recording.writable().now_or_never().is_some(), "visits under way are recorded");
        recording.pause(DiskSpace, AllWrites, "1 left".into());
        let held = recording.clone();
        let mut waits = tokio::spawn(async move { held.writable().await });
        tokio::task::yield_now().await;
        assert!(recording.holds_writes() && (&mut waits).now_or_never().is_none());
        recording.pause(DiskSpace, NewVisits, "3 left".into());
        waits.await.unwrap();
    }

    #[tokio::test]
    async fn a_follower_is_told_the_state_and_each_change() {
        let recording = recording();
        recording.pause(DiskSpace, NewVisits, "3 left".into());
        let (told, mut seen) = tokio::sync::mpsc::channel(4);
        let follower = tokio::spawn(recording.clone().follow(move |reason| told.try_send(reason).unwrap()));
        assert_eq!(seen.recv().await, Some(Some(DiskSpace)));
        recording.resume(DiskSpace);
        assert_eq!(seen.recv().await, Some(None));
        follower.abort();
    }
}
