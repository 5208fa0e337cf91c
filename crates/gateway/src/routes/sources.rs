//! The sources and their health, as the daemon last told.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, Responder, ResponseError as _, http::header, web};
use news::{SourceInFull, SourceStatus};
use serde_json::json;

use super::Shared;
use crate::{problem::Problem, readers::Reader};

/// `GET /sources`: without the last visits, which would make most of it.
pub(super) async fn list(shared: web::Data<Shared>, reader: Reader) -> impl Responder {
    let mut sources = shared.hub.sources.all();
    sources.retain(|source| reader.may_see(&source.category));
    let short = |source: &SourceStatus| SourceStatus { attempts: Vec::new(), ..source.clone() };
    let sources: Vec<_> = sources.iter().map(|source| short(source)).collect();
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-cache")).json(json!({ "sources": sources }))
}

/// `GET /sources/{id}`
pub(super) async fn one(shared: web::Data<Shared>, id: web::Path<String>, reader: Reader) -> HttpResponse {
    match shared.hub.sources.get(&id).filter(|source| reader.may_see(&source.category)) {
        Some(source) => {
            let source = SourceInFull::from(SourceStatus::clone(&source));
            HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-cache")).json(source)
        }
        None => Problem::not_found("there is no source of this id").error_response(),
    }
}

/// `GET /categories`
pub(super) async fn categories(shared: web::Data<Shared>, reader: Reader) -> impl Responder {
    let mut counts = BTreeMap::<String, u64>::new();
    for source in shared.hub.sources.all().iter().filter(|source| reader.may_see(&source.category)) {
        *counts.entry(source.category.clone()).or_default() += 1;
    }
    let categories: Vec<_> = counts
        .into_iter()
        .map(|(category, sources)| json!({ "category": category, "sources": sources }))
        .collect();
    let body = json!({ "categories": categories });
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-cache")).json(body)
}
