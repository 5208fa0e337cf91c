//! A stand-in for the ingestion daemon: speaks the wire on a Unix socket, so that the real gateway is measured at an exact
//! rate, with the time of sending in every event.

use std::{
    io::{BufRead as _, BufReader, Write as _},
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

/// A running daemon; dropping it closes its connections.
pub(crate) struct ScriptedDaemon {
    shared: Arc<SharedLog>,
    socket: PathBuf,
    listener: Option<JoinHandle<()>>,
}

struct SharedLog {
    /// The blocks of the events, from sequence number 1.
    log: Mutex<Vec<Arc<str>>>,
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
    pub(crate) fn start(socket: &Path) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket).context("listen for the gateway")?;
        let shared = Arc::new(SharedLog {
            log: Mutex::default(),
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
            log.push(format!("id: {EPOCH}-{seq}\nevent: item\ndata: {json}\n\n").into());
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
    let head = BufReader::new(stream.try_clone()?).lines();
    let head: Vec<String> =
        head.take_while(|l| !matches!(l.as_deref(), Ok("") | Err(_))).collect::<Result<_, _>>()?;
    let request = head.first().map_or("", String::as_str);
    if request.starts_with("GET /wire") {
        let id = head
            .iter()
            .find_map(|l| l.strip_prefix("last-event-id: ")?.strip_prefix(EPOCH)?.strip_prefix('-'));
        return serve_wire(&mut stream, shared, id.and_then(|id| id.parse().ok()));
    }
    let body = match request {
        sources if sources.starts_with("GET /sources") => "{\"sources\":[]}",
        _ => "# EOF\n",
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
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
        let script = ScriptedDaemon::start(&socket).unwrap();
        script.publish(["{}".to_owned(), "{}".to_owned(), "{}".to_owned()]);
        assert_eq!(ids(&socket, "", 3), ["bench-1", "bench-2", "bench-3"]);
        assert_eq!(ids(&socket, "last-event-id: bench-2\r\n", 1), ["bench-3"]);
    }
}
