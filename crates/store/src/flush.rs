//! Brings to the disk what sled has, on a thread of its own, so that no visit waits for it. Durability does not hang on it: what
//! sled has not is in the journal.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{disk_work::DiskPhase, read::SharedLog, table::TableError};

/// Between two flushes, at least. What a start replays is about as long.
const FLUSH_EVERY: Duration = Duration::from_millis(500);

/// The thread that flushes sled.
#[derive(Debug)]
pub(crate) struct Flusher {
    orders: Arc<FlushOrders>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct FlushOrders {
    order: Mutex<FlushOrder>,
    changed: Condvar,
    failure: OnceLock<Arc<TableError>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FlushOrder {
    /// There is nothing to flush.
    #[default]
    Wait,
    Flush,
    Stop,
}

impl Flusher {
    pub(crate) fn start(log: &Arc<SharedLog>) -> io::Result<Self> {
        let orders = Arc::new(FlushOrders::default());
        let (log, given) = (Arc::clone(log), Arc::clone(&orders));
        let thread = thread::Builder::new().name("store-flush".into()).spawn(move || given.run(&log))?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// There is something to flush.
    pub(crate) fn notify(&self) {
        self.orders.set(FlushOrder::Flush);
    }

    /// Why sled could not be flushed; nothing is flushed after that.
    pub(crate) fn failure(&self) -> Option<Arc<TableError>> {
        self.orders.failure.get().cloned()
    }

    /// Ends the thread, and waits for a flush that is under way.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.orders.set(FlushOrder::Stop);
        if let Some(thread) = self.thread.take() {
            // It does not panic: no panic of sled leaves the table.
            thread.join().ok();
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.end();
    }
}

impl FlushOrders {
    fn set(&self, order: FlushOrder) {
        let mut current = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != FlushOrder::Stop && *current != order {
            *current = order;
            self.changed.notify_one();
        }
    }

    fn run(&self, log: &SharedLog) {
        while self.next() == FlushOrder::Flush {
            let flush = || log.table.flush().and_then(|()| Ok(log.identity.renew_if_due()?));
            let flushed = log.journal.disk_work.during(DiskPhase::Sled, flush);
            if let Err(error) = flushed {
                self.failure.set(Arc::new(error)).ok();
                return;
            }
        }
    }

    /// Waits for an order, and then so long that flushes do not follow each other at once.
    fn next(&self) -> FlushOrder {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        while *order == FlushOrder::Wait {
            order = self.changed.wait(order).unwrap_or_else(PoisonError::into_inner);
        }
        if *order == FlushOrder::Flush {
            let waiting =
                self.changed.wait_timeout_while(order, FLUSH_EVERY, |order| *order != FlushOrder::Stop);
            order = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
        let next = *order;
        if next == FlushOrder::Flush {
            *order = FlushOrder::Wait;
        }
        next
    }
}
