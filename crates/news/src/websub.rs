//! What is remembered of a source's hub (WebSub, <https://www.w3.org/TR/websub/>): whom to ask for pushes, and what
//! came of asking.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{FeedUrl, Timestamp};

/// How a source stands with its hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushState {
    /// It has no hub, or pushes are off.
    #[default]
    None,
    /// Asked for, not verified yet.
    Pending,
    /// The hub has verified that we want it.
    Verified,
    /// The hub does not want to.
    Denied,
    /// The hub does not answer, or not as it should.
    Failed,
    /// A visit found something new of which the hub had said nothing.
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

/// A text that is kept and used, and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text: for sockets and comparisons only, never for people.
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

/// What a feed says about pushes, and the subscription that was made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebSubState {
    /// The hub that the feed names.
    pub hub: Option<SecretText>,
    /// What the feed calls itself.
    pub topic: Option<SecretText>,
    /// What is or was asked of a hub.
    pub subscription: Option<HubSubscription>,
}

/// A subscription at a hub. Its addresses may hold secrets, so they are hidden with the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubSubscription {
    /// The last part of the callback's address, unguessable: who knows it may speak for the hub.
    pub id: SecretText,
    /// With which the hub signs what it pushes; only where it was sent over https.
    pub secret: Option<SecretText>,
    /// Who was asked.
    pub hub: SecretText,
    /// For what.
    pub topic: SecretText,
    /// What came of it.
    pub state: PushState,
    /// Since when.
    pub since: Timestamp,
    /// When the hub is asked next: for the first time, again, or for a longer lease.
    pub next_try: Timestamp,
    /// Questions in a row that came to nothing so far.
    pub tries: u32,
    /// Times in a row that it was silent.
    pub silences: u32,
    /// Until when the hub promised to push.
    pub lease_end: Option<Timestamp>,
    /// When it last pushed.
    pub last_push: Option<Timestamp>,
    /// What went wrong last.
    pub error: Option<String>,
}

/// How a source stands with its hub, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PushStatus {
    /// The hub that the feed names, secrets removed.
    pub hub: Option<String>,
    /// How things stand.
    pub state: PushState,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Until when the hub promised to push.
    pub lease_end: Option<Timestamp>,
    /// When it last pushed.
    pub last_push: Option<Timestamp>,
    /// What went wrong last.
    pub error: Option<String>,
}

impl From<&WebSubState> for PushStatus {
    fn from(websub: &WebSubState) -> Self {
        let hub = websub.hub.as_ref().and_then(|hub| FeedUrl::try_new(hub.reveal()).ok());
        let hub = hub.map(|hub| hub.to_string());
        match &websub.subscription {
            None => Self { hub, ..Self::default() },
            Some(subscription) => Self {
                hub,
                state: subscription.state,
                since: Some(subscription.since),
                lease_end: subscription.lease_end,
                last_push: subscription.last_push,
                error: subscription.error.clone(),
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
                error: None,
            }),
        };
        let status = PushStatus::from(&websub);
        assert_eq!(status.hub.as_deref(), Some("https://…@hub.example/?key=…"));
        let shown = format!("{websub:?}{status:?}{}", serde_json::to_string(&status).unwrap());
        assert!(!shown.contains("TOPSECRET"), "{shown}");
        let kept = serde_json::to_string(&websub).unwrap();
        assert_eq!(serde_json::from_str::<WebSubState>(&kept).unwrap(), websub, "and all of it is kept");
    }
}
