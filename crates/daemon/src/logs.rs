//! The log: one line per event on standard error, or native fields in the journal; its level can change at run time.
//!
//! No control character of a feed or a client ever reaches the terminal, a file or the journal raw: every value passes
//! `notation::escaped` (see the tests of `lines`). The names of fields are a fixed list, the most used are `source seq
//! epoch items wait_ms status subscriber cursor blame error`.

mod captured;
mod fields;
mod journal;
mod level;
mod lines;
mod output;
mod repeats;
mod unfiltered;

pub use self::captured::{CapturedLog, capture};
pub(crate) use self::level::check_level;
#[cfg(test)]
pub(crate) use self::unfiltered::DUMP_TARGET;

use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use control::watch::{LogFailure, LogOutput, LogReport};

use tracing_log::LogTracer;
use tracing_log::log::LevelFilter as LogLevel;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, reload};

use self::lines::{LineFormat, LineLayer};
use crate::clock::Clock;
use crate::config::{ConfigChange, LogFormat, LogSection};
use crate::line_queue::{LineQueue, LineSink, QUEUE_BYTES_MAX, RESERVED_BYTES_MAX, StderrOutput};
use crate::metrics::MetricsRegistry;

/// The name of the thread that writes the log.
const THREAD: &str = "log";
/// A write that has been waiting for this long is not expected to end soon.
const BLOCKED_AFTER: Duration = Duration::from_millis(100);

/// The log of this process.
static RUNNING: OnceLock<RunningLog> = OnceLock::new();

#[derive(Debug)]
struct RunningLog {
    queue: LineQueue,
    output: LogOutput,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// `log.level` is neither a level nor a filter.
    #[error("{0}")]
    Level(String),
    /// `log.format` is `journald`, but the journal does not accept lines.
    #[error("cannot write to the journal at {path}: {source}; set log.format to `auto` or `text`")]
    Journal {
        /// The socket of the journal.
        path: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The thread that writes the log could not be started.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(io::Error),
    /// [`init`] was called twice.
    #[error("the log is set up already")]
    AlreadySet,
}

/// A handle to the running log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs(Arc<LogState>);

#[derive(Debug)]
struct LogState {
    /// `None` in [`Logs::detached`].
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    level: Mutex<LevelSetting>,
    suppressed: Arc<AtomicU64>,
}

/// Levels or filters, as the operator wrote them.
#[derive(Debug)]
struct LevelSetting {
    configured: String,
    current: String,
}

/// Sets up the log of this process, for `tracing` and for dependencies that use the `log` crate. Call once, first.
///
/// # Errors
/// See [`LogsError`].
pub fn init(log: &LogSection) -> Result<Logs, LogsError> {
    let (format, queue, output) = open_output(log.format)?;
    let filter = level::parse_filter(&log.level).map_err(LogsError::Level)?;
    let most = filter.max_level_hint();
    let (filter, handle) = reload::Layer::new(filter);
    let suppressed = Arc::<AtomicU64>::default();
    let out = Box::new(queue.clone());
    let lines = LineLayer::new(format, out, Clock::system(), Arc::clone(&suppressed));
    let subscriber = Registry::default().with(filter).with(lines);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogsError::AlreadySet)?;
    LogTracer::init().map_err(|_| LogsError::AlreadySet)?;
    RUNNING.set(RunningLog { queue, output }).map_err(|_| LogsError::AlreadySet)?;
    limit_dependencies(most);
    Ok(Logs::new(Some(handle), &log.level, suppressed))
}

/// Waits until all lines logged so far are written, but not longer than `within`: before the end of the process.
pub fn flush(within: Duration) {
    if let Some(log) = RUNNING.get() {
        let _is_written: bool = log.queue.flush(within);
    }
}

/// Finds out whether the thread that writes the log still takes lines; see [`LogReport::untaken_ms`].
pub(crate) fn probe() {
    if let Some(log) = RUNNING.get() {
        log.queue.probe();
    }
}

/// As [`flush`], but returns at once if the output takes no lines at present.
pub(crate) fn flush_unless_blocked(within: Duration) {
    let is_blocked = |log: &RunningLog| log.queue.writing_for().is_some_and(|since| since >= BLOCKED_AFTER);
    if !RUNNING.get().is_some_and(is_blocked) {
        flush(within);
    }
}

/// Whether there is room for a whole dump of stacks.
pub(crate) fn has_room_for_a_dump() -> bool {
    RUNNING.get().is_none_or(|log| log.queue.reserved_bytes() <= RESERVED_BYTES_MAX / 2)
}

/// The state of the output; `None` before [`init`]. Takes no lock.
pub(crate) fn report() -> Option<LogReport> {
    let RunningLog { queue, output } = RUNNING.get()?;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    Some(LogReport {
        output: *output,
        queued_bytes: bytes(queue.queued_bytes()),
        queued_bytes_max: bytes(QUEUE_BYTES_MAX),
        dropped: queue.dropped(),
        blocked_ms: queue.writing_for().map_or(0, millis),
        untaken_ms: queue.untaken_for().map_or(0, millis),
        failing: queue
            .failing_for()
            .map(|(error, lasted)| LogFailure { error: error.to_string(), lasted_ms: millis(lasted) }),
    })
}

impl Logs {
    fn new(
        filter: Option<reload::Handle<EnvFilter, Registry>>,
        level: &str,
        suppressed: Arc<AtomicU64>,
    ) -> Self {
        let level = Mutex::new(LevelSetting { configured: level.to_owned(), current: level.to_owned() });
        Self(Arc::new(LogState { filter, level, suppressed }))
    }

    /// A handle without a log, for tests: it checks and keeps levels, and logs nothing.
    #[must_use]
    pub fn detached() -> Self {
        Self::new(None, "info", Arc::default())
    }

    /// The level or filter in force, as it was written.
    #[must_use]
    pub fn level(&self) -> String {
        self.setting().current.clone()
    }

    /// Changes what is logged from now on; the syntax is that of `log.level`.
    ///
    /// # Errors
    /// A sentence that says what is wrong; the old level stays in force.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.change(&mut self.setting(), level)
    }

    /// The same, and also the level that [`Logs::restore`] restores: for a reloaded `log.level`.
    ///
    /// # Errors
    /// As [`Logs::set_level`].
    pub fn configure(&self, level: &str) -> Result<(), String> {
        let mut setting = self.setting();
        self.change(&mut setting, level)?;
        level.clone_into(&mut setting.configured);
        Ok(())
    }

    /// One step more verbose: `info` becomes `debug`, `debug` becomes `trace`, also for each module of a filter. Logs the
    /// change.
    pub fn more_detail(&self) {
        let (level, result) = {
            let mut setting = self.setting();
            let more = level::more_verbose(&setting.current);
            let result = more.as_ref().map(|more| self.change(&mut setting, more));
            (setting.current.clone(), result)
        };
        match result {
            None => tracing::info!(level, "log level is already at its most verbose"),
            Some(Ok(())) => tracing::info!(level, "raised the log level"),
            Some(Err(error)) => tracing::warn!(level, error, "could not raise the log level"),
        }
    }

    /// Restores the configured level. Logs the change first, since the configured level may hide it.
    pub fn restore(&self) {
        let level = self.setting().configured.clone();
        tracing::info!(level, "restored the configured log level");
        let result = self.change(&mut self.setting(), &level);
        if let Err(error) = result {
            tracing::warn!(level, error, "could not restore the configured log level");
        }
    }

    fn setting(&self) -> MutexGuard<'_, LevelSetting> {
        self.0.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, setting: &mut LevelSetting, level: &str) -> Result<(), String> {
        check_level(level)?;
        let filter = level::parse_filter(level)?;
        let most = filter.max_level_hint();
        if let Some(handle) = &self.0.filter {
            handle.reload(filter).map_err(|error| format!("cannot change the level: {error}"))?;
            limit_dependencies(most);
        }
        level.clone_into(&mut setting.current);
        Ok(())
    }

    /// Registers `newswire_<part>_log_lines_swallowed_total` and `newswire_<part>_log_lines_dropped_total`.
    pub fn register(&self, metrics: &MetricsRegistry, part: &str) {
        let suppressed = Arc::clone(&self.0.suppressed);
        metrics.register_counter(
            &format!("newswire_{part}_log_lines_swallowed_total"),
            "Log lines suppressed because they repeat others",
            move || suppressed.load(Ordering::Relaxed),
        );
        metrics.register_counter(
            &format!("newswire_{part}_log_lines_dropped_total"),
            "Log lines lost because the journal or standard error did not accept them in time",
            lines_dropped,
        );
    }

    /// Applies the level of a reloaded configuration if it is among the `changes`; otherwise a level that an operator set
    /// at run time stays in force.
    pub fn reconfigure(&self, level: &str, changes: &[ConfigChange]) {
        if changes.iter().any(|change| change.key == "log.level")
            && let Err(error) = self.configure(level)
        {
            tracing::error!(error, "could not apply the new log level; kept the old one");
        }
    }
}

/// Lines that were lost because the journal or standard error did not accept them in time.
fn lines_dropped() -> u64 {
    RUNNING.get().map_or(0, |log| log.queue.dropped())
}

/// Sets the maximum level of the `log` crate, so that dependencies do not format lines that would be filtered out.
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

fn open_output(format: LogFormat) -> Result<(LineFormat, LineQueue, LogOutput), LogsError> {
    let to_journal = || {
        journal::Journal::connect(journal::SOCKET)
            .map_err(|source| LogsError::Journal { path: journal::SOCKET, source })
    };
    let journal_lines = |journal| Ok((LineFormat::Journal, start(journal)?, LogOutput::Journal));
    let to_stderr = |format| Ok((format, start(StderrOutput)?, LogOutput::Stderr));
    let colour = || io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    match format {
        LogFormat::Journald => journal_lines(to_journal()?),
        LogFormat::Auto if journal::is_stderr() => match to_journal() {
            Ok(journal) => journal_lines(journal),
            Err(_) => to_stderr(LineFormat::Text { colour: false }),
        },
        LogFormat::Auto | LogFormat::Text => to_stderr(LineFormat::Text { colour: colour() }),
        LogFormat::Json => to_stderr(LineFormat::Json),
    }
}

fn start(output: impl LineSink) -> Result<LineQueue, LogsError> {
    LineQueue::start(THREAD, output, |_, lines| unfiltered::tell_dropped(lines)).map_err(LogsError::Thread)
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
    fn the_level_is_raised_in_steps_and_restored_to_the_configured_one() {
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
