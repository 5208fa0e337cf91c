//! Requests, and the meaning of responses.

use std::time::Duration;

use fetch::{FailureClass, FetchResult};

use crate::{class, failure, full, origin::*, visit, visit_with, visitor};

const ETAG: &str = "W/\"a \u{e9} b\"";
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[tokio::test]
async fn a_document_has_everything_that_the_next_visit_needs() {
    let headers = format!(
        "ETag: {ETAG}\r\nLast-Modified: {DATE}\r\nContent-Type: text/xml; charset=x\r\nCache-Control: max-age=60\r\nAge: 20\r\n"
    );
    let origin = Origin::always(answer("200 OK", &headers, "<rss/>")).await;
    let visit = visit(&origin.url("/feed?a=1&b")).await;
    assert_eq!((visit.code, visit.body_bytes, visit.remote), (Some(200), 6, Some(origin.address)));
    assert_eq!(visit.cache.fresh_for, Some(Duration::from_secs(40)));
    assert!(visit.timings.total >= visit.timings.connect + visit.timings.first_byte);
    assert!(!format!("{visit:?}").contains("a=1"), "{visit:?}");
    let full = full(visit);
    assert_eq!(&full.body[..], b"<rss/>");
    assert_eq!((full.etag.as_deref(), full.last_modified.as_deref()), (Some(ETAG), Some(DATE)));
    assert_eq!(full.content_type.as_deref(), Some("text/xml; charset=x"));
    assert_eq!(full.url.as_str(), origin.url("/feed?a=1&b"));
    assert!(!full.is_delta);
}

#[tokio::test]
async fn a_first_request_has_the_documented_headers_and_no_others() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    visit(&origin.url("/feed?a=1&b#part")).await;
    let head = origin.requests().remove(0).to_lowercase();
    let mut lines: Vec<_> = head.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.remove(0), "get /feed?a=1&b http/1.1");
    let mut names: Vec<_> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept-encoding", "connection", "host", "user-agent"]);
    for line in [
        concat!("user-agent: newswire/", env!("CARGO_PKG_VERSION")),
        "connection: close",
        "accept-encoding: zstd,gzip,deflate,br",
    ] {
        assert!(lines.contains(&line), "{line} is not in {lines:?}");
    }
}

#[tokio::test]
async fn validators_are_sent_back_byte_for_byte_and_a_304_may_replace_them() {
    let head = "HTTP/1.1 304 Not Modified\r\nETag: \"2\"\r\nCache-Control: max-age=90\r\n\r\n";
    let origin = Origin::always(vec![say(head)]).await;
    let visit = visit_with(&visitor(), &origin.url("/feed"), Some(ETAG), Some("Yesterday, about noon")).await;
    assert_eq!(
        visit.answer,
        FetchResult::NotModified { etag: Some("\"2\"".to_owned()), last_modified: None }
    );
    assert_eq!((visit.code, visit.cache.fresh_for), (Some(304), Some(Duration::from_secs(90))));
    let request = origin.requests().remove(0);
    for line in [&format!("if-none-match: {ETAG}"), "if-modified-since: Yesterday, about noon", "a-im: feed"]
    {
        assert!(request.lines().any(|l| l == line), "{line} is not in {request}");
    }
}

#[tokio::test]
async fn a_304_to_an_unconditional_request_is_bad_http() {
    let origin = Origin::always(vec![say("HTTP/1.1 304 Not Modified\r\n\r\n")]).await;
    assert_eq!(class(&visit(&origin.url("/")).await), FailureClass::BadHttp);
}

#[tokio::test]
async fn a_226_is_a_delta_and_other_manipulations_are_refused() {
    let origin = Origin::start(|path| match path {
        "/feed" => answer("226 IM Used", "IM: feed\r\n", "<rss/>"),
        _ => answer("226 IM Used", "IM: vcdiff\r\n", "xyz"),
    })
    .await;
    assert!(full(visit_with(&visitor(), &origin.url("/feed"), Some("\"1\""), None).await).is_delta);
    let other = visit_with(&visitor(), &origin.url("/other"), Some("\"1\""), None).await;
    assert_eq!(class(&other), FailureClass::HttpStatus);
}

#[tokio::test]
async fn a_throttling_server_is_obeyed() {
    let origin = Origin::start(|path| match path {
        "/429" => answer("429 Too Many Requests", "Retry-After: 120\r\n", ""),
        "/503" => answer("503 Unavailable", "Retry-After: Sun, 06 Nov 1994 08:50:37 GMT\r\n", ""),
        _ => answer("503 Unavailable", "", ""),
    })
    .await;
    for (path, code, wait_s) in [("/429", 429, Some(120)), ("/503", 503, Some(60)), ("/none", 503, None)] {
        let visit = visit(&origin.url(path)).await;
        assert_eq!((&visit.answer, visit.code), (&FetchResult::Throttled, Some(code)));
        assert_eq!(visit.retry_after, wait_s.map(Duration::from_secs), "{path}");
    }
}

#[tokio::test]
async fn a_410_is_gone_and_every_other_error_status_is_a_failure() {
    let origin = Origin::start(|path| match path {
        "/403" => answer("403 Forbidden", "Retry-After: 7\r\ncf-mitigated: challenge\r\n", "<html>"),
        path => answer(&format!("{} Whatever", &path[1..]), "", ""),
    })
    .await;
    let gone = visit(&origin.url("/410")).await;
    assert_eq!((gone.answer, gone.code), (FetchResult::Gone, Some(410)));
    for code in [201, 204, 206, 300, 305, 400, 401, 404, 418, 500, 502, 599] {
        let visit = visit(&origin.url(&format!("/{code}"))).await;
        assert_eq!((class(&visit), visit.code), (FailureClass::HttpStatus, Some(code)));
    }
    let forbidden = visit(&origin.url("/403")).await;
    assert_eq!(forbidden.retry_after, Some(Duration::from_secs(7)));
    let message = "the server answered 403 Forbidden and asks for a challenge to be solved in a browser";
    assert_eq!(failure(&forbidden).message, message);
}

#[tokio::test]
async fn a_visit_is_shown_without_secrets() {
    let origin = Origin::start(|path| match path {
        "/feed?token=SECRET" => redirect(302, "/missing?session=SECRET"),
        _ => answer("404 Not Found", "Set-Cookie: id=SECRET\r\nETag: \"1\"\r\n", ""),
    })
    .await;
    let url = origin.url("/feed?token=SECRET").replace("http://", "http://SECRET:SECRET@");
    let visit = visit(&url).await;
    let json = serde_json::to_value(&visit).unwrap();
    assert!(!json.to_string().contains("SECRET") && !format!("{visit:?}").contains("SECRET"), "{json}");
    assert_eq!(json["status"], 404);
    assert_eq!(json["answer"], "failed");
    assert_eq!(json["redirects"][0]["to"], format!("http://{}/missing?session=…", origin.address));
    assert_eq!(json["headers"]["etag"], "\"1\"");
    assert_eq!(json["error"]["kind"], "http-status");
    assert!(json["timings"]["total_ms"].is_u64() && json["remote"] == origin.address.to_string());
}
