//! From the address that a person has to the feed behind it: what `check` shows and `sources add` takes.
//!
//! A page names its feeds itself (`<link rel="alternate">`); nothing is guessed, because asking a server for pages
//! that it does not have is what feed readers are banned for. So: one GET when the address is a feed already, one
//! more for the first feed that a page names, and never a third.

use feed::{FeedDocument, FeedError, Hints};
use fetch::{FailureClass, FetchReport, FetchResult, VisitRequest, Visitor};
use news::{FeedUrl, Timestamp};
use serde::Serialize;

/// A feed that was found, read already: nobody needs to fetch it again to add it.
#[derive(Debug)]
pub(crate) struct Discovered {
    /// Its address: as it was asked for, unless every redirect on the way was permanent.
    pub(crate) url: FeedUrl,
    /// What it calls itself.
    pub(crate) title: Option<String>,
    /// What it holds.
    pub(crate) document: FeedDocument,
    /// The other feeds that the page names, in its order; none when the address was a feed.
    pub(crate) others: Vec<FeedUrl>,
}

/// Why there is no document: a failure class, or `unreadable` for a file, and one sentence.
#[derive(Debug, Serialize, thiserror::Error)]
#[error("{kind}: {message}")]
pub(crate) struct FeedFailure {
    pub(crate) kind: String,
    pub(crate) message: String,
}

impl FeedFailure {
    pub(crate) fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), message: message.into() }
    }

    fn of_status(message: &str) -> Self {
        Self::new(FailureClass::HttpStatus.as_str(), message)
    }
}

impl From<FeedError> for FeedFailure {
    fn from(error: FeedError) -> Self {
        Self::new(error.class().as_str(), error.to_string())
    }
}

/// Finds the feed behind an address.
///
/// # Errors
/// [`FeedFailure`] of the last visit, when neither the address nor the first feed that it names is one.
pub(crate) async fn discover(
    visitor: &Visitor,
    url: &FeedUrl,
    now: Timestamp,
) -> Result<Discovered, FeedFailure> {
    let mut others = match look(visitor, url, now).await {
        Ok(found) => return Ok(found),
        Err(NoFeed::Page { feeds, .. }) if !feeds.is_empty() => feeds,
        Err(miss) => return Err(miss.into()),
    };
    let named = others.remove(0);
    let found = look(visitor, &named, now).await?;
    Ok(Discovered { others, ..found })
}

/// What one GET did not find.
enum NoFeed {
    /// Something that is no feed, and the feeds that it names.
    Page {
        feeds: Vec<FeedUrl>,
        fault: FeedFailure,
    },
    Other(FeedFailure),
}

impl From<NoFeed> for FeedFailure {
    fn from(miss: NoFeed) -> Self {
        match miss {
            NoFeed::Page { fault, .. } | NoFeed::Other(fault) => fault,
        }
    }
}

async fn look(visitor: &Visitor, url: &FeedUrl, now: Timestamp) -> Result<Discovered, NoFeed> {
    let request = VisitRequest::new(url, now);
    let visit = visitor.visit(&request).await;
    let document = read_answer(&visit.answer).map_err(NoFeed::Other)?;
    match document {
        Ok(document) => {
            let (url, title) = (lasting(url, &visit), document.feed.title.clone());
            Ok(Discovered { url, title, document, others: Vec::new() })
        }
        Err(error) => {
            let feeds = match &error {
                FeedError::NotAFeed { feeds, .. } => feeds.as_slice(),
                _ => &[],
            };
            let feeds = feeds.iter().filter_map(|feed| FeedUrl::try_new(feed).ok()).collect();
            Err(NoFeed::Page { feeds, fault: error.into() })
        }
    }
}

/// The address to write down: a detour that may end tomorrow is none.
fn lasting(asked: &FeedUrl, visit: &FetchReport) -> FeedUrl {
    let has_credentials = !asked.secret().username().is_empty() || asked.secret().password().is_some();
    match visit.hops.last() {
        Some(last) if !has_credentials && visit.hops.iter().all(fetch::RedirectHop::is_permanent) => {
            last.to.clone()
        }
        _ => asked.clone(),
    }
}

/// Reads what a visit brought home.
///
/// # Errors
/// Outside, why the visit brought no document; inside, why the document is no feed.
pub(crate) fn read_answer(answer: &FetchResult) -> Result<Result<FeedDocument, FeedError>, FeedFailure> {
    match answer {
        FetchResult::Full(full) => {
            let content_type = full.content_type.as_deref();
            Ok(feed::read(&full.body, &Hints { url: Some(&full.url), content_type, language: None }))
        }
        FetchResult::Failed(failure) => {
            Err(FeedFailure::new(failure.class.as_str(), failure.message.clone()))
        }
        FetchResult::NotModified { .. } => {
            Err(FeedFailure::of_status("the server answers 304 to a question without validators"))
        }
        FetchResult::Throttled => Err(FeedFailure::of_status("the server asks us to come later")),
        FetchResult::Gone => Err(FeedFailure::of_status("the server says that the feed is gone (410)")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use fetch::Policy;
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

    /// An origin, and the paths that it was asked for.
    async fn origin() -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
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
        (base, asked)
    }

    async fn find(path: &str) -> (String, Result<Discovered, FeedFailure>, Vec<String>) {
        let (base, asked) = origin().await;
        let visitor = Visitor::try_new(Policy { allow_private: true, ..Policy::default() }).unwrap();
        let url = FeedUrl::try_new(&format!("{base}{path}")).unwrap();
        let found = discover(&visitor, &url, Timestamp::from_millis(0)).await;
        let asked = asked.lock().unwrap().clone();
        (base, found, asked)
    }

    #[tokio::test]
    async fn an_address_that_is_a_feed_costs_one_get() {
        let (base, found, asked) = find("/feed").await;
        let found = found.unwrap();
        assert_eq!(found.url.secret().as_str(), format!("{base}/feed"));
        assert_eq!(found.title.as_deref(), Some("The feed"));
        assert_eq!(asked, ["/feed"]);
    }

    #[tokio::test]
    async fn a_page_costs_one_get_more_for_the_first_feed_that_it_names() {
        let (base, found, asked) = find("/page").await;
        let found = found.unwrap();
        assert_eq!(found.url.secret().as_str(), format!("{base}/feed"));
        let others: Vec<_> = found.others.iter().map(|url| url.secret().path().to_owned()).collect();
        assert_eq!(others, ["/comments"]);
        assert_eq!(asked, ["/page", "/feed"]);
    }

    #[tokio::test]
    async fn only_a_permanent_redirect_changes_the_address_that_is_written_down() {
        let (base, found, _) = find("/moved").await;
        assert_eq!(found.unwrap().url.secret().as_str(), format!("{base}/feed"));
        let (base, found, _) = find("/detour").await;
        assert_eq!(found.unwrap().url.secret().as_str(), format!("{base}/detour"));
    }

    #[tokio::test]
    async fn nothing_is_guessed_where_a_page_names_no_feed() {
        let (_, found, asked) = find("/bare").await;
        assert_eq!(found.unwrap_err().kind, "not-a-feed");
        assert_eq!(asked, ["/bare"]);
    }
}
