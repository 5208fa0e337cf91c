//! `GET /news/stream`: Server-Sent Events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! An `EventSource` that is answered with anything but 200 gives up for good. So whoever cannot be served now gets
//! 200, a `retry:` and the end. Only a reader whose token is no good gets 401: it would come back with the same one.

use std::{net::IpAddr, rc::Rc};

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, Resource, http::Version, http::header, web};

use super::{Shared, other_method};
use crate::{
    connection::Connection,
    filter::Query,
    problem::Problem,
    readers::Reader,
    shard::Shard,
    subscriber::{Subscriber, Wish},
    wording::Wording,
};

/// Recent events for a client that comes with no id.
const SNAPSHOT_DEFAULT: u64 = 50;
/// How long a client that found no place waits, in milliseconds; drawn for each.
const RETRY_FULL_MS: std::ops::Range<u64> = 5_000..15_000;
/// Longest `Last-Event-ID` that is looked at.
const ID_BYTES_MAX: usize = 256;

pub(super) fn resource() -> Resource {
    web::resource("/news/stream")
        .route(web::get().to(open))
        .route(web::head().to(head))
        .default_service(web::to(other_method))
}

fn event_stream(wording: Wording) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .content_type(wording.content_type())
        .insert_header((header::VARY, "Accept"))
        .insert_header((header::CACHE_CONTROL, "no-cache, no-transform"))
        .insert_header(("x-accel-buffering", "no"));
    response
}

async fn head(request: HttpRequest, _reader: Reader) -> HttpResponse {
    event_stream(wording(&request)).finish()
}

/// JSON lines for whoever asks for them and not for an event stream.
fn wording(request: &HttpRequest) -> Wording {
    let accept = request.headers().get("accept").and_then(|a| a.to_str().ok()).unwrap_or_default();
    let asks = |kind: &str| accept.split(',').any(|a| a.trim().split(';').next() == Some(kind));
    if asks("application/x-ndjson") && !asks("text/event-stream") { Wording::Lines } else { Wording::Sse }
}

async fn open(
    request: HttpRequest,
    shared: web::Data<Shared>,
    reader: Reader,
) -> Result<HttpResponse, Problem> {
    if request.version() < Version::HTTP_11 {
        return Err(Problem::version());
    }
    let query = Query::parse(request.query_string())?;
    let shard = request.app_data::<Rc<Shard>>().expect("every worker has a shard");
    let wording = wording(&request);
    let hub = &shared.hub;
    let place = match hub.admit(address(&request, &shared)) {
        Ok(place) => place,
        Err(reason) => {
            hub.numbers.refused.get_or_create(&[("reason", reason)]).inc();
            let retry = fastrand::u64(RETRY_FULL_MS);
            return Ok(event_stream(wording).body(wording.end(retry, None)));
        }
    };
    // The header first: a browser repeats the old query on every reconnect, and keeps the id in the header.
    let header = request.headers().get("last-event-id").map(|id| {
        let id = &id.as_bytes()[..id.len().min(ID_BYTES_MAX)];
        String::from_utf8_lossy(id).into_owned()
    });
    let wish = Wish {
        requested: header.or(query.last_event_id).or(query.after).filter(|id| !id.is_empty()),
        since: query.since,
        snapshot: query.snapshot.unwrap_or(SNAPSHOT_DEFAULT),
        filter: query.filter.within(reader.scope.clone()),
        wording,
    };
    let connection = request.conn_data::<Rc<Connection>>().expect("every connection is taken over").clone();
    connection.stays();
    Ok(event_stream(wording).body(Subscriber::new(Rc::clone(shard), connection, place, wish, reader)))
}

/// Who is asking: the peer, or whoever a proxy that we trust says, read from right to left.
pub(super) fn address(request: &HttpRequest, shared: &Shared) -> IpAddr {
    let settings = shared.hub.settings();
    let trusted = |address: &IpAddr| settings.trusts(*address);
    let peer = request.peer_addr().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip().to_canonical());
    if !trusted(&peer) {
        return peer;
    }
    let forwarded = request.headers().get_all("x-forwarded-for").filter_map(|value| value.to_str().ok());
    let mut hops: Vec<_> = forwarded.flat_map(|value| value.split(',')).collect();
    let mut client = peer;
    while let Some(hop) = hops.pop().and_then(|hop| hop.trim().parse::<IpAddr>().ok()) {
        client = hop.to_canonical();
        if !trusted(&client) {
            break;
        }
    }
    client
}
