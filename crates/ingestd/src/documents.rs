//! Documents that the operator's tool has fetched for sources which it is about to list, on their way to the first visits of
//! these sources: a second request would be one too many for many servers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use control::{DocumentAnswer, DocumentHead, Problem};
use fetch::{FetchReport, FetchResult, Freshness, Full, HeaderLinks, RedirectHop, validator_key};
use news::{FeedUrl, ProxyChoice, ProxyUrl, Source, SourceId};
use tokio::time::Instant;

/// How long a document is kept for its source.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Documents that are kept at the same time.
const DOCUMENTS_MAX: usize = 64;
/// Their bytes, together: as many as the largest document has. They count for `fetch.memory_bytes` once their visits begin.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Documents without a source so far. Cheap to clone; any thread may add one.
#[derive(Clone, Default)]
pub(crate) struct FetchedDocuments(Arc<Mutex<Documents>>);

#[derive(Default)]
struct Documents {
    /// The list was read: what is new in it from now on has been added.
    are_accepted: bool,
    kept: Vec<FetchedDocument>,
}

/// The document of a source that is not listed yet. Its hash is still missing: see [`FetchedDocument::into_report`].
pub(crate) struct FetchedDocument {
    source: SourceId,
    request_hash: u64,
    listed_hash: u64,
    arrived: Instant,
    received: Instant,
    url: FeedUrl,
    bytes: Bytes,
    report: FetchReport,
}

impl FetchedDocuments {
    fn documents(&self) -> MutexGuard<'_, Documents> {
        // Every change is one call of the vector, so a panic while it is locked leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Documents are accepted from now on.
    pub(crate) fn accept(&self) {
        self.documents().are_accepted = true;
    }

    /// Keeps a document for a while, instead of an earlier one for the same source.
    ///
    /// # Errors
    /// `bad-document` if its head is not valid, `too-many-documents` if others take up the space, `starting` before the list
    /// was read.
    pub(crate) fn add(&self, head: DocumentHead, bytes: Bytes) -> Result<DocumentAnswer, Problem> {
        let document = FetchedDocument::try_new(head, bytes, Instant::now())
            .map_err(|what| Problem::new(400, "bad-document", format!("{what} is not valid")))?;
        self.remove_expired();
        let mut documents = self.documents();
        if !documents.are_accepted {
            return Err(Problem::new(503, "starting", "the list of sources is not read yet"));
        }
        let documents = &mut documents.kept;
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

    /// The document of a source that was added, if there is one for exactly this request. `proxy` is that of sources without
    /// a choice of their own; the tool may have used the one that the daemon has after its next start.
    pub(crate) fn take(&self, source: &Source, proxy: Option<&ProxyUrl>) -> Option<FetchedDocument> {
        let mut documents = self.documents();
        let at = documents.kept.iter().position(|document| document.source == source.id)?;
        let document = documents.kept.swap_remove(at);
        drop(documents);
        if document.request_hash == source.request_hash()
            || document.listed_hash == as_listed(source, proxy).request_hash()
        {
            return Some(document);
        }
        let reason = "the list has another address or other request settings for its source";
        tracing::warn!(source = %source.id, reason, "document not used");
        None
    }

    /// Forgets documents whose sources were not listed in time.
    pub(crate) fn remove_expired(&self) {
        let is_expired = |document: &mut FetchedDocument| document.received.elapsed() >= KEPT_FOR;
        let expired: Vec<_> = self.documents().kept.extract_if(.., is_expired).collect();
        for document in expired {
            tracing::warn!(source = %document.source, reason = "its source was not listed", "document not used");
        }
    }
}

/// A source without the proxy that it inherits.
fn as_listed(source: &Source, proxy: Option<&ProxyUrl>) -> Source {
    let mut listed = source.clone();
    if proxy.is_some() && listed.access.proxy.as_ref().and_then(ProxyChoice::proxy) == proxy {
        listed.access.proxy = None;
    }
    listed
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
            listed_hash: head.listed_hash,
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

#[cfg(test)]
mod tests {
    use control::DocumentHop;

    use super::*;

    fn source(id: &str) -> Source {
        let url = FeedUrl::try_new(&format!("https://{id}.example/feed?key=1")).unwrap();
        Source::new(SourceId::try_new(id).unwrap(), url)
    }

    fn head(id: &str) -> DocumentHead {
        let source = source(id);
        DocumentHead {
            source: id.to_owned(),
            request_hash: source.request_hash(),
            url: source.url.secret().to_string(),
            code: 200,
            etag: Some("\"v\"".to_owned()),
            fresh_for_s: Some(60),
            ..DocumentHead::default()
        }
    }

    fn documents() -> FetchedDocuments {
        let documents = FetchedDocuments::default();
        documents.accept();
        documents
    }

    fn code(answer: Result<DocumentAnswer, Problem>) -> String {
        answer.err().map_or_else(|| "kept".to_owned(), |problem| problem.code)
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_becomes_the_visit_that_it_was() {
        let documents = documents();
        let hop = DocumentHop { code: 302, from: head("a").url, to: "https://b.example/".to_owned() };
        let sent = DocumentHead {
            hops: vec![hop],
            age_ms: 20_000,
            hub: Some("https://hub.example/".to_owned()),
            ..head("a")
        };
        documents.add(sent, Bytes::from_static(b"<rss/>")).unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        let report = documents.take(&source("a"), None).unwrap().into_report();
        let FetchResult::Full(full) = &report.answer else { panic!("it has a document") };
        assert_eq!((&full.body[..], full.etag.as_deref()), (&b"<rss/>"[..], Some("\"v\"")));
        assert_eq!(full.body_hash, fetch::body_hash(b"<rss/>"));
        assert_eq!(full.validator_key, validator_key(&source("a").url));
        assert_eq!((report.code, report.hops.len(), report.is_conditional), (Some(200), 1, false));
        assert_eq!(report.cache.fresh_for, Some(Duration::from_secs(30)), "as long as is left");
        assert_eq!(report.links.hub, FeedUrl::try_new("https://hub.example/").ok());
        assert!(documents.take(&source("a"), None).is_none(), "it counts once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_counts_for_its_own_request_and_for_a_minute() {
        let documents = documents();
        documents.add(head("a"), Bytes::new()).unwrap();
        assert!(documents.take(&source("b"), None).is_none());
        let mut other = source("a");
        other.access.user_agent = Some("other/1".to_owned());
        assert!(documents.take(&other, None).is_none());
        assert!(documents.take(&source("a"), None).is_none(), "it was given up");
        documents.add(head("a"), Bytes::new()).unwrap();
        tokio::time::advance(KEPT_FOR - Duration::from_secs(1)).await;
        documents.remove_expired();
        assert!(documents.take(&source("a"), None).is_some());
        documents.add(head("a"), Bytes::new()).unwrap();
        tokio::time::advance(KEPT_FOR).await;
        documents.remove_expired();
        assert!(documents.take(&source("a"), None).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_document_counts_also_while_the_daemon_has_another_proxy_for_all() {
        let [old, new] =
            ["http://old.example:3128", "socks5://new.example"].map(|url| ProxyUrl::try_new(url).ok());
        let with = |proxy: &Option<ProxyUrl>| {
            let mut source = source("a");
            source.inherit_proxy(proxy.as_ref());
            source
        };
        let is_used = |ours: &Option<ProxyUrl>, theirs: &Option<ProxyUrl>| {
            let documents = documents();
            let (request_hash, listed_hash) = (with(theirs).request_hash(), source("a").request_hash());
            documents.add(DocumentHead { request_hash, listed_hash, ..head("a") }, Bytes::new()).unwrap();
            documents.take(&with(ours), ours.as_ref()).is_some()
        };
        for (ours, theirs) in [(&old, &new), (&old, &None), (&None, &new), (&None, &None), (&old, &old)] {
            assert!(is_used(ours, theirs), "{ours:?} {theirs:?}");
        }
        // One that the list names is another request.
        let documents = documents();
        let (request_hash, listed_hash) = (with(&new).request_hash(), with(&new).request_hash());
        documents.add(DocumentHead { request_hash, listed_hash, ..head("a") }, Bytes::new()).unwrap();
        assert!(documents.take(&with(&old), old.as_ref()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_kept_is_refused() {
        let early = FetchedDocuments::default();
        assert_eq!(code(early.add(head("a"), Bytes::new())), "starting");
        let documents = documents();
        for bad in [
            DocumentHead { source: "A b".to_owned(), ..head("a") },
            DocumentHead { url: "file:///etc/passwd".to_owned(), ..head("a") },
            DocumentHead { hub: Some("hub".to_owned()), ..head("a") },
            DocumentHead {
                hops: vec![DocumentHop { code: 301, from: String::new(), to: String::new() }],
                ..head("a")
            },
        ] {
            assert_eq!(code(documents.add(bad, Bytes::new())), "bad-document");
        }
        let large = Bytes::from(vec![0; BYTES_MAX]);
        assert_eq!(code(documents.add(head("a"), large.clone())), "kept");
        assert_eq!(code(documents.add(head("a"), large)), "kept", "instead of the earlier one");
        assert_eq!(code(documents.add(head("b"), Bytes::from_static(b"x"))), "too-many-documents");
        tokio::time::advance(KEPT_FOR).await;
        for n in 0..DOCUMENTS_MAX {
            assert_eq!(code(documents.add(head(&format!("a{n}")), Bytes::new())), "kept");
        }
        assert_eq!(code(documents.add(head("b"), Bytes::new())), "too-many-documents");
    }
}
