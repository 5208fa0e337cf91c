//! The log: one line an event on standard error, or native fields in the journal; its level can change at run time.
//!
//! Whatever a feed or a client wrote, no control character reaches the terminal, the file or the journal raw: every
//! name and value passes `notation::escaped` (the tests of `lines` hold that). Words of fields are fixed: `source seq epoch
//! items wait_ms status subscriber cursor blame error`.

mod detail;
mod fields;
mod journal;
mod kept;
mod lines;
mod repeats;

pub(crate) use self::detail::check_level;
pub use self::kept::{CapturedLog, kept};

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_log::LogTracer;
use tracing_log::log::LevelFilter as LogLevel;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, reload};

use self::lines::{Lines, Shape, Write};
use crate::clock::Clock;
use crate::config::{ConfigChange, Log, LogFormat};
use crate::metrics::MetricsRegistry;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// `log.level` is no level and no filter.
    #[error("{0}")]
    Level(String),
    /// `log.format` is `journald`, but there is no journal.
    #[error("cannot write to the journal at {path}: {source}; set log.format to `auto` or `text`")]
    Journal {
        /// The socket of the journal.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// [`init`] was called twice.
    #[error("the log is set up already")]
    AlreadySet,
}

/// A handle to the running log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs(Arc<Running>);

#[derive(Debug)]
struct Running {
    /// `None` in [`Logs::detached`].
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    level: Mutex<Level>,
    counts: Arc<Counts>,
}

/// The level as it was written.
#[derive(Debug)]
struct Level {
    configured: String,
    current: String,
}

/// Lines that nobody will read.
#[derive(Debug, Default)]
struct Counts {
    swallowed: AtomicU64,
    dropped: AtomicU64,
}

/// Sets up the log of this process, for `tracing` and for dependencies that use the `log` crate. Call once, first.
///
/// # Errors
/// See [`LogsError`].
pub fn init(log: &Log) -> Result<Logs, LogsError> {
    let counts = Arc::<Counts>::default();
    let (shape, out) = output(log.format, &counts)?;
    let filter = detail::filter(&log.level).map_err(LogsError::Level)?;
    let most = filter.max_level_hint();
    let (filter, handle) = reload::Layer::new(filter);
    let lines = Lines::new(shape, out, Clock::system(), Arc::clone(&counts));
    let subscriber = Registry::default().with(filter).with(lines);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogsError::AlreadySet)?;
    LogTracer::init().map_err(|_| LogsError::AlreadySet)?;
    limit_dependencies(most);
    Ok(Logs::new(Some(handle), &log.level, counts))
}

impl Logs {
    fn new(filter: Option<reload::Handle<EnvFilter, Registry>>, level: &str, counts: Arc<Counts>) -> Self {
        let level = Mutex::new(Level { configured: level.to_owned(), current: level.to_owned() });
        Self(Arc::new(Running { filter, level, counts }))
    }

    /// A handle to no log at all, for tests of what takes a handle: it checks and keeps levels, and shows nothing.
    #[must_use]
    pub fn detached() -> Self {
        Self::new(None, "info", Arc::default())
    }

    /// The level or filter in force, as it was written.
    #[must_use]
    pub fn level(&self) -> String {
        self.known().current.clone()
    }

    /// Changes what is logged from now on, in the words of `log.level`.
    ///
    /// # Errors
    /// A sentence that names what is wrong; then the old level stays.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.change(&mut self.known(), level)
    }

    /// The same, and it is the level to which [`Logs::restore`] goes back: for `log.level` read again.
    ///
    /// # Errors
    /// As [`Logs::set_level`].
    pub fn configure(&self, level: &str) -> Result<(), String> {
        let mut known = self.known();
        self.change(&mut known, level)?;
        level.clone_into(&mut known.configured);
        Ok(())
    }

    /// One step more detail: `info` becomes `debug`, `debug` becomes `trace`, also for each module of a filter. Says so
    /// in the log.
    pub fn more_detail(&self) {
        let (level, result) = {
            let mut known = self.known();
            let more = detail::one_step_more(&known.current);
            let result = more.as_ref().map(|more| self.change(&mut known, more));
            (known.current.clone(), result)
        };
        match result {
            None => tracing::info!(level, "found no more detail than this"),
            Some(Ok(())) => tracing::info!(level, "raised the log level"),
            Some(Err(error)) => tracing::warn!(level, error, "could not raise the log level"),
        }
    }

    /// Back to the configured level. Says so in the log, before it goes quiet.
    pub fn restore(&self) {
        let level = self.known().configured.clone();
        tracing::info!(level, "went back to the configured log level");
        let result = self.change(&mut self.known(), &level);
        if let Err(error) = result {
            tracing::warn!(level, error, "could not go back to the configured log level");
        }
    }

    fn known(&self) -> MutexGuard<'_, Level> {
        self.0.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, known: &mut Level, level: &str) -> Result<(), String> {
        check_level(level)?;
        let filter = detail::filter(level)?;
        let most = filter.max_level_hint();
        if let Some(handle) = &self.0.filter {
            handle.reload(filter).map_err(|error| format!("cannot change the level: {error}"))?;
            limit_dependencies(most);
        }
        level.clone_into(&mut known.current);
        Ok(())
    }

    /// Counts what nobody will read as `newswire_<part>_log_lines_{swallowed,dropped}_total`.
    pub fn register(&self, metrics: &MetricsRegistry, part: &str) {
        let (swallowed, dropped) = (Arc::clone(&self.0.counts), self.clone());
        metrics.register_counter(
            &format!("newswire_{part}_log_lines_swallowed_total"),
            "Lines of the log that were not written because they repeat others",
            move || swallowed.swallowed.load(Ordering::Relaxed),
        );
        metrics.register_counter(
            &format!("newswire_{part}_log_lines_dropped_total"),
            "Lines of the log that the journal or standard error did not take",
            move || dropped.dropped(),
        );
    }

    /// Takes the level of a reloaded configuration, if that is among the `changes`: one that was set by hand stays
    /// otherwise.
    pub fn reconfigure(&self, level: &str, changes: &[ConfigChange]) {
        if changes.iter().any(|change| change.key == "log.level")
            && let Err(error) = self.configure(level)
        {
            tracing::error!(error, "kept the old log level");
        }
    }

    /// Lines that could not be written, because the journal did not take them or standard error is closed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.counts.dropped.load(Ordering::Relaxed)
    }
}

/// Tells the `log` crate what is not wanted anyhow, so that dependencies do not even format it.
fn limit_dependencies(most: Option<LevelFilter>) {
    let most = most.unwrap_or(LevelFilter::TRACE);
    tracing_log::log::set_max_level(match most.into_level() {
        None => LogLevel::Off,
        Some(tracing::Level::ERROR) => LogLevel::Error,
        Some(tracing::Level::WARN) => LogLevel::Warn,
        Some(tracing::Level::INFO) => LogLevel::Info,
        Some(tracing::Level::DEBUG) => LogLevel::Debug,
        Some(_) => LogLevel::Trace,
    });
}

fn output(format: LogFormat, counts: &Arc<Counts>) -> Result<(Shape, Box<dyn Write>), LogsError> {
    let to_journal = || {
        journal::Journal::connect(journal::SOCKET, Arc::clone(counts))
            .map_err(|source| LogsError::Journal { path: journal::SOCKET, source })
    };
    let stderr = || Box::new(Stderr { counts: Arc::clone(counts) });
    let colour = || io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    match format {
        LogFormat::Journald => Ok((Shape::Journal, Box::new(to_journal()?))),
        LogFormat::Auto if journal::stderr_goes_there() => match to_journal() {
            Ok(journal) => Ok((Shape::Journal, Box::new(journal))),
            Err(_) => Ok((Shape::Text { colour: false }, stderr())),
        },
        LogFormat::Auto | LogFormat::Text => Ok((Shape::Text { colour: colour() }, stderr())),
        LogFormat::Json => Ok((Shape::Json, stderr())),
    }
}

/// Standard error, one write a line.
struct Stderr {
    counts: Arc<Counts>,
}

impl Write for Stderr {
    fn write(&self, line: &[u8]) {
        if io::stderr().lock().write_all(line).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_refuses_a_wrong_level_and_keeps_the_old_one() {
        let logs = Logs::detached();
        logs.set_level("debug").unwrap();
        assert!(logs.set_level("lots").unwrap_err().contains("`lots`"));
        assert_eq!(logs.level(), "debug");
    }

    #[test]
    fn detail_goes_up_in_steps_and_back_to_what_is_configured() {
        let logs = Logs::detached();
        let steps: Vec<_> = (0..3).map(|_| (logs.more_detail(), logs.level()).1).collect();
        assert_eq!(steps, ["debug", "trace", "trace"]);
        logs.restore();
        assert_eq!(logs.level(), "info");
        logs.configure("warn,ingestd=info").unwrap();
        logs.more_detail();
        assert_eq!(logs.level(), "info,ingestd=debug");
        logs.set_level("off").unwrap();
        logs.restore();
        assert_eq!(logs.level(), "warn,ingestd=info");
    }
}
