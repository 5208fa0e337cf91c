//! Why the process did not start or had to stop, and the exit code of each reason.

use daemon::{Exit, process::ExitReason, sockets::SocketError};

use crate::auth::authenticator::AuthFileErrors;

/// Why the process did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A socket is unavailable.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The operator token file cannot be used.
    #[error("{0:#}")]
    OperatorToken(anyhow::Error),
    /// The files of read tokens and keys are wrong.
    #[error(transparent)]
    AuthFiles(#[from] AuthFileErrors),
    /// A file or an address of NATS cannot be used.
    #[error(transparent)]
    Nats(#[from] wire::nats::NatsError),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl ExitReason for GatewayError {
    fn exit(&self) -> Exit {
        match self {
            Self::Socket(error) => error.exit(),
            Self::OperatorToken(_) | Self::AuthFiles(_) | Self::Nats(_) => Exit::Config,
            Self::Other(_) => Exit::Failure,
        }
    }
}
