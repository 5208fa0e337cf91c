//! `GET /wire`: the log as a stream, for gateways.
//!
//! A gateway names the newest event that it has ever seen. A log of the same epoch that does not have this event is an
//! older copy: then recording pauses, because an id must never stand for two events, and every gateway is told of that
//! event: clients bring it ids that they have from another one.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, Responder as _, web};
use actix_web_lab::sse::{self, Sse};
use daemon::watch::{QueueLength, WatchedTask};
use futures_util::{Stream, StreamExt as _, future::Either, stream};
use news::{Cursor, RecordingPauseReason};
use serde::Deserialize;
use wire::{EventLog as _, StreamBlock};

use super::{control_state::ControlState, wire_log::SeenByGateway};
use crate::{recording::PausedWork, status::metrics::IngestMetrics};

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
    // Not what `after` says: a gateway never sends it, and a number that a person has mistyped must stop nothing.
    if let Some(seen) = SeenByGateway::of(request.headers(), header.as_deref()) {
        compare(&state, seen).await;
    }
    let mut ahead = state.newest_ahead.subscribe();
    let newest = ahead.borrow_and_update().clone();
    let blocks = match newest {
        Some(newest) => Either::Left(state.publisher.stream_of_older_copy(requested, snapshot, newest)),
        None => Either::Right(state.publisher.stream(requested, snapshot)),
    };
    // A gateway that is connected when another one is found to be ahead connects again, and is told.
    let blocks = blocks.take_until(Box::pin(async move { ahead.changed().await }));
    #[cfg(feature = "drill")]
    let blocks = crate::drill::until_cut(blocks);
    let guard = SubscriberGuard::new(&state.metrics);
    let progress = Arc::clone(&state.metrics.progress);
    let (mut blocks, of) = (Box::pin(blocks), Arc::<str>::from("the wire"));
    let task = watched_stream(&state);
    let blocks = stream::poll_fn(move |cx| {
        let _at_work = daemon::work::on("sending", Arc::clone(&of));
        let polled = blocks.as_mut().poll_next(cx);
        task.idles_until(if polled.is_ready() { "the gateway to read" } else { "a new event" });
        polled
    });
    let blocks = blocks.inspect(move |block| {
        let _counted = &guard;
        if let Some(id) = &block.id {
            store::crash::point("publish-block");
            progress.sent.fetch_max(id.seq.0, Ordering::Relaxed);
        }
    });
    encoded(blocks).respond_to(&request).map_into_boxed_body()
}

/// The stream of one gateway among the tasks of `/watch`, by its number since the start.
fn watched_stream(state: &ControlState) -> WatchedTask {
    static STREAMS: AtomicU64 = AtomicU64::new(0);
    let number = STREAMS.fetch_add(1, Ordering::Relaxed);
    state.watch.task(format!("wire-{number}"), None::<fn() -> QueueLength>)
}

/// Pauses recording if the log lacks an event that a gateway has seen.
async fn compare(state: &ControlState, SeenByGateway { id, hash }: SeenByGateway) {
    let (log, seen) = (state.log.clone(), SeenByGateway { id: id.clone(), hash });
    // A log that cannot be read is reported where it is read.
    let is_older = web::block(move || log.is_older_copy(&seen)).await;
    if !is_older.is_ok_and(|is_older| is_older.unwrap_or_default()) {
        return;
    }
    let detail = older_copy_detail(&id, &state.log.bounds().head_cursor());
    state.recording.pause(RecordingPauseReason::LogBehind, PausedWork::AllWrites, detail);
    state.newest_ahead.send_if_modified(|newest| {
        let is_newer = newest.as_ref().is_none_or(|newest| newest.seq < id.seq);
        if is_newer {
            *newest = Some(id);
        }
        is_newer
    });
}

/// For the operator: what is the matter, and what to do.
fn older_copy_detail(seen: &Cursor, head: &Cursor) -> String {
    format!(
        "a gateway has event {seen}, and this log, which ends at {head}, does not: the store is an older copy of itself; \
         stop the daemon and restore a newer copy with `newswire log restore FOLDER`, or keep this one with `newswire log \
         restore`; either begins a new epoch"
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, pin::Pin};

    use actix_web::{body, test::TestRequest};
    use news::{
        Author, Enclosure, Epoch, Event, EventKind, FeedUrl, Item, Seq, Source, SourceId, SourceNotice,
        Timestamp,
    };
    use tokio::sync::{broadcast, watch};
    use wire::{EventLog, LogBounds, LogError, LogEvent, LogPage, Notice, Publisher};

    use super::*;

    /// Five events, of which some are missing: those before `oldest`, and those that are damaged.
    #[derive(Clone, Copy)]
    struct FiveEvents {
        oldest: u64,
        damaged: &'static [u64],
    }

    impl EventLog for FiveEvents {
        fn bounds(&self) -> LogBounds {
            LogBounds { epoch: Epoch::try_new("k3v9q2").unwrap(), oldest: Seq(self.oldest), head: Seq(5) }
        }

        fn page(&self, after: Seq, limit: usize, _: usize) -> Result<LogPage, LogError> {
            let kept = (after.next().0..=5).filter(|seq| *seq >= self.oldest && !self.damaged.contains(seq));
            let events: Vec<_> = kept.take(limit).map(event).collect();
            let missed = after.missing_before(events.first().map_or(Seq(6), |event| event.seq));
            Ok(LogPage { events, missed })
        }
    }

    fn event(seq: u64) -> LogEvent {
        let url = FeedUrl::try_new("https://example.org/feed").unwrap();
        let mut source = Source::new(SourceId::try_new("bbc").unwrap(), url);
        source.tags = vec!["one".to_owned()];
        let id = Cursor { epoch: Epoch::try_new("k3v9q2").unwrap(), seq: Seq(seq) };
        let kind = if seq == 3 { EventKind::Update } else { EventKind::Item };
        let author = Author { name: Some("Ann".to_owned()), email: None, url: None };
        let enclosure = Enclosure {
            url: "https://example.org/1.mp3".to_owned(),
            media_type: Some("audio/mpeg".to_owned()),
            length: Some(9),
        };
        let item = Item {
            key: format!("key-{seq}"),
            title: format!("Story {seq}: \"ß\u{2028}\u{1F600}\""),
            content_html: (seq == 4).then(|| "<p>\n</p>".to_owned()),
            authors: vec![author],
            enclosures: vec![enclosure],
            published: Some(Timestamp::from_millis(1_700_000_000_000)),
            ..Item::default()
        };
        let first_seen = Timestamp::from_millis(1_700_000_000_000 + seq.cast_signed() * 1000);
        let json = Event::new(id, kind, &source, first_seen, item).to_json();
        LogEvent { seq: Seq(seq), kind, json }
    }

    fn notice() -> Notice {
        let notice = serde_json::json!({
            "source": "bbc", "status": "new", "new": 1, "updated": 0, "took_ms": 120,
            "next_visit": "2026-01-02T04:04:05Z", "why": "it publishes about every hour", "error": null,
            "health": {
                "id": "bbc", "name": "BBC", "url": "https://example.org/feed", "category": "general", "country": "GB",
                "language": "en", "tags": ["one"], "enabled": true, "activity": "idle", "activity_since": null,
                "last_status": "new", "last_code": 200, "last_visit": "2026-01-02T03:04:05Z", "last_took_ms": 120,
                "last_success": "2026-01-02T03:04:05Z", "last_error": null, "consecutive_failures": 0,
                "next_visit": "2026-01-02T04:04:05Z", "why": "it publishes about every hour", "warnings": [],
                "restarts": 0, "counts": {"visits": 100, "items": 30}, "last_event": "k3v9q2-5", "push": {},
                "attempts": [[0, "new", 200, 1, 0, 0, 0, null]],
            },
        });
        let notice: SourceNotice = serde_json::from_value(notice).unwrap();
        Notice::Source(serde_json::to_string(&notice).unwrap().into())
    }

    type Blocks = Pin<Box<dyn Stream<Item = StreamBlock>>>;

    /// The first blocks of a stream, as bytes.
    async fn frames(log: FiveEvents, start: impl FnOnce(&Publisher) -> Blocks, blocks: usize) -> String {
        let (_head, head_changed) = watch::channel(Seq(5));
        let publisher = Publisher {
            recording_pauses: Arc::new(Vec::new),
            log: Arc::new(log),
            head_changed,
            notices: broadcast::channel(4).0,
            aliases: watch::channel(Arc::default()).1,
            heartbeat: Duration::from_secs(2),
            server: "newswire-ingestd/0.1.0".into(),
        };
        let stream = start(&publisher);
        for notice in [notice(), Notice::Catalogue] {
            publisher.notices.send(notice).unwrap();
        }
        let response = encoded(stream.take(blocks)).respond_to(&TestRequest::default().to_http_request());
        let bytes = body::to_bytes(response.map_into_boxed_body().into_body()).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn resumed(id: &'static str) -> impl FnOnce(&Publisher) -> Blocks {
        move |publisher| Box::pin(publisher.stream(Some(id), 2))
    }

    /// See `crates/wire/tests/frames/README.md`.
    #[tokio::test(start_paused = true)]
    async fn the_wire_sends_exactly_these_bytes() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/tests/frames/current"));
        let all = FiveEvents { oldest: 1, damaged: &[] };
        let retained = FiveEvents { oldest: 3, ..all };
        let damaged = FiveEvents { damaged: &[2, 4, 5], ..all };
        let live = |publisher: &Publisher| -> Blocks { Box::pin(publisher.stream(None, 2)) };
        let older_copy = |publisher: &Publisher| -> Blocks {
            Box::pin(publisher.stream_of_older_copy(Some("k3v9q2-9"), 1, "k3v9q2-12".parse().unwrap()))
        };
        let mut changed = Vec::new();
        for (name, bytes) in [
            ("live", frames(all, live, 6).await),
            ("exact", frames(all, resumed("k3v9q2-2"), 7).await),
            ("gap", frames(retained, resumed("k3v9q2-0"), 4).await),
            ("reset", frames(all, resumed("other1-7"), 3).await),
            ("older-copy", frames(all, older_copy, 2).await),
            ("damaged", frames(damaged, resumed("k3v9q2-0"), 8).await),
        ] {
            let path = folder.join(name).with_extension("sse");
            if std::env::var_os("NEWSWIRE_BLESS").is_some() {
                fs::write(&path, &bytes).unwrap();
            }
            if fs::read_to_string(&path).unwrap_or_default() != bytes {
                changed.push((name, bytes));
            }
        }
        assert!(changed.is_empty(), "not what crates/wire/tests/frames/current has: {changed:#?}");
    }
}
