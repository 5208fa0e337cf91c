//! One request and the head of its response, over its own connection, to a checked address.
//!
//! reqwest does not ask a resolver if the host is an IP address, and it pools connections. Therefore the addresses are
//! looked up and checked here first, every exchange has its own connection, and reqwest's resolver only returns the
//! addresses that were checked for this exchange.

use std::{
    future::{Future, ready},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use news::Escaped;
use reqwest::{
    Certificate, Client, Proxy, Request, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT, CONNECTION, HeaderMap, HeaderValue, USER_AGENT},
    redirect,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tower_service::Service;

use crate::{
    BadPolicy, Failure, FailureClass, HttpTransport, Policy, failure, install_tls,
    request_options::ConnectionProfile,
};

/// Accepted media types, best first. `*/*` because some servers refuse a list that does not name their type.
const ACCEPTED: &str = "application/atom+xml, application/rss+xml, application/feed+json, application/rdf+xml;q=0.9, \
     application/xml;q=0.8, text/xml;q=0.8, application/json;q=0.7, */*;q=0.1";

tokio::task_local! {
    static ATTEMPT: Arc<ConnectionAttempt>;
}

/// One exchange, as the connector sees it.
struct ConnectionAttempt {
    addresses: Vec<SocketAddr>,
    connected: OnceLock<Instant>,
    established: Notify,
}

/// The HTTP client for all visits with this policy and profile.
///
/// # Errors
/// [`BadPolicy`] if it cannot be built.
pub(crate) fn client(policy: &Policy, profile: &ConnectionProfile) -> Result<Client, BadPolicy> {
    install_tls();
    let headers = headers(policy)?;
    let more = policy.authorities_pem.as_deref().unwrap_or_default().as_bytes();
    let more = Certificate::from_pem_bundle(more).map_err(BadPolicy::Authorities)?;
    if more.is_empty() && policy.authorities_pem.is_some() {
        return Err(BadPolicy::NoAuthority);
    }
    let pinned = profile.authorities_pem.as_ref().map(|pem| Certificate::from_pem_bundle(pem.as_bytes()));
    let pinned = pinned.transpose().map_err(BadPolicy::Authorities)?;
    if pinned.as_ref().is_some_and(Vec::is_empty) {
        return Err(BadPolicy::NoAuthority);
    }
    let proxy = profile.proxy.as_ref().map(|proxy| Proxy::all(proxy.secret().clone()));
    let proxy = proxy.transpose().map_err(|e| BadPolicy::Client(e.without_url()))?;
    let build = || {
        let builder = Client::builder()
            .default_headers(headers.clone())
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(policy.timeout_connect)
            .dns_resolver(PinnedResolver)
            .connector_layer(tower_layer::layer_fn(ConnectObserver));
        match proxy.clone() {
            Some(proxy) => builder.proxy(proxy),
            None => builder,
        }
    };
    if let Some(pinned) = pinned {
        return build().tls_certs_only(pinned).build().map_err(BadPolicy::Client);
    }
    // Without the certificate authorities of the machine (a container without ca-certificates) plain HTTP still works,
    // and each https visit fails with the class `tls`: more useful than a daemon that does not start.
    let with_system_roots = build().tls_certs_merge(more.clone()).build();
    with_system_roots.or_else(|_| build().tls_certs_only(more).build()).map_err(BadPolicy::Client)
}

/// The headers of every request.
///
/// # Errors
/// [`BadPolicy::UserAgent`] if it is not a valid header value.
pub(crate) fn headers(policy: &Policy) -> Result<HeaderMap, BadPolicy> {
    let agent = HeaderValue::from_str(&policy.user_agent).ok().filter(|agent| agent.to_str().is_ok());
    let agent = agent.ok_or_else(|| BadPolicy::UserAgent(policy.user_agent.clone()))?;
    Ok(HeaderMap::from_iter([
        (USER_AGENT, agent),
        (ACCEPT, HeaderValue::from_static(ACCEPTED)),
        (CONNECTION, HeaderValue::from_static("close")),
    ]))
}

/// Returns the addresses that were checked for the current exchange.
struct PinnedResolver;

impl Resolve for PinnedResolver {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses = ATTEMPT.try_with(|attempt| attempt.addresses.clone());
        let addresses = addresses.map(|found| Box::new(found.into_iter()) as Addrs);
        Box::pin(ready(addresses.map_err(|_| "no address was checked for this connection".into())))
    }
}

/// Notifies an exchange once its connection is established, so that the wait for the head has its own deadline.
#[derive(Clone)]
struct ConnectObserver<S>(S);

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

/// The deadlines of an exchange.
#[derive(Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) connect: Instant,
    pub(crate) total: Instant,
}

/// How an exchange failed.
pub(crate) struct ExchangeError {
    pub(crate) failure: Failure,
    /// No connection was established, so nothing was sent and a retry repeats nothing.
    pub(crate) is_unsent: bool,
}

/// The head of a response, and when the connection was established.
pub(crate) struct Head {
    pub(crate) response: Response,
    pub(crate) connected: Instant,
    pub(crate) remote: SocketAddr,
}

/// Sends a request and waits for the head of the response.
///
/// # Errors
/// [`ExchangeError`] with the classes `connect`, `tls`, `timeout`, `bad-http`, `truncated`, `bad-url`; `blocked-address`
/// if the response came from an address that was not checked.
pub(crate) async fn send(
    client: &Client,
    policy: &Policy,
    request: Request,
    addresses: Vec<SocketAddr>,
    deadlines: Deadlines,
) -> Result<Head, ExchangeError> {
    let host = request.url().host_str().unwrap_or_default().to_owned();
    let attempt =
        Arc::new(ConnectionAttempt { addresses, connected: OnceLock::new(), established: Notify::new() });
    let response = ATTEMPT.scope(Arc::clone(&attempt), client.execute(request));
    tokio::pin!(response);
    let early = tokio::select! {
        biased;
        response = &mut response => Some(response),
        () = attempt.established.notified() => None,
        () = sleep_until(deadlines.connect.min(deadlines.total)) => {
            let failure = Failure::new(FailureClass::Timeout, format!("connecting to {host} took too long"));
            return Err(ExchangeError { failure, is_unsent: false });
        }
    };
    let response = match early {
        Some(response) => response,
        None => tokio::select! {
            biased;
            response = &mut response => response,
            () = sleep_until((Instant::now() + policy.timeout_head).min(deadlines.total)) => {
                let failure = Failure::new(FailureClass::Timeout, format!("{host} took too long to answer"));
                return Err(ExchangeError { failure, is_unsent: false });
            }
        },
    };
    match (response.map_err(reqwest::Error::without_url), attempt.connected.get()) {
        (Ok(response), Some(connected)) => check_remote(response, &attempt, *connected),
        (Ok(_), None) => Err(unexpected(&host)),
        (Err(e), Some(_)) => Err(ExchangeError { failure: failure::of_head(&e, &host), is_unsent: false }),
        (Err(e), None) => {
            let failure = failure::of_connection(&e, &host);
            let is_unsent = failure.class == FailureClass::Connect;
            Err(ExchangeError { failure, is_unsent })
        }
    }
}

/// The same over a transport instead of a client, under the deadline of the head.
///
/// # Errors
/// [`ExchangeError`] with the classes `connect` and `timeout`.
pub(crate) async fn send_over(
    transport: &dyn HttpTransport,
    policy: &Policy,
    mut request: Request,
    addresses: Vec<SocketAddr>,
    deadlines: Deadlines,
) -> Result<Head, ExchangeError> {
    let host = request.url().host_str().unwrap_or_default().to_owned();
    let error = |class, why, is_unsent| ExchangeError { failure: Failure::new(class, why), is_unsent };
    let (Some(remote), Ok(defaults)) = (addresses.first().copied(), headers(policy)) else {
        return Err(unexpected(&host));
    };
    // As the client would add them: headers of the request take precedence.
    for (name, value) in &defaults {
        request.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    let connected = Instant::now();
    let until = (connected + policy.timeout_head).min(deadlines.total);
    match tokio::time::timeout_at(until, transport.exchange(request, remote)).await {
        Ok(Ok(response)) => Ok(Head { response, connected, remote }),
        Ok(Err(e)) => {
            let why = format!("could not connect to {host}: {}", Escaped(&e.to_string()));
            Err(error(FailureClass::Connect, why, true))
        }
        Err(_) => Err(error(FailureClass::Timeout, format!("{host} took too long to answer"), false)),
    }
}

/// Checks that the response came from one of the checked addresses.
fn check_remote(
    response: Response,
    attempt: &ConnectionAttempt,
    connected: Instant,
) -> Result<Head, ExchangeError> {
    match response.remote_addr() {
        Some(remote)
            if attempt.addresses.iter().any(|a| a.ip().to_canonical() == remote.ip().to_canonical()) =>
        {
            Ok(Head { response, connected, remote })
        }
        remote => Err(unexpected(&format!("{remote:?}"))),
    }
}

fn unexpected(who: &str) -> ExchangeError {
    let message = format!("{who} answered over a connection that was not checked");
    ExchangeError { failure: Failure::new(FailureClass::BlockedAddress, message), is_unsent: false }
}
