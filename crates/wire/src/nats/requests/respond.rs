//! The side that answers: it passes each request on to the daemon's own socket, and its answer back in parts.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::{Client, Message, Subject, Subscriber};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::form::{
    AnswerHead, AskerHead, BODY_BYTES_MAX, RequestFailure, RequestHead, WINDOW_PARTS, head_of, headers,
    is_undelivered, part_bytes, take_part,
};
use crate::{
    endpoint::{ClientError, Endpoint, PROBLEM_BYTES_MAX},
    http::{EndpointClient, HttpAnswer, PeerRequest, RequestMethod},
    nats::connection::NatsConnection,
};

/// Requests that are answered at the same time; one more is refused.
const REQUESTS_MAX: usize = 32;
/// Bytes of their bodies, together; a request that does not fit is refused.
const BODIES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Parts of all answers that are on their way at the same time, of at most 512 KiB each: others wait.
const PARTS_MAX: usize = 64;
/// How long an answer may take, whatever the request allows: a reload of 100,000 sources may take 60 s.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a refusal may wait for the connection.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);
/// How long a gateway may be silent that has to say what it has taken; it does so every second.
const ASKER_SILENCE_MAX: Duration = Duration::from_secs(10);
/// The pause before a subscription that has ended is made again.
const RETRY: Duration = Duration::from_secs(1);

/// What became of the requests; counted since the start.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    busy: AtomicU64,
    invalid: AtomicU64,
    abandoned: AtomicU64,
    in_progress: AtomicU64,
}

/// What became of the requests that came over NATS. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct RequestCounters(Arc<Counts>);

/// A reading of [`RequestCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// The whole answer was sent and taken.
    pub answered: u64,
    /// The daemon's answer had another status than 2xx, which was passed on.
    pub refused: u64,
    /// The daemon's socket gave no whole answer.
    pub failed: u64,
    /// Refused, because too many were in progress.
    pub busy: u64,
    /// Not understood, or not one that is passed on.
    pub invalid: u64,
    /// The gateway went away before it had the whole answer, or did not take it in time.
    pub abandoned: u64,
    /// Requests that are answered now.
    pub in_progress: u64,
}

impl RequestCounters {
    /// The numbers as they are now.
    #[must_use]
    pub fn read(&self) -> RequestCounts {
        let Counts { answered, refused, failed, busy, invalid, abandoned, in_progress } = &*self.0;
        let read = |count: &AtomicU64| count.load(Relaxed);
        RequestCounts {
            answered: read(answered),
            refused: read(refused),
            failed: read(failed),
            busy: read(busy),
            invalid: read(invalid),
            abandoned: read(abandoned),
            in_progress: read(in_progress),
        }
    }
}

/// Answers the requests to one daemon, until it is stopped.
pub struct NatsResponder {
    shared: Arc<Responder>,
    requests_max: Arc<Semaphore>,
    bodies_bytes_max: Arc<Semaphore>,
}

struct Responder {
    connection: NatsConnection,
    daemon: String,
    local: EndpointClient,
    is_passed_on: fn(RequestMethod, &str) -> bool,
    parts_max: Arc<Semaphore>,
    counters: RequestCounters,
}

/// Why an answer has ended early.
enum Unanswered {
    /// The daemon's socket gave none.
    Failed(ClientError),
    /// The gateway is not there any more.
    Abandoned,
}

/// The gateway that waits for an answer.
struct Asker<'a> {
    shared: &'a Responder,
    /// Where it listens, and where we do.
    reply: Subject,
    inbox: String,
    messages: Subscriber,
    sent: u32,
    bytes: usize,
    taken: u32,
    /// One for each part that is on its way.
    on_their_way: VecDeque<OwnedSemaphorePermit>,
}

/// Counts a request that is in progress.
struct InProgress(RequestCounters);

impl InProgress {
    fn new(counters: &RequestCounters) -> Self {
        counters.0.in_progress.fetch_add(1, Relaxed);
        Self(counters.clone())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.0.in_progress.fetch_sub(1, Relaxed);
    }
}

impl NatsResponder {
    /// Answers as the daemon of this name, from its own socket `local`; a request for which `is_passed_on` returns false is
    /// refused.
    ///
    /// # Errors
    /// If the client of the socket cannot be set up.
    pub fn try_new(
        connection: NatsConnection,
        daemon: &str,
        local: Endpoint,
        is_passed_on: fn(RequestMethod, &str) -> bool,
        counters: RequestCounters,
    ) -> Result<Self, ClientError> {
        let shared = Responder {
            connection,
            daemon: daemon.to_owned(),
            local: EndpointClient::try_new(local)?,
            is_passed_on,
            parts_max: Arc::new(Semaphore::new(PARTS_MAX)),
            counters,
        };
        Ok(Self {
            shared: Arc::new(shared),
            requests_max: Arc::new(Semaphore::new(REQUESTS_MAX)),
            bodies_bytes_max: Arc::new(Semaphore::new(BODIES_BYTES_MAX)),
        })
    }

    /// Answers requests until it is stopped; those in progress end with it, and their gateways are told by the server.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.answer_all() => {}
        }
    }

    async fn answer_all(&self) {
        let mut answers = JoinSet::new();
        loop {
            let (client, subject) =
                (self.shared.client(), self.shared.connection.names().requests(&self.shared.daemon));
            let Ok(mut requests) = client.subscribe(subject).await else {
                sleep(RETRY).await;
                continue;
            };
            loop {
                tokio::select! {
                    Some(_) = answers.join_next() => {}
                    request = requests.next() => match request {
                        Some(request) => self.begin(request, &mut answers).await,
                        None => break,
                    },
                }
            }
            sleep(RETRY).await;
        }
    }

    async fn begin(&self, message: Message, answers: &mut JoinSet<()>) {
        let shared = &self.shared;
        let Some(reply) = message.reply.clone() else {
            shared.counters.0.invalid.fetch_add(1, Relaxed);
            return;
        };
        let head = head_of::<RequestHead>(&message).filter(|head| {
            let path = head.path.split('?').next().unwrap_or_default();
            head.body_bytes <= BODY_BYTES_MAX
                && message.payload.len() <= head.body_bytes
                && path.starts_with('/')
                && (shared.is_passed_on)(head.method, path)
        });
        let Some(head) = head else {
            shared.counters.0.invalid.fetch_add(1, Relaxed);
            return shared
                .refuse(reply, RequestFailure::Invalid, "it does not answer such a request over NATS")
                .await;
        };
        let permits = self.admit(head.body_bytes);
        let Ok(permits) = permits else {
            shared.counters.0.busy.fetch_add(1, Relaxed);
            let reason = format!("it answers as many requests as it may ({REQUESTS_MAX}) already; try again");
            return shared.refuse(reply, RequestFailure::Busy, &reason).await;
        };
        let shared = Arc::clone(shared);
        answers.spawn(async move {
            let _in_progress = InProgress::new(&shared.counters);
            shared.answer(head, message.payload, reply).await;
            drop(permits);
        });
    }

    fn admit(
        &self,
        body_bytes: usize,
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), TryAcquireError> {
        let place = Arc::clone(&self.requests_max).try_acquire_owned()?;
        let bytes = u32::try_from(body_bytes).unwrap_or(u32::MAX);
        Ok((place, Arc::clone(&self.bodies_bytes_max).try_acquire_many_owned(bytes)?))
    }
}

impl Responder {
    fn client(&self) -> &Client {
        self.connection.client()
    }

    async fn refuse(&self, reply: Subject, failure: RequestFailure, reason: &str) {
        let head = headers(&AnswerHead::Failed(failure));
        let sent = self.client().publish_with_headers(reply, head, reason.to_owned().into());
        // A gateway that hears nothing has a deadline of its own.
        timeout(REFUSAL_TIME_MAX, sent).await.ok();
    }

    async fn answer(&self, head: RequestHead, first: Bytes, reply: Subject) {
        let deadline = Duration::from_millis(head.deadline_ms).min(ANSWER_TIME_MAX);
        // A little longer than the daemon's socket has, so that the gateway is told if that was late.
        let answered = timeout(deadline + REFUSAL_TIME_MAX, self.pass_on(head, first, reply, deadline)).await;
        let counts = &self.counters.0;
        let count = match answered {
            Ok(Ok(())) => &counts.answered,
            Ok(Err(Unanswered::Failed(ClientError::Refused(..)))) => &counts.refused,
            Ok(Err(Unanswered::Failed(_))) => &counts.failed,
            Ok(Err(Unanswered::Abandoned)) | Err(_) => &counts.abandoned,
        };
        count.fetch_add(1, Relaxed);
    }

    async fn pass_on(
        &self,
        head: RequestHead,
        first: Bytes,
        reply: Subject,
        deadline: Duration,
    ) -> Result<(), Unanswered> {
        let inbox = self.client().new_inbox();
        let messages = self.client().subscribe(inbox.clone()).await.map_err(|_| Unanswered::Abandoned)?;
        let on_their_way = VecDeque::new();
        let mut asker =
            Asker { shared: self, reply, inbox, messages, sent: 0, bytes: 0, taken: 0, on_their_way };
        asker.send(AnswerHead::Accepted, Bytes::new()).await?;
        let RequestHead { method, path, headers, body_bytes, bytes_max, .. } = head;
        let body = asker.body(first, body_bytes).await?;
        let request = PeerRequest { method, path, headers, body, deadline, bytes_max };
        // The gateway is listened to meanwhile: one that is gone gives its place back.
        let sent = asker.unless_gone(self.local.send(request)).await?;
        let sent = match sent {
            Ok(answer) => asker.send_all(answer).await,
            Err(error) => Err(Unanswered::Failed(error)),
        };
        if let Err(Unanswered::Failed(error)) = &sent {
            asker.fail(error).await?;
        }
        sent
    }
}

impl Asker<'_> {
    async fn send(&self, head: AnswerHead, payload: Bytes) -> Result<(), Unanswered> {
        let (reply, inbox) = (self.reply.clone(), self.inbox.clone());
        let sent = self.shared.client().publish_with_reply_and_headers(reply, inbox, headers(&head), payload);
        sent.await.map_err(|_| Unanswered::Abandoned)
    }

    /// The next message of the gateway.
    async fn next(&mut self) -> Result<(Option<AskerHead>, Bytes), Unanswered> {
        let message = timeout(ASKER_SILENCE_MAX, self.messages.next()).await;
        let message = message.ok().flatten().ok_or(Unanswered::Abandoned)?;
        if is_undelivered(&message) {
            return Err(Unanswered::Abandoned);
        }
        let head = head_of(&message);
        if let Some(AskerHead::Taken(parts)) = head {
            self.taken = self.taken.max(parts.min(self.sent));
            while self.on_their_way.len() > (self.sent - self.taken) as usize {
                self.on_their_way.pop_front();
            }
        }
        Ok((head, message.payload))
    }

    /// Waits for something else as long as the gateway is there.
    async fn unless_gone<T>(&mut self, other: impl Future<Output = T>) -> Result<T, Unanswered> {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                output = &mut other => return Ok(output),
                heard = self.next() => heard.map(drop)?,
            }
        }
    }

    /// The whole body of the request.
    async fn body(&mut self, first: Bytes, body_bytes: usize) -> Result<Bytes, Unanswered> {
        if first.len() == body_bytes {
            return Ok(first);
        }
        let mut body = BytesMut::with_capacity(body_bytes);
        body.extend_from_slice(&first);
        while body.len() < body_bytes {
            if let (Some(AskerHead::Body), part) = self.next().await? {
                body.extend_from_slice(&part[..part.len().min(body_bytes - body.len())]);
            }
        }
        Ok(body.freeze())
    }

    /// Sends the whole answer, as fast as the gateway takes it.
    async fn send_all(&mut self, mut answer: HttpAnswer) -> Result<(), Unanswered> {
        let mut part = BytesMut::new();
        while let Some(chunk) = self.unless_gone(answer.chunk()).await?.map_err(Unanswered::Failed)? {
            part.extend_from_slice(&chunk);
            while part.len() >= part_bytes(self.shared.client()) {
                self.send_part(&mut part).await?;
            }
        }
        while !part.is_empty() {
            self.send_part(&mut part).await?;
        }
        self.send(AnswerHead::End { parts: self.sent, bytes: self.bytes }, Bytes::new()).await?;
        while self.taken < self.sent {
            self.next().await?;
        }
        Ok(())
    }

    async fn send_part(&mut self, unsent: &mut BytesMut) -> Result<(), Unanswered> {
        while self.sent - self.taken >= WINDOW_PARTS {
            self.next().await?;
        }
        let permit = Arc::clone(&self.shared.parts_max).acquire_owned().await;
        self.on_their_way.push_back(permit.expect("it is never closed"));
        let bytes = part_bytes(self.shared.client()).min(unsent.len());
        let part = unsent.split_to(bytes).freeze();
        self.bytes += part.len();
        self.sent += 1;
        self.send(AnswerHead::Part(self.sent - 1), part).await
    }

    async fn fail(&self, error: &ClientError) -> Result<(), Unanswered> {
        let (head, reason) = match error {
            ClientError::Refused(_, refusal) => {
                (AnswerHead::Refused(refusal.status.as_u16()), refusal.detail.clone().unwrap_or_default())
            }
            ClientError::Late(_) => (AnswerHead::Failed(RequestFailure::Late), String::new()),
            ClientError::TooLarge(..) => (AnswerHead::Failed(RequestFailure::TooLarge), String::new()),
            ClientError::Unreachable(_, reason) => {
                (AnswerHead::Failed(RequestFailure::Unreachable), reason.clone())
            }
            ClientError::Setup(_, reason) => (AnswerHead::Failed(RequestFailure::Invalid), reason.clone()),
        };
        let bytes_max = part_bytes(self.shared.client()).min(PROBLEM_BYTES_MAX);
        self.send(head, take_part(&mut reason.into(), bytes_max)).await
    }
}
