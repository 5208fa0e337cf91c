//! `GET /news/stream`: Server-Sent Events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! An `EventSource` that gets anything but 200 gives up for good. So a client that cannot be served now gets 200, a
//! `retry:` and the end. Only a client with an invalid token gets 401: it would reconnect with the same one.

use std::rc::Rc;

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder, Resource, body,
    http::{Version, header},
    web,
};

use super::method::only_read;
use crate::{
    auth::authenticator::AuthorisedReader,
    client_address::client_address,
    connection::ClientConnection,
    http::{problem::HttpProblem, query::NewsQuery},
    state::AppState,
    stream::{
        encoding::{BlockForm, StreamFormat},
        subscriber::{StreamRequest, StreamSubscriber},
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

/// JSON lines for a client that accepts them and does not accept an event stream.
fn format(request: &HttpRequest) -> StreamFormat {
    let accept = request.headers().get("accept").and_then(|a| a.to_str().ok()).unwrap_or_default();
    let accepts = |kind: &str| accept.split(',').any(|a| a.trim().split(';').next() == Some(kind));
    match accepts("application/x-ndjson") && !accepts("text/event-stream") {
        true => StreamFormat::NdJson,
        false => StreamFormat::EventStream,
    }
}

/// The id that the client resumes after; an empty one is none.
fn id_in_header(request: &HttpRequest) -> Option<String> {
    request.headers().get_all("last-event-id").find_map(|id| {
        let id = id.as_bytes().trim_ascii();
        let id = &id[..id.len().min(ID_BYTES_MAX)];
        (!id.is_empty()).then(|| String::from_utf8_lossy(id).into_owned())
    })
}

async fn open(
    request: HttpRequest,
    state: web::Data<AppState>,
    reader: AuthorisedReader,
) -> Result<HttpResponse, HttpProblem> {
    let query = NewsQuery::parse_stream(request.query_string())?;
    let streams = request.app_data::<Rc<WorkerStreams>>().expect("every worker has its streams");
    let format = format(&request);
    let permit = match state.admit(client_address(&request, &state.settings())) {
        Ok(permit) => permit,
        Err(reason) => {
            state.metrics.refused.get_or_create(&[("reason", reason)]).inc();
            let retry = fastrand::u64(RETRY_FULL_MS);
            // By the letter of the standard, the end of a block without an id resets the id of a client that resumes.
            let requested = id_in_header(&request).or(query.last_event_id).or(query.after);
            let cursor = requested.and_then(|id| id.parse().ok());
            return Ok(response_head(format).body(format.end(retry, cursor.as_ref())));
        }
    };
    let remarks = query.remarks(&state.catalogue_labels, reader.scope.as_deref());
    let heartbeat = query.heartbeat || query.filter.kinds.iter().any(|kind| kind == "heartbeat");
    let stream = StreamRequest {
        // The header first: a browser repeats the old query on every reconnect, and has the id in the header.
        requested: id_in_header(&request).or(query.last_event_id).or(query.after),
        since: query.since,
        snapshot: query.snapshot.unwrap_or(SNAPSHOT_DEFAULT),
        filter: query.filter.within(reader.scope.clone()),
        form: BlockForm { format, content: query.content },
        heartbeat,
        remarks: Box::new(remarks),
    };
    let connection =
        request.conn_data::<Rc<ClientConnection>>().expect("every connection is registered").clone();
    connection.cancel_deadline();
    let body = StreamSubscriber::new(Rc::clone(streams), connection, permit, stream, reader);
    let mut response = response_head(format).body(body);
    // HTTP/1.0 has no chunks: there the end of the connection is the end of the body (RFC 1945, section 7.2.2).
    response.head_mut().no_chunking(request.version() < Version::HTTP_11);
    Ok(response)
}
