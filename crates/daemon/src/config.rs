//! The one configuration file of both daemons, its overrides from the environment and the command line, and every
//! complaint about it at once.
//!
//! `keys` is the table: name, kind, bounds, default and documentation of each key stand there in one spot, and the
//! commented file, the names of environment variables, the checks and [`Loaded::show`] are derived from it.
//! Nothing here opens a socket or creates a file, and nothing panics on what a user wrote.

mod file;
mod keys;
mod kinds;
mod load;
mod reload;
mod render;
mod shapes;
mod values;

pub use control::ConfigChange;
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
