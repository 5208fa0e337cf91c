//! `newswire-gateway`: serves the wire to everybody, as Server-Sent Events.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// Serves what the ingestion daemon records as Server-Sent Events, with a page, history and health of the sources.
#[derive(Debug, Parser)]
#[command(name = "newswire-gateway", version)]
struct Arguments {
    /// Configuration file [default: $NEWSWIRE_CONFIG, else /etc/newswire/newswire.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[expect(clippy::disallowed_methods, reason = "the main thread's loop begins here")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    daemon::process::run("newswire-gateway", arguments.config.as_deref(), |start| {
        actix_web::rt::System::new().block_on(newswire_gateway::run(start))
    })
}
