//! `GET /health`, `/ready`, `/metrics`: the process itself.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, Responder, http::header, web};
use daemon::metrics::MetricsFormat;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    http::{page_job::PageJob, problem::HttpProblem},
    pages::body::SharedBody,
    readiness::Readiness,
    state::AppState,
};

/// `GET /health`: 200 as long as the process serves, whatever the state of the daemon. The id of the process lets a tool on
/// the same machine prove that the process it examines is the one that answers; another process may hold the port.
pub(super) async fn health(state: web::Data<AppState>) -> impl Responder {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(json!({
        "status": "ok",
        "name": "newswire-gateway",
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_s": state.started.elapsed().as_secs(),
        "clients": state.client_count(),
        "delivered": state.metrics.delivered.get(),
        "lag_events_max": state.metrics.lag_events_max.get(),
    }))
}

/// `GET /ready`: 200 also while nothing new is recorded, because another gateway would have no more to serve.
pub(super) async fn ready(state: web::Data<AppState>) -> impl Responder {
    let Readiness { wire, ring, stalled, silence, reasons, degraded } = Readiness::of(&state);
    let id = |seq| ring.log_bounds.as_ref().map(|b| news::Cursor { epoch: b.epoch.clone(), seq });
    let (oldest, newest) = match &ring.log_bounds {
        Some(bounds) if ring.events > 0 => (id(ring.oldest), id(bounds.head)),
        _ => (None, None),
    };
    let body = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "degraded": degraded,
        "wire": {
            "connected": wire.connected,
            "heartbeat_age_ms": silence.map(|s| u64::try_from(s.as_millis()).unwrap_or(u64::MAX)),
            "head": newest,
        },
        "ring": { "events": ring.events, "bytes": ring.bytes, "oldest": oldest, "newest": newest },
        "draining": state.is_draining(),
        "loops": stalled,
    });
    let mut response =
        if reasons.is_empty() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header((header::CACHE_CONTROL, "no-store")).json(body)
}

/// `GET /metrics`: the gateway's own, and the daemon's as last read. Simultaneous requests share a text, and few
/// texts are made per second: nothing is reserved for them, so that clients which do not read cannot refuse a scrape.
pub(super) async fn metrics(
    request: HttpRequest,
    state: web::Data<AppState>,
) -> Result<HttpResponse, HttpProblem> {
    let job = PageJob::of(&request, &state);
    let shared = Arc::clone(&state);
    let requested = Instant::now();
    let format = MetricsFormat::negotiated(request.headers());
    let text = async move {
        let make = || format.of_openmetrics(metrics_text(&shared));
        shared.metrics_texts.get(format, requested, make).await
    };
    let text = job.run(text).await?;
    Ok(HttpResponse::Ok()
        .content_type(format.content_type())
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::VARY, "Accept"))
        .body(SharedBody::from(text)))
}

fn metrics_text(state: &AppState) -> String {
    let own = state.registry.encode();
    let daemon = state.daemon_metrics.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    daemon::metrics::join([own.as_str(), daemon.as_str()])
}
