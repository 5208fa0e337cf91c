//! A daemon's heartbeats and notices, on subjects that no stream stores.
//!
//! A notice follows the events of its visit: it is held back until all events recorded before it are in the stream, and names
//! the newest one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use news::{Cursor, Seq};
use serde_json::value::RawValue;
use tokio::{
    sync::{broadcast, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    connection::NatsConnection,
    notices::{DaemonHeartbeat, DaemonNotice, HEARTBEAT_INTERVAL, NoticeKind},
    outbox::{OutboxCounters, OutboxStatus},
};
use crate::publish::{EventLog, Notice, RecordingPauses, WireHeartbeat};

/// Notices that wait for the events before them. When more do, all are dropped for one that tells gateways to read the list of
/// sources again.
const HELD_MAX: usize = 1024;
/// How long the client may take to accept a message.
const SEND_MAX: Duration = Duration::from_secs(1);

/// What it needs.
pub struct Announcer {
    /// Where it is said.
    pub connection: NatsConnection,
    /// The name of the daemon.
    pub daemon: String,
    /// The log of the daemon.
    pub log: Arc<dyn EventLog>,
    /// The notices.
    pub notices: broadcast::Receiver<Notice>,
    /// How far the outbox has come.
    pub outbox: watch::Receiver<OutboxStatus>,
    /// Why recording is paused.
    pub recording_pauses: RecordingPauses,
    /// Counts what is dropped.
    pub counters: Arc<OutboxCounters>,
}

/// A notice, and the newest event that was recorded before it.
struct HeldNotice {
    head: Seq,
    notice: Notice,
}

impl Announcer {
    /// Announces until the notices end.
    pub async fn run(mut self) {
        let mut heartbeats = interval(HEARTBEAT_INTERVAL);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held = VecDeque::new();
        loop {
            tokio::select! {
                biased;
                _ = heartbeats.tick() => self.send_heartbeat().await,
                notice = self.notices.recv() => match notice {
                    Ok(notice) => self.hold(&mut held, notice),
                    Err(broadcast::error::RecvError::Lagged(dropped)) => self.drop_held(&mut held, dropped),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Ok(()) = self.outbox.changed(), if !held.is_empty() => {}
            }
            self.send_due(&mut held).await;
        }
    }

    fn hold(&self, held: &mut VecDeque<HeldNotice>, notice: Notice) {
        if held.len() >= HELD_MAX {
            return self.drop_held(held, 1);
        }
        held.push_back(HeldNotice { head: self.log.bounds().head, notice });
    }

    /// What was held is dropped, and so many that were not.
    fn drop_held(&self, held: &mut VecDeque<HeldNotice>, more: u64) {
        OutboxCounters::add(&self.counters.notices_dropped, held.len() as u64 + more);
        held.clear();
        held.push_back(HeldNotice { head: self.log.bounds().head, notice: Notice::Catalogue });
    }

    /// Sends those whose events are in the stream.
    async fn send_due(&mut self, held: &mut VecDeque<HeldNotice>) {
        loop {
            let (through, after) = {
                let outbox = self.outbox.borrow_and_update();
                let after = outbox.newest.as_ref().map(|seen| seen.newest.clone());
                (outbox.through, after.filter(|_| outbox.connected))
            };
            let is_due = held.front().is_some_and(|front| front.head <= through);
            if !is_due || !self.connection.is_connected() {
                return;
            }
            let Some(HeldNotice { notice, .. }) = held.pop_front() else { return };
            let (event, data) = match notice {
                Notice::Source(json) => (NoticeKind::Source, json.to_string()),
                Notice::Catalogue => (NoticeKind::Catalogue, "{}".to_owned()),
            };
            // Only what is JSON is sent on.
            let Ok(data) = RawValue::from_string(data) else { continue };
            let notice = DaemonNotice { daemon: self.daemon.clone(), event, after, data };
            self.send(self.connection.names().notices(), notice.to_json()).await;
        }
    }

    /// One that is late says nothing, so none is kept for later.
    async fn send_heartbeat(&self) {
        if !self.connection.is_connected() {
            return;
        }
        let bounds = self.log.bounds();
        let id = |seq| Cursor { epoch: bounds.epoch.clone(), seq };
        let heartbeat = DaemonHeartbeat {
            daemon: self.daemon.clone(),
            published: id(self.outbox.borrow().through),
            heartbeat: WireHeartbeat {
                head: Some(id(bounds.head)),
                oldest: id(bounds.oldest),
                recording_paused: (self.recording_pauses)(),
            },
        };
        let json = serde_json::to_vec(&heartbeat).expect("a heartbeat has a JSON form");
        self.send(self.connection.names().heartbeats(), json).await;
    }

    async fn send(&self, subject: String, json: Vec<u8>) {
        // What is lost is not sent again: heartbeats repeat, and gateways read the list of sources anew.
        timeout(SEND_MAX, self.connection.client().publish(subject, json.into())).await.ok();
    }
}
