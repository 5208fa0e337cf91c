//! `/websub/{id}`: requests of hubs (<https://www.w3.org/TR/websub/>). The id in the path is all that a hub presents:
//! neither a read token nor the operator's is required, and no page of any origin may read the responses.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, Resource, web};
use tokio::time::timeout;

use super::method::only_get_and_post;
use crate::{
    client_address::ClientAddress,
    http::problem::HttpProblem,
    ingest::callbacks::{CallbackError, CallbackRequest},
    state::AppState,
};

/// Largest body of a push.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest query of a verification: a topic of 2 KiB with every byte escaped, and the other parameters.
const QUERY_BYTES_MAX: usize = 16 * 1024;
/// Longest challenge that is returned.
const CHALLENGE_BYTES_MAX: usize = 4096;
/// When a hub may retry if too many of its requests are in progress: by then a slow body has timed out.
const RETRY_AFTER_BUSY: Duration = Duration::from_secs(5);
/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 32;

pub(super) fn resource() -> Resource {
    web::resource("/websub/{id}")
        .route(web::get().to(verify))
        .route(web::post().to(push))
        .default_service(web::to(only_get_and_post))
}

fn unknown() -> HttpProblem {
    HttpProblem::not_found("unknown callback id")
}

/// Refuses what cannot be an id without asking the daemon.
fn check_id(state: &AppState, id: &str) -> Result<(), HttpProblem> {
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if state.settings().has_callbacks && is_id { Ok(()) } else { Err(refuse(state, "no_id", unknown())) }
}

fn refuse(state: &AppState, reason: &'static str, problem: HttpProblem) -> HttpProblem {
    state.metrics.callbacks_refused.get_or_create(&[("reason", reason)]).inc();
    problem
}

fn callback_problem(state: &AppState, error: CallbackError) -> HttpProblem {
    let (reason, problem) = match error {
        CallbackError::Busy => ("callbacks", HttpProblem::busy()),
        CallbackError::AddressBusy => {
            ("callbacks_per_address", HttpProblem::too_many_callbacks(RETRY_AFTER_BUSY))
        }
        CallbackError::TooManyUnknown => ("unknown_callbacks", HttpProblem::too_many_unknown()),
        CallbackError::NoDaemon(why) => ("no_daemon", HttpProblem::no_daemon(why)),
    };
    refuse(state, reason, problem)
}

async fn verify(
    request: HttpRequest,
    state: web::Data<AppState>,
    id: web::Path<String>,
) -> Result<HttpResponse, HttpProblem> {
    check_id(&state, &id)?;
    let query = request.query_string();
    if query.len() > QUERY_BYTES_MAX {
        return Err(HttpProblem::long_query());
    }
    let (mut challenge, mut lease_seconds) = (None, None);
    let (mut mode, mut topic, mut reason) = (String::new(), String::new(), String::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "hub.mode" => mode = value.into_owned(),
            "hub.topic" => topic = value.into_owned(),
            "hub.reason" => reason = value.into_owned(),
            "hub.lease_seconds" => lease_seconds = value.parse().ok(),
            "hub.challenge" => challenge = Some(value.into_owned()).filter(|challenge| !challenge.is_empty()),
            _ => {}
        }
    }
    // A denial has no challenge.
    let challenge = if mode == "denied" { Some(String::new()) } else { challenge };
    let challenge = challenge.filter(|challenge| challenge.len() <= CHALLENGE_BYTES_MAX);
    let challenge =
        challenge.ok_or_else(|| HttpProblem::bad_parameter("hub.challenge", "expected 1 to 4096 bytes"))?;
    let address = ClientAddress::of_request(&request, &state.settings());
    let permit = state.callbacks.admit(&id, address).map_err(|error| callback_problem(&state, error))?;
    let callback = CallbackRequest::Verify { mode, topic, lease_seconds, reason };
    match permit.forward(&id, callback).await.map_err(|error| callback_problem(&state, error))? {
        true => Ok(HttpResponse::Ok()
            .content_type("text/plain; charset=utf-8")
            .insert_header(("cache-control", "no-store"))
            .body(challenge)),
        false => Err(unknown()),
    }
}

async fn push(
    request: HttpRequest,
    state: web::Data<AppState>,
    id: web::Path<String>,
    body: web::Payload,
) -> Result<HttpResponse, HttpProblem> {
    check_id(&state, &id)?;
    let address = ClientAddress::of_request(&request, &state.settings());
    let permit = state.callbacks.admit(&id, address).map_err(|error| callback_problem(&state, error))?;
    let body = timeout(state.settings().limits.body, body.to_bytes_limited(BODY_BYTES_MAX)).await;
    let body = match body {
        Ok(Ok(Ok(body))) => body,
        Ok(Ok(Err(_))) => {
            return Err(HttpProblem::bad_parameter("body", "the push ended before its last byte"));
        }
        Ok(Err(_)) => return Err(refuse(&state, "large_body", HttpProblem::large_push())),
        Err(_) => return Err(refuse(&state, "slow_body", HttpProblem::slow_body())),
    };
    let signature = request.headers().get("x-hub-signature").and_then(|header| header.to_str().ok());
    let callback = CallbackRequest::Push { signature: signature.map(str::to_owned), body };
    match permit.forward(&id, callback).await.map_err(|error| callback_problem(&state, error))? {
        // Also for a wrong signature: a forger must not learn that it is wrong (section 7.1.2).
        true => Ok(HttpResponse::Accepted().insert_header(("cache-control", "no-store")).finish()),
        false => Err(unknown()),
    }
}
