//! `GET /`, `/assets/{name}`, `/openapi.json`: the built-in page, a few compiled-in files and nothing from elsewhere.

use std::sync::LazyLock;

use actix_web::{
    HttpRequest, HttpResponse, ResponseError as _,
    http::header::{self, HeaderValue},
    web,
};
use bytes::Bytes;
use daemon::accept::AcceptedTypes;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    http::{conditional::not_modified, problem::HttpProblem},
    pages::body::SharedBody,
};

const INDEX: &str = include_str!("../../page/index.html");
/// A script that the browser loads as a module by its name; `app.js` is the entry.
macro_rules! script {
    ($name:literal) => {
        ($name, "text/javascript; charset=utf-8", include_str!(concat!("../../page/", $name)))
    };
}
const ASSETS: [(&str, &str, &str); 16] = [
    script!("app.js"),
    script!("connection.js"),
    script!("connection_panel.js"),
    script!("doctor.js"),
    script!("dom.js"),
    script!("fetch.js"),
    script!("filter.js"),
    script!("filter_panel.js"),
    script!("gateway.js"),
    script!("items.js"),
    script!("messages.js"),
    script!("shared_connection.js"),
    script!("sources.js"),
    script!("sparkline.js"),
    ("style.css", "text/css; charset=utf-8", include_str!("../../page/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("../../page/icon.svg")),
];

/// `GET /`
pub(super) async fn index(request: HttpRequest) -> HttpResponse {
    if wants_html(&request) {
        let mut response = compiled_in(&request, &INDEX_FILE);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        return response;
    }
    HttpResponse::Ok()
        .insert_header((header::VARY, "Accept"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .json(json!({
            "name": "newswire-gateway", "version": env!("CARGO_PKG_VERSION"), "docs": "/openapi.json",
        }))
}

/// `GET /assets/{name}`
pub(super) async fn asset(request: HttpRequest, name: web::Path<String>) -> HttpResponse {
    match ASSET_FILES.iter().find(|file| file.name == name.as_str()) {
        Some(file) => compiled_in(&request, file),
        None => HttpProblem::not_found("there is no such file").error_response(),
    }
}

/// `GET /openapi.json`
pub(super) async fn openapi(request: HttpRequest) -> HttpResponse {
    compiled_in(&request, &OPENAPI_FILE)
}

static INDEX_FILE: LazyLock<PageFile> =
    LazyLock::new(|| PageFile::new("", "text/html; charset=utf-8", INDEX));
static OPENAPI_FILE: LazyLock<PageFile> =
    LazyLock::new(|| PageFile::new("", "application/json", include_str!("../../openapi.json")));
static ASSET_FILES: LazyLock<Vec<PageFile>> = LazyLock::new(|| {
    ASSETS.iter().map(|(name, media_type, text)| PageFile::new(name, media_type, text)).collect()
});

/// A file of this program.
struct PageFile {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
    /// Of its content, so that it is the same in every process of a version.
    etag: String,
}

impl PageFile {
    fn new(name: &'static str, media_type: &'static str, text: &'static str) -> Self {
        let hash = news::hash_prefix(&Sha256::digest(text).into());
        Self { name, media_type, text, etag: format!("\"{hash:016x}\"") }
    }
}

/// The file, or 304. It is memory of the program: nothing is reserved for it.
///
/// A cache replaces the headers that it has by those of the 304 (RFC 9111, section 3.2), so these are the same; the
/// content security policy goes by the type.
fn compiled_in(request: &HttpRequest, file: &PageFile) -> HttpResponse {
    let is_current = not_modified(request.headers(), &file.etag);
    let mut response = if is_current { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .content_type(file.media_type)
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::ETAG, &*file.etag));
    match is_current {
        true => response.finish(),
        false => response.body(SharedBody::from(Bytes::from_static(file.text.as_bytes()))),
    }
}

/// Whether the client accepts the page; other clients get JSON.
fn wants_html(request: &HttpRequest) -> bool {
    let accepted = AcceptedTypes::of(request.headers());
    let html = accepted.acceptance("text/html");
    // Programs accept anything, and browsers name HTML.
    html.is_named() && html >= accepted.acceptance("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
        ASSETS.iter().filter(|(name, ..)| name.ends_with(".js")).map(|(name, _, text)| (*name, *text))
    }

    #[test]
    fn text_of_a_feed_cannot_become_markup() {
        const MARKUP: [&str; 9] = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "setHTML",
            "document.write",
            "DOMParser",
            "createContextualFragment",
            "eval(",
            "new Function",
        ];
        for (name, text) in scripts() {
            for forbidden in MARKUP {
                assert!(!text.contains(forbidden), "{name} has {forbidden}");
            }
        }
        for tag in INDEX.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
            let names: String = tag.split('"').step_by(2).collect();
            let inline =
                tag == "style" || tag == "script" || names.contains(" style=") || names.contains(" on");
            assert!(!inline, "inline code: <{tag}>");
        }
    }

    #[test]
    fn everything_that_the_page_loads_is_served_and_nothing_else() {
        let mut loaded: Vec<_> =
            INDEX.split("\"/assets/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        for (_, text) in scripts() {
            loaded.extend(text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next()));
        }
        loaded.sort_unstable();
        loaded.dedup();
        let mut served: Vec<_> = ASSETS.iter().map(|(name, ..)| *name).collect();
        served.sort_unstable();
        assert_eq!(loaded, served);
    }
}
