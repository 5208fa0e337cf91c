//! The oracle of long runs: checks what one stream delivers as it arrives, and keeps a number for each item instead of the
//! item. [`crate::faults`] does the same for short runs, from all that was received.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{Published, RecordedEvent};

/// Faults that are listed; further ones are only counted.
const FAULTS_SHOWN: usize = 20;

/// What the sequence numbers of one log stand for, as all streams together have seen it: a number that stands for another
/// event later was given out twice.
#[derive(Debug, Default)]
pub struct KnownEvents {
    epoch: Option<String>,
    events: BTreeMap<u64, KnownEvent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KnownEvent {
    hash: u64,
    bytes: u64,
}

impl KnownEvents {
    /// Bytes of the events from this one on, as JSON.
    #[must_use]
    pub fn bytes_from(&self, oldest: u64) -> u64 {
        self.events.range(oldest..).map(|(_, event)| event.bytes).sum()
    }

    /// The newest event that a stream has had.
    #[must_use]
    pub fn newest(&self) -> Option<u64> {
        self.events.last_key_value().map(|(seq, _)| *seq)
    }

    fn note(&mut self, epoch: &str, seq: u64, data: &str) -> Result<(), String> {
        let known = self.epoch.get_or_insert_with(|| epoch.to_owned());
        if known != epoch {
            return Err(format!("the epoch was {known} and is {epoch}"));
        }
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        let event = KnownEvent { hash: hasher.finish(), bytes: data.len() as u64 };
        match self.events.insert(seq, event) {
            Some(before) if before != event => Err(format!("{epoch}-{seq} was another event before")),
            _ => Ok(()),
        }
    }
}

/// What was delivered of what was published.
#[derive(Clone, Debug, Default)]
pub struct DeliveryTotals {
    /// Items that were received, each counted once.
    pub delivered: usize,
    /// Items that were published and never received.
    pub lost: usize,
    /// Items that were received again.
    pub doubled: usize,
    /// Everything that is wrong, in words; empty if nothing is.
    pub faults: Vec<String>,
}

/// The check of one stream. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StreamAudit {
    state: Arc<Mutex<AuditState>>,
    known: Arc<Mutex<KnownEvents>>,
}

#[derive(Debug, Default)]
struct AuditState {
    /// The numbers of the items of each source, in order of arrival.
    received: BTreeMap<String, Vec<u64>>,
    /// The sequence number of the last item.
    last: Option<u64>,
    /// How the last connection began.
    opened: String,
    /// The only source that the stream is of; `None`: it has all events, without holes.
    source: Option<String>,
    faults: Vec<String>,
    faults_more: usize,
}

impl StreamAudit {
    /// Of a stream with all events, or with those of one source.
    #[must_use]
    pub fn new(source: Option<&str>, known: &Arc<Mutex<KnownEvents>>) -> Self {
        let state = AuditState { source: source.map(str::to_owned), ..AuditState::default() };
        Self { state: Arc::new(Mutex::new(state)), known: Arc::clone(known) }
    }

    fn state(&self) -> MutexGuard<'_, AuditState> {
        self.state.lock().expect("no thread panics while holding it")
    }

    /// Notes an event of the stream.
    pub fn record(&self, record: &RecordedEvent) {
        let message = &record.message;
        let fault = match message.event.as_str() {
            "item" => self.item(record).err(),
            "stream" => self.opened(record).err(),
            "source" | "refresh" | "live" => None,
            other => Some(format!("`{other}`: {}", message.data)),
        };
        if let Some(fault) = fault {
            self.state().fault(format!("connection {}: {fault}", record.connection));
        }
    }

    /// A client that has had an event before resumes exactly.
    fn opened(&self, record: &RecordedEvent) -> Result<(), String> {
        let mut state = self.state();
        state.opened.clone_from(&record.message.data);
        match (record.json()["resume"].as_str(), state.last) {
            (Some("exact"), _) | (Some("live"), None) => Ok(()),
            _ => Err(format!("the stream began with {}", record.message.data)),
        }
    }

    fn item(&self, record: &RecordedEvent) -> Result<(), String> {
        let RecordedEvent { message, .. } = record;
        let json = record.json();
        let text =
            |name: &str| json[name].as_str().map(str::to_owned).ok_or(format!("an item without {name}"));
        let (id, source, guid) = (text("id")?, text("source")?, text("guid")?);
        let number = number_of(&source, &guid).ok_or_else(|| format!("{guid} was never published"))?;
        let mut state = self.state();
        state.received.entry(source).or_default().push(number);
        if id != message.last_event_id {
            state.fault(format!("the item {id} came under the id {:?}", message.last_event_id));
        }
        let (epoch, seq) = id.split_once('-').ok_or_else(|| format!("an item with the id {id}"))?;
        let seq: u64 = seq.parse().map_err(|_| format!("an item with the id {id}"))?;
        if let Some(last) = state.last.replace(seq) {
            let is_next = if state.source.is_none() { seq == last + 1 } else { seq > last };
            if !is_next {
                let fault = format!(
                    "{id} came after {last}, on connection {}, which began with {}",
                    record.connection, state.opened
                );
                state.fault(fault);
            }
        }
        drop(state);
        self.known.lock().expect("no thread panics while holding it").note(epoch, seq, &message.data)
    }

    /// How many items of a source were received.
    #[must_use]
    pub fn received(&self, source: &str) -> usize {
        self.state().received.get(source).map_or(0, Vec::len)
    }

    /// Whether it has as many items as were published; [`StreamAudit::totals`] checks which ones.
    #[must_use]
    pub fn is_complete(&self, published: &Published) -> bool {
        let state = self.state();
        let count = |source: &String| state.received.get(source).map_or(0, Vec::len);
        published.iter().all(|(source, guids)| !state.has(source) || count(source) >= guids.len())
    }

    /// Compares everything received so far with everything published.
    #[must_use]
    pub fn totals(&self, published: &Published) -> DeliveryTotals {
        let state = self.state();
        let mut totals = DeliveryTotals { faults: state.faults.clone(), ..DeliveryTotals::default() };
        for (source, guids) in published.iter().filter(|(source, _)| state.has(source)) {
            let received = state.received.get(source).map_or(&[][..], Vec::as_slice);
            compare(source, guids, received, &mut totals);
        }
        let unknown = state.received.keys().filter(|source| !published.contains_key(*source));
        totals.faults.extend(unknown.map(|source| format!("items of {source}, which published nothing")));
        let more = state.faults_more + totals.faults.len().saturating_sub(FAULTS_SHOWN);
        if more > 0 {
            totals.faults.truncate(FAULTS_SHOWN);
            totals.faults.push(format!("and {more} more"));
        }
        totals
    }
}

impl AuditState {
    fn has(&self, source: &str) -> bool {
        self.source.as_deref().is_none_or(|only| only == source)
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_SHOWN {
            self.faults.push(fault);
        } else {
            self.faults_more += 1;
        }
    }
}

/// The number in a guid of the origin; `None` if the origin has made no such guid for this source.
fn number_of(source: &str, guid: &str) -> Option<u64> {
    guid.strip_prefix("urn:newswire-test:")?.strip_prefix(source)?.strip_prefix(':')?.parse().ok()
}

/// Each item once, in the order of publication.
fn compare(source: &str, published: &[String], received: &[u64], totals: &mut DeliveryTotals) {
    let mut times: HashMap<u64, usize> = HashMap::new();
    for number in received {
        *times.entry(*number).or_default() += 1;
    }
    for guid in published {
        match number_of(source, guid).and_then(|number| times.remove(&number)) {
            None => {
                totals.lost += 1;
                totals.faults.push(format!("never seen: {guid}"));
            }
            Some(count) => {
                totals.delivered += 1;
                totals.doubled += count - 1;
                if count > 1 {
                    totals.faults.push(format!("seen {count} times: {guid}"));
                }
            }
        }
    }
    totals.faults.extend(times.keys().map(|number| format!("never published: {number} of {source}")));
    let disorder = received.windows(2).filter(|pair| pair[0] > pair[1]);
    totals.faults.extend(disorder.map(|pair| format!("{} of {source} came before {}", pair[0], pair[1])));
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::time::Instant;

    use super::*;
    use crate::sse::Message;

    fn event(event: &str, id: &str, data: &Value) -> RecordedEvent {
        let message =
            Message { event: event.to_owned(), data: data.to_string(), last_event_id: id.to_owned() };
        RecordedEvent { connection: 0, at: Instant::now(), message }
    }

    fn item(seq: u64, source: &str, number: u64) -> RecordedEvent {
        let id = format!("e-{seq}");
        let guid = format!("urn:newswire-test:{source}:{number}");
        event("item", &id, &serde_json::json!({ "id": id, "source": source, "guid": guid }))
    }

    fn totals(source: Option<&str>, records: &[RecordedEvent]) -> DeliveryTotals {
        let audit = StreamAudit::new(source, &Arc::default());
        records.iter().for_each(|record| audit.record(record));
        let guids = |source: &str, numbers: &[u64]| {
            let guids = numbers.iter().map(|n| format!("urn:newswire-test:{source}:{n}")).collect();
            (source.to_owned(), guids)
        };
        let published = Published::from([guids("a", &[1, 3]), guids("b", &[2])]);
        assert_eq!(audit.is_complete(&published), records.len() >= if source.is_some() { 1 } else { 3 });
        audit.totals(&published)
    }

    #[test]
    fn each_item_once_and_in_order_is_no_fault() {
        let whole = totals(None, &[item(1, "a", 1), item(2, "b", 2), item(3, "a", 3)]);
        assert_eq!((whole.delivered, whole.lost, whole.doubled), (3, 0, 0));
        assert!(whole.faults.is_empty(), "{whole:?}");
        let part = totals(Some("b"), &[item(2, "b", 2)]);
        assert_eq!((part.delivered, part.faults.len()), (1, 0), "{part:?}");
    }

    #[test]
    fn every_kind_of_fault_is_found() {
        let lost = totals(None, &[item(1, "a", 1), item(2, "b", 2)]);
        assert_eq!((lost.delivered, lost.lost, lost.faults.len()), (2, 1, 1), "{lost:?}");
        let doubled = totals(None, &[item(1, "a", 1), item(2, "b", 2), item(3, "a", 3), item(4, "a", 3)]);
        assert_eq!((doubled.doubled, doubled.faults.len()), (1, 1), "{doubled:?}");
        let hole = totals(None, &[item(1, "a", 1), item(2, "b", 2), item(4, "a", 3)]);
        assert_eq!(hole.faults, ["e-4 came after 2, on connection 0, which began with "]);
        let disorder = totals(None, &[item(1, "a", 3), item(2, "b", 2), item(3, "a", 1)]);
        assert_eq!(disorder.faults, ["3 of a came before 1"]);
        let strange = totals(None, &[item(1, "a", 1), item(2, "b", 2), item(3, "a", 3), item(4, "b", 9)]);
        assert_eq!(strange.faults, ["never published: 9 of b"]);
        let gap = event("gap", "", &serde_json::json!({ "missed": 1 }));
        let told = totals(None, &[gap, item(1, "a", 1), item(2, "b", 2), item(3, "a", 3)]);
        assert_eq!(told.faults, ["connection 0: `gap`: {\"missed\":1}"]);
    }

    #[test]
    fn a_number_that_stands_for_two_events_is_found_by_another_stream() {
        let known = Arc::default();
        let (first, second) = (StreamAudit::new(None, &known), StreamAudit::new(None, &known));
        first.record(&item(1, "a", 1));
        second.record(&item(1, "a", 3));
        let published = Published::from([("a".to_owned(), vec!["urn:newswire-test:a:3".to_owned()])]);
        assert_eq!(second.totals(&published).faults, ["connection 0: e-1 was another event before"]);
        let known = known.lock().unwrap();
        assert_eq!(known.newest(), Some(1));
        assert!(known.bytes_from(1) > 0 && known.bytes_from(2) == 0);
    }
}
