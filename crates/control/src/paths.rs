//! The sockets in `daemon.run_dir`, and the routes that this crate has types for.

use std::path::{Path, PathBuf};

/// `GET`, answered by [`HealthReport`](crate::HealthReport); on `ingestd.sock` by [`IngestHealth`](crate::IngestHealth).
pub const HEALTH: &str = "/health";
/// `GET`, answered by [`WatchReport`](crate::WatchReport).
pub const WATCH: &str = "/watch";
/// `GET`, the stacks of all threads as text, or as JSON with `Accept: application/json`.
pub const STACKS: &str = "/stacks";
/// `GET`, answered by [`GatewayStatus`](crate::GatewayStatus) or [`IngestStatus`](crate::IngestStatus).
pub const STATUS: &str = "/status";
/// `GET`, OpenMetrics text.
pub const METRICS: &str = "/metrics";
/// `GET`, and `PUT` with a level as text, both answered by [`LogLevel`](crate::LogLevel).
pub const LOG_LEVEL: &str = "/log-level";
/// `POST` without a body, answered by [`ReloadAnswer`](crate::ReloadAnswer).
pub const RELOAD: &str = "/reload";
/// `POST` of a [`DocumentHead`](crate::DocumentHead) and a document, answered by [`DocumentAnswer`](crate::DocumentAnswer);
/// on `ingestd-admin.sock` only.
pub const DOCUMENTS: &str = "/documents";
/// `POST` of a [`VisitOrder`](crate::VisitOrder), answered by [`VisitAnswer`](crate::VisitAnswer).
pub const VISITS: &str = "/visits";
/// `POST` of a [`PauseOrder`](crate::PauseOrder), answered by [`PauseAnswer`](crate::PauseAnswer).
pub const PAUSES: &str = "/pauses";
/// `POST` of a [`ResumeOrder`](crate::ResumeOrder), answered by [`PauseAnswer`](crate::PauseAnswer).
pub const PAUSES_END: &str = "/pauses/end";
/// `POST` of a [`TurnOrder`](crate::TurnOrder), answered by [`TurnAnswer`](crate::TurnAnswer) when it is the turn, or when
/// it is known not to come soon.
pub const TURNS: &str = "/turns";
/// `GET`, answered by `{"lists":[…]}`: every list of feeds and its state.
pub const LISTS: &str = "/lists";
/// `POST` of a [`ListOrder`](crate::ListOrder), answered by [`ListAnswer`](crate::ListAnswer).
pub const LIST_READS: &str = "/lists/reads";

/// A Unix socket in `daemon.run_dir` that speaks HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlSocket {
    /// The wire, the log, the sources and orders of the ingestion daemon.
    Ingestd,
    /// The admin socket of the ingestion daemon.
    IngestdAdmin,
    /// The admin socket of the gateway.
    GatewayAdmin,
}

impl ControlSocket {
    /// All sockets.
    pub const ALL: [Self; 3] = [Self::Ingestd, Self::IngestdAdmin, Self::GatewayAdmin];
    /// The length of the longest name, bytes.
    pub const NAME_BYTES_MAX: usize = Self::GatewayAdmin.file_name().len();

    /// Its name in `daemon.run_dir`.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Ingestd => "ingestd.sock",
            Self::IngestdAdmin => "ingestd-admin.sock",
            Self::GatewayAdmin => "gateway-admin.sock",
        }
    }

    /// Its path, when `daemon.run_dir` is `run_dir`.
    #[must_use]
    pub fn in_dir(self, run_dir: impl AsRef<Path>) -> PathBuf {
        run_dir.as_ref().join(self.file_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_longer_than_the_longest_one() {
        let longest = ControlSocket::ALL.map(|socket| socket.file_name().len()).into_iter().max();
        assert_eq!(longest, Some(ControlSocket::NAME_BYTES_MAX));
        assert_eq!(ControlSocket::Ingestd.in_dir("/run/x"), Path::new("/run/x/ingestd.sock"));
    }
}
