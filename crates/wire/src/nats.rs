//! The wire between machines: NATS JetStream carries the events, so that any number of gateways read what daemons publish.
//!
//! ```text
//! a daemon's log ─► Outbox ─► stream `newswire` (events) ─► NatsSubscription ─► a gateway's ring
//!                             bucket `newswire-state` (the epoch, how far each daemon has published)
//!                  ─► subjects without a stream: notices, heartbeats, requests ─►
//! ```
//!
//! The id of an event is its sequence number in the stream, under an epoch that is kept beside the stream. NATS replicates,
//! elects and stores; nothing here does.
//!
//! Never here: the content of events, the store, feeds.

mod alias_watch;
mod announcer;
mod checkpoints;
mod connection;
mod epoch;
mod event_stream;
mod identity;
mod message;
mod names;
mod notices;
mod outbox;
mod pages;
pub(crate) mod requests;
mod seen;
mod shards;
mod subject_events;
mod subscribe;
mod survey;

pub use alias_watch::AliasWatch;
pub use announcer::Announcer;
pub use checkpoints::{
    CheckpointCounters, CheckpointOutcome, CheckpointPart, Checkpoints, LaterEvent, NewCheckpoint,
    Predecessor,
};
pub use connection::{
    NatsConnection, NatsCredentials, NatsError, NatsSettings, ServerIdentity, StreamLimits,
};
pub use epoch::{EpochChange, EpochRecord};
pub use event_stream::{EpochStanding, EventStream, StreamProblem, StreamState};
pub use message::{EventMessage, NotAnEvent};
pub use names::{SubjectNames, escaped};
pub use notices::{
    DAEMON_GONE_AFTER, DaemonHeartbeat, DaemonNotice, HEARTBEAT_INTERVAL, NOTICE_HELD_MAX, NewestSeen,
    NoticeKind,
};
pub use outbox::{
    KnownEnds, OUTBOX_STOP_MAX, Outbox, OutboxCounters, OutboxReport, OutboxReports, OutboxStatus,
};
pub use pages::{PageProblem, PageStart, StreamPages};
pub use requests::{NatsResponder, RequestCounters, RequestCounts};
pub use seen::{answer_seen, newest_seen};
pub use shards::{
    BadShardSet, LEASE_EXPIRES_AFTER, LEASE_RENEWED_EVERY, LEASE_TRUSTED_FOR, MemberRecord, MemberState,
    MemberStates, Membership, SHARDS, ShardPlan, ShardSet, ShardTable, StoredTable, shard_of,
};
pub use subscribe::{KnownDaemons, NatsSubscription};
pub use survey::{
    MonitoredServer, NatsSurvey, SurveyProblem, SurveyProblemKind, SurveyedFollower, SurveyedGroup,
    SurveyedMember, SurveyedOutbox, SurveyedReader, SurveyedServer, SurveyedStream,
};

/// With it the keys of the bucket begin that say how far a daemon has published; the epoch of its log follows.
const OUTBOX_KEY_PREFIX: &str = "outbox.";
