//! The clients of one worker: who is woken when the bell rings, whose heartbeat is due, whose turn it is to leave.
//!
//! One bell, one timer and one list a worker, whatever the number of clients; nothing in here is shared between
//! threads.

use std::{cell::RefCell, rc::Rc, sync::Arc, task::Waker, time::Duration};

use slab::Slab;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::hub::Hub;

/// How finely heartbeats and departures are timed.
const TICK: Duration = Duration::from_millis(100);

/// The clients of one worker.
pub(crate) struct Shard {
    pub(crate) hub: Arc<Hub>,
    slots: RefCell<Slab<Slot>>,
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
}

impl Shard {
    /// Makes the shard of this worker and starts its timer; call it on the worker's thread.
    pub(crate) fn start(hub: Arc<Hub>) -> Rc<Self> {
        let shard = Rc::new(Self { hub, slots: RefCell::default() });
        actix_web::rt::spawn(Rc::clone(&shard).attend());
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

    fn look_round(&self) {
        let now = Instant::now();
        let draining = self.hub.is_draining();
        let window = if draining { self.hub.drain_window() } else { Duration::ZERO };
        for (_, slot) in &mut *self.slots.borrow_mut() {
            if draining {
                let leaves = *slot.leaves.get_or_insert_with(|| now + window.mul_f64(fastrand::f64()));
                if leaves <= now {
                    slot.wake();
                }
            }
            if now.duration_since(slot.written) >= self.hub.settings.heartbeat && !slot.beat {
                slot.beat = true;
                slot.wake();
            }
        }
    }

    /// A place in the list.
    pub(crate) fn enter(&self) -> usize {
        let slot = Slot { waker: None, written: Instant::now(), beat: false, woken: true, leaves: None };
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
        Call { woken: std::mem::take(&mut slot.woken), beat: slot.beat, leave }
    }

    /// Something was written to the client.
    pub(crate) fn wrote(&self, key: usize) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[key];
        slot.written = Instant::now();
        slot.beat = false;
        // Polled again for what may be left, which is no spinning.
        slot.woken = true;
    }

    /// The client has everything and waits.
    pub(crate) fn park(&self, key: usize, waker: &Waker) {
        let mut slots = self.slots.borrow_mut();
        match &mut slots[key].waker {
            Some(old) => old.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }
}

impl Slot {
    fn wake(&mut self) {
        self.woken = true;
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
