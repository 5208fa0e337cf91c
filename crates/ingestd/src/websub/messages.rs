//! What the WebSub actor is told and asked.

use std::time::Duration;

use actix::Message;
use news::{SecretText, SourceId};

/// The catalogue has changed: review the subscriptions of all sources.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ReviewSubscriptions;

/// This source was visited: review its subscription.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct SourceVisited(pub(crate) SourceId);

/// A hub asks whether we want this subscription, or denies it. The answer is yes or no.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub(crate) struct VerifyIntent {
    pub(crate) id: String,
    pub(crate) mode: String,
    pub(crate) topic: String,
    pub(crate) lease: Option<Duration>,
    pub(crate) reason: String,
}

/// Looks up the signing secret of a callback id; `None` if the id is unknown.
#[derive(Debug, Message)]
#[rtype(result = "Option<CallbackSecret>")]
pub(crate) struct LookupSecret(pub(crate) String);

/// The secret that the hub signs with, if it was given one.
#[derive(Debug)]
pub(crate) struct CallbackSecret(pub(crate) Option<SecretText>);

/// A push with a valid signature came in under this callback id. The answer is its result, as a label in the metrics.
#[derive(Debug, Message)]
#[rtype(result = "&'static str")]
pub(crate) struct AcceptPush(pub(crate) String);
