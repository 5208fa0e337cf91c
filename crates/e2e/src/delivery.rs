//! The oracle of delivery: compares what was published with what one subscriber received.

use std::collections::{BTreeMap, HashMap};

use crate::RecordedEvent;

/// The guids of each source, in the order of publication.
pub type Published = BTreeMap<String, Vec<String>>;

/// Faults that are listed; further ones are only counted.
const FAULTS_SHOWN: usize = 20;

/// Checks that `records` have each published item exactly once, those of one source in order of publication, with
/// ascending ids of one epoch, and neither other items nor gaps. Returns the violations; empty if there are none.
#[must_use]
pub fn faults(published: &Published, records: &[RecordedEvent]) -> Vec<String> {
    let mut seen = Observed::default();
    records.iter().for_each(|record| seen.record(record));
    let Observed { mut faults, times, order, .. } = seen;
    check_counts(published, &times, &mut faults);
    check_order(published, &order, &mut faults);
    let more = faults.len().saturating_sub(FAULTS_SHOWN);
    if more > 0 {
        faults.truncate(FAULTS_SHOWN);
        faults.push(format!("and {more} more"));
    }
    faults
}

/// What one subscriber received, aggregated.
#[derive(Default)]
struct Observed {
    /// How often each guid of each source arrived.
    times: HashMap<(String, String), usize>,
    /// The guids of each source in order of arrival.
    order: BTreeMap<String, Vec<String>>,
    /// Epoch and sequence number of the last item.
    last: Option<(String, u64)>,
    faults: Vec<String>,
}

impl Observed {
    fn record(&mut self, record: &RecordedEvent) {
        let RecordedEvent { connection, message, .. } = record;
        let json = record.json();
        match message.event.as_str() {
            "item" => self.item(record, &json),
            "stream" if matches!(json["resume"].as_str(), Some("live" | "exact")) => {}
            "source" | "refresh" | "live" => {}
            other => self.faults.push(format!("connection {connection}: `{other}`: {}", message.data)),
        }
    }

    fn item(&mut self, record: &RecordedEvent, json: &serde_json::Value) {
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        let (id, source, guid) = (text("id"), text("source"), text("guid"));
        if id != record.message.last_event_id {
            self.faults.push(format!("the item {id} came under the id {:?}", record.message.last_event_id));
        }
        let position =
            id.split_once('-').and_then(|(epoch, seq)| Some((epoch.to_owned(), seq.parse::<u64>().ok()?)));
        match (&self.last, &position) {
            (_, None) => self.faults.push(format!("an item with the id {id:?}")),
            (Some(last), Some(position)) if last.0 != position.0 || last.1 >= position.1 => {
                let after =
                    format!("{id} came after {}-{}, on connection {}", last.0, last.1, record.connection);
                self.faults.push(after);
            }
            _ => {}
        }
        self.last = position.or_else(|| self.last.take());
        *self.times.entry((source.clone(), guid.clone())).or_default() += 1;
        self.order.entry(source).or_default().push(guid);
    }
}

fn check_counts(published: &Published, times: &HashMap<(String, String), usize>, faults: &mut Vec<String>) {
    for (source, guids) in published {
        for guid in guids {
            match times.get(&(source.clone(), guid.clone())) {
                None => faults.push(format!("never seen: {guid} of {source}")),
                Some(1) => {}
                Some(n) => faults.push(format!("seen {n} times: {guid} of {source}")),
            }
        }
    }
    for (source, guid) in times.keys() {
        if !published.get(source).is_some_and(|guids| guids.contains(guid)) {
            faults.push(format!("never published: {guid} of {source}"));
        }
    }
}

fn check_order(published: &Published, order: &BTreeMap<String, Vec<String>>, faults: &mut Vec<String>) {
    for (source, guids) in order {
        let positions: HashMap<&str, usize> = published
            .get(source)
            .map(|known| known.iter().enumerate().map(|(n, guid)| (guid.as_str(), n)).collect())
            .unwrap_or_default();
        for pair in guids.windows(2) {
            if let (Some(a), Some(b)) = (positions.get(pair[0].as_str()), positions.get(pair[1].as_str()))
                && a > b
            {
                faults.push(format!("out of order: {} before {} of {source}", pair[0], pair[1]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::sse::Message;

    fn record(event: &str, id: &str, data: serde_json::Value) -> RecordedEvent {
        let message =
            Message { event: event.to_owned(), data: data.to_string(), last_event_id: id.to_owned() };
        RecordedEvent { connection: 0, at: Instant::now(), message }
    }

    fn item(seq: u64, source: &str, guid: &str) -> RecordedEvent {
        let id = format!("e-{seq}");
        record("item", &id, serde_json::json!({"id": id, "source": source, "guid": guid}))
    }

    fn published() -> Published {
        Published::from([("a".to_owned(), vec!["1".to_owned(), "2".to_owned()])])
    }

    fn first_fault(records: &[RecordedEvent]) -> String {
        faults(&published(), records).into_iter().next().unwrap_or_default()
    }

    #[test]
    fn each_item_once_in_order_has_no_faults() {
        let live = record("stream", "e-0", serde_json::json!({"resume": "exact"}));
        assert_eq!(faults(&published(), &[live, item(1, "a", "1"), item(5, "a", "2")]), [""; 0]);
    }

    #[test]
    fn every_kind_of_fault_is_reported() {
        assert_eq!(first_fault(&[item(1, "a", "1")]), "never seen: 2 of a");
        assert_eq!(
            first_fault(&[item(1, "a", "1"), item(2, "a", "2"), item(3, "a", "1")]),
            "seen 2 times: 1 of a"
        );
        assert_eq!(first_fault(&[item(1, "a", "2"), item(2, "a", "1")]), "out of order: 2 before 1 of a");
        assert_eq!(
            first_fault(&[item(2, "a", "1"), item(2, "a", "2")]),
            "e-2 came after e-2, on connection 0"
        );
        let stranger = [item(1, "a", "1"), item(2, "a", "2"), item(3, "b", "1")];
        assert_eq!(first_fault(&stranger), "never published: 1 of b");
        for (event, data) in
            [("gap", serde_json::json!({})), ("stream", serde_json::json!({"resume": "reset"}))]
        {
            let records = [item(1, "a", "1"), item(2, "a", "2"), record(event, "e-2", data)];
            assert!(first_fault(&records).contains("connection 0"), "{event}");
        }
    }
}
