//! `newswire-ingestd`: visits feeds, keeps the log, serves the wire.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use daemon::{Clock, Exit, config};

/// Visits feeds, records what is new, and serves it to gateways on a Unix socket.
#[derive(Debug, Parser)]
#[command(name = "newswire-ingestd", version)]
struct Arguments {
    /// Configuration file [default: $NEWSWIRE_CONFIG, else /etc/newswire/newswire.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let loaded = match config::load(arguments.config.as_deref(), config::environment()) {
        Ok(loaded) => loaded,
        Err(complaints) => return refuse(&complaints, Exit::Config),
    };
    let logs = match daemon::logs::init(&loaded.config.log) {
        Ok(logs) => logs,
        Err(error) => return refuse(&error, Exit::Config),
    };
    daemon::panics::install();
    fetch::install_tls();
    let signals = match daemon::stop::on_signals() {
        Ok(signals) => signals,
        Err(error) => return refuse(&error, Exit::Failure),
    };
    if let Err(error) = daemon::limits::raise_open_files() {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
    let work = newswire_ingestd::run(loaded.config, Clock::system(), &logs, signals);
    let exit = match actix_rt::System::new().block_on(work) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            for line in error.to_string().lines() {
                tracing::error!("{line}");
            }
            error.exit()
        }
    };
    // Not by returning: that would wait for threads of libc's resolver, which nobody can cancel.
    std::process::exit(i32::from(exit.code()))
}

/// Before there is a log.
#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn refuse(error: &dyn std::error::Error, exit: Exit) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("newswire-ingestd: {line}");
    }
    exit.into()
}
