//! What the actors say to each other, apart from what concerns WebSub only. Actors hold a `Recipient` of these messages, not
//! each other's address, so that none of them has to know the others.

use std::{collections::HashMap, sync::Arc};

use actix::Message;
use daemon::config::ConfigChange;
use news::{Catalogue, Pause, SourceId, SourceState};
use serde::Serialize;
use store::{AppendedVisit, VisitRecord};
use tokio::sync::oneshot;

use crate::{error::IngestError, status::registry::SourceEntry};

/// To the supervisor: run these sources. Sources that did not change are not disturbed.
#[derive(Debug, Message)]
#[rtype(result = "CatalogueDiff")]
pub(crate) struct ApplyCatalogue {
    pub(crate) catalogue: Catalogue,
    /// The states that the store has of the sources in it.
    pub(crate) stored_states: HashMap<SourceId, SourceState>,
}

/// How many sources a new catalogue added, changed, removed and left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CatalogueDiff {
    pub(crate) added: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
    pub(crate) unchanged: usize,
}

/// To the supervisor: visit the sources with these ids now.
#[derive(Debug, Message)]
#[rtype(result = "VisitsAnswer")]
pub(crate) struct VisitSources(pub(crate) Vec<String>);

/// Which of the requested sources will be visited, and why not the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VisitsAnswer {
    pub(crate) accepted: Vec<String>,
    pub(crate) unknown: Vec<String>,
    pub(crate) disabled: Vec<String>,
    /// Their mailbox is full.
    pub(crate) busy: Vec<String>,
    pub(crate) paused: Vec<String>,
}

/// To the supervisor: pause these sources, or end their pause. Answered when that is on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<PausesAnswer, LogClosed>")]
pub(crate) struct SetPause {
    pub(crate) ids: Vec<String>,
    /// `None` ends the pause.
    pub(crate) pause: Option<Pause>,
}

/// Which sources were paused or resumed, and why not the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PausesAnswer {
    pub(crate) done: Vec<SourceId>,
    /// They were to be resumed, but are not paused.
    pub(crate) idle: Vec<String>,
    pub(crate) unknown: Vec<String>,
    pub(crate) disabled: Vec<String>,
}

/// To the recorder: append the items and the state of a visit to the log. Answered when they are on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<AppendedVisit, LogClosed>")]
pub(crate) struct RecordVisit(pub(crate) VisitRecord);

/// To the recorder: store the pause of these sources, or its end. Answered when that is on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), LogClosed>")]
pub(crate) struct RecordPauses(pub(crate) Vec<(SourceId, Option<Pause>)>);

/// To the recorder: store the hub subscriptions of these sources as they are at the time of the write.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct RecordSubscriptions(pub(crate) Vec<Arc<SourceEntry>>);

/// To any actor: the process is stopping. Each handler says what happens to work in progress.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// The store can no longer be written, or the process is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is closed")]
pub(crate) struct LogClosed;

/// To the control loop: read the configuration and the catalogue again. The result goes to the sender inside.
pub(crate) type ReloadRequest = oneshot::Sender<Result<ReloadResult, IngestError>>;

/// What a reload changed.
#[derive(Debug, Serialize)]
pub(crate) struct ReloadResult {
    /// The catalogue file that was read.
    pub(crate) file: String,
    #[serde(flatten)]
    pub(crate) diff: CatalogueDiff,
    /// Configuration keys with another value; those that are not `live` take effect at the next start.
    pub(crate) changes: Vec<ConfigChange>,
}
