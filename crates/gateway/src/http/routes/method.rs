//! Which methods a route allows, and the answer to every other.

use actix_web::{
    FromRequest, Handler, HttpResponse, Resource, Responder, ResponseError as _, guard,
    http::header::{ALLOW, HeaderValue},
    web,
};

use crate::http::problem::HttpProblem;

/// A route that is read, with GET and HEAD.
pub(super) fn read<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let is_read = guard::Any(guard::Get()).or(guard::Head());
    web::resource(path).route(web::route().guard(is_read).to(handler)).default_service(web::to(only_read))
}

/// 405 where GET and HEAD are allowed.
pub(super) async fn only_read() -> HttpResponse {
    not_allowed("only GET and HEAD are allowed here", "GET, HEAD, OPTIONS")
}

/// 405 where POST is allowed.
pub(super) async fn only_post() -> HttpResponse {
    not_allowed("only POST is allowed here", "POST, OPTIONS")
}

/// 405 where hubs send requests.
pub(super) async fn only_get_and_post() -> HttpResponse {
    not_allowed("only GET and POST are allowed here", "GET, POST, OPTIONS")
}

fn not_allowed(detail: &str, allow: &'static str) -> HttpResponse {
    let mut response = HttpProblem::method_not_allowed(detail).error_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}
