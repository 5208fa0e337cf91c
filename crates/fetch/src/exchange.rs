//! One question and the head of its answer, over a connection of their own, to an address that was checked.
//!
//! reqwest skips a resolver when the host is a number, and pools what it once connected. So here the addresses are
//! looked up and checked first, every exchange has its own connection, and reqwest's resolver only hands out what was
//! checked for this very exchange: without that it refuses.

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
    BadPolicy, Failure, FailureClass, HttpTransport, Policy, failure, install_tls, request_options::Way,
};

/// What we read, best first. `*/*` because some servers refuse a list that does not name what they have.
const ACCEPTED: &str = "application/atom+xml, application/rss+xml, application/feed+json, application/rdf+xml;q=0.9, \
     application/xml;q=0.8, text/xml;q=0.8, application/json;q=0.7, */*;q=0.1";

tokio::task_local! {
    static LEG: Arc<Leg>;
}

/// One exchange, as the connector sees it.
struct Leg {
    addresses: Vec<SocketAddr>,
    connected: OnceLock<Instant>,
    bell: Notify,
}

/// The HTTP client of every visit under this policy that goes this way.
///
/// # Errors
/// [`BadPolicy`] when it cannot be built.
pub(crate) fn client(policy: &Policy, way: &Way) -> Result<Client, BadPolicy> {
    install_tls();
    let headers = headers(policy)?;
    let more = policy.authorities_pem.as_deref().unwrap_or_default().as_bytes();
    let more = Certificate::from_pem_bundle(more).map_err(BadPolicy::Authorities)?;
    if more.is_empty() && policy.authorities_pem.is_some() {
        return Err(BadPolicy::NoAuthority);
    }
    let pinned = way.authorities_pem.as_ref().map(|pem| Certificate::from_pem_bundle(pem.as_bytes()));
    let pinned = pinned.transpose().map_err(BadPolicy::Authorities)?;
    if pinned.as_ref().is_some_and(Vec::is_empty) {
        return Err(BadPolicy::NoAuthority);
    }
    let proxy = way.proxy.as_ref().map(|proxy| Proxy::all(proxy.secret().clone()));
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
            .dns_resolver(Checked)
            .connector_layer(tower_layer::layer_fn(Watched));
        match proxy.clone() {
            Some(proxy) => builder.proxy(proxy),
            None => builder,
        }
    };
    if let Some(pinned) = pinned {
        return build().tls_certs_only(pinned).build().map_err(BadPolicy::Client);
    }
    // Without the machine's certificate authorities (a container without ca-certificates) plain HTTP still works,
    // and every https visit fails with the class `tls`, which says more than a daemon that does not start.
    let with_machines = build().tls_certs_merge(more.clone()).build();
    with_machines.or_else(|_| build().tls_certs_only(more).build()).map_err(BadPolicy::Client)
}

/// What every request says, whoever is asked.
///
/// # Errors
/// [`BadPolicy::UserAgent`] when it cannot stand in a header.
pub(crate) fn headers(policy: &Policy) -> Result<HeaderMap, BadPolicy> {
    let agent = HeaderValue::from_str(&policy.user_agent).ok().filter(|agent| agent.to_str().is_ok());
    let agent = agent.ok_or_else(|| BadPolicy::UserAgent(policy.user_agent.clone()))?;
    Ok(HeaderMap::from_iter([
        (USER_AGENT, agent),
        (ACCEPT, HeaderValue::from_static(ACCEPTED)),
        (CONNECTION, HeaderValue::from_static("close")),
    ]))
}

/// Hands out the addresses that were checked for the exchange that asks.
struct Checked;

impl Resolve for Checked {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses = LEG.try_with(|leg| leg.addresses.clone());
        let addresses = addresses.map(|found| Box::new(found.into_iter()) as Addrs);
        Box::pin(ready(addresses.map_err(|_| "no address was checked for this connection".into())))
    }
}

/// Tells an exchange when its connection stands, so that the wait for the head has a deadline of its own.
#[derive(Clone)]
struct Watched<S>(S);

impl<S: Service<R>, R> Service<R> for Watched<S>
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
        let leg = LEG.try_with(Arc::clone).ok();
        let connecting = self.0.call(target);
        Box::pin(async move {
            let connection = connecting.await?;
            if let Some(leg) = leg {
                leg.connected.get_or_init(Instant::now);
                leg.bell.notify_one();
            }
            Ok(connection)
        })
    }
}

/// When an exchange must have come how far.
#[derive(Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) connect: Instant,
    pub(crate) total: Instant,
}

/// How an exchange failed.
pub(crate) struct Fault {
    pub(crate) failure: Failure,
    /// No connection came about: nothing was asked yet, so asking again is no repetition.
    pub(crate) is_unasked: bool,
}

/// The head of an answer, and when the connection stood.
pub(crate) struct Head {
    pub(crate) response: Response,
    pub(crate) connected: Instant,
    pub(crate) remote: SocketAddr,
}

/// Asks and waits for the head of the answer.
///
/// # Errors
/// [`Fault`] with the classes `connect`, `tls`, `timeout`, `bad-http`, `truncated`, `bad-url`; `blocked-address` when
/// somebody else answered than the addresses that were checked.
pub(crate) async fn ask(
    client: &Client,
    policy: &Policy,
    request: Request,
    addresses: Vec<SocketAddr>,
    deadlines: Deadlines,
) -> Result<Head, Fault> {
    let host = request.url().host_str().unwrap_or_default().to_owned();
    let leg = Arc::new(Leg { addresses, connected: OnceLock::new(), bell: Notify::new() });
    let answer = LEG.scope(Arc::clone(&leg), client.execute(request));
    tokio::pin!(answer);
    let early = tokio::select! {
        biased;
        answer = &mut answer => Some(answer),
        () = leg.bell.notified() => None,
        () = sleep_until(deadlines.connect.min(deadlines.total)) => {
            let failure = Failure::new(FailureClass::Timeout, format!("connecting to {host} took too long"));
            return Err(Fault { failure, is_unasked: false });
        }
    };
    let answer = match early {
        Some(answer) => answer,
        None => tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = sleep_until((Instant::now() + policy.timeout_head).min(deadlines.total)) => {
                let failure = Failure::new(FailureClass::Timeout, format!("{host} took too long to answer"));
                return Err(Fault { failure, is_unasked: false });
            }
        },
    };
    match (answer.map_err(reqwest::Error::without_url), leg.connected.get()) {
        (Ok(response), Some(connected)) => checked(response, &leg, *connected),
        (Ok(_), None) => Err(unexpected(&host)),
        (Err(e), Some(_)) => Err(Fault { failure: failure::of_head(&e, &host), is_unasked: false }),
        (Err(e), None) => {
            let failure = failure::of_connection(&e, &host);
            let is_unasked = failure.class == FailureClass::Connect;
            Err(Fault { failure, is_unasked })
        }
    }
}

/// The same without a connection of ours: the transport stands in for the client, under the deadline of the head.
///
/// # Errors
/// [`Fault`] with the classes `connect` and `timeout`.
pub(crate) async fn ask_over(
    transport: &dyn HttpTransport,
    policy: &Policy,
    mut request: Request,
    addresses: Vec<SocketAddr>,
    deadlines: Deadlines,
) -> Result<Head, Fault> {
    let host = request.url().host_str().unwrap_or_default().to_owned();
    let fault = |class, why, is_unasked| Fault { failure: Failure::new(class, why), is_unasked };
    let (Some(remote), Ok(said)) = (addresses.first().copied(), headers(policy)) else {
        return Err(unexpected(&host));
    };
    // The client would add them: what the request says itself counts.
    for (name, value) in &said {
        request.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    let connected = Instant::now();
    let until = (connected + policy.timeout_head).min(deadlines.total);
    match tokio::time::timeout_at(until, transport.exchange(request, remote)).await {
        Ok(Ok(response)) => Ok(Head { response, connected, remote }),
        Ok(Err(e)) => {
            let why = format!("could not connect to {host}: {}", Escaped(&e.to_string()));
            Err(fault(FailureClass::Connect, why, true))
        }
        Err(_) => Err(fault(FailureClass::Timeout, format!("{host} took too long to answer"), false)),
    }
}

/// The last look: whoever answered must be one of those that were checked.
fn checked(response: Response, leg: &Leg, connected: Instant) -> Result<Head, Fault> {
    match response.remote_addr() {
        Some(remote) if leg.addresses.iter().any(|a| a.ip().to_canonical() == remote.ip().to_canonical()) => {
            Ok(Head { response, connected, remote })
        }
        remote => Err(unexpected(&format!("{remote:?}"))),
    }
}

fn unexpected(who: &str) -> Fault {
    let message = format!("{who} answered, but over no connection that was checked");
    Fault { failure: Failure::new(FailureClass::BlockedAddress, message), is_unasked: false }
}
