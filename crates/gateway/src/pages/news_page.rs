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
use tokio::time::Instant;

use super::pool::Slice;
use crate::{
    client_address::ClientAddress,
    ingest::{
        history::{HistoryPart, HistoryRequest, HistoryResult},
        log_unavailable::{self, LogUnavailable},
        no_answer::NoAnswer,
    },
    state::AppState,
    stream::{filter::EventFilter, frame::Frame},
    unsent::{SMALL_BYTES, UnsentBytes, UnsentRefused},
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
    /// For its events.
    pub(crate) reserved: Option<UnsentBytes>,
}

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewsPageError {
    /// The log has become another one.
    OtherLog,
    /// Everything requested is below the ring, and the log could not be read.
    Log(LogUnavailable),
    /// No time was left to read the log.
    Late,
    /// There is no budget for the bytes of the first event, or of a part of the log.
    Unsent(UnsentRefused),
    /// Everything requested is below the ring, and the address has read so much of the log that it has to wait.
    OverBudget(Duration),
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
    /// The most bytes of the page.
    bytes_max: usize,
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
    client: ClientAddress,
    scan: NewsScan,
) -> Result<NewsPage, NewsPageError> {
    let now = Instant::now();
    let mut scanner = Scanner {
        state,
        position: scan.before,
        scanned: (0, 0),
        bytes_max: PAGE_BYTES_MAX,
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
    let mut page = scanner.page;
    if page.reserved.is_none() {
        page.reserve(state, client)?;
    }
    Ok(page)
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

    async fn scan_log(&mut self, client: ClientAddress) -> Result<(), NewsPageError> {
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
                return self.cut_short(NewsPageError::Late);
            }
            if self.page.reserved.is_none() {
                // The ring does not share these: they are counted before they are read.
                let bytes_min = SMALL_BYTES.max(self.page.bytes);
                match self.state.unsent.reserve_up_to(client, PAGE_BYTES_MAX.max(bytes_min), bytes_min) {
                    Ok(reserved) => {
                        self.bytes_max = reserved.len();
                        self.page.reserved = Some(reserved);
                    }
                    Err(refused) => return self.cut_short(NewsPageError::Unsent(refused)),
                }
            }
            if let Err(wait) = self.state.budgets.replay(&client, 1, 0) {
                return self.cut_short(NewsPageError::OverBudget(wait));
            }
            let part = match self.read_part().await {
                Ok(part) => part,
                // What the ring has is of a log that is no more.
                Err(LogUnavailable::OtherLog) => return Err(NewsPageError::OtherLog),
                Err(unavailable) => return self.cut_short(NewsPageError::Log(unavailable)),
            };
            self.page.log_oldest = Some(part.oldest);
            // What is owed already counts at the next part.
            self.state.budgets.replay(&client, part.events.len() as u64, part.bytes as u64).ok();
            self.scanned = (events + part.events.len(), bytes + part.bytes);
            let is_last = part.is_last;
            match self.scan_part(part).await {
                Some(PartEnd::Page) => return Ok(()),
                Some(PartEnd::Below) if is_last => return Ok(()),
                Some(PartEnd::Below) => {}
                None => {
                    let unreadable = LogUnavailable::NoAnswer(NoAnswer::Unusable);
                    return self.cut_short(NewsPageError::Log(unreadable));
                }
            }
        }
    }

    /// The next part of the log.
    async fn read_part(&self) -> HistoryResult {
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
        read_log(self.state, request, self.wait_until).await
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
                || !page.frames.is_empty() && page.bytes + bytes > self.bytes_max;
            if is_full {
                // With more room it would be longer.
                page.cut_short |= page.frames.len() < self.scan.limit && self.bytes_max < PAGE_BYTES_MAX;
                return false;
            }
            page.bytes += bytes;
            page.frames.push(frame);
        }
        self.position = seq;
        true
    }

    /// Whether the page ends here for want of time; every page gets at least one event further.
    fn is_late(&mut self) -> bool {
        let is_late = self.position < self.scan.before && Instant::now() >= self.stop_at;
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

impl NewsPage {
    /// Reserves the bytes of the page. If there is too little room, the page becomes shorter.
    fn reserve(&mut self, state: &AppState, client: ClientAddress) -> Result<(), NewsPageError> {
        let first = self.frames.first().map_or(0, |frame| frame.json().len());
        let reserved = state.unsent.reserve_up_to(client, self.bytes, first.max(1));
        let reserved = reserved.map_err(NewsPageError::Unsent)?;
        while self.bytes > reserved.len() {
            let Some(dropped) = self.frames.pop() else { break };
            self.bytes -= dropped.json().len();
            self.next = self.frames.last().map(|frame| frame.seq);
            self.cut_short = true;
        }
        self.reserved = Some(reserved);
        Ok(())
    }
}

/// Where an event below the ring is.
#[derive(Debug)]
pub(crate) enum LogLookup {
    Found(Box<Frame>),
    /// The log no longer has it.
    TooOld,
    /// The log could not be read.
    Unavailable(LogUnavailable),
}

async fn read_log(state: &AppState, request: HistoryRequest, until: Instant) -> HistoryResult {
    let result = state.history.read(request, until).await;
    state.metrics.log_requests.get_or_create(&[("result", log_unavailable::result_of(&result))]).inc();
    result
}

/// Looks an event below the ring up in the daemon's log.
pub(crate) async fn look_up(state: &AppState, id: &Cursor, within: Duration) -> LogLookup {
    let before = Cursor { epoch: id.epoch.clone(), seq: id.seq.next() };
    let request = HistoryRequest { before, since: None, limit: 1 };
    let part = match read_log(state, request, Instant::now() + within).await {
        Ok(part) => part,
        Err(unavailable) => return LogLookup::Unavailable(unavailable),
    };
    let Some(event) = part.events.first() else { return LogLookup::TooOld };
    match Frame::render(event.get().as_bytes()) {
        Ok(frame) if frame.seq == id.seq => LogLookup::Found(Box::new(frame)),
        Ok(_) => LogLookup::TooOld,
        Err(error) => {
            tracing::error!(%error, "an event of the log is unreadable");
            LogLookup::Unavailable(LogUnavailable::NoAnswer(NoAnswer::Unusable))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use daemon::{Clock, watch::Watch};
    use news::{Event, EventKind, FeedUrl, Item, Source, SourceId};
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::{
        http::query::NewsQuery,
        ingest::history::HistoryForwarder,
        settings::Settings,
        state::DaemonQueues,
        stream::ring::{Ring, RingBounds},
    };

    /// Event n is of the source `odd` or `even`, and was recorded n seconds after 1970.
    fn event(seq: u64) -> String {
        let source = SourceId::try_new(if seq.is_multiple_of(2) { "even" } else { "odd" }).unwrap();
        let source = Source::new(source, FeedUrl::try_new("https://example.org/").unwrap());
        let id = Cursor { epoch: epoch(), seq: Seq(seq) };
        let item = Item { title: format!("story {seq}"), ..Item::default() };
        Event::new(id, EventKind::Item, &source, recorded(seq), item).to_json()
    }

    fn epoch() -> Epoch {
        Epoch::try_new("e").unwrap()
    }

    fn recorded(seq: u64) -> Timestamp {
        Timestamp::from_millis(i64::try_from(seq).unwrap() * 1000)
    }

    /// A log of the events from `oldest` to `head`; the ring has the newest `kept`.
    fn state(oldest: u64, head: u64, kept: usize) -> (Arc<AppState>, HistoryForwarder) {
        let ring = Ring::new(RingBounds { events: kept, bytes: usize::MAX });
        ring.reset(epoch(), None);
        for seq in oldest.max((head + 1).saturating_sub(kept as u64))..=head {
            ring.push(Frame::render(event(seq).as_bytes()).unwrap());
        }
        ring.set_log_oldest(Seq(oldest));
        ring.set_filled(Seq(head));
        let (queues, forwarders) = DaemonQueues::new();
        let (state, _jobs) =
            AppState::new(Settings::for_tests(), ring, queues, Clock::system(), Watch::new());
        (Arc::new(state), forwarders.history)
    }

    /// The daemon, in five lines; a part has at most `part_max` events.
    fn answer(oldest: u64, head: u64, part_max: usize, request: &HistoryRequest) -> HistoryResult {
        let since = request.since.map_or(1, |since| u64::try_from(since.millis()).unwrap().div_ceil(1000));
        let floor = oldest.max(since);
        let numbers = (floor..request.before.seq.0.min(head + 1)).rev().take(request.limit.min(part_max));
        let numbers: Vec<_> = numbers.collect();
        Ok(HistoryPart {
            events: numbers.iter().map(|n| RawValue::from_string(event(*n)).unwrap()).collect(),
            bytes: 1,
            oldest: Seq(oldest),
            is_last: numbers.last().is_none_or(|last| *last == floor),
        })
    }

    fn scan(query: &str, limit: usize) -> NewsScan {
        NewsScan {
            epoch: epoch(),
            generation: 1,
            before: Seq(u64::MAX),
            after: Seq::NONE,
            since: None,
            filter: NewsQuery::parse(query).unwrap().filter,
            limit,
            within: Duration::from_secs(60),
        }
    }

    /// Follows `next`; returns all events, and how many pages they took.
    async fn walk(state: &AppState, mut scan: NewsScan) -> (Vec<u64>, usize) {
        let (mut all, mut pages) = (Vec::new(), 0);
        loop {
            let client = "192.0.2.1".parse().unwrap();
            let page = make(state, client, scan.clone()).await.unwrap();
            assert!(page.frames.len() <= scan.limit);
            all.extend(page.frames.iter().map(|frame| frame.seq.0));
            pages += 1;
            let Some(next) = page.next else { return (all, pages) };
            assert!(next < scan.before, "every page comes further: {next} after {}", scan.before);
            scan.before = next;
        }
    }

    proptest! {
        #[test]
        fn a_walk_gets_every_event_of_the_log_once_and_in_order(
            oldest in 1..40u64, length in 0..120u64, kept in 1..80usize, limit in 1..50usize,
            part_max in 1..30usize, before in 0..170u64, after in 0..170u64,
            since in prop::option::of(0..170u64), query in prop::sample::select(vec!["", "source=odd", "q=7", "q=nowhere"]),
        ) {
            let head = oldest + length;
            let (state, mut forwarder) = state(oldest, head, kept);
            let scan = NewsScan {
                before: Seq(before.min(head + 1)),
                after: Seq(after),
                since: since.map(recorded),
                ..scan(query, limit)
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let (all, _) = runtime.block_on(async {
                tokio::select! {
                    walked = walk(&state, scan) => walked,
                    () = forwarder.run(|r| std::future::ready(answer(oldest, head, part_max, &r))) => unreachable!(),
                }
            });
            let selected = |n: &u64| match query {
                "source=odd" => n % 2 == 1,
                "q=7" => n.to_string().contains('7'),
                "q=nowhere" => false,
                _ => true,
            };
            let from = oldest.max(after + 1).max(since.unwrap_or(0));
            let expected: Vec<_> = (from..before.min(head + 1)).rev().filter(selected).collect();
            prop_assert_eq!(all, expected);
        }
    }

    #[tokio::test]
    async fn a_search_scans_a_bounded_part_of_the_log_per_page() {
        let (state, mut forwarder) = state(1, 5000, 10);
        let search = walk(&state, scan("q=4999", 50));
        let (all, pages) = tokio::select! {
            walked = search => walked,
            () = forwarder.run(|r| std::future::ready(answer(1, 5000, 1000, &r))) => unreachable!(),
        };
        assert_eq!(all, [4999]);
        // One more, because a page continues below its last event.
        assert_eq!(pages, 5000_usize.div_ceil(LOG_EVENTS_MAX) + 1);
    }

    #[tokio::test]
    async fn a_page_without_time_comes_one_event_further() {
        let (state, _forwarder) = state(1, 20, 100);
        let scan = NewsScan { within: Duration::ZERO, ..scan("source=odd", 50) };
        let (all, pages) = walk(&state, scan).await;
        assert_eq!(all, [19, 17, 15, 13, 11, 9, 7, 5, 3, 1]);
        assert!(pages >= 20, "{pages}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_that_the_daemon_leaves_alone_in_the_middle_goes_on_there() {
        let (state, mut forwarder) = state(1, 1000, 10);
        let is_there = AtomicBool::new(true);
        let unavailable = LogUnavailable::NoAnswer(NoAnswer::NotConnected);
        let exchange = |request: HistoryRequest| {
            let is_there = is_there.load(Relaxed) && request.before.seq.0 > 700;
            std::future::ready(if is_there { answer(1, 1000, 100, &request) } else { Err(unavailable) })
        };
        let client = "192.0.2.1".parse().unwrap();
        let pages = async {
            let first = make(&state, client, scan("q=nowhere", 50)).await.unwrap();
            is_there.store(false, Relaxed);
            let second = NewsScan { before: first.next.unwrap(), ..scan("q=nowhere", 50) };
            (first, make(&state, client, second).await)
        };
        let (first, second) = tokio::select! {
            pages = pages => pages,
            () = forwarder.run(exchange) => unreachable!(),
        };
        assert!(first.frames.is_empty() && first.cut_short);
        assert!(first.next.is_some_and(|next| next.0 <= 700), "{:?}", first.next);
        assert_eq!(second.unwrap_err(), NewsPageError::Log(unavailable));
    }
}
