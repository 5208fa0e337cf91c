//! `POST /news/refresh`: the operator orders visits.

use actix_web::{HttpRequest, HttpResponse, Resource, ResponseError as _, web};
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use crate::{problem::Problem, refresh::NoAnswer};

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
    let json = web::JsonConfig::default().limit(BODY_BYTES_MAX).error_handler(|_, _| {
        Problem::bad_parameter("body", "JSON such as {\"sources\":[\"bbc\"]} is wanted").into()
    });
    web::resource("/news/refresh")
        .app_data(json)
        .route(web::post().to(order))
        .default_service(web::to(other_method))
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
    order: web::Json<Order>,
) -> Result<HttpResponse, Problem> {
    let hub = &shared.hub;
    hub.settings.operator.check(&request)?;
    let sources = order.into_inner().sources;
    if sources.is_empty() || sources.len() > SOURCES_MAX {
        return Err(Problem::bad_parameter("sources", "1 to 1000 ids are wanted"));
    }
    let accepted = hub.refreshes.order(sources).await.map_err(|no| match no {
        NoAnswer::Busy => Problem::busy(),
        NoAnswer::Daemon(error) => {
            tracing::warn!(error, "could not pass an order on");
            Problem::no_daemon()
        }
    })?;
    let refresh = hub.refreshes.follow(&accepted.accepted);
    tracing::info!(refresh, sources = accepted.accepted.len(), "refresh ordered");
    Ok(HttpResponse::Accepted().json(json!({
        "refresh": refresh, "total": accepted.accepted.len(), "unknown": accepted.unknown,
    })))
}
