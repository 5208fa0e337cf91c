//! The gateway's end of the wire: from the daemon into the ring, for ever, in whatever order the two start.
//!
//! On a thread of its own, so that neither a slow daemon nor a busy worker can hold the other up.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use daemon::watch::WatchKind;
use news::{Cursor, Seq, SourceNotice, SourceStatus};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::{
    Coverage, Endpoint, PeerClient, ReceivedEvent, Resume, StreamOpened, Subscription, SubscriptionEvent,
    SubscriptionTiming,
};

use crate::{
    callbacks::Porter,
    hub::{Hub, NoticeBlock, Of},
    refresh::Clerk,
    replay::Librarian,
    sse::Frame,
};

/// How long the daemon may take to answer a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Largest list of sources: 100,000 of them.
const SOURCES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Largest text of metrics.
const METRICS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often the daemon's metrics are read.
const METRICS_EVERY: Duration = Duration::from_secs(5);
/// The shortest time between two readings of the list of sources.
const SOURCES_EVERY: Duration = Duration::from_secs(1);

/// Starts the intake.
///
/// # Errors
/// When the system gives no thread or no runtime.
pub(crate) fn start(
    hub: Arc<Hub>,
    socket: PathBuf,
    ring_events: usize,
    (mut librarian, mut clerk, mut porter): (Librarian, Clerk, Porter),
    stop: CancellationToken,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let endpoint = Endpoint::Socket(socket);
    let peer = PeerClient::try_new(endpoint.clone())?;
    #[expect(clippy::disallowed_methods, reason = "the loop of this very thread")]
    let work = move || {
        runtime.block_on(async {
            let catalogue = Notify::new();
            let beats = hub.watch.heartbeat("intake", WatchKind::Wire);
            tokio::select! {
                () = stop.cancelled() => {}
                () = beats => {}
                () = follow_the_wire(&hub, endpoint, ring_events, &catalogue) => {}
                () = keep_sources(&hub, &peer, &catalogue) => {}
                () = keep_metrics(&hub, &peer) => {}
                () = librarian.serve(&peer) => {}
                () = clerk.serve(&peer) => {}
                () = porter.serve(&peer) => {}
            }
        });
    };
    Ok(thread::Builder::new().name("intake".into()).spawn(work)?)
}

async fn follow_the_wire(hub: &Hub, endpoint: Endpoint, ring_events: usize, catalogue: &Notify) {
    let path = format!("/wire?snapshot={ring_events}");
    let mut wire = Subscription::new(endpoint, &path, None, Coverage::All, SubscriptionTiming::default());
    // The head at the time we came: the ring is filled when it has that.
    let mut filled_at = Seq::NONE;
    loop {
        let signal = wire.next().await;
        if !matches!(signal, SubscriptionEvent::Lost { .. }) {
            hub.link.heard();
        }
        match signal {
            SubscriptionEvent::Connected(hello) => {
                filled_at = connected(hub, &hello);
                catalogue.notify_one();
                let cursor = wire.cursor().map_or(Seq::NONE, |c| c.seq);
                if cursor >= filled_at {
                    hub.ring.set_filled(filled_at);
                }
            }
            SubscriptionEvent::Event(incoming) => take_event(hub, &incoming, filled_at),
            SubscriptionEvent::Gap(missed) => {
                tracing::warn!(missed = missed.missed, "missed events on the wire")
            }
            SubscriptionEvent::Notice(name, data) if name == "source" => take_notice(hub, &data),
            SubscriptionEvent::Notice(name, _) if name == "catalogue" => catalogue.notify_one(),
            SubscriptionEvent::Heartbeat(data) => {
                beat(hub, &data);
                continue;
            }
            SubscriptionEvent::Notice(..) => continue,
            SubscriptionEvent::Lost { reason, .. } => lost(hub, &reason),
        }
        hub.ring_the_bell();
    }
}

fn connected(hub: &Hub, hello: &StreamOpened) -> Seq {
    let resume = hello.resume.as_str();
    hub.numbers.wire_connected.set(1);
    let Some(head) = &hello.head else {
        tracing::warn!("the daemon does not know its log");
        return Seq::NONE;
    };
    if matches!(hello.resume, Resume::Live | Resume::Reset) {
        hub.ring.reset(head.epoch.clone());
    }
    hub.ring.set_log_oldest(hello.oldest.as_ref().map_or(head.seq.next(), |oldest| oldest.seq));
    let (epoch, seq) = (&head.epoch, head.seq.0);
    tracing::info!(status = resume, %epoch, seq, missed = hello.missed, server = hello.server, "wire connected");
    head.seq
}

#[derive(Deserialize)]
struct Beat {
    oldest: Cursor,
}

/// The daemon lives, and says where its log begins by now.
fn beat(hub: &Hub, data: &[u8]) {
    if let Ok(beat) = serde_json::from_slice::<Beat>(data) {
        hub.ring.set_log_oldest(beat.oldest.seq);
    }
}

fn lost(hub: &Hub, reason: &str) {
    hub.numbers.wire_connected.set(0);
    // Both processes are often stopped together: then this is no news.
    if hub.link.lost(reason) && !hub.is_draining() {
        hub.numbers.wire_losses.inc();
        tracing::warn!(error = reason, "wire lost");
    } else {
        tracing::debug!(error = reason, "wire still lost");
    }
}

fn take_event(hub: &Hub, incoming: &ReceivedEvent, filled_at: Seq) {
    match Frame::render(&incoming.json) {
        Ok(frame) => hub.ring.push(frame),
        Err(error) => {
            // Left out, and the ring tells its readers of the gap.
            hub.numbers.unreadable.inc();
            let (epoch, seq) = (&incoming.id.epoch, incoming.id.seq.0);
            tracing::error!(%epoch, seq, %error, "an event on the wire is unreadable");
        }
    }
    hub.numbers.received.inc();
    if incoming.id.seq >= filled_at {
        hub.ring.set_filled(filled_at);
    }
    let state = hub.ring.state();
    hub.numbers.ring_events.set(i64::try_from(state.events).unwrap_or(i64::MAX));
    hub.numbers.ring_bytes.set(i64::try_from(state.bytes).unwrap_or(i64::MAX));
    hub.numbers.head.set(incoming.id.seq.0.cast_signed());
}

fn take_notice(hub: &Hub, data: &[u8]) {
    match serde_json::from_slice::<SourceNotice>(data) {
        Ok(SourceNotice { report, health }) => {
            let of = Of::Visit {
                source: health.id.clone(),
                category: health.category.clone(),
                tags: health.tags.clone(),
            };
            hub.notices.push(NoticeBlock { kind: "source", of, json: json(&report) });
            for progress in hub.refreshes.visited(&health.id) {
                let of = Of::Refresh(Arc::clone(&progress.categories));
                hub.notices.push(NoticeBlock { kind: "refresh", of, json: json(&progress) });
            }
            hub.sources.put(health);
        }
        Err(error) => {
            hub.numbers.unreadable.inc();
            tracing::error!(%error, "a notice on the wire is unreadable");
        }
    }
}

fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("what we say has a JSON form")
}

#[derive(Deserialize)]
struct SourceList {
    sources: Vec<SourceStatus>,
}

/// Reads the list of sources whenever somebody says that it changed.
async fn keep_sources(hub: &Hub, peer: &PeerClient, catalogue: &Notify) {
    loop {
        catalogue.notified().await;
        match peer.get("/sources", ANSWER_WITHIN, SOURCES_BYTES_MAX).await {
            Ok(body) => match serde_json::from_slice::<SourceList>(&body) {
                Ok(list) => hub.sources.replace(list.sources),
                Err(error) => tracing::error!(%error, "the list of sources is unreadable"),
            },
            Err(error) => {
                tracing::debug!(%error, "could not read the list of sources");
                catalogue.notify_one();
            }
        }
        tokio::time::sleep(SOURCES_EVERY).await;
    }
}

async fn keep_metrics(hub: &Hub, peer: &PeerClient) {
    let mut every = tokio::time::interval(METRICS_EVERY);
    loop {
        every.tick().await;
        let body = peer.get("/metrics", ANSWER_WITHIN, METRICS_BYTES_MAX).await;
        let text = body.ok().and_then(|body| String::from_utf8(body.into()).ok());
        // A dead daemon has no metrics: old numbers would look alive.
        let mut kept = hub.daemon_metrics.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *kept = text.unwrap_or_default();
    }
}
