//! `newswire-gateway`: serves the wire to everybody, as Server-Sent Events.

use std::process::ExitCode;

use daemon::program::GATEWAY;

#[expect(clippy::disallowed_methods, reason = "the main thread's loop begins here")]
fn main() -> ExitCode {
    let asked = GATEWAY.parse_arguments();
    let file = asked.config.as_deref();
    if asked.check {
        return daemon::process::check(GATEWAY.name, file, newswire_gateway::check);
    }
    daemon::process::run(GATEWAY.name, file, |start| {
        actix_web::rt::System::new().block_on(newswire_gateway::run(start))
    })
}
