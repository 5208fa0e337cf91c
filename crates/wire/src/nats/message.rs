//! An event as a message of the stream: the event without its id, which is the number that the stream puts on it.
//!
//! ```text
//! subject  newswire.events.general.bbc
//! headers  Nats-Msg-Id: <epoch of the stream>/<origin>         the server takes it once, also after a purge
//!          Newswire-Origin: <epoch of the log>-<seq>           its id in the log of the daemon that recorded it
//!          Newswire-Kind: item | update
//!          Newswire-Other: <n>                                 the newest event of another log before it on this subject
//!          Nats-Expected-Last-Subject-Sequence: <n>            the event before it on this subject
//! payload  the JSON of the event without its first member, `id`
//! ```
//!
//! Never here: a change of the content. What a reader gets is, byte for byte, what was recorded, but for the id.

use async_nats::{
    HeaderMap, HeaderName,
    header::{IntoHeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID},
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use bytes::{Bytes, BytesMut};
use news::{Cursor, Epoch, EventKind};
use serde::Deserialize;

use super::names::SubjectNames;

/// The id of the event in the log of the daemon that recorded it.
const ORIGIN: HeaderName = HeaderName::from_static("Newswire-Origin");
/// Item or update.
const KIND: HeaderName = HeaderName::from_static("Newswire-Kind");

/// The number of the newest event of another log that is before it on its subject; not there without one. A daemon that
/// starts need not read what is before its own last event if all of it is its own.
const OTHER: HeaderName = HeaderName::from_static("Newswire-Other");

/// An event on its way through the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMessage {
    /// Its id in the log of the daemon that recorded it.
    pub origin: Cursor,
    /// Item or update.
    pub kind: EventKind,
    /// The JSON of the event without its member `id`, on one line.
    pub json_without_id: Bytes,
}

/// Why a message is not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEvent {
    /// A header is missing or unreadable: newswire did not publish it.
    #[error("its header {0} is missing or unreadable")]
    Header(&'static str),
    /// The content is not the JSON of an event.
    #[error("its content is not an event: {0}")]
    Content(&'static str),
}

/// Where an event belongs, as its JSON says.
#[derive(Deserialize)]
pub(super) struct EventPlace {
    pub(super) category: String,
    pub(super) source: String,
}

impl EventMessage {
    /// An event of a daemon's log; `json` as the log has it, with the id first.
    ///
    /// # Errors
    /// [`NotAnEvent::Content`] if it does not begin with its id.
    pub fn from_log(origin: Cursor, kind: EventKind, json: &str) -> Result<Self, NotAnEvent> {
        let rest = json
            .strip_prefix("{\"id\":\"")
            .and_then(|rest| rest.split_once("\","))
            .filter(|(id, _)| id.parse() == Ok(origin.clone()))
            .map(|(_, rest)| rest)
            .ok_or(NotAnEvent::Content("it does not begin with its id"))?;
        let mut without_id = BytesMut::with_capacity(1 + rest.len());
        without_id.extend_from_slice(b"{");
        without_id.extend_from_slice(rest.as_bytes());
        let json_without_id = without_id.freeze();
        check(&json_without_id)?;
        Ok(Self { origin, kind, json_without_id })
    }

    /// A message of the stream. Anything can be published on the subjects of events, so nothing is taken on trust that would
    /// break the stream of a client.
    ///
    /// # Errors
    /// [`NotAnEvent`]
    pub fn from_received(headers: &HeaderMap, payload: Bytes) -> Result<Self, NotAnEvent> {
        let origin = Self::origin_of(headers).ok_or(NotAnEvent::Header("Newswire-Origin"))?;
        let kind = match headers.get_last(KIND).map(|value| value.as_str()) {
            Some("item") => EventKind::Item,
            Some("update") => EventKind::Update,
            _ => return Err(NotAnEvent::Header("Newswire-Kind")),
        };
        check(&payload)?;
        Ok(Self { origin, kind, json_without_id: payload })
    }

    /// The origin that the headers of a message name.
    #[must_use]
    pub fn origin_of(headers: &HeaderMap) -> Option<Cursor> {
        headers.get_last(ORIGIN)?.as_str().parse().ok()
    }

    /// The number of the newest event of another log before it on its subject, as its headers say; 0 without one.
    #[must_use]
    pub(super) fn other_of(headers: &HeaderMap) -> u64 {
        headers.get_last(OTHER).and_then(|value| value.as_str().parse().ok()).unwrap_or(0)
    }

    /// `Nats-Msg-Id` of a message: the same event has another one in each epoch of the stream.
    #[must_use]
    pub fn message_id_of(headers: &HeaderMap) -> Option<&str> {
        headers.get_last(NATS_MESSAGE_ID).map(async_nats::HeaderValue::as_str)
    }

    /// The epoch of the stream under which a message was published.
    #[must_use]
    pub fn stream_epoch_of(headers: &HeaderMap) -> Option<&str> {
        Self::message_id_of(headers)?.split_once('/').map(|(epoch, _)| epoch)
    }

    /// `Nats-Msg-Id` of this event in an epoch of the stream.
    #[must_use]
    pub fn message_id(&self, stream_epoch: &Epoch) -> String {
        format!("{stream_epoch}/{}", self.origin)
    }

    /// The subject that it is published on: its category and its source, as its JSON says.
    ///
    /// # Errors
    /// [`NotAnEvent::Content`] if it has none.
    pub fn subject(&self, names: &SubjectNames) -> Result<String, NotAnEvent> {
        let place = self.place()?;
        Ok(names.event(&place.category, &place.source))
    }

    pub(super) fn place(&self) -> Result<EventPlace, NotAnEvent> {
        let place = serde_json::from_slice(&self.json_without_id);
        place.map_err(|_| NotAnEvent::Content("it has no category or no source"))
    }

    /// The message. `expected` is the number of the message before it on the same subject, 0 without one: the server refuses
    /// the event if another one has come between. `other` is the number of the newest one of another log up to it, or 0.
    #[must_use]
    pub fn to_publish(&self, stream_epoch: &Epoch, expected: u64, other: u64) -> PublishMessage {
        PublishMessage::build()
            .headers(self.headers(stream_epoch, expected, other))
            .payload(self.json_without_id.clone())
    }

    /// Bytes of the message as the server counts them against its `max_payload`.
    #[must_use]
    pub fn size(&self, stream_epoch: &Epoch) -> usize {
        let line = |name: &str, value: &str| name.len() + ": \r\n".len() + value.len();
        self.headers(stream_epoch, u64::MAX, u64::MAX)
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| line(name.as_ref(), value.as_str())))
            .sum::<usize>()
            + "NATS/1.0\r\n\r\n".len()
            + self.json_without_id.len()
    }

    /// The JSON of the event with an id, as the log has it but for the id.
    #[must_use]
    pub fn json_with_id(&self, id: &Cursor) -> Bytes {
        let id = id.to_string();
        let rest = &self.json_without_id[1..];
        let mut json = BytesMut::with_capacity("{\"id\":\"\",".len() + id.len() + rest.len());
        for part in [b"{\"id\":\"", id.as_bytes(), b"\",", rest] {
            json.extend_from_slice(part);
        }
        json.freeze()
    }

    fn headers(&self, stream_epoch: &Epoch, expected: u64, other: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, self.message_id(stream_epoch));
        headers.insert(ORIGIN, self.origin.to_string());
        headers.insert(KIND, self.kind.as_str().into_header_value());
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        if other > 0 {
            headers.insert(OTHER, other.to_string());
        }
        headers
    }
}

/// Whether a publication was refused because its subject has another last message than expected.
pub(super) fn is_wrong_last_sequence(error: &PublishError) -> bool {
    // In a cluster, the other message may not be stored yet; the answer has no number then, and a code of its own.
    error.kind() == PublishErrorKind::WrongLastSequence
        || code_of(error) == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}

/// The code of the server's answer, if that is why a publication failed.
pub(super) fn code_of(error: &PublishError) -> Option<ErrorCode> {
    let cause = std::error::Error::source(error)?.downcast_ref::<jetstream::Error>()?;
    Some(cause.error_code())
}

/// An object in JSON on one line, without being parsed: an event stream would take a line break for the end of a field.
fn check(json: &[u8]) -> Result<(), NotAnEvent> {
    let is_object = json.starts_with(b"{\"") && json.ends_with(b"}");
    if !is_object {
        return Err(NotAnEvent::Content("it is not a JSON object with members"));
    }
    if json.starts_with(b"{\"id\":") {
        return Err(NotAnEvent::Content("it has an id of its own"));
    }
    if json.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Err(NotAnEvent::Content("it has more than one line"));
    }
    std::str::from_utf8(json).map(|_| ()).map_err(|_| NotAnEvent::Content("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use news::{Event, FeedUrl, Item, Seq, Source, SourceId, Timestamp};

    use super::*;

    fn cursor(text: &str) -> Cursor {
        text.parse().unwrap()
    }

    fn event(id: &str, title: &str) -> Event {
        let mut source = Source::new(
            SourceId::try_new("bbc").unwrap(),
            FeedUrl::try_new("https://example.org/feed").unwrap(),
        );
        source.category = "world.news".to_owned();
        let item = Item { title: title.to_owned(), ..Item::default() };
        Event::new(cursor(id), EventKind::Update, &source, Timestamp::from_millis(0), item)
    }

    fn message(event: &Event) -> EventMessage {
        EventMessage::from_log(event.id.clone(), event.kind, &event.to_json()).unwrap()
    }

    #[test]
    fn what_was_published_comes_back_byte_for_byte_with_the_id_of_the_stream() {
        for title in ["plain", "quotes \" and { } , \"id\":\"x\"", "Zürich \u{1f4f0} \u{2028}", "line\nbreak"]
        {
            let event = event("k3v9q2-412", title);
            let sent = message(&event);
            let epoch = Epoch::try_new("stream").unwrap();
            let received =
                EventMessage::from_received(&sent.headers(&epoch, 7, 0), sent.json_without_id.clone())
                    .unwrap();
            assert_eq!(received, sent);
            let id = Cursor { epoch, seq: Seq(18) };
            let expected = Event { id: id.clone(), ..event.clone() }.to_json();
            assert_eq!(received.json_with_id(&id), expected.as_bytes());
            assert_eq!(received.json_with_id(&event.id), event.to_json().as_bytes());
        }
    }

    #[test]
    fn the_headers_say_which_event_it_is_and_which_one_came_before() {
        let sent = message(&event("k3v9q2-412", ""));
        let headers = sent.headers(&Epoch::try_new("s1").unwrap(), 7, 5);
        let header = |name: &str| headers.get_last(name).unwrap().as_str();
        assert_eq!(header("Nats-Msg-Id"), "s1/k3v9q2-412");
        assert_eq!(header("Newswire-Origin"), "k3v9q2-412");
        assert_eq!(header("Newswire-Kind"), "update");
        assert_eq!(header("Nats-Expected-Last-Subject-Sequence"), "7");
        assert_eq!(header("Newswire-Other"), "5");
        assert_eq!((EventMessage::other_of(&headers), EventMessage::other_of(&HeaderMap::new())), (5, 0));
        assert_eq!(sent.subject(&SubjectNames::new("n")).unwrap(), "n.events.world%2Enews.bbc");
        assert_eq!(EventMessage::message_id_of(&headers), Some("s1/k3v9q2-412"));
    }

    #[test]
    fn what_newswire_did_not_publish_is_refused_with_the_reason() {
        let sent = message(&event("k3v9q2-412", ""));
        let headers = sent.headers(&Epoch::try_new("s1").unwrap(), 0, 0);
        let refused = |headers: &HeaderMap, payload: &'static str| {
            EventMessage::from_received(headers, Bytes::from_static(payload.as_bytes())).unwrap_err()
        };
        assert_eq!(refused(&HeaderMap::new(), "{\"kind\":1}"), NotAnEvent::Header("Newswire-Origin"));
        let mut of_a_kind = headers.clone();
        of_a_kind.insert(KIND, "gap");
        assert_eq!(refused(&of_a_kind, "{\"kind\":1}"), NotAnEvent::Header("Newswire-Kind"));
        for payload in ["", "{", "{}", "[]", "text", "{\"id\":\"a-1\"}", "{\"a\":\n1}", "{\"a\":1}\r\n\r\n{}"]
        {
            assert!(matches!(refused(&headers, payload), NotAnEvent::Content(_)), "{payload:?}");
        }
        assert!(EventMessage::from_received(&headers, Bytes::from_static(b"{\"a\":\"\xff\"}")).is_err());
    }

    #[test]
    fn an_event_with_another_id_than_its_own_is_not_published() {
        let event = event("k3v9q2-412", "");
        assert!(EventMessage::from_log(cursor("k3v9q2-413"), event.kind, &event.to_json()).is_err());
    }
}
