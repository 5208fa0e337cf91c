//! `GET /news`, `/news/{id}`: the events of the log in pages, the newest first.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
    web,
};
use bytes::Bytes;
use news::{Cursor, Seq};
use serde::Serialize;
use wire::{IdAlias, LogBounds};

use crate::{
    auth::{authenticator::AuthorisedReader, scope::CategoryScope},
    http::{
        conditional::not_modified,
        page_job::{PageJob, revalidated_json, still_current},
        problem::HttpProblem,
        query::{NewsQuery, QueryRemarks},
    },
    ingest::log_unavailable::LogUnavailable,
    pages::{
        body::SharedBody,
        news_page::{self, LogLookup, NewsPage, NewsScan},
    },
    state::AppState,
    stream::{encoding::ContentHtml, frame::Frame, ring::RingLookup},
};

/// Events of a page without a `limit`.
const LIMIT_DEFAULT: usize = 50;
const EXPECTED_ID: &str = "expected an event id such as k3v9q2-412";

/// `GET /news`: `{"items":[Event],"next":"/news?…"|null,"missed":n,"oldest":id|null,"head":id}`, and [`QueryRemarks`].
pub(super) async fn list(
    request: HttpRequest,
    state: web::Data<AppState>,
    reader: AuthorisedReader,
) -> Result<HttpResponse, HttpProblem> {
    let query = NewsQuery::parse(request.query_string())?;
    let remarks = query.remarks(&state.catalogue_labels, reader.scope.as_deref());
    let ring = state.ring.state();
    let bounds = ring.log_bounds.filter(|_| ring.filled).ok_or_else(HttpProblem::not_filled)?;
    let parse_cursor =
        |name: &str, id: &Option<String>, place: PlaceOf| -> Result<Option<Seq>, HttpProblem> {
            let Some(id) = id else { return Ok(None) };
            let cursor = id.parse::<Cursor>().map_err(|_| HttpProblem::bad_parameter(name, EXPECTED_ID))?;
            let is_own = cursor.epoch == bounds.epoch;
            match place(&state, cursor, &bounds).ok_or_else(HttpProblem::other_log)? {
                seq if is_own && seq > bounds.head => Err(HttpProblem::beyond_the_log()),
                seq => Ok(Some(seq)),
            }
        };
    let after = parse_cursor("after", &query.after, place_after)?;
    let before = parse_cursor("before", &query.before, place_before)?;
    let scope = scope_tag(reader.scope.as_deref());
    let remarks_tag = remarks.tag();
    let etag = format!("W/\"{}-{}-{}{scope}{remarks_tag}\"", bounds.epoch, bounds.oldest, bounds.head);
    if query.since.is_none() && not_modified(request.headers(), &etag) {
        return Ok(still_current(&etag));
    }
    let head = bounds.head.next();
    let scan = NewsScan {
        epoch: bounds.epoch.clone(),
        generation: ring.generation,
        before: before.unwrap_or(head),
        after: after.unwrap_or(Seq::NONE),
        since: query.since.map(|since| since.instant(state.now())),
        filter: query.filter.within(reader.scope.clone()),
        limit: query.limit.unwrap_or(LIMIT_DEFAULT),
        within: state.settings().limits.handler,
    };
    let job = PageJob::of(&request, &state);
    let (shared, address) = (Arc::clone(&state), job.address());
    let mut page = job.run(async move { news_page::make(&shared, address, scan).await }).await??;
    let (reserved, cut_short) = (page.reserved.take(), page.cut_short);
    let next = page.next.map(|seq| Cursor { epoch: bounds.epoch.clone(), seq });
    let next = next.map(|before| next_page(request.query_string(), &before));
    let link = next.as_ref().map(|next| format!("<{next}>; rel=\"next\""));
    let body = body(next, after, &bounds, page, query.content, remarks);
    let body = match reserved {
        // More was reserved than the page has become.
        Some(mut reserved) => {
            reserved.keep(body.len());
            body.with_reservation(reserved)
        }
        None => body,
    };
    let mut response = revalidated_json(&etag, body);
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    if cut_short {
        // The same request may have more to show a moment later.
        response.headers_mut().remove(header::ETAG);
    }
    Ok(response)
}

/// Finds the number that an id stands for in the epoch of the ring.
type PlaceOf = fn(&AppState, Cursor, &LogBounds) -> Option<Seq>;

/// The number up to which a client with this id has everything.
fn place_after(state: &AppState, id: Cursor, bounds: &LogBounds) -> Option<Seq> {
    // A page does not wait.
    match state.aliases.resolve(&id, &bounds.epoch, Duration::MAX) {
        IdAlias::At(seq) => Some(seq),
        IdAlias::NotYet | IdAlias::None => None,
    }
}

/// The number of the event before which a page ends: it follows the one before.
fn place_before(state: &AppState, id: Cursor, bounds: &LogBounds) -> Option<Seq> {
    if id.epoch == bounds.epoch {
        return Some(id.seq);
    }
    place_after(state, Cursor { seq: id.seq.previous(), ..id }, bounds).map(Seq::next)
}

/// The page as JSON; the events are the bytes that all clients share.
fn body(
    next: Option<String>,
    after: Option<Seq>,
    bounds: &LogBounds,
    page: NewsPage,
    content: ContentHtml,
    remarks: QueryRemarks,
) -> SharedBody {
    let id = |seq| Cursor { epoch: bounds.epoch.clone(), seq };
    let mut body = SharedBody::from(&b"{\"items\":["[..]);
    for (n, frame) in page.frames.iter().enumerate() {
        if n > 0 {
            body.push(&b","[..]);
        }
        push_event(&mut body, frame, content);
    }
    let oldest = page.log_oldest.unwrap_or(bounds.oldest).max(bounds.oldest);
    let missed = after.map_or(0, |after| oldest.0.saturating_sub(after.next().0));
    let oldest = (oldest <= bounds.head).then(|| id(oldest));
    let rest = PageEnd { next, missed, oldest, head: id(bounds.head), remarks };
    let rest = serde_json::to_string(&rest).expect("our own types have a JSON form");
    body.push(&b"],"[..]);
    body.push(Bytes::from(rest).slice(1..));
    body
}

/// Adds an event; the bytes are those that all clients share.
fn push_event(body: &mut SharedBody, frame: &Frame, content: ContentHtml) {
    match content {
        ContentHtml::Included => body.push(frame.json()),
        ContentHtml::LeftOut => frame.json_without_content().into_iter().for_each(|part| body.push(part)),
    }
}

/// What follows the items of a page.
#[derive(Serialize)]
struct PageEnd {
    next: Option<String>,
    /// Events after `after` that the log no longer has.
    missed: u64,
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
    request: HttpRequest,
    state: web::Data<AppState>,
    id: web::Path<String>,
    reader: AuthorisedReader,
) -> Result<HttpResponse, HttpProblem> {
    let id: Cursor = id.parse().map_err(|_| HttpProblem::bad_parameter("id", EXPECTED_ID))?;
    let content = NewsQuery::parse_event(request.query_string())?.content;
    if !state.ring.state().filled {
        return Err(HttpProblem::not_filled());
    }
    let job = PageJob::of(&request, &state);
    let frame = match state.ring.get(&id) {
        RingLookup::Found(frame) => frame,
        RingLookup::Unknown => return Err(unknown()),
        RingLookup::NotHere if id.seq < state.ring.log_oldest() => return Err(HttpProblem::no_longer_kept()),
        RingLookup::NotHere => {
            let (shared, within) = (Arc::clone(&state), state.settings().limits.handler * 4 / 5);
            match job.run(async move { news_page::look_up(&shared, &id, within).await }).await? {
                LogLookup::Found(frame) => frame.into(),
                LogLookup::TooOld => return Err(HttpProblem::no_longer_kept()),
                // The ring will know in a moment.
                LogLookup::Unavailable(LogUnavailable::OtherLog) => return Err(unknown()),
                LogLookup::Unavailable(unavailable) => return Err(unavailable.into()),
            }
        }
    };
    if !reader.may_see(&frame.category) {
        return Err(unknown());
    }
    let mut body = SharedBody::default();
    push_event(&mut body, &frame, content);
    // An event never changes.
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "max-age=86400, immutable"))
        .body(job.reserve(body)?))
}

fn unknown() -> HttpProblem {
    HttpProblem::not_found("unknown event id")
}
