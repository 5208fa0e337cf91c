//! Step 2 of the life of an item: from the address of a feed, through its redirects, to a document, a 304 or a failure.
//!
//! ```text
//!   address ─► guard ─► connection ─► head ─┬─ 3xx ─► next address (guard again, at most 5)
//!                         └ one retry       ├─ 200, 203, 226 ─► body ─► Full
//!                                           └─ 304, 429, 503, 410, anything else
//! ```

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{
    StatusCode,
    header::{
        AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    },
};
use news::{Escaped, FeedUrl, ProxyUrl, Timestamp};
use reqwest::{Method, Request};
use tokio::time::Instant;
use url::{Host, Url};

use crate::{
    BadPolicy, ByteBudget, Failure, FailureClass, FetchReport, FetchResult, Freshness, Full, HeaderLinks,
    HeldHop, HopGate, HttpTransport, Policy, RedirectHop, RequestOptions, Resolver, SystemResolver, Timings,
    address, body,
    budget::BodyRoom,
    clients::ClientCache,
    connection::{ConnectionProfile, ExchangeTimes, HttpClient},
    cookies::VisitCookies,
    exchange::{self, ExchangeError, Head, Response},
    guard::{AddressGuard, AddressScope, is_allowed, proxy_addresses},
    headers, hop_gate,
    limits::{Deadline, TimeLimits},
    links,
    phase::{VisitPhase, VisitPhaseCell},
    proxy::{self, login_advice_for, status_line},
    report::answerer,
    userinfo::{basic_of, has_credentials, without_credentials},
};

const A_IM: HeaderName = HeaderName::from_static("a-im");
const FEED: HeaderValue = HeaderValue::from_static("feed");

/// What to visit, with the validators of the last response.
#[derive(Clone, Copy, Debug)]
pub struct VisitRequest<'a> {
    /// The feed.
    pub url: &'a FeedUrl,
    /// `ETag` of the last response, byte for byte.
    pub etag: Option<&'a str>,
    /// `Last-Modified` of the last response, byte for byte.
    pub last_modified: Option<&'a str>,
    /// The address that issued them ([`Full::validator_key`]); they are sent to no other one. `None`: to every address.
    pub validator_key: Option<u64>,
    /// Time limit of the whole visit, instead of [`Policy::timeout_total`].
    pub timeout: Option<Duration>,
    /// Time limit for the first byte, instead of [`Policy::timeout_first_byte`]. `None`: [`VisitRequest::timeout`], if that is
    /// set.
    pub timeout_first_byte: Option<Duration>,
    /// Longest body in bytes after decoding, instead of [`Policy::body_bytes_max`].
    pub body_bytes_max: Option<usize>,
    /// Headers, credentials and connection settings of its own.
    pub options: Option<&'a RequestOptions>,
    /// Whether [`Policy::allow`] counts.
    pub scope: AddressScope<'a>,
    /// The current time.
    pub now: Timestamp,
    /// What the body asks for room. `None`: it may grow to its limit.
    pub budget: Option<&'a dyn ByteBudget>,
    /// Admits the requests after the first. `None`: they are sent at once.
    pub gate: Option<&'a dyn HopGate>,
    /// Where others read what the visit waits for.
    pub phase: Option<&'a VisitPhaseCell>,
}

impl<'a> VisitRequest<'a> {
    /// An unconditional request with the usual options to an address that the operator configured.
    #[must_use]
    pub fn new(url: &'a FeedUrl, now: Timestamp) -> Self {
        Self {
            url,
            etag: None,
            last_modified: None,
            validator_key: None,
            timeout: None,
            timeout_first_byte: None,
            body_bytes_max: None,
            options: None,
            scope: AddressScope::Configured(url),
            now,
            budget: None,
            gate: None,
            phase: None,
        }
    }

    fn has_secrets(&self) -> bool {
        has_credentials(self.url.secret()) || self.options.is_some_and(RequestOptions::has_secrets)
    }
}

/// Makes visits. Clones share everything; one per thread is enough.
#[derive(Clone)]
pub struct Visitor {
    pub(crate) clients: ClientCache,
    pub(crate) policy: Arc<Policy>,
    pub(crate) resolver: Arc<dyn Resolver>,
    /// `None` for TCP.
    transport: Option<Arc<dyn HttpTransport>>,
}

/// The client that sends the requests, and the proxy that it uses.
struct Route {
    client: HttpClient,
    proxy: Option<ProxyUrl>,
}

/// What is known of a visit so far; all of it is reported, however the visit ends.
struct VisitProgress<'a> {
    now: Timestamp,
    started: Instant,
    phase: &'a VisitPhaseCell,
    /// For the admission of redirects.
    waited: Duration,
    /// Why the last redirect was not followed.
    held: Option<String>,
    limits: TimeLimits,
    guard: AddressGuard<'a>,
    is_conditional: bool,
    is_retried: bool,
    code: Option<u16>,
    hops: Vec<RedirectHop>,
    cookies: VisitCookies,
    timings: Timings,
    headers: Vec<(String, String)>,
    links: HeaderLinks,
    cache: Freshness,
    retry_after: Option<Duration>,
    remote: Option<SocketAddr>,
    certificate_expired: Option<Timestamp>,
    read_by: Option<ProxyUrl>,
    body_bytes: u64,
}

impl Visitor {
    /// A visitor with the resolver of the machine.
    ///
    /// # Errors
    /// [`BadPolicy`] if no visit can succeed under the policy.
    pub fn try_new(policy: Policy) -> Result<Self, BadPolicy> {
        let resolver = Arc::new(SystemResolver::new(policy.lookups_in_flight));
        Self::with_resolver(policy, resolver)
    }

    /// A visitor with another resolver, whose answers pass the same guard.
    ///
    /// # Errors
    /// [`BadPolicy`] if no visit can succeed under the policy.
    pub fn with_resolver(policy: Policy, resolver: Arc<dyn Resolver>) -> Result<Self, BadPolicy> {
        policy.check()?;
        Ok(Self {
            clients: ClientCache::try_new(&policy)?,
            policy: Arc::new(policy),
            resolver,
            transport: None,
        })
    }

    /// The same visitor over another transport. Guard, deadlines, limits and redirects stay the same.
    #[must_use]
    pub fn with_transport(self, transport: Arc<dyn HttpTransport>) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// Number of HTTP clients that were evicted, because sources have more distinct proxies and certificate authorities
    /// than clients are cached.
    #[must_use]
    pub fn clients_evicted(&self) -> u64 {
        self.clients.evicted()
    }

    /// Makes one visit. It ends within its time limit and the time that its redirects wait for admission, whatever the
    /// server does.
    pub async fn visit(&self, request: &VisitRequest<'_>) -> FetchReport {
        let (started, own) = (Instant::now(), VisitPhaseCell::default());
        let mut progress = VisitProgress {
            now: request.now,
            started,
            phase: request.phase.unwrap_or(&own),
            waited: Duration::ZERO,
            held: None,
            limits: TimeLimits::new(&self.policy, request.timeout, request.timeout_first_byte),
            guard: AddressGuard::new(request.scope, self.proxy(request.options).is_some()),
            is_conditional: !validators(request).is_empty(),
            is_retried: false,
            code: None,
            hops: Vec::new(),
            cookies: VisitCookies::default(),
            timings: Timings::default(),
            headers: Vec::new(),
            links: HeaderLinks::default(),
            cache: Freshness::default(),
            retry_after: None,
            remote: None,
            certificate_expired: None,
            read_by: None,
            body_bytes: 0,
        };
        let answer = Box::pin(self.follow_redirects(request, &mut progress)).await;
        progress.into_report(answer.unwrap_or_else(FetchResult::Failed))
    }

    /// The proxy of requests without another choice: [`Policy::proxy`].
    #[must_use]
    pub fn default_proxy(&self) -> Option<&ProxyUrl> {
        self.policy.proxy.as_ref()
    }

    /// Whether the answer to a request came from a network of [`Policy::allow`]: then the addresses in it are as good as
    /// configured ones. Where a proxy leads is not known.
    #[must_use]
    pub fn is_from_inside(&self, request: &VisitRequest<'_>, report: &FetchReport) -> bool {
        let is_inside = |remote: SocketAddr| is_allowed(&self.policy, &[remote.ip()]);
        self.proxy(request.options).is_none() && report.remote.is_some_and(is_inside)
    }

    /// Why the address that answered would be refused without [`Policy::allow_private`], with the remedy. Behind a proxy only an
    /// address that is written as one is known.
    #[must_use]
    pub fn refusal_without_private(
        &self,
        request: &VisitRequest<'_>,
        report: &FetchReport,
    ) -> Option<String> {
        let policy = Policy { allow_private: false, ..Policy::clone(&self.policy) };
        let (at, port) = (request.url.secret(), request.url.secret().port_or_known_default()?);
        let ip = match (self.proxy(request.options), at.host()?) {
            (None, _) => report.remote?.ip(),
            (Some(_), Host::Ipv4(ip)) => ip.into(),
            (Some(_), Host::Ipv6(ip)) => ip.into(),
            (Some(_), Host::Domain(_)) => return None,
        };
        address::check(&policy, ip.to_canonical(), port).err()
    }

    /// The proxy for requests with these options.
    pub(crate) fn proxy<'a>(&'a self, options: Option<&'a RequestOptions>) -> Option<&'a ProxyUrl> {
        options.map_or(self.default_proxy(), |options| options.profile.proxy(&self.policy))
    }

    /// The client for a profile.
    ///
    /// # Errors
    /// `tls`, `connect` if there can be none.
    pub(crate) fn client(&self, profile: &ConnectionProfile) -> Result<HttpClient, Failure> {
        self.clients.get(&self.policy, profile).map_err(|bad| {
            let class =
                if profile.authorities_pem.is_some() { FailureClass::Tls } else { FailureClass::Connect };
            Failure::new(class, format!("the connection settings of the source are invalid: {bad}"))
        })
    }

    async fn follow_redirects(
        &self,
        request: &VisitRequest<'_>,
        progress: &mut VisitProgress<'_>,
    ) -> Result<FetchResult, Failure> {
        let profile = request.options.map(|options| options.profile.clone()).unwrap_or_default();
        let client = self.client(&profile)?;
        let route = Route { client, proxy: self.proxy(request.options).cloned() };
        let mut at = request.url.clone();
        let mut seen = vec![(without_fragment(at.secret()), None)];
        loop {
            let outgoing = build_request(request, &at, progress);
            let response = self.send(&route, outgoing, progress).await?;
            progress.record_response(&response, &at);
            let is_read = |proxy: &&ProxyUrl| proxy::reads(proxy, Some(at.secret().scheme()));
            progress.read_by = route.proxy.as_ref().filter(is_read).cloned();
            if let Some(gate) = request.gate {
                gate.answered(&at, response.status().as_u16(), progress.retry_after);
            }
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !is_redirect {
                return self.finish(request, &at, response, progress).await;
            }
            let to = self.redirect_target(request, &at, response.headers(), progress.hops.len())?;
            progress.cookies.keep(response.headers(), at.secret(), progress.now);
            // The same address with another cookie is no loop.
            let target = (without_fragment(to.secret()), progress.cookies.to(to.secret(), None));
            if seen.contains(&target) {
                return Err(Failure::new(
                    FailureClass::Redirect,
                    format!("the redirects form a loop at {to}"),
                ));
            }
            seen.push(target);
            progress.hops.push(RedirectHop { code: response.status().as_u16(), from: at, to: to.clone() });
            at = to;
            // The server must not be kept waiting meanwhile.
            drop(response);
            if !progress.enter(request.gate, &at).await {
                return Ok(FetchResult::Throttled);
            }
        }
    }

    /// Sends a request; if no connection was established, retries once after a short pause.
    async fn send(
        &self,
        route: &Route,
        outgoing: Request,
        progress: &mut VisitProgress<'_>,
    ) -> Result<Response, Failure> {
        let again = outgoing.try_clone();
        let error = match Box::pin(self.send_once(route, outgoing, progress)).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let pause = self.policy.retry_pause.mul_f64(0.5 + fastrand::f64());
        let has_time = Instant::now() + pause < progress.limits.total.at;
        match again {
            Some(outgoing) if error.is_unsent && !progress.is_retried && has_time => {
                progress.is_retried = true;
                progress.phase.set(VisitPhase::Retry);
                tokio::time::sleep(pause).await;
                Box::pin(self.send_once(route, outgoing, progress)).await.map_err(|error| error.failure)
            }
            _ => Err(error.failure),
        }
    }

    async fn send_once(
        &self,
        route: &Route,
        outgoing: Request,
        progress: &mut VisitProgress<'_>,
    ) -> Result<Response, ExchangeError> {
        let started = Instant::now();
        progress.phase.set(VisitPhase::Lookup);
        let connect = progress.limits.connect();
        let url = outgoing.url();
        let found = self.addresses(url, route.proxy.as_ref(), &mut progress.guard, connect).await;
        let looked_up = Instant::now();
        progress.timings.dns += looked_up - started;
        let (limits, phase) = (&progress.limits, progress.phase);
        let head = self.exchange(&route.client, outgoing, found?, connect, limits, phase).await;
        let times = head.as_ref().map_or_else(|error| error.times, |head| head.times);
        progress.book(looked_up, times, Instant::now());
        if let Err(ExchangeError { proxy_headers: Some(headers), .. }) = &head {
            progress.retry_after = headers::retry_after(headers, progress.now);
        }
        let Head { response, remote, certificate_until, .. } = head?;
        progress.remote = Some(remote);
        let expired = certificate_until.filter(|until| *until < progress.now);
        progress.certificate_expired = expired.or(progress.certificate_expired);
        Ok(response)
    }

    /// Sends a request to checked addresses, over a client or over the transport in its place.
    pub(crate) async fn exchange(
        &self,
        client: &HttpClient,
        outgoing: Request,
        addresses: Vec<SocketAddr>,
        connect: Deadline,
        limits: &TimeLimits,
        phase: &VisitPhaseCell,
    ) -> Result<Head, ExchangeError> {
        match &self.transport {
            None => exchange::send(client, outgoing, addresses, connect, limits, phase).await,
            Some(network) => {
                exchange::send_over(&**network, &self.policy, outgoing, addresses, limits, phase).await
            }
        }
    }

    /// The addresses to connect to: those of the host, or those of the proxy.
    pub(crate) async fn addresses(
        &self,
        url: &Url,
        proxy: Option<&ProxyUrl>,
        guard: &mut AddressGuard<'_>,
        deadline: Deadline,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(Failure::new(FailureClass::BadUrl, "the address has no host"));
        };
        let (resolver, policy) = (&*self.resolver, &*self.policy);
        let Some(proxy) = proxy else {
            return guard.addresses(resolver, policy, host, port, deadline).await;
        };
        guard.check_behind_proxy(resolver, policy, host, port, deadline).await?;
        proxy_addresses(resolver, proxy, deadline).await
    }

    /// The target of a redirect, if it may be followed. The guard checks its addresses before the next request.
    fn redirect_target(
        &self,
        request: &VisitRequest<'_>,
        at: &FeedUrl,
        head: &HeaderMap,
        hops: usize,
    ) -> Result<FeedUrl, Failure> {
        let refuse = |why: String| Failure::new(FailureClass::Redirect, why);
        if hops >= self.policy.hops_max {
            return Err(refuse(format!("more than {} redirects", self.policy.hops_max)));
        }
        let location = headers::location(head).filter(|location| !location.is_empty());
        let location = location.ok_or_else(|| refuse("a redirect without a Location".to_owned()))?;
        let to = target(at, &location).map_err(|why| Failure::new(FailureClass::BadUrl, why))?;
        let downgrades = at.secret().scheme() == "https" && to.secret().scheme() == "http";
        if downgrades && request.has_secrets() {
            return Err(refuse(
                "redirected from https to http, which would expose the credentials of the feed".to_owned(),
            ));
        }
        Ok(to)
    }

    async fn finish(
        &self,
        request: &VisitRequest<'_>,
        at: &FeedUrl,
        response: Response,
        progress: &mut VisitProgress<'_>,
    ) -> Result<FetchResult, Failure> {
        match response.status().as_u16() {
            200 | 203 => self.full(request, at, response, false, progress).await,
            226 if headers::is_feed_delta(response.headers()) => {
                self.full(request, at, response, true, progress).await
            }
            304 if !conditions(request, at).is_empty() => {
                let (etag, last_modified) = headers::validators(response.headers());
                Ok(FetchResult::NotModified { etag, last_modified })
            }
            304 => Err(Failure::new(
                FailureClass::BadHttp,
                "the server answered 304 to an unconditional request",
            )),
            429 | 503 => Ok(FetchResult::Throttled),
            410 => Ok(FetchResult::Gone),
            _ => Err(refused(&response, progress.read_by.as_ref())),
        }
    }

    async fn full(
        &self,
        request: &VisitRequest<'_>,
        at: &FeedUrl,
        response: Response,
        is_delta: bool,
        progress: &mut VisitProgress<'_>,
    ) -> Result<FetchResult, Failure> {
        headers::check_transfer_codings(response.headers())
            .map_err(|why| Failure::new(FailureClass::BadHttp, why))?;
        let codings = headers::codings(response.headers());
        let codings = codings.map_err(|e| Failure::new(FailureClass::BadEncoding, e.to_string()))?;
        let (etag, last_modified) = headers::validators(response.headers());
        let content_type =
            response.headers().get(CONTENT_TYPE).filter(|_| !headers::is_gzip_file(response.headers()));
        let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let max = request.body_bytes_max.unwrap_or(self.policy.body_bytes_max);
        let started = Instant::now();
        progress.phase.set(VisitPhase::Body);
        let limits = &progress.limits;
        let room = BodyRoom::new(request.budget, max);
        let body =
            body::read(response, &codings, &self.policy, max, room, limits, &mut progress.body_bytes).await;
        progress.timings.body = started.elapsed();
        let body = body?;
        let url = without_credentials(at.secret());
        let (body, body_hash) = (body.bytes, body.hash);
        let validator_key = validator_key(at);
        Ok(FetchResult::Full(Full {
            body,
            body_hash,
            content_type,
            etag,
            last_modified,
            validator_key,
            url,
            is_delta,
        }))
    }
}

impl VisitProgress<'_> {
    /// Waits until the next address may be requested; `false` if it may not.
    async fn enter(&mut self, gate: Option<&dyn HopGate>, at: &FeedUrl) -> bool {
        match hop_gate::admit(gate, at, &mut self.limits).await {
            Ok(waited) => {
                self.waited += waited;
                true
            }
            Err((waited, HeldHop { why, wait })) => {
                self.waited += waited;
                self.retry_after = wait;
                self.held = Some(why);
                false
            }
        }
    }

    /// Adds the parts of an exchange to the timings.
    fn book(&mut self, looked_up: Instant, times: ExchangeTimes, ended: Instant) {
        let connected = times.connected.unwrap_or(ended);
        let handshake = times.handshake.unwrap_or(connected);
        self.timings.connect += handshake - looked_up;
        self.timings.tls += connected - handshake;
        self.timings.first_byte += ended - connected;
    }

    fn record_response(&mut self, response: &Response, at: &FeedUrl) {
        let (status, head) = (response.status(), response.headers());
        let url = without_credentials(at.secret());
        self.code = Some(status.as_u16());
        self.headers = headers::shown(head, &url);
        self.links = links::links(head, &url);
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            self.cache = headers::cache_life(head, self.now);
        } else if status.is_client_error() || status.is_server_error() {
            self.retry_after = headers::retry_after(head, self.now);
        }
    }

    fn into_report(self, answer: FetchResult) -> FetchReport {
        // An incomplete response is never fresh.
        let cache = if matches!(answer, FetchResult::Failed(_)) { Freshness::default() } else { self.cache };
        FetchReport {
            answer,
            code: self.code,
            is_conditional: self.is_conditional,
            hops: self.hops,
            timings: Timings { total: self.started.elapsed().saturating_sub(self.waited), ..self.timings },
            headers: self.headers,
            links: self.links,
            cache,
            retry_after: self.retry_after,
            remote: self.remote,
            body_bytes: self.body_bytes,
            held: self.held,
            certificate_expired: self.certificate_expired,
            read_by: self.read_by,
        }
    }
}

/// The address that a `Location` means; the error has no secrets.
fn target(at: &FeedUrl, location: &str) -> Result<FeedUrl, String> {
    let url = at.secret().join(location).map(|url| without_credentials(&url));
    let url = url.map_err(|why| format!("redirected to an address that is not valid: {why}"))?;
    if url.as_str().len() > FeedUrl::LENGTH_MAX {
        let (length, max) = (url.as_str().len(), FeedUrl::LENGTH_MAX);
        return Err(format!("redirected to an address of {length} bytes; the maximum is {max}"));
    }
    FeedUrl::try_new(url.as_str()).map_err(|_| {
        format!("redirected to an address that is not http or https ({}:…)", Escaped(url.scheme()))
    })
}

/// The request for one address: conditional, with the feed's credentials only for the host they belong to.
fn build_request(request: &VisitRequest<'_>, at: &FeedUrl, progress: &VisitProgress<'_>) -> Request {
    let mut outgoing = Request::new(Method::GET, without_credentials(at.secret()));
    let headers = outgoing.headers_mut();
    // Also after a detour over others. A redirect from https to http has ended a visit with secrets before.
    let is_same_site = is_same_origin_or_upgrade(request.url.secret(), at.secret());
    if is_same_site {
        headers.extend(basic_of(request.url.secret()).map(|value| (AUTHORIZATION, value)));
    }
    if let Some(options) = request.options {
        options.apply_to(headers, is_same_site);
    }
    let conditions = conditions(request, at);
    if !conditions.is_empty() {
        headers.insert(A_IM, FEED);
    }
    headers.extend(conditions);
    progress.cookies.add_to(headers, at.secret());
    outgoing
}

/// The headers that make a request conditional; none if another address issued the validators.
fn conditions(request: &VisitRequest<'_>, at: &FeedUrl) -> Vec<(HeaderName, HeaderValue)> {
    if request.validator_key.is_some_and(|by| by != validator_key(at)) {
        return Vec::new();
    }
    validators(request)
}

/// The validators as headers; those that are not valid header values are ignored.
fn validators(request: &VisitRequest<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let validators = [(IF_NONE_MATCH, request.etag), (IF_MODIFIED_SINCE, request.last_modified)];
    let value = |validator: &str| HeaderValue::from_bytes(validator.as_bytes()).ok();
    validators.into_iter().filter_map(|(name, validator)| Some((name, value(validator?)?))).collect()
}

/// The failure for an unsuccessful status. A proxy that reads the request may have answered it.
fn refused(response: &Response, proxy: Option<&ProxyUrl>) -> Failure {
    let challenge = response.headers().get("cf-mitigated").is_some_and(|value| value == "challenge");
    let hint = if challenge { " and asks for a challenge to be solved in a browser" } else { "" };
    let (status, line) = (response.status(), status_line(response.status()));
    let message = match proxy {
        Some(proxy) if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            format!("the proxy {proxy} answered {line}; {}", login_advice_for(proxy))
        }
        proxy => format!("{} answered {line}{hint}", answerer(proxy)),
    };
    Failure::new(FailureClass::HttpStatus, message)
}

fn without_fragment(url: &Url) -> Url {
    let mut url = without_credentials(url);
    url.set_fragment(None);
    url
}

/// A hash of the address that issued validators, without user name, password and fragment.
#[must_use]
pub fn validator_key(url: &FeedUrl) -> u64 {
    news::stable_hash(without_fragment(url.secret()).as_str().as_bytes())
}

/// Whether credentials for one address may be sent to the other.
#[must_use]
pub fn may_share_credentials(from: &FeedUrl, to: &FeedUrl) -> bool {
    is_same_origin_or_upgrade(from.secret(), to.secret())
}

/// Whether credentials for one address may be sent to the other: the same origin, or an upgrade from http to https.
fn is_same_origin_or_upgrade(from: &Url, to: &Url) -> bool {
    let port = |url: &Url| url.port_or_known_default();
    let same = from.scheme() == to.scheme() && port(from) == port(to);
    let upgraded =
        from.scheme() == "http" && to.scheme() == "https" && port(from) == Some(80) && port(to) == Some(443);
    from.host() == to.host() && (same || upgraded)
}

#[cfg(test)]
mod tests;
