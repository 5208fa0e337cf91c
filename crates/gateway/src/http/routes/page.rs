//! `GET /`, `/assets/{name}`: the built-in page, a few compiled-in files and nothing from elsewhere.

use actix_web::{HttpRequest, HttpResponse, Responder, ResponseError as _, http::header, web};
use daemon::accept::AcceptedTypes;
use serde_json::json;

use crate::http::problem::HttpProblem;

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
        None => HttpProblem::not_found("there is no such file").error_response(),
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
