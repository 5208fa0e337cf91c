//! One event into the stream, once, whatever is retried.
//!
//! ```text
//! the last message of the subject?   ours, this event or a later one → it is there
//!                                    anything else → publish, expecting exactly that one before it
//! confirmed → done
//! "wrong last sequence", or no answer → ask again for the last message of the subject
//! ```
//!
//! The order of a source makes this enough: a later event of the log is published on the subject only after all before it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::jetstream::{
    self, ErrorCode,
    context::{PublishError, PublishErrorKind},
    message::StreamMessage,
    publish::PublishAck,
    stream::{LastRawMessageErrorKind, Stream},
};
use news::{Epoch, Event};
use tokio::sync::MutexGuard;

use super::{
    known_ends::{KnownEnds, ReadEvent, Standing, SubjectEnd},
    ledger::NumberRead,
    status::{OutboxCounters, OutboxReport, Told},
    window::{OutgoingEvent, SendOrder},
};
use crate::nats::{
    epoch::EpochChange,
    event_stream::{EpochStanding, EventStream, StreamProblem, StreamState, chain},
    identity::EventIdentity,
    message::{EventMessage, code_of, is_wrong_last_sequence},
    subject_events::{SubjectMessages, read_subject},
};

/// First and longest delay between two attempts to publish one event; it doubles, with jitter in the upper half.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long an event waits until those before it in the log were sent.
const TURN_MAX: Duration = Duration::from_millis(250);
/// What an event says that was too large to be published with its content.
const SHORTENED: &str =
    "the content was left out: the event is larger than the NATS servers allow (max_payload)";

/// Why a session with a server ends.
#[derive(Debug)]
pub(super) enum SessionEnd {
    /// The outbox stops.
    Stopped,
    /// There is no connection.
    Disconnected,
    /// Stream, bucket or epoch may be others than before.
    LookAgain,
    /// The numbers of the stream no longer mean what they did.
    NewEpoch(EpochChange),
    /// It cannot be published now.
    Problem(String),
}

impl From<StreamProblem> for SessionEnd {
    fn from(problem: StreamProblem) -> Self {
        Self::Problem(problem.to_string())
    }
}

/// What became of an event.
#[derive(Debug)]
pub(super) enum Delivery {
    /// It was published now.
    Published(SubjectEnd),
    /// It was there already.
    There(SubjectEnd),
    /// Another daemon has published the same.
    Same,
    /// It cannot be published.
    Refused,
}

/// Why what is known of a subject is not relied on.
#[derive(Clone, Copy, Debug)]
enum Doubt {
    /// This was not its last message.
    NotLast(SubjectEnd),
    /// The last attempt may have succeeded.
    NoAnswer,
}

/// What all deliveries of a session share.
pub(super) struct Session {
    pub(super) stream: EventStream,
    pub(super) handle: Stream<()>,
    pub(super) epoch: Epoch,
    pub(super) log_epoch: Epoch,
    /// What is known of the subjects.
    pub(super) known: KnownEnds,
    /// Held by the event that is sent next in the order of the log, while the server is asked what is before it.
    pub(super) order: tokio::sync::Mutex<()>,
    /// Deliveries whose last attempt failed.
    pub(super) failing: AtomicUsize,
    /// A message that is published from now on has a greater number.
    pub(super) last: AtomicU64,
    pub(super) told: Told,
}

/// What one attempt has led to.
enum Attempt {
    Done(Delivery),
    /// This is not the last message of the subject.
    Conflict(SubjectEnd),
    /// The server takes no message of this size.
    TooLarge,
    /// No answer, or one that may be another one next time.
    Failed(String),
}

impl Session {
    /// Completes when the event is in the stream, or can never be.
    pub(super) async fn deliver(
        self: Arc<Self>,
        mut outgoing: OutgoingEvent,
        order: SendOrder,
    ) -> Result<Delivery, SessionEnd> {
        // The lock goes round in the order in which it was asked for, which is that of the log.
        let mut turn = match order {
            SendOrder::OfLog => tokio::time::timeout(TURN_MAX, self.order.lock()).await.ok(),
            SendOrder::OfSource => None,
        };
        let (mut tries, mut is_failing, mut is_shortened) = (0_u32, false, false);
        let mut doubt = None;
        let delivery = loop {
            if self.is_too_large(&outgoing.message) {
                is_shortened = self.shorten(&mut outgoing, is_shortened);
                if !is_shortened {
                    break Delivery::Refused;
                }
            }
            match self.attempt(&outgoing, doubt, turn.take()).await? {
                Attempt::Done(delivery) => break delivery,
                Attempt::TooLarge if self.shorten(&mut outgoing, is_shortened) => is_shortened = true,
                Attempt::TooLarge => break Delivery::Refused,
                Attempt::Conflict(end) => doubt = Some(Doubt::NotLast(end)),
                Attempt::Failed(problem) => {
                    doubt = Some(Doubt::NoAnswer);
                    if !std::mem::replace(&mut is_failing, true) {
                        self.failing.fetch_add(1, Relaxed);
                    }
                    self.told.stopped_working(problem);
                }
            }
            OutboxCounters::add(&self.told.counters.retries, 1);
            // The first conflict is answered at once: another daemon, or a confirmation that was lost.
            if tries > 0 || is_failing {
                tokio::time::sleep(delay(tries + 1)).await;
            }
            tries = tries.saturating_add(1);
        };
        if is_failing {
            self.failing.fetch_sub(1, Relaxed);
        }
        Ok(delivery)
    }

    async fn attempt(
        &self,
        outgoing: &OutgoingEvent,
        doubt: Option<Doubt>,
        turn: Option<MutexGuard<'_, ()>>,
    ) -> Result<Attempt, SessionEnd> {
        let known = if doubt.is_none() { self.known.standing(outgoing) } else { None };
        // In the order of the log, all that the stream has is from here: a subject that is not known has no event.
        let is_first = turn.is_some() && doubt.is_none() && self.known.is_complete();
        let standing = match known.or_else(|| is_first.then(|| self.known.first_of(outgoing)).flatten()) {
            Some(standing) => standing,
            None => match self.look(outgoing, doubt).await? {
                Ok(Some(standing)) => standing,
                // It was forgotten while it was read.
                Ok(None) => return Ok(Attempt::Conflict(SubjectEnd::default())),
                Err(problem) => return Ok(Attempt::Failed(problem)),
            },
        };
        let end = match standing {
            Standing::Done(end) => return Ok(Attempt::Done(Delivery::There(end))),
            Standing::Same => return Ok(Attempt::Done(Delivery::Same)),
            Standing::Due(end) => end,
        };
        if end.sequence == 0 && !self.known.is_complete() {
            // Earlier events of this source may have been here: after this one they would count as published.
            self.check_epoch().await?;
        }
        let message = outgoing.message.to_publish(&self.epoch, end.sequence, end.other);
        let before = self.last.load(Relaxed);
        let published = match self.context().send_publish(outgoing.subject.to_string(), message).await {
            Ok(confirmation) => {
                drop(turn);
                confirmation.await
            }
            Err(error) => Err(error),
        };
        match published {
            Ok(ack) => self.confirmed(outgoing, end, &ack, before).await,
            Err(error) => refused(&error, end),
        }
    }

    /// The server has stored it, or says that it has it.
    async fn confirmed(
        &self,
        outgoing: &OutgoingEvent,
        expected: SubjectEnd,
        ack: &PublishAck,
        before: u64,
    ) -> Result<Attempt, SessionEnd> {
        if ack.duplicate {
            // The server keeps ids of messages that are gone; where that leaves a hole, readers are told.
            let origin = Some(outgoing.seq);
            return match self.message_at(ack.sequence).await? {
                Ok(Some(there)) if there.origin != origin => {
                    Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack))
                }
                Ok(_) => {
                    self.known.found(outgoing, ack.sequence);
                    let end = SubjectEnd { sequence: ack.sequence, origin, ..expected };
                    Ok(Attempt::Done(Delivery::There(end)))
                }
                Err(problem) => Ok(Attempt::Failed(problem)),
            };
        }
        if ack.sequence <= before {
            return Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack));
        }
        self.last.fetch_max(ack.sequence, Relaxed);
        let end = self.known.published(outgoing, expected, ack.sequence);
        Ok(Attempt::Done(Delivery::Published(end)))
    }

    /// Asks for the last message of the subject, and reads what is not known of those before it; the inner error is one that
    /// may pass.
    async fn look(
        &self,
        outgoing: &OutgoingEvent,
        doubt: Option<Doubt>,
    ) -> Result<Result<Option<Standing>, String>, SessionEnd> {
        let last = match self.last_of(&outgoing.subject).await? {
            Ok(last) => last,
            Err(problem) => return Ok(Err(problem)),
        };
        if let Some(Doubt::NotLast(expected)) = doubt {
            self.explain(expected, last).await?;
        }
        let unread = self.known.unread(outgoing, last);
        let is_there = last.origin.is_some_and(|origin| origin >= outgoing.seq);
        match unread {
            // What is before it need not be known.
            Some(_) if is_there => return Ok(Ok(Some(Standing::Done(last)))),
            Some(after) => match self.read(&outgoing.subject, after, last.sequence).await? {
                Ok(read) => {
                    let events: Vec<_> = read.messages.into_iter().flatten().collect();
                    self.known.learn(outgoing, last, after, &events, read.unread_from);
                }
                Err(problem) => return Ok(Err(problem)),
            },
            None => self.known.learn(outgoing, last, 0, &[], None),
        }
        Ok(Ok(self.known.standing(outgoing)))
    }

    /// The events of a subject after one number, up to another.
    async fn read(
        &self,
        subject: &str,
        after: u64,
        up_to: u64,
    ) -> Result<Result<SubjectMessages<Option<ReadEvent>>, String>, SessionEnd> {
        let take = |message: StreamMessage| {
            let end = self.end(message.sequence, &message.headers);
            let event = EventMessage::from_received(&message.headers, message.payload).ok()?;
            let identity = EventIdentity::of(&event.json_without_id)?;
            Some(ReadEvent { sequence: end.sequence, origin: end.origin, kind: event.kind, identity })
        };
        match read_subject(&self.handle, subject, after, up_to, take).await {
            Ok(read) => {
                let counters = &self.told.counters;
                OutboxCounters::add(&counters.others_read, read.messages.len() as u64);
                OutboxCounters::add(&counters.unread, u64::from(read.unread_from.is_some()));
                Ok(Ok(read))
            }
            Err(error) if is_gone(&error.kind()) => Err(SessionEnd::LookAgain),
            Err(error) => Ok(Err(format!("NATS did not return the events of a source: {}", chain(&error)))),
        }
    }

    /// The last message of a subject was not `expected`. That is so if another daemon has published, or if `expected` was
    /// removed; a message that was lost is neither.
    async fn explain(&self, expected: SubjectEnd, found: SubjectEnd) -> Result<(), SessionEnd> {
        let went_back = Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack));
        if found.sequence >= expected.sequence {
            return Ok(());
        }
        match self.message_at(expected.sequence).await? {
            Ok(Some(there)) if there.origin != expected.origin => return went_back,
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return Ok(()),
        }
        // A hole that retention or an operator has made.
        let state = self.check_epoch().await?;
        if state.last < expected.sequence { went_back } else { Ok(()) }
    }

    /// The stream, whose numbers under this epoch mean what they did.
    pub(super) async fn check_epoch(&self) -> Result<StreamState, SessionEnd> {
        match self.stream.standing(&self.epoch).await.map_err(look_again)? {
            EpochStanding::Current(state) => Ok(state),
            EpochStanding::Purged => Err(SessionEnd::NewEpoch(EpochChange::Purged)),
            EpochStanding::Ended => Err(SessionEnd::LookAgain),
        }
    }

    /// The last message of a subject, as the leader of the stream has it. The inner error is one that may pass.
    pub(super) async fn last_of(&self, subject: &str) -> Result<Result<SubjectEnd, String>, SessionEnd> {
        match self.handle.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Ok(self.end(message.sequence, &message.headers))),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(Ok(SubjectEnd::default())),
                kind if is_gone(&kind) => Err(SessionEnd::LookAgain),
                _ => Ok(Err(format!(
                    "NATS did not say which event of a source is its last one: {}",
                    chain(&error)
                ))),
            },
        }
    }

    /// The message with a number; `None` if the stream does not have it.
    pub(super) async fn message_at(
        &self,
        sequence: u64,
    ) -> Result<Result<Option<SubjectEnd>, String>, SessionEnd> {
        match self.handle.get_raw_message(sequence).await {
            Ok(message) => Ok(Ok(Some(self.end(message.sequence, &message.headers)))),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(Ok(None)),
                kind if is_gone(&kind) => Err(SessionEnd::LookAgain),
                _ => Ok(Err(format!("NATS did not return an event: {}", chain(&error)))),
            },
        }
    }

    /// A number of the stream, and the origin of the event there, if there is one; `None` without an answer.
    pub(super) async fn origin_at(&self, sequence: u64) -> Option<NumberRead> {
        match self.handle.get_raw_message(sequence).await {
            Ok(message) => Some((sequence, EventMessage::origin_of(&message.headers))),
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => {
                Some((sequence, None))
            }
            Err(_) => None,
        }
    }

    fn end(&self, sequence: u64, headers: &async_nats::HeaderMap) -> SubjectEnd {
        let origin = EventMessage::origin_of(headers).filter(|origin| origin.epoch == self.log_epoch);
        let other = if origin.is_some() { EventMessage::other_of(headers) } else { sequence };
        SubjectEnd { sequence, origin: origin.map(|origin| origin.seq), other }
    }

    fn context(&self) -> &jetstream::Context {
        self.stream.connection().jetstream()
    }

    fn is_too_large(&self, message: &EventMessage) -> bool {
        self.bytes_max().is_some_and(|bytes_max| message.size(&self.epoch) > bytes_max)
    }

    fn bytes_max(&self) -> Option<usize> {
        self.stream.connection().server().map(|server| server.payload_bytes_max)
    }

    /// Leaves the content out; `false` if that has been done, or does not help.
    fn shorten(&self, outgoing: &mut OutgoingEvent, is_shortened: bool) -> bool {
        let origin = outgoing.message.origin.clone();
        let (bytes, bytes_max) = (outgoing.message.size(&self.epoch), self.bytes_max().unwrap_or(usize::MAX));
        let shorter = (!is_shortened).then(|| without_content(&outgoing.message)).flatten();
        let Some(shorter) = shorter.filter(|shorter| !self.is_too_large(shorter)) else {
            OutboxCounters::add(&self.told.counters.refused, 1);
            let reason =
                format!("it has {bytes} bytes, and the NATS servers allow {bytes_max} (max_payload)");
            self.told.report(OutboxReport::Refused { origin, reason });
            return false;
        };
        outgoing.message = shorter;
        OutboxCounters::add(&self.told.counters.shortened, 1);
        self.told.report(OutboxReport::Shortened { origin, bytes, bytes_max });
        true
    }
}

/// The same event without its content, and with a warning that says so.
fn without_content(message: &EventMessage) -> Option<EventMessage> {
    let mut event: Event = serde_json::from_slice(&message.json_with_id(&message.origin)).ok()?;
    event.item.content_html.take()?;
    event.item.warnings.push(SHORTENED.to_owned());
    EventMessage::from_log(message.origin.clone(), message.kind, &event.to_json()).ok()
}

fn refused(error: &PublishError, expected: SubjectEnd) -> Result<Attempt, SessionEnd> {
    if is_wrong_last_sequence(error) {
        return Ok(Attempt::Conflict(expected));
    }
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Ok(Attempt::TooLarge),
        PublishErrorKind::StreamNotFound => Err(SessionEnd::LookAgain),
        _ if code_of(error) == Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) => Ok(Attempt::TooLarge),
        _ => Ok(Attempt::Failed(format!("NATS did not take an event: {}", chain(error)))),
    }
}

fn is_gone(kind: &LastRawMessageErrorKind) -> bool {
    matches!(kind, LastRawMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// A problem with the stream after which all is looked at anew.
pub(super) fn look_again(problem: StreamProblem) -> SessionEnd {
    match problem {
        StreamProblem::NotConnected(_) => SessionEnd::Disconnected,
        StreamProblem::NoStream(_) | StreamProblem::NoEpoch(_) => SessionEnd::LookAgain,
        other => SessionEnd::Problem(other.to_string()),
    }
}

/// How long to wait after so many failures.
pub(super) fn delay(failures: u32) -> Duration {
    let (first, longest) = RETRY;
    let ceiling = first.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(longest);
    ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use news::{EventKind, FeedUrl, Item, Source, SourceId, Timestamp};

    use super::*;

    #[test]
    fn an_event_without_its_content_says_why_and_is_otherwise_the_same() {
        let source = Source::new(
            SourceId::try_new("bbc").unwrap(),
            FeedUrl::try_new("https://example.org/feed").unwrap(),
        );
        let item = Item {
            title: "a title".to_owned(),
            content_html: Some("<p>long</p>".to_owned()),
            warnings: vec!["a repair".to_owned()],
            ..Item::default()
        };
        let id: news::Cursor = "e-7".parse().unwrap();
        let event = Event::new(id.clone(), EventKind::Item, &source, Timestamp::from_millis(0), item);
        let message = EventMessage::from_log(id.clone(), EventKind::Item, &event.to_json()).unwrap();
        let shorter = without_content(&message).unwrap();
        let read: Event = serde_json::from_slice(&shorter.json_with_id(&id)).unwrap();
        assert_eq!(read.item.content_html, None);
        assert_eq!(read.item.warnings, ["a repair", SHORTENED]);
        assert_eq!(read.item.title, event.item.title);
        assert!(without_content(&shorter).is_none(), "there is nothing more to leave out");
    }
}
