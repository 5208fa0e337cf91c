//! `GET /sources`, `/categories`: the sources and their health, as the daemon last reported them, in pages.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::header, web};

use crate::{
    auth::{authenticator::AuthorisedReader, scope::CategoryScope},
    http::{
        conditional::not_modified,
        page_job::{PageJob, revalidated_json, still_current},
        problem::HttpProblem,
        query::{QUERY_BYTES_MAX, number},
    },
    ingest::source_directory::{CategoryEntry, RenderedSource},
    pages::{
        body::SharedBody,
        list_page::{self, LIMIT_MAX, ListElement, ListRequest},
    },
    state::AppState,
};

/// `GET /sources`: `{"sources":[…],"next":"/sources?…"|null}`, without the last visits, which would be most of it.
pub(super) async fn list(
    request: HttpRequest,
    state: web::Data<AppState>,
    reader: AuthorisedReader,
) -> Result<HttpResponse, HttpProblem> {
    let page = parse("/sources", request.query_string())?;
    let etag = etag("sources", &state.sources.version(), reader.scope.as_deref());
    let (shared, scope) = (Arc::clone(&state), reader.scope);
    let read_after = move |id: Option<&str>, limit: usize| {
        let sources = shared.sources.sources_after(id, limit).into_iter();
        let element = |source: Arc<RenderedSource>| ListElement {
            key: source.id.as_str().into(),
            json: source.status(),
            is_visible: is_visible(scope.as_deref(), &source.category),
        };
        sources.map(element).collect()
    };
    answer(&request, &state, &etag, list_page::make("sources", page, read_after)).await
}

/// `GET /categories`: `{"categories":[{"category":…,"sources":n}],"next":"/categories?…"|null}`.
pub(super) async fn categories(
    request: HttpRequest,
    state: web::Data<AppState>,
    reader: AuthorisedReader,
) -> Result<HttpResponse, HttpProblem> {
    let page = parse("/categories", request.query_string())?;
    let etag = etag("categories", &state.sources.categories_version(), reader.scope.as_deref());
    let (shared, scope) = (Arc::clone(&state), reader.scope);
    let read_after = move |category: Option<&str>, limit: usize| {
        let categories = shared.sources.categories_after(category, limit).into_iter();
        let element = |entry: CategoryEntry| ListElement {
            is_visible: is_visible(scope.as_deref(), &entry.category),
            key: (&*entry.category).into(),
            json: entry.json,
        };
        categories.map(element).collect()
    };
    answer(&request, &state, &etag, list_page::make("categories", page, read_after)).await
}

/// 304, or the page that the pool makes; 503 before there is a list to make it of.
async fn answer(
    request: &HttpRequest,
    state: &AppState,
    etag: &str,
    page: impl Future<Output = SharedBody> + Send + 'static,
) -> Result<HttpResponse, HttpProblem> {
    if !state.sources.is_listed() {
        return Err(HttpProblem::not_listed());
    }
    if not_modified(request.headers(), etag) {
        return Ok(still_current(etag));
    }
    let job = PageJob::of(request, state);
    let body = job.run(page).await?;
    Ok(revalidated_json(etag, job.reserve(body)?))
}

/// The version is read before the page is made: what changes meanwhile has another one.
fn etag(list: &str, version: &str, scope: Option<&CategoryScope>) -> String {
    let scope = scope.map_or_else(String::new, |scope| format!("-{:016x}", scope.hash()));
    format!("W/\"{list}-{version}{scope}\"")
}

fn is_visible(scope: Option<&CategoryScope>, category: &str) -> bool {
    scope.is_none_or(|scope| scope.allows(category))
}

/// `limit` and `after`; other parameters mean nothing here, and empty ones nowhere.
fn parse(path: &'static str, query: &str) -> Result<ListRequest, HttpProblem> {
    if query.len() > QUERY_BYTES_MAX {
        return Err(HttpProblem::long_query());
    }
    let mut request = ListRequest { path, after: None, limit: LIMIT_MAX };
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            _ if value.is_empty() => {}
            "limit" => {
                let limit = number("limit", &value, 1, LIMIT_MAX as u64)?;
                request.limit = usize::try_from(limit).unwrap_or(LIMIT_MAX);
            }
            "after" => request.after = Some(value.into_owned()),
            _ => {}
        }
    }
    Ok(request)
}

/// `GET /sources/{id}`
pub(super) async fn one(
    request: HttpRequest,
    state: web::Data<AppState>,
    id: web::Path<String>,
    reader: AuthorisedReader,
) -> Result<HttpResponse, HttpProblem> {
    let source = state.sources.get(&id).filter(|source| reader.may_see(&source.category));
    let missing = || match state.sources.is_listed() {
        true => HttpProblem::not_found("unknown source id"),
        false => HttpProblem::not_listed(),
    };
    let source = source.ok_or_else(missing)?;
    let body = PageJob::of(&request, &state).reserve(source.full().into())?;
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(body))
}
