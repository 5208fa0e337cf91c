//! The log: one line an event on standard error, or native fields in the journal; its level can change at run time.
//!
//! Whatever a feed or a client wrote, no control character reaches the terminal, the file or the journal raw: every
//! name and value passes `text::escaped` (the tests of `lines` hold that). Words of fields are fixed: `source seq epoch
//! items wait_ms status subscriber cursor blame error`.

mod fields;
mod journal;
mod lines;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_log::LogTracer;
use tracing_log::log::LevelFilter as LogLevel;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, reload};

use self::lines::{Lines, Shape, Write};
use crate::clock::Clock;
use crate::config::{Log, LogFormat};

/// The levels of [`Log::level`] that are a word of their own.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The crates that a bare level is about; every other crate then speaks from `warn` on. A filter matches the beginning
/// of a target, so `news` covers the binaries too.
const OURS: [&str; 9] = ["daemon", "feed", "fetch", "gateway", "ingestd", "news", "store", "wire", "bench"];

/// Longest filter, bytes.
const LEVEL_BYTES_MAX: usize = 1_024;

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
    level: Mutex<String>,
    dropped: Arc<AtomicU64>,
}

/// Sets up the log of this process, for `tracing` and for dependencies that use the `log` crate. Call once, first.
///
/// # Errors
/// See [`LogsError`].
pub fn init(log: &Log) -> Result<Logs, LogsError> {
    let dropped = Arc::new(AtomicU64::new(0));
    let (shape, out) = output(log.format, Arc::clone(&dropped))?;
    let filter = filter(&log.level).map_err(LogsError::Level)?;
    let most = filter.max_level_hint();
    let (filter, handle) = reload::Layer::new(filter);
    let subscriber = Registry::default().with(filter).with(Lines::new(shape, out, Clock::system()));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogsError::AlreadySet)?;
    LogTracer::init().map_err(|_| LogsError::AlreadySet)?;
    limit_dependencies(most);
    let level = Mutex::new(log.level.clone());
    Ok(Logs(Arc::new(Running { filter: Some(handle), level, dropped })))
}

impl Logs {
    /// A handle to no log at all, for tests of what takes a handle: it checks and keeps levels, and shows nothing.
    #[must_use]
    pub fn detached() -> Self {
        let level = Mutex::new("info".to_owned());
        Self(Arc::new(Running { filter: None, level, dropped: Arc::default() }))
    }

    /// The level or filter in force, as it was written.
    #[must_use]
    pub fn level(&self) -> String {
        self.0.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is logged from now on, in the words of `log.level`.
    ///
    /// # Errors
    /// A sentence that names what is wrong; then the old level stays.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        check_level(level)?;
        let filter = filter(level)?;
        let most = filter.max_level_hint();
        if let Some(handle) = &self.0.filter {
            handle.reload(filter).map_err(|error| format!("cannot change the level: {error}"))?;
            limit_dependencies(most);
        }
        level.clone_into(&mut self.0.level.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Lines that could not be written, because the journal did not take them or standard error is closed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

/// Checks a level or filter without using it. Unlike the filter's own parser it does not take a misspelt level for the
/// name of a module.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    if level.len() > LEVEL_BYTES_MAX {
        return Err(format!(
            "a filter of {} bytes is too long; at most {LEVEL_BYTES_MAX} will do",
            level.len()
        ));
    }
    for word in level.split(',').map(str::trim).filter(|word| !word.contains(['=', '[', '{', '}', ']'])) {
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "`{word}` is not a level; use one of {}, or a filter such as `info,ingestd=debug`",
                LEVELS.join(", ")
            ));
        }
    }
    filter(level).map(drop)
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let word = level.trim().to_ascii_lowercase();
    let directives = match word.as_str() {
        "off" | "error" | "warn" => word,
        "info" | "debug" | "trace" => {
            let ours: Vec<String> = OURS.iter().map(|name| format!("{name}={word}")).collect();
            format!("warn,{}", ours.join(","))
        }
        _ => level.to_owned(),
    };
    EnvFilter::builder()
        .parse(directives)
        .map_err(|error| format!("`{level}` is not a filter ({error}); write it like `info,ingestd=debug`"))
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

fn output(format: LogFormat, dropped: Arc<AtomicU64>) -> Result<(Shape, Box<dyn Write>), LogsError> {
    let to_journal = || {
        journal::Journal::connect(journal::SOCKET, Arc::clone(&dropped))
            .map_err(|source| LogsError::Journal { path: journal::SOCKET, source })
    };
    let colour = || io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    match format {
        LogFormat::Journald => Ok((Shape::Journal, Box::new(to_journal()?))),
        LogFormat::Auto if journal::stderr_goes_there() => match to_journal() {
            Ok(journal) => Ok((Shape::Journal, Box::new(journal))),
            Err(_) => Ok((Shape::Text { colour: false }, Box::new(Stderr { dropped }))),
        },
        LogFormat::Auto | LogFormat::Text => {
            Ok((Shape::Text { colour: colour() }, Box::new(Stderr { dropped })))
        }
        LogFormat::Json => Ok((Shape::Json, Box::new(Stderr { dropped }))),
    }
}

/// Standard error, one write a line.
struct Stderr {
    dropped: Arc<AtomicU64>,
}

impl Write for Stderr {
    fn write(&self, line: &[u8]) {
        if io::stderr().lock().write_all(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_accepted() {
        for level in
            ["off", "error", "INFO", "trace", "info,ingestd=debug", "warn,fetch[visit{source=bbc}]=trace"]
        {
            assert_eq!(check_level(level), Ok(()), "{level}");
        }
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_module() {
        for level in ["inof", "", "info,degub", "ingestd=loud", "verbose"] {
            assert!(check_level(level).is_err(), "{level}");
        }
    }

    #[test]
    fn a_bare_level_is_about_our_crates_and_leaves_the_others_at_warn() {
        let shown = filter("debug").unwrap().to_string();
        assert!(shown.contains("ingestd=debug") && shown.contains("warn"), "{shown}");
    }

    #[test]
    fn a_handle_refuses_a_wrong_level_and_keeps_the_old_one() {
        let logs = Logs::detached();
        logs.set_level("debug").unwrap();
        assert!(logs.set_level("lots").unwrap_err().contains("`lots`"));
        assert_eq!(logs.level(), "debug");
    }
}
