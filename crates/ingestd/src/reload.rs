//! The control loop of the running daemon: reloads on SIGHUP and on request, and the status line of systemd.

use std::{rc::Rc, time::Duration};

use actix::Recipient;
use daemon::{
    config::{CheckedConfig, Reloader},
    logs::Logs,
    notify,
    stop::Signals,
};
use store::LogReader;
use tokio::sync::mpsc;

use crate::{
    catalogue::{apply_catalogue, read_catalogue},
    error::IngestError,
    messages::{ApplyCatalogue, ReloadRequest, ReloadResult},
    settings,
    status::{activity::Health, diagnostics::ActivityCounts, registry::SourceRegistry},
    visit::context::VisitContext,
};

/// How often the status line of `systemctl status` is updated.
const STATUS_LINE_EVERY: Duration = Duration::from_secs(5);

/// What a reload reads and changes.
pub(crate) struct ControlLoop {
    pub(crate) reloader: Reloader,
    pub(crate) logs: Logs,
    pub(crate) ctx: Rc<VisitContext>,
    pub(crate) reader: LogReader,
    pub(crate) supervisor: Recipient<ApplyCatalogue>,
    pub(crate) registry: SourceRegistry,
}

impl ControlLoop {
    /// Runs until the stop signal.
    pub(crate) async fn run(mut self, mut signals: Signals, mut requests: mpsc::Receiver<ReloadRequest>) {
        let mut status_line = tokio::time::interval(STATUS_LINE_EVERY);
        loop {
            tokio::select! {
                () = signals.stop.cancelled() => return,
                Ok(()) = signals.reload.changed() => {
                    // The result has been logged.
                    self.reload().await.ok();
                }
                Some(request) = requests.recv() => {
                    // The client may have gone.
                    request.send(self.reload().await).ok();
                }
                _ = status_line.tick() => notify::status(&self.status_line()),
            }
        }
    }

    /// Reads the configuration and the catalogue again. One with mistakes changes nothing.
    async fn reload(&mut self) -> Result<ReloadResult, IngestError> {
        notify::reloading();
        let result = match self.reloader.read() {
            Ok(draft) => self.apply(draft).await,
            Err(complaints) => Err(IngestError::Catalogue(complaints.to_string())),
        };
        notify::ready();
        result
    }

    async fn apply(&mut self, draft: CheckedConfig) -> Result<ReloadResult, IngestError> {
        let config = draft.config();
        let sources = config.ingestd.sources.clone();
        let diff = match read_catalogue(&sources).await {
            Ok(catalogue) => {
                self.ctx.interval_bounds.set(settings::interval_bounds(config));
                self.ctx.limiter.set_limits(settings::visit_limits(config));
                apply_catalogue(&self.supervisor, catalogue, &self.reader).await
            }
            Err(error) => Err(error),
        };
        let diff = diff.inspect_err(|error| {
            for line in error.to_string().lines() {
                tracing::error!(error = line, "reload failed; the old catalogue stays in use");
            }
        })?;
        self.logs.reconfigure(&config.log.level, &draft.changes);
        let changes = self.reloader.take(draft);
        let file = std::path::absolute(&sources).unwrap_or(sources).display().to_string();
        Ok(ReloadResult { file, diff, changes })
    }

    /// For `systemctl status`.
    fn status_line(&self) -> String {
        let entries = self.registry.entries();
        let counts = ActivityCounts::of(&entries, self.ctx.now());
        let (failing, head) = (counts.healths[Health::Failing as usize], self.reader.head());
        let last_commit = self.ctx.metrics.progress.commits.last_ms_ago();
        let last_commit =
            last_commit.map_or_else(String::new, |ms| format!(", the last {} s ago", ms / 1000));
        let outage = if self.ctx.metrics.outage.get() == 0 { "" } else { "; local network outage" };
        format!("{} sources, {failing} failing; {head} events recorded{last_commit}{outage}", entries.len())
    }
}
