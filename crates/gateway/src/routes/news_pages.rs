//! The recent events in pages, the newest first.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::BytesMut;
use news::{Cursor, Seq};

use super::Shared;
use crate::{
    filter::Query,
    problem::Problem,
    readers::{Reader, Scope},
    ring::Found,
};

/// Events in a page that asks for no number.
const LIMIT_DEFAULT: usize = 50;

/// `GET /news`: `{"items":[Event],"next":"/news?…"|null,"oldest":id|null,"head":id}`.
pub(super) async fn list(
    request: HttpRequest,
    shared: web::Data<Shared>,
    reader: Reader,
) -> Result<HttpResponse, Problem> {
    let query = Query::parse(request.query_string())?;
    let filter = query.filter.within(reader.scope.clone());
    let hub = &shared.hub;
    let state = hub.ring.state();
    let standing = state.standing.filter(|_| state.filled).ok_or_else(Problem::not_filled)?;
    let place = |name: &str, id: &Option<String>| -> Result<Option<Seq>, Problem> {
        let Some(id) = id else { return Ok(None) };
        match id.parse::<Cursor>() {
            Ok(cursor) if cursor.epoch == standing.epoch => Ok(Some(cursor.seq)),
            Ok(_) => Err(Problem::other_log()),
            Err(_) => Err(Problem::bad_parameter(name, "an event id is wanted, such as k3v9q2-412")),
        }
    };
    let (after, before) = (place("after", &query.after)?, place("before", &query.before)?);
    let mark = scope_mark(reader.scope.as_deref());
    let etag = format!("W/\"{}-{}-{}{mark}\"", standing.epoch, state.oldest, standing.head);
    if query.since.is_none()
        && request.headers().get("if-none-match").is_some_and(|e| e.as_bytes() == etag.as_bytes())
    {
        return Ok(HttpResponse::NotModified().insert_header((header::ETAG, etag)).finish());
    }
    let since = query.since.map(|since| since.instant(hub.now()));
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    let (frames, more) = hub.ring.page(after, before, since, &filter, limit);
    let id = |seq| Cursor { epoch: standing.epoch.clone(), seq };
    let next = frames.last().filter(|_| more).map(|last| next_page(request.query_string(), &id(last.seq)));
    let mut body = BytesMut::from(&b"{\"items\":["[..]);
    for (n, frame) in frames.iter().enumerate() {
        if n > 0 {
            body.extend_from_slice(b",");
        }
        body.extend_from_slice(&frame.json());
    }
    let oldest = (state.events > 0).then(|| id(state.oldest));
    let rest = serde_json::json!({ "next": next, "oldest": oldest, "head": id(standing.head) }).to_string();
    body.extend_from_slice(b"],");
    body.extend_from_slice(&rest.as_bytes()[1..]);
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::ETAG, etag))
        .body(body.freeze()))
}

/// What tells the pages of readers apart who see different things.
fn scope_mark(scope: Option<&Scope>) -> String {
    scope.map_or_else(String::new, |scope| format!("-{:016x}", scope.mark()))
}

/// The same query, going on before `last`.
fn next_page(query: &str, last: &Cursor) -> String {
    let kept = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "before");
    let mut next = url::form_urlencoded::Serializer::new(String::new());
    next.extend_pairs(kept).append_pair("before", &last.to_string());
    format!("/news?{}", next.finish())
}

/// `GET /news/{id}`
pub(super) async fn one(
    shared: web::Data<Shared>,
    id: web::Path<String>,
    reader: Reader,
) -> Result<HttpResponse, Problem> {
    let wanted = "an event id is wanted, such as k3v9q2-412";
    let id: Cursor = id.parse().map_err(|_| Problem::bad_parameter("id", wanted))?;
    if !shared.hub.ring.state().filled {
        return Err(Problem::not_filled());
    }
    match shared.hub.ring.get(&id) {
        Found::Here(frame) if !reader.may_see(&frame.category) => Err(unknown()),
        // An event never changes.
        Found::Here(frame) => Ok(HttpResponse::Ok()
            .content_type("application/json")
            .insert_header((header::CACHE_CONTROL, "max-age=86400, immutable"))
            .body(frame.json())),
        Found::TooOld => Err(Problem::no_longer_kept()),
        Found::Unknown => Err(unknown()),
    }
}

fn unknown() -> Problem {
    Problem::not_found("there is no event of this id")
}
