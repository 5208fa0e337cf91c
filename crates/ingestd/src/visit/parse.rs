//! Parses a body on a thread of the blocking pool. A document is blamed for the processor time that it takes, never for what
//! its thread waited for: a disk, a processor, a thread.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use daemon::work;
use feed::{FeedDocument, FeedError};
use fetch::FailureClass;
use news::Source;
use notation::humanize;
use rustix::time::{ClockId, clock_gettime};
use tokio::{task::JoinHandle, time::Instant};

use super::{context::VisitContext, memory::VisitMemory, outcome::ParseOutcome, parse_limits::ParseLimits};
use crate::{queue::memory::MemoryPart, status::activity::Activity};

/// How often the processor time of a document is read that is still being parsed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Clock ticks of `/proc/PID/task/TID/stat` per second (USER_HZ): the same on every machine that newswire runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A document that is being parsed takes so many times the bytes of its body: the body, its items, and what the parser has
/// besides.
const PARSED_COPIES: usize = 3;

/// A body, and what is known about it.
pub(super) struct FetchedBody {
    pub(super) bytes: bytes::Bytes,
    pub(super) url: url::Url,
    pub(super) content_type: Option<String>,
}

/// The thread that parses, once it does: for the processor time that it has used so far.
#[derive(Clone, Debug, Default)]
struct ParserThread(Arc<Mutex<Option<StartedParser>>>);

#[derive(Clone, Copy, Debug)]
struct StartedParser {
    tid: i32,
    /// Its processor time before it began.
    used_before: Duration,
}

impl ParserThread {
    fn locked(&self) -> MutexGuard<'_, Option<StartedParser>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On the thread that begins to parse. Returns the processor time that it has used before.
    fn begin(&self) -> Duration {
        let used_before = own_processor_time();
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        *self.locked() = Some(StartedParser { tid, used_before });
        used_before
    }

    /// The processor time of the document so far; none if no thread has begun with it.
    fn used(&self) -> Duration {
        let Some(started) = *self.locked() else { return Duration::ZERO };
        processor_time_of(started.tid).unwrap_or_default().saturating_sub(started.used_before)
    }
}

fn own_processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Of another thread of this process, to a few clock ticks (proc_pid_stat(5), fields 14 and 15).
#[expect(clippy::disallowed_methods, reason = "the kernel answers from memory")]
fn processor_time_of(tid: i32) -> Option<Duration> {
    ticks_used(&std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?)
}

fn ticks_used(stat: &str) -> Option<Duration> {
    // The name of the thread may have spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
    let ticks = fields.next()? + fields.next()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Parses a body; also returns how much processor time that took, if it ended or took too much.
pub(super) async fn parse_body(
    ctx: &VisitContext,
    source: &Source,
    memory: &VisitMemory,
    body: FetchedBody,
) -> (ParseOutcome, Option<Duration>) {
    // The decoders are gone.
    memory.share().shrink_to(body.bytes.len());
    // Before the parser's permit: a visit that has that never waits for memory.
    let bytes = PARSED_COPIES * body.bytes.len();
    memory.grow_to(bytes, Activity::Parsing).await;
    let share = memory.share();
    share.use_for(MemoryPart::Document, bytes);
    let give_up_at = Instant::now() + ctx.parse_limits.wait;
    let permit = Arc::clone(&ctx.parsers).acquire_owned();
    let Ok(permit) = tokio::time::timeout_at(give_up_at, permit).await else {
        return (ParseOutcome::Postponed, None);
    };
    let permit = permit.expect("the parsers' semaphore is never closed");
    let thread = ParserThread::default();
    let (parse, crash_guard, metrics) = (ctx.parse, ctx.crash_guard.clone(), ctx.metrics.clone());
    let (id, language) = (source.id.clone(), source.language.clone());
    let started = thread.clone();
    let parse = move || {
        let (_permit, _share) = (permit, share);
        let _at_work = work::on("parsing", id.as_str());
        let guard = crash_guard.begin(&id);
        if !guard.is_marked() {
            metrics.parses_unmarked.inc();
        }
        let hints = feed::Hints {
            url: Some(&body.url),
            content_type: body.content_type.as_deref(),
            language: language.as_deref(),
        };
        let before = started.begin();
        let parsed = parse(&body.bytes, &hints);
        (parsed, own_processor_time().saturating_sub(before))
    };
    wait_for(tokio::task::spawn_blocking(parse), &thread, ctx.parse_limits, give_up_at).await
}

type Parsed = (Result<FeedDocument, FeedError>, Duration);

async fn wait_for(
    mut parse: JoinHandle<Parsed>,
    thread: &ParserThread,
    limits: ParseLimits,
    give_up_at: Instant,
) -> (ParseOutcome, Option<Duration>) {
    loop {
        match tokio::time::timeout(LOOK_EVERY, &mut parse).await {
            Ok(Ok((Ok(document), took))) => return (ParseOutcome::Document(Box::new(document)), Some(took)),
            Ok(Ok((Err(error), took))) => {
                let failed = ParseOutcome::Failed { class: error.class(), message: error.to_string() };
                return (failed, Some(took));
            }
            Ok(Err(join)) => {
                let message = match join.try_into_panic() {
                    Ok(panic) => daemon::panics::message(&*panic).to_owned(),
                    Err(cancelled) => cancelled.to_string(),
                };
                return (ParseOutcome::Panicked(message), None);
            }
            Err(_) => {}
        }
        let used = thread.used();
        if used >= limits.processor {
            let message = format!("parsing takes more than {} of processor time", humanize(limits.processor));
            return (ParseOutcome::Failed { class: FailureClass::TooComplex, message }, Some(used));
        }
        if Instant::now() >= give_up_at {
            return (ParseOutcome::Postponed, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticks_of_a_thread_are_found_behind_any_name() {
        let stat = "812 (a) (b c) S 1 812 812 0 -1 4194304 7 0 0 0 150 50 0 0 20 0 9 0 123 0 0";
        assert_eq!(ticks_used(stat), Some(Duration::from_secs(2)));
        assert_eq!(ticks_used("812 (a) S 1"), None);
        assert_eq!(ticks_used(""), None);
    }

    #[test]
    fn the_processor_time_of_a_thread_is_the_same_from_outside() {
        let thread = ParserThread::default();
        assert_eq!(thread.used(), Duration::ZERO, "no thread has begun");
        let before = thread.begin();
        let mut n = 0_u64;
        while own_processor_time() - before < Duration::from_millis(200) {
            n = std::hint::black_box(n + 1);
        }
        let used = thread.used();
        assert!(used >= Duration::from_millis(150), "{used:?}");
        let own = own_processor_time() - before;
        assert!(used <= own + Duration::from_millis(50), "{used:?} {own:?}");
    }
}
