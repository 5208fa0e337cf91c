//! A daemon that plays a script: speaks the wire on a Unix socket, so that what is measured is the real gateway at an
//! exact rate, with the time of sending in every event. Feeds could give neither.

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

/// How often a silent wire shows that it lives; the gateway waits 10 s.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Longest wait for the gateway to take what is written.
const PATIENCE: Duration = Duration::from_secs(20);

/// The daemon; ends with its last connection when dropped.
pub(crate) struct Script {
    stage: Arc<Stage>,
    socket: PathBuf,
    listener: Option<JoinHandle<()>>,
}

struct Stage {
    /// The blocks of the events, from number 1.
    log: Mutex<Vec<Arc<str>>>,
    bell: Condvar,
    stop: AtomicBool,
}

impl Stage {
    fn log(&self) -> MutexGuard<'_, Vec<Arc<str>>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Script {
    /// Listens at `socket`.
    pub(crate) fn begin(socket: &Path) -> anyhow::Result<Self> {
        let door = UnixListener::bind(socket).context("listen for the gateway")?;
        let stage =
            Arc::new(Stage { log: Mutex::default(), bell: Condvar::new(), stop: AtomicBool::new(false) });
        let shared = Arc::clone(&stage);
        let listener = thread::Builder::new().name("script".into()).spawn(move || serve(&door, &shared))?;
        Ok(Self { stage, socket: socket.to_owned(), listener: Some(listener) })
    }

    /// Publishes the JSON of the next events, all at once.
    pub(crate) fn publish(&self, events: impl IntoIterator<Item = String>) {
        let mut log = self.stage.log();
        for json in events {
            let seq = log.len() + 1;
            log.push(format!("id: {EPOCH}-{seq}\nevent: item\ndata: {json}\n\n").into());
        }
        drop(log);
        self.stage.bell.notify_all();
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.stage.stop.store(true, Relaxed);
        self.stage.bell.notify_all();
        // Wakes the listener.
        drop(UnixStream::connect(&self.socket));
        if let Some(listener) = self.listener.take() {
            listener.join().ok();
        }
    }
}

fn serve(door: &UnixListener, stage: &Arc<Stage>) {
    let mut open: Vec<JoinHandle<()>> = Vec::new();
    while let Ok((stream, _)) = door.accept() {
        if stage.stop.load(Relaxed) {
            break;
        }
        open.retain(|connection| !connection.is_finished());
        let stage = Arc::clone(stage);
        let answer = move || {
            // The gateway went away, which is its own affair.
            answer(stream, &stage).ok();
        };
        open.extend(thread::Builder::new().name("script".into()).spawn(answer));
    }
    open.into_iter().for_each(|connection| drop(connection.join()));
}

fn answer(mut stream: UnixStream, stage: &Stage) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = BufReader::new(stream.try_clone()?).lines();
    let head: Vec<String> =
        head.take_while(|l| !matches!(l.as_deref(), Ok("") | Err(_))).collect::<Result<_, _>>()?;
    let request = head.first().map_or("", String::as_str);
    if request.starts_with("GET /wire") {
        let id = head
            .iter()
            .find_map(|l| l.strip_prefix("last-event-id: ")?.strip_prefix(EPOCH)?.strip_prefix('-'));
        return play(&mut stream, stage, id.and_then(|id| id.parse().ok()));
    }
    let body = match request {
        sources if sources.starts_with("GET /sources") => "{\"sources\":[]}",
        _ => "# EOF\n",
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// The wire: the head, everything after `after`, and whatever comes.
fn play(stream: &mut UnixStream, stage: &Stage, after: Option<usize>) -> std::io::Result<()> {
    let resume = if after.is_some() { "exact" } else { "live" };
    let head = stage.log().len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nevent: stream\ndata: \
         {{\"resume\":\"{resume}\",\"requested\":null,\"oldest\":\"{EPOCH}-1\",\"head\":\"{EPOCH}-{head}\",\
         \"missed\":0,\"server\":\"bench\"}}\n\n"
    )?;
    let mut cursor = after.unwrap_or(0);
    while !stage.stop.load(Relaxed) {
        let log = stage.log();
        let waits = |log: &mut Vec<Arc<str>>| log.len() <= cursor && !stage.stop.load(Relaxed);
        let (log, _) =
            stage.bell.wait_timeout_while(log, HEARTBEAT, waits).unwrap_or_else(PoisonError::into_inner);
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
        let script = Script::begin(&socket).unwrap();
        script.publish(["{}".to_owned(), "{}".to_owned(), "{}".to_owned()]);
        assert_eq!(ids(&socket, "", 3), ["bench-1", "bench-2", "bench-3"]);
        assert_eq!(ids(&socket, "last-event-id: bench-2\r\n", 1), ["bench-3"]);
    }
}
