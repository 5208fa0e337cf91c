//! `POST /documents`: hands the document of a source that is about to be listed over to the ingestion daemon, so that it
//! does not request it again.
//!
//! The body is a [`DocumentHead`] as JSON on one line, and after that line the document, byte for byte. The daemon keeps it
//! for [`DocumentAnswer::kept_s`] seconds. If a source with that id and that request is new in its list within this time, the
//! document takes the place of its first visit.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Largest body, in bytes: the largest document that a source may have, and a head.
pub const DOCUMENT_BODY_BYTES_MAX: usize = 32 * 1024 * 1024 + HEAD_BYTES_MAX;
/// Largest head, in bytes: a dozen addresses and validators of a few KiB each.
const HEAD_BYTES_MAX: usize = 128 * 1024;

/// What is known about a document besides its bytes. Addresses are complete, with their secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentHead {
    /// The id that the source gets.
    pub source: String,
    /// Hash of the address and the request settings of the source; the document counts for exactly these.
    pub request_hash: u64,
    /// The same of the source as it is listed, without `fetch.proxy`; 0 from an older tool. A daemon that has another
    /// `fetch.proxy` until its next start uses the document all the same.
    #[serde(default)]
    pub listed_hash: u64,
    /// How long ago it arrived, in milliseconds.
    pub age_ms: u64,
    /// The address that it came from, after all redirects, without user name and password.
    pub url: String,
    /// The HTTP status.
    pub code: u16,
    /// `Content-Type` as sent.
    pub content_type: Option<String>,
    /// `ETag` as sent.
    pub etag: Option<String>,
    /// `Last-Modified` as sent.
    pub last_modified: Option<String>,
    /// How long the response was fresh when it arrived, in seconds; `None` if its server did not say.
    pub fresh_for_s: Option<u64>,
    /// The same before its age is subtracted.
    #[serde(default)]
    pub lifetime_s: Option<u64>,
    /// How long ago it left its server.
    #[serde(default)]
    pub cached_for_s: u64,
    /// `Expires` says so.
    #[serde(default)]
    pub is_fresh_by_date: bool,
    /// The response has `Cache-Control` or `Expires`.
    #[serde(default)]
    pub has_freshness: bool,
    /// The redirects that led to it, in order.
    pub hops: Vec<DocumentHop>,
    /// The target of the `Link` header with `rel="hub"`.
    pub hub: Option<String>,
    /// The target of the `Link` header with `rel="self"`.
    pub topic: Option<String>,
}

/// A redirect that was followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentHop {
    /// The HTTP status.
    pub code: u16,
    /// The address that redirected.
    pub from: String,
    /// The target.
    pub to: String,
}

/// The answer: the document is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentAnswer {
    /// For how long, in seconds.
    pub kept_s: u64,
}

/// Why a body is not a head and a document.
#[derive(Debug, thiserror::Error)]
pub enum BadDocumentBody {
    /// No end of a line within the limit of a head.
    #[error("expected a JSON object on the first line")]
    NoHead,
    /// The first line is something else.
    #[error("expected the head of a document on the first line: {0}")]
    BadHead(#[from] serde_json::Error),
}

impl DocumentHead {
    /// The body of a request.
    ///
    /// # Errors
    /// If the head cannot be serialised.
    pub fn with_document(&self, document: &[u8]) -> serde_json::Result<Bytes> {
        let head = serde_json::to_vec(self)?;
        let mut body = BytesMut::with_capacity(head.len() + 1 + document.len());
        body.extend_from_slice(&head);
        body.put_u8(b'\n');
        body.extend_from_slice(document);
        Ok(body.freeze())
    }

    /// Takes a body apart.
    ///
    /// # Errors
    /// [`BadDocumentBody`].
    pub fn split(mut body: Bytes) -> Result<(Self, Bytes), BadDocumentBody> {
        let end = body.iter().take(HEAD_BYTES_MAX).position(|byte| *byte == b'\n');
        let head = body.split_to(end.ok_or(BadDocumentBody::NoHead)?);
        Ok((serde_json::from_slice(&head)?, body.slice(1..)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_taken_apart_as_it_was_put_together() {
        let head = DocumentHead {
            source: "a".to_owned(),
            request_hash: u64::MAX,
            url: "https://example.org/?a=\n".to_owned(),
            etag: Some("\"x\ny\"".to_owned()),
            hops: vec![DocumentHop { code: 301, from: "https://a/".into(), to: "https://b/".into() }],
            ..DocumentHead::default()
        };
        for document in [&b"<rss>\n\n</rss>\n"[..], b"", b"\n", b"\xff\x00"] {
            let (read, rest) = DocumentHead::split(head.with_document(document).unwrap()).unwrap();
            assert_eq!((read, &rest[..]), (head.clone(), document));
        }
    }

    #[test]
    fn a_body_without_a_head_is_refused() {
        for body in [&b""[..], b"\n<rss/>", b"<rss/>\n", b"{\"source\":\"a\"}\n<rss/>", b"{}"] {
            assert!(DocumentHead::split(Bytes::copy_from_slice(body)).is_err());
        }
        let long = vec![b' '; 2 * HEAD_BYTES_MAX];
        assert!(matches!(DocumentHead::split(long.into()), Err(BadDocumentBody::NoHead)));
    }
}
