//! The stored WebSub state of a source (<https://www.w3.org/TR/websub/>): its hub and the subscription there.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{FeedUrl, Timestamp};

/// The state of a subscription at a hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushState {
    /// The source has no hub, or pushes are off.
    #[default]
    None,
    /// Requested, not verified yet.
    Pending,
    /// Verified by the hub.
    Verified,
    /// Denied by the hub.
    Denied,
    /// The hub does not answer, or with an error.
    Failed,
    /// A visit found new items that the hub had not pushed.
    Silent,
}

impl PushState {
    /// Every state, for metric labels.
    pub const ALL: [Self; 6] =
        [Self::None, Self::Pending, Self::Verified, Self::Denied, Self::Failed, Self::Silent];

    /// The word on the wire and in metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Verified => "verified",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Silent => "silent",
        }
    }
}

/// A text that is stored and used, but never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text: for connections and comparisons, never for people.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The hub and topic of a feed, and the subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebSubState {
    /// The hub that the feed names, or named until it changed too soon.
    pub hub: Option<SecretText>,
    /// The topic (`rel="self"`) of the feed, likewise.
    pub topic: Option<SecretText>,
    /// The subscription, if one was requested.
    pub subscription: Option<HubSubscription>,
    /// When the hub or the topic was last replaced by another one, or by none.
    pub hub_changed: Option<Timestamp>,
    /// What the feed names instead, until that may be changed again.
    pub named: Option<Box<NamedHub>>,
}

/// The hub and topic that a feed names; without a hub, it names none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamedHub {
    /// The hub.
    pub hub: Option<SecretText>,
    /// The topic.
    pub topic: Option<SecretText>,
}

impl WebSubState {
    /// How long a hub and a topic stay after a change, whatever the feed names.
    pub const HUB_KEPT: Duration = Duration::from_secs(24 * 3600);

    /// Until when the hub and the topic stay, if they have changed lately.
    #[must_use]
    pub fn kept_until(&self, now: Timestamp) -> Option<Timestamp> {
        // The clock may have been wrong.
        let changed = self.hub_changed.filter(|changed| *changed <= now)?;
        Some(changed.plus(Self::HUB_KEPT)).filter(|until| now < *until)
    }

    /// That the feed names something else, for people; `None` if it does not.
    fn change_ahead(&self) -> Option<String> {
        let (named, changed) = (self.named.as_deref()?, self.hub_changed?);
        let what = match &named.hub {
            None => "no hub any more",
            Some(_) if named.hub == self.hub => "another topic",
            Some(_) => "another hub",
        };
        let until = changed.plus(Self::HUB_KEPT);
        Some(format!("the feed names {what}; that changes at most once a day, the next time after {until}"))
    }
}

/// A subscription at a hub. Its addresses may have secrets and are hidden, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubSubscription {
    /// The last part of the callback URL, unguessable: it authorises the hub.
    pub id: SecretText,
    /// The secret for signatures of the hub; only if it was sent over https.
    pub secret: Option<SecretText>,
    /// The hub.
    pub hub: SecretText,
    /// The topic.
    pub topic: SecretText,
    /// Its state.
    pub state: PushState,
    /// Since when.
    pub since: Timestamp,
    /// When the next request to the hub is due: the first, a retry, or a renewal.
    pub next_try: Timestamp,
    /// Unsuccessful requests in a row.
    pub tries: u32,
    /// Times in a row that the hub was silent.
    pub silences: u32,
    /// End of the lease.
    pub lease_end: Option<Timestamp>,
    /// Time of the last push.
    pub last_push: Option<Timestamp>,
    /// When the last visit because of a push began.
    pub last_push_visit: Option<Timestamp>,
    /// Time of the last push after which a visit found something; `None` after a push that announced nothing.
    pub last_fruitful_push: Option<Timestamp>,
    /// What is still to be done for pushes.
    #[serde(default)]
    pub unsettled: UnsettledPushes,
    /// The last error.
    pub error: Option<String>,
}

/// The pushes that a restart must not lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsettledPushes {
    /// When the last push came that no visit has begun for.
    pub waiting: Option<Timestamp>,
    /// When the source is looked at once more, because the visit for a push found nothing or may not have ended.
    pub look: Option<Timestamp>,
}

/// The WebSub state of a source, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PushStatus {
    /// The hub in use, secrets removed.
    pub hub: Option<String>,
    /// State of the subscription.
    pub state: PushState,
    /// Since when.
    pub since: Option<Timestamp>,
    /// End of the lease.
    pub lease_end: Option<Timestamp>,
    /// Time of the last push.
    pub last_push: Option<Timestamp>,
    /// The last error.
    pub error: Option<String>,
    /// When the next request to the hub is due: the first one, another attempt, or the renewal of the lease.
    pub next_request: Option<Timestamp>,
}

impl From<&WebSubState> for PushStatus {
    fn from(websub: &WebSubState) -> Self {
        let hub = websub.hub.as_ref().and_then(|hub| FeedUrl::try_new(hub.reveal()).ok());
        let hub = hub.map(|hub| hub.to_string());
        let ahead = websub.change_ahead();
        match &websub.subscription {
            None => Self { hub, error: ahead, ..Self::default() },
            Some(subscription) => Self {
                hub,
                state: subscription.state,
                since: Some(subscription.since),
                lease_end: subscription.lease_end,
                last_push: subscription.last_push,
                next_request: Some(subscription.next_try),
                error: match (&subscription.error, ahead) {
                    (Some(error), Some(ahead)) => Some(format!("{error}; {ahead}")),
                    (error, ahead) => error.clone().or(ahead),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_a_subscription_is_ever_shown() {
        let hidden = |text: &str| SecretText::new(text.to_owned());
        let websub = WebSubState {
            hub: Some(hidden("https://u:TOPSECRET@hub.example/?key=TOPSECRET")),
            topic: Some(hidden("https://example.org/feed?token=TOPSECRET")),
            subscription: Some(HubSubscription {
                id: hidden("TOPSECRET"),
                secret: Some(hidden("TOPSECRET")),
                hub: hidden("https://hub.example/?key=TOPSECRET"),
                topic: hidden("https://example.org/feed?token=TOPSECRET"),
                state: PushState::Verified,
                since: Timestamp::from_millis(0),
                next_try: Timestamp::from_millis(0),
                tries: 0,
                silences: 0,
                lease_end: None,
                last_push: None,
                last_push_visit: None,
                last_fruitful_push: None,
                unsettled: UnsettledPushes { waiting: None, look: Some(Timestamp::from_millis(7)) },
                error: None,
            }),
            hub_changed: Some(Timestamp::from_millis(0)),
            named: Some(Box::new(NamedHub {
                hub: Some(hidden("https://other.example/?key=TOPSECRET")),
                topic: Some(hidden("TOPSECRET")),
            })),
        };
        let status = PushStatus::from(&websub);
        assert_eq!(status.hub.as_deref(), Some("https://…@hub.example/?key=…"));
        let ahead = "the feed names another hub; that changes at most once a day, the next time after 1970-01-02T00:00:00";
        assert!(status.error.as_deref().is_some_and(|error| error.starts_with(ahead)), "{status:?}");
        let shown = format!("{websub:?}{status:?}{}", serde_json::to_string(&status).unwrap());
        assert!(!shown.contains("TOPSECRET"), "{shown}");
        let kept = serde_json::to_string(&websub).unwrap();
        assert_eq!(serde_json::from_str::<WebSubState>(&kept).unwrap(), websub, "and all of it is stored");
    }
}
