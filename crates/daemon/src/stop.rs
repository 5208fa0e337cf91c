//! Stop and reload signals, watched by a thread of its own, so that a second Ctrl-C ends a process whose every other
//! thread is stuck.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::Poll;

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

/// What is done on the thread that watches, at each signal of a kind.
type Deed = Box<dyn Fn() + Send>;

/// What an operator may ask of a daemon besides; each is done on the thread that watches signals, so it works while all
/// others are stuck, and must itself not wait for anything.
pub struct OperatorRequests {
    /// SIGQUIT.
    pub quit: Deed,
    /// SIGUSR1.
    pub usr1: Deed,
    /// SIGUSR2.
    pub usr2: Deed,
}

impl fmt::Debug for OperatorRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
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
    start(Vec::new())
}

/// The same, and at SIGQUIT, SIGUSR1 and SIGUSR2 what is `asked` is done; the process goes on.
///
/// # Errors
/// As [`on_signals`].
pub fn on_signals_and(asked: OperatorRequests) -> io::Result<Signals> {
    start(vec![
        (SignalKind::quit(), asked.quit),
        (SignalKind::user_defined1(), asked.usr1),
        (SignalKind::user_defined2(), asked.usr2),
    ])
}

fn start(deeds: Vec<(SignalKind, Deed)>) -> io::Result<Signals> {
    let stop = CancellationToken::new();
    let (reloads, reload) = watch::channel(0);
    let (installed, ready) = sync_channel(1);
    let token = stop.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || watch(&token, &reloads, &deeds, &installed))?;
    ready.recv().map_err(|_| io::Error::other("the thread that watches signals ended"))??;
    Ok(Signals { stop, reload })
}

fn watch(
    stop: &CancellationToken,
    reloads: &watch::Sender<u64>,
    deeds: &[(SignalKind, Deed)],
    installed: &SyncSender<io::Result<()>>,
) {
    let result = tokio::runtime::Builder::new_current_thread().enable_io().build().and_then(|runtime| {
        runtime.block_on(async {
            let mut term = signal(SignalKind::terminate())?;
            let mut int = signal(SignalKind::interrupt())?;
            let mut hangup = signal(SignalKind::hangup())?;
            let others = deeds.iter().map(|(kind, deed)| Ok((signal(*kind)?, deed)));
            let mut others = others.collect::<io::Result<Vec<_>>>()?;
            report(installed, Ok(()));
            loop {
                tokio::select! {
                    _ = term.recv() => stop_or_exit(stop),
                    _ = int.recv() => stop_or_exit(stop),
                    deed = told(&mut others) => deed(),
                    _ = hangup.recv() => reloads.send_modify(|count| *count += 1),
                }
            }
        })
    });
    report(installed, result);
}

/// The deed of the first of these signals that arrives; never, where there are none.
async fn told<'d>(signals: &mut [(Signal, &'d Deed)]) -> &'d Deed {
    poll_fn(|cx| {
        let ready =
            signals.iter_mut().find_map(|(signal, deed)| signal.poll_recv(cx).is_ready().then_some(*deed));
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
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
