//! The messages to the WebSub actor.

use std::time::Duration;

use actix::Message;
use news::{SecretText, SourceId, Timestamp};

/// The catalogue has changed: review the subscriptions of all sources.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ReviewSubscriptions;

/// This source was visited: review its subscription, and its pushes.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct SourceVisited {
    pub(crate) source: SourceId,
    pub(crate) visit: VisitFindings,
}

/// A visit, as far as pushes are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VisitFindings {
    /// When its request was sent.
    pub(crate) started: Timestamp,
    /// New and updated items.
    pub(crate) found: u32,
    /// It returned a feed, or that nothing has changed.
    pub(crate) is_healthy: bool,
}

/// A hub asks whether we want this subscription, or denies it.
#[derive(Debug, Message)]
#[rtype(result = "IntentAnswer")]
pub(crate) struct VerifyIntent {
    pub(crate) id: String,
    pub(crate) mode: String,
    pub(crate) topic: String,
    pub(crate) lease: Option<Duration>,
    pub(crate) reason: String,
}

/// What a hub is answered that verifies a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntentAnswer {
    /// Yes.
    Confirmed,
    /// No.
    Refused,
    /// It must ask again: another daemon visits the source from now on, and knows.
    Leaving,
}

impl IntentAnswer {
    /// All variants.
    pub(crate) const ALL: [Self; 3] = [Self::Confirmed, Self::Refused, Self::Leaving];

    /// The label in the metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Refused => "refused",
            Self::Leaving => "leaving",
        }
    }
}

/// Looks up the signing secret of a callback id.
#[derive(Debug, Message)]
#[rtype(result = "CallbackSecret")]
pub(crate) struct LookupSecret(pub(crate) String);

/// The secret of a callback id.
#[derive(Debug)]
pub(crate) enum CallbackSecret {
    /// The callback id is unknown.
    Unknown,
    /// Another daemon visits its source from now on, and knows it.
    Leaving,
    /// What the hub signs with, if it was given something.
    Known(Option<SecretText>),
}

/// A push with a valid signature arrived at this callback id.
#[derive(Debug, Message)]
#[rtype(result = "PushResult")]
pub(crate) struct AcceptPush(pub(crate) String);

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushResult {
    /// It leads to a visit.
    Taken,
    /// An earlier push leads to a visit soon.
    Coalesced,
    /// The server of the feed asked for a pause, which is not over, or the source is in quarantine.
    Held,
    /// The hub has not verified the subscription, or the lease is over.
    Unverified,
    /// The callback id is unknown.
    Unknown,
    /// Another daemon visits the source from now on: the hub must push again.
    Leaving,
    /// The signature is missing or invalid.
    BadSignature,
}

impl PushResult {
    /// All variants.
    pub(crate) const ALL: [Self; 7] = [
        Self::Taken,
        Self::Coalesced,
        Self::Held,
        Self::Unverified,
        Self::Unknown,
        Self::Leaving,
        Self::BadSignature,
    ];

    /// The label in the metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Coalesced => "coalesced",
            Self::Held => "held",
            Self::Unverified => "unverified",
            Self::Unknown => "unknown",
            Self::Leaving => "leaving",
            Self::BadSignature => "bad_signature",
        }
    }
}
