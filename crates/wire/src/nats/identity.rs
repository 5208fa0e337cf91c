//! When two events of different logs are the same for a reader.
//!
//! An `item` is the same as any event of the same key: its reader has that item. An `update` is the same as an event of the
//! same key, title and text, if the reader got it after the last event of our log for that key: a text that was changed and
//! changed back is told twice. Title and text are compared as an update is found: without markup, addresses and white space.
//! Never part of it: what each daemon has of its own, such as the id, `first_seen`, and what its list of sources says.

use std::borrow::Cow;

use news::stable_hash;
use serde::Deserialize;

/// What is compared, in 96 bits: enough for the events of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventIdentity {
    pub(super) key: u64,
    pub(super) content: u32,
}

#[derive(Deserialize)]
struct ComparedItem<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    title: Cow<'a, str>,
    #[serde(borrow)]
    summary: Cow<'a, str>,
    #[serde(borrow)]
    content_html: Option<Cow<'a, str>>,
}

impl EventIdentity {
    /// Of an event as JSON, with or without its id; `None` if it is not one.
    pub(super) fn of(json: &[u8]) -> Option<Self> {
        let item: ComparedItem<'_> = serde_json::from_slice(json).ok()?;
        let mut words = Vec::with_capacity(item.title.len() + item.summary.len());
        let mut add = |text: &str| {
            for word in text.split_whitespace().filter(|word| !word.contains("://")) {
                words.extend_from_slice(word.as_bytes());
            }
            words.push(0);
        };
        add(&item.title);
        match &item.content_html {
            // Of sanitised HTML, only a tag begins with `<`.
            Some(html) => add(&html
                .split('<')
                .map(|part| part.split_once('>').map_or(part, |(_, text)| text))
                .collect::<String>()),
            None => add(&item.summary),
        }
        let [a, b, c, d, ..] = stable_hash(&words).to_le_bytes();
        Some(Self { key: stable_hash(item.key.as_bytes()), content: u32::from_le_bytes([a, b, c, d]) })
    }
}

#[cfg(test)]
mod tests {
    use news::{Cursor, Event, EventKind, FeedUrl, Item, Source, SourceId, Timestamp};

    use super::*;

    fn json(first_seen: i64, item: Item) -> String {
        let mut source = Source::new(
            SourceId::try_new("bbc").unwrap(),
            FeedUrl::try_new("https://example.org/feed").unwrap(),
        );
        source.name = first_seen.to_string();
        let id: Cursor = "e-1".parse().unwrap();
        Event::new(id, EventKind::Item, &source, Timestamp::from_millis(first_seen), item).to_json()
    }

    #[test]
    fn what_a_daemon_has_of_its_own_and_what_changes_from_visit_to_visit_is_not_compared() {
        let of = |first_seen, html: &str, title: &str| {
            let item = Item {
                key: "k".to_owned(),
                title: title.to_owned(),
                content_html: Some(html.to_owned()),
                ..Item::default()
            };
            EventIdentity::of(json(first_seen, item).as_bytes()).unwrap()
        };
        let one = of(1, "<p>some <b>text</b></p>", "a \"title\"");
        assert_eq!(of(2, "<p>some\n<i>text</i></p><img src=\"https://cdn/?sig=2\">", "a  \"title\""), one);
        assert_ne!(of(1, "<p>some <b>texts</b></p>", "a \"title\""), one);
        assert_ne!(of(1, "<p>some <b>text</b></p>", "another"), one);
        assert_eq!(EventIdentity::of(b"{\"no\":1}"), None);
    }
}
