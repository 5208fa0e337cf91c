//! Events from one process to another, resumable and without holes.
//!
//! Both hops of newswire speak `text/event-stream` with `Last-Event-ID`: the ingestion daemon to its gateways over a
//! Unix socket, the gateways to everybody else over TCP. A [`Publisher`] turns a log, a bell and a cursor into the
//! blocks of such a stream; a [`Subscription`] reads one and comes back by itself after either side restarts.
//!
//! Never here: what is in an event (it passes through as bytes), the store, a feed.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may block; what they test is checked without them")
)]

mod client;
mod publish;
mod resume;
mod subscribe;

pub use client::{ClientError, Endpoint, PeerClient};
pub use publish::{EventLog, LogError, LogEvent, LogPage, Notice, Publisher, StreamBlock};
pub use resume::{Gap, LogBounds, Resume, ResumeDecision, StreamOpened};
pub use subscribe::{Coverage, ReceivedEvent, Subscription, SubscriptionEvent, SubscriptionTiming};
