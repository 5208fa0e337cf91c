//! The check of a client that moves between gateways: each item once under each epoch, those of a source in order, no id that
//! stands for two events.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::RecordedEvent;

/// Faults of one client that are kept until they are asked for.
const FAULTS_MAX: usize = 10;

/// What each id stands for, as all clients together have seen it.
#[derive(Debug, Default)]
pub(super) struct KnownIds {
    of: HashMap<String, HashMap<u64, u64>>,
}

impl KnownIds {
    fn note(&mut self, epoch: &str, seq: u64, data: &str) -> Result<(), String> {
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        let hash = hasher.finish();
        if !self.of.contains_key(epoch) {
            self.of.insert(epoch.to_owned(), HashMap::new());
        }
        let before = self.of.get_mut(epoch).and_then(|known| known.insert(seq, hash));
        match before {
            Some(before) if before != hash => Err(format!("{epoch}-{seq} was another event before")),
            _ => Ok(()),
        }
    }
}

/// What a client got, all numbers since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HopCounts {
    pub(super) delivered: usize,
    pub(super) doubled: usize,
    pub(super) resets: usize,
    pub(super) told_missing: usize,
}

impl HopCounts {
    pub(super) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.doubled += other.doubled;
        self.resets += other.resets;
        self.told_missing += other.told_missing;
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            delivered: self.delivered - before.delivered,
            doubled: self.doubled - before.doubled,
            resets: self.resets - before.resets,
            told_missing: self.told_missing - before.told_missing,
        }
    }
}

/// The check of one client. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct HopAudit {
    state: Arc<Mutex<HopState>>,
    known: Arc<Mutex<KnownIds>>,
}

#[derive(Debug, Default)]
struct HopState {
    epoch: Option<String>,
    last: u64,
    /// Numbers of the items under this epoch.
    of_epoch: HashSet<u64>,
    /// The last number of each source under this epoch.
    last_of: HashMap<String, u64>,
    /// Numbers of all items.
    seen: HashSet<u64>,
    counts: HopCounts,
    faults: Vec<String>,
}

impl HopAudit {
    pub(super) fn new(known: &Arc<Mutex<KnownIds>>) -> Self {
        Self { state: Arc::default(), known: Arc::clone(known) }
    }

    fn state(&self) -> MutexGuard<'_, HopState> {
        self.state.lock().expect("no thread panics while holding it")
    }

    pub(super) fn record(&self, record: &RecordedEvent) {
        let fault = match record.message.event.as_str() {
            "item" => self.item(record),
            "stream" => self.state().opened(record),
            "gap" => {
                let missed = record.json()["missed"].as_u64().and_then(|n| usize::try_from(n).ok());
                self.state().counts.told_missing += missed.unwrap_or(1);
                Err(format!("told of a gap: {}", record.message.data))
            }
            "live" | "source" | "refresh" | "heartbeat" => Ok(()),
            other => Err(format!("`{other}`: {}", record.message.data)),
        };
        if let Err(fault) = fault {
            self.state().fault(format!("connection {}: {fault}", record.connection));
        }
    }

    fn item(&self, record: &RecordedEvent) -> Result<(), String> {
        let json = record.json();
        let text = |name: &str| {
            json[name].as_str().map(str::to_owned).ok_or_else(|| format!("an item without {name}"))
        };
        let (id, source, guid) = (text("id")?, text("source")?, text("guid")?);
        let number = number_of(&guid).ok_or_else(|| format!("{guid} was never published"))?;
        let (epoch, seq) = id.split_once('-').ok_or_else(|| format!("an item with the id {id}"))?;
        let seq: u64 = seq.parse().map_err(|_| format!("an item with the id {id}"))?;
        if id != record.message.last_event_id {
            return Err(format!("the item {id} came under the id {:?}", record.message.last_event_id));
        }
        self.known.lock().expect("no thread panics while holding it").note(
            epoch,
            seq,
            &record.message.data,
        )?;
        self.state().item(epoch, seq, source, number)
    }

    /// The published numbers that the client has not got.
    pub(super) fn missing(&self, published: &HashSet<u64>) -> Vec<u64> {
        let state = self.state();
        let mut missing: Vec<u64> =
            published.iter().filter(|number| !state.seen.contains(number)).copied().collect();
        missing.sort_unstable();
        missing
    }

    /// The counts so far, and the faults since this was last asked.
    pub(super) fn take(&self) -> (HopCounts, Vec<String>) {
        let mut state = self.state();
        (state.counts, std::mem::take(&mut state.faults))
    }
}

impl HopState {
    fn opened(&mut self, record: &RecordedEvent) -> Result<(), String> {
        let json = record.json();
        match json["resume"].as_str() {
            Some("exact") => Ok(()),
            Some("live") if self.epoch.is_none() => Ok(()),
            Some("reset") => {
                self.counts.resets += 1;
                self.epoch = None;
                self.last = 0;
                self.of_epoch.clear();
                self.last_of.clear();
                Ok(())
            }
            Some("gap") => {
                let missed = json["missed"].as_u64().and_then(|n| usize::try_from(n).ok());
                self.counts.told_missing += missed.unwrap_or(1);
                Err(format!("resumed with a gap: {}", record.message.data))
            }
            _ => Err(format!("the stream began with {}", record.message.data)),
        }
    }

    fn item(&mut self, epoch: &str, seq: u64, source: String, number: u64) -> Result<(), String> {
        self.counts.delivered += 1;
        self.seen.insert(number);
        match &self.epoch {
            Some(known) if known != epoch => {
                let text = format!("{epoch}-{seq} came after {known}-{} without a reset", self.last);
                (self.epoch, self.last) = (Some(epoch.to_owned()), seq);
                return Err(text);
            }
            Some(_) if seq <= self.last => return Err(format!("{epoch}-{seq} came after {}", self.last)),
            Some(_) => {}
            None => self.epoch = Some(epoch.to_owned()),
        }
        self.last = seq;
        if !self.of_epoch.insert(number) {
            self.counts.doubled += 1;
            return Err(format!("number {number} of {source} came again, as {epoch}-{seq}"));
        }
        let before = self.last_of.insert(source.clone(), number);
        match before.filter(|before| *before > number) {
            Some(before) => Err(format!("number {before} of {source} came before {number}")),
            None => Ok(()),
        }
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

/// The number in a guid of the origin, which no two items share.
pub(super) fn number_of(guid: &str) -> Option<u64> {
    guid.strip_prefix("urn:newswire-test:")?.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::sse::Message;

    fn event(event: &str, id: &str, data: &Value) -> RecordedEvent {
        let message =
            Message { event: event.to_owned(), data: data.to_string(), last_event_id: id.to_owned() };
        RecordedEvent { connection: 0, at: Instant::now(), message }
    }

    fn item(epoch: &str, seq: u64, number: u64) -> RecordedEvent {
        let (id, guid) = (format!("{epoch}-{seq}"), format!("urn:newswire-test:feed-1:{number}"));
        event("item", &id, &json!({ "id": id, "source": "feed-1", "guid": guid }))
    }

    fn opened(resume: &str) -> RecordedEvent {
        event("stream", "e-1", &json!({ "resume": resume, "missed": 3 }))
    }

    fn found(records: &[RecordedEvent]) -> (HopCounts, Vec<String>) {
        let audit = HopAudit::new(&Arc::default());
        records.iter().for_each(|record| audit.record(record));
        audit.take()
    }

    #[test]
    fn everything_again_after_a_reset_is_no_fault() {
        let records = [
            opened("live"),
            item("e", 1, 1),
            item("e", 4, 2),
            opened("exact"),
            item("e", 5, 3),
            opened("reset"),
            item("f", 9, 1),
            item("f", 10, 2),
        ];
        let (counts, faults) = found(&records);
        assert_eq!((counts.delivered, counts.resets, counts.doubled, faults), (5, 1, 0, vec![]));
    }

    #[test]
    fn every_kind_of_fault_is_found() {
        let doubled = found(&[item("e", 1, 1), item("e", 2, 1)]);
        assert_eq!((doubled.0.doubled, doubled.1.len()), (1, 1), "{doubled:?}");
        for records in [
            [item("e", 2, 1), item("e", 1, 2)],
            [item("e", 1, 1), item("f", 2, 2)],
            [item("e", 1, 2), item("e", 2, 1)],
            [item("e", 1, 1), opened("gap")],
            [item("e", 1, 1), event("gap", "", &json!({ "missed": 2 }))],
            [item("e", 1, 1), opened("live")],
        ] {
            assert_eq!(found(&records).1.len(), 1, "{records:?}");
        }
        let audit = HopAudit::new(&Arc::default());
        audit.record(&item("e", 1, 1));
        assert_eq!(audit.missing(&[1, 2].into()), [2]);
    }

    #[test]
    fn an_id_that_stands_for_two_events_is_found_by_another_client() {
        let known = Arc::default();
        let clients = [HopAudit::new(&known), HopAudit::new(&known)];
        clients[0].record(&item("e", 1, 1));
        clients[1].record(&item("e", 1, 2));
        assert_eq!(clients[1].take().1, ["connection 0: e-1 was another event before"]);
    }
}
