//! A publisher and a writer in every order in which their steps can come: append, notify, subscribe, read, retention.
//!
//! The code under test is the real one. The log is a model, which takes some steps of the writer before each of its own
//! answers; every way to distribute them is run once.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test may block")]

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt as _;
use news::{Cursor, Epoch, EventKind, Seq};
use tokio::sync::{broadcast, watch};
use wire::{EventLog, LogBounds, LogError, LogEvent, LogPage, Publisher, StreamBlock};

/// What the writer does in one step.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The head of the log becomes this event.
    Append(u64),
    /// Readers are notified of the head.
    Notify,
    /// Retention removes what is before this event.
    Retain(u64),
}

/// Which steps come where: how many before each point, as far as it is decided.
#[derive(Default)]
struct Schedule {
    /// The decision at each point, and how many there were to choose from.
    decisions: Vec<(usize, usize)>,
    at: usize,
}

impl Schedule {
    /// How many of the `left` steps come here, `least` at least; the first way that was not taken before.
    fn decide(&mut self, least: usize, left: usize) -> usize {
        if self.at == self.decisions.len() {
            self.decisions.push((0, left - least));
        }
        let (decision, _) = self.decisions[self.at];
        self.at += 1;
        least + decision
    }

    /// The next schedule; false after the last one.
    fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((decision, last)) = self.decisions.pop() {
            if decision < last {
                self.decisions.push((decision + 1, last));
                return true;
            }
        }
        false
    }
}

struct Model {
    schedule: Schedule,
    steps: Vec<Step>,
    done: usize,
    head: u64,
    oldest: u64,
    damaged: Vec<u64>,
    head_changed: watch::Sender<Seq>,
}

impl Model {
    /// A point at which the writer may come in between.
    fn point(&mut self, least: usize) {
        let left = self.steps.len() - self.done;
        for _ in 0..self.schedule.decide(least.min(left), left) {
            match self.steps[self.done] {
                Step::Append(head) => self.head = head,
                Step::Notify => drop(self.head_changed.send_replace(Seq(self.head))),
                Step::Retain(oldest) => self.oldest = oldest,
            }
            self.done += 1;
        }
    }

    fn is_kept(&self, seq: u64) -> bool {
        (self.oldest..=self.head).contains(&seq) && !self.damaged.contains(&seq)
    }
}

/// The log, as the publisher reads it; each call begins and ends with a point.
struct ModelLog(Arc<Mutex<Model>>);

impl EventLog for ModelLog {
    fn bounds(&self) -> LogBounds {
        let mut model = self.0.lock().unwrap();
        model.point(0);
        let oldest = Seq(model.oldest);
        model.point(0);
        let bounds = LogBounds { epoch: Epoch::try_new("e").unwrap(), oldest, head: Seq(model.head) };
        model.point(0);
        bounds
    }

    fn page(&self, after: Seq, limit: usize, _: usize) -> Result<LogPage, LogError> {
        let mut model = self.0.lock().unwrap();
        model.point(0);
        let kept = (after.0 + 1..=model.head).filter(|seq| model.is_kept(*seq));
        let event = |seq| LogEvent { seq: Seq(seq), kind: EventKind::Item, json: "{}".into() };
        let events: Vec<_> = kept.take(limit.min(2)).map(event).collect();
        let missed = after.missing_before(events.first().map_or(Seq(model.head + 1), |event| event.seq));
        model.point(0);
        Ok(LogPage { events, missed })
    }
}

/// What a reader with this id was sent, until nothing more came although the writer had done everything.
async fn read(model: &Arc<Mutex<Model>>, requested: Option<&str>) -> Vec<StreamBlock> {
    let publisher = Publisher {
        recording_pauses: Arc::new(Vec::new),
        log: Arc::new(ModelLog(Arc::clone(model))),
        head_changed: model.lock().unwrap().head_changed.subscribe(),
        notices: broadcast::channel(4).0,
        aliases: tokio::sync::watch::channel(Arc::default()).1,
        heartbeat: Duration::from_secs(3600),
        server: "test".into(),
    };
    let mut stream = pin!(publisher.stream(requested, 1));
    let mut blocks = Vec::new();
    loop {
        // The clock stands still while the log is read: it goes on only if the publisher waits.
        match tokio::time::timeout(Duration::from_millis(1), stream.next()).await {
            Ok(block) => blocks.push(block.expect("the log does not fail")),
            Err(_) => {
                let mut model = model.lock().unwrap();
                if model.done == model.steps.len() {
                    return blocks;
                }
                model.point(1);
            }
        }
    }
}

/// Checks that every event after the start came once and in order, or is in a gap and really missing.
fn check(model: &Model, requested: Option<&str>, blocks: &[StreamBlock]) -> Result<(), String> {
    let opened: serde_json::Value = serde_json::from_str(&blocks[0].data).unwrap();
    let start = blocks[0].id.as_ref().ok_or("no id at the start")?.seq.0;
    let mut cursor = start;
    if let Some(id) = requested.map(|id| id.parse::<Cursor>().unwrap().seq.0) {
        let missed = opened["missed"].as_u64().ok_or("no count")?;
        if id + missed != start || (opened["resume"] == "exact") != (missed == 0) {
            return Err(format!("starts at {start} after {id}: {opened}"));
        }
        cursor = id;
        if missed > 0 {
            (id + 1..=start).try_for_each(|seq| lost(model, seq))?;
            cursor = start;
        }
    }
    for block in &blocks[1..] {
        let id = block.id.as_ref().ok_or("a block without an id")?.seq.0;
        match block.event {
            "item" if id == cursor + 1 => {}
            "gap" => {
                let gap: serde_json::Value = serde_json::from_str(&block.data).unwrap();
                if id != cursor + gap["missed"].as_u64().unwrap() || id == cursor {
                    return Err(format!("{gap} from {cursor} to {id}"));
                }
                (cursor + 1..=id).try_for_each(|seq| lost(model, seq))?;
            }
            event => return Err(format!("{event} {id} after {cursor}")),
        }
        cursor = id;
    }
    if cursor == model.head { Ok(()) } else { Err(format!("waits at {cursor}, the head is {}", model.head)) }
}

fn lost(model: &Model, seq: u64) -> Result<(), String> {
    if model.is_kept(seq) { Err(format!("event {seq} is there, and in a gap")) } else { Ok(()) }
}

/// Runs every schedule; returns how many there are.
fn explore(steps: &[Step], damaged: &[u64], requested: Option<&str>) -> usize {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (mut schedule, mut runs) = (Schedule::default(), 0);
    loop {
        let model = Model {
            schedule,
            steps: steps.to_vec(),
            done: 0,
            head: 2,
            oldest: 1,
            damaged: damaged.to_vec(),
            head_changed: watch::channel(Seq(2)).0,
        };
        let model = Arc::new(Mutex::new(model));
        let blocks = runtime.block_on(read(&model, requested));
        let mut model = model.lock().unwrap();
        let decisions = model.schedule.decisions.iter().map(|(decision, _)| *decision).collect::<Vec<_>>();
        if let Err(fault) = check(&model, requested, &blocks) {
            panic!("{fault}; steps before each point: {decisions:?}; {requested:?}, {blocks:#?}");
        }
        runs += 1;
        schedule = std::mem::take(&mut model.schedule);
        if !schedule.advance() {
            return runs;
        }
    }
}

#[test]
fn no_order_of_append_notify_and_subscribe_loses_or_repeats_an_event() {
    use Step::{Append, Notify};
    let steps = [Append(3), Notify, Append(4), Append(5), Notify];
    let runs: usize = [None, Some("e-0"), Some("e-2")].map(|id| explore(&steps, &[], id)).iter().sum();
    assert!(runs > 1000, "{runs} schedules");
}

#[test]
fn no_order_with_retention_and_damage_makes_a_gap_of_another_size_than_what_is_missing() {
    use Step::{Append, Notify, Retain};
    let mut runs = 0;
    for (steps, damaged) in [
        (&[Append(3), Notify, Retain(3), Append(5), Notify][..], &[][..]),
        (&[Append(4), Notify, Retain(2), Append(5), Notify], &[1, 3]),
        // All are gone, and the newest are damaged.
        (&[Append(4), Notify, Retain(5), Notify], &[]),
        (&[Append(6), Notify, Append(7), Notify], &[2, 5, 6]),
    ] {
        runs += explore(steps, damaged, Some("e-0"));
        runs += explore(steps, damaged, None);
    }
    assert!(runs > 1000, "{runs} schedules");
}
