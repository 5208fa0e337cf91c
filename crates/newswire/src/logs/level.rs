//! `newswire logs level`: shows and sets the log level of each daemon through its admin socket.

use std::{io, path::Path, time::Duration};

use daemon::Exit;
use serde_json::Value;

use super::UnitName;
use crate::{
    config_file::ConfigFile,
    doctor::http::{HttpAnswer, ask_socket, put_socket},
    out::{self, safe},
};

/// How long a daemon may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct LevelArgs {
    /// New level: off, error, warn, info, debug, trace, or a filter such as info,ingestd=debug
    level: Option<String>,
    /// Of this daemon only
    #[arg(long)]
    unit: Option<UnitName>,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) async fn run(arguments: LevelArgs) -> anyhow::Result<Exit> {
    let folder = arguments.config.load()?.config.daemon.run_dir;
    let mut exit = Exit::Ok;
    for unit in UnitName::ALL.into_iter().filter(|unit| arguments.unit.is_none_or(|one| one == *unit)) {
        let socket = folder.join(format!("{}-admin.sock", unit.name()));
        match said(exchange(&socket, arguments.level.as_deref()).await) {
            Ok(level) => out::stdout_line(&format!("{}  {}", unit.name(), safe(&level)))?,
            Err(why) => {
                out::stderr_line(&format!(
                    "newswire: {} at {}: {}",
                    unit.name(),
                    socket.display(),
                    safe(&why)
                ));
                exit = Exit::Failure;
            }
        }
    }
    Ok(exit)
}

async fn exchange(socket: &Path, level: Option<&str>) -> io::Result<HttpAnswer> {
    match level {
        Some(level) => put_socket(socket, "/log-level", level, ANSWER_WITHIN).await,
        None => ask_socket(socket, "/log-level", "application/json", ANSWER_WITHIN).await,
    }
}

/// The level in force, or why there is none.
fn said(answer: io::Result<HttpAnswer>) -> Result<String, String> {
    let answer = answer.map_err(|error| format!("{error}; is it running?"))?;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    match answer.status {
        200 => text("level").ok_or_else(|| "the answer names no level".to_owned()),
        status => Err(text("detail").unwrap_or_else(|| format!("it answered {status}"))),
    }
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
        assert!(said(exchange(&socket, None).await).unwrap_err().contains("is it running?"));
        let logs = Logs::detached();
        let what = Admin {
            name: "testd",
            version: "1",
            metrics: MetricsRegistry::new(),
            watch: Watch::new(),
            status: std::sync::Arc::new(|| Value::Null),
            reloads: None,
        };
        let _admin = serve(&socket, what, &logs).unwrap();
        assert_eq!(said(exchange(&socket, None).await).unwrap(), "info");
        assert_eq!(said(exchange(&socket, Some("info,ingestd=debug")).await).unwrap(), "info,ingestd=debug");
        assert_eq!(logs.level(), "info,ingestd=debug");
        assert!(said(exchange(&socket, Some("lots")).await).unwrap_err().contains("`lots` is not a level"));
    }
}
