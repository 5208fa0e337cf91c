//! What the parts of reqwest that connect know of the exchange that they work for, and what they note about it.
//!
//! reqwest calls the resolver, the connector and TLS in the task of the exchange, so a task-local has the exchange.

use std::{
    future::{Future, ready},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{sync::Notify, time::Instant};
use tower_service::Service;

tokio::task_local! {
    static ATTEMPT: Arc<ConnectionAttempt>;
}

/// One exchange, as the connector sees it.
pub(crate) struct ConnectionAttempt {
    /// The addresses that were checked for it.
    pub(crate) addresses: Vec<SocketAddr>,
    handshake: OnceLock<Instant>,
    connected: OnceLock<Instant>,
    established: Notify,
}

impl ConnectionAttempt {
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Arc<Self> {
        let (handshake, connected) = (OnceLock::new(), OnceLock::new());
        Arc::new(Self { addresses, handshake, connected, established: Notify::new() })
    }

    /// Runs an exchange for this attempt.
    pub(crate) fn scope<F: Future>(
        self: &Arc<Self>,
        exchange: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        ATTEMPT.scope(Arc::clone(self), exchange)
    }

    /// Waits until the connection is established.
    pub(crate) async fn established(&self) {
        self.established.notified().await;
    }

    /// When the connection was established, TLS included.
    pub(crate) fn connected(&self) -> Option<Instant> {
        self.connected.get().copied()
    }

    /// When the TLS handshake began.
    pub(crate) fn handshake(&self) -> Option<Instant> {
        self.handshake.get().copied()
    }
}

/// Notes that the exchange of this task begins its TLS handshake.
pub(crate) fn note_handshake() {
    // Fails outside an exchange, where nothing is measured.
    ATTEMPT.try_with(|attempt| *attempt.handshake.get_or_init(Instant::now)).ok();
}

/// Returns the addresses that were checked for the current exchange.
pub(crate) struct PinnedResolver;

impl Resolve for PinnedResolver {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses = ATTEMPT.try_with(|attempt| attempt.addresses.clone());
        let addresses = addresses.map(|found| Box::new(found.into_iter()) as Addrs);
        Box::pin(ready(addresses.map_err(|_| "no address was checked for this connection".into())))
    }
}

/// Notifies an exchange once its connection is established, so that the wait for the head has its own deadline.
#[derive(Clone)]
pub(crate) struct ConnectObserver<S>(pub(crate) S);

impl<S: Service<R>, R> Service<R> for ConnectObserver<S>
where
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let attempt = ATTEMPT.try_with(Arc::clone).ok();
        let connecting = self.0.call(target);
        Box::pin(async move {
            let connection = connecting.await?;
            if let Some(attempt) = attempt {
                attempt.connected.get_or_init(Instant::now);
                attempt.established.notify_one();
            }
            Ok(connection)
        })
    }
}
