//! Asks the running daemon before each request of `sources add`, so that the two together keep to the spacing of a host and
//! to the pauses that it asks for.

use std::time::Duration;

use control::{ControlClient, ControlSocket, TurnAnswer, TurnOrder, paths};
use fetch::{HeldHop, HopEntry, HopGate};
use news::FeedUrl;

use super::CommandContext;

/// How long the daemon may take: it waits for up to a minute in the queue of the host.
const ANSWERED_WITHIN: Duration = Duration::from_secs(75);

/// Admission by the daemon.
#[derive(Debug)]
pub(super) struct DaemonTurns(ControlClient);

impl DaemonTurns {
    pub(super) fn new(context: &CommandContext) -> Self {
        Self(ControlClient::new(context.config.socket(ControlSocket::Ingestd)).deadline(ANSWERED_WITHIN))
    }
}

impl HopGate for DaemonTurns {
    fn enter<'a>(&'a self, url: &'a FeedUrl) -> HopEntry<'a> {
        Box::pin(async move {
            // The host, and nothing secret.
            let order = TurnOrder { url: url.secret().origin().ascii_serialization() };
            match self.0.post::<TurnAnswer>(paths::TURNS, &order).await {
                Ok(TurnAnswer { held: Some(why), wait_s }) => {
                    Err(HeldHop { why, wait: wait_s.map(Duration::from_secs) })
                }
                // It does not run, or is older and does not know the question: then nothing is known of the host.
                Ok(_) | Err(_) => Ok(()),
            }
        })
    }

    // What the daemon is told is the document, if there is one.
    fn answered(&self, _: &FeedUrl, _: u16, _: Option<Duration>) {}
}
