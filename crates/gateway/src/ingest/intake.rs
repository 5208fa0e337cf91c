//! The gateway's end of the wire: from the daemon into the ring, whichever of the two starts first.
//!
//! On its own thread, so that neither a slow daemon nor a busy worker can hold up the other.

use std::{sync::Arc, thread, time::Duration};

use bytes::Bytes;
use daemon::watch::{QueueLength, WatchKind};
use news::{Seq, SourceNotice, SourceStatus};
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinError};
use tokio_util::sync::CancellationToken;
use wire::{
    Endpoint, Gap, PeerClient, ReceivedEvent, Resume, StreamOpened, SubscriptionEvent, WireHeartbeat,
};

use super::{
    callbacks,
    catalogue_labels::LabelIndex,
    granted_categories, history, refresh,
    source_directory::RenderedSourceList,
    transport::{EventSource, LogBelowRing, TransportSettings},
    wire_link::{OlderCopy, WireChange},
};
use crate::{
    state::{AppState, Forwarders},
    stream::{
        frame::{FilterLabels, Frame},
        notices::{Audience, NoticeBlock},
        replay,
    },
};

/// How long the daemon may take to answer a request.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest list of sources: 100,000 of them.
const SOURCES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Largest text of metrics.
const METRICS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often the daemon's metrics are read.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest time between two reads of the list of sources.
const SOURCES_INTERVAL: Duration = Duration::from_secs(1);

/// Of a task that takes nothing from a queue.
const NO_QUEUE: Option<fn() -> QueueLength> = None;

/// Starts the intake's thread.
///
/// # Errors
/// If the system cannot start a thread or a runtime.
pub(crate) fn start(
    state: Arc<AppState>,
    transport: TransportSettings,
    ring_events: usize,
    mut forwarders: Forwarders,
    stop: CancellationToken,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    #[expect(clippy::disallowed_methods, reason = "this thread runs nothing but this loop")]
    let run = move || {
        runtime.block_on(async {
            let catalogue_changed = Notify::new();
            #[cfg(feature = "drill")]
            crate::drill::run_intake_drills();
            let beats = state.watch.send_beats("intake", WatchKind::Wire);
            forwarders.show(&state.watch);
            let (wire, log, daemon) = match connect(transport, ring_events).await {
                Ok(connected) => connected,
                Err(error) => return tracing::error!(%error, "the wire cannot be set up"),
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = beats => {}
                () = follow_wire(&state, wire, &catalogue_changed) => {}
                () = update_sources(&state, &daemon, &catalogue_changed) => {}
                () = update_metrics(&state, &daemon) => {}
                () = forwarders.replays.run_sparingly(|start| replay::fetch(log.clone(), start)) => {}
                () = forwarders.history.run(|request| history::fetch(log.clone(), request)) => {}
                () = forwarders.refreshes.run(|sources| refresh::send(daemon.clone(), sources)) => {}
                () = forwarders.callbacks.run(|request| callbacks::send(daemon.clone(), request)) => {}
            }
        });
    };
    Ok(thread::Builder::new().name("intake".into()).spawn(run)?)
}

/// Sets up what the thread reads from; nothing is asked yet.
async fn connect(
    transport: TransportSettings,
    ring_events: usize,
) -> anyhow::Result<(EventSource, LogBelowRing, PeerClient)> {
    match transport {
        TransportSettings::Local(socket) => {
            let daemon = PeerClient::try_new(Endpoint::Socket(socket.clone()))?;
            Ok((EventSource::local(socket, ring_events), LogBelowRing::Daemon(daemon.clone()), daemon))
        }
        TransportSettings::Nats(settings) => {
            let (events, pages) = EventSource::nats(*settings, ring_events).await?;
            // TODO(REQ): requests over NATS.
            let daemon = PeerClient::try_new(Endpoint::Socket("/nonexistent".into()))?;
            Ok((events, LogBelowRing::Stream(pages), daemon))
        }
    }
}

async fn follow_wire(state: &AppState, mut wire: EventSource, catalogue_changed: &Notify) {
    // The head when the wire connected: the ring is filled once it holds that event.
    let mut filled_at = Seq::NONE;
    let task = state.watch.task("wire", NO_QUEUE);
    loop {
        let event = task.wait(wire.waits_for(), wire.next()).await;
        if !matches!(event, SubscriptionEvent::Lost { .. }) {
            state.wire.received();
        }
        match event {
            SubscriptionEvent::Connected(hello) => {
                filled_at = on_connected(state, &hello, &wire);
                catalogue_changed.notify_one();
            }
            SubscriptionEvent::Event(incoming) => on_event(state, &incoming),
            SubscriptionEvent::Gap(Gap { missed, .. }) => {
                tracing::warn!(missed, "events are missing in the log of the ingestion daemon");
            }
            SubscriptionEvent::Notice(name, data) if name == "source" => on_notice(state, &data),
            SubscriptionEvent::Notice(name, _) if name == "catalogue" => catalogue_changed.notify_one(),
            SubscriptionEvent::Heartbeat(data) => {
                on_heartbeat(state, &data);
                continue;
            }
            SubscriptionEvent::Notice(name, _) => tracing::debug!(kind = name, "passed over what is unknown"),
            SubscriptionEvent::Lost { reason, .. } => on_lost(state, &reason.to_string()),
        }
        if state.wire.is_connected() {
            on_cursor(state, wire.cursor().map_or(Seq::NONE, |cursor| cursor.seq), filled_at);
        }
        state.notify_streams();
    }
}

/// The wire is open; returns the head of the log.
fn on_connected(state: &AppState, hello: &StreamOpened, wire: &EventSource) -> Seq {
    let resume = hello.resume.as_str();
    state.metrics.wire_connected.set(1);
    let Some(head) = &hello.head else {
        tracing::warn!("the daemon did not report the head of its log");
        return Seq::NONE;
    };
    if matches!(hello.resume, Resume::Live | Resume::Reset) {
        state.ring.reset(head.epoch.clone(), wire.cursor().map(|cursor| cursor.seq));
    }
    let newest = wire.newest_unknown_to_server();
    state.ring.contest(newest.map(|newest| newest.seq));
    let older_copy = newest.map(|newest| OlderCopy { head: head.clone(), newest: newest.clone() });
    if let Some(copy) = &older_copy {
        tracing::error!(
            epoch = %copy.newest.epoch, seq = copy.newest.seq.0, kept = copy.head.seq.0,
            "the log of the ingestion daemon is an older copy, without the newest event that a gateway has received from it; \
             stop that daemon and restore a newer copy of the store with `newswire log restore FOLDER`, or keep this one \
             with `newswire log restore`"
        );
    }
    state.wire.set_older_copy(older_copy);
    state.ring.set_log_oldest(hello.oldest.as_ref().map_or(head.seq.next(), |oldest| oldest.seq));
    let (epoch, seq) = (&head.epoch, head.seq.0);
    tracing::info!(status = resume, %epoch, seq, missed = hello.missed, server = hello.server, "wire connected");
    head.seq
}

/// The ring has everything up to here that the log has.
fn on_cursor(state: &AppState, cursor: Seq, filled_at: Seq) {
    state.ring.reach(cursor);
    if cursor >= filled_at {
        state.ring.set_filled(filled_at);
    }
    let ring = state.ring.state();
    state.metrics.ring_events.set(i64::try_from(ring.events).unwrap_or(i64::MAX));
    state.metrics.ring_bytes.set(i64::try_from(ring.bytes).unwrap_or(i64::MAX));
    state.metrics.head.set(cursor.0.cast_signed());
}

/// The daemon reports where its log begins by now, and whether anything is recorded.
fn on_heartbeat(state: &AppState, data: &[u8]) {
    if let Ok(heartbeat) = serde_json::from_slice::<WireHeartbeat>(data) {
        state.ring.set_log_oldest(heartbeat.oldest.seq);
        state.wire.set_recording_paused(heartbeat.recording_paused);
    }
}

fn on_lost(state: &AppState, reason: &str) {
    state.metrics.wire_connected.set(0);
    match state.wire.lost(reason) {
        // Both processes are often stopped together: then this is expected.
        WireChange::Lost if !state.is_draining() => {
            state.metrics.wire_losses.inc();
            tracing::warn!(error = reason, "wire lost");
        }
        // Both are often started together, and the daemon needs longer.
        WireChange::FirstFailure => tracing::info!(error = reason, "wire not connected yet"),
        WireChange::Lost | WireChange::None => tracing::debug!(error = reason, "wire still not connected"),
    }
}

fn on_event(state: &AppState, incoming: &ReceivedEvent) {
    match Frame::render(&incoming.json) {
        Ok(frame) => state.ring.push(frame),
        Err(error) => {
            // It is left out, and the ring reports the gap to its readers.
            state.metrics.unreadable.inc();
            let (epoch, seq) = (&incoming.id.epoch, incoming.id.seq.0);
            tracing::error!(%epoch, seq, %error, "an event on the wire is unreadable");
        }
    }
    state.metrics.received.inc();
}

fn on_notice(state: &AppState, data: &[u8]) {
    match serde_json::from_slice::<SourceNotice>(data) {
        Ok(SourceNotice { report, health }) => {
            let audience = Audience::Visit { source: health.id.clone(), labels: FilterLabels::from(&health) };
            state.notices.push(NoticeBlock { kind: "source", audience, json: json(&report) });
            for progress in state.refreshes.record_visit(&health.id) {
                let audience = Audience::Refresh(Arc::clone(&progress.categories));
                state.notices.push(NoticeBlock { kind: "refresh", audience, json: json(&progress) });
            }
            state.catalogue_labels.add(&health);
            state.sources.insert(health);
        }
        Err(error) => {
            state.metrics.unreadable.inc();
            tracing::error!(%error, "a notice on the wire is unreadable");
        }
    }
}

fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("our own types have a JSON form")
}

#[derive(Deserialize)]
struct SourceList {
    sources: Vec<SourceStatus>,
}

/// Reads the list of sources whenever it has changed.
async fn update_sources(state: &Arc<AppState>, daemon: &PeerClient, catalogue_changed: &Notify) {
    let mut warned_of = Vec::new();
    let task = state.watch.task("sources", NO_QUEUE);
    loop {
        task.idle("a change of the sources", catalogue_changed.notified()).await;
        state.sources.expect_list();
        let list = daemon.get("/sources", DEADLINE, SOURCES_BYTES_MAX);
        match task.wait("the daemon's list of sources", list).await {
            Ok(body) => match task.wait("a thread that renders the list", take_sources(state, body)).await {
                Ok(Ok(())) => {
                    let search = categories_without_source(state);
                    let without_source = task.wait("a thread that compares the categories", search).await;
                    if without_source != warned_of {
                        granted_categories::warn(&without_source);
                        warned_of = without_source;
                    }
                }
                Ok(Err(error)) => tracing::error!(%error, "the list of sources is unreadable"),
                Err(error) => tracing::error!(%error, "could not render the list of sources"),
            },
            Err(error) => {
                tracing::debug!(%error, "could not read the list of sources");
                catalogue_changed.notify_one();
            }
        }
        task.wait("the next second", tokio::time::sleep(SOURCES_INTERVAL)).await;
    }
}

/// Thousands of tokens can name hundreds of categories each, which is too much for this thread.
async fn categories_without_source(state: &Arc<AppState>) -> Vec<String> {
    let shared = Arc::clone(state);
    let search = move || {
        granted_categories::without_source(&shared.settings().authenticator, &shared.catalogue_labels)
    };
    tokio::task::spawn_blocking(search).await.unwrap_or_default()
}

/// Renders a list of sources and replaces the one before, which takes longer than this thread may stand still if the list
/// is large.
async fn take_sources(state: &Arc<AppState>, body: Bytes) -> Result<serde_json::Result<()>, JoinError> {
    let state = Arc::clone(state);
    let take = move || {
        let SourceList { sources } = serde_json::from_slice(&body)?;
        drop(body);
        state.catalogue_labels.replace(LabelIndex::new(&sources));
        state.sources.replace(RenderedSourceList::new(sources));
        Ok(())
    };
    tokio::task::spawn_blocking(take).await
}

async fn update_metrics(state: &AppState, daemon: &PeerClient) {
    let mut interval = tokio::time::interval(METRICS_INTERVAL);
    let task = state.watch.task("metrics", NO_QUEUE);
    loop {
        task.wait("the next 5 s", interval.tick()).await;
        let read = daemon.get("/metrics", DEADLINE, METRICS_BYTES_MAX);
        let body = task.wait("the daemon's metrics", read).await;
        let text = body.ok().and_then(|body| String::from_utf8(body.into()).ok());
        // A daemon that does not answer has no metrics: old values would look current.
        let mut stored = state.daemon_metrics.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *stored = text.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn events_and_notices_of_either_version_are_understood() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/tests/frames"));
        for version in ["before", "current"] {
            let mut understood = [0; 3];
            for entry in fs::read_dir(folder.join(version)).unwrap() {
                let frames = fs::read_to_string(entry.unwrap().path()).unwrap();
                for block in frames.split("\n\n") {
                    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                    let (Some(kind), Some(data)) = (field("event: "), field("data: ")) else { continue };
                    match kind {
                        "item" | "update" => {
                            let frame = Frame::render(data.as_bytes()).unwrap();
                            assert!(frame.text.contains("story"), "{version}: {block}");
                            understood[0] += 1;
                        }
                        "source" => {
                            let notice: SourceNotice = serde_json::from_str(data).unwrap();
                            assert_eq!(notice.health.name, "BBC", "{version}: {block}");
                            understood[1] += 1;
                        }
                        "heartbeat" => {
                            let beat: WireHeartbeat = serde_json::from_str(data).unwrap();
                            assert_eq!(beat.oldest.seq, Seq(1), "{version}: {block}");
                            understood[2] += 1;
                        }
                        _ => {}
                    }
                }
            }
            assert!(understood.iter().all(|count| *count > 0), "{version}: {understood:?}");
        }
    }
}
