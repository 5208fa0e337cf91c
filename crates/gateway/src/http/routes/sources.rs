//! `GET /sources`, `/categories`: the sources and their health, as the daemon last reported them.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, Responder, ResponseError as _, http::header, web};
use news::{SourceInFull, SourceStatus};
use serde_json::json;

use crate::{auth::authenticator::AuthorisedReader, http::problem::HttpProblem, state::AppState};

/// `GET /sources`: without the last visits, which would be most of the response.
pub(super) async fn list(state: web::Data<AppState>, reader: AuthorisedReader) -> impl Responder {
    let mut sources = state.sources.all();
    sources.retain(|source| reader.may_see(&source.category));
    let short = |source: &SourceStatus| SourceStatus { attempts: Vec::new(), ..source.clone() };
    let sources: Vec<_> = sources.iter().map(|source| short(source)).collect();
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-cache")).json(json!({ "sources": sources }))
}

/// `GET /sources/{id}`
pub(super) async fn one(
    state: web::Data<AppState>,
    id: web::Path<String>,
    reader: AuthorisedReader,
) -> HttpResponse {
    match state.sources.get(&id).filter(|source| reader.may_see(&source.category)) {
        Some(source) => {
            let source = SourceInFull::from(SourceStatus::clone(&source));
            HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-cache")).json(source)
        }
        None => HttpProblem::not_found("unknown source id").error_response(),
    }
}

/// `GET /categories`
pub(super) async fn categories(state: web::Data<AppState>, reader: AuthorisedReader) -> impl Responder {
    let mut counts = BTreeMap::<String, u64>::new();
    for source in state.sources.all().iter().filter(|source| reader.may_see(&source.category)) {
        *counts.entry(source.category.clone()).or_default() += 1;
    }
    let categories: Vec<_> = counts
        .into_iter()
        .map(|(category, sources)| json!({ "category": category, "sources": sources }))
        .collect();
    let body = json!({ "categories": categories });
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-cache")).json(body)
}
