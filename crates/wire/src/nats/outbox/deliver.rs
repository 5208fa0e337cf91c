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
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::jetstream::{
    self, ErrorCode,
    context::{PublishError, PublishErrorKind},
    publish::PublishAck,
    stream::{LastRawMessageErrorKind, Stream},
};
use news::{Epoch, Event, Seq};
use tokio::sync::MutexGuard;

use super::{
    ledger::NumberRead,
    status::{OutboxCounters, OutboxReport, Told},
    window::{OutgoingEvent, SendOrder},
};
use crate::nats::{
    epoch::EpochChange,
    event_stream::{EpochStanding, EventStream, StreamProblem, StreamState, chain},
    message::EventMessage,
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

/// The last message of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SubjectEnd {
    /// Its number; 0 without one.
    pub(super) sequence: u64,
    /// The event of our log that it is; `None` if it is of another log.
    pub(super) origin: Option<Seq>,
}

/// What became of an event.
#[derive(Debug)]
pub(super) enum Delivery {
    /// It was published now.
    Published(SubjectEnd),
    /// It was there already.
    There(SubjectEnd),
    /// It cannot be published.
    Refused,
}

/// What all deliveries of a session share.
pub(super) struct Session {
    pub(super) stream: EventStream,
    pub(super) handle: Stream<()>,
    pub(super) epoch: Epoch,
    pub(super) log_epoch: Epoch,
    /// Whether all subjects that were published to under this epoch are remembered: what comes to one that is not has no event
    /// before it.
    pub(super) is_complete: Arc<AtomicBool>,
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
    /// Another message is the last one of the subject.
    Conflict,
    /// The server takes no message of this size.
    TooLarge,
    /// No answer, or one that may be another one next time.
    Failed(String),
}

impl Session {
    /// Completes when the event is in the stream, or can never be. `end` is the last message of its subject, if that is known.
    pub(super) async fn deliver(
        self: Arc<Self>,
        mut outgoing: OutgoingEvent,
        mut end: Option<SubjectEnd>,
        order: SendOrder,
    ) -> Result<Delivery, SessionEnd> {
        // The lock goes round in the order in which it was asked for, which is that of the log.
        let mut turn = match order {
            SendOrder::OfLog => tokio::time::timeout(TURN_MAX, self.order.lock()).await.ok(),
            SendOrder::OfSource => None,
        };
        let (mut tries, mut is_failing, mut is_shortened) = (0_u32, false, false);
        let delivery = loop {
            if self.is_too_large(&outgoing.message) {
                is_shortened = self.shorten(&mut outgoing, is_shortened);
                if !is_shortened {
                    break Delivery::Refused;
                }
            }
            match self.attempt(&outgoing, end.take(), turn.take()).await? {
                Attempt::Done(delivery) => break delivery,
                Attempt::TooLarge if self.shorten(&mut outgoing, is_shortened) => is_shortened = true,
                Attempt::TooLarge => break Delivery::Refused,
                Attempt::Conflict => {}
                Attempt::Failed(problem) => {
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
        known: Option<SubjectEnd>,
        turn: Option<MutexGuard<'_, ()>>,
    ) -> Result<Attempt, SessionEnd> {
        let end = match known {
            Some(end) => end,
            None => match self.last_of(&outgoing.subject).await? {
                Ok(end) => end,
                Err(problem) => return Ok(Attempt::Failed(problem)),
            },
        };
        if end.origin.is_some_and(|origin| origin >= outgoing.seq) {
            return Ok(Attempt::Done(Delivery::There(end)));
        }
        if end.sequence == 0 && !self.is_complete.load(Relaxed) {
            // Earlier events of this source may have been here: after this one they would count as published.
            self.check_epoch().await?;
        }
        let message = outgoing.message.to_publish(&self.epoch, end.sequence);
        let before = self.last.load(Relaxed);
        let published = match self.context().send_publish(outgoing.subject.to_string(), message).await {
            Ok(confirmation) => {
                drop(turn);
                confirmation.await
            }
            Err(error) => Err(error),
        };
        match published {
            Ok(ack) => self.confirmed(outgoing, &ack, before).await,
            Err(error) => {
                if error.kind() == PublishErrorKind::WrongLastSequence {
                    self.explain(end, &outgoing.subject).await?;
                }
                refused(&error)
            }
        }
    }

    /// The server has stored it, or says that it has it.
    async fn confirmed(
        &self,
        outgoing: &OutgoingEvent,
        ack: &PublishAck,
        before: u64,
    ) -> Result<Attempt, SessionEnd> {
        let end = SubjectEnd { sequence: ack.sequence, origin: Some(outgoing.seq) };
        if ack.duplicate {
            // The server keeps ids of messages that are gone; where that leaves a hole, readers are told.
            return match self.message_at(ack.sequence).await? {
                Ok(Some(there)) if there != end => Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack)),
                Ok(_) => Ok(Attempt::Done(Delivery::There(end))),
                Err(problem) => Ok(Attempt::Failed(problem)),
            };
        }
        if ack.sequence <= before {
            return Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack));
        }
        self.last.fetch_max(ack.sequence, Relaxed);
        Ok(Attempt::Done(Delivery::Published(end)))
    }

    /// The last message of a subject was not `expected`. That is so if another daemon has published, or if `expected` was
    /// removed; a message that was lost is neither.
    async fn explain(&self, expected: SubjectEnd, subject: &str) -> Result<(), SessionEnd> {
        let went_back = Err(SessionEnd::NewEpoch(EpochChange::SequenceWentBack));
        let Ok(found) = self.last_of(subject).await? else { return Ok(()) };
        if found.sequence >= expected.sequence {
            return Ok(());
        }
        match self.message_at(expected.sequence).await? {
            Ok(Some(there)) if there != expected => return went_back,
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
                LastRawMessageErrorKind::NoMessageFound => Ok(Ok(SubjectEnd { sequence: 0, origin: None })),
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
        SubjectEnd { sequence, origin: origin.map(|origin| origin.seq) }
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

fn refused(error: &PublishError) -> Result<Attempt, SessionEnd> {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => Ok(Attempt::Conflict),
        PublishErrorKind::MaxPayloadExceeded => Ok(Attempt::TooLarge),
        PublishErrorKind::StreamNotFound => Err(SessionEnd::LookAgain),
        _ => {
            let cause =
                std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<jetstream::Error>());
            if cause.is_some_and(|cause| cause.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) {
                return Ok(Attempt::TooLarge);
            }
            Ok(Attempt::Failed(format!("NATS did not take an event: {}", chain(error))))
        }
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
