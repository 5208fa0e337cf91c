//! `GET /news`, `/news/{id}`: the events of the ring in pages, the newest first.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use bytes::BytesMut;
use news::{Cursor, Seq};
use serde::Serialize;

use crate::{
    auth::{authenticator::AuthorisedReader, scope::CategoryScope},
    http::{
        conditional::not_modified,
        problem::HttpProblem,
        query::{NewsQuery, QueryRemarks},
    },
    state::AppState,
    stream::{encoding::ContentHtml, ring::RingLookup},
};

/// Events of a page without a `limit`.
const LIMIT_DEFAULT: usize = 50;
const EXPECTED_ID: &str = "expected an event id such as k3v9q2-412";

/// `GET /news`: `{"items":[Event],"next":"/news?…"|null,"oldest":id|null,"head":id}`, and [`QueryRemarks`].
pub(super) async fn list(
    request: HttpRequest,
    state: web::Data<AppState>,
    reader: AuthorisedReader,
) -> Result<HttpResponse, HttpProblem> {
    let query = NewsQuery::parse(request.query_string())?;
    let remarks = query.remarks(&state.catalogue_labels, reader.scope.as_deref());
    let filter = query.filter.within(reader.scope.clone());
    let ring = state.ring.state();
    let bounds = ring.log_bounds.filter(|_| ring.filled).ok_or_else(HttpProblem::not_filled)?;
    let parse_cursor = |name: &str, id: &Option<String>| -> Result<Option<Seq>, HttpProblem> {
        let Some(id) = id else { return Ok(None) };
        match id.parse::<Cursor>() {
            Ok(cursor) if cursor.epoch == bounds.epoch => Ok(Some(cursor.seq)),
            Ok(_) => Err(HttpProblem::other_log()),
            Err(_) => Err(HttpProblem::bad_parameter(name, EXPECTED_ID)),
        }
    };
    let (after, before) = (parse_cursor("after", &query.after)?, parse_cursor("before", &query.before)?);
    let scope = scope_tag(reader.scope.as_deref());
    let etag = format!("W/\"{}-{}-{}{scope}\"", bounds.epoch, ring.oldest, bounds.head);
    if query.since.is_none() && not_modified(request.headers(), &etag) {
        return Ok(HttpResponse::NotModified().insert_header((header::ETAG, etag)).finish());
    }
    let since = query.since.map(|since| since.instant(state.now()));
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    let (frames, more) = state.ring.page(after, before, since, &filter, limit);
    let id = |seq| Cursor { epoch: bounds.epoch.clone(), seq };
    let next = frames.last().filter(|_| more).map(|last| next_page(request.query_string(), &id(last.seq)));
    let mut body = BytesMut::from(&b"{\"items\":["[..]);
    for (n, frame) in frames.iter().enumerate() {
        if n > 0 {
            body.extend_from_slice(b",");
        }
        match query.content {
            ContentHtml::Included => body.extend_from_slice(&frame.json()),
            ContentHtml::LeftOut => {
                frame.json_without_content().iter().for_each(|part| body.extend_from_slice(part));
            }
        }
    }
    let oldest = (ring.events > 0).then(|| id(ring.oldest));
    let rest = PageEnd { next, oldest, head: id(bounds.head), remarks };
    let rest = serde_json::to_string(&rest).expect("our own types have a JSON form");
    body.extend_from_slice(b"],");
    body.extend_from_slice(&rest.as_bytes()[1..]);
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::ETAG, etag))
        .body(body.freeze()))
}

/// What follows the items of a page.
#[derive(Serialize)]
struct PageEnd {
    next: Option<String>,
    oldest: Option<Cursor>,
    head: Cursor,
    #[serde(flatten)]
    remarks: QueryRemarks,
}

/// The part of an `ETag` that differs between readers of different scopes.
fn scope_tag(scope: Option<&CategoryScope>) -> String {
    scope.map_or_else(String::new, |scope| format!("-{:016x}", scope.hash()))
}

/// The same query, continued before `last`.
fn next_page(query: &str, last: &Cursor) -> String {
    let kept = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "before");
    let mut next = url::form_urlencoded::Serializer::new(String::new());
    next.extend_pairs(kept).append_pair("before", &last.to_string());
    format!("/news?{}", next.finish())
}

/// `GET /news/{id}`
pub(super) async fn one(
    state: web::Data<AppState>,
    id: web::Path<String>,
    reader: AuthorisedReader,
) -> Result<HttpResponse, HttpProblem> {
    let id: Cursor = id.parse().map_err(|_| HttpProblem::bad_parameter("id", EXPECTED_ID))?;
    if !state.ring.state().filled {
        return Err(HttpProblem::not_filled());
    }
    match state.ring.get(&id) {
        RingLookup::Found(frame) if !reader.may_see(&frame.category) => Err(unknown()),
        // An event never changes.
        RingLookup::Found(frame) => Ok(HttpResponse::Ok()
            .content_type("application/json")
            .insert_header((header::CACHE_CONTROL, "max-age=86400, immutable"))
            .body(frame.json())),
        RingLookup::TooOld => Err(HttpProblem::no_longer_kept()),
        RingLookup::Unknown => Err(unknown()),
    }
}

fn unknown() -> HttpProblem {
    HttpProblem::not_found("unknown event id")
}
