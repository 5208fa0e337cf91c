//! The main loop after the start: reloads on SIGHUP and on request, what lists of feeds have, and a status
//! line for systemd, until the stop signal.

use std::{rc::Rc, time::Duration};

use actix::Recipient;
use anyhow::Context as _;
use control::{CatalogueChanges, Problem, ReloadAnswer};
use daemon::{
    admin::ReloadOrder,
    config::{CheckedConfig, Reloader},
    logs::Logs,
    notify,
    stop::Signals,
};
use news::Catalogue;
use store::LogReader;
use tokio::sync::{mpsc, watch};

use crate::{
    catalogue::{CatalogueEnds, apply_catalogue, apply_own_part, read_catalogue},
    disk_space::SpaceBounds,
    error::IngestError,
    lists::{FeedLists, ListReadRequest},
    messages::{ApplyCatalogue, CatalogueDiff, OwnSources},
    settings,
    sharing::SharedCatalogue,
    status::{activity::SourceHealth, diagnostics::ActivityCounts, registry::SourceRegistry},
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
    pub(crate) own_sources: Recipient<OwnSources>,
    pub(crate) lists: FeedLists,
    pub(crate) registry: SourceRegistry,
    pub(crate) space_bounds: watch::Sender<SpaceBounds>,
    /// If several daemons divide the list.
    pub(crate) shared: Option<SharedCatalogue>,
}

impl ControlLoop {
    /// Runs until the stop signal.
    pub(crate) async fn run(
        mut self,
        mut signals: Signals,
        mut requests: mpsc::Receiver<ReloadOrder>,
        mut list_orders: mpsc::Receiver<ListReadRequest>,
    ) {
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
                    request.send(self.reload().await.map_err(|error| refusal(&error))).ok();
                }
                Some(request) = list_orders.recv() => {
                    // The client may have gone.
                    request.reply.send(self.lists.order(request.order)).ok();
                }
                () = self.lists.changed() => {
                    if let Err(error) = self.apply_lists().await {
                        tracing::error!(%error, "the sources of a list cannot be taken");
                    }
                }
                () = share_changed(&mut self.shared) => {
                    if let Err(error) = self.apply_share().await {
                        tracing::error!(%error, "the sources that this daemon takes over or leaves cannot be applied");
                    }
                }
                _ = status_line.tick() => notify::status(&self.status_line().await),
            }
        }
    }

    /// Reads the configuration and the catalogue again. One with mistakes changes nothing.
    async fn reload(&mut self) -> Result<ReloadAnswer, IngestError> {
        notify::reloading();
        let result = match self.reloader.read() {
            Ok(draft) => self.apply(draft).await,
            Err(complaints) => Err(IngestError::Catalogue(complaints.to_string())),
        };
        notify::ready();
        result
    }

    async fn apply(&mut self, draft: CheckedConfig) -> Result<ReloadAnswer, IngestError> {
        let config = draft.config();
        let sources = config.ingestd.sources.clone();
        let diff = match read_catalogue(&sources).await {
            Ok(catalogue) => {
                let mut catalogue = self.lists.complete(catalogue, &sources).await?;
                catalogue.inherit_proxy(self.ctx.visitor.default_proxy());
                self.ctx.interval_bounds.set(settings::interval_bounds(config));
                self.ctx.limiter.set_limits(settings::visit_limits(config));
                self.space_bounds.send_replace(settings::space_bounds(config));
                self.apply_catalogue(catalogue).await
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
        let CatalogueDiff { added, changed, removed, unchanged } = diff;
        let catalogue = Some(CatalogueChanges { file, added, changed, removed, unchanged });
        Ok(ReloadAnswer { catalogue, changes, credentials: Vec::new() })
    }

    /// Applies the catalogue with the sources that the lists have now. Its files are not read again.
    async fn apply_lists(&mut self) -> Result<(), IngestError> {
        let own = self.own_sources.send(OwnSources).await.context("ask for the sources of the files")?;
        let mut catalogue = self.lists.merge(own).await?;
        catalogue.inherit_proxy(self.ctx.visitor.default_proxy());
        self.apply_catalogue(catalogue).await.map(drop)
    }

    async fn apply_catalogue(&mut self, catalogue: Catalogue) -> Result<CatalogueDiff, IngestError> {
        let (supervisor, reader) = (&self.supervisor, &self.reader);
        let ends = CatalogueEnds { supervisor, credentials: &self.ctx.credentials, reader };
        apply_catalogue(ends, catalogue, self.shared.as_mut()).await
    }

    /// Applies which sources of the shared list this daemon visits.
    async fn apply_share(&mut self) -> Result<(), IngestError> {
        let Some(shared) = &mut self.shared else { return Ok(()) };
        let (supervisor, reader) = (&self.supervisor, &self.reader);
        apply_own_part(CatalogueEnds { supervisor, credentials: &self.ctx.credentials, reader }, shared).await
    }

    /// For `systemctl status`.
    async fn status_line(&self) -> String {
        let (registry, now) = (self.registry.clone(), self.ctx.now());
        let count = move || {
            let entries = registry.entries();
            let failing = ActivityCounts::of(&entries, now).healths[SourceHealth::Failing as usize];
            (entries.len(), failing)
        };
        let (sources, failing) = tokio::task::spawn_blocking(count).await.unwrap_or_default();
        let head = self.reader.head();
        let last_commit = self.ctx.metrics.progress.commits.last_ms_ago();
        let last_commit =
            last_commit.map_or_else(String::new, |ms| format!(", the last {} s ago", ms / 1000));
        let outage = if self.ctx.metrics.outage.get() == 0 { "" } else { "; local network outage" };
        format!("{sources} sources, {failing} failing; {head} events recorded{last_commit}{outage}")
    }
}

/// Never completes if nothing is shared.
async fn share_changed(shared: &mut Option<SharedCatalogue>) {
    match shared {
        Some(shared) => shared.changed().await,
        None => std::future::pending().await,
    }
}

/// The answer to a request whose reload failed.
fn refusal(error: &IngestError) -> Problem {
    match error {
        IngestError::Catalogue(complaints) => {
            Problem::bad_catalogue(complaints.lines().map(str::to_owned).collect())
        }
        error => Problem::new(500, "reload-failed", error.to_string()),
    }
}
