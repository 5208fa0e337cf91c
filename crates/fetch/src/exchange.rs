//! One request and the head of its response, over its own connection, to a checked address.
//!
//! The addresses are looked up and checked before, and a connection knows no others. Every exchange has its own connection.

use std::net::SocketAddr;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::body::Body;
use news::{Escaped, Timestamp};
use reqwest::Request;
use tokio::time::{Instant, timeout_at};

use crate::{
    Failure, FailureClass, HttpTransport, Policy, cause,
    connection::{ExchangeTimes, HttpClient, headers},
    failure::{self, Destination},
    limits::{Deadline, TimeLimits},
    phase::{VisitPhase, VisitPhaseCell},
    proxy::ProxyError,
    stream::BoxError,
};

/// The head of a response, and its body to come.
pub(crate) type Response = http::Response<ResponseBody>;
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// How an exchange failed.
pub(crate) struct ExchangeError {
    pub(crate) failure: Failure,
    /// No connection was established, so nothing was sent and a retry repeats nothing.
    pub(crate) is_unsent: bool,
    /// The headers of a proxy that answered instead of connecting.
    pub(crate) proxy_headers: Option<Box<HeaderMap>>,
    pub(crate) times: ExchangeTimes,
}

impl ExchangeError {
    fn new(failure: Failure, times: ExchangeTimes) -> Self {
        Self { failure, is_unsent: false, proxy_headers: None, times }
    }

    /// There is no connection to the host of the request.
    fn unconnected(
        error: BoxError,
        to: Destination<'_>,
        times: ExchangeTimes,
        phase: VisitPhase,
        connect: Deadline,
    ) -> Self {
        let failure = failure::of_connection(&*error, to, phase, connect);
        let is_unsent = failure.class == FailureClass::Connect || cause::is_closed(&*error);
        match error.downcast::<ProxyError>() {
            Ok(error) => {
                let is_unsent = is_unsent && !error.is_answer();
                Self { failure, is_unsent, proxy_headers: error.into_head(), times }
            }
            Err(_) => Self { is_unsent, ..Self::new(failure, times) },
        }
    }
}

impl From<Failure> for ExchangeError {
    fn from(failure: Failure) -> Self {
        Self::new(failure, ExchangeTimes::default())
    }
}

/// The head of a response.
pub(crate) struct Head {
    pub(crate) response: Response,
    pub(crate) times: ExchangeTimes,
    pub(crate) remote: SocketAddr,
    /// When the certificate of the server expires; `None` without TLS.
    pub(crate) certificate_until: Option<Timestamp>,
}

/// Sends a request and waits for the head of the response. `connect` is the deadline of the connection.
///
/// # Errors
/// [`ExchangeError`] with the classes `connect`, `tls`, `timeout`, `bad-http`, `truncated`, `bad-url`; `blocked-address`
/// if the response came from an address that was not checked.
pub(crate) async fn send(
    client: &HttpClient,
    request: Request,
    addresses: Vec<SocketAddr>,
    connect: Deadline,
    limits: &TimeLimits,
    phase: &VisitPhaseCell,
) -> Result<Head, ExchangeError> {
    let host = request.url().host_str().unwrap_or_default().to_owned();
    let request =
        http::Request::try_from(request).map_err(|e| failure::of_request(&e.without_url(), &host))?;
    let to = Destination { host: &host, proxy: client.proxy() };
    let mut times = ExchangeTimes::default();
    let connecting = client.connect(request.uri(), addresses.clone(), connect, phase, &mut times);
    let connection = match timeout_at(connect.at, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(e)) => return Err(ExchangeError::unconnected(e, to, times, phase.get(), connect)),
        Err(_) => return Err(ExchangeError::new(failure::late(to, phase.get(), connect), times)),
    };
    let error = |failure| ExchangeError::new(failure, times);
    let (remote, certificate_until) = (connection.remote(), connection.certificate_until());
    let is_certificate_wanted = connection.is_certificate_wanted();
    if addresses.iter().all(|address| address.ip().to_canonical() != remote.ip().to_canonical()) {
        return Err(error(unexpected(&remote.to_string())));
    }
    phase.set(VisitPhase::Answer);
    let (first_byte, progress) = (limits.first_byte(), connection.head_progress());
    match timeout_at(first_byte.at, connection.exchange(client.outgoing(request))).await {
        Ok(Ok(response)) => Ok(Head { response: boxed(response), times, remote, certificate_until }),
        Ok(Err(e)) => Err(error(failure::of_head(&*e, to, is_certificate_wanted))),
        Err(_) if progress.has_begun() => {
            let doing = format!("waiting for the end of the head that {to} had begun");
            Err(error(first_byte.failure(&doing)))
        }
        Err(_) => Err(error(first_byte.failure(&waiting_for(&to.to_string())))),
    }
}

fn boxed<B>(response: http::Response<B>) -> Response
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
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
    phase: &VisitPhaseCell,
) -> Result<Head, ExchangeError> {
    phase.set(VisitPhase::Answer);
    let host = request.url().host_str().unwrap_or_default().to_owned();
    let (Some(remote), Ok(defaults)) = (addresses.first().copied(), headers(policy)) else {
        return Err(unexpected(&host).into());
    };
    // As the client would add them: headers of the request take precedence.
    for (name, value) in &defaults {
        request.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    let times = ExchangeTimes { connected: Some(Instant::now()), ..ExchangeTimes::default() };
    let first_byte = limits.first_byte();
    match timeout_at(first_byte.at, transport.exchange(request, remote)).await {
        Ok(Ok(response)) => {
            let response = boxed(http::Response::from(response));
            Ok(Head { response, times, remote, certificate_until: None })
        }
        Ok(Err(e)) => {
            let why = format!("could not connect to {host}: {}", Escaped(&e.to_string()));
            let failure = Failure::new(FailureClass::Connect, why);
            Err(ExchangeError { is_unsent: true, ..failure.into() })
        }
        Err(_) => Err(ExchangeError::new(first_byte.failure(&waiting_for(&host)), times)),
    }
}

fn unexpected(who: &str) -> Failure {
    let message = format!("{who} answered over a connection that was not checked");
    Failure::new(FailureClass::BlockedAddress, message)
}
