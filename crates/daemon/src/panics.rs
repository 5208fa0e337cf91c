//! A panic costs one visit or one request, not the process; here it gets its one line in the log and its count.

use std::any::Any;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Replaces the panic hook: one error line with thread, location and message, control characters escaped. Before a
/// log is set up, the hook that was there before speaks.
pub fn install() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        COUNT.fetch_add(1, Ordering::Relaxed);
        if tracing::dispatcher::has_been_set() {
            report(panic);
        } else {
            before(panic);
        }
    }));
}

/// Panics since [`install`], caught ones included.
#[must_use]
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// The text a panic carried, for whoever caught it with `catch_unwind` or joined the thread.
#[must_use]
pub fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text")
}

fn report(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let location = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    tracing::error!(
        thread = thread.name().unwrap_or("unnamed"),
        %location,
        panic = %notation::escaped(panic.payload_as_str().unwrap_or("a panic without text")),
        "a thread panicked"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_panic_is_counted_and_its_text_kept() {
        install();
        let before = count();
        let caught = std::panic::catch_unwind(|| panic!("five {}", 5)).unwrap_err();
        assert_eq!(message(&*caught), "five 5");
        assert_eq!(count(), before + 1);
    }
}
