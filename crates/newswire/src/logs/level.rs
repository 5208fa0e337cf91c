//! `newswire logs level`: shows and sets the log level of each daemon through its admin socket.

use std::{path::Path, time::Duration};

use control::{ControlClient, ControlError, ControlRequest, LogLevel, paths};
use daemon::Exit;

use super::UnitName;
use crate::{
    config_file::ConfigFile,
    out::{self, safe},
    unanswered::explain,
};

/// How long a daemon may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct LevelArgs {
    /// New level: off, error, warn, info, debug, trace, or a filter such as info,ingestd=debug
    level: Option<String>,
    /// Show or set the level of this daemon only
    #[arg(long)]
    unit: Option<UnitName>,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) async fn run(arguments: LevelArgs) -> anyhow::Result<Exit> {
    let config = arguments.config.load()?.config;
    let mut exit = Exit::Ok;
    for unit in UnitName::ALL.into_iter().filter(|unit| arguments.unit.is_none_or(|one| one == *unit)) {
        let socket = config.socket(unit.admin_socket());
        match request(&socket, arguments.level.as_deref()).await {
            Ok(level) => out::stdout_line(&format!("{}  {}", unit.name(), safe(&level)))?,
            Err(error) => {
                out::stderr_line(&format!("newswire: {}: {}", unit.name(), explain(&error, unit.name())));
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

/// Sets the level, if there is one; returns the level in force.
async fn request(socket: &Path, level: Option<&str>) -> Result<String, ControlError> {
    let request = match level {
        Some(level) => ControlRequest::put_text(paths::LOG_LEVEL, level),
        None => ControlRequest::get(paths::LOG_LEVEL),
    };
    let answer: LogLevel = ControlClient::new(socket).deadline(ANSWER_WITHIN).request(request).await?;
    Ok(answer.level)
}

#[cfg(test)]
mod tests {
    use daemon::{
        admin::{Admin, serve},
        logs::Logs,
        metrics::MetricsRegistry,
        watch::Watch,
    };

    use super::*;

    #[tokio::test]
    async fn a_daemon_reports_its_level_accepts_a_new_one_and_refuses_a_wrong_one() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ingestd-admin.sock");
        assert!(request(&socket, None).await.unwrap_err().is_absent());
        let logs = Logs::detached();
        let what = Admin {
            name: "testd",
            version: "1",
            metrics: MetricsRegistry::new(),
            watch: Watch::new(),
            status: daemon::admin::status_of(|| ()),
            reloads: None,
            documents: None,
        };
        let _admin = serve(&socket, what, &logs).unwrap();
        assert_eq!(request(&socket, None).await.unwrap(), "info");
        assert_eq!(request(&socket, Some("info,ingestd=debug")).await.unwrap(), "info,ingestd=debug");
        assert_eq!(logs.level(), "info,ingestd=debug");
        assert!(
            request(&socket, Some("lots")).await.unwrap_err().to_string().contains("`lots` is not a level")
        );
    }
}
