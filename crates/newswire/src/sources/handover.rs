//! Hands the document that `sources add` has fetched over to the daemon, which then needs no request of its own: a second
//! one within moments is refused by many servers, and some answer with a pause of a day.

use std::time::Duration;

use control::{
    ControlClient, ControlError, ControlRequest, ControlSocket, DocumentAnswer, DocumentHead, paths,
};
use fetch::{FetchReport, FetchResult};
use news::{FloodingBound, ProxyUrl, Source, SourceId, SourceStatus, Timestamp};
use tokio::time::Instant;

use super::{CommandContext, show::ListedSource};
use crate::{
    out::{safe, span},
    unanswered,
};

/// How long the daemon may take to accept a document. The list is locked meanwhile.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(5);
/// How long the daemon may take to record it, after it has reloaded its list.
const RECORDED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What became of a document.
#[derive(Debug)]
pub(super) enum Handover {
    /// The daemon keeps it until it has reloaded its list.
    Kept,
    /// No process listens on its socket.
    NotRunning,
    /// The daemon has no use for it, and visits the feed itself.
    Refused { why: String },
    /// The source is disabled.
    NotVisited,
}

/// Offers the document to the daemon, before the source is in the list. `listed` is the source as the list will have it,
/// `proxy` that of sources without a choice of their own.
pub(super) async fn offer(
    context: &CommandContext,
    listed: &Source,
    proxy: Option<&ProxyUrl>,
    visit: &FetchReport,
    arrived: Instant,
) -> Handover {
    // As the daemon will have it.
    let mut source = listed.clone();
    source.inherit_proxy(proxy);
    if !source.enabled {
        return Handover::NotVisited;
    }
    let FetchResult::Full(full) = &visit.answer else {
        return Handover::Refused { why: "there is no document".to_owned() };
    };
    let text = |url: &news::FeedUrl| url.secret().to_string();
    let head = DocumentHead {
        source: source.id.to_string(),
        request_hash: source.request_hash(),
        listed_hash: listed.request_hash(),
        age_ms: u64::try_from(arrived.elapsed().as_millis()).unwrap_or(u64::MAX),
        url: full.url.to_string(),
        code: visit.code.unwrap_or_default(),
        content_type: full.content_type.clone(),
        etag: full.etag.clone(),
        last_modified: full.last_modified.clone(),
        fresh_for_s: visit.cache.fresh_for.map(|fresh| fresh.as_secs()),
        lifetime_s: visit.cache.lifetime.map(|lifetime| lifetime.as_secs()),
        cached_for_s: visit.cache.age.as_secs(),
        is_fresh_by_date: visit.cache.is_by_date,
        has_freshness: visit.cache.is_stated,
        hops: visit
            .hops
            .iter()
            .map(|hop| control::DocumentHop { code: hop.code, from: text(&hop.from), to: text(&hop.to) })
            .collect(),
        hub: visit.links.hub.as_ref().map(text),
        topic: visit.links.topic.as_ref().map(text),
    };
    let body = match head.with_document(&full.body) {
        Ok(body) => body,
        Err(error) => return Handover::Refused { why: error.to_string() },
    };
    let client =
        ControlClient::new(context.config.socket(ControlSocket::IngestdAdmin)).deadline(ACCEPTED_WITHIN);
    match client.request(ControlRequest::post_bytes(paths::DOCUMENTS, body)).await {
        Ok(DocumentAnswer { .. }) => Handover::Kept,
        Err(error) if error.is_absent() => Handover::NotRunning,
        Err(ControlError::Status { status: 404, .. }) => {
            let version = env!("CARGO_PKG_VERSION");
            Handover::Refused { why: format!("it is older than this tool ({version}); restart it") }
        }
        Err(error) => Handover::Refused { why: unanswered::explain(&error, "ingestd") },
    }
}

/// What the daemon says about the source once it has recorded the document.
///
/// # Errors
/// Why there is nothing to say yet.
pub(super) async fn recorded(
    context: &CommandContext,
    id: &SourceId,
    since: Timestamp,
) -> Result<SourceStatus, String> {
    let until = Instant::now() + RECORDED_WITHIN;
    loop {
        let answer = context.daemon.get::<ListedSource>(&format!("/sources/{id}")).await;
        let why = match answer {
            Ok(ListedSource { status, .. }) if status.last_visit >= Some(since) => return Ok(status),
            Ok(_) => format!("it takes longer than {} s", RECORDED_WITHIN.as_secs()),
            Err(error) => unanswered::explain(&error, "ingestd"),
        };
        if Instant::now() >= until {
            return Err(why);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One line about a recorded document with so many items. The error is why the daemon could not use it.
pub(super) fn describe(status: &SourceStatus, items: usize, now: Timestamp) -> Result<String, String> {
    if let Some(error) = &status.last_error {
        return Err(safe(error));
    }
    let recorded = match &status.flooding {
        Some(flooding) if flooding.waiting_items > 0 => {
            let waiting = flooding.waiting_items;
            let recorded = items.saturating_sub(usize::try_from(waiting).unwrap_or(usize::MAX));
            let bound = match flooding.bound {
                FloodingBound::Visit => "new_bytes_max",
                FloodingBound::Retention => "store.source_share_percent",
                FloodingBound::Ring => "gateway.ring_events, gateway.ring_bytes",
            };
            format!("has recorded {recorded} of its {items} items; {waiting} wait for later visits ({bound})")
        }
        _ => "has recorded its items".to_owned(),
    };
    if let Some(pause) = &status.paused {
        return Ok(format!("{recorded}; {}", safe(&pause.why())));
    }
    let next = status.next_visit.map_or_else(
        || "it is not visited again".to_owned(),
        |next| format!("visits it in {}", span(now, next.max(now))),
    );
    Ok(format!("{recorded} and {next}: {}", safe(&status.why)))
}
