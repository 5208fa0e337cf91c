//! One request and the head of its response, over its own connection, to a checked address.
//!
//! reqwest does not ask a resolver if the host is an IP address, and it pools connections. Therefore the addresses are
//! looked up and checked here first, every exchange has its own connection, and reqwest's resolver only returns the
//! addresses that were checked for this exchange.

use std::net::SocketAddr;

use news::Escaped;
use reqwest::{
    Client, Proxy, Request, Response,
    header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, HeaderMap, HeaderValue, USER_AGENT},
    redirect,
};
use tokio::time::{Instant, sleep_until};

use crate::{
    BadPolicy, Failure, FailureClass, HttpTransport, Policy,
    attempt::{ConnectObserver, ConnectionAttempt, PinnedResolver},
    failure, install_tls,
    limits::{Deadline, TimeLimits},
    request_options::ConnectionProfile,
    tls,
};

/// Accepted media types, best first. `*/*` because some servers refuse a list that does not name their type.
const ACCEPTED: &str = "application/atom+xml, application/rss+xml, application/feed+json, application/rdf+xml;q=0.9, \
     application/xml;q=0.8, text/xml;q=0.8, application/json;q=0.7, */*;q=0.1";

/// The HTTP client for all visits with this policy and profile.
///
/// # Errors
/// [`BadPolicy`] if it cannot be built.
pub(crate) fn client(policy: &Policy, profile: &ConnectionProfile) -> Result<Client, BadPolicy> {
    install_tls();
    let headers = headers(policy)?;
    let proxy = profile.proxy.as_ref().map(|proxy| Proxy::all(proxy.secret().clone()));
    let proxy = proxy.transpose().map_err(|e| BadPolicy::Client(e.without_url()))?;
    let builder = Client::builder()
        .default_headers(headers)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(0)
        .connect_timeout(policy.timeout_connect)
        .dns_resolver(PinnedResolver)
        .tls_backend_preconfigured(tls::client_config(policy, profile.authorities_pem.as_deref())?)
        .connector_layer(tower_layer::layer_fn(ConnectObserver));
    let builder = match proxy {
        Some(proxy) => builder.proxy(proxy),
        None => builder,
    };
    builder.build().map_err(BadPolicy::Client)
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
        (ACCEPT_ENCODING, HeaderValue::from_static("zstd,gzip,deflate,br")),
        (CONNECTION, HeaderValue::from_static("close")),
    ]))
}

/// What an exchange has reached, and when.
#[derive(Clone, Copy, Default)]
pub(crate) struct ExchangeTimes {
    /// TLS began.
    pub(crate) handshake: Option<Instant>,
    /// The connection was established, TLS included.
    pub(crate) connected: Option<Instant>,
}

/// How an exchange failed.
pub(crate) struct ExchangeError {
    pub(crate) failure: Failure,
    /// No connection was established, so nothing was sent and a retry repeats nothing.
    pub(crate) is_unsent: bool,
    pub(crate) times: ExchangeTimes,
}

impl From<Failure> for ExchangeError {
    fn from(failure: Failure) -> Self {
        Self { failure, is_unsent: false, times: ExchangeTimes::default() }
    }
}

/// The head of a response.
pub(crate) struct Head {
    pub(crate) response: Response,
    pub(crate) times: ExchangeTimes,
    pub(crate) remote: SocketAddr,
}

/// Sends a request and waits for the head of the response. `connect` is the deadline of the connection.
///
/// # Errors
/// [`ExchangeError`] with the classes `connect`, `tls`, `timeout`, `bad-http`, `truncated`, `bad-url`; `blocked-address`
/// if the response came from an address that was not checked.
pub(crate) async fn send(
    client: &Client,
    request: Request,
    addresses: Vec<SocketAddr>,
    connect: Deadline,
    limits: &TimeLimits,
) -> Result<Head, ExchangeError> {
    let host = request.url().host_str().unwrap_or_default().to_owned();
    let attempt = ConnectionAttempt::new(addresses);
    let times = || ExchangeTimes { handshake: attempt.handshake(), connected: attempt.connected() };
    let error = |failure| ExchangeError { failure, is_unsent: false, times: times() };
    let response = attempt.scope(client.execute(request));
    tokio::pin!(response);
    let early = tokio::select! {
        biased;
        response = &mut response => Some(response),
        () = attempt.established() => None,
        () = sleep_until(connect.at) => return Err(error(connect.failure(&format!("connecting to {host}")))),
    };
    let first_byte = limits.first_byte();
    let response = match early {
        Some(response) => response,
        None => tokio::select! {
            biased;
            response = &mut response => response,
            () = sleep_until(first_byte.at) => return Err(error(first_byte.failure(&waiting_for(&host)))),
        },
    };
    match (response.map_err(reqwest::Error::without_url), attempt.connected()) {
        (Ok(response), Some(_)) => match checked_remote(&response, &attempt) {
            Ok(remote) => Ok(Head { response, times: times(), remote }),
            Err(failure) => Err(error(failure)),
        },
        (Ok(_), None) => Err(error(unexpected(&host))),
        (Err(e), Some(_)) => Err(error(failure::of_head(&e, &host))),
        (Err(e), None) => {
            let failure = failure::of_connection(&e, &host, connect);
            let is_unsent = failure.class == FailureClass::Connect;
            Err(ExchangeError { is_unsent, ..error(failure) })
        }
    }
}

fn waiting_for(host: &str) -> String {
    format!("waiting for {host} to answer")
}

/// The same over a transport instead of a client, which connects in no time.
///
/// # Errors
/// [`ExchangeError`] with the classes `connect` and `timeout`.
pub(crate) async fn send_over(
    transport: &dyn HttpTransport,
    policy: &Policy,
    mut request: Request,
    addresses: Vec<SocketAddr>,
    limits: &TimeLimits,
) -> Result<Head, ExchangeError> {
    let host = request.url().host_str().unwrap_or_default().to_owned();
    let (Some(remote), Ok(defaults)) = (addresses.first().copied(), headers(policy)) else {
        return Err(unexpected(&host).into());
    };
    // As the client would add them: headers of the request take precedence.
    for (name, value) in &defaults {
        request.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    let times = ExchangeTimes { handshake: None, connected: Some(Instant::now()) };
    let first_byte = limits.first_byte();
    match tokio::time::timeout_at(first_byte.at, transport.exchange(request, remote)).await {
        Ok(Ok(response)) => Ok(Head { response, times, remote }),
        Ok(Err(e)) => {
            let why = format!("could not connect to {host}: {}", Escaped(&e.to_string()));
            let failure = Failure::new(FailureClass::Connect, why);
            Err(ExchangeError { failure, is_unsent: true, times: ExchangeTimes::default() })
        }
        Err(_) => {
            Err(ExchangeError { failure: first_byte.failure(&waiting_for(&host)), is_unsent: false, times })
        }
    }
}

/// Checks that the response came from one of the checked addresses.
fn checked_remote(response: &Response, attempt: &ConnectionAttempt) -> Result<SocketAddr, Failure> {
    match response.remote_addr() {
        Some(remote)
            if attempt.addresses.iter().any(|a| a.ip().to_canonical() == remote.ip().to_canonical()) =>
        {
            Ok(remote)
        }
        remote => Err(unexpected(&format!("{remote:?}"))),
    }
}

fn unexpected(who: &str) -> Failure {
    let message = format!("{who} answered over a connection that was not checked");
    Failure::new(FailureClass::BlockedAddress, message)
}
