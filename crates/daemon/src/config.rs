//! The one configuration file of both daemons, its overrides from the environment and the command line, and every
//! complaint about it at once.
//!
//! `keys` is the table: name, kind, bounds, default and documentation of each key stand there in one spot, and the
//! commented file, the names of environment variables, the checks and [`Loaded::show`] are derived from it.
//! Nothing here opens a socket or creates a file, and nothing panics on what a user wrote.

mod durations;
mod file;
mod keys;
mod kinds;
mod load;
mod nearest;
mod reload;
mod render;
mod shapes;
mod values;

use std::fmt;

pub use control::ConfigChange;
pub use durations::{parse_duration, show_duration};
pub use keys::{Config, Daemon, Fetch, Gateway, Ingestd, Log, Store, Wire};
pub use load::{EffectiveValue, Loaded, environment, load};
pub use reload::{CheckedConfig, Reloader};
pub use render::default_file;

/// Where the file is looked for when neither `--config` nor `$NEWSWIRE_CONFIG` names one.
pub const SYSTEM_FILE: &str = "/etc/newswire/newswire.toml";

/// How events travel between the processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WireTransport {
    /// Server-sent events over HTTP on a Unix socket in `daemon.run_dir`.
    #[default]
    Local,
}

/// The look of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Journald when stderr goes there, else text.
    #[default]
    Auto,
    /// One line an event, for people; coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
    /// Native journal fields.
    Journald,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// `file:line`, `env:NAME`, `--flag`, or the file alone when it could not be read.
    pub place: String,
    /// `section.key` as far as it is known; empty for a syntax error.
    pub key: String,
    /// What is wrong and what to write instead; lowercase, no full stop.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, message) = (crate::text::escaped(&self.place), crate::text::escaped(&self.message));
        if self.key.is_empty() {
            write!(f, "{place}: {message}")
        } else {
            write!(f, "{place}: {}: {message}", crate::text::escaped(&self.key))
        }
    }
}

impl std::error::Error for Complaint {}

/// Everything that is wrong with the configuration; never empty. Shown one per line, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// All of them, in the order in which they are shown.
    #[must_use]
    pub fn list(&self) -> &[Complaint] {
        &self.0
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, complaint) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}
