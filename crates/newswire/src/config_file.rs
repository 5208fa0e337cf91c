//! `--config`, and the error that ends a command with exit code 2.

use std::path::PathBuf;

use clap::Args;
use daemon::config::Loaded;

/// `--config`, for every command that reads the configuration.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file [default: $NEWSWIRE_CONFIG, else /etc/newswire/newswire.toml if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

impl ConfigFile {
    /// Loads the configuration.
    ///
    /// # Errors
    /// [`UsageError`] with every complaint about it, one per line.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        daemon::config::load(self.config.as_deref(), daemon::config::environment())
            .map_err(|complaints| UsageError(complaints.to_string()).into())
    }
}

/// The command line, the configuration or a file that it names is wrong. The text is printed as it is, and the command
/// ends with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);
