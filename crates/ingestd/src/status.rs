//! What the daemon reports about itself: the state of every source, metrics, diagnostics.

pub(crate) mod activity;
pub(crate) mod diagnostics;
mod feeds;
mod gauges;
pub(crate) mod metrics;
pub(crate) mod progress;
pub(crate) mod registry;
