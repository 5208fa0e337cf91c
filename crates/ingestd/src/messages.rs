//! The messages between the actors, except those of WebSub. Actors hold a `Recipient` of these messages, not each
//! other's address, so that none of them has to know the others.

use std::{collections::HashMap, sync::Arc};

use actix::Message;
use control::{PauseAnswer, VisitAnswer};
use news::{Catalogue, HeldHost, Pause, Source, SourceId, SourceState};
use store::{AppendedVisit, VisitRecord};

use crate::{queue::memory::MemoryShare, status::registry::SourceEntry};

/// To the supervisor: run these sources. Sources that did not change are not disturbed.
#[derive(Debug, Message)]
#[rtype(result = "CatalogueDiff")]
pub(crate) struct ApplyCatalogue {
    pub(crate) catalogue: Catalogue,
    /// The states that the store has of the sources in it.
    pub(crate) stored_states: HashMap<SourceId, SourceState>,
    /// For the sources whose request settings have files: the hash of what is requested now, as in
    /// [`SourceState::url_hash`].
    pub(crate) request_hashes: HashMap<SourceId, u64>,
}

/// To the supervisor: which sources have the files of the catalogue themselves? Those of lists are left out.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Source>")]
pub(crate) struct OwnSources;

/// How many sources a new catalogue added, changed, removed and left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CatalogueDiff {
    pub(crate) added: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
    pub(crate) unchanged: usize,
}

/// To the supervisor: visit the sources with these ids now.
#[derive(Debug, Message)]
#[rtype(result = "VisitAnswer")]
pub(crate) struct VisitSources(pub(crate) Vec<String>);

/// To the supervisor: pause these sources, or end their pause. Answered when that is on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<PauseAnswer, LogClosed>")]
pub(crate) struct SetPause {
    pub(crate) ids: Vec<String>,
    /// `None` ends the pause.
    pub(crate) pause: Option<Pause>,
}

/// To the recorder: append the items and the state of a visit to the log. Answered when they are on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<AppendedVisit, LogClosed>")]
pub(crate) struct RecordVisit {
    pub(crate) visit: VisitRecord,
    /// What its items use of the memory budget, until they are on disk.
    pub(crate) memory: Option<Arc<MemoryShare>>,
}

/// To the recorder: store the pause of these sources, or its end. Answered when that is on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), LogClosed>")]
pub(crate) struct RecordPauses(pub(crate) Vec<(SourceId, Option<Pause>)>);

/// To the recorder: store the hub subscriptions of these sources as they are at the time of the write.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct RecordSubscriptions(pub(crate) Vec<Arc<SourceEntry>>);

/// To the recorder: store these hosts, which asked for a pause, instead of those before. Answered when that is on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), LogClosed>")]
pub(crate) struct RecordHeldHosts(pub(crate) Vec<HeldHost>);

/// To the recorder: store that these sources were taken out of the list.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct RecordRemovals(pub(crate) Vec<SourceId>);

/// To any actor: the process is stopping. Each handler says what happens to work in progress.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// The store can no longer be written, or the process is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is closed")]
pub(crate) struct LogClosed;
