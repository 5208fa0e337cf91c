//! Feed discovery for `sources add`: the URL of a feed, or of a page that names its feeds (`<link rel="alternate">`).
//!
//! No URL is guessed: servers ban feed readers that request pages which do not exist. One GET if the URL is a feed, one
//! more for the first feed that a page names, and never a third.

use feed::{FeedDocument, FeedError, Hints};
use fetch::{
    AddressScope, FailureClass, FetchReport, FetchResult, HeldHop, RequestOptions, VisitRequest, Visitor,
};
use news::FeedUrl;
use serde::Serialize;
use tokio::time::Instant;

/// A feed that was found and read; adding it needs no further request.
#[derive(Debug)]
pub(crate) struct Discovered {
    /// Its URL: the requested one, unless every redirect on the way was permanent.
    pub(crate) url: FeedUrl,
    /// Its own title.
    pub(crate) title: Option<String>,
    /// The parsed feed.
    pub(crate) document: FeedDocument,
    /// The other feeds that the page names, in document order; empty if the URL was a feed.
    pub(crate) others: Vec<FeedUrl>,
    /// The visit that the document is from, as a visit to [`Discovered::url`].
    pub(crate) visit: FetchReport,
    /// When it arrived.
    pub(crate) arrived: Instant,
}

/// Why no feed was found.
#[derive(Debug, thiserror::Error)]
#[error("{failure}")]
pub(crate) struct DiscoveryFailure {
    pub(crate) failure: FeedFailure,
    /// No server answers there at all, or none that speaks TLS to an https address.
    pub(crate) is_without_server: bool,
}

impl From<FeedFailure> for DiscoveryFailure {
    fn from(failure: FeedFailure) -> Self {
        Self { failure, is_without_server: false }
    }
}

/// Why there is no document: a failure class, or `unreadable` for a file, and a sentence.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("{kind}: {message}")]
pub(crate) struct FeedFailure {
    pub(crate) kind: String,
    pub(crate) message: String,
}

impl FeedFailure {
    pub(crate) fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), message: message.into() }
    }

    fn of_status(message: impl Into<String>) -> Self {
        Self::new(FailureClass::HttpStatus.as_str(), message)
    }
}

impl From<FeedError> for FeedFailure {
    fn from(error: FeedError) -> Self {
        Self::new(error.class().as_str(), error.to_string())
    }
}

/// Finds the feed behind the URL of a request.
///
/// # Errors
/// [`DiscoveryFailure`] of the last visit, if neither the URL nor the first feed that the page names is a feed.
pub(crate) async fn discover(
    visitor: &Visitor,
    request: &VisitRequest<'_>,
) -> Result<Discovered, DiscoveryFailure> {
    let url = request.url;
    let (mut others, scope) = match fetch_feed(visitor, request).await {
        Ok(found) => return Ok(found),
        Err(NoFeed::Page { feeds, is_of_its_host: true, .. }) if !feeds.is_empty() => {
            (feeds, AddressScope::Configured(url))
        }
        // What another host says reaches public addresses only.
        Err(NoFeed::Page { feeds, .. }) if !feeds.is_empty() => (feeds, AddressScope::Named),
        Err(no_feed) => return Err(no_feed.into()),
    };
    let first = others.remove(0);
    if has_secrets(request) && !fetch::may_share_credentials(url, &first) {
        let message = format!(
            "the page names {first}, which is not on its own host; add that address itself if its host may get the headers \
             and credentials"
        );
        return Err(FeedFailure::new(FailureClass::NotAFeed.as_str(), message).into());
    }
    let found = fetch_feed(visitor, &VisitRequest { url: &first, scope, ..*request }).await?;
    Ok(Discovered { others, ..found })
}

/// Why one GET returned no feed.
enum NoFeed {
    /// The document is not a feed, but may name some.
    Page {
        feeds: Vec<FeedUrl>,
        /// No redirect led to it from another host.
        is_of_its_host: bool,
        failure: FeedFailure,
    },
    Other(DiscoveryFailure),
}

impl From<NoFeed> for DiscoveryFailure {
    fn from(no_feed: NoFeed) -> Self {
        match no_feed {
            NoFeed::Page { failure, .. } => failure.into(),
            NoFeed::Other(failure) => failure,
        }
    }
}

async fn fetch_feed(visitor: &Visitor, request: &VisitRequest<'_>) -> Result<Discovered, NoFeed> {
    let url = request.url;
    if let Some(gate) = request.gate {
        gate.enter(url).await.map_err(held)?;
    }
    let mut visit = visitor.visit(request).await;
    let arrived = Instant::now();
    if let Some(why) = visit.held.take() {
        return Err(held(HeldHop { why, wait: visit.retry_after }));
    }
    let document = read_document(&visit).map_err(|failure| {
        NoFeed::Other(DiscoveryFailure { failure, is_without_server: is_without_server(&visit) })
    })?;
    match document {
        Ok(document) => {
            let (listed, title) = (permanent_url(request, &visit), document.feed.title.clone());
            if listed != *url {
                visit.hops.clear();
            }
            Ok(Discovered { url: listed, title, document, others: Vec::new(), visit, arrived })
        }
        Err(error) => {
            let feeds = match &error {
                FeedError::NotAFeed { feeds, .. } => feeds.as_slice(),
                _ => &[],
            };
            let feeds = feeds.iter().filter_map(|feed| FeedUrl::try_new(feed).ok()).collect();
            let is_of_its_host = visit.hops.iter().all(|hop| hop.to.host() == url.host());
            Err(NoFeed::Page { feeds, is_of_its_host, failure: error.into() })
        }
    }
}

/// A host that the running daemon does not ask now, either.
fn held(HeldHop { why, .. }: HeldHop) -> NoFeed {
    let message = format!(
        "{why}; newswire-ingestd keeps to that, so nothing was requested: try again then, or write the source into the list, \
         from where it is visited in time"
    );
    NoFeed::Other(FeedFailure::of_status(&message).into())
}

/// No server answers at the address itself, or none that speaks TLS to an https address.
pub(crate) fn is_without_server(visit: &FetchReport) -> bool {
    visit.hops.is_empty()
        && matches!(&visit.answer, FetchResult::Failed(failed)
            if failed.class == FailureClass::Connect || failed.is_without_tls)
}

/// The URL to write into the list: the target of the redirects only if all of them are permanent, and only if it may get the
/// credentials.
fn permanent_url(request: &VisitRequest<'_>, visit: &FetchReport) -> FeedUrl {
    let requested = request.url;
    let has_credentials =
        !requested.secret().username().is_empty() || requested.secret().password().is_some();
    let may_have = |to: &FeedUrl| !has_secrets(request) || fetch::may_share_credentials(requested, to);
    match visit.hops.last() {
        Some(last)
            if !has_credentials
                && may_have(&last.to)
                && visit.hops.iter().all(fetch::RedirectHop::is_permanent) =>
        {
            last.to.clone()
        }
        _ => requested.clone(),
    }
}

fn has_secrets(request: &VisitRequest<'_>) -> bool {
    request.options.is_some_and(RequestOptions::has_secrets)
}

/// Parses the document of a visit.
///
/// # Errors
/// The outer error says why the visit returned no document, the inner one why the document is not a feed.
pub(crate) fn read_document(visit: &FetchReport) -> Result<Result<FeedDocument, FeedError>, FeedFailure> {
    match &visit.answer {
        FetchResult::Full(full) => {
            let content_type = full.content_type.as_deref();
            Ok(feed::read(&full.body, &Hints { url: Some(&full.url), content_type, language: None }))
        }
        FetchResult::Failed(failure) => {
            Err(FeedFailure::new(failure.class.as_str(), failure.message.clone()))
        }
        FetchResult::NotModified { .. } => {
            Err(FeedFailure::of_status("the server answered 304 to a request without validators"))
        }
        FetchResult::Throttled => {
            Err(FeedFailure::of_status(format!("{} throttles requests; try again later", visit.answerer())))
        }
        FetchResult::Gone => Err(FeedFailure::of_status("the feed is gone (410)")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use fetch::Policy;
    use news::Timestamp;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const FEED: &str = "<rss version='2.0'><channel><title>The feed</title><link>http://x.example/</link>\
                        <description>d</description></channel></rss>";
    const PAGE: &str = "<!doctype html><title>A page</title>\
                        <link rel=alternate type=application/rss+xml href=/feed>\
                        <link rel=alternate type=application/atom+xml href=/comments>";

    /// An origin, and the paths that were requested from it.
    pub(crate) async fn origin() -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let requested = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requested);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap().to_owned();
                let (status, extra, body) = match path.as_str() {
                    "/feed" => ("200 OK", String::new(), FEED),
                    "/page" => ("200 OK", String::new(), PAGE),
                    "/moved" => ("301 Moved Permanently", "location: /feed\r\n".to_owned(), ""),
                    "/dead" => ("302 Found", "location: http://127.0.0.1:1/\r\n".to_owned(), ""),
                    "/detour" => ("302 Found", "location: /feed\r\n".to_owned(), ""),
                    "/bare" => ("200 OK", String::new(), "<!doctype html><p>nothing here</p>"),
                    _ => ("404 Not Found", String::new(), ""),
                };
                log.lock().unwrap().push(path);
                let head = format!(
                    "HTTP/1.1 {status}\r\n{extra}content-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
            }
        });
        (base, requested)
    }

    async fn find(path: &str) -> (String, Result<Discovered, DiscoveryFailure>, Vec<String>) {
        let (base, requested) = origin().await;
        let visitor = Visitor::try_new(Policy { allow_private: true, ..Policy::default() }).unwrap();
        let url = FeedUrl::try_new(&format!("{base}{path}")).unwrap();
        let found = discover(&visitor, &VisitRequest::new(&url, Timestamp::from_millis(0))).await;
        let requested = requested.lock().unwrap().clone();
        (base, found, requested)
    }

    #[tokio::test]
    async fn a_url_that_is_a_feed_costs_one_get() {
        let (base, found, requested) = find("/feed").await;
        let found = found.unwrap();
        assert_eq!(found.url.secret().as_str(), format!("{base}/feed"));
        assert_eq!(found.title.as_deref(), Some("The feed"));
        assert_eq!(requested, ["/feed"]);
    }

    #[tokio::test]
    async fn a_page_costs_one_more_get_for_the_first_feed_that_it_names() {
        let (base, found, requested) = find("/page").await;
        let found = found.unwrap();
        assert_eq!(found.url.secret().as_str(), format!("{base}/feed"));
        let others: Vec<_> = found.others.iter().map(|url| url.secret().path().to_owned()).collect();
        assert_eq!(others, ["/comments"]);
        assert_eq!(requested, ["/page", "/feed"]);
    }

    #[tokio::test]
    async fn only_a_permanent_redirect_changes_the_url_in_the_list() {
        let (base, found, _) = find("/moved").await;
        assert_eq!(found.unwrap().url.secret().as_str(), format!("{base}/feed"));
        let (base, found, _) = find("/detour").await;
        assert_eq!(found.unwrap().url.secret().as_str(), format!("{base}/detour"));
    }

    #[tokio::test]
    async fn no_url_is_guessed_if_a_page_names_no_feed() {
        let (_, found, requested) = find("/bare").await;
        assert_eq!(found.unwrap_err().failure.kind, "not-a-feed");
        assert_eq!(requested, ["/bare"]);
    }
}
