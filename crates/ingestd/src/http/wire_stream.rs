//! `GET /wire`: the log as a stream, for gateways.
//!
//! A gateway names the newest event that it has ever seen. A log of the same epoch that does not have this event is an
//! older copy: then recording pauses, because an id must never stand for two events.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, Responder as _, web};
use actix_web_lab::sse::{self, Sse};
use futures_util::{Stream, StreamExt as _, future::Either, stream};
use news::Cursor;
use serde::Deserialize;
use wire::{EventLog as _, StreamBlock};

use super::{routes::ControlState, wire_log::NewestSeen};
use crate::status::metrics::IngestMetrics;

/// Recent events that a stream starts with if its request names no number.
const SNAPSHOT_DEFAULT: u64 = 50;
/// When a gateway that lost its connection makes the next one.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, Deserialize)]
pub(super) struct WireQuery {
    snapshot: Option<u64>,
    after: Option<String>,
}

/// `GET /wire?snapshot=n`
pub(super) async fn wire(
    state: web::Data<ControlState>,
    query: web::Query<WireQuery>,
    request: HttpRequest,
) -> HttpResponse {
    let header = request.headers().get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()));
    let requested = header.as_deref().or(query.after.as_deref());
    let snapshot = query.snapshot.unwrap_or(SNAPSHOT_DEFAULT);
    let is_older_copy = match NewestSeen::of(request.headers(), requested) {
        Some(seen) => is_older_copy(&state, seen).await,
        None => false,
    };
    let blocks = match is_older_copy {
        true => Either::Left(state.publisher.stream_of_older_copy(requested, snapshot)),
        false => Either::Right(state.publisher.stream(requested, snapshot)),
    };
    #[cfg(feature = "drill")]
    let blocks = crate::drill::until_cut(blocks);
    let guard = SubscriberGuard::new(&state.metrics);
    let progress = Arc::clone(&state.metrics.progress);
    let (mut blocks, of) = (Box::pin(blocks), Arc::<str>::from("the wire"));
    let blocks = stream::poll_fn(move |cx| {
        let _at_work = daemon::work::on("sending", Arc::clone(&of));
        blocks.as_mut().poll_next(cx)
    });
    let blocks = blocks.inspect(move |block| {
        let _counted = &guard;
        if let Some(id) = &block.id {
            progress.sent.fetch_max(id.seq.0, Ordering::Relaxed);
        }
    });
    encoded(blocks).respond_to(&request).map_into_boxed_body()
}

/// Whether the log lacks an event that a gateway has seen; then recording pauses.
async fn is_older_copy(state: &ControlState, seen: NewestSeen) -> bool {
    let (log, newest) = (state.log.clone(), seen.clone());
    // A log that cannot be read ends the process.
    let is_older = web::block(move || log.is_older_copy(&newest)).await;
    let is_older = is_older.is_ok_and(|is_older| is_older.unwrap_or_default());
    if is_older {
        (state.on_older_copy)(older_copy_detail(&seen.id, &state.log.bounds().head_cursor()));
    }
    is_older
}

/// For the operator: what is the matter, and what to do.
fn older_copy_detail(seen: &Cursor, head: &Cursor) -> String {
    format!(
        "a gateway has event {seen}, and this log, which ends at {head}, does not: the store is an older copy of itself; \
         restore the newest copy with `newswire log restore`, or go on with this one by a start with --accept-loss, \
         which begins a new epoch"
    )
}

/// The blocks as `text/event-stream`.
fn encoded(
    blocks: impl Stream<Item = StreamBlock> + 'static,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    Sse::from_stream(blocks.map(|block| Ok(event(block)))).with_retry_duration(RETRY)
}

fn event(block: StreamBlock) -> sse::Event {
    let data = sse::Data::new(block.data).event(block.event);
    match block.id {
        Some(id) => data.id(id.to_string()).into(),
        None => data.into(),
    }
}

/// Counts an open stream until it is dropped.
struct SubscriberGuard(prometheus_client::metrics::gauge::Gauge);

impl SubscriberGuard {
    fn new(metrics: &IngestMetrics) -> Self {
        metrics.subscribers.inc();
        Self(metrics.subscribers.clone())
    }
}

impl Drop for SubscriberGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
