//! Parses a body on a thread of the blocking pool.

use std::{sync::Arc, time::Duration};

use daemon::work;
use fetch::FailureClass;
use news::Source;
use tokio::time::Instant;

use super::{context::VisitContext, memory::VisitMemory, outcome::ParseOutcome};
use crate::{queue::memory::MemoryPart, status::activity::Activity};

/// The visit waits no longer for its document to be parsed; the thread keeps its permit until it really ends.
const PARSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A document that is being parsed takes so many times the bytes of its body: the body, its items, and what the parser has
/// besides.
const PARSED_COPIES: usize = 3;

/// A body, and what is known about it.
pub(super) struct FetchedBody {
    pub(super) bytes: bytes::Bytes,
    pub(super) url: url::Url,
    pub(super) content_type: Option<String>,
}

/// Parses a body; also returns how long that took, if it ended.
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
    let permit = Arc::clone(&ctx.parsers).acquire_owned().await;
    let permit = permit.expect("the parsers' semaphore is never closed");
    let (parse, crash_guard) = (ctx.parse, ctx.crash_guard.clone());
    let (id, language) = (source.id.clone(), source.language.clone());
    let parse = move || {
        let (_permit, _share) = (permit, share);
        let _at_work = work::on("parsing", id.as_str());
        let _guard = crash_guard.begin(&id);
        let hints = feed::Hints {
            url: Some(&body.url),
            content_type: body.content_type.as_deref(),
            language: language.as_deref(),
        };
        let started = Instant::now();
        (parse(&body.bytes, &hints), started.elapsed())
    };
    match tokio::time::timeout(PARSE_TIMEOUT, tokio::task::spawn_blocking(parse)).await {
        Ok(Ok((Ok(document), took))) => (ParseOutcome::Document(Box::new(document)), Some(took)),
        Ok(Ok((Err(error), took))) => {
            (ParseOutcome::Failed { class: error.class(), message: error.to_string() }, Some(took))
        }
        Ok(Err(join)) => {
            let message = match join.try_into_panic() {
                Ok(panic) => daemon::panics::message(&*panic).to_owned(),
                Err(cancelled) => cancelled.to_string(),
            };
            (ParseOutcome::Panicked(message), None)
        }
        Err(_) => {
            let message = format!("parsing takes longer than {} s", PARSE_TIMEOUT.as_secs());
            (ParseOutcome::Failed { class: FailureClass::TooComplex, message }, Some(PARSE_TIMEOUT))
        }
    }
}
