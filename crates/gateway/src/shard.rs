//! The clients of one worker: who is woken when the bell rings, whose heartbeat is due, whose turn it is to leave.
//!
//! One bell, one timer and one list a worker, whatever the number of clients; nothing in here is shared between
//! threads.

use std::{cell::RefCell, rc::Rc, sync::Arc, task::Waker, time::Duration};

use daemon::watch::WatchKind;
use news::Seq;
use slab::Slab;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    connection::Connection,
    hub::{Hub, Settings},
    readers::Reader,
};

/// How finely heartbeats and departures are timed.
const TICK: Duration = Duration::from_millis(100);
/// How long a client may take to hear that it is its turn to leave.
const FAREWELL: Duration = Duration::from_millis(300);

/// How long a client whose token has expired may take to hear that; a thousand may do so at once.
const EXPIRY_GRACE: Duration = Duration::from_secs(5);

/// Slower than this, a client that is behind falls behind for ever.
const EVENTS_A_SECOND_MIN: f64 = 5.0;

/// The clients of one worker.
pub(crate) struct Shard {
    pub(crate) hub: Arc<Hub>,
    /// Its place among [`Hub::lags`].
    number: usize,
    slots: RefCell<Slab<Slot>>,
    /// What held at the last look round.
    settings: RefCell<Arc<Settings>>,
}

struct Slot {
    waker: Option<Waker>,
    /// When something was last written.
    written: Instant,
    /// A heartbeat is due.
    beat: bool,
    /// Woken by us, and not polled since.
    woken: bool,
    /// When it leaves, once we drain.
    leaves: Option<Instant>,
    /// When its reader's token expires.
    until: Option<Instant>,
    /// Who it is, for when other readers are let in than before.
    reader: Box<Reader>,
    connection: Rc<Connection>,
    /// Where the client stands.
    cursor: Seq,
    pace: Pace,
}

/// How fast a client takes what it has not had. actix does not poll a client whose buffer is full, so what counts is
/// whether it ever had everything.
struct Pace {
    /// The end of this window.
    until: Instant,
    /// Where the client stood at its beginning.
    from: Seq,
    /// It has everything and waits.
    rests: bool,
    /// It had everything at some time in this window.
    rested: bool,
    /// The window before was too slow.
    was_slow: bool,
}

/// Why a client is polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    /// We woke it.
    pub(crate) woken: bool,
    /// Its heartbeat is due.
    pub(crate) beat: bool,
    /// It is its turn to leave.
    pub(crate) leave: bool,
    /// Its token has expired.
    pub(crate) expired: bool,
}

impl Shard {
    /// Makes the shard of this worker and starts its timer; call it on the worker's thread.
    pub(crate) fn start(hub: Arc<Hub>) -> Rc<Self> {
        let number = hub.lags.enter();
        hub.watch.event_loop(&format!("worker-{number}"), WatchKind::Worker);
        let settings = RefCell::new(hub.settings());
        let shard = Rc::new(Self { number, hub, slots: RefCell::default(), settings });
        actix_web::rt::spawn(Rc::clone(&shard).attend());
        #[cfg(feature = "drill")]
        crate::drill::attend_worker();
        shard
    }

    async fn attend(self: Rc<Self>) {
        let mut bell = self.hub.hear_the_bell();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                rung = bell.changed() => match rung {
                    Ok(()) => self.wake_all(),
                    Err(_) => return,
                },
                _ = tick.tick() => self.look_round(),
            }
        }
    }

    fn wake_all(&self) {
        for (_, slot) in &mut *self.slots.borrow_mut() {
            slot.wake();
        }
    }

    /// After a reload: whoever would not be let in any more, or would see something else, hears that its token is at
    /// its end.
    fn heed(&self, settings: &Arc<Settings>, now: Instant) {
        if Arc::ptr_eq(settings, &self.settings.borrow()) {
            return;
        }
        self.settings.replace(Arc::clone(settings));
        for (_, slot) in &mut *self.slots.borrow_mut() {
            if slot.until.is_none_or(|until| until > now) && !settings.readers.still_admit(&slot.reader) {
                slot.until = Some(now);
            }
        }
    }

    fn look_round(&self) {
        let now = Instant::now();
        let draining = self.hub.is_draining();
        let settings = self.hub.settings();
        self.heed(&settings, now);
        let measured = settings.limits.pace;
        let window = if draining { self.hub.drain_window() } else { Duration::ZERO };
        let numbers = &self.hub.numbers;
        let head = Seq(u64::try_from(numbers.head.get()).unwrap_or_default());
        let mut slowest = 0;
        for (_, slot) in &mut *self.slots.borrow_mut() {
            if draining {
                let leaves = *slot.leaves.get_or_insert_with(|| now + window.mul_f64(fastrand::f64()));
                if leaves + FAREWELL <= now {
                    // It does not read, and would hold us up.
                    slot.connection.cut("drain");
                } else if leaves <= now {
                    slot.wake();
                }
            }
            if slot.until.is_some_and(|until| until <= now) {
                slot.expire(now);
            }
            if now.duration_since(slot.written) >= settings.heartbeat && !slot.beat {
                slot.beat = true;
                slot.wake();
            }
            if slot.pace.until <= now && slot.pace.is_too_slow(slot.cursor, now, measured) {
                slot.connection.cut("slow");
                numbers.ended.get_or_create(&[("reason", "slow")]).inc();
            }
            slowest = slowest.max(slot.lag(head));
        }
        let clients = i64::try_from(self.slots.borrow().len()).unwrap_or(i64::MAX);
        numbers.worker_clients.get_or_create(&[("worker", self.number)]).set(clients);
        let lag = self.hub.lags.put(self.number, slowest);
        numbers.lag_events_max.set(i64::try_from(lag).unwrap_or(i64::MAX));
    }

    /// A place in the list.
    pub(crate) fn enter(&self, connection: Rc<Connection>, reader: Reader) -> usize {
        let now = Instant::now();
        let until = reader.until.map(|until| now + until.since(self.hub.now()));
        let slot = Slot {
            waker: None,
            written: now,
            beat: false,
            woken: true,
            leaves: None,
            until,
            reader: Box::new(reader),
            connection,
            cursor: Seq::NONE,
            pace: Pace::new(now + self.hub.settings().limits.pace),
        };
        self.slots.borrow_mut().insert(slot)
    }

    pub(crate) fn leave(&self, key: usize) {
        self.slots.borrow_mut().try_remove(key);
    }

    /// Why the client is polled now.
    pub(crate) fn call(&self, key: usize) -> Call {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[key];
        let leave = slot.leaves.is_some_and(|leaves| leaves <= Instant::now());
        let expired = slot.until.is_some_and(|until| until <= Instant::now());
        Call { woken: std::mem::take(&mut slot.woken), beat: slot.beat, leave, expired }
    }

    /// Something was written to the client.
    pub(crate) fn wrote(&self, key: usize, cursor: Seq) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[key];
        slot.written = Instant::now();
        slot.beat = false;
        slot.cursor = cursor;
        slot.pace.rests = false;
        // Polled again for what may be left, which is no spinning.
        slot.woken = true;
    }

    /// The client has everything and waits; its filter may have left out what moved its cursor.
    pub(crate) fn rest(&self, key: usize, cursor: Seq) {
        let slot = &mut self.slots.borrow_mut()[key];
        slot.cursor = cursor;
        (slot.pace.rests, slot.pace.rested) = (true, true);
    }

    /// Whom to wake.
    pub(crate) fn listen(&self, key: usize, waker: &Waker) {
        let mut slots = self.slots.borrow_mut();
        match &mut slots[key].waker {
            Some(old) => old.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }
}

impl Slot {
    /// Has the client told, or ends it if it does not listen.
    fn expire(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until + EXPIRY_GRACE <= now) {
            self.connection.cut("expired");
        } else {
            self.wake();
        }
    }

    /// Events that it has not had; none before it has a place.
    fn lag(&self, head: Seq) -> u64 {
        if self.cursor == Seq::NONE { 0 } else { head.0.saturating_sub(self.cursor.0) }
    }

    fn wake(&mut self) {
        self.woken = true;
        self.pace.rests = false;
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl Pace {
    fn new(until: Instant) -> Self {
        Self { until, from: Seq::NONE, rests: false, rested: true, was_slow: false }
    }

    /// Ends a window; tells whether it and the one before were too slow.
    fn is_too_slow(&mut self, cursor: Seq, now: Instant, window: Duration) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "nobody takes 2^52 events in a window")]
        let events = cursor.0.saturating_sub(self.from.0) as f64;
        let slow = !self.rests && !self.rested && events < EVENTS_A_SECOND_MIN * window.as_secs_f64();
        let before = std::mem::replace(&mut self.was_slow, slow);
        (self.until, self.from, self.rested) = (now + window, cursor, self.rests);
        slow && before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    /// What each window says of a client that takes so many events in it, and never has everything.
    fn judge(taken: &[u64]) -> Vec<bool> {
        let now = Instant::now();
        let mut pace = Pace { rested: false, ..Pace::new(now) };
        let mut cursor = Seq::NONE;
        let window = |n: &u64| {
            cursor = Seq(cursor.0 + n);
            pace.is_too_slow(cursor, now, WINDOW)
        };
        taken.iter().map(window).collect()
    }

    #[test]
    fn two_slow_windows_in_a_row_are_too_slow() {
        assert_eq!(judge(&[149, 149]), [false, true]);
        assert_eq!(judge(&[0, 150, 0, 150]), [false; 4]);
        assert_eq!(judge(&[1000, 0, 0]), [false, false, true]);
    }

    #[test]
    fn a_client_that_had_everything_is_never_too_slow() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..3 {
            pace.rests = true;
            assert!(!pace.is_too_slow(Seq(1), now, WINDOW), "nothing comes, and it waits");
        }
        pace.rests = false;
        assert!(!pace.is_too_slow(Seq(1), now, WINDOW), "it waited when the window began");
        assert!(!pace.is_too_slow(Seq(1), now, WINDOW), "one window is not enough");
        assert!(pace.is_too_slow(Seq(1), now, WINDOW));
    }
}
