//! Step 2 of the life of an item: from a feed's address, through its redirects, to a document, a 304 or a failure.
//!
//! ```text
//!   address ─► guard ─► connection ─► head ─┬─ 3xx ─► next address (guard again, at most 5)
//!                         └ one retry       ├─ 200, 203, 226 ─► body ─► Full
//!                                           └─ 304, 429, 503, 410, anything else
//! ```

use std::{net::SocketAddr, sync::Arc, time::Duration};

use news::{Escaped, FeedUrl, Timestamp};
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH},
};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use url::{Host, Url};

use crate::{
    BadPolicy, Failure, FailureClass, FetchReport, FetchResult, Freshness, Full, HeaderLinks, HttpTransport,
    Policy, RedirectHop, RequestOptions, Resolver, SystemResolver, Timings, body,
    clients::Clients,
    exchange::{self, Deadlines, Fault, Head},
    failure, headers, links, resolver,
};

const A_IM: HeaderName = HeaderName::from_static("a-im");

/// What to visit, and what we have of it already.
#[derive(Clone, Copy, Debug)]
pub struct VisitRequest<'a> {
    /// The feed.
    pub url: &'a FeedUrl,
    /// The `ETag` that its server gave us, byte for byte.
    pub etag: Option<&'a str>,
    /// The `Last-Modified` that its server gave us, byte for byte.
    pub last_modified: Option<&'a str>,
    /// Which address gave them ([`Full::validator_key`]): they are sent to no other on the way. Nothing: to every one.
    pub validator_key: Option<u64>,
    /// The deadline of the whole visit, instead of [`Policy::timeout_total`].
    pub timeout: Option<Duration>,
    /// Longest body in bytes after decoding, instead of [`Policy::body_bytes_max`].
    pub body_bytes_max: Option<usize>,
    /// How it is asked, when not as all the others are.
    pub manner: Option<&'a RequestOptions>,
    /// What time it is.
    pub now: Timestamp,
}

impl<'a> VisitRequest<'a> {
    /// An unconditional request, asked as all the others are.
    #[must_use]
    pub fn new(url: &'a FeedUrl, now: Timestamp) -> Self {
        Self {
            url,
            etag: None,
            last_modified: None,
            validator_key: None,
            timeout: None,
            body_bytes_max: None,
            manner: None,
            now,
        }
    }

    fn has_secrets(&self) -> bool {
        has_credentials(self.url) || self.manner.is_some_and(RequestOptions::has_secrets)
    }
}

/// Makes visits. A clone shares everything with its original; one for each thread is enough.
#[derive(Clone)]
pub struct Visitor {
    pub(crate) clients: Clients,
    pub(crate) policy: Arc<Policy>,
    pub(crate) resolver: Arc<dyn Resolver>,
    /// Nothing for the machine's own network.
    transport: Option<Arc<dyn HttpTransport>>,
}

/// Who asks: the client, and the proxy that it goes through.
struct Asker {
    client: Client,
    proxy: Option<FeedUrl>,
}

/// What is learned on the way, whatever the visit comes to.
struct Trip {
    now: Timestamp,
    started: Instant,
    deadline: Instant,
    is_conditional: bool,
    is_retried: bool,
    code: Option<u16>,
    hops: Vec<RedirectHop>,
    timings: Timings,
    headers: Vec<(String, String)>,
    links: HeaderLinks,
    cache: Freshness,
    retry_after: Option<Duration>,
    remote: Option<SocketAddr>,
    body_bytes: u64,
}

impl Visitor {
    /// A visitor that looks names up as the machine does.
    ///
    /// # Errors
    /// [`BadPolicy`] when no visit could ever succeed under the policy.
    pub fn try_new(policy: Policy) -> Result<Self, BadPolicy> {
        let resolver = Arc::new(SystemResolver::new(policy.lookups_in_flight));
        Self::with_resolver(policy, resolver)
    }

    /// A visitor that looks names up with a resolver from outside. Its answers go through the same guard.
    ///
    /// # Errors
    /// [`BadPolicy`] when no visit could ever succeed under the policy.
    pub fn with_resolver(policy: Policy, resolver: Arc<dyn Resolver>) -> Result<Self, BadPolicy> {
        policy.check()?;
        Ok(Self { clients: Clients::try_new(&policy)?, policy: Arc::new(policy), resolver, transport: None })
    }

    /// The same visitor over a network from outside. Guard, deadlines, caps and redirects stay its own.
    #[must_use]
    pub fn with_transport(self, transport: Arc<dyn HttpTransport>) -> Self {
        Self { transport: Some(transport), ..self }
    }

    /// How many HTTP clients had to make room, because sources have more distinct proxies and authorities than are
    /// held at once.
    #[must_use]
    pub fn clients_displaced(&self) -> u64 {
        self.clients.displaced()
    }

    /// Makes one visit. It ends before the request's deadline, whatever the server does.
    pub async fn visit(&self, request: &VisitRequest<'_>) -> FetchReport {
        let started = Instant::now();
        let mut trip = Trip {
            now: request.now,
            started,
            deadline: started + request.timeout.unwrap_or(self.policy.timeout_total),
            is_conditional: !validators(request).is_empty(),
            is_retried: false,
            code: None,
            hops: Vec::new(),
            timings: Timings::default(),
            headers: Vec::new(),
            links: HeaderLinks::default(),
            cache: Freshness::default(),
            retry_after: None,
            remote: None,
            body_bytes: 0,
        };
        let answer = Box::pin(self.travel(request, &mut trip)).await;
        trip.end(answer.unwrap_or_else(FetchResult::Failed))
    }

    async fn travel(&self, request: &VisitRequest<'_>, trip: &mut Trip) -> Result<FetchResult, Failure> {
        let way = request.manner.map(|manner| manner.way.clone()).unwrap_or_default();
        let client = self.clients.get(&self.policy, &way).map_err(|bad| {
            let class = if way.authorities_pem.is_some() { FailureClass::Tls } else { FailureClass::Connect };
            Failure::new(class, format!("its own way of asking cannot be set up: {bad}"))
        })?;
        let asker = Asker { client, proxy: way.proxy };
        let mut at = request.url.clone();
        let mut seen = vec![without_fragment(at.secret())];
        loop {
            let question = self.question(&asker, request, &at, trip)?;
            let response = self.ask(&asker, question, trip).await?;
            trip.hear(&response);
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !is_redirect {
                return self.settle(request, &at, response, trip).await;
            }
            let to = self.follow(request, &at, response.headers(), trip.hops.len())?;
            let target = without_fragment(to.secret());
            if seen.contains(&target) {
                return Err(Failure::new(
                    FailureClass::Redirect,
                    format!("the redirects run in a circle at {to}"),
                ));
            }
            seen.push(target);
            trip.hops.push(RedirectHop { code: response.status().as_u16(), from: at, to: to.clone() });
            at = to;
        }
    }

    /// The request for one address: conditional, and with the feed's credentials only where they belong.
    fn question(
        &self,
        asker: &Asker,
        request: &VisitRequest<'_>,
        at: &FeedUrl,
        trip: &Trip,
    ) -> Result<reqwest::Request, Failure> {
        let mut url = without_credentials(at.secret());
        let belongs = trip.hops.iter().all(|hop| is_same_place(hop.from.secret(), hop.to.secret()));
        let manner = request.manner.cloned().unwrap_or_default();
        if belongs && has_credentials(request.url) && !manner.has_credential() {
            // reqwest takes them out of the address again and sends them as `Authorization`.
            let (name, password) = (request.url.secret().username(), request.url.secret().password());
            url.set_username(name)
                .and_then(|()| url.set_password(password))
                .expect("web addresses may have both");
        }
        let mut question = manner.dress(asker.client.request(Method::GET, url), belongs);
        let conditions = conditions(request, at);
        let is_conditional = !conditions.is_empty();
        for (name, value) in conditions {
            question = question.header(name, value);
        }
        if is_conditional {
            question = question.header(A_IM, "feed");
        }
        question.build().map_err(|e| failure::of_connection(&e.without_url(), at.host()))
    }

    /// Asks, and when no connection came about asks once more after a short pause.
    async fn ask(
        &self,
        asker: &Asker,
        question: reqwest::Request,
        trip: &mut Trip,
    ) -> Result<Response, Failure> {
        let again = question.try_clone();
        let fault = match Box::pin(self.ask_once(asker, question, trip)).await {
            Ok(response) => return Ok(response),
            Err(fault) => fault,
        };
        let pause = self.policy.retry_pause.mul_f64(0.5 + fastrand::f64());
        let has_time = Instant::now() + pause < trip.deadline;
        match again {
            Some(question) if fault.is_unasked && !trip.is_retried && has_time => {
                trip.is_retried = true;
                tokio::time::sleep(pause).await;
                Box::pin(self.ask_once(asker, question, trip)).await.map_err(|fault| fault.failure)
            }
            _ => Err(fault.failure),
        }
    }

    async fn ask_once(
        &self,
        asker: &Asker,
        question: reqwest::Request,
        trip: &mut Trip,
    ) -> Result<Response, Fault> {
        let started = Instant::now();
        let connect = (started + self.policy.timeout_connect).min(trip.deadline);
        let url = question.url();
        let found = self.addresses(url, asker.proxy.as_ref(), connect).await;
        let looked_up = Instant::now();
        trip.timings.dns += looked_up - started;
        let addresses = found.map_err(|failure| Fault { failure, is_unasked: false })?;
        let deadlines = Deadlines { connect, total: trip.deadline };
        let head = match &self.transport {
            None => exchange::ask(&asker.client, &self.policy, question, addresses, deadlines).await,
            Some(network) => {
                exchange::ask_over(&**network, &self.policy, question, addresses, deadlines).await
            }
        };
        let ended = Instant::now();
        let connected = head.as_ref().map_or(ended, |head| head.connected);
        trip.timings.connect += connected - looked_up;
        trip.timings.head += ended - connected;
        let Head { response, remote, .. } = head?;
        trip.remote = Some(remote);
        Ok(response)
    }

    /// Whom to dial for an address: the addresses behind its host, or those of the proxy.
    async fn addresses(
        &self,
        url: &Url,
        proxy: Option<&FeedUrl>,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let place = |url: &Url| Some((url.host()?.to_owned(), url.port_or_known_default()?));
        let no_host = || Failure::new(FailureClass::BadUrl, "the address has no host");
        let (host, port) = place(url).ok_or_else(no_host)?;
        let (resolver, policy) = (&*self.resolver, &*self.policy);
        let Some(proxy) = proxy else {
            return resolver::addresses(resolver, policy, borrowed(&host), port, deadline).await;
        };
        resolver::check_behind_proxy(policy, &borrowed(&host), port)?;
        let (host, port) = place(proxy.secret()).ok_or_else(no_host)?;
        resolver::proxy_addresses(resolver, policy, borrowed(&host), port, deadline).await
    }

    /// The target of a redirect, if it may be followed. The guard has its say when it is dialled.
    fn follow(
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
        let location = location.ok_or_else(|| refuse("a redirect that does not say where to".to_owned()))?;
        let to = at.secret().join(&location).ok().map(|url| without_credentials(&url));
        let to = to.and_then(|url| FeedUrl::try_new(url.as_str()).ok()).ok_or_else(|| {
            // Up to the colon there is no secret in it.
            let scheme = location.split_once(':').map_or("", |(scheme, _)| scheme);
            let message = format!("redirected to no http or https address ({}:…)", Escaped(scheme));
            Failure::new(FailureClass::BadUrl, message)
        })?;
        let downgrades = at.secret().scheme() == "https" && to.secret().scheme() == "http";
        if downgrades && request.has_secrets() {
            return Err(refuse(
                "redirected from https to http, which would show the feed's credentials".to_owned(),
            ));
        }
        Ok(to)
    }

    async fn settle(
        &self,
        request: &VisitRequest<'_>,
        at: &FeedUrl,
        response: Response,
        trip: &mut Trip,
    ) -> Result<FetchResult, Failure> {
        match response.status().as_u16() {
            200 | 203 => self.full(request, at, response, false, trip).await,
            226 if headers::is_feed_delta(response.headers()) => {
                self.full(request, at, response, true, trip).await
            }
            304 if !conditions(request, at).is_empty() => {
                let (etag, last_modified) = headers::validators(response.headers());
                Ok(FetchResult::NotModified { etag, last_modified })
            }
            304 => Err(Failure::new(
                FailureClass::BadHttp,
                "answered 304 although nothing was asked conditionally",
            )),
            429 | 503 => Ok(FetchResult::Throttled),
            410 => Ok(FetchResult::Gone),
            _ => Err(refused(&response)),
        }
    }

    async fn full(
        &self,
        request: &VisitRequest<'_>,
        at: &FeedUrl,
        response: Response,
        is_delta: bool,
        trip: &mut Trip,
    ) -> Result<FetchResult, Failure> {
        if let Some(codings) = headers::undecoded(response.headers()) {
            let message =
                format!("the content coding {} is none that is understood alone", Escaped(&codings));
            return Err(Failure::new(FailureClass::BadEncoding, message));
        }
        let (etag, last_modified) = headers::validators(response.headers());
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let max = request.body_bytes_max.unwrap_or(self.policy.body_bytes_max);
        let started = Instant::now();
        let body = body::read(response, &self.policy, max, trip.deadline, &mut trip.body_bytes).await;
        trip.timings.body = started.elapsed();
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

impl Trip {
    fn hear(&mut self, response: &Response) {
        let (status, head) = (response.status(), response.headers());
        self.code = Some(status.as_u16());
        self.headers = headers::shown(head, response.url());
        self.links = links::links(head, response.url());
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            self.cache = headers::cache_life(head, self.now);
        } else if status.is_client_error() || status.is_server_error() {
            self.retry_after = headers::retry_after(head, self.now);
        }
    }

    fn end(self, answer: FetchResult) -> FetchReport {
        // An answer that did not arrive whole stays fresh for nobody.
        let cache = if matches!(answer, FetchResult::Failed(_)) { Freshness::default() } else { self.cache };
        FetchReport {
            answer,
            code: self.code,
            is_conditional: self.is_conditional,
            hops: self.hops,
            timings: Timings { total: self.started.elapsed(), ..self.timings },
            headers: self.headers,
            links: self.links,
            cache,
            retry_after: self.retry_after,
            remote: self.remote,
            body_bytes: self.body_bytes,
        }
    }
}

/// The headers that make a request to one address conditional: none for another address than issued the validators.
fn conditions(request: &VisitRequest<'_>, at: &FeedUrl) -> Vec<(HeaderName, HeaderValue)> {
    if request.validator_key.is_some_and(|by| by != validator_key(at)) {
        return Vec::new();
    }
    validators(request)
}

/// The validators as headers. One that cannot stand in a header never came from one.
fn validators(request: &VisitRequest<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let validators = [(IF_NONE_MATCH, request.etag), (IF_MODIFIED_SINCE, request.last_modified)];
    let value = |validator: &str| HeaderValue::from_bytes(validator.as_bytes()).ok();
    validators.into_iter().filter_map(|(name, validator)| Some((name, value(validator?)?))).collect()
}

/// A status that brings no feed.
fn refused(response: &Response) -> Failure {
    let challenge = response.headers().get("cf-mitigated").is_some_and(|value| value == "challenge");
    let hint = if challenge { ", and wants a browser to solve a challenge" } else { "" };
    // `StatusCode` shows the standard's phrase, never the server's.
    Failure::new(FailureClass::HttpStatus, format!("the server answered {}{hint}", response.status()))
}

fn has_credentials(url: &FeedUrl) -> bool {
    !url.secret().username().is_empty() || url.secret().password().is_some()
}

pub(crate) fn without_credentials(url: &Url) -> Url {
    let mut url = url.clone();
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        // Only addresses without a host refuse, and those have no credentials either.
    }
    url
}

fn without_fragment(url: &Url) -> Url {
    let mut url = without_credentials(url);
    url.set_fragment(None);
    url
}

fn borrowed(host: &Host) -> Host<&str> {
    match host {
        Host::Domain(name) => Host::Domain(name),
        Host::Ipv4(ip) => Host::Ipv4(*ip),
        Host::Ipv6(ip) => Host::Ipv6(*ip),
    }
}

/// A number for the address that gives validators: without user name, password and fragment.
#[must_use]
pub fn validator_key(url: &FeedUrl) -> u64 {
    let digest = Sha256::digest(without_fragment(url.secret()).as_str().as_bytes());
    digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// Whether credentials for one address may go to the other.
#[must_use]
pub fn may_share_credentials(from: &FeedUrl, to: &FeedUrl) -> bool {
    is_same_place(from.secret(), to.secret())
}

/// Whether credentials for one address may go to the other: the same host and port, or its move to https.
fn is_same_place(from: &Url, to: &Url) -> bool {
    let port = |url: &Url| url.port_or_known_default();
    let same = from.scheme() == to.scheme() && port(from) == port(to);
    let upgraded =
        from.scheme() == "http" && to.scheme() == "https" && port(from) == Some(80) && port(to) == Some(443);
    from.host() == to.host() && (same || upgraded)
}

#[cfg(test)]
mod tests;
