//! A panic costs one visit or one request, not the process. Here each is logged as one line and counted.

use std::any::Any;
use std::panic::PanicHookInfo;
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use crate::logs;

/// How long a panic waits for its line to be written, if the output of the log takes lines.
const LINE_WAIT_MAX: Duration = Duration::from_millis(50);

static COUNT: AtomicU64 = AtomicU64::new(0);
static EXPECTED: OnceLock<fn() -> bool> = OnceLock::new();

/// Panics are errors that the caller returns, if this says so on the thread that panics: they are neither counted nor logged as
/// panics. Only the first call counts.
pub fn expect_if(expected: fn() -> bool) {
    EXPECTED.get_or_init(|| expected);
}

/// Replaces the panic hook: it logs one error line with the fields `thread`, `location` and `panic` (the message, with
/// control characters escaped). Tools recognise a panic by the field `panic`, not by the text of the line. Until a log is
/// set up, the previous hook runs.
pub fn install() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if EXPECTED.get().is_some_and(|expected| expected()) {
            tracing::debug!(panic = panic.payload_as_str().unwrap_or("no message"), "a library panicked");
            return;
        }
        COUNT.fetch_add(1, Ordering::Relaxed);
        if tracing::dispatcher::has_been_set() {
            log(panic);
        } else {
            previous(panic);
        }
    }));
}

/// Number of panics since [`install`], including caught ones.
#[must_use]
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// The message of a panic that was caught with `catch_unwind` or by joining the thread.
#[must_use]
pub fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn log(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let location = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    tracing::error!(
        thread = thread.name().unwrap_or("unnamed"),
        %location,
        panic = %notation::escaped(panic.payload_as_str().unwrap_or("no message")),
        "a thread panicked"
    );
    // The process may abort next, as after a panic within a panic.
    logs::flush_unless_blocked(LINE_WAIT_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_panic_is_counted_and_its_message_is_kept() {
        install();
        let before = count();
        let caught = std::panic::catch_unwind(|| panic!("five {}", 5)).unwrap_err();
        assert_eq!(message(&*caught), "five 5");
        assert_eq!(count(), before + 1);
    }
}
