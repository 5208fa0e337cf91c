//! `POST /news/refresh`: the operator orders visits.

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, Resource, web};
use bytes::Bytes;
use control::orders::ORDER_SOURCES_MAX;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::method::only_post;
use crate::{http::problem::HttpProblem, ingest::refresh::RefreshError, state::AppState};

/// Largest body.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// `{"sources":["bbc"]}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshOrder {
    sources: Vec<String>,
}

pub(super) fn resource() -> Resource {
    web::resource("/news/refresh").route(web::post().to(order)).default_service(web::to(only_post))
}

async fn order(
    request: HttpRequest,
    state: web::Data<AppState>,
    body: web::Payload,
) -> Result<HttpResponse, HttpProblem> {
    let limits = state.settings().limits;
    // Before the body is read: only the operator may send one.
    state.settings().operator_token.check(request.headers())?;
    let body =
        timeout(limits.body, read_body(&request, body)).await.map_err(|_| HttpProblem::slow_body())??;
    timeout(limits.handler, forward(&state, &body)).await.map_err(|_| HttpProblem::slow_answer())?
}

/// The whole body, if its type is that of an order.
async fn read_body(request: &HttpRequest, body: web::Payload) -> Result<Bytes, HttpProblem> {
    // A page of another origin can send some other types without a preflight request.
    if !request.content_type().eq_ignore_ascii_case("application/json") {
        let expected = "expected application/json; send the header `Content-Type: application/json`";
        return Err(HttpProblem::bad_parameter("content-type", expected));
    }
    let body = body.to_bytes_limited(BODY_BYTES_MAX).await.map_err(|_| HttpProblem::large_body())?;
    body.map_err(|_| not_an_order())
}

fn not_an_order() -> HttpProblem {
    HttpProblem::bad_parameter("body", "expected JSON such as {\"sources\":[\"bbc\"]}")
}

async fn forward(state: &AppState, body: &[u8]) -> Result<HttpResponse, HttpProblem> {
    let RefreshOrder { sources } = serde_json::from_slice(body).map_err(|_| not_an_order())?;
    if sources.is_empty() || sources.len() > ORDER_SOURCES_MAX {
        return Err(HttpProblem::bad_parameter("sources", "expected 1 to 1000 ids"));
    }
    let ordered = state.refreshes.order(sources).await;
    let result = match &ordered {
        Ok(_) => "accepted",
        Err(RefreshError::Busy) => "busy",
        Err(RefreshError::NoDaemon(_)) => "no_daemon",
    };
    state.metrics.refreshes.get_or_create(&[("result", result)]).inc();
    let accepted = ordered.map_err(|error| match error {
        RefreshError::Busy => HttpProblem::busy(),
        RefreshError::NoDaemon(why) => HttpProblem::no_daemon(why),
    })?;
    let categories = state.sources.categories(&accepted.accepted);
    let refresh = state.refreshes.track(&accepted.accepted, categories);
    tracing::info!(refresh, sources = accepted.accepted.len(), "ordered a refresh");
    Ok(HttpResponse::Accepted().json(json!({
        "refresh": refresh, "total": accepted.accepted.len(), "unknown": accepted.unknown,
    })))
}
