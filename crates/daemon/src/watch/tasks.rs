//! Where long-lived tasks wait: a hang in which every thread is idle has no stack that shows it. Each such task says what it
//! waits for, and how much is queued for it.
//!
//! A wait is a static text and a time, written by the task itself for about 50 ns. A tree of all await points per task
//! (`await-tree`) was measured: 960 bytes for a task with three of them, which 100,000 sources cannot have, 3 µs per visit,
//! and locks that a stuck thread would hold. What the sources wait for is their activity, with its time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use control::watch::TaskWait;

use super::Watch;
use crate::work::coarse_ms;

/// Tasks in one report, the ones that have waited longest.
const TASKS_MAX: usize = 64;

/// How much is queued, and how much fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLength {
    /// What waits.
    pub queued: usize,
    /// How much can.
    pub capacity: usize,
}

impl QueueLength {
    /// Reads a bounded channel without keeping it open; empty once it is closed.
    pub fn of<T: Send + 'static>(
        queue: &tokio::sync::mpsc::Sender<T>,
    ) -> impl Fn() -> Self + Send + Sync + use<T> {
        // A strong handle would keep the channel open, and its receiver waiting.
        let (queue, capacity) = (queue.downgrade(), queue.max_capacity());
        move || {
            let free = queue.upgrade().map_or(capacity, |queue| queue.capacity());
            Self { queued: capacity - free, capacity }
        }
    }
}

/// Where a task is.
#[derive(Clone, Copy, Debug)]
struct AwaitPoint {
    /// `None` while it works.
    waits_for: Option<&'static str>,
    idle: bool,
    since_ms: u64,
}

type ReadQueue = dyn Fn() -> QueueLength + Send + Sync;

pub(super) struct TaskState {
    name: Arc<str>,
    queue: Option<Box<ReadQueue>>,
    /// Locked for assignments only.
    wait: Mutex<AwaitPoint>,
    /// How often it has begun to wait.
    steps: AtomicU64,
}

/// A task that says what it waits for, until this is dropped.
#[must_use = "the task is shown until this is dropped"]
pub struct WatchedTask {
    watch: Watch,
    state: Arc<TaskState>,
}

impl fmt::Debug for WatchedTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedTask").field("name", &self.state.name).finish_non_exhaustive()
    }
}

impl Drop for WatchedTask {
    fn drop(&mut self) {
        self.watch.tasks().retain(|other| !Arc::ptr_eq(other, &self.state));
    }
}

impl Watch {
    /// Shows a long-lived task in `/watch`. `queue` is what waits for it; it must not block.
    pub fn task(
        &self,
        name: impl Into<Arc<str>>,
        queue: Option<impl Fn() -> QueueLength + Send + Sync + 'static>,
    ) -> WatchedTask {
        let state = Arc::new(TaskState {
            name: name.into(),
            queue: queue.map(|read| Box::new(read) as Box<ReadQueue>),
            wait: Mutex::new(AwaitPoint { waits_for: None, idle: false, since_ms: coarse_ms() }),
            steps: AtomicU64::new(0),
        });
        self.tasks().push(Arc::clone(&state));
        WatchedTask { watch: self.clone(), state }
    }

    /// Where the tasks wait, the one that has waited longest first.
    pub(super) fn task_waits(&self) -> Vec<TaskWait> {
        let tasks = self.tasks().clone();
        let now = coarse_ms();
        let mut waits: Vec<_> = tasks.iter().map(|task| task.report(now)).collect();
        waits.sort_by_key(|wait| std::cmp::Reverse(wait.since_ms_ago));
        waits.truncate(TASKS_MAX);
        waits
    }
}

impl TaskState {
    fn set(&self, waits_for: Option<&'static str>, idle: bool) {
        let point = AwaitPoint { waits_for, idle, since_ms: coarse_ms() };
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = point;
        self.steps.fetch_add(1, Relaxed);
    }

    fn report(&self, now: u64) -> TaskWait {
        let queue = self.queue.as_ref().map(|read| read());
        let AwaitPoint { waits_for, idle, since_ms } =
            *self.wait.lock().unwrap_or_else(PoisonError::into_inner);
        TaskWait {
            name: self.name.to_string(),
            waits_for: waits_for.map(str::to_owned),
            idle,
            since_ms_ago: now.saturating_sub(since_ms),
            steps: self.steps.load(Relaxed),
            queued: queue.map(|queue| queue.queued as u64),
            capacity: queue.map(|queue| queue.capacity as u64),
        }
    }
}

impl WatchedTask {
    /// It waits for `what` from now on, which has a deadline.
    pub fn waits_for(&self, what: &'static str) {
        self.state.set(Some(what), false);
    }

    /// It has nothing to do from now on until `what` comes.
    pub fn idles_until(&self, what: &'static str) {
        self.state.set(Some(what), true);
    }

    /// It works from now on.
    pub fn works(&self) {
        self.state.set(None, false);
    }

    /// Completes with the result of `future`: `what` the task waits for, which has a deadline.
    pub async fn wait<F: Future>(&self, what: &'static str, future: F) -> F::Output {
        self.waits_for(what);
        let output = future.await;
        self.works();
        output
    }

    /// The same for what may never come.
    pub async fn idle<F: Future>(&self, what: &'static str, future: F) -> F::Output {
        self.idles_until(what);
        let output = future.await;
        self.works();
        output
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_task_shows_what_it_waits_for_and_how_much_is_queued_until_it_ends() {
        let watch = Watch::new();
        let (sender, mut queue) = mpsc::channel(4);
        let task = watch.task("replays", Some(QueueLength::of(&sender)));
        let shown = |watch: &Watch| {
            let TaskWait { waits_for, idle, steps, queued, capacity, .. } = watch.task_waits().remove(0);
            (waits_for, idle, steps, queued, capacity)
        };
        assert_eq!(shown(&watch), (None, false, 0, Some(0), Some(4)));
        sender.try_send(1).unwrap();
        task.waits_for("a slot");
        assert_eq!(shown(&watch), (Some("a slot".into()), false, 1, Some(1), Some(4)));
        assert_eq!(task.wait("a request", queue.recv()).await, Some(1));
        assert_eq!(shown(&watch), (None, false, 3, Some(0), Some(4)));
        task.idles_until("a request");
        assert_eq!(shown(&watch), (Some("a request".into()), true, 4, Some(0), Some(4)));
        drop(sender);
        assert_eq!(queue.recv().await, None, "it does not keep the channel open");
        drop(task);
        assert_eq!(watch.task_waits(), []);
    }

    #[test]
    fn the_tasks_that_have_waited_longest_are_shown_and_no_more_than_the_bound() {
        let watch = Watch::new();
        let none = None::<fn() -> QueueLength>;
        let tasks: Vec<_> = (0..TASKS_MAX + 3).map(|_| watch.task("task", none)).collect();
        let longest = &tasks[TASKS_MAX + 1];
        longest.waits_for("the disk");
        longest.state.wait.lock().unwrap().since_ms = 0;
        let waits = watch.task_waits();
        assert_eq!((waits.len(), waits[0].waits_for.as_deref()), (TASKS_MAX, Some("the disk")));
    }
}
