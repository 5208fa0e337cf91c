//! A connection for one exchange: TCP to a checked address, through a proxy if there is one, TLS if the scheme is https, and
//! HTTP/1.1 on it.

use std::{
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use http::{
    HeaderMap, HeaderValue, Request, Response, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, HOST, PROXY_AUTHORIZATION, USER_AGENT},
};
use hyper::{
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    client::conn::http1::SendRequest,
};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::Name},
    rt::TokioIo,
};
use news::{ProxyChoice, ProxyUrl, Timestamp};
use rustls::{
    ClientConfig,
    pki_types::{IpAddr, ServerName},
};
use tokio::time::Instant;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use crate::{
    BadPolicy, Policy,
    certificate::CertificateFields,
    head_bounds::{HeadMeter, MeteredStream},
    limits::Deadline,
    phase::{VisitPhase, VisitPhaseCell},
    proxy,
    stream::{BoxError, BoxStream, ConnectionTask, http, is_https},
    tls::{self, OwnCertificates},
    userinfo::{basic_of, credentials, without_credentials},
};

/// Accepted media types, best first. `*/*` because some servers refuse a list that does not name their type.
const ACCEPTED: &str = "application/atom+xml, application/rss+xml, application/feed+json, application/rdf+xml;q=0.9, \
     application/xml;q=0.8, text/xml;q=0.8, application/json;q=0.7, */*;q=0.1";

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

/// The options that need their own client.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ConnectionProfile {
    /// `None`: [`Policy::proxy`].
    pub(crate) proxy: Option<ProxyChoice>,
    pub(crate) authorities_pem: Option<String>,
}

impl ConnectionProfile {
    /// The proxy that is used.
    pub(crate) fn proxy<'a>(&'a self, policy: &'a Policy) -> Option<&'a ProxyUrl> {
        self.proxy.as_ref().map_or(policy.proxy.as_ref(), ProxyChoice::proxy)
    }

    /// Whether the default client does all of it.
    pub(crate) fn is_default(&self, policy: &Policy) -> bool {
        self.authorities_pem.is_none() && self.proxy(policy) == policy.proxy.as_ref()
    }
}

/// Makes the connections of all visits with one profile. Clones share everything.
#[derive(Clone)]
pub(crate) struct HttpClient(Arc<ClientSettings>);

struct ClientSettings {
    /// Headers of every request.
    headers: HeaderMap,
    tls: Arc<ClientConfig>,
    proxy: Option<ProxyRoute>,
}

/// A proxy, as its connections need it.
struct ProxyRoute {
    proxy: ProxyUrl,
    /// Without user name and password.
    address: Uri,
    authorization: Option<HeaderValue>,
    /// For a proxy that is reached over TLS.
    tls: Arc<ClientConfig>,
}

impl ProxyRoute {
    /// `for_servers` are the settings for servers, `own` the certificates of the source, in PEM.
    fn new(
        proxy: &ProxyUrl,
        policy: &Policy,
        own: Option<&str>,
        for_servers: &Arc<ClientConfig>,
    ) -> Result<Self, BadPolicy> {
        let url = proxy.secret();
        let address = without_credentials(url).as_str().parse().map_err(BadPolicy::Proxy)?;
        let tls = match own {
            Some(own) if is_https(&address) => {
                Arc::new(tls::client_config(policy, OwnCertificates::Besides(own))?)
            }
            _ => Arc::clone(for_servers),
        };
        Ok(Self { proxy: proxy.clone(), address, authorization: basic_of(url), tls })
    }

    fn reads(&self, to: &Uri) -> bool {
        proxy::reads(&self.proxy, to.scheme_str())
    }
}

/// When the parts of a connection were begun and done.
#[derive(Clone, Copy, Default)]
pub(crate) struct ExchangeTimes {
    /// TLS began.
    pub(crate) handshake: Option<Instant>,
    /// The connection was established, TLS included.
    pub(crate) connected: Option<Instant>,
}

impl HttpClient {
    /// A client for this policy and profile.
    ///
    /// # Errors
    /// [`BadPolicy`] if no visit can succeed with them.
    pub(crate) fn try_new(policy: &Policy, profile: &ConnectionProfile) -> Result<Self, BadPolicy> {
        let headers = headers(policy)?;
        let own = profile.authorities_pem.as_deref();
        let only = own.map_or(OwnCertificates::Absent, OwnCertificates::Only);
        let tls = Arc::new(tls::client_config(policy, only)?);
        let route = |proxy| ProxyRoute::new(proxy, policy, own, &tls);
        let proxy = profile.proxy(policy).map(route).transpose()?;
        Ok(Self(Arc::new(ClientSettings { headers, tls, proxy })))
    }

    /// The proxy, if there is one.
    pub(crate) fn proxy(&self) -> Option<&ProxyUrl> {
        self.0.proxy.as_ref().map(|route| &route.proxy)
    }

    /// Connects to one of these addresses, which are those of the proxy if there is one. `to` is the address of the request.
    ///
    /// # Errors
    /// Whatever went wrong; nothing of the request was sent.
    pub(crate) async fn connect(
        &self,
        to: &Uri,
        addresses: Vec<SocketAddr>,
        deadline: Deadline,
        phase: &VisitPhaseCell,
        times: &mut ExchangeTimes,
    ) -> Result<Connection, BoxError> {
        phase.set(VisitPhase::Connect);
        let (mut stream, remote) = match &self.0.proxy {
            None => tcp(addresses, deadline).await?,
            Some(route) => Box::pin(self.through(route, to, addresses, deadline, phase)).await?,
        };
        phase.set(VisitPhase::Tls);
        let (mut certificate_until, mut is_certificate_wanted) = (None, false);
        if is_https(to) {
            times.handshake = Some(Instant::now());
            let (session, is_wanted) = handshake(&self.0.tls, to.host().unwrap_or_default(), stream).await?;
            (certificate_until, is_certificate_wanted) = (not_after(&session), is_wanted);
            stream = Box::new(session);
        }
        let (stream, head) = MeteredStream::new(stream);
        let (sender, connection) = http().handshake(TokioIo::new(stream)).await?;
        let task = ConnectionTask(tokio::spawn(connection));
        times.connected = Some(Instant::now());
        Ok(Connection { sender, task, remote, certificate_until, is_certificate_wanted, head })
    }

    /// A request as it is sent over a connection of this client: `Host` first, then the headers of every request, which
    /// those of `request` replace.
    pub(crate) fn outgoing<B>(&self, request: Request<B>) -> Request<B> {
        let (mut parts, body) = request.into_parts();
        let host = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        let mut headers = HeaderMap::from_iter(host.map(|host| (HOST, host)));
        headers.extend(self.0.headers.clone());
        headers.extend(parts.headers);
        match &self.0.proxy {
            Some(route) if route.reads(&parts.uri) => {
                headers.extend(route.authorization.clone().map(|value| (PROXY_AUTHORIZATION, value)));
            }
            _ => {
                let path = parts.uri.path_and_query().cloned();
                parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
            }
        }
        parts.headers = headers;
        Request::from_parts(parts, body)
    }

    /// Connects to a proxy, and through it to the host of a request.
    async fn through(
        &self,
        route: &ProxyRoute,
        to: &Uri,
        addresses: Vec<SocketAddr>,
        deadline: Deadline,
        phase: &VisitPhaseCell,
    ) -> Result<(BoxStream, SocketAddr), BoxError> {
        let (mut stream, remote) = tcp(addresses, deadline).await?;
        if is_https(&route.address) {
            phase.set(VisitPhase::ProxyTls);
            let host = route.address.host().unwrap_or_default();
            stream = Box::new(handshake(&route.tls, host, stream).await?.0);
        }
        phase.set(VisitPhase::Tunnel);
        let login = credentials(route.proxy.secret());
        if route.proxy.is_socks() {
            stream = proxy::socks(stream, to, login).await?;
        } else if !route.reads(to) {
            let mut headers = HeaderMap::new();
            headers.extend(self.0.headers.get(USER_AGENT).cloned().map(|value| (USER_AGENT, value)));
            headers.extend(route.authorization.clone().map(|value| (PROXY_AUTHORIZATION, value)));
            stream = proxy::tunnel(stream, to, headers, login.is_some()).await?;
        }
        Ok((stream, remote))
    }
}

/// A TLS session with a host, and whether that asked for a certificate.
async fn handshake(
    settings: &Arc<ClientConfig>,
    host: &str,
    stream: BoxStream,
) -> Result<(TlsStream<BoxStream>, bool), BoxError> {
    let name = match host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>() {
        Ok(ip) => ServerName::IpAddress(IpAddr::from(ip)),
        Err(_) => ServerName::try_from(host.to_owned())?,
    };
    let connector = TlsConnector::from(Arc::clone(settings));
    tls::noting_certificate_requests(connector.connect(name, stream)).await
}

/// When the certificate of the server expires.
fn not_after(session: &TlsStream<BoxStream>) -> Option<Timestamp> {
    let (_, session) = session.get_ref();
    CertificateFields::read(session.peer_certificates()?.first()?)?.not_after
}

/// Connects to the first of these addresses that answers, as RFC 8305 says.
async fn tcp(addresses: Vec<SocketAddr>, deadline: Deadline) -> Result<(BoxStream, SocketAddr), BoxError> {
    let mut connector = HttpConnector::new_with_resolver(CheckedAddresses(addresses));
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(deadline.at.saturating_duration_since(Instant::now())));
    poll_fn(|cx| connector.poll_ready(cx)).await?;
    // Not the host: the connector looks up what it is given, and connects to whatever comes back, ports included.
    let stream = connector.call(Uri::from_static("http://checked")).await?.into_inner();
    let remote = stream.peer_addr()?;
    Ok((Box::new(stream), remote))
}

/// Resolves everything to the addresses that were checked.
#[derive(Clone)]
struct CheckedAddresses(Vec<SocketAddr>);

impl Service<Name> for CheckedAddresses {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(self.0.clone().into_iter()))
    }
}

/// A connection that nothing was sent over yet.
pub(crate) struct Connection {
    sender: SendRequest<reqwest::Body>,
    task: ConnectionTask,
    remote: SocketAddr,
    certificate_until: Option<Timestamp>,
    is_certificate_wanted: bool,
    head: Arc<HeadMeter>,
}

impl Connection {
    /// When the certificate of the server expires; in the past if it is trusted all the same.
    pub(crate) fn certificate_until(&self) -> Option<Timestamp> {
        self.certificate_until
    }

    /// The server has asked for a certificate of the client, and went on without.
    pub(crate) fn is_certificate_wanted(&self) -> bool {
        self.is_certificate_wanted
    }

    /// The address that it leads to: that of the host, or of the proxy.
    pub(crate) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// How far the head of the response has come, once the request is being sent.
    pub(crate) fn head_progress(&self) -> Arc<HeadMeter> {
        Arc::clone(&self.head)
    }

    /// Sends a request, and waits for the head of the response. The connection is closed when its body is dropped.
    ///
    /// # Errors
    /// Any error of the connection before the head of the response was complete.
    pub(crate) async fn exchange(
        mut self,
        mut request: Request<reqwest::Body>,
    ) -> Result<Response<ConnectedBody>, BoxError> {
        let head = Arc::clone(&self.head);
        hyper::ext::on_informational(&mut request, move |_| head.note_interim());
        let response = self.sender.send_request(request).await?;
        self.head.complete()?;
        Ok(response.map(|body| ConnectedBody { body, _task: self.task }))
    }
}

/// The body of a response, and the connection that it comes over.
pub(crate) struct ConnectedBody {
    body: Incoming,
    _task: ConnectionTask,
}

impl Body for ConnectedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
