//! `newswire-gateway`: serves the wire to everybody, as Server-Sent Events.

use std::process::ExitCode;

use daemon::program::GATEWAY;

#[expect(clippy::disallowed_methods, reason = "the main thread's loop begins here")]
fn main() -> ExitCode {
    daemon::process::run(GATEWAY.name, GATEWAY.config_file().as_deref(), |start| {
        actix_web::rt::System::new().block_on(newswire_gateway::run(start))
    })
}
