//! The other parts of the daemon, as sharing knows them.

use std::sync::Arc;

use actix::Recipient;
use tokio::sync::watch;
use wire::{
    EventLog,
    nats::{KnownEnds, OutboxStatus},
};

use crate::messages::{AdoptSources, ExportSources, LeaveSources};

/// The actors that sharing asks.
#[derive(Clone)]
pub(crate) struct SharingActors {
    pub(crate) leave: Recipient<LeaveSources>,
    pub(crate) export: Recipient<ExportSources>,
    pub(crate) adopt: Recipient<AdoptSources>,
}

/// The end of the outbox that sharing needs.
pub(crate) struct OutboxEnd {
    pub(crate) status: watch::Receiver<OutboxStatus>,
    pub(crate) known_ends: KnownEnds,
    pub(crate) log: Arc<dyn EventLog>,
}
