//! Which ids of this log and of the stream of NATS mean the same, on the disk of the daemon: so that clients which come back from
//! NATS to the local wire go on where they were, when there is no NATS any more.
//!
//! The file is a line with the hash of the rest, and JSON. It is written at most once a second; a crash loses the newest
//! second, and clients with ids of that are told `reset`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use news::{Epoch, Seq};
use tokio::{sync::watch, time::timeout};
use wire::IdAliases;

/// The file in `store.path`.
const NAME: &str = "nats-ids";
/// Largest file that is read, in bytes; more than the largest that is written.
const BYTES_MAX: u64 = 1024 * 1024;
/// How long it may take to write it at the end.
const WRITE_AT_END_MAX: Duration = Duration::from_secs(1);

/// The aliases, as far as they are known. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct KnownAliases {
    path: Arc<Path>,
    current: Arc<watch::Sender<Arc<[IdAliases]>>>,
}

impl KnownAliases {
    /// Those that were written for this log.
    pub(crate) async fn read(store: &Path, log: &Epoch, head: Seq) -> Self {
        let (path, log) = (store.join(NAME), log.clone());
        let read_from = path.clone();
        let read = tokio::task::spawn_blocking(move || read(&read_from, &log, head));
        let known = read.await.unwrap_or_default();
        Self { path: path.into(), current: Arc::new(watch::Sender::new(known)) }
    }

    pub(crate) fn current(&self) -> Arc<[IdAliases]> {
        self.current.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<[IdAliases]>> {
        self.current.subscribe()
    }

    /// Writes what the outbox says, whenever that has changed, until it is dropped.
    pub(crate) async fn follow(&self, mut outbox: watch::Receiver<Arc<[IdAliases]>>) {
        let mut has_failed = false;
        while outbox.changed().await.is_ok() {
            let aliases = outbox.borrow_and_update().clone();
            if let Err(error) = self.keep(aliases).await
                && !std::mem::replace(&mut has_failed, true)
            {
                tracing::warn!(
                    %error, place = %self.path.display(),
                    "the ids of the stream of NATS cannot be written down; after a move back to wire.transport = \"local\", \
                     clients are told `reset`"
                );
            }
        }
        // The outbox has ended, and so does what polls this.
        std::future::pending::<()>().await;
    }

    /// Writes what the outbox said last.
    pub(crate) async fn keep_last(&self, outbox: &watch::Receiver<Arc<[IdAliases]>>) {
        let last = outbox.borrow().clone();
        // One that is not written costs clients a `reset`.
        timeout(WRITE_AT_END_MAX, self.keep(last)).await.ok();
    }

    async fn keep(&self, aliases: Arc<[IdAliases]>) -> io::Result<()> {
        if *self.current.borrow() == aliases {
            return Ok(());
        }
        let path = Arc::clone(&self.path);
        self.current.send_replace(Arc::clone(&aliases));
        tokio::task::spawn_blocking(move || write(&path, &aliases)).await.map_err(io::Error::other)?
    }
}

/// What the file says of this log. One that says more than the log has is of a later state of it, and means nothing.
#[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
fn read(path: &Path, log: &Epoch, head: Seq) -> Arc<[IdAliases]> {
    let is_small = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= BYTES_MAX);
    let text = is_small.then(|| fs::read_to_string(path).ok()).flatten().unwrap_or_default();
    let json = text.split_once('\n').filter(|(hash, json)| *hash == hash_of(json)).map(|(_, json)| json);
    let aliases = json.and_then(|json| serde_json::from_str::<Vec<IdAliases>>(json).ok()).unwrap_or_default();
    let is_known = |aliases: &IdAliases| {
        aliases.log == *log && aliases.runs.last().is_some_and(|run| run.last().1 <= head.0)
    };
    aliases.into_iter().filter(is_known).collect()
}

#[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool")]
fn write(path: &Path, aliases: &[IdAliases]) -> io::Result<()> {
    let json = serde_json::to_string(aliases)?;
    let unfinished = PathBuf::from(path).with_extension("new");
    fs::write(&unfinished, format!("{}\n{json}", hash_of(&json)))?;
    fs::rename(&unfinished, path)
}

fn hash_of(json: &str) -> String {
    format!("{:016x}", news::stable_hash(json.as_bytes()))
}

#[cfg(test)]
mod tests {
    use wire::AliasRun;

    use super::*;

    fn aliases(log: &str, to: u64) -> IdAliases {
        IdAliases {
            stream: Epoch::try_new("stream").unwrap(),
            log: Epoch::try_new(log).unwrap(),
            runs: vec![AliasRun(0, 0, to + 1)],
            complete_after: Seq(0),
            head: Seq(to),
            ended: false,
        }
    }

    #[tokio::test]
    async fn what_was_written_is_read_again_unless_it_is_damaged_or_of_another_log_or_a_later_state() {
        let folder = tempfile::tempdir().unwrap();
        let log = Epoch::try_new("log").unwrap();
        let open = async |head| KnownAliases::read(folder.path(), &log, Seq(head)).await;
        assert!(open(9).await.current().is_empty());
        let written: Arc<[_]> = [aliases("older", 3), aliases("log", 7)].into();
        open(9).await.keep(Arc::clone(&written)).await.unwrap();
        assert_eq!(*open(7).await.current(), written[1..]);
        assert!(open(6).await.current().is_empty(), "the log has lost event 7");
        let path = folder.path().join(NAME);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("[0,0,8]", "[0,0,9]")).unwrap();
        assert!(open(9).await.current().is_empty(), "it is damaged");
    }
}
