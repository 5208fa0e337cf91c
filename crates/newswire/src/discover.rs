//! The feed behind an address that a person would name: the feed itself, or the page that names it.

use feed::{Document, Hints, ReadError};
use fetch::{Answer, Full, Request, Visitor};
use news::{FeedUrl, Timestamp};

/// A feed that was found, and read.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) url: FeedUrl,
    pub(crate) document: Document,
    /// All feeds that the page names, when it was one; the first was taken.
    pub(crate) candidates: Vec<String>,
}

/// Visits the address once, and when it is a page the first feed that it names.
///
/// # Errors
/// Why there is no feed, in words.
pub(crate) async fn discover(visitor: &Visitor, url: &FeedUrl, now: Timestamp) -> anyhow::Result<Found> {
    let full = visit(visitor, url, now).await?;
    let error = match read(&full) {
        Ok(document) => return Ok(Found { url: url.clone(), document, candidates: Vec::new() }),
        Err(error) => error,
    };
    let candidates = match error {
        ReadError::NotAFeed { feeds, .. } if !feeds.is_empty() => feeds,
        other => anyhow::bail!("{url}: {other}"),
    };
    let url = FeedUrl::try_new(&candidates[0])?;
    let full = visit(visitor, &url, now).await?;
    let document = read(&full).map_err(|error| anyhow::anyhow!("the page names {url}, but {error}"))?;
    Ok(Found { url, document, candidates })
}

fn read(full: &Full) -> Result<Document, ReadError> {
    let content_type = full.content_type.as_deref();
    feed::read(&full.body, &Hints { url: Some(&full.url), content_type, language: None })
}

async fn visit(visitor: &Visitor, url: &FeedUrl, now: Timestamp) -> anyhow::Result<Full> {
    let request = Request { url, etag: None, last_modified: None, timeout: None, now };
    match visitor.visit(&request).await.answer {
        Answer::Full(full) => Ok(full),
        Answer::Failed(failure) => anyhow::bail!("{url}: {}: {}", failure.class.as_str(), failure.message),
        Answer::NotModified { .. } => anyhow::bail!("{url}: answers 304 to a question without validators"),
        Answer::Throttled => anyhow::bail!("{url}: asks us to come later"),
        Answer::Gone => anyhow::bail!("{url}: says that the feed is gone (410)"),
    }
}
