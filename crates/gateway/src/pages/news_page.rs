//! A page of events, the newest first: from the ring, and from the daemon's log below it.
//!
//! ```text
//! before ──► ring, a slice per lock ──► log, a part per request ──► floor: `after`, `since` or the log's oldest
//! ```
//!
//! A page ends early, with a `next`, when it has enough events or bytes, when it has scanned enough, or when the daemon
//! does not answer. It continues exactly there, so that a walk has no hole and nothing twice.

use std::{sync::Arc, time::Duration};

use news::{Cursor, Epoch, Seq, Timestamp};
use tokio::time::{Instant, timeout_at};

use super::pool::Slice;
use crate::{
    ingest::history::{HistoryPart, HistoryRequest},
    state::AppState,
    stream::{filter::EventFilter, frame::Frame},
    unsent::{UnsentBytes, UnsentRefused},
};

/// Bytes of the events of a page; one event is always allowed.
pub(crate) const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Events of the log that one request may scan.
const LOG_EVENTS_MAX: usize = 2048;
/// Bytes of the log that one request may scan.
const LOG_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Events per part of the log that a filter is applied to.
const PART_EVENTS: usize = 128;

/// Which events are requested.
#[derive(Clone, Debug)]
pub(crate) struct NewsScan {
    pub(crate) epoch: Epoch,
    /// The generation of the ring.
    pub(crate) generation: u64,
    /// The page begins before this one.
    pub(crate) before: Seq,
    /// The page ends after this one.
    pub(crate) after: Seq,
    /// The page ends with the first event recorded since then.
    pub(crate) since: Option<Timestamp>,
    pub(crate) filter: EventFilter,
    pub(crate) limit: usize,
    /// How long the whole answer may take.
    pub(crate) within: Duration,
}

/// A page.
#[derive(Debug, Default)]
pub(crate) struct NewsPage {
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Bytes of their JSON.
    pub(crate) bytes: usize,
    /// The next page begins before this one; `None` if there is no next page.
    pub(crate) next: Option<Seq>,
    /// Where the log begins, if the daemon was asked.
    pub(crate) log_oldest: Option<Seq>,
    /// Whether the page is shorter than it could be, for a reason that passes: the daemon did not answer, or there was
    /// no time.
    pub(crate) cut_short: bool,
    /// For the events that were read from the log.
    pub(crate) reserved: Option<UnsentBytes>,
}

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewsPageError {
    /// The log has become another one.
    OtherLog,
    /// Everything requested is below the ring, and the daemon did not answer.
    NoDaemon,
    /// Everything requested is below the ring, and there is no budget for it.
    Unsent(UnsentRefused),
}

/// What scanning a part of the log came to.
enum PartEnd {
    /// The page is complete.
    Page,
    /// Go on below.
    Below,
}

/// A page that is being made.
struct Scanner<'a> {
    state: &'a AppState,
    scan: NewsScan,
    page: NewsPage,
    slice: Slice,
    /// Everything from here on upwards was scanned.
    position: Seq,
    /// Events of the log that were scanned, and their bytes.
    scanned: (usize, usize),
    /// When the page ends, wherever it is.
    stop_at: Instant,
    /// When the daemon is not waited for any longer.
    wait_until: Instant,
}

/// Makes a page.
///
/// # Errors
/// [`NewsPageError`]
pub(crate) async fn make(
    state: &AppState,
    client: crate::client_address::ClientAddress,
    scan: NewsScan,
) -> Result<NewsPage, NewsPageError> {
    let now = Instant::now();
    let mut scanner = Scanner {
        state,
        position: scan.before,
        scanned: (0, 0),
        stop_at: now + scan.within / 2,
        wait_until: now + scan.within * 4 / 5,
        scan,
        page: NewsPage::default(),
        slice: Slice::begin(),
    };
    match scanner.scan_ring().await? {
        PartEnd::Page => {}
        PartEnd::Below => scanner.scan_log(client).await?,
    }
    Ok(scanner.page)
}

impl Scanner<'_> {
    async fn scan_ring(&mut self) -> Result<PartEnd, NewsPageError> {
        loop {
            let part = self.state.ring.read_before(self.scan.generation, self.position, Slice::STEPS);
            let entries = part.ok_or(NewsPageError::OtherLog)?;
            if entries.is_empty() {
                return Ok(PartEnd::Below);
            }
            for (frame, recorded) in entries {
                if frame.seq <= self.scan.after || self.scan.since.is_some_and(|since| recorded < since) {
                    return Ok(PartEnd::Page);
                }
                if self.is_late() || !self.take(frame) {
                    self.continue_here();
                    return Ok(PartEnd::Page);
                }
                self.slice.step().await;
            }
        }
    }

    async fn scan_log(&mut self, client: crate::client_address::ClientAddress) -> Result<(), NewsPageError> {
        loop {
            let oldest = self.state.ring.log_oldest();
            if self.position <= oldest || self.position <= self.scan.after.next() {
                return Ok(());
            }
            let (events, bytes) = self.scanned;
            if self.page.frames.len() == self.scan.limit || events >= LOG_EVENTS_MAX || bytes >= LOG_BYTES_MAX
            {
                self.continue_here();
                return Ok(());
            }
            if self.is_late() {
                return self.cut_short(NewsPageError::NoDaemon);
            }
            if self.page.reserved.is_none() {
                // The ring does not share these: they are counted before they are read.
                match self.state.unsent.reserve(client, PAGE_BYTES_MAX) {
                    Ok(reserved) => self.page.reserved = Some(reserved),
                    Err(refused) => return self.cut_short(NewsPageError::Unsent(refused)),
                }
            }
            let Some(part) = self.read_part().await else { return self.cut_short(NewsPageError::NoDaemon) };
            self.page.log_oldest = Some(part.oldest);
            self.scanned = (events + part.events.len(), bytes + part.bytes);
            let is_last = part.is_last;
            match self.scan_part(part).await {
                Some(PartEnd::Page) => return Ok(()),
                Some(PartEnd::Below) if is_last => return Ok(()),
                Some(PartEnd::Below) => {}
                None => return self.cut_short(NewsPageError::NoDaemon),
            }
        }
    }

    /// The next part of the log; `None` if the daemon did not answer.
    async fn read_part(&self) -> Option<HistoryPart> {
        let wanted = match self.scan.filter.selects_all() {
            true => self.scan.limit - self.page.frames.len(),
            false => PART_EVENTS,
        };
        let distance = self.position.0 - self.scan.after.0 - 1;
        let request = HistoryRequest {
            before: Cursor { epoch: self.scan.epoch.clone(), seq: self.position },
            since: self.scan.since,
            limit: wanted.min(PART_EVENTS).min(usize::try_from(distance).unwrap_or(usize::MAX)),
        };
        let answer = timeout_at(self.wait_until, self.state.history.request(request)).await;
        answer.ok()?.ok()?.ok()
    }

    /// Takes what the filter selects; `None` if an event is unreadable.
    async fn scan_part(&mut self, part: HistoryPart) -> Option<PartEnd> {
        for event in part.events {
            let frame = Frame::render(event.get().as_bytes());
            let frame =
                frame.inspect_err(|error| tracing::error!(%error, "an event of the log is unreadable"));
            let frame = frame.ok()?;
            // Whatever the daemon sends, a page is in order and ends at its bounds.
            if frame.seq >= self.position || frame.seq <= self.scan.after {
                return Some(PartEnd::Page);
            }
            if !self.take(Arc::new(frame)) {
                self.continue_here();
                return Some(PartEnd::Page);
            }
            self.slice.step().await;
        }
        Some(PartEnd::Below)
    }

    /// Takes an event if the filter selects it; returns whether the page had room for it.
    fn take(&mut self, frame: Arc<Frame>) -> bool {
        let seq = frame.seq;
        if self.scan.filter.matches(&frame) {
            let bytes = frame.json().len();
            let page = &mut self.page;
            let is_full = page.frames.len() == self.scan.limit
                || !page.frames.is_empty() && page.bytes + bytes > PAGE_BYTES_MAX;
            if is_full {
                return false;
            }
            page.bytes += bytes;
            page.frames.push(frame);
        }
        self.position = seq;
        true
    }

    fn is_late(&mut self) -> bool {
        let is_late = Instant::now() >= self.stop_at;
        self.page.cut_short |= is_late;
        is_late
    }

    /// Ends the page here, if it has anything, or came forward in the log: a search for something rare continues there.
    fn cut_short(&mut self, error: NewsPageError) -> Result<(), NewsPageError> {
        if self.page.frames.is_empty() && self.scanned == (0, 0) {
            return Err(error);
        }
        self.page.cut_short = true;
        self.continue_here();
        Ok(())
    }

    /// The next page begins below the last event of this one, even if more was scanned: what a reader may not see must
    /// not show. A page without events begins where the scan ended.
    fn continue_here(&mut self) {
        self.page.next = Some(self.page.frames.last().map_or(self.position, |frame| frame.seq));
    }
}

/// Where an event below the ring is.
#[derive(Debug)]
pub(crate) enum LogLookup {
    Found(Box<Frame>),
    /// The log no longer has it.
    TooOld,
    /// The daemon did not answer.
    NoDaemon,
}

/// Looks an event below the ring up in the daemon's log.
pub(crate) async fn look_up(state: &AppState, id: &Cursor, within: Duration) -> LogLookup {
    let before = Cursor { epoch: id.epoch.clone(), seq: id.seq.next() };
    let answer = state.history.request(HistoryRequest { before, since: None, limit: 1 });
    let Ok(Ok(Ok(part))) = tokio::time::timeout(within, answer).await else { return LogLookup::NoDaemon };
    let Some(event) = part.events.first() else { return LogLookup::TooOld };
    match Frame::render(event.get().as_bytes()) {
        Ok(frame) if frame.id == *id => LogLookup::Found(Box::new(frame)),
        Ok(_) => LogLookup::TooOld,
        Err(error) => {
            tracing::error!(%error, "an event of the log is unreadable");
            LogLookup::NoDaemon
        }
    }
}
