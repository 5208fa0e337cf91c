//! Lines for tests: what a piece of work would have logged.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::Subscriber;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

use super::detail;
use super::lines::{Lines, Shape, Write};
use crate::clock::Clock;

/// The lines that were logged so far. Cheap to clone; every clone is the same list.
#[derive(Clone, Debug, Default)]
pub struct CapturedLog(Arc<Mutex<String>>);

impl CapturedLog {
    /// All lines as text, each with its newline.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Write for CapturedLog {
    fn write(&self, line: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(line));
    }
}

/// A log that keeps its lines in memory: everything that the real one does, filter and repeats included.
///
/// # Errors
/// A sentence, when `level` is no level.
pub fn kept(level: &str, clock: Clock) -> Result<(impl Subscriber + Send + Sync, CapturedLog), String> {
    let kept = CapturedLog::default();
    let lines = Lines::new(Shape::Text { colour: false }, Box::new(kept.clone()), clock, Arc::default());
    Ok((Registry::default().with(detail::filter(level)?).with(lines), kept))
}
