//! Stop and reload signals, watched by a thread of its own, so that a second Ctrl-C ends a process whose every other
//! thread is stuck.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::signal::unix::{Signal, SignalKind, signal};
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

type Quit = Box<dyn Fn() + Send>;

/// Watches SIGTERM, SIGINT and SIGHUP from now on. The second SIGTERM or SIGINT ends the process at once with 1 and
/// without a word, because the log may be what is stuck.
///
/// A parent that forwards signals must give its children a process group of their own: a terminal sends Ctrl-C to the
/// whole group, and the forwarded one would be the second.
///
/// # Errors
/// When the system gives no thread or no signal handler.
pub fn on_signals() -> io::Result<Signals> {
    start(None)
}

/// The same, and at each SIGQUIT `quit` is called on the thread that watches, so it works while all others are stuck.
/// The process goes on.
///
/// # Errors
/// As [`on_signals`].
pub fn on_signals_and_quit(quit: impl Fn() + Send + 'static) -> io::Result<Signals> {
    start(Some(Box::new(quit)))
}

fn start(quit: Option<Quit>) -> io::Result<Signals> {
    let stop = CancellationToken::new();
    let (reloads, reload) = watch::channel(0);
    let (installed, ready) = sync_channel(1);
    let token = stop.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || watch(&token, &reloads, quit.as_ref(), &installed))?;
    ready.recv().map_err(|_| io::Error::other("the thread that watches signals ended"))??;
    Ok(Signals { stop, reload })
}

fn watch(
    stop: &CancellationToken,
    reloads: &watch::Sender<u64>,
    quit: Option<&Quit>,
    installed: &SyncSender<io::Result<()>>,
) {
    let result = tokio::runtime::Builder::new_current_thread().enable_io().build().and_then(|runtime| {
        runtime.block_on(async {
            let mut term = signal(SignalKind::terminate())?;
            let mut int = signal(SignalKind::interrupt())?;
            let mut hangup = signal(SignalKind::hangup())?;
            let mut quits = quit.map(|_| signal(SignalKind::quit())).transpose()?;
            report(installed, Ok(()));
            loop {
                tokio::select! {
                    _ = term.recv() => stop_or_exit(stop),
                    _ = int.recv() => stop_or_exit(stop),
                    () = told(&mut quits) => {
                        if let Some(quit) = quit {
                            quit();
                        }
                    }
                    _ = hangup.recv() => reloads.send_modify(|count| *count += 1),
                }
            }
        })
    });
    report(installed, result);
}

/// Never, where nobody wants to know.
async fn told(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => signal.recv().await.unwrap_or_default(),
        None => std::future::pending().await,
    }
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
