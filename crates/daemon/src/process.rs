//! Start and end of a daemon: what both of them do before and after their work.

use std::{
    fmt::Write as _,
    io,
    path::Path,
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use control::black_box::BlackBoxEvent;
use stacks::SelfSampler;

use crate::{
    Clock, Exit,
    black_box::{self, BlackBoxEnd, BlackBoxOptions},
    config::{self, Config, Reloader},
    findings::Findings,
    line_queue::{LAST_LINES_MAX, print_last},
    logs::{self, Logs, LogsError},
    parent,
    program::CheckOutput,
    stop::{self, OperatorRequests, Signals},
    watch::{HELPER_BEAT_EVERY, Watch, WatchKind},
};

/// Requests to change the log level that may be pending.
const LEVEL_REQUESTS_MAX: usize = 16;

/// How long the last line may take to be written at the end of a process that is stuck: its log may be stuck as well.
const LAST_LINE_MAX: Duration = Duration::from_millis(500);

/// What every daemon is given at its start.
#[derive(Debug)]
pub struct DaemonContext {
    /// The checked configuration.
    pub config: Config,
    /// Reads the configuration again.
    pub reloader: Reloader,
    /// The system's clock.
    pub clock: Clock,
    /// The running log.
    pub logs: Logs,
    /// Requests to stop or reload.
    pub signals: Signals,
    /// The watchdog, which is not started yet.
    pub watch: Watch,
    /// Samples the stacks of this process; `None` if its signal handler could not be installed.
    pub self_sampler: Option<SelfSampler>,
}

/// Why a daemon ended, unless it received the order to stop.
pub trait ExitReason: std::error::Error {
    /// Its exit code.
    fn exit(&self) -> Exit;

    /// Whether its text was logged when it happened.
    fn is_logged(&self) -> bool {
        false
    }
}

/// Loads the configuration, sets up the log, panic hook, signals and limits, runs `work`, and logs why it failed, one
/// line per complaint.
pub fn run<E: ExitReason>(
    name: &str,
    file: Option<&Path>,
    work: impl FnOnce(DaemonContext) -> Result<(), E>,
) -> ExitCode {
    let loaded = match config::load(file, config::environment()) {
        Ok(loaded) => loaded,
        Err(complaints) => return fail(name, &complaints, Exit::Config),
    };
    let logs = match logs::init(&loaded.config.log) {
        Ok(logs) => logs,
        Err(error @ LogsError::Thread(_)) => return fail(name, &error, Exit::Failure),
        Err(error) => return fail(name, &error, Exit::Config),
    };
    let flush_at_end = FlushAtEnd;
    let watch = Watch::new();
    let black_box_end = start_black_box(name, &loaded.config, &watch);
    crate::panics::install();
    let self_sampler = match SelfSampler::install() {
        Ok(sampler) => Some(sampler),
        Err(error) => {
            tracing::warn!(%error, "stack dumps are unavailable: could not install their signal handler");
            None
        }
    };
    let signals = match operator_requests(&watch, &logs).and_then(stop::on_signals_with) {
        Ok(signals) => signals,
        Err(error) => return fail(name, &error, Exit::Failure),
    };
    if let Err(error) = parent::end_with_parent() {
        return fail(name, &error, Exit::Failure);
    }
    if let Err(error) = crate::limits::raise_open_files() {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
    let config = loaded.config.clone();
    let reloader = Reloader::new(file.map(Path::to_path_buf), loaded);
    let context =
        DaemonContext { config, reloader, clock: Clock::system(), logs, signals, watch, self_sampler };
    let exit = match work(context) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            if !error.is_logged() {
                for line in error.to_string().lines() {
                    tracing::error!("{line}");
                }
            }
            error.exit()
        }
    };
    if let Some(end) = black_box_end {
        end.end(exit.code());
    }
    drop(flush_at_end);
    // Not by returning: that would wait for threads of libc's resolver, which cannot be cancelled.
    std::process::exit(i32::from(exit.code()))
}

/// Writes what has been logged when it is dropped, also by a panic of the main thread.
struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        logs::flush(LAST_LINES_MAX);
    }
}

/// Keeps a record of what the process does from now on, unless the operator wants none.
fn start_black_box(name: &str, config: &Config, watch: &Watch) -> Option<BlackBoxEnd> {
    let bytes = config.daemon.black_box_bytes;
    let path = config.black_box(name);
    let path = std::path::absolute(&path).unwrap_or(path);
    let options = BlackBoxOptions { path, bytes, program: name.to_owned() };
    let watch = watch.clone();
    let begin = move || {
        let watched = watch.helper_thread("black-box", WatchKind::Helper);
        move || watched.beat()
    };
    let started = (bytes > 0).then(|| black_box::install(options, begin))?;
    started
        .inspect_err(|error| tracing::warn!(%error, "there is no black box: could not start its thread"))
        .ok()
}

/// Ends the process after `within` if it has not ended by itself, whatever its threads wait for: with `exit`, with the
/// error line `why`, and without destructors, which may wait for a disk that does not answer. Returns at once.
pub fn end_within(within: Duration, exit: Exit, why: &'static str) {
    #[expect(clippy::disallowed_methods, reason = "on a thread of its own")]
    let end_later = move || {
        thread::sleep(within);
        end_now(exit, why);
    };
    if thread::Builder::new().name("deadline".to_owned()).spawn(end_later).is_err() {
        tracing::error!("cannot start the thread that ends the process in time");
        end_now(exit, why);
    }
}

fn end_now(exit: Exit, why: &'static str) -> ! {
    if let Ok(written) = log_last_line(why) {
        // An error means that the line is written, or that the time is over.
        written.recv_timeout(LAST_LINE_MAX).ok();
    }
    black_box::end_now(exit.code(), why);
    std::process::exit(i32::from(exit.code()))
}

/// Logs on a thread of its own; what it returns is closed once the line is written.
fn log_last_line(line: &'static str) -> io::Result<Receiver<()>> {
    let (is_open, written) = sync_channel(1);
    let log = move || {
        tracing::error!("{line}");
        logs::flush(LAST_LINE_MAX);
        drop(is_open);
    };
    thread::Builder::new().name("last-line".to_owned()).spawn(log)?;
    Ok(written)
}

/// Checks the configuration and the files that it names, and prints what is wrong. Sets up no log, writes nothing and
/// binds no socket.
pub fn check(
    name: &str,
    file: Option<&Path>,
    output: CheckOutput,
    check_files: impl FnOnce(&Config) -> Findings,
) -> ExitCode {
    let findings = match config::load(file, config::environment()) {
        Ok(loaded) => check_files(&loaded.config),
        Err(complaints) => {
            let mut findings = Findings::default();
            findings.complain(&complaints.to_string());
            findings
        }
    };
    findings.print(name, output);
    if findings.complaints.is_empty() { Exit::Ok.into() } else { Exit::Config.into() }
}

/// The actions of SIGQUIT, SIGUSR1 and SIGUSR2. Those that write to the log run on a separate thread: the log may be
/// stuck, and SIGTERM must not wait for it.
fn operator_requests(watch: &Watch, logs: &Logs) -> io::Result<OperatorRequests> {
    let (raise, requests) = sync_channel::<fn(&Logs)>(LEVEL_REQUESTS_MAX);
    let (of_signals, of_levels) = (watch.clone(), watch.clone());
    let (watch, restore, logs) = (watch.clone(), raise.clone(), logs.clone());
    let run = move || {
        let watched = of_levels.helper_thread("log-level", WatchKind::Helper);
        loop {
            watched.beat();
            match requests.recv_timeout(HELPER_BEAT_EVERY) {
                Ok(request) => request(&logs),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    thread::Builder::new().name("log-level".to_owned()).spawn(run)?;
    Ok(OperatorRequests {
        quit: Box::new(move || {
            black_box::record(BlackBoxEvent::Signal { name: "SIGQUIT".into() });
            watch.request_dump();
        }),
        // If the queue is full, one request more or less makes no difference.
        usr1: Box::new(move || raise.try_send(Logs::more_detail).unwrap_or_default()),
        usr2: Box::new(move || restore.try_send(Logs::restore).unwrap_or_default()),
        watch: of_signals,
    })
}

/// Prints to standard error why the daemon cannot start. What has been logged comes first.
fn fail(name: &str, error: &dyn std::error::Error, exit: Exit) -> ExitCode {
    logs::flush(LAST_LINES_MAX);
    let mut text = String::new();
    for line in error.to_string().lines() {
        writeln!(text, "{name}: {line}").expect("a String takes every write");
    }
    print_last(&text);
    exit.into()
}
