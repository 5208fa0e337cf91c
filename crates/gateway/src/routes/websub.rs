//! `/websub/{id}`: where hubs call (<https://www.w3.org/TR/websub/>). The id in the address is all they have to show;
//! no reader's and no operator's token is asked for, and no page of any origin may read the answers.

use actix_web::{HttpRequest, HttpResponse, Resource, ResponseError as _, web};
use tokio::time::timeout;

use super::{Shared, stream::address};
use crate::{
    callbacks::{Call, NoAnswer},
    hub::Hub,
    problem::Problem,
};

/// Largest body of a push.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest query of a verification: a topic of 2 KiB, each byte escaped, and the rest.
const QUERY_BYTES_MAX: usize = 16 * 1024;
/// Longest challenge that is repeated.
const CHALLENGE_BYTES_MAX: usize = 4096;
/// An id is so many hexadecimal digits.
const ID_DIGITS: usize = 32;

pub(super) fn resource() -> Resource {
    web::resource("/websub/{id}")
        .route(web::get().to(verify))
        .route(web::post().to(push))
        .default_service(web::to(other_method))
}

async fn other_method() -> HttpResponse {
    let mut response = Problem::method_hub().error_response();
    let allow = actix_web::http::header::HeaderValue::from_static("GET, POST, OPTIONS");
    response.headers_mut().insert(actix_web::http::header::ALLOW, allow);
    response
}

fn unknown() -> Problem {
    Problem::not_found("there is no such subscription")
}

/// What has no shape of an id costs nobody anything.
fn check(hub: &Hub, id: &str) -> Result<(), Problem> {
    let shaped = id.len() == ID_DIGITS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if hub.settings().has_callbacks && shaped { Ok(()) } else { Err(refuse(hub, "no_id", unknown())) }
}

fn refuse(hub: &Hub, reason: &'static str, problem: Problem) -> Problem {
    hub.numbers.callbacks_refused.get_or_create(&[("reason", reason)]).inc();
    problem
}

fn no_answer(hub: &Hub, no: NoAnswer) -> Problem {
    let (reason, problem) = match no {
        NoAnswer::Busy => ("callbacks", Problem::busy()),
        NoAnswer::Guessing => ("unknown_callbacks", Problem::guessing()),
        NoAnswer::Daemon => ("no_daemon", Problem::no_daemon()),
    };
    refuse(hub, reason, problem)
}

async fn verify(
    request: HttpRequest,
    shared: web::Data<Shared>,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let hub = &shared.hub;
    check(hub, &id)?;
    let query = request.query_string();
    if query.len() > QUERY_BYTES_MAX {
        return Err(Problem::long_query());
    }
    let (mut challenge, mut lease_seconds) = (None, None);
    let (mut mode, mut topic, mut reason) = (String::new(), String::new(), String::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "hub.mode" => mode = value.into_owned(),
            "hub.topic" => topic = value.into_owned(),
            "hub.reason" => reason = value.into_owned(),
            "hub.lease_seconds" => lease_seconds = value.parse().ok(),
            "hub.challenge" => challenge = Some(value.into_owned()),
            _ => {}
        }
    }
    // A denial has none, and asks for nothing but to be heard.
    let challenge = if mode == "denied" { Some(String::new()) } else { challenge };
    let challenge = challenge.filter(|challenge| challenge.len() <= CHALLENGE_BYTES_MAX);
    let challenge =
        challenge.ok_or_else(|| Problem::bad_parameter("hub.challenge", "1 to 4096 bytes are wanted"))?;
    let from = address(&request, &shared);
    let place = hub.callbacks.admit(&id, from).map_err(|no| no_answer(hub, no))?;
    let call = Call::Verify { mode, topic, lease_seconds, reason };
    match hub.callbacks.pass_on((&id, call), from, place).await.map_err(|no| no_answer(hub, no))? {
        true => Ok(HttpResponse::Ok()
            .content_type("text/plain; charset=utf-8")
            .insert_header(("cache-control", "no-store"))
            .body(challenge)),
        false => Err(unknown()),
    }
}

async fn push(
    request: HttpRequest,
    shared: web::Data<Shared>,
    id: web::Path<String>,
    body: web::Payload,
) -> Result<HttpResponse, Problem> {
    let hub = &shared.hub;
    check(hub, &id)?;
    let from = address(&request, &shared);
    let place = hub.callbacks.admit(&id, from).map_err(|no| no_answer(hub, no))?;
    let body = timeout(hub.settings().limits.body, body.to_bytes_limited(BODY_BYTES_MAX)).await;
    let body = match body {
        Ok(Ok(Ok(body))) => body,
        Ok(Ok(Err(_))) => {
            return Err(Problem::bad_parameter("body", "the push did not arrive whole"));
        }
        Ok(Err(_)) => return Err(refuse(hub, "large_body", Problem::large_push())),
        Err(_) => return Err(refuse(hub, "slow_body", Problem::slow_body())),
    };
    let signature = request.headers().get("x-hub-signature").and_then(|header| header.to_str().ok());
    let call = Call::Push { signature: signature.map(str::to_owned), body };
    match hub.callbacks.pass_on((&id, call), from, place).await.map_err(|no| no_answer(hub, no))? {
        // Also when the signature was wrong: whoever forges learns nothing (section 7.1.2).
        true => Ok(HttpResponse::Accepted().insert_header(("cache-control", "no-store")).finish()),
        false => Err(unknown()),
    }
}
