//! What clients had received when something happened to the store.

use std::collections::BTreeMap;

use super::record::{DiskRecord, DiskStep};
use crate::RecordedEvent;

/// An event as a client received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnnouncedEvent {
    /// `item` or `update`.
    pub(super) kind: String,
    /// Its JSON, byte by byte.
    pub(super) data: String,
}

impl AnnouncedEvent {
    /// Source and guid.
    pub(super) fn item(&self) -> (String, String) {
        let json: serde_json::Value = serde_json::from_str(&self.data).unwrap_or_default();
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        (text("source"), text("guid"))
    }
}

/// The events of one log that clients have received.
#[derive(Clone, Debug, Default)]
pub(super) struct AnnouncedEvents {
    /// Empty if nothing was received.
    pub(super) epoch: String,
    /// By sequence number.
    pub(super) events: BTreeMap<u64, AnnouncedEvent>,
}

impl AnnouncedEvents {
    /// Reads what a subscriber of the wire recorded.
    pub(super) fn of(records: &[RecordedEvent]) -> anyhow::Result<Self> {
        let mut announced = Self::default();
        for record in records {
            let message = &record.message;
            if !matches!(message.event.as_str(), "item" | "update") {
                continue;
            }
            let id = message.last_event_id.split_once('-');
            let parsed = id.and_then(|(epoch, seq)| Some((epoch, seq.parse().ok()?)));
            let Some((epoch, seq)) = parsed else {
                anyhow::bail!("an event with the id {:?}", message.last_event_id)
            };
            anyhow::ensure!(
                announced.epoch.is_empty() || announced.epoch == epoch,
                "events of the epochs {} and {epoch}",
                announced.epoch
            );
            epoch.clone_into(&mut announced.epoch);
            let event = AnnouncedEvent { kind: message.event.clone(), data: message.data.clone() };
            let before = announced.events.insert(seq, event.clone());
            anyhow::ensure!(before.is_none_or(|e| e == event), "the event {seq} came with other bytes");
        }
        Ok(announced)
    }

    /// Those that `keep` selects by their sequence number.
    pub(super) fn only(&self, keep: impl Fn(u64) -> bool) -> Self {
        let kept = self.events.iter().filter(|(seq, _)| keep(**seq));
        let events: BTreeMap<_, _> = kept.map(|(seq, event)| (*seq, event.clone())).collect();
        Self { epoch: if events.is_empty() { String::new() } else { self.epoch.clone() }, events }
    }
}

/// The step of the record at which each id was first sent to a socket.
pub(super) fn sent_ids(record: &DiskRecord) -> BTreeMap<String, usize> {
    let mut sent = BTreeMap::new();
    for (index, step) in record.steps.iter().enumerate() {
        let DiskStep::Send { data } = step else { continue };
        for line in record.data(data).split(|byte| *byte == b'\n') {
            let id = line.strip_prefix(b"id:").and_then(|id| std::str::from_utf8(id).ok());
            if let Some(id) = id {
                sent.entry(id.trim().to_owned()).or_insert(index);
            }
        }
    }
    sent
}
