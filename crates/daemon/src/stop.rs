//! Stop and reload signals, watched by a thread of its own, so that a second Ctrl-C ends a process whose every other
//! thread is stuck.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::exit::EX_FAILURE;

/// What the operator asks of the running process.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Cancelled by the first SIGTERM or SIGINT.
    pub stop: CancellationToken,
    /// Counts SIGHUPs. Several that arrive during one reload are one change.
    pub reload: watch::Receiver<u64>,
}

/// Watches SIGTERM, SIGINT and SIGHUP from now on. The second SIGTERM or SIGINT ends the process at once with 1 and
/// without a word, because the log may be what is stuck.
///
/// A parent that forwards signals must give its children a process group of their own: a terminal sends Ctrl-C to the
/// whole group, and the forwarded one would be the second.
///
/// # Errors
/// When the system gives no thread or no signal handler.
pub fn on_signals() -> io::Result<Signals> {
    let stop = CancellationToken::new();
    let (reloads, reload) = watch::channel(0);
    let (installed, ready) = sync_channel(1);
    let token = stop.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || watch(&token, &reloads, &installed))?;
    ready.recv().map_err(|_| io::Error::other("the thread that watches signals ended"))??;
    Ok(Signals { stop, reload })
}

fn watch(stop: &CancellationToken, reloads: &watch::Sender<u64>, installed: &SyncSender<io::Result<()>>) {
    let result = tokio::runtime::Builder::new_current_thread().enable_io().build().and_then(|runtime| {
        runtime.block_on(async {
            let mut term = signal(SignalKind::terminate())?;
            let mut int = signal(SignalKind::interrupt())?;
            let mut hangup = signal(SignalKind::hangup())?;
            report(installed, Ok(()));
            loop {
                tokio::select! {
                    _ = term.recv() => stop_or_exit(stop),
                    _ = int.recv() => stop_or_exit(stop),
                    _ = hangup.recv() => reloads.send_modify(|count| *count += 1),
                }
            }
        })
    });
    report(installed, result);
}

fn stop_or_exit(stop: &CancellationToken) {
    if stop.is_cancelled() {
        std::process::exit(i32::from(EX_FAILURE));
    }
    stop.cancel();
}

fn report(installed: &SyncSender<io::Result<()>>, result: io::Result<()>) {
    // Nobody listens when `on_signals` has its answer already.
    drop(installed.try_send(result));
}
