//! Starts the daemon on a store to which something has happened, visits all feeds, reads the whole log as a client, and
//! compares it with what clients had received before.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{announced::AnnouncedEvents, take_place, workload::StoreWorkload};
use crate::{Binary, RecordedEvent, TestStack, TestSubscriber, http, wait_for};

/// Deadline of the start, of the visits, and of reading the log; only a hang reaches it.
const STEP_WITHIN: Duration = Duration::from_secs(60);
/// Faults of one kind that are listed.
const FAULTS_SHOWN: usize = 5;

/// What a start on a store showed.
#[derive(Clone, Debug, Default)]
pub(super) struct LogVerdict {
    /// The daemon did not start; its last line that is an error.
    pub(super) refused: Option<String>,
    /// What must never happen.
    pub(super) faults: Vec<String>,
    /// Announced events that are missing, and that clients were not told of.
    pub(super) lost: u64,
    /// Items for which there are two events.
    pub(super) doubled: u64,
    /// Announced events whose id now has another event.
    pub(super) changed: u64,
    /// Announced events that are missing, as clients are told.
    pub(super) missed: u64,
    /// The epoch is another one.
    pub(super) is_reset: bool,
    /// The log of the daemon has a panic.
    pub(super) panicked: bool,
    /// Events read.
    pub(super) events: u64,
    /// Highest resident memory of the daemon, in KiB.
    pub(super) memory_peak_kib: u64,
    /// From the start of the process to its first answer, or its end.
    pub(super) opened_ms: u128,
}

impl LogVerdict {
    /// Nothing is wrong.
    pub(super) fn is_right(&self) -> bool {
        self.refused.is_none() && self.faults.is_empty()
    }
}

/// Starts the daemon of a stack, and checks its log, of which retention keeps the newest `events_kept`. The daemon keeps
/// running if it has started.
///
/// # Errors
/// If the check could not be made.
pub(super) async fn check_log(
    stack: &mut TestStack,
    workload: &StoreWorkload,
    announced: &AnnouncedEvents,
    events_kept: u64,
) -> anyhow::Result<LogVerdict> {
    let mut verdict = LogVerdict::default();
    let shown = workload.shown();
    take_place(&stack.path("data"))?;
    let began = tokio::time::Instant::now();
    stack.start(Binary::Ingestd)?;
    let wire = stack.wire();
    let open = wait_for("the daemon to answer or to end", STEP_WITHIN, async || {
        if !stack.process(Binary::Ingestd).is_ok_and(crate::ChildProcess::is_running) {
            return Some(false);
        }
        http::fetch(&wire, "/health", Duration::from_secs(5)).await.is_ok().then_some(true)
    })
    .await;
    verdict.opened_ms = began.elapsed().as_millis();
    match open {
        Ok(true) => {
            if let Err(error) =
                read_and_compare(stack, workload, announced, (shown, events_kept), &mut verdict).await
            {
                verdict.faults.push(format!("{error:#}"));
            }
        }
        Ok(false) => verdict.refused = Some(last_error(&stack.process(Binary::Ingestd)?.log())),
        Err(_) => verdict.faults.push("the daemon neither answered nor ended".to_owned()),
    }
    let process = stack.process(Binary::Ingestd)?;
    verdict.memory_peak_kib = memory_peak_kib(process.id());
    verdict.panicked = process.log().contains("panicked at");
    Ok(verdict)
}

/// The last line of a log that is an error, or its last line.
pub(super) fn last_error(log: &str) -> String {
    let error = log.lines().rfind(|line| line.contains("ERROR"));
    error.or_else(|| log.lines().last()).unwrap_or("an empty log").to_owned()
}

fn memory_peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

async fn read_and_compare(
    stack: &mut TestStack,
    workload: &StoreWorkload,
    announced: &AnnouncedEvents,
    (mut shown, events_kept): (BTreeSet<(String, String)>, u64),
    verdict: &mut LogVerdict,
) -> anyhow::Result<()> {
    let path = match announced.epoch.as_str() {
        "" => "/wire?snapshot=1000000".to_owned(),
        epoch => format!("/wire?after={epoch}-0"),
    };
    let wire = stack.wire();
    let mut subscriber = TestSubscriber::start(wire.clone(), &path);
    let sources: BTreeSet<String> = workload.sources().into_iter().map(|source| source.id).collect();
    let visited = wait_for("a visit of every source", STEP_WITHIN, async || {
        if !stack.process(Binary::Ingestd).is_ok_and(crate::ChildProcess::is_running) {
            return Some(false);
        }
        // A busy machine can be too slow even for the head of a request (408).
        if subscriber.closed().is_some() {
            subscriber = TestSubscriber::start(wire.clone(), &path);
        }
        let ended = subscriber.events("source");
        let visited: BTreeSet<_> =
            ended.iter().filter_map(|e| Some(e.json()["source"].as_str()?.to_owned())).collect();
        if !visited.is_superset(&sources) {
            visit_quarantined(&wire).await;
        }
        visited.is_superset(&sources).then_some(true)
    })
    .await;
    // What the feeds showed before the start and show still, they showed at every visit.
    let shown_now = workload.shown();
    shown.retain(|item| shown_now.contains(item));
    let head = match visited {
        Ok(true) => head(stack, &subscriber).await?,
        Ok(false) => {
            let log = stack.process(Binary::Ingestd)?.log();
            anyhow::bail!("the daemon ended while it was read: {}", last_error(&log))
        }
        Err(error) => return Err(error.context(subscriber.summary())),
    };
    let records = subscriber.records();
    compare(&records, announced, head, events_kept, &shown, verdict)
}

/// Orders visits of quarantined sources: a busy machine can take long to parse a document, and its source is then not
/// visited for a day.
pub(super) async fn visit_quarantined(wire: &http::Address) {
    let limit = Duration::from_secs(5);
    let Ok((200, text)) = http::fetch(wire, "/sources", limit).await else { return };
    let listed: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let sources = listed["sources"].as_array().cloned().unwrap_or_default();
    let quarantined = sources.iter().filter(|source| source["quarantine"].is_string());
    let ids: Vec<_> = quarantined.filter_map(|source| source["id"].as_str()).collect();
    if !ids.is_empty() {
        let order = serde_json::json!({ "sources": ids }).to_string();
        let headers = [("Content-Type", "application/json"), ("Connection", "close")];
        // A daemon that is busy or has ended is asked again.
        let _answer =
            tokio::time::timeout(limit, http::send("POST", wire, "/visits", &headers, &order)).await;
    }
}

/// The newest event of the log, after the subscriber has read up to it.
async fn head(stack: &TestStack, subscriber: &TestSubscriber) -> anyhow::Result<u64> {
    let second = TestSubscriber::start(stack.wire(), "/wire?snapshot=0");
    let opened = second.wait_event("stream", STEP_WITHIN, |_| true).await?;
    let seq_of = |id: &str| id.rsplit_once('-').and_then(|(_, seq)| seq.parse::<u64>().ok()).unwrap_or(0);
    let head = seq_of(opened.json()["head"].as_str().unwrap_or_default());
    let read = async || (seq_of(&subscriber.last_event_id()) >= head).then_some(());
    wait_for("the log to be read", STEP_WITHIN, read).await.map_err(|e| e.context(subscriber.summary()))?;
    Ok(head)
}

fn compare(
    records: &[RecordedEvent],
    announced: &AnnouncedEvents,
    head: u64,
    events_kept: u64,
    shown: &BTreeSet<(String, String)>,
    verdict: &mut LogVerdict,
) -> anyhow::Result<()> {
    let read = AnnouncedEvents::of(records)?;
    verdict.events = read.events.len() as u64;
    let opened = records.iter().find(|r| r.message.event == "stream").map(RecordedEvent::json);
    let opened = opened.unwrap_or_default();
    verdict.is_reset = opened["resume"] == "reset";
    if verdict.is_reset
        || (!announced.epoch.is_empty() && !read.epoch.is_empty() && read.epoch != announced.epoch)
    {
        verdict.is_reset = true;
        verdict.faults.push(format!("the epoch {} became {}", announced.epoch, read.epoch));
        return Ok(());
    }
    let told = told_gaps(records, &opened, verdict);
    let oldest_kept = (head + 1).saturating_sub(events_kept);
    let (mut lost, mut changed) = (Vec::new(), Vec::new());
    for (seq, event) in &announced.events {
        match read.events.get(seq) {
            Some(now) if now == event => {}
            Some(_) => changed.push(*seq),
            None if *seq < oldest_kept => {}
            None if told.iter().any(|gap| gap.contains(seq)) => verdict.missed += 1,
            None => lost.push(*seq),
        }
    }
    (verdict.lost, verdict.changed) = (lost.len() as u64, changed.len() as u64);
    for (seqs, what) in [(lost, "were lost"), (changed, "have other bytes")] {
        if let (Some(first), Some(last)) = (seqs.first(), seqs.last()) {
            let count = seqs.len();
            verdict.faults.push(format!("{count} announced events {what}, {first} to {last}; head {head}"));
        }
    }
    compare_items(&read, announced, shown, verdict);
    Ok(())
}

/// The events that the stream said were missing; a number that is neither there nor told is a fault.
fn told_gaps(
    records: &[RecordedEvent],
    opened: &serde_json::Value,
    verdict: &mut LogVerdict,
) -> Vec<std::ops::RangeInclusive<u64>> {
    let id_of = |id: &str| id.rsplit_once('-').and_then(|(_, seq)| seq.parse::<u64>().ok());
    let mut expected = opened["oldest"].as_str().and_then(id_of);
    let before = opened["missed"].as_u64().unwrap_or(0);
    let mut told = Vec::from([1..=before]);
    let (mut after_gap, mut repeated) = (false, 0_u64);
    for record in records {
        match record.message.event.as_str() {
            // What follows a gap is an event, or nothing until there is one.
            "gap" if after_gap => repeated += 1,
            "gap" => {
                after_gap = true;
                let missed = record.json()["missed"].as_u64().unwrap_or(0);
                let from = expected.unwrap_or(1);
                told.push(from..=from + missed - 1);
                expected = Some(from + missed);
            }
            "item" | "update" => {
                let Some(seq) = id_of(&record.message.last_event_id) else { continue };
                let wanted = expected.unwrap_or(seq);
                if seq != wanted {
                    verdict.faults.push(format!("the event {seq} came where {wanted} was next"));
                }
                (expected, after_gap) = (Some(seq + 1), false);
            }
            _ => {}
        }
    }
    if repeated > 0 {
        verdict.faults.push(format!("a gap was followed by another one, {repeated} times"));
    }
    told
}

/// Each item must have one event of the kind `item`, and what the feeds show must have come.
fn compare_items(
    read: &AnnouncedEvents,
    announced: &AnnouncedEvents,
    shown: &BTreeSet<(String, String)>,
    verdict: &mut LogVerdict,
) {
    let mut ids: BTreeMap<(String, String), BTreeSet<u64>> = BTreeMap::new();
    for (seq, event) in announced.events.iter().chain(&read.events) {
        if event.kind == "item" {
            ids.entry(event.item()).or_default().insert(*seq);
        }
    }
    let doubled: Vec<_> = ids.iter().filter(|(_, seqs)| seqs.len() > 1).collect();
    verdict.doubled = doubled.len() as u64;
    for ((source, guid), seqs) in doubled.iter().take(FAULTS_SHOWN) {
        verdict.faults.push(format!("{guid} of {source} came as {seqs:?}; {} such items", doubled.len()));
    }
    let absent: Vec<_> = shown.iter().filter(|item| !ids.contains_key(item)).collect();
    for (source, guid) in absent.iter().take(FAULTS_SHOWN) {
        verdict.faults.push(format!("{guid} of {source} never came; {} such items", absent.len()));
    }
}
