//! Who decides when the next request of a visit may be sent: a redirect leads to a host whose other visitors count, too.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use news::FeedUrl;
use tokio::time::Instant;

use crate::limits::TimeLimits;

/// Completes when the request may be sent.
pub type HopEntry<'a> = Pin<Box<dyn Future<Output = Result<(), HeldHop>> + 'a>>;

/// Admits the requests of one visit after the first, or all requests to a hub, and learns how each was answered. The time that a request waits for
/// admission does not count against the limits of the visit.
pub trait HopGate: fmt::Debug {
    /// Waits until a request to this address may be sent. It must complete within a time of its own.
    ///
    /// # Errors
    /// [`HeldHop`] if the host may not be asked for longer than a visit waits.
    fn enter<'a>(&'a self, url: &'a FeedUrl) -> HopEntry<'a>;

    /// The server at this address answered with a status and a `Retry-After`.
    fn answered(&self, url: &FeedUrl, code: u16, retry_after: Option<Duration>);
}

/// A request that was not sent, because its host may not be asked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldHop {
    /// The reason, which names the host, as in `redirects to HOST, which …`.
    pub why: String,
    /// How long the host may still not be asked, if that is known.
    pub wait: Option<Duration>,
}

/// Waits until an address may be requested, which does not count against the limits; returns how long that took.
///
/// # Errors
/// How long it took, and [`HeldHop`] if the host may not be asked.
pub(crate) async fn admit(
    gate: Option<&dyn HopGate>,
    at: &FeedUrl,
    limits: &mut TimeLimits,
) -> Result<Duration, (Duration, HeldHop)> {
    let Some(gate) = gate else { return Ok(Duration::ZERO) };
    let began = Instant::now();
    let entered = gate.enter(at).await;
    let waited = began.elapsed();
    limits.extend(waited);
    entered.map(|()| waited).map_err(|held| (waited, held))
}
