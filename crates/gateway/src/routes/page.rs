//! The built-in page: three files of our own, nothing from anywhere else.

use actix_web::{HttpRequest, HttpResponse, Responder, ResponseError as _, http::header, web};
use serde_json::json;

use super::wants_html;
use crate::problem::Problem;

const INDEX: &str = include_str!("../page/index.html");
const ASSETS: [(&str, &str, &str); 3] = [
    ("app.js", "text/javascript; charset=utf-8", include_str!("../page/app.js")),
    ("style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
];

/// `GET /`
pub(super) async fn index(request: HttpRequest) -> impl Responder {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::VARY, "Accept")).insert_header((header::CACHE_CONTROL, "no-cache"));
    if wants_html(&request) {
        return response.content_type("text/html; charset=utf-8").body(INDEX);
    }
    response.json(json!({
        "name": "newswire-gateway", "version": env!("CARGO_PKG_VERSION"), "docs": "/openapi.json",
    }))
}

/// `GET /assets/{name}`
pub(super) async fn asset(name: web::Path<String>) -> HttpResponse {
    match ASSETS.iter().find(|(known, ..)| *known == name.as_str()) {
        Some((_, kind, text)) => HttpResponse::Ok()
            .content_type(*kind)
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .body(*text),
        None => Problem::not_found("there is no such file").error_response(),
    }
}
