//! What each thread waits for, and who holds the other end: link by link up to the root, across both processes and those that
//! hold the ends of their pipes and sockets.
//!
//! All threads are sampled twice ([`sample`]), then the stacks are captured, then [`examine`] makes chains of both. Nothing
//! here waits for the processes, and each step has a deadline.

mod calls;
pub(crate) mod chain;
pub(crate) mod ends;
mod facts;
mod files;
pub(crate) mod link;
mod locks;
pub(crate) mod peers;
mod sample;
pub(crate) mod says;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

#[cfg(test)]
pub(crate) use link::{HeldBy, HeldHow, LockKind, WaitAccess};
pub(crate) use link::{WaitChain, WaitLink, WaitsFor};
pub(crate) use sample::WaitSamples;

use super::{evidence::DaemonEvidence, part::Part};
use crate::within;

/// How long both samples and the look through all descriptors may take.
const SAMPLE_WITHIN: Duration = Duration::from_millis(3_500);
/// How long making the chains may take.
const CHAINS_WITHIN: Duration = Duration::from_millis(1_200);

/// Samples all threads of these processes twice, and those of the processes at the other ends.
pub(crate) async fn sample(pids: Vec<i32>) -> Part<Arc<WaitSamples>> {
    if pids.is_empty() {
        return Part::missing("no process");
    }
    match within::later(SAMPLE_WITHIN, move || WaitSamples::of(&pids)).await {
        Some(samples) => Part::Found(Arc::new(samples)),
        None => Part::timed_out(super::http::no_answer_within(SAMPLE_WITHIN)),
    }
}

/// Makes the chains, after the stacks are known.
pub(crate) async fn examine(
    samples: Part<Arc<WaitSamples>>,
    daemons: [&DaemonEvidence; 2],
) -> Part<Vec<WaitChain>> {
    let samples = match samples {
        Part::Found(samples) => samples,
        Part::Missing { missing, cause } => return Part::Missing { missing, cause },
    };
    let known: Vec<_> = daemons.iter().filter_map(|daemon| facts::KnownProcess::of(daemon)).collect();
    let cut = chain::silent_wire(daemons);
    let chains = move || {
        let facts = facts::WaitFacts::of(&samples, known);
        chain::all(&facts, cut.as_ref())
    };
    match within::later(CHAINS_WITHIN, chains).await {
        Some(chains) => Part::Found(chains),
        None => Part::timed_out(super::http::no_answer_within(CHAINS_WITHIN)),
    }
}
