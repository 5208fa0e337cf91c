//! Why the daemon did not start or had to stop, and with which exit code it ends.

use std::{io, path::PathBuf};

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
    /// The states of the sources cannot be read.
    #[error(transparent)]
    Read(#[from] store::LogReadError),
    /// The folder of what is being parsed cannot be used.
    #[error("cannot use {}: {error}", folder.display())]
    CrashGuard {
        /// The folder.
        folder: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file or an address of NATS cannot be used.
    #[error(transparent)]
    Nats(#[from] wire::nats::NatsError),
    /// The log can no longer be written.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Why the thread that writes the log ended before it was told to. Logged when it happens, before its consequences.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The log cannot be written.
    #[error(transparent)]
    Append(#[from] store::AppendError),
    /// The thread panicked: what is in its memory may be wrong, and what is on disk is read again after a start.
    #[error("the thread that writes the log panicked ({0}); start again, and report it if it happens again")]
    Panicked(String),
}

impl ExitReason for IngestError {
    fn exit(&self) -> Exit {
        match self {
            Self::Catalogue(_) | Self::Nats(_) => Exit::Config,
            Self::Store(StoreOpenError::Locked { .. }) => Exit::Locked,
            Self::Store(_) | Self::Writer(_) | Self::Read(_) | Self::CrashGuard { .. } => Exit::Io,
            Self::Socket(error) => error.exit(),
            Self::Other(_) => Exit::Failure,
        }
    }

    fn is_logged(&self) -> bool {
        matches!(self, Self::Writer(_))
    }
}
