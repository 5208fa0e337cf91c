//! How the gateway fares, for `/watch` of the admin socket: asked while any thread may be stuck, so nothing in here waits.

use std::net::SocketAddr;

use daemon::watch::try_briefly;
use news::Cursor;
use serde_json::{Value, json};

use crate::hub::Hub;

/// A part whose lock somebody holds and does not let go is null.
pub(crate) fn vitals(hub: &Hub, listen: SocketAddr, inherited: bool) -> Value {
    let (link, ring) = (try_briefly(|| hub.link.try_get()), try_briefly(|| hub.ring.try_state()));
    let standing = ring.as_ref().and_then(|ring| ring.standing.as_ref());
    let (used, max) = daemon::limits::open_files();
    json!({
        "listen": listen,
        "inherited": inherited,
        "clients": hub.numbers.clients.get(),
        "draining": hub.is_draining(),
        "wire": link.map(|link| json!({
            "connected": link.connected,
            "reason": (!link.connected && !link.reason.is_empty()).then_some(link.reason),
            "heard_ms_ago": link.heard.map(|heard| heard.elapsed().as_millis() as u64),
            "cursor": standing.map(|at| Cursor { epoch: at.epoch.clone(), seq: at.head }),
        })),
        "ring": ring.as_ref().map(|ring| json!({
            "filled": ring.filled,
            "events": ring.events,
            "bytes": ring.bytes,
        })),
        "open_files": { "used": used, "max": max },
    })
}
