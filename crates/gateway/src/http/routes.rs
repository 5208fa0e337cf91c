//! Step 14 of the life of an item: onto the client's socket. The routes; no handler waits without a deadline.

// `GET /news/stream`: the stream.
pub(super) mod stream;

// `GET /news`, `/news/{id}`: events in pages.
mod news;

// `GET /sources`, `/categories`: the sources and their health.
mod sources;

// `GET /`, `/assets/{name}`, `/openapi.json`: the built-in page and its like.
mod page;

// `GET /health`, `/ready`, `/metrics`: the process itself.
mod health;

// `POST /news/refresh`: orders of the operator.
mod refresh;

// `/websub/{id}`: requests of hubs.
mod websub;

// Which methods a route allows.
mod method;

use actix_web::{ResponseError as _, http::Method, web};

use super::problem::HttpProblem;

/// All routes.
pub(super) fn configure(app: &mut web::ServiceConfig) {
    app.service(stream::resource())
        .service(method::read("/", page::index))
        .service(method::read("/assets/{name}", page::asset))
        .service(method::read("/health", health::health))
        .service(method::read("/ready", health::ready))
        .service(method::read("/metrics", health::metrics))
        .service(method::read("/openapi.json", page::openapi))
        .service(method::read("/news", news::list))
        .service(refresh::resource())
        .service(method::read("/news/{id}", news::one))
        .service(method::read("/sources", sources::list))
        .service(method::read("/sources/{id}", sources::one))
        .service(method::read("/categories", sources::categories))
        .service(websub::resource())
        .default_service(web::to(|| async {
            HttpProblem::not_found("there is no such route").error_response()
        }));
}

/// What a worker does, as the watchdog shows it: a route, and no text of a client.
pub(super) fn label(method: &Method, path: &str) -> &'static str {
    let reads = method == Method::GET || method == Method::HEAD;
    match path {
        "/news/refresh" => "POST /news/refresh",
        path if path.starts_with("/websub/") => "a hub's request",
        _ if !reads => "a refusal",
        "/" => "GET /",
        "/health" => "GET /health",
        "/ready" => "GET /ready",
        "/metrics" => "GET /metrics",
        "/openapi.json" => "GET /openapi.json",
        "/news" => "GET /news",
        "/news/stream" => "GET /news/stream",
        "/sources" => "GET /sources",
        "/categories" => "GET /categories",
        path if path.starts_with("/news/") => "GET /news/{id}",
        path if path.starts_with("/sources/") => "GET /sources/{id}",
        path if path.starts_with("/assets/") => "GET /assets/{name}",
        _ => "a refusal",
    }
}
