//! What ids of the other wire mean on this one: of a daemon's log where events come from NATS, of the stream of NATS where they
//! come from the daemon of this machine.
//!
//! ```text
//! an id of another epoch ─► it has a place here        ─► the client goes on there, `exact`
//!                           it may get one in a moment ─► the client waits: the daemon still fills the stream
//!                           it has none                ─► `reset`
//! ```
//!
//! All of it is in memory: an id that was made up costs a search among some hundred numbers.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use news::{Cursor, Epoch};
use tokio::time::Instant;
use wire::{IdAlias, IdAliases};

/// Logs whose ids are known. Ids of others have no place here.
const LOGS_MAX: usize = 1024;
/// Epochs that this gateway has served, of which no daemon will say anything any more.
const SERVED_MAX: usize = 16;
/// How long a client with an id of an epoch that is not known waits after the stream was opened: a daemon that has just begun to
/// fill it says so within a second.
const FIRST_WORD_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a client waits after the stream was opened, or after the last progress, for its daemon to come to its id.
const PROGRESS_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a client waits whose id is newer than what its daemon last said of its log, which it does once a second.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(5);

/// What is known of ids of other epochs.
#[derive(Debug, Default)]
pub(crate) struct AliasDirectory {
    known: Mutex<Known>,
    /// A client waits for its id to get a place.
    is_waited_for: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    logs: Vec<KnownLog>,
    /// When the stream of NATS was opened under its epoch; `None` over the local wire, where no more becomes known.
    opened: Option<Instant>,
    served: VecDeque<Epoch>,
}

#[derive(Debug)]
struct KnownLog {
    aliases: Arc<IdAliases>,
    /// When it last became more.
    grown: Instant,
}

impl AliasDirectory {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change under it is complete before it can panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The local wire is open, and the daemon has said this.
    pub(crate) fn replace(&self, told: &[IdAliases]) {
        let grown = Instant::now();
        let logs = told.iter().map(|aliases| KnownLog { aliases: Arc::new(aliases.clone()), grown });
        let logs = logs.take(LOGS_MAX).collect();
        *self.known() = Known { logs, ..Known::default() };
    }

    /// The stream of NATS is open under this epoch.
    pub(crate) fn opened(&self, epoch: &Epoch) {
        let mut known = self.known();
        if known.served.back() == Some(epoch) {
            return;
        }
        known.opened = Some(Instant::now());
        known.logs.retain(|log| log.aliases.stream == *epoch);
        known.served.retain(|served| served != epoch);
        known.served.push_back(epoch.clone());
        while known.served.len() > SERVED_MAX {
            known.served.pop_front();
        }
    }

    /// A daemon has said this over NATS; `false` if it is one too many.
    pub(crate) fn note(&self, aliases: IdAliases) -> bool {
        let mut known = self.known();
        // Under the present epoch, or under the next one, of which this gateway may hear in a moment.
        if known.served.iter().rev().skip(1).any(|served| *served == aliases.stream) {
            return true;
        }
        let now = Instant::now();
        let is_same = |log: &KnownLog| log.aliases.log == aliases.log && log.aliases.stream == aliases.stream;
        if let Some(log) = known.logs.iter_mut().find(|log| is_same(log)) {
            let is_more = log.aliases.runs != aliases.runs;
            log.aliases = Arc::new(aliases);
            log.grown = if is_more { now } else { log.grown };
            return true;
        }
        if known.logs.len() >= LOGS_MAX {
            return false;
        }
        known.logs.push(KnownLog { aliases: Arc::new(aliases), grown: now });
        true
    }

    /// Where `id` stands in the epoch `own`, for a client that has waited for so long.
    pub(crate) fn resolve(&self, id: &Cursor, own: &Epoch, waited: Duration) -> IdAlias {
        if id.epoch == *own {
            return IdAlias::At(id.seq);
        }
        let alias = self.known().resolve(id, own, waited);
        if alias == IdAlias::NotYet {
            self.is_waited_for.store(true, Ordering::Relaxed);
        }
        alias
    }

    /// Whether a client has waited since this was last asked.
    pub(crate) fn take_waited_for(&self) -> bool {
        self.is_waited_for.swap(false, Ordering::Relaxed)
    }
}

impl Known {
    fn resolve(&self, id: &Cursor, own: &Epoch, waited: Duration) -> IdAlias {
        let found = self.logs.iter().find(|KnownLog { aliases, .. }| {
            (aliases.log == *own && aliases.stream == id.epoch)
                || (aliases.stream == *own && aliases.log == id.epoch)
        });
        match found {
            Some(log) if log.aliases.log == *own => log.aliases.in_log(id),
            Some(log) => match log.aliases.in_stream(id) {
                IdAlias::NotYet if !self.is_worth_waiting(id, log, waited) => IdAlias::None,
                alias => alias,
            },
            None => {
                let is_early = self.opened.is_some_and(|opened| opened.elapsed() < FIRST_WORD_WAIT_MAX);
                if is_early && !self.served.contains(&id.epoch) { IdAlias::NotYet } else { IdAlias::None }
            }
        }
    }

    fn is_worth_waiting(&self, id: &Cursor, log: &KnownLog, waited: Duration) -> bool {
        let is_early = self.opened.is_some_and(|opened| opened.elapsed() < PROGRESS_WAIT_MAX);
        let is_awaited = match id.seq <= log.aliases.head {
            true => log.grown.elapsed() < PROGRESS_WAIT_MAX,
            false => waited < HEAD_WAIT_MAX,
        };
        is_early || is_awaited
    }
}

#[cfg(test)]
mod tests {
    use news::Seq;
    use wire::AliasRun;

    use super::*;

    fn epoch(name: &str) -> Epoch {
        Epoch::try_new(name).unwrap()
    }

    fn aliases(stream: &str, to: u64, head: u64) -> IdAliases {
        IdAliases {
            stream: epoch(stream),
            log: epoch("log"),
            runs: vec![AliasRun(0, 0, to + 1)],
            complete_after: Seq(0),
            head: Seq(head),
            ended: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_waits_only_while_its_daemon_may_still_come_to_it() {
        let directory = AliasDirectory::default();
        let resolve = |id: &str, own: &str, waited: u64| {
            directory.resolve(&id.parse().unwrap(), &epoch(own), Duration::from_secs(waited))
        };
        let (no, wait) = (IdAlias::None, IdAlias::NotYet);
        directory.opened(&epoch("s1"));
        assert_eq!(resolve("s1-7", "s1", 0), IdAlias::At(Seq(7)), "an own id is what it is");
        assert_eq!(resolve("log-7", "s1", 0), wait, "its daemon may say so in a moment");
        assert!(directory.take_waited_for() && !directory.take_waited_for());
        tokio::time::advance(FIRST_WORD_WAIT_MAX).await;
        assert_eq!(resolve("log-7", "s1", 0), no);

        assert!(directory.note(aliases("s1", 5, 9)));
        assert_eq!(resolve("log-5", "s1", 0), IdAlias::At(Seq(5)));
        assert_eq!((resolve("log-7", "s1", 99), resolve("log-10", "s1", 99)), (wait, wait));
        tokio::time::advance(PROGRESS_WAIT_MAX - FIRST_WORD_WAIT_MAX).await;
        assert_eq!(resolve("log-7", "s1", 99), wait, "it came on less than that ago");
        assert_eq!((resolve("log-10", "s1", 4), resolve("log-10", "s1", 5)), (wait, no));
        tokio::time::advance(PROGRESS_WAIT_MAX).await;
        assert_eq!(resolve("log-7", "s1", 0), no, "nothing has come for long");
        assert!(directory.note(aliases("s1", 7, 9)));
        assert_eq!(resolve("log-7", "s1", 0), IdAlias::At(Seq(7)));

        directory.opened(&epoch("s2"));
        assert_eq!(resolve("s1-7", "s2", 0), no, "nothing more becomes known of it");
        assert_eq!(resolve("log-7", "s2", 0), wait);
        assert!(directory.note(aliases("s1", 8, 9)));
        assert_eq!(resolve("log-7", "s2", 0), wait, "what is of the old epoch means nothing");
        assert!(directory.note(aliases("s2", 8, 9)));
        assert_eq!(resolve("log-7", "s2", 0), IdAlias::At(Seq(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn over_the_local_wire_an_id_of_the_stream_has_a_place_or_none_at_once() {
        let directory = AliasDirectory::default();
        directory.replace(&[aliases("s1", 5, 9), aliases("s2", 7, 9)]);
        let resolve = |id: &str| directory.resolve(&id.parse().unwrap(), &epoch("log"), Duration::ZERO);
        assert_eq!((resolve("s1-5"), resolve("s2-7")), (IdAlias::At(Seq(5)), IdAlias::At(Seq(7))));
        assert_eq!((resolve("s1-6"), resolve("s3-1")), (IdAlias::None, IdAlias::None));
    }

    #[tokio::test(start_paused = true)]
    async fn ids_of_more_logs_than_are_kept_have_no_place() {
        let directory = AliasDirectory::default();
        directory.opened(&epoch("s1"));
        let of = |n: usize| IdAliases { log: epoch(&format!("log{n}")), ..aliases("s1", 5, 9) };
        assert!((0..LOGS_MAX).all(|n| directory.note(of(n))));
        assert!(!directory.note(of(LOGS_MAX)) && directory.note(of(0)));
    }
}
