//! The gateway's end of the wire: from the daemon into the ring, whichever of the two starts first.
//!
//! On its own thread, so that neither a slow daemon nor a busy worker can hold up the other.

use std::{sync::Arc, thread, time::Duration};

use bytes::Bytes;
use daemon::watch::{QueueLength, WatchKind, WatchedTask};
use news::{Seq, SourceNotice};
use serde::Serialize;
use tokio::{sync::Notify, task::JoinError};
use tokio_util::sync::CancellationToken;
use wire::{
    Endpoint, Gap, PeerClient, ReceivedEvent, Resume, StreamOpened, SubscriptionEvent, WireHeartbeat,
    nats::{AliasWatch, EventStream, NatsConnection},
};

use super::{
    callbacks,
    daemon_metrics::join_with_names,
    daemons::{DaemonAnswers, DaemonName, Daemons},
    granted_categories, history, refresh,
    source_lists::{self, SourceOwners},
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
/// How long a daemon behind NATS may take to send its list of sources, which is read beside that of one other.
const REMOTE_SOURCES_DEADLINE: Duration = Duration::from_secs(30);
/// Largest list of sources: 100,000 of them, at however many daemons.
const SOURCES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Largest text of metrics of one daemon.
const METRICS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The same of all daemons together.
const ALL_METRICS_BYTES_MAX: usize = 4 * METRICS_BYTES_MAX;
/// How often the daemon's metrics are read.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);
/// How often clients that wait for their id to get a place are woken at least.
const ALIASES_INTERVAL: Duration = Duration::from_secs(1);
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
            let Intake { wire, log, daemons, aliases } = match connect(&state, transport, ring_events).await {
                Ok(connected) => connected,
                Err(error) => return tracing::error!(%error, "the wire cannot be set up"),
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = beats => {}
                () = follow_wire(&state, wire, &catalogue_changed) => {}
                () = update_sources(&state, &daemons, &catalogue_changed) => {}
                () = update_metrics(&state, &daemons) => {}
                () = update_aliases(&state, aliases) => {}
                () = forwarders.replays.run_sparingly(|start| replay::fetch(log.clone(), start)) => {}
                () = forwarders.history.run(|request| history::fetch(log.clone(), request)) => {}
                () = forwarders.refreshes.run(|sources| refresh::send(daemons.clone(), sources)) => {}
                () = forwarders.callbacks.run(|request| callbacks::send(daemons.clone(), request)) => {}
            }
        });
    };
    Ok(thread::Builder::new().name("intake".into()).spawn(run)?)
}

/// What the thread reads from.
struct Intake {
    wire: EventSource,
    log: LogBelowRing,
    daemons: Daemons,
    /// `None` where the wire itself tells all.
    aliases: Option<AliasWatch>,
}

/// Sets up what the thread reads from; nothing is asked yet.
async fn connect(
    state: &AppState,
    transport: TransportSettings,
    ring_events: usize,
) -> anyhow::Result<Intake> {
    match transport {
        TransportSettings::Local(socket) => {
            let daemon = PeerClient::try_new(Endpoint::Socket(socket.clone()))?;
            Ok(Intake {
                wire: EventSource::local(socket, ring_events),
                log: LogBelowRing::Daemon(daemon.clone()),
                daemons: Daemons::local(daemon),
                aliases: None,
            })
        }
        TransportSettings::Nats(settings) => {
            let connection = NatsConnection::open(*settings).await?;
            let (wire, pages, known) = EventSource::nats(connection.clone(), ring_events);
            let aliases = Some(AliasWatch::new(EventStream::new(connection.clone())));
            state.newest_events.begin();
            let daemons = Daemons::over_nats(connection, known, state.metrics.daemons.clone());
            Ok(Intake { wire, log: LogBelowRing::Stream(pages), daemons, aliases })
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
    wire.show_aliases(hello, head, &state.aliases);
    if matches!(hello.resume, Resume::Live | Resume::Reset) {
        state.ring.reset(head.epoch.clone(), wire.cursor().map(|cursor| cursor.seq));
        state.newest_events.clear();
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
        Ok(frame) => {
            state.newest_events.note(&frame.source, &incoming.id);
            state.ring.push(frame);
        }
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
        Ok(SourceNotice { report, mut health }) => {
            state.newest_events.replace_in(&mut health);
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

/// Takes over what ids of daemons' logs mean in the stream, and wakes the clients that wait for that.
async fn update_aliases(state: &AppState, watch: Option<AliasWatch>) {
    let Some(mut watch) = watch else { return std::future::pending().await };
    let task = state.watch.task("aliases", NO_QUEUE);
    let mut tick = tokio::time::interval(ALIASES_INTERVAL);
    let mut is_full = false;
    loop {
        let changed = async {
            tokio::select! {
                aliases = watch.next() => Some(aliases),
                _ = tick.tick() => None,
            }
        };
        let aliases = task.idle("what daemons say of their ids", changed).await;
        if aliases.is_some_and(|aliases| !state.aliases.note(aliases)) {
            state.metrics.daemons.left_out.get_or_create(&[("what", "ids")]).inc();
            if !std::mem::replace(&mut is_full, true) {
                tracing::warn!(
                    "too many daemons have published to this stream; clients with ids of the logs of others are told `reset`"
                );
            }
        }
        if state.aliases.take_waited_for() {
            state.notify_streams();
        }
    }
}

/// Reads the lists of sources of all daemons whenever one has changed.
async fn update_sources(state: &Arc<AppState>, daemons: &Daemons, catalogue_changed: &Notify) {
    let (mut warned_of, mut owners) = (Vec::new(), SourceOwners::new());
    let task = state.watch.task("sources", NO_QUEUE);
    loop {
        task.idle("a change of the sources", catalogue_changed.notified()).await;
        state.sources.expect_list();
        let deadline = if daemons.are_remote() { REMOTE_SOURCES_DEADLINE } else { DEADLINE };
        let answers = daemons.get_all("/sources", deadline, SOURCES_BYTES_MAX);
        let answers = task.wait("the daemon's list of sources", answers).await;
        let (lists, all_answered) = lists_of(daemons, answers);
        if !all_answered {
            catalogue_changed.notify_one();
        }
        if !lists.is_empty() {
            let taken = take_sources(state, lists, std::mem::take(&mut owners));
            let taken = task.wait("a thread that renders the list", taken).await;
            match taken {
                Ok((next, result)) => {
                    owners = next;
                    match result {
                        Ok(()) => warn_of_categories(state, &task, &mut warned_of).await,
                        Err(error) => tracing::error!(%error, "the list of sources is unreadable"),
                    }
                }
                Err(error) => tracing::error!(%error, "could not render the list of sources"),
            }
        }
        task.wait("the next second", tokio::time::sleep(SOURCES_INTERVAL)).await;
    }
}

/// The lists, and whether all daemons have answered. What is too large together with the ones before is left out.
fn lists_of(daemons: &Daemons, answers: DaemonAnswers) -> (Vec<(DaemonName, Bytes)>, bool) {
    let (mut lists, mut bytes_left, mut all_answered) = (Vec::new(), SOURCES_BYTES_MAX, true);
    for (daemon, answer) in answers {
        match answer {
            Ok(body) if body.len() <= bytes_left => {
                bytes_left -= body.len();
                lists.push((daemon, body));
            }
            Ok(_) => {
                daemons.count_left_out("sources");
                tracing::error!(
                    %daemon, bytes_max = SOURCES_BYTES_MAX,
                    "the lists of sources of all daemons are too large together; the one of this daemon is not shown"
                );
            }
            Err(error) => {
                tracing::debug!(%daemon, %error, "could not read the list of sources");
                all_answered = false;
            }
        }
    }
    (lists, all_answered)
}

async fn warn_of_categories(state: &Arc<AppState>, task: &WatchedTask, warned_of: &mut Vec<String>) {
    let search = categories_without_source(state);
    let without_source = task.wait("a thread that compares the categories", search).await;
    if without_source != *warned_of {
        granted_categories::warn(&without_source);
        *warned_of = without_source;
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

/// Renders the lists of sources and replaces those before, which takes longer than this thread may stand still if they are
/// large. Returns which daemon has which.
async fn take_sources(
    state: &Arc<AppState>,
    lists: Vec<(DaemonName, Bytes)>,
    owners: SourceOwners,
) -> Result<(SourceOwners, serde_json::Result<()>), JoinError> {
    let state = Arc::clone(state);
    let take = move || match source_lists::take(&state, lists, &owners) {
        Ok(next) => (next, Ok(())),
        Err(error) => (owners, Err(error)),
    };
    tokio::task::spawn_blocking(take).await
}

async fn update_metrics(state: &AppState, daemons: &Daemons) {
    let mut interval = tokio::time::interval(METRICS_INTERVAL);
    let task = state.watch.task("metrics", NO_QUEUE);
    loop {
        task.wait("the next 5 s", interval.tick()).await;
        let read = daemons.get_all("/metrics", DEADLINE, METRICS_BYTES_MAX);
        let answers = task.wait("the daemon's metrics", read).await;
        // A daemon that does not answer has no metrics: old values would look current.
        let text = metrics_of(daemons, answers);
        *state.daemon_metrics.write().unwrap_or_else(std::sync::PoisonError::into_inner) = text;
    }
}

/// The text of the only daemon, or the texts of several with their names.
fn metrics_of(daemons: &Daemons, answers: DaemonAnswers) -> String {
    let is_only_one = answers.len() == 1;
    let (mut texts, mut bytes_left) = (Vec::new(), ALL_METRICS_BYTES_MAX);
    for (daemon, answer) in answers {
        let Some(text) = answer.ok().and_then(|body| String::from_utf8(body.into()).ok()) else { continue };
        if text.len() > bytes_left {
            daemons.count_left_out("metrics");
            continue;
        }
        bytes_left -= text.len();
        texts.push((daemon, text));
    }
    match is_only_one {
        true => texts.pop().map(|(_, text)| text).unwrap_or_default(),
        false => join_with_names(texts.iter().map(|(daemon, text)| (&**daemon, &**text))),
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
