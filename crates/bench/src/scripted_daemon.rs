//! A stand-in for the ingestion daemon: speaks the wire on a Unix socket, so that the real gateway is measured at an exact
//! rate, with the time of sending in every event. It serves pages of its log, too, and knows as many sources as it is given.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;

use crate::payload::EPOCH;

/// Interval of heartbeats on an idle wire; the gateway waits 10 s.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Timeout of reads from and writes to the gateway.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Largest page of the log, in bytes.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Lines of its metrics: as much text as the real daemon has.
const METRICS_LINES: usize = 2000;

/// What a daemon has when it starts; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedLog {
    /// The blocks of the events, from sequence number 1.
    blocks: Vec<Arc<str>>,
    /// The JSON of the sources, separated by commas.
    sources: Arc<str>,
}

impl ScriptedLog {
    pub(crate) fn new(events: impl IntoIterator<Item = String>, sources: usize) -> Self {
        let blocks = (1..).zip(events).map(|(seq, json)| block(seq, &json)).collect();
        let sources: Vec<_> = (0..sources).map(source).collect();
        Self { blocks, sources: sources.join(",").into() }
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }
}

fn block(seq: usize, json: &str) -> Arc<str> {
    format!("id: {EPOCH}-{seq}\nevent: item\ndata: {json}\n\n").into()
}

/// An element of `GET /sources` as the real daemon sends it.
fn source(n: usize) -> String {
    let url = format!("https://feeds{n}.example.org/{n}/news.xml");
    serde_json::json!({
        "id": format!("source-{n}"), "name": format!("Source number {n}"), "url": url,
        "category": format!("category-{}", n % 40), "country": "CH", "language": "de", "tags": ["one", "two"],
        "enabled": true, "activity": "idle", "activity_since": "2026-01-02T03:04:05Z", "last_status": "unchanged",
        "last_code": 304, "last_visit": "2026-01-02T03:04:05Z", "last_took_ms": 120,
        "last_success": "2026-01-02T03:04:05Z", "last_error": null, "consecutive_failures": 0,
        "next_visit": "2026-01-02T04:04:05Z", "why": "it publishes about every hour", "warnings": [], "restarts": 0,
        "counts": {"visits": 100, "unchanged": 90, "items": 30}, "last_event": null,
    })
    .to_string()
}

/// A running daemon; dropping it closes its connections.
pub(crate) struct ScriptedDaemon {
    shared: Arc<SharedLog>,
    socket: PathBuf,
    listener: Option<JoinHandle<()>>,
}

struct SharedLog {
    /// The blocks of the events, from sequence number 1.
    log: Mutex<Vec<Arc<str>>>,
    sources: Arc<str>,
    changed: Condvar,
    stop: AtomicBool,
}

impl SharedLog {
    fn log(&self) -> MutexGuard<'_, Vec<Arc<str>>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ScriptedDaemon {
    /// Listens at `socket`.
    pub(crate) fn start(socket: &Path, log: ScriptedLog) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket).context("listen for the gateway")?;
        let shared = Arc::new(SharedLog {
            log: Mutex::new(log.blocks),
            sources: log.sources,
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        let listener =
            thread::Builder::new().name("script".into()).spawn(move || serve(&listener, &served))?;
        Ok(Self { shared, socket: socket.to_owned(), listener: Some(listener) })
    }

    /// Publishes the JSON of the next events, all at once.
    pub(crate) fn publish(&self, events: impl IntoIterator<Item = String>) {
        let mut log = self.shared.log();
        for json in events {
            let seq = log.len() + 1;
            log.push(block(seq, &json));
        }
        drop(log);
        self.shared.changed.notify_all();
    }
}

impl Drop for ScriptedDaemon {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.shared.changed.notify_all();
        // Wakes the listener.
        drop(UnixStream::connect(&self.socket));
        if let Some(listener) = self.listener.take() {
            listener.join().ok();
        }
    }
}

fn serve(listener: &UnixListener, shared: &Arc<SharedLog>) {
    let mut open: Vec<JoinHandle<()>> = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        if shared.stop.load(Relaxed) {
            break;
        }
        open.retain(|connection| !connection.is_finished());
        let shared = Arc::clone(shared);
        let answer = move || {
            // The gateway may disconnect at any time.
            answer(stream, &shared).ok();
        };
        open.extend(thread::Builder::new().name("script".into()).spawn(answer));
    }
    open.into_iter().for_each(|connection| drop(connection.join()));
}

fn answer(mut stream: UnixStream, shared: &SharedLog) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let request = head.first().map_or("", String::as_str);
    let path = request.split(' ').nth(1).unwrap_or_default();
    if path.starts_with("/wire") {
        let id = header("last-event-id:").and_then(number);
        return serve_wire(&mut stream, shared, id);
    }
    let length = header("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let body = match path.split(['?', '/']).nth(1) {
        Some("sources") => format!("{{\"sources\":[{}]}}", shared.sources),
        Some("log") => log_page(&shared.log(), path),
        Some("websub") => "{\"known\":false}".to_owned(),
        _ => metrics(),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// The sequence number of an id.
fn number(id: &str) -> Option<usize> {
    id.strip_prefix(EPOCH)?.strip_prefix('-')?.parse().ok()
}

/// A page of the log: after an id the oldest first, before an id the newest first.
fn log_page(log: &[Arc<str>], path: &str) -> String {
    let parameter = |name: &str| path.split(['?', '&']).find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
    let number_of = |name: &str| parameter(name).and_then(|number| number.parse::<usize>().ok());
    let limit = number_of("limit").unwrap_or(100);
    let bytes_max = number_of("bytes").unwrap_or(PAGE_BYTES_MAX).min(PAGE_BYTES_MAX);
    let json =
        |block: &Arc<str>| block.split_once("data: ").map_or("", |(_, json)| json.trim_end()).to_owned();
    let bounded = |page: &mut dyn Iterator<Item = (usize, &Arc<str>)>| {
        let (mut events, mut bytes, mut last) = (Vec::new(), 0, None);
        for (seq, block) in page.take(limit) {
            if bytes > 0 && bytes + block.len() > bytes_max {
                break;
            }
            bytes += block.len();
            events.push(json(block));
            last = Some(seq);
        }
        (events, last)
    };
    let numbered = || (1..).zip(log);
    let (events, next) = match parameter("before").and_then(number) {
        Some(before) => {
            let end = before.saturating_sub(1).min(log.len());
            let (events, last) = bounded(&mut log[..end].iter().enumerate().map(|(n, b)| (n + 1, b)).rev());
            (events, last.filter(|seq| *seq > 1))
        }
        None => {
            let after = parameter("after").and_then(number).unwrap_or(0);
            let (events, last) = bounded(&mut numbered().skip(after));
            (events, last.filter(|seq| *seq < log.len()))
        }
    };
    let next = next.map_or("null".to_owned(), |seq| format!("\"{EPOCH}-{seq}\""));
    format!(
        "{{\"epoch\":\"{EPOCH}\",\"oldest\":\"{EPOCH}-1\",\"head\":\"{EPOCH}-{}\",\"missed\":0,\"events\":[{}],\
         \"next\":{next}}}",
        log.len(),
        events.join(",")
    )
}

fn metrics() -> String {
    let mut text = "# TYPE newswire_ingestd_bench_visits counter\n".to_owned();
    for n in 0..METRICS_LINES {
        writeln!(text, "newswire_ingestd_bench_visits_total{{host=\"host{n}.example.org\"}} {n}")
            .expect("a string takes everything");
    }
    text + "# EOF\n"
}

/// Serves the wire: the head, all events after `after`, then new ones.
fn serve_wire(stream: &mut UnixStream, shared: &SharedLog, after: Option<usize>) -> std::io::Result<()> {
    let resume = if after.is_some() { "exact" } else { "live" };
    let head = shared.log().len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nevent: stream\ndata: \
         {{\"resume\":\"{resume}\",\"requested\":null,\"oldest\":\"{EPOCH}-1\",\"head\":\"{EPOCH}-{head}\",\
         \"missed\":0,\"server\":\"bench\"}}\n\n"
    )?;
    let mut cursor = after.unwrap_or(0);
    while !shared.stop.load(Relaxed) {
        let log = shared.log();
        let waits = |log: &mut Vec<Arc<str>>| log.len() <= cursor && !shared.stop.load(Relaxed);
        let (log, _) =
            shared.changed.wait_timeout_while(log, HEARTBEAT, waits).unwrap_or_else(PoisonError::into_inner);
        let blocks = log.get(cursor..).unwrap_or_default().concat();
        cursor = cursor.max(log.len());
        drop(log);
        if blocks.is_empty() {
            write!(stream, "event: heartbeat\nid: {EPOCH}-{cursor}\ndata: {{\"oldest\":\"{EPOCH}-1\"}}\n\n")?;
        } else {
            stream.write_all(blocks.as_bytes())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids of the next `n` blocks after the head and the first event.
    fn ids(socket: &Path, header: &str, n: usize) -> Vec<String> {
        let mut stream = UnixStream::connect(socket).unwrap();
        write!(stream, "GET /wire?snapshot=9 HTTP/1.1\r\n{header}\r\n").unwrap();
        let lines = BufReader::new(stream).lines().map(Result::unwrap);
        lines.filter_map(|line| Some(line.strip_prefix("id: ")?.to_owned())).take(n).collect()
    }

    #[test]
    fn a_wire_resumes_after_the_given_id() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ingestd.sock");
        let log = ScriptedLog::new(["{}".to_owned()], 0);
        let script = ScriptedDaemon::start(&socket, log).unwrap();
        script.publish(["{}".to_owned(), "{}".to_owned()]);
        assert_eq!(ids(&socket, "", 3), ["bench-1", "bench-2", "bench-3"]);
        assert_eq!(ids(&socket, "last-event-id: bench-2\r\n", 1), ["bench-3"]);
    }

    #[test]
    fn pages_of_the_log_go_both_ways() {
        let log = ScriptedLog::new((1..=5).map(|n| n.to_string()), 0).blocks;
        let page = |path: &str| {
            let page: serde_json::Value = serde_json::from_str(&log_page(&log, path)).unwrap();
            (page["events"].to_string(), page["next"].as_str().map(str::to_owned))
        };
        assert_eq!(page("/log?limit=2&after=bench-1"), ("[2,3]".to_owned(), Some("bench-3".to_owned())));
        assert_eq!(page("/log?after=bench-3&limit=9"), ("[4,5]".to_owned(), None));
        assert_eq!(page("/log?after=bench-1&bytes=1"), ("[2]".to_owned(), Some("bench-2".to_owned())));
        assert_eq!(page("/log?before=bench-5&limit=2"), ("[4,3]".to_owned(), Some("bench-3".to_owned())));
        assert_eq!(page("/log?before=bench-3&limit=9"), ("[2,1]".to_owned(), None));
    }
}
