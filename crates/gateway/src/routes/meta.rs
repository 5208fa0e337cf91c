//! What is asked about the process itself. `/health` never asks anybody else.

use std::time::Duration;

use actix_web::{HttpResponse, Responder, http::header, web};
use daemon::watch::StalledLoop;
use serde_json::json;
use tokio::time::Instant;

use super::Shared;
use crate::{
    hub::{Hub, LinkState},
    ring,
};

/// The wire beats every two seconds; after this much silence the daemon counts as stopped.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// `GET /health`
pub(super) async fn health(shared: web::Data<Shared>) -> impl Responder {
    let hub = &shared.hub;
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(json!({
        "status": "ok",
        "name": "newswire-gateway",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": hub.started.elapsed().as_secs(),
        "clients": hub.client_count(),
        "delivered": hub.numbers.delivered.get(),
        "lag_events_max": hub.numbers.lag_events_max.get(),
    }))
}

/// Whether clients are served as they should be.
pub(crate) struct Readiness {
    link: LinkState,
    pub(crate) ring: ring::State,
    loops: Vec<StalledLoop>,
    /// Since the daemon was heard of.
    pub(crate) silence: Option<Duration>,
    /// Why it is not ready, in words.
    pub(crate) reasons: Vec<String>,
}

impl Readiness {
    pub(crate) fn of(hub: &Hub) -> Self {
        let (link, ring, loops) = (hub.link.get(), hub.ring.state(), hub.watch.stalled());
        let silence = link.heard.map(|heard| Instant::now().duration_since(heard));
        let mut reasons = Vec::new();
        if !link.connected {
            let why = if link.reason.is_empty() { "not connected yet" } else { link.reason.as_str() };
            reasons.push(format!("the wire is not connected: {why}"));
        } else if let Some(silence) = silence.filter(|s| *s > SILENCE_MAX) {
            reasons.push(format!("the ingestion daemon has been silent for {} s", silence.as_secs()));
        }
        if !ring.filled {
            reasons.push("the ring is not filled yet".to_owned());
        }
        if hub.is_draining() {
            reasons.push("draining".to_owned());
        }
        reasons.extend(loops.iter().map(StalledLoop::sentence));
        Self { link, ring, loops, silence, reasons }
    }
}

/// `GET /ready`
pub(super) async fn ready(shared: web::Data<Shared>) -> impl Responder {
    let hub = &shared.hub;
    let Readiness { link, ring, loops, silence, reasons } = Readiness::of(hub);
    let id = |seq| ring.standing.as_ref().map(|s| news::Cursor { epoch: s.epoch.clone(), seq });
    let (oldest, newest) = match &ring.standing {
        Some(standing) if ring.events > 0 => (id(ring.oldest), id(standing.head)),
        _ => (None, None),
    };
    let body = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "wire": {
            "connected": link.connected,
            "heartbeat_age_ms": silence.map(|s| u64::try_from(s.as_millis()).unwrap_or(u64::MAX)),
            "head": newest,
        },
        "ring": { "events": ring.events, "bytes": ring.bytes, "oldest": oldest, "newest": newest },
        "draining": hub.is_draining(),
        "loops": loops,
    });
    let mut response =
        if reasons.is_empty() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header((header::CACHE_CONTROL, "no-store")).json(body)
}

/// `GET /metrics`: our own, and the daemon's as they last came.
pub(super) async fn metrics(shared: web::Data<Shared>) -> impl Responder {
    let own = shared.hub.metrics.encode();
    let daemon = shared.hub.daemon_metrics.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    HttpResponse::Ok()
        .content_type(daemon::metrics::CONTENT_TYPE)
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(daemon::metrics::join([own.as_str(), daemon.as_str()]))
}

/// `GET /openapi.json`
pub(super) async fn openapi() -> impl Responder {
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(include_str!("../openapi.json"))
}
