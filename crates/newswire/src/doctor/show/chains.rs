//! What threads wait for.

use super::{ReportWriter, duration};
use crate::doctor::{
    evidence::Evidence,
    part::{MissingCause, Part},
};

/// Chains shown; the JSON contains all that are kept.
const CHAINS_SHOWN: usize = 8;

pub(super) fn show(page: &mut ReportWriter, evidence: &Evidence) {
    let chains = match &evidence.waits {
        missing if missing.is_missing_because(MissingCause::NotAsked) => return,
        Part::Missing { missing, .. } => {
            page.section("waits");
            return page.missing("chains", missing);
        }
        Part::Found(chains) if chains.is_empty() => return,
        Part::Found(chains) => chains,
    };
    page.section("waits");
    for chain in chains.iter().take(CHAINS_SHOWN) {
        let how = if chain.still { "still" } else { "moving" };
        let since = chain.since_ms.map(|ms| format!(" for {}", duration(ms))).unwrap_or_default();
        // The sentences are escaped already.
        let text = format!("{} ({how}{since})", chain.line);
        page.line(chain.still && chain.explains(), chain.process.trim_start_matches("newswire-"), &text);
    }
    let more = chains.len().saturating_sub(CHAINS_SHOWN);
    if more > 0 {
        page.normal("", &format!("and {more} more"));
    }
}
