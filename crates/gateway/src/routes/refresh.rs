//! `POST /news/refresh`: the operator orders visits.

use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, Resource, ResponseError as _, web};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::Shared;
use crate::{hub::Hub, problem::Problem, refresh::NoAnswer};

/// Sources in one order.
const SOURCES_MAX: usize = 1000;
/// Largest body.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// `{"sources":["bbc"]}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    sources: Vec<String>,
}

pub(super) fn resource() -> Resource {
    web::resource("/news/refresh").route(web::post().to(order)).default_service(web::to(other_method))
}

async fn other_method() -> HttpResponse {
    let mut response = Problem::method_post().error_response();
    let allow = actix_web::http::header::HeaderValue::from_static("POST, OPTIONS");
    response.headers_mut().insert(actix_web::http::header::ALLOW, allow);
    response
}

async fn order(
    request: HttpRequest,
    shared: web::Data<Shared>,
    body: web::Payload,
) -> Result<HttpResponse, Problem> {
    let hub = &shared.hub;
    let limits = hub.settings().limits;
    // Before the body: whoever is not the operator has none to send.
    hub.settings().operator.check(&request)?;
    let body = timeout(limits.body, read(&request, body)).await.map_err(|_| Problem::slow_body())??;
    timeout(limits.handler, pass_on(hub, &body)).await.map_err(|_| Problem::slow_answer())?
}

/// The whole body, if it may be an order.
async fn read(request: &HttpRequest, body: web::Payload) -> Result<Bytes, Problem> {
    // A page of another origin can send any other type without asking first.
    if !request.content_type().eq_ignore_ascii_case("application/json") {
        return Err(no_order());
    }
    let body = body.to_bytes_limited(BODY_BYTES_MAX).await.map_err(|_| Problem::large_body())?;
    body.map_err(|_| no_order())
}

fn no_order() -> Problem {
    Problem::bad_parameter("body", "JSON such as {\"sources\":[\"bbc\"]} is wanted")
}

async fn pass_on(hub: &Hub, body: &[u8]) -> Result<HttpResponse, Problem> {
    let Order { sources } = serde_json::from_slice(body).map_err(|_| no_order())?;
    if sources.is_empty() || sources.len() > SOURCES_MAX {
        return Err(Problem::bad_parameter("sources", "1 to 1000 ids are wanted"));
    }
    let ordered = hub.refreshes.order(sources).await;
    let result = match &ordered {
        Ok(_) => "accepted",
        Err(NoAnswer::Busy) => "busy",
        Err(NoAnswer::Daemon(_)) => "no_daemon",
    };
    hub.numbers.refreshes.get_or_create(&[("result", result)]).inc();
    let accepted = ordered.map_err(|no| match no {
        NoAnswer::Busy => Problem::busy(),
        NoAnswer::Daemon(error) => {
            tracing::warn!(error, "could not pass an order on");
            Problem::no_daemon()
        }
    })?;
    let categories = hub.sources.categories(&accepted.accepted);
    let refresh = hub.refreshes.follow(&accepted.accepted, categories);
    tracing::info!(refresh, sources = accepted.accepted.len(), "ordered a refresh");
    Ok(HttpResponse::Accepted().json(json!({
        "refresh": refresh, "total": accepted.accepted.len(), "unknown": accepted.unknown,
    })))
}
