//! Why the daemon gave no answer: what a client is told, each cause in words of its own.

use wire::ClientError;

/// Why a request to the daemon has no answer. Its text is for clients: no paths, no messages of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// There is no connection to it: it does not run, or has just ended.
    #[error("the ingestion daemon cannot be reached")]
    NotConnected,
    /// It runs and does not answer.
    #[error("the ingestion daemon did not answer in time")]
    Late,
    /// It refused the request, or its answer is unreadable; the log has the reason.
    #[error("the ingestion daemon did not answer this request as expected; the log of the gateway says more")]
    Unusable,
}

impl From<&ClientError> for NoAnswer {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Late(_) => Self::Late,
            ClientError::Unreachable(..) => Self::NotConnected,
            ClientError::Setup(..) | ClientError::Refused(..) | ClientError::TooLarge(..) => Self::Unusable,
        }
    }
}
