//! The side that asks: a request, and its whole answer or none.

use std::{fmt, sync::Arc, time::Duration};

use async_nats::{Client, Message, Subscriber};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use reqwest::StatusCode;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use super::form::{
    AnswerHead, AskerHead, BODY_BYTES_MAX, RequestFailure, RequestHead, head_of, headers, is_undelivered,
    part_bytes, take_part,
};
use crate::{
    endpoint::{ClientError, Endpoint, Refusal},
    http::PeerRequest,
    nats::connection::NatsConnection,
};

/// How often the side that answers is told what has arrived, so that the end of its process is noticed.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Sends requests to one daemon.
#[derive(Clone)]
pub(crate) struct NatsRequester {
    connection: NatsConnection,
    daemon: Arc<str>,
}

impl fmt::Debug for NatsRequester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsRequester").field(&self.daemon).finish()
    }
}

/// A request that is in progress.
struct PendingRequest<'a> {
    requester: &'a NatsRequester,
    inbox: String,
    answers: Subscriber,
    connections: watch::Receiver<u64>,
    /// Which connection it was sent on: what arrives on another one has holes.
    sent_on: Option<(String, u64)>,
    bytes_max: usize,
    /// The rest of the body of the request.
    unsent: Bytes,
    /// Where the side that answers listens, once it has accepted the request.
    responder: Option<async_nats::Subject>,
    parts: u32,
    body: BytesMut,
}

impl NatsRequester {
    pub(crate) fn new(connection: NatsConnection, daemon: &str) -> Self {
        Self { connection, daemon: daemon.into() }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Nats(Arc::clone(&self.daemon))
    }

    fn client(&self) -> &Client {
        self.connection.client()
    }

    fn unreachable(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Unreachable(self.endpoint(), reason.into())
    }

    /// Which connection is in use.
    fn current(&self) -> Option<(String, u64)> {
        let server = self.client().try_server_info().filter(|_| self.connection.is_connected())?;
        Some((server.server_id, server.client_id))
    }

    /// Sends a request; returns the whole body of the answer.
    pub(crate) async fn exchange(&self, request: PeerRequest) -> Result<Bytes, ClientError> {
        let deadline = request.deadline;
        let answered = async { self.begin(request).await?.finish().await };
        timeout(deadline, answered).await.unwrap_or_else(|_| Err(ClientError::Late(self.endpoint())))
    }

    async fn begin(&self, request: PeerRequest) -> Result<PendingRequest<'_>, ClientError> {
        let PeerRequest { method, path, headers: http_headers, body: mut unsent, deadline, bytes_max } =
            request;
        if unsent.len() > BODY_BYTES_MAX {
            let reason = format!("the body of the request is larger than {BODY_BYTES_MAX} bytes");
            return Err(ClientError::Setup(self.endpoint(), reason));
        }
        let connections = self.connection.connections();
        let sent_on = self.current();
        if sent_on.is_none() {
            return Err(self.unreachable(self.connection.trouble()));
        }
        let head = RequestHead {
            method,
            path,
            headers: http_headers,
            body_bytes: unsent.len(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            bytes_max,
        };
        let inbox = self.client().new_inbox();
        let answers = self.client().subscribe(inbox.clone()).await;
        let answers = answers.map_err(|e| self.unreachable(e.to_string()))?;
        let part = take_part(&mut unsent, part_bytes(self.client()));
        let subject = self.connection.names().requests(&self.daemon);
        let sent = self.client().publish_with_reply_and_headers(subject, inbox.clone(), headers(&head), part);
        sent.await.map_err(|e| self.unreachable(e.to_string()))?;
        let body = BytesMut::new();
        Ok(PendingRequest {
            requester: self,
            inbox,
            answers,
            connections,
            sent_on,
            bytes_max,
            unsent,
            responder: None,
            parts: 0,
            body,
        })
    }
}

impl PendingRequest<'_> {
    async fn finish(mut self) -> Result<Bytes, ClientError> {
        let mut probe = interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                changed = self.connections.changed() => {
                    // The news of an earlier change may come late.
                    if changed.is_err() || self.requester.current() != self.sent_on {
                        return Err(self.requester.unreachable("the connection to NATS was lost"));
                    }
                }
                message = self.answers.next() => {
                    let Some(message) = message else {
                        return Err(self.requester.unreachable("the client of NATS has ended"));
                    };
                    if self.take(message).await? {
                        return Ok(self.body.freeze());
                    }
                }
                _ = probe.tick() => self.tell_taken().await?,
            }
        }
    }

    /// Takes a message; returns whether the answer is complete.
    async fn take(&mut self, message: Message) -> Result<bool, ClientError> {
        if is_undelivered(&message) {
            return Err(self.requester.unreachable(match self.responder {
                Some(_) => "it ended before its answer did",
                None => "no daemon of this name is connected to NATS",
            }));
        }
        let missing = |this: &Self| this.requester.unreachable("a part of its answer is missing");
        match head_of(&message) {
            Some(AnswerHead::Accepted) => {
                self.responder = message.reply;
                self.send_body().await?;
            }
            Some(AnswerHead::Part(number)) => {
                if number != self.parts {
                    return Err(missing(self));
                }
                if self.body.len() + message.payload.len() > self.bytes_max {
                    return Err(ClientError::TooLarge(self.requester.endpoint(), self.bytes_max));
                }
                self.parts += 1;
                self.body.extend_from_slice(&message.payload);
                self.tell_taken().await?;
            }
            Some(AnswerHead::End { parts, bytes }) => {
                return if (parts, bytes) == (self.parts, self.body.len()) {
                    Ok(true)
                } else {
                    Err(missing(self))
                };
            }
            Some(AnswerHead::Refused(status)) => return Err(self.refused(status, &message.payload)),
            Some(AnswerHead::Failed(failure)) => return Err(self.failed(failure, &message.payload)),
            // A later version may say more.
            None => {}
        }
        Ok(false)
    }

    fn refused(&self, status: u16, detail: &[u8]) -> ClientError {
        let detail = Some(String::from_utf8_lossy(detail).into_owned()).filter(|detail| !detail.is_empty());
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        ClientError::Refused(self.requester.endpoint(), Refusal { status, detail })
    }

    fn failed(&self, failure: RequestFailure, reason: &[u8]) -> ClientError {
        let endpoint = self.requester.endpoint();
        match failure {
            RequestFailure::Busy => self.refused(StatusCode::SERVICE_UNAVAILABLE.as_u16(), reason),
            RequestFailure::Late => ClientError::Late(endpoint),
            RequestFailure::TooLarge => ClientError::TooLarge(endpoint, self.bytes_max),
            RequestFailure::Unreachable => {
                ClientError::Unreachable(endpoint, String::from_utf8_lossy(reason).into_owned())
            }
            RequestFailure::Invalid => {
                ClientError::Setup(endpoint, String::from_utf8_lossy(reason).into_owned())
            }
        }
    }

    async fn send_body(&mut self) -> Result<(), ClientError> {
        while !self.unsent.is_empty() {
            let part = take_part(&mut self.unsent, part_bytes(self.requester.client()));
            self.send(AskerHead::Body, part).await?;
        }
        Ok(())
    }

    async fn tell_taken(&self) -> Result<(), ClientError> {
        self.send(AskerHead::Taken(self.parts), Bytes::new()).await
    }

    async fn send(&self, head: AskerHead, payload: Bytes) -> Result<(), ClientError> {
        let Some(responder) = self.responder.clone() else { return Ok(()) };
        let (client, inbox) = (self.requester.client(), self.inbox.clone());
        let sent = client.publish_with_reply_and_headers(responder, inbox, headers(&head), payload).await;
        sent.map_err(|e| self.requester.unreachable(e.to_string()))
    }
}
