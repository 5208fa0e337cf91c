//! The configuration file of both daemons, with overrides from the environment and the command line. All mistakes are
//! reported at once.
//!
//! `keys` is the table with name, kind, bounds, default and documentation of each key; the commented file, the names of
//! environment variables, the checks and [`Loaded::show`] are derived from it.
//! Never here: opening a socket, creating a file, a panic because of what an operator wrote.

mod file;
mod keys;
mod kinds;
mod load;
mod reload;
mod render;
mod shapes;
mod values;

pub use control::ConfigChange;
pub use keys::{
    Config, DaemonSection, FetchSection, GatewaySection, IngestdSection, LogSection, StoreSection,
    WireSection,
};
pub use load::{EffectiveValue, Loaded, environment, load, load_in_part};
pub use reload::{CheckedConfig, Reloader};
pub use render::default_file;

/// The file that is read if neither `--config` nor `$NEWSWIRE_CONFIG` names one.
pub const SYSTEM_FILE: &str = "/etc/newswire/newswire.toml";

/// How events travel between the processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WireTransport {
    /// Server-sent events over HTTP on a Unix socket in `daemon.run_dir`.
    #[default]
    Local,
    /// NATS JetStream.
    Nats,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Journald if stderr is connected to it, otherwise text.
    #[default]
    Auto,
    /// One line per event, for people; coloured on a terminal.
    Text,
    /// One JSON object per line.
    Json,
    /// Native journal fields.
    Journald,
}
