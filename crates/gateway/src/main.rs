//! `newswire-gateway`: serves the news to clients, as Server-Sent Events.

use std::process::ExitCode;

use daemon::program::GATEWAY;

/// A burst of large items needs a buffer per client for a moment. This allocator returns such memory within seconds, on a
/// thread of its own; glibc keeps it for as long as anything newer lies above it. `scripts/bench memory` measures it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[expect(clippy::disallowed_methods, reason = "the main thread's event loop starts here")]
fn main() -> ExitCode {
    let arguments = GATEWAY.parse_arguments();
    let file = arguments.config.as_deref();
    if let Some(output) = arguments.check {
        return daemon::process::check(GATEWAY.name, file, output, newswire_gateway::check);
    }
    daemon::process::run(GATEWAY.name, file, |start| {
        actix_web::rt::System::new().block_on(newswire_gateway::run(start))
    })
}
