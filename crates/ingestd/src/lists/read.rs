//! One read of a list: from the request, or the file, to the copy on disk.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use feed::opml::{BYTES_MAX, read_opml};
use fetch::{ByteBudget, FetchResult, Full, HeldHop, HopGate as _, RequestOptions, RoomWait, VisitRequest};
use news::{FeedList, FeedUrl, ListOrigin, Source, SourceId, Timestamp};
use sources::lists::{self, ListCopies, ListMemory, ListReading, LostFeeds};
use tokio::io::AsyncReadExt as _;

use super::{
    millis,
    result::ReadResult,
    schedule::{DOUBT, ReadEnd, is_throttled, next_read},
};
use crate::{
    queue::{
        memory::{MemoryPart, MemoryShare},
        wait_reason::ListWait,
    },
    visit::{context::VisitContext, hops::PacedHops},
};

/// Once in this time a list is requested without validators: there are servers that answer 304 for ever.
const UNCONDITIONAL_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);
/// What a parsed document and its sources use of the memory budget, per byte of it.
const PARSED_BYTES: usize = 4;

/// A list to read, and what is known about it.
#[derive(Clone)]
pub(super) struct ReadJob {
    pub(super) list: Arc<FeedList>,
    /// Of this address: [`ListMemory::reading`] is that of the list.
    pub(super) memory: ListMemory,
    /// To which the path of a list is relative.
    pub(super) directory: PathBuf,
    pub(super) copies: ListCopies,
    /// Where it is shown what the request waits for.
    pub(super) wait: ListWait,
    /// Whatever it has lost counts.
    pub(super) takes_all: bool,
}

/// The end of a read.
pub(super) struct ListRead {
    pub(super) list: SourceId,
    /// What is known about the list now.
    pub(super) memory: ListMemory,
    pub(super) result: ReadResult,
}

/// What a server or the disk answered.
enum ListAnswer {
    /// A whole document.
    Document { body: Bytes, memory: ListMemory, share: Option<Arc<MemoryShare>> },
    /// Not modified; with the validators to send next.
    NotModified(ListMemory),
    /// The same of a server inside of `fetch.allow` about a copy from outside, or the other way round: it is not from there.
    /// The whole document is needed soon.
    NotModifiedElsewhere(ListMemory),
}

/// Why a list was not read.
struct ReadFailure {
    why: String,
    /// See [`is_throttled`].
    is_throttled: bool,
    /// How long it asks to wait.
    wait: Option<Duration>,
}

impl ReadFailure {
    fn new(why: impl ToString) -> Self {
        Self { why: why.to_string(), is_throttled: false, wait: None }
    }
}

impl ReadJob {
    /// The end of a read that panicked.
    pub(super) fn panicked(self, ctx: &VisitContext, message: &str) -> ListRead {
        let failure = ReadFailure::new(format!("reading it panicked: {message}"));
        let memory = self.not_read(ctx, &failure);
        ListRead { list: self.list.id.clone(), memory, result: ReadResult::Failed }
    }

    fn not_read(&self, ctx: &VisitContext, failure: &ReadFailure) -> ListMemory {
        let failures = self.memory.failures.saturating_add(1);
        let ReadFailure { is_throttled, wait, .. } = *failure;
        let end = ReadEnd::Failed { failures, is_throttled, wait };
        let error = Some(failure.why.clone());
        self.ended(ctx, end, ListMemory { failures, error, ..self.memory.clone() })
    }

    fn ended(&self, ctx: &VisitContext, end: ReadEnd, memory: ListMemory) -> ListMemory {
        let (now, bounds) = (ctx.now(), ctx.interval_bounds.get());
        let next_read = Some(next_read(self.list.every, bounds, now, end, fastrand::f64()));
        let (is_throttled, asked) = match end {
            ReadEnd::Failed { is_throttled, wait, .. } => (is_throttled, wait),
            ReadEnd::Fine | ReadEnd::Doubtful(_) => (false, None),
        };
        let (every_ms, asked_ms) = (millis(self.list.every), asked.map(millis));
        ListMemory { last_read: Some(now), next_read, every_ms, is_throttled, asked_ms, ..memory }
    }

    /// After a read that found what the list has.
    fn succeeded(&self, ctx: &VisitContext, memory: ListMemory) -> ListMemory {
        let (last_success, failures, error, doubtful_since) = (Some(ctx.now()), 0, None, None);
        let lost = LostFeeds::default();
        let memory = ListMemory { last_success, failures, error, doubtful_since, lost, ..memory };
        self.ended(ctx, ReadEnd::Fine, memory)
    }

    /// After a read that has lost too much. The document is needed again, so its validators do not count.
    fn doubtful(&self, ctx: &VisitContext, doubt: Doubt, is_trusted: bool, refused: usize) -> ListMemory {
        let Doubt { why, lost, since } = doubt;
        let error = format!(
            "{why}; its sources stay until that has been so for a day (since {since}); `newswire sources lists {} --take` takes it at once",
            self.list.id
        );
        let memory = ListMemory {
            doubtful_since: Some(since),
            lost,
            error: Some(error),
            failures: 0,
            is_trusted,
            refused,
            ..self.memory.clone()
        };
        self.ended(ctx, ReadEnd::Doubtful(since), memory)
    }
}

/// Reads a list, and writes the copies.
pub(super) async fn read(ctx: Rc<VisitContext>, job: ReadJob) -> ListRead {
    let answer = match &job.list.origin {
        ListOrigin::Url(url) => request(&ctx, &job, url).await,
        ListOrigin::File(path) => open(&job, path).await,
    };
    let (memory, result) = match answer {
        Ok(ListAnswer::NotModified(memory)) => (job.succeeded(&ctx, memory), ReadResult::Unchanged),
        Ok(ListAnswer::NotModifiedElsewhere(memory)) => {
            let end = ReadEnd::Failed { failures: 1, is_throttled: false, wait: None };
            (job.ended(&ctx, end, job.succeeded(&ctx, memory)), ReadResult::Unchanged)
        }
        Ok(ListAnswer::Document { body, memory, share }) => {
            match parse(&ctx, &job, body, memory.is_trusted, share).await {
                Ok(Parsed { result, refused, is_trusted, doubt: None }) => {
                    let copied_from = job.list.origin_hash();
                    (job.succeeded(&ctx, ListMemory { refused, is_trusted, copied_from, ..memory }), result)
                }
                Ok(Parsed { result, refused, is_trusted, doubt: Some(doubt) }) => {
                    (job.doubtful(&ctx, doubt, is_trusted, refused), result)
                }
                Err(failure) => (job.not_read(&ctx, &failure), ReadResult::Failed),
            }
        }
        Err(failure) => (job.not_read(&ctx, &failure), ReadResult::Failed),
    };
    let (list, copies, written) = (job.list.id.clone(), job.copies, memory.clone());
    let id = list.clone();
    let written = tokio::task::spawn_blocking(move || copies.lock().write_memory(&id, &written)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(%list, %error, "what is known of a list cannot be written");
    }
    ListRead { list, memory, result }
}

/// The file of a list.
async fn open(job: &ReadJob, path: &Path) -> Result<ListAnswer, ReadFailure> {
    let bytes = read_file(&job.directory, path).await.map_err(|why| {
        ReadFailure::new(format!("its file {why} ({})", job.directory.join(path).display()))
    })?;
    let memory = ListMemory { is_trusted: true, ..job.memory.clone() };
    Ok(ListAnswer::Document { body: bytes.into(), memory, share: None })
}

/// What is in the file of a list, up to more than a list may have.
///
/// # Errors
/// Why it cannot be read.
pub(crate) async fn read_file(directory: &Path, path: &Path) -> Result<Vec<u8>, String> {
    let path = directory.join(path);
    let read = async {
        // Opening a pipe would wait for its writer.
        if !tokio::fs::metadata(&path).await?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
        }
        let mut bytes = Vec::new();
        let file = tokio::fs::File::open(&path).await?;
        file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
        Ok(bytes)
    };
    read.await.map_err(|error: io::Error| format!("cannot be read: {error}"))
}

/// The share of a request, for its body.
#[derive(Debug)]
struct ListBudget(Arc<MemoryShare>);

impl ByteBudget for ListBudget {
    fn grow_to(&self, bytes: usize) -> RoomWait<'_> {
        Box::pin(async move {
            if let Some(room) = self.0.grow_to(bytes) {
                room.await;
            }
        })
    }

    fn hold(&self, bytes: usize) {
        self.0.hold(bytes);
    }

    fn is_wanted(&self) -> bool {
        self.0.is_wanted()
    }
}

/// Requests a list, as a visit requests a feed: admitted by the limits of its host, conditional, within the deadlines.
async fn request(ctx: &VisitContext, job: &ReadJob, url: &FeedUrl) -> Result<ListAnswer, ReadFailure> {
    let options = ctx.credentials.request_options(&job.list.access).await.map_err(ReadFailure::new)?;
    let fingerprint = options.as_ref().map_or(0, RequestOptions::fingerprint);
    let hops = PacedHops::to_list(ctx, job.wait.clone());
    let held = |held: HeldHop| ReadFailure { why: held.why, is_throttled: false, wait: held.wait };
    hops.enter(url).await.map_err(held)?;
    let now = ctx.now();
    let budget = ListBudget(ctx.limiter.share_for(0));
    let (etag, last_modified) = validators(job, fingerprint, now);
    let request = VisitRequest {
        etag,
        last_modified,
        validator_key: job.memory.validator_key,
        body_bytes_max: Some(BYTES_MAX),
        options: options.as_ref(),
        budget: Some(&budget),
        gate: Some(&hops),
        ..VisitRequest::new(url, now)
    };
    let report = ctx.visitor.visit(&request).await;
    let is_trusted = ctx.visitor.is_from_inside(&request, &report);
    let before = ListMemory { is_trusted, fingerprint, ..job.memory.clone() };
    let answerer = report.answerer();
    match report.answer {
        FetchResult::Full(Full { is_delta: true, .. }) => {
            Err(ReadFailure::new("the server sent only what is new (226), which is not the list"))
        }
        FetchResult::Full(full) => {
            let Full { body, etag, last_modified, validator_key, .. } = full;
            let (validator_key, last_full) = (Some(validator_key), Some(now));
            let memory = ListMemory { etag, last_modified, validator_key, last_full, ..before };
            Ok(ListAnswer::Document { body, memory, share: Some(budget.0) })
        }
        FetchResult::NotModified { .. } if is_trusted != job.memory.is_trusted => {
            let memory = ListMemory { etag: None, last_modified: None, ..job.memory.clone() };
            Ok(ListAnswer::NotModifiedElsewhere(memory))
        }
        FetchResult::NotModified { etag, last_modified } => {
            let etag = etag.or_else(|| before.etag.clone());
            let last_modified = last_modified.or_else(|| before.last_modified.clone());
            Ok(ListAnswer::NotModified(ListMemory { etag, last_modified, ..before }))
        }
        FetchResult::Throttled => {
            let wait = report.retry_after;
            let is_throttled = is_throttled(report.code.filter(|_| report.held.is_none()), wait);
            let code = report.code.unwrap_or_default();
            let asks = || format!("{answerer} asks for fewer requests ({code})");
            Err(ReadFailure { why: report.held.unwrap_or_else(asks), is_throttled, wait })
        }
        FetchResult::Gone => Err(ReadFailure::new("the list is gone (410)")),
        // A proxy that does not connect may have asked to wait.
        FetchResult::Failed(failure) => {
            Err(ReadFailure { wait: report.retry_after, ..ReadFailure::new(failure) })
        }
    }
}

/// The `ETag` and the `Last-Modified` to send: none after a change of the request, once a week, and while a loss is doubtful.
fn validators(job: &ReadJob, fingerprint: u64, now: Timestamp) -> (Option<&str>, Option<&str>) {
    let memory = &job.memory;
    let is_fresh = memory.last_full.is_some_and(|at| now.since(at) < UNCONDITIONAL_EVERY);
    if !is_fresh || memory.fingerprint != fingerprint || memory.doubtful_since.is_some() || job.takes_all {
        return (None, None);
    }
    (memory.etag.as_deref(), memory.last_modified.as_deref())
}

/// What a document has; the copy has it, too.
struct Parsed {
    result: ReadResult,
    refused: usize,
    /// What the copy may reach from now on.
    is_trusted: bool,
    /// About what it has lost, which the copy has kept.
    doubt: Option<Doubt>,
}

/// Why a loss may be a fault.
struct Doubt {
    why: String,
    lost: LostFeeds,
    /// Since when all of it has been lost.
    since: Timestamp,
}

impl ReadJob {
    /// Whether what a reading has lost of `before` may be a fault. Not if an operator wants it, if it has been so for a day, or
    /// if the list is another one now, unless its document looks like a fault itself.
    fn doubt(&self, before: &[Source], reading: &ListReading, now: Timestamp) -> Option<Doubt> {
        let memory = &self.memory;
        let is_moved = ![0, self.list.origin_hash()].contains(&memory.copied_from);
        let is_other_list = is_moved && reading.fault.is_none() && !reading.sources.is_empty();
        if self.takes_all || is_other_list {
            return None;
        }
        let (why, lost) = lists::doubt(before, reading, &memory.lost)?;
        let since = memory.doubtful_since.filter(|_| lost.is_within(&memory.lost)).unwrap_or(now);
        (now.since(since) < DOUBT).then_some(Doubt { why, lost, since })
    }
}

/// Parses a document, and replaces the copy. What is lost and may not be, the new one keeps.
async fn parse(
    ctx: &VisitContext,
    job: &ReadJob,
    body: Bytes,
    is_trusted: bool,
    share: Option<Arc<MemoryShare>>,
) -> Result<Parsed, ReadFailure> {
    let share = share.unwrap_or_else(|| ctx.limiter.share_for(0));
    share.use_for(MemoryPart::Document, (1 + PARSED_BYTES) * body.len());
    let (job, now) = (job.clone(), ctx.now());
    let parsed = tokio::task::spawn_blocking(move || {
        // Until the end of the thread, also if the read is cancelled.
        let _share = share;
        parse_blocking(&job, &body, is_trusted, now)
    });
    parsed.await.unwrap_or_else(|panic| Err(ReadFailure::new(format!("reading it failed: {panic}"))))
}

fn parse_blocking(
    job: &ReadJob,
    body: &[u8],
    is_trusted: bool,
    now: Timestamp,
) -> Result<Parsed, ReadFailure> {
    let id = &job.list.id;
    let opml = read_opml(body).map_err(ReadFailure::new)?;
    let copies = job.copies.lock();
    // A damaged copy is replaced.
    let before = copies.sources(id).unwrap_or_default();
    let left = copies
        .left(id)
        .map_err(|error| ReadFailure::new(format!("the feeds that have left it cannot be read: {error}")))?;
    let mut reading = lists::read(&job.list, &opml, &before, &left);
    let doubt = job.doubt(&before, &reading, now);
    if doubt.is_some() {
        reading.keep_lost(&before);
    }
    let ListReading { sources, refused, first_refused, .. } = reading;
    let is_changed = sources != before;
    // What it has kept and what is new count as the less trusted of the two.
    let is_trusted = match doubt {
        Some(_) => job.memory.is_trusted && (is_trusted || !is_changed),
        None => is_trusted,
    };
    let result = result(&before, &sources, first_refused, doubt.is_some());
    if is_changed {
        let left_now = left.after(&before, &sources, now);
        let left_written = if left_now == left { Ok(()) } else { copies.write_left(id, &left_now) };
        // Before the copy: a crash in between must not leave a foreign one that counts as the operator's.
        let distrusted = || match job.memory.is_trusted && !is_trusted {
            true => copies.write_memory(id, &ListMemory { is_trusted, ..job.memory.clone() }),
            false => Ok(()),
        };
        let written =
            left_written.and_then(|()| distrusted()).and_then(|()| copies.write_sources(id, sources));
        written.map_err(|error| ReadFailure::new(format!("its copy cannot be written: {error}")))?;
    }
    Ok(Parsed { result, refused, is_trusted, doubt })
}

fn result(before: &[Source], now: &[Source], refused: Vec<(usize, String)>, is_doubtful: bool) -> ReadResult {
    let ids: HashSet<_> = now.iter().map(|source| &source.id).collect();
    let removed = before.iter().filter(|source| !ids.contains(&source.id)).count();
    let (sources, added) = (now.len(), now.len() + removed - before.len());
    match now != before {
        is_changed if is_doubtful => ReadResult::Doubtful { is_changed, added },
        true => ReadResult::Changed { sources, added, removed, refused },
        false => ReadResult::Unchanged,
    }
}
