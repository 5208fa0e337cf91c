//! `newswire-ingestd`: visits feeds, keeps the log, serves the wire.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// Visits feeds, records what is new, and serves it to gateways on a Unix socket.
#[derive(Debug, Parser)]
#[command(name = "newswire-ingestd", version)]
struct Arguments {
    /// Configuration file [default: $NEWSWIRE_CONFIG, else /etc/newswire/newswire.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[expect(clippy::disallowed_methods, reason = "the main thread's loop begins here")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    daemon::process::run("newswire-ingestd", arguments.config.as_deref(), |start| {
        fetch::install_tls();
        actix_rt::System::new().block_on(newswire_ingestd::run(start))
    })
}
