//! What the gateway reports about itself in `/watch` of the admin socket. It is read while any thread may be stuck, so
//! nothing in here waits for a lock.

use std::net::SocketAddr;

use daemon::watch::try_briefly;
use news::Cursor;
use serde_json::{Value, json};

use crate::state::AppState;

/// A part whose lock is held all the time is null.
pub(crate) fn diagnostics(state: &AppState, listen: SocketAddr, inherited: bool) -> Value {
    let (wire, ring) = (try_briefly(|| state.wire.try_get()), try_briefly(|| state.ring.try_state()));
    let bounds = ring.as_ref().and_then(|ring| ring.log_bounds.as_ref());
    let (used, max) = daemon::limits::open_files();
    json!({
        "listen": listen,
        "inherited": inherited,
        "clients": state.metrics.clients.get(),
        "draining": state.is_draining(),
        "wire": wire.map(|wire| json!({
            "connected": wire.connected,
            "reason": (!wire.connected && !wire.reason.is_empty()).then_some(wire.reason),
            "heard_ms_ago": wire.last_received.map(|received| received.elapsed().as_millis() as u64),
            "cursor": bounds.map(|bounds| Cursor { epoch: bounds.epoch.clone(), seq: bounds.head }),
        })),
        "ring": ring.as_ref().map(|ring| json!({
            "filled": ring.filled,
            "events": ring.events,
            "bytes": ring.bytes,
        })),
        "open_files": { "used": used, "max": max },
    })
}
