//! `GET /news/stream`: Server-Sent Events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! An `EventSource` that gets anything but 200 gives up for good. So a client that cannot be served now gets 200, a
//! `retry:` and the end. Only a client with an invalid token gets 401: it would reconnect with the same one.

use std::{rc::Rc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder, Resource, body,
    http::{Version, header},
    web,
};
use daemon::accept::AcceptedTypes;

use super::method::only_read;
use crate::{
    auth::authenticator::AuthorisedReader,
    client_address::ClientAddress,
    connection::ClientConnection,
    http::{problem::HttpProblem, query::NewsQuery},
    state::AppState,
    stream::{
        encoding::{BlockForm, StreamFormat},
        subscriber::{ReconnectDelays, StreamRequest, StreamSubscriber},
        worker_streams::WorkerStreams,
    },
};

/// Newest events sent to a client without an id.
const SNAPSHOT_DEFAULT: u64 = 50;
/// How long a refused client waits before it retries, in milliseconds; random for each client.
const RETRY_FULL_MS: std::ops::Range<u64> = 5_000..15_000;
/// Longest part of a `Last-Event-ID` that is looked at.
const ID_BYTES_MAX: usize = 256;

pub(super) fn resource() -> Resource {
    web::resource("/news/stream")
        .route(web::get().to(open))
        .route(web::head().to(head))
        .default_service(web::to(only_read))
}

fn response_head(format: StreamFormat) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .content_type(format.content_type())
        .insert_header((header::VARY, "Accept"))
        .insert_header((header::CACHE_CONTROL, "no-cache, no-transform"))
        .insert_header(("x-accel-buffering", "no"));
    response
}

async fn head(request: HttpRequest, _reader: AuthorisedReader) -> HttpResponse {
    // Without a body that has a size: the stream has none.
    response_head(format(&request)).body(body::None::new())
}

/// JSON lines for a client that prefers them to an event stream.
fn format(request: &HttpRequest) -> StreamFormat {
    let accepted = AcceptedTypes::of(request.headers());
    let acceptance = |format: StreamFormat| accepted.acceptance(format.content_type());
    match acceptance(StreamFormat::NdJson) > acceptance(StreamFormat::EventStream) {
        true => StreamFormat::NdJson,
        false => StreamFormat::EventStream,
    }
}

/// The id that the client resumes after; an empty one is none. The header first: a browser repeats the old query on every
/// reconnect, and has the id in the header.
fn requested_id(request: &HttpRequest, query: &NewsQuery) -> Option<String> {
    let header = request.headers().get_all("last-event-id").find_map(|id| {
        let id = id.as_bytes().trim_ascii();
        let id = &id[..id.len().min(ID_BYTES_MAX)];
        (!id.is_empty()).then(|| String::from_utf8_lossy(id).into_owned())
    });
    header.or_else(|| query.last_event_id.clone()).or_else(|| query.after.clone())
}

/// 200, `retry:` and the end: the client cannot be served now, and comes back after `wait` at the earliest.
pub(in crate::http) fn refuse(
    request: &HttpRequest,
    state: &AppState,
    reason: &'static str,
    wait: Duration,
) -> HttpResponse {
    state.metrics.refused.get_or_create(&[("reason", reason)]).inc();
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let format = format(request);
    // By the letter of the standard, the end of a block without an id resets the id of a client that resumes.
    let query = NewsQuery::parse_stream(request.query_string()).unwrap_or_default();
    let cursor = requested_id(request, &query).and_then(|id| id.parse().ok());
    response_head(format).body(format.end(fastrand::u64(RETRY_FULL_MS).max(wait_ms), cursor.as_ref()))
}

async fn open(
    request: HttpRequest,
    state: web::Data<AppState>,
    reader: AuthorisedReader,
) -> Result<HttpResponse, HttpProblem> {
    let query = NewsQuery::parse_stream(request.query_string())?;
    let streams = request.app_data::<Rc<WorkerStreams>>().expect("every worker has its streams");
    let format = format(&request);
    let permit = match state.admit(ClientAddress::of_request(&request, &state.settings())) {
        Ok(permit) => permit,
        Err(reason) => return Ok(refuse(&request, &state, reason, Duration::ZERO)),
    };
    let remarks = query.remarks(&state.catalogue_labels, reader.scope.as_deref());
    let heartbeat = query.heartbeat || query.filter.kinds.iter().any(|kind| kind == "heartbeat");
    // Of the programs that people use, only proxies that are not configured for streams speak it.
    let is_1_0 = request.version() < Version::HTTP_11;
    let stream = StreamRequest {
        requested: requested_id(&request, &query),
        since: query.since,
        snapshot: query.snapshot.unwrap_or(SNAPSHOT_DEFAULT),
        filter: query.filter.within(reader.scope.clone()),
        form: BlockForm { format, content: query.content },
        heartbeat,
        delays: if is_1_0 { ReconnectDelays::BEHIND_PLAIN_PROXY } else { ReconnectDelays::USUAL },
        remarks: Box::new(remarks),
    };
    let connection =
        request.conn_data::<Rc<ClientConnection>>().expect("every connection is registered").clone();
    connection.begin_stream();
    let body = StreamSubscriber::new(Rc::clone(streams), connection, permit, stream, reader);
    let mut response = response_head(format).body(body);
    // HTTP/1.0 has no chunks: there the end of the connection is the end of the body (RFC 1945, section 7.2.2).
    response.head_mut().no_chunking(is_1_0);
    Ok(response)
}
