//! Step 14 of the life of an item: onto the client's socket. What the gateway answers; nothing here waits for anybody.

mod meta;
mod news_pages;
mod page;
mod refresh;
mod sources;
mod stream;
mod websub;

pub(crate) use meta::Readiness;

use std::{
    future::{Ready, ready},
    sync::Arc,
};

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest, HttpResponse, Resource, ResponseError as _, dev::Payload,
    guard, http::Method, web,
};

use crate::{hub::Hub, problem::Problem, readers::Reader};

/// What the handlers of one worker share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
}

/// Marks a request whose answer depends on who asks.
pub(crate) struct AskedWho;

/// A handler that takes a reader is closed to everybody else.
impl FromRequest for Reader {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let shared = request.app_data::<web::Data<Shared>>().expect("the app is given its shared state");
        let (hub, settings) = (&shared.hub, shared.hub.settings());
        let readers = &settings.readers;
        if readers.are_asked() {
            request.extensions_mut().insert(AskedWho);
        }
        ready(match readers.admit(request.headers(), hub.now()) {
            Ok(reader) => {
                if let Some(by) = reader.by {
                    hub.numbers.readers_granted.get_or_create(&[("by", by)]).inc();
                }
                Ok(reader)
            }
            Err(refusal) => {
                hub.numbers.readers_refused.get_or_create(&[("reason", refusal.reason())]).inc();
                Err(Problem::no_reader(refusal))
            }
        })
    }
}

pub(crate) fn configure(app: &mut web::ServiceConfig) {
    app.service(stream::resource())
        .service(read("/", page::index))
        .service(read("/assets/{name}", page::asset))
        .service(read("/health", meta::health))
        .service(read("/ready", meta::ready))
        .service(read("/metrics", meta::metrics))
        .service(read("/openapi.json", meta::openapi))
        .service(read("/news", news_pages::list))
        .service(refresh::resource())
        .service(read("/news/{id}", news_pages::one))
        .service(read("/sources", sources::list))
        .service(read("/sources/{id}", sources::one))
        .service(read("/categories", sources::categories))
        .service(websub::resource())
        .default_service(web::to(|| async { Problem::not_found("there is no such route").error_response() }));
}

/// What a worker is at, for the watchdog: a route, and nothing that a client wrote.
pub(crate) fn label(method: &Method, path: &str) -> &'static str {
    let reads = method == Method::GET || method == Method::HEAD;
    match path {
        "/news/refresh" => "POST /news/refresh",
        path if path.starts_with("/websub/") => "a hub's call",
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

/// A route that is read: GET and HEAD, and a clear answer to every other method.
fn read<F, Args>(path: &str, handler: F) -> Resource
where
    F: actix_web::Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    let reads = guard::Any(guard::Get()).or(guard::Head());
    web::resource(path).route(web::route().guard(reads).to(handler)).default_service(web::to(other_method))
}

async fn other_method() -> HttpResponse {
    let mut response = Problem::method().error_response();
    let allow = actix_web::http::header::HeaderValue::from_static("GET, HEAD, OPTIONS");
    response.headers_mut().insert(actix_web::http::header::ALLOW, allow);
    response
}

/// Whether the client prefers a page for people over data.
fn wants_html(request: &HttpRequest) -> bool {
    let accept = request.headers().get("accept").and_then(|a| a.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|kind| kind.trim().split(';').next() == Some("text/html"))
}
