//! The messages between the actors, except those of WebSub. Actors hold a `Recipient` of these messages, not each
//! other's address, so that none of them has to know the others.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use actix::Message;
use control::{PauseAnswer, VisitAnswer};
use fetch::HeldHop;
use news::{Catalogue, FeedUrl, HeldHost, Pause, Source, SourceId, SourceState};
use store::{AdoptedSource, AppendedVisit, BadExport, SourceExport, VisitRecord};

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
    /// The sources of the catalogue that another daemon visits. They do not run here, and are not removed from the list. One
    /// that is no longer among them starts by its stored state, as at the start of the daemon, not as one that was added.
    pub(crate) elsewhere: HashSet<SourceId>,
}

/// To the supervisor: these sources are for another daemon from now on. Answered when their actors have ended, their
/// subscriptions are at the recorder, and they are out of the registry. They do not run again before an [`ApplyCatalogue`] in
/// which they are not `elsewhere`. Sources that do not run are passed over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct LeaveSources {
    pub(crate) ids: Vec<SourceId>,
    /// Visits in progress are cancelled; otherwise they may end, for a bounded time.
    pub(crate) at_once: bool,
}

/// To the supervisor: which sources have the files of the catalogue themselves? Those of lists are left out.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Source>")]
pub(crate) struct OwnSources;

/// How many sources a new catalogue added, changed, removed and left alone. Those that another daemon visits, or has visited,
/// count as unchanged.
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

/// To the supervisor: may this address be requested by a tool of the operator? Answered when it may.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), HeldHop>")]
pub(crate) struct TakeTurn(pub(crate) FeedUrl);

/// To the supervisor: pause these sources, or end their pause. Answered when that is on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<PauseAnswer, LogClosed>")]
pub(crate) struct SetPause {
    pub(crate) ids: Vec<String>,
    /// `None` ends the pause.
    pub(crate) pause: Option<Pause>,
    /// Those that are not listed yet get the pause when they are.
    pub(crate) is_for_coming: bool,
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

/// To the recorder: what the store has of these sources, after the visits that were sent before.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<SourceExport>, LogClosed>")]
pub(crate) struct ExportSources(pub(crate) Vec<SourceId>);

/// To the recorder: take over what other daemons know of these sources. The evidence of the items need not be there. Answered
/// when it is on disk, with what could not be read.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<BadExport>, LogClosed>")]
pub(crate) struct AdoptSources(pub(crate) Vec<AdoptedSource>);

/// To any actor: the process is stopping. Each handler says what happens to work in progress.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

/// The store can no longer be written, or the process is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is closed")]
pub(crate) struct LogClosed;
