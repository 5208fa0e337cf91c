//! What the handlers of `ingestd.sock` need of the rest of the daemon.

use std::sync::Arc;

use actix::Recipient;
use daemon::{admin::ReloadOrder, watch::Watch};
use news::Cursor;
use tokio::sync::{mpsc, watch};
use wire::Publisher;

use super::wire_log::WireLog;
use crate::{
    lists::{ListBoard, ListReadRequest},
    messages::{SetPause, TakeTurn, VisitSources},
    recording::Recording,
    status::{metrics::IngestMetrics, registry::SourceRegistry},
    websub::messages::{AcceptPush, LookupSecret, VerifyIntent},
};

/// What the routes need; cloned per worker of the server.
#[derive(Clone)]
pub(crate) struct ControlState {
    pub(crate) publisher: Publisher,
    pub(crate) log: WireLog,
    pub(crate) registry: SourceRegistry,
    pub(crate) lists: ListBoard,
    pub(crate) list_orders: mpsc::Sender<ListReadRequest>,
    pub(crate) visits: Recipient<VisitSources>,
    pub(crate) pauses: Recipient<SetPause>,
    pub(crate) turns: Recipient<TakeTurn>,
    pub(crate) reloads: mpsc::Sender<ReloadOrder>,
    pub(crate) clock: daemon::Clock,
    /// `None` while WebSub is off.
    pub(crate) websub: Option<WebSubRecipients>,
    pub(crate) metrics_registry: daemon::metrics::MetricsRegistry,
    pub(crate) metrics: IngestMetrics,
    pub(crate) recording: Recording,
    pub(crate) watch: Watch,
    /// The newest event that a gateway has seen, if the log does not have it.
    pub(crate) newest_ahead: Arc<watch::Sender<Option<Cursor>>>,
}

/// The WebSub actor, as far as the routes need it.
#[derive(Clone)]
pub(crate) struct WebSubRecipients {
    pub(crate) verify: Recipient<VerifyIntent>,
    pub(crate) lookup: Recipient<LookupSecret>,
    pub(crate) push: Recipient<AcceptPush>,
}
