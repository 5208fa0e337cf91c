//! A log in memory, for tests: what a piece of work would have logged.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::Subscriber;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

use super::level;
use super::lines::{LineFormat, LineLayer};
use super::output::LineWriter;
use crate::{clock::Clock, line_queue::LineShare};

/// The lines logged so far. Cheap to clone; every clone is the same list.
#[derive(Clone, Debug, Default)]
pub struct CapturedLog(Arc<Mutex<String>>);

impl CapturedLog {
    /// All lines as text, each with its newline.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl LineWriter for CapturedLog {
    fn write(&self, line: String, _: LineShare) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
    }
}

/// A subscriber that keeps its lines in memory and otherwise does what the real log does, including the filter and the
/// suppression of repeats.
///
/// # Errors
/// A sentence if `level` is not a level or filter.
pub fn capture(level: &str, clock: Clock) -> Result<(impl Subscriber + Send + Sync, CapturedLog), String> {
    let captured = CapturedLog::default();
    let format = LineFormat::Text { colour: false };
    let lines = LineLayer::new(format, Box::new(captured.clone()), clock, Arc::default());
    Ok((Registry::default().with(level::parse_filter(level)?).with(lines), captured))
}
