//! What every request must pass, and the headers that every response carries, errors included.

use std::{rc::Rc, sync::Arc};

use actix_web::{
    Error, HttpMessage as _, HttpResponse, ResponseError as _,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, Method, StatusCode,
        header::{HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};

use super::{
    cors::{self, AllowedOrigin},
    extract::VaryByCredentials,
    host::is_served_host,
    problem::HttpProblem,
    routes,
};
use crate::{
    auth::bearer,
    client_address::ClientAddress,
    connection::{ClientConnection, ending::ConnectionCut},
    settings::Settings,
    state::AppState,
};

/// The page runs its own script and style and connects to the gateway only; no inline code, no foreign image.
const CSP_PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                        base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                        require-trusted-types-for 'script'; trusted-types 'none'";
/// Every other response is data, and never a document.
const CSP_DATA: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// Routes that answer however many connections are open: probes, and the stream, which has its own refusal.
const ANSWERED_WHEN_CROWDED: [&str; 4] = ["/health", "/ready", "/metrics", "/news/stream"];

/// On every response.
const SECURITY_HEADERS: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// Refuses foreign host names, tokens in the URL and requests over the limits, and adds the security headers.
pub(super) async fn secure<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let state = request.app_data::<web::Data<AppState>>().cloned().expect("the app is given its state");
    refuse_second(&request, &state).await;
    let settings = state.settings();
    let allowed = AllowedOrigin::of(request.request(), &settings);
    let mut response = if !is_served_host(request.request(), &settings) {
        request.into_response(HttpProblem::wrong_host().error_response()).map_into_right_body()
    } else if bearer::is_in_query(request.query_string()) {
        state.metrics.requests_refused.get_or_create(&[("reason", "token_in_query")]).inc();
        request.into_response(HttpProblem::token_in_query().error_response()).map_into_right_body()
    } else if request.method() == Method::OPTIONS {
        // As cheap as a refusal; and a page whose preflight fails never sees why.
        let response = cors::options(request.path(), allowed.is_some());
        request.into_response(response).map_into_right_body()
    } else if let Some(refusal) = over_budget(&request, &state, &settings) {
        request.into_response(refusal).map_into_right_body()
    } else if state.connections.is_crowded() && !ANSWERED_WHEN_CROWDED.contains(&request.path()) {
        state.metrics.requests_refused.get_or_create(&[("reason", "connections")]).inc();
        request.into_response(HttpProblem::overloaded().error_response()).map_into_right_body()
    } else {
        let peer = request
            .request()
            .conn_data::<Rc<ClientConnection>>()
            .map(|connection| Arc::clone(&connection.peer));
        let label = routes::label(request.method(), request.path());
        daemon::work::during(label, peer.unwrap_or_default(), next.call(request)).await?.map_into_left_body()
    };
    if response.request().extensions().contains::<VaryByCredentials>() {
        set_private(response.headers_mut());
    }
    // The headers of a 304 replace those of the stored response (RFC 9111, section 3.2), and it has no content type.
    let is_unchanged_page = response.status() == StatusCode::NOT_MODIFIED && response.request().path() == "/";
    // Nothing is ever upgraded, but actix-http repeats the `Connection: upgrade` of a request (h2c, websocket).
    response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let html = headers.get("content-type").is_some_and(|t| t.as_bytes().starts_with(b"text/html"));
    let csp = if html || is_unchanged_page { CSP_PAGE } else { CSP_DATA };
    headers.insert(HeaderName::from_static("content-security-policy"), HeaderValue::from_static(csp));
    cors::add_headers(headers, allowed, &settings);
    Ok(response)
}

/// Never lets a second request of a connection pass: its answer would be as much work as the first one. The connection
/// reads no second request; this is for what it may have overlooked.
async fn refuse_second(request: &ServiceRequest, state: &AppState) {
    let connection = request.request().conn_data::<Rc<ClientConnection>>();
    if let Some(connection) = connection.filter(|connection| !connection.is_first_request()) {
        state.metrics.requests_refused.get_or_create(&[("reason", "second")]).inc();
        connection.cut(ConnectionCut::Pipelining);
        // The task of the connection ends instead.
        std::future::pending::<()>().await;
    }
}

/// The refusal of a request whose address is over its budget; `None` if it is within. `/health` has no budget: a flood
/// from the address of a health check must not make the process look dead.
fn over_budget(
    request: &ServiceRequest,
    state: &AppState,
    settings: &Settings,
) -> Option<HttpResponse<BoxBody>> {
    if request.path() == "/health" {
        return None;
    }
    let over = state.budgets.request(ClientAddress::of_request(request.request(), settings)).err()?;
    if request.method() == Method::GET && request.path() == "/news/stream" {
        return Some(routes::stream::refuse(request.request(), state, over.reason, over.wait));
    }
    state.metrics.requests_refused.get_or_create(&[("reason", over.reason)]).inc();
    Some(HttpProblem::too_many_requests(over.wait).error_response())
}

/// The response is for one reader only: no shared cache may store it.
fn set_private(headers: &mut HeaderMap) {
    headers.append(HeaderName::from_static("vary"), HeaderValue::from_static("Authorization, Cookie"));
    let name = HeaderName::from_static("cache-control");
    let directives = headers.get(&name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let directives = match directives {
        "no-store" => return,
        "" => "private".to_owned(),
        directives => format!("private, {directives}"),
    };
    headers.insert(name, HeaderValue::try_from(directives).expect("made of our own values"));
}
