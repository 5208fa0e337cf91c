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

pub use self::captured::{CapturedLog, capture};
pub(crate) use self::level::check_level;

use std::io::{self, IsTerminal as _};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_log::LogTracer;
use tracing_log::log::LevelFilter as LogLevel;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, reload};

use self::lines::{LineFormat, LineLayer};
use self::output::{LineWriter, LostLines, Stderr};
use crate::clock::Clock;
use crate::config::{ConfigChange, LogFormat, LogSection};
use crate::metrics::MetricsRegistry;

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
    lost: Arc<LostLines>,
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
    let lost = Arc::<LostLines>::default();
    let (format, out) = open_output(log.format, &lost)?;
    let filter = level::parse_filter(&log.level).map_err(LogsError::Level)?;
    let most = filter.max_level_hint();
    let (filter, handle) = reload::Layer::new(filter);
    let lines = LineLayer::new(format, out, Clock::system(), Arc::clone(&lost));
    let subscriber = Registry::default().with(filter).with(lines);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogsError::AlreadySet)?;
    LogTracer::init().map_err(|_| LogsError::AlreadySet)?;
    limit_dependencies(most);
    Ok(Logs::new(Some(handle), &log.level, lost))
}

impl Logs {
    fn new(filter: Option<reload::Handle<EnvFilter, Registry>>, level: &str, lost: Arc<LostLines>) -> Self {
        let level = Mutex::new(LevelSetting { configured: level.to_owned(), current: level.to_owned() });
        Self(Arc::new(LogState { filter, level, lost }))
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
        let (lost, logs) = (Arc::clone(&self.0.lost), self.clone());
        metrics.register_counter(
            &format!("newswire_{part}_log_lines_swallowed_total"),
            "Log lines suppressed because they repeat others",
            move || lost.suppressed.load(Ordering::Relaxed),
        );
        metrics.register_counter(
            &format!("newswire_{part}_log_lines_dropped_total"),
            "Log lines lost because the journal or standard error did not accept them",
            move || logs.dropped(),
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

    /// Lines lost because the journal did not accept them or standard error is closed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.lost.dropped.load(Ordering::Relaxed)
    }
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

fn open_output(
    format: LogFormat,
    lost: &Arc<LostLines>,
) -> Result<(LineFormat, Box<dyn LineWriter>), LogsError> {
    let to_journal = || {
        journal::Journal::connect(journal::SOCKET, Arc::clone(lost))
            .map_err(|source| LogsError::Journal { path: journal::SOCKET, source })
    };
    let stderr = || Box::new(Stderr { lost: Arc::clone(lost) });
    let colour = || io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    match format {
        LogFormat::Journald => Ok((LineFormat::Journal, Box::new(to_journal()?))),
        LogFormat::Auto if journal::is_stderr() => match to_journal() {
            Ok(journal) => Ok((LineFormat::Journal, Box::new(journal))),
            Err(_) => Ok((LineFormat::Text { colour: false }, stderr())),
        },
        LogFormat::Auto | LogFormat::Text => Ok((LineFormat::Text { colour: colour() }, stderr())),
        LogFormat::Json => Ok((LineFormat::Json, stderr())),
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
