//! The first and the last lines of a daemon: what both of ours do before and after their work.

use std::{io, path::Path, process::ExitCode, sync::mpsc::sync_channel};

use stacks::SelfSampler;

use crate::{
    Clock, Exit,
    config::{self, Config, Reloader},
    findings::Findings,
    logs::{self, Logs},
    stop::{self, OperatorRequests, Signals},
    watch::Watch,
};

/// Signals about the level of the log that wait for their turn.
const ORDERS_MAX: usize = 16;

/// What a daemon works with.
#[derive(Debug)]
pub struct Start {
    /// Checked as a whole.
    pub config: Config,
    /// Reads it anew.
    pub reloader: Reloader,
    /// The system's clock.
    pub clock: Clock,
    /// The running log.
    pub logs: Logs,
    /// What the operator asks for.
    pub signals: Signals,
    /// What must make progress; not started yet.
    pub watch: Watch,
    /// How the process looks at its own threads, where the system lets it.
    pub inside: Option<SelfSampler>,
}

/// Why a daemon ended other than as asked.
pub trait ExitReason: std::error::Error {
    /// The number it ends with.
    fn exit(&self) -> Exit;
}

/// Loads the configuration, sets up log, panic hook, signals and limits, does the work, and says on the log why it
/// ended; each complaint is one line.
pub fn run<E: ExitReason>(
    name: &str,
    file: Option<&Path>,
    work: impl FnOnce(Start) -> Result<(), E>,
) -> ExitCode {
    let loaded = match config::load(file, config::environment()) {
        Ok(loaded) => loaded,
        Err(complaints) => return refuse(name, &complaints, Exit::Config),
    };
    let logs = match logs::init(&loaded.config.log) {
        Ok(logs) => logs,
        Err(error) => return refuse(name, &error, Exit::Config),
    };
    crate::panics::install();
    let inside = match SelfSampler::install() {
        Ok(inside) => Some(inside),
        Err(error) => {
            tracing::warn!(%error, "there will be no stacks of threads");
            None
        }
    };
    let watch = Watch::new();
    let signals = match asked(&watch, &logs).and_then(stop::on_signals_and) {
        Ok(signals) => signals,
        Err(error) => return refuse(name, &error, Exit::Failure),
    };
    if let Err(error) = crate::limits::raise_open_files() {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
    let config = loaded.config.clone();
    let reloader = Reloader::new(file.map(Path::to_path_buf), loaded);
    let start = Start { config, reloader, clock: Clock::system(), logs, signals, watch, inside };
    let exit = match work(start) {
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

/// Loads the configuration and says what is wrong with it or with the files that it names: no log is set up, nothing is
/// written and no socket is bound.
pub fn check(name: &str, file: Option<&Path>, look: impl FnOnce(&Config) -> Findings) -> ExitCode {
    let findings = match config::load(file, config::environment()) {
        Ok(loaded) => look(&loaded.config),
        Err(complaints) => return refuse(name, &complaints, Exit::Config),
    };
    findings.print(name);
    if findings.complaints.is_empty() { Exit::Ok.into() } else { Exit::Config.into() }
}

/// What writes to the log has a thread of its own, because the log may be what is stuck, and SIGTERM must not wait.
fn asked(watch: &Watch, logs: &Logs) -> io::Result<OperatorRequests> {
    let (louder, orders) = sync_channel::<fn(&Logs)>(ORDERS_MAX);
    let (dumped, quieter, logs) = (watch.clone(), louder.clone(), logs.clone());
    let obey = move || orders.into_iter().for_each(|order| order(&logs));
    std::thread::Builder::new().name("log-level".to_owned()).spawn(obey)?;
    Ok(OperatorRequests {
        quit: Box::new(move || dumped.dump()),
        // With so many orders waiting, one more is no loss.
        usr1: Box::new(move || louder.try_send(Logs::more_detail).unwrap_or_default()),
        usr2: Box::new(move || quieter.try_send(Logs::restore).unwrap_or_default()),
    })
}

/// Before there is a log.
#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn refuse(name: &str, error: &dyn std::error::Error, exit: Exit) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("{name}: {line}");
    }
    exit.into()
}
