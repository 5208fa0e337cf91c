//! `newswire-ingestd`: visits feeds, keeps the log, serves the wire.

use std::process::ExitCode;

use daemon::program::INGESTD;

#[expect(clippy::disallowed_methods, reason = "the main thread's loop begins here")]
fn main() -> ExitCode {
    daemon::process::run(INGESTD.name, INGESTD.config_file().as_deref(), |start| {
        fetch::install_tls();
        actix_rt::System::new().block_on(newswire_ingestd::run(start))
    })
}
