//! Where a snapshot begins that the ring alone cannot fill: before the newest events of the daemon's log that a filter
//! selects. A client waits a short time for that, and only while the daemon answers.

use std::{pin::Pin, sync::Arc, time::Duration};

use news::Seq;

use super::{
    news_page::{self, NewsScan},
    pool::PageClient,
};
use crate::state::AppState;

/// How long the search may take.
pub(crate) const WITHIN: Duration = Duration::from_secs(2);
/// A daemon that was silent for longer is not asked: on the wire it sends a heartbeat every 2 s.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A search that goes on elsewhere; its result is the cursor that the client begins with.
pub(crate) type SnapshotStart = Pin<Box<dyn Future<Output = Seq>>>;

/// Searches the log, as far as one page may look. `of_ring` is the cursor if nothing is found in it.
pub(crate) fn search(
    state: Arc<AppState>,
    client: PageClient,
    scan: NewsScan,
    of_ring: Seq,
) -> SnapshotStart {
    Box::pin(async move {
        let wire = state.wire.get();
        let answers = wire.last_received.is_some_and(|last| last.elapsed() <= SILENCE_MAX);
        if !wire.connected || !answers {
            return of_ring;
        }
        let shared = Arc::clone(&state);
        let page = async move { news_page::make(&shared, client.address, scan).await };
        let page = state.pages.run("a snapshot", client, WITHIN, page).await;
        let oldest =
            page.ok().and_then(Result::ok).and_then(|page| page.frames.last().map(|frame| frame.seq));
        oldest.map_or(of_ring, Seq::previous)
    })
}
