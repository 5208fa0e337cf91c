//! Documents that the operator's tool has fetched for sources which it is about to list, on their way to the first visits of
//! these sources: a second request would be one too many for many servers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use control::{DocumentAnswer, DocumentHead, Problem};
use fetch::{FetchReport, FetchResult, Freshness, Full, HeaderLinks, RedirectHop, validator_key};
use news::{FeedUrl, Source, SourceId};
use tokio::time::Instant;

/// How long a document is kept for its source.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Documents that are kept at the same time.
const DOCUMENTS_MAX: usize = 64;
/// Their bytes, together: as many as the largest document has. They count for `fetch.memory_bytes` once their visits begin.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Documents without a source so far. Cheap to clone; any thread may add one.
#[derive(Clone, Default)]
pub(crate) struct FetchedDocuments(Arc<Mutex<Vec<FetchedDocument>>>);

/// The document of a source that is not listed yet. Its hash is still missing: see [`FetchedDocument::into_report`].
pub(crate) struct FetchedDocument {
    source: SourceId,
    request_hash: u64,
    arrived: Instant,
    received: Instant,
    url: FeedUrl,
    bytes: Bytes,
    report: FetchReport,
}

impl FetchedDocuments {
    fn documents(&self) -> MutexGuard<'_, Vec<FetchedDocument>> {
        // Every change is one call of the vector, so a panic while it is locked leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a document for a while, instead of an earlier one for the same source.
    ///
    /// # Errors
    /// `bad-document` if its head is not valid, `too-many-documents` if others take up the space.
    pub(crate) fn add(&self, head: DocumentHead, bytes: Bytes) -> Result<DocumentAnswer, Problem> {
        let document = FetchedDocument::try_new(head, bytes, Instant::now())
            .map_err(|what| Problem::new(400, "bad-document", format!("{what} is not valid")))?;
        self.remove_expired();
        let mut documents = self.documents();
        documents.retain(|other| other.source != document.source);
        let bytes: usize = documents.iter().map(|other| other.bytes.len()).sum();
        if documents.len() >= DOCUMENTS_MAX || bytes + document.bytes.len() > BYTES_MAX {
            let detail = format!(
                "{} documents with {bytes} bytes wait for their sources to be listed already; try again in a minute",
                documents.len()
            );
            return Err(Problem::new(503, "too-many-documents", detail));
        }
        documents.push(document);
        Ok(DocumentAnswer { kept_s: KEPT_FOR.as_secs() })
    }

    /// The document of a source that is about to start, if there is one for exactly this request.
    pub(crate) fn take(&self, source: &Source) -> Option<FetchedDocument> {
        let mut documents = self.documents();
        let at = documents.iter().position(|document| document.source == source.id)?;
        let document = documents.swap_remove(at);
        drop(documents);
        if document.request_hash == source.request_hash() {
            return Some(document);
        }
        let reason = "the list has another address or other request settings for its source";
        tracing::warn!(source = %source.id, reason, "document not used");
        None
    }

    /// Forgets documents whose sources were not listed in time.
    pub(crate) fn remove_expired(&self) {
        let is_expired = |document: &mut FetchedDocument| document.received.elapsed() >= KEPT_FOR;
        let expired: Vec<_> = self.documents().extract_if(.., is_expired).collect();
        for document in expired {
            tracing::warn!(source = %document.source, reason = "its source was not listed", "document not used");
        }
    }
}

impl FetchedDocument {
    /// The error is the field of the head that is not valid.
    fn try_new(head: DocumentHead, bytes: Bytes, now: Instant) -> Result<Self, &'static str> {
        let url = |text: &str, what| FeedUrl::try_new(text).map_err(|_| what);
        let optional = |text: Option<String>, what| text.map(|text| url(&text, what)).transpose();
        let hops = head.hops.iter().map(|hop| {
            let (from, to) = (url(&hop.from, "hops")?, url(&hop.to, "hops")?);
            Ok::<_, &'static str>(RedirectHop { code: hop.code, from, to })
        });
        let full = Full {
            body: Bytes::new(),
            body_hash: 0,
            content_type: head.content_type,
            etag: head.etag,
            last_modified: head.last_modified,
            validator_key: 0,
            url: url(&head.url, "url")?.secret().clone(),
            is_delta: false,
        };
        let report = FetchReport {
            code: Some(head.code),
            hops: hops.collect::<Result<_, _>>()?,
            links: HeaderLinks { hub: optional(head.hub, "hub")?, topic: optional(head.topic, "topic")? },
            cache: Freshness {
                fresh_for: head.fresh_for_s.map(Duration::from_secs),
                lifetime: head.lifetime_s.map(Duration::from_secs),
                age: Duration::from_secs(head.cached_for_s),
                is_by_date: head.is_fresh_by_date,
                is_stated: head.has_freshness,
            },
            body_bytes: bytes.len() as u64,
            ..FetchReport::of(FetchResult::Full(full))
        };
        Ok(Self {
            source: SourceId::try_new(&head.source).map_err(|_| "source")?,
            request_hash: head.request_hash,
            arrived: now.checked_sub(Duration::from_millis(head.age_ms)).unwrap_or(now),
            received: now,
            url: url(&head.url, "url")?,
            bytes,
            report,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The visit that it stands for. Hashes the document, which takes a moment.
    pub(crate) fn into_report(self) -> FetchReport {
        let Self { url, bytes, mut report, arrived, .. } = self;
        if let FetchResult::Full(full) = &mut report.answer {
            (full.body_hash, full.validator_key) = (fetch::body_hash(&bytes), validator_key(&url));
            full.body = bytes;
        }
        report.cache.fresh_for =
            report.cache.fresh_for.and_then(|fresh| fresh.checked_sub(arrived.elapsed()));
        report
    }
}
