//! Locks that a stuck thread may hold for ever.

/// Attempts of [`try_briefly`]: about a millisecond.
const LOCK_ATTEMPTS: usize = 1_000;

/// For diagnostics: tries to take a lock for about a millisecond. That is enough if its holder needs it for a few
/// instructions, and returns `None` if its holder is stuck.
pub fn try_briefly<T>(attempt: impl Fn() -> Option<T>) -> Option<T> {
    (0..LOCK_ATTEMPTS).find_map(|_| {
        let got = attempt();
        if got.is_none() {
            std::thread::yield_now();
        }
        got
    })
}
