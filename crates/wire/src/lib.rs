//! Events from one process to another, resumable and without holes.
//!
//! Both hops of newswire speak `text/event-stream` with `Last-Event-ID`: the ingestion daemon to its gateways over a
//! Unix socket, the gateways to clients over TCP. A [`Publisher`] turns a log and a cursor into the blocks of such a
//! stream; a [`Subscription`] reads one and reconnects after either side restarts.
//!
//! Never here: the content of events (passed through as bytes), the store, feeds.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may block; what they test is checked without them")
)]

mod aliases;
mod client;
mod endpoint;
mod http;
pub mod nats;
mod publish;
mod resume;
mod subscribe;

pub use aliases::{AliasRun, IdAlias, IdAliases};
pub use client::PeerClient;
pub use endpoint::{ClientError, Endpoint, Refusal};
pub use http::RequestMethod;
pub use publish::{
    EventLog, LogError, LogEvent, LogPage, Notice, Publisher, RecordingPauses, StreamBlock, WireHeartbeat,
};
pub use resume::{
    Gap, IgnoredParameter, LogBounds, NEWEST_EVENT_HASH, NEWEST_EVENT_ID, Resume, ResumeDecision,
    StreamOpened, event_hash,
};
pub use subscribe::{
    Coverage, LostReason, ReceivedEvent, Subscription, SubscriptionEvent, SubscriptionTiming,
};
