//! Pages of other origins: which may read, and what a browser is told about it
//! (<https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! An origin is allowed by its whole name (`gateway.cors_origins`). Every answer carries the headers, errors too: without
//! them a page could not tell a 401 from a dead network.

use actix_web::{
    HttpRequest, HttpResponse,
    body::BoxBody,
    http::header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, HeaderMap,
        HeaderName, HeaderValue, ORIGIN, VARY,
    },
};

use crate::settings::Settings;

/// What a page may send besides what every page may.
const REQUEST_HEADERS: &str = "Authorization, Cache-Control, Content-Type, If-None-Match, Last-Event-ID";
/// What a page may read besides what every page may.
const RESPONSE_HEADERS: &str = "ETag, Link, Retry-After";
/// How long a browser may remember the answer to a preflight request, in seconds. Browsers have lower limits.
const MAX_AGE_S: &str = "86400";

/// The origin of a page that may read the answer.
pub(super) struct AllowedOrigin(HeaderValue);

impl AllowedOrigin {
    /// The origin of a request, if it is allowed.
    pub(super) fn of(request: &HttpRequest, settings: &Settings) -> Option<Self> {
        // Hubs are not pages, and no page may read what hubs get.
        if is_callback(request.path()) {
            return None;
        }
        let origin = request.headers().get(ORIGIN)?;
        let name = origin.to_str().ok()?;
        let is_allowed = settings.cors_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        is_allowed.then(|| Self(origin.clone()))
    }
}

fn is_callback(path: &str) -> bool {
    path.starts_with("/websub/")
}

/// The answer to OPTIONS, and so to a preflight request. A page may send an order, too: it needs the operator's token,
/// which no browser adds by itself.
pub(super) fn options(path: &str, allowed: bool) -> HttpResponse<BoxBody> {
    let methods = match path {
        "/news/refresh" => "POST, OPTIONS",
        path if is_callback(path) => "GET, POST, OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    };
    let mut response = HttpResponse::NoContent();
    response.insert_header((ALLOW, methods));
    if allowed {
        response
            .insert_header((ACCESS_CONTROL_ALLOW_METHODS, methods))
            .insert_header((ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS))
            .insert_header((ACCESS_CONTROL_MAX_AGE, MAX_AGE_S));
    }
    response.finish()
}

/// Adds what a browser must know before it gives an answer to a page of another origin.
pub(super) fn add_headers(headers: &mut HeaderMap, allowed: Option<AllowedOrigin>, settings: &Settings) {
    if !settings.cors_origins.is_empty() {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    let Some(AllowedOrigin(origin)) = allowed else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
    if settings.cors_credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    // Without it the browser would hide the response from the allowed origin.
    let name = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(name, HeaderValue::from_static("cross-origin"));
}
