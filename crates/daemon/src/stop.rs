//! Signals, handled on a separate thread, so that one more Ctrl-C ends the process even if every other thread is stuck.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::Poll;
use std::time::Duration;

use control::black_box::BlackBoxEvent;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::black_box;
use crate::exit::EX_FAILURE;
use crate::logs;
use crate::watch::{HELPER_BEAT_EVERY, HelperThread, Watch, WatchKind};

/// Requests to stop or reload, from signals.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Cancelled by the first SIGTERM or SIGINT.
    pub stop: CancellationToken,
    /// Cancelled by the second one, in a program that [`on_signals`] watches for.
    pub abort: CancellationToken,
    /// The number of SIGHUPs. Several that arrive during one reload cause one more.
    pub reload: watch::Receiver<u64>,
}

/// Runs on the signal thread each time a signal arrives.
type SignalAction = Box<dyn Fn() + Send>;

/// Actions for the other signals. Each runs on the signal thread, so it works while all other threads are stuck; it must
/// not block.
pub struct OperatorRequests {
    /// SIGQUIT.
    pub quit: SignalAction,
    /// SIGUSR1.
    pub usr1: SignalAction,
    /// SIGUSR2.
    pub usr2: SignalAction,
    /// Where the thread is watched.
    pub watch: Watch,
}

impl fmt::Debug for OperatorRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorRequests").finish_non_exhaustive()
    }
}

/// How long the end at once waits for lines that are logged already, if the output of the log takes lines.
const LAST_LINES_MAX: Duration = Duration::from_millis(100);

/// Two SIGTERM or SIGINT within this time are one order: a wrapper such as `timeout` sends them to the process and again to
/// its group.
const SAME_ORDER: Duration = Duration::from_millis(250);

/// Handles SIGTERM, SIGINT and SIGHUP from now on. After the orders to stop and to abort, the next SIGTERM or SIGINT ends
/// the process at once with 1 and without a log line, because the log may be what is stuck.
///
/// A parent that forwards signals must give its children their own process group: a terminal sends Ctrl-C to the
/// whole group, and the forwarded one would be the second.
///
/// # Errors
/// If the thread cannot be started or a signal handler cannot be installed.
pub fn on_signals() -> io::Result<Signals> {
    start(Vec::new(), CancellationToken::new(), None)
}

/// The same without the order to abort: the second SIGTERM or SIGINT ends the process. Also runs the actions of `requests`
/// on SIGQUIT, SIGUSR1 and SIGUSR2; the process continues.
///
/// # Errors
/// As [`on_signals`].
pub fn on_signals_with(requests: OperatorRequests) -> io::Result<Signals> {
    let actions = vec![
        (SignalKind::quit(), requests.quit),
        (SignalKind::user_defined1(), requests.usr1),
        (SignalKind::user_defined2(), requests.usr2),
    ];
    let abort = CancellationToken::new();
    abort.cancel();
    start(actions, abort, Some(requests.watch))
}

/// `abort` is cancelled already if there is no such order.
fn start(
    actions: Vec<(SignalKind, SignalAction)>,
    abort: CancellationToken,
    watch: Option<Watch>,
) -> io::Result<Signals> {
    let stop = CancellationToken::new();
    let (reloads, reload) = watch::channel(0);
    let (installed, ready) = sync_channel(1);
    let mut orders = StopOrders { tokens: [stop.clone(), abort.clone()], last: None };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let watched = watch.map(|watch| watch.helper_thread("signals", WatchKind::Signals));
        handle_signals(&mut orders, &reloads, &actions, &installed, watched.as_ref());
    })?;
    ready.recv().map_err(|_| io::Error::other("the signal thread ended"))??;
    Ok(Signals { stop, abort, reload })
}

fn handle_signals(
    orders: &mut StopOrders,
    reloads: &watch::Sender<u64>,
    actions: &[(SignalKind, SignalAction)],
    installed: &SyncSender<io::Result<()>>,
    watched: Option<&HelperThread>,
) {
    let result = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        runtime.block_on(async {
            let mut term = signal(SignalKind::terminate())?;
            let mut int = signal(SignalKind::interrupt())?;
            let mut hangup = signal(SignalKind::hangup())?;
            let others = actions.iter().map(|(kind, action)| Ok((signal(*kind)?, action)));
            let mut others = others.collect::<io::Result<Vec<_>>>()?;
            report(installed, Ok(()));
            let mut beats = tokio::time::interval(HELPER_BEAT_EVERY);
            loop {
                tokio::select! {
                    _ = beats.tick(), if watched.is_some() => watched.into_iter().for_each(HelperThread::beat),
                    _ = term.recv() => {
                        arrived("SIGTERM");
                        orders.next();
                    }
                    _ = int.recv() => {
                        arrived("SIGINT");
                        orders.next();
                    }
                    action = next_action(&mut others) => action(),
                    _ = hangup.recv() => {
                        arrived("SIGHUP");
                        reloads.send_modify(|count| *count += 1);
                    }
                }
            }
        })
    });
    report(installed, result);
}

fn arrived(signal: &'static str) {
    black_box::record(BlackBoxEvent::Signal { name: signal.into() });
}

/// The action of the first of these signals that arrives; never completes if there are none.
async fn next_action<'a>(signals: &mut [(Signal, &'a SignalAction)]) -> &'a SignalAction {
    poll_fn(|cx| {
        let ready = signals
            .iter_mut()
            .find_map(|(signal, action)| signal.poll_recv(cx).is_ready().then_some(*action));
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// The orders that SIGTERM and SIGINT stand for, in turn; after them the process ends.
struct StopOrders {
    tokens: [CancellationToken; 2],
    last: Option<Instant>,
}

impl StopOrders {
    fn next(&mut self) {
        if self.last.is_some_and(|last| last.elapsed() < SAME_ORDER) {
            return;
        }
        self.last = Some(Instant::now());
        match self.tokens.iter().find(|order| !order.is_cancelled()) {
            Some(order) => order.cancel(),
            None => {
                logs::flush_unless_blocked(LAST_LINES_MAX);
                std::process::exit(i32::from(EX_FAILURE))
            }
        }
    }
}

fn report(installed: &SyncSender<io::Result<()>>, result: io::Result<()>) {
    // The receiver is gone once the handlers are installed.
    drop(installed.try_send(result));
}
