//! Why the daemon did not start or had to stop, and with which exit code it ends.

use daemon::{Exit, process::ExitReason, sockets::SocketError};
use store::StoreOpenError;

/// Why the daemon did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The catalogue is invalid or cannot be read: all complaints, one per line.
    #[error("{0}")]
    Catalogue(String),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreOpenError),
    /// A socket cannot be bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The log can no longer be read.
    #[error("{0}")]
    Damaged(String),
    /// The log can no longer be written.
    #[error(transparent)]
    Append(#[from] store::AppendError),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl ExitReason for IngestError {
    fn exit(&self) -> Exit {
        match self {
            Self::Catalogue(_) => Exit::Config,
            Self::Store(StoreOpenError::Locked { .. }) => Exit::Locked,
            Self::Store(_) | Self::Append(_) | Self::Damaged(_) => Exit::Io,
            Self::Socket(error) => error.exit(),
            Self::Other(_) => Exit::Failure,
        }
    }
}
