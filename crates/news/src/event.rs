//! An event: an item that was new or had changed, with its id in the log.

use serde::{Deserialize, Serialize};

use crate::{Cursor, Item, Source, SourceId, Timestamp};

/// What happened to the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// Its key was new.
    Item,
    /// Its key was known and its content has changed. The earlier event stays unchanged.
    Update,
}

impl EventKind {
    /// The name of the SSE event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Item => "item",
            Self::Update => "update",
        }
    }
}

/// One entry of the log. Its JSON is the `data:` of `item` and `update` events and the response of `/news/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Epoch and sequence number.
    pub id: Cursor,
    /// Item or update.
    pub kind: EventKind,
    /// From the catalogue.
    pub source: SourceId,
    /// From the catalogue, as it was when the event was recorded.
    pub source_name: String,
    /// From the catalogue.
    pub category: String,
    /// From the catalogue: ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// From the catalogue.
    pub tags: Vec<String>,
    /// When an item with this key was first seen.
    pub first_seen: Timestamp,
    /// The item of the feed.
    #[serde(flatten)]
    pub item: Item,
}

impl Event {
    /// An event for an item of a source.
    #[must_use]
    pub fn new(id: Cursor, kind: EventKind, source: &Source, first_seen: Timestamp, item: Item) -> Self {
        Self {
            id,
            kind,
            source: source.id.clone(),
            source_name: source.name.clone(),
            category: source.category.clone(),
            country: source.country.clone(),
            tags: source.tags.clone(),
            first_seen,
            item,
        }
    }

    /// The JSON form, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("every field of an event has a JSON form")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, FeedUrl, Seq};

    #[test]
    fn the_json_of_an_event_has_every_field_of_the_contract() {
        let source = Source::new(
            SourceId::try_new("bbc").unwrap(),
            FeedUrl::try_new("https://example.org/feed").unwrap(),
        );
        let id = Cursor { epoch: Epoch::try_new("k3v9q2").unwrap(), seq: Seq(412) };
        let event = Event::new(id, EventKind::Item, &source, Timestamp::from_millis(0), Item::default());
        let value: serde_json::Value = serde_json::from_str(&event.to_json()).unwrap();
        let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys.join(" "),
            "authors categories category comments content_html country enclosures first_seen guid id image key kind \
             language link published source source_name summary tags title updated warnings"
        );
        assert_eq!(value["id"], "k3v9q2-412");
        assert!(value["published"].is_null());
        assert_eq!(serde_json::from_str::<Event>(&event.to_json()).unwrap(), event);
    }
}
