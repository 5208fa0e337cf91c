//! `newswire-ingestd`: visits feeds, keeps the log, serves the wire.

use std::{mem::ManuallyDrop, process::ExitCode};

use daemon::program::INGESTD;

/// A first start, or a few large feeds at once, needs much memory for a moment. This allocator returns it within seconds, on a
/// thread of its own; glibc keeps it for as long as anything newer lies above it. `scripts/bench start` measures it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[expect(clippy::disallowed_methods, reason = "the main thread's loop begins here")]
fn main() -> ExitCode {
    let invocation = INGESTD.parse_arguments();
    let file = invocation.config.as_deref();
    if let Some(output) = invocation.check {
        return daemon::process::check(INGESTD.name, file, output, |config| {
            actix_rt::System::new().block_on(newswire_ingestd::check(config))
        });
    }
    daemon::process::run(INGESTD.name, file, |start| {
        fetch::install_tls();
        // Never dropped: that would wait for the blocking pool, and a thread of it may wait for the disk for ever.
        let system = ManuallyDrop::new(actix_rt::System::new());
        system.block_on(newswire_ingestd::run(start))
    })
}
