//! Redirects: followed by the visit itself, each hop checked.

use fetch::FailureClass;

use crate::{class, failure, full, origin::*, visit};

#[tokio::test]
async fn five_redirects_are_followed_and_reported() {
    let origin = Origin::start(|path| match path {
        "/a/1" => redirect(301, "/a/2?x=1"),
        "/a/2?x=1" => redirect(302, "3"),
        "/a/3" => redirect(303, "../4"),
        "/4" => redirect(307, "?y=\u{e9}#part"),
        "/4?y=%C3%A9" => redirect(308, "/5"),
        "/5" => answer("200 OK", "", "<rss/>"),
        _ => answer("404 Not Found", "", ""),
    })
    .await;
    let visit = visit(&origin.url("/a/1")).await;
    let reported: Vec<_> =
        visit.hops.iter().map(|hop| (hop.code, hop.is_permanent(), hop.to.secret().as_str())).collect();
    let expected = [
        (301, true, origin.url("/a/2?x=1")),
        (302, false, origin.url("/a/3")),
        (303, false, origin.url("/4")),
        (307, false, origin.url("/4?y=%C3%A9#part")),
        (308, true, origin.url("/5")),
    ];
    assert_eq!(reported, expected.each_ref().map(|(code, permanent, to)| (*code, *permanent, to.as_str())));
    assert_eq!(full(visit).url.as_str(), origin.url("/5"));
}

#[tokio::test]
async fn a_redirect_without_a_target_is_a_failure() {
    let origin = Origin::start(|path| match path {
        "/none" => answer("302 Found", "", ""),
        "/empty" => redirect(302, ""),
        "/long" => redirect(302, &format!("/{}", "x".repeat(3000))),
        "/bad" => redirect(302, "http://[::1"),
        path => redirect(302, &path[1..]),
    })
    .await;
    for path in ["/none", "/empty"] {
        assert_eq!(class(&visit(&origin.url(path)).await), FailureClass::Redirect, "{path}");
    }
    for path in ["/long", "/bad", "/file:///etc/passwd", "/ftp://127.0.0.1/", "/gopher://127.0.0.1/x"] {
        assert_eq!(class(&visit(&origin.url(path)).await), FailureClass::BadUrl, "{path}");
    }
    for path in ["/data:text/xml,SECRET", "/javascript:alert(1)"] {
        let visit = visit(&origin.url(path)).await;
        assert_eq!(class(&visit), FailureClass::BadUrl, "{path}");
        assert!(!failure(&visit).message.contains("SECRET"));
    }
}

#[tokio::test]
async fn credentials_stay_with_their_host_and_are_not_restored() {
    let home = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let back = std::sync::Arc::clone(&home);
    let other = Origin::start(move |_| redirect(302, back.get().unwrap())).await;
    let away = other.url("/away");
    let origin = Origin::start(move |path| match path {
        "/feed" => redirect(302, "/moved"),
        "/moved" => redirect(302, &away),
        _ => answer("200 OK", "", "<rss/>"),
    })
    .await;
    home.set(origin.url("/home").replace("http://", "http://evil:evil@")).unwrap();
    let visit = visit(&origin.url("/feed").replace("//", "//us%40r:p%C3%A4ss@")).await;
    let full = full(visit);
    assert_eq!(full.url.as_str(), origin.url("/home"));
    let credentials = |request: &String| request.to_lowercase().contains("authorization: basic");
    let sent: Vec<_> = origin.requests().iter().map(credentials).collect();
    assert_eq!(sent, [true, true, false]);
    assert!(origin.requests()[0].contains("Basic dXNAcjpww6Rzcw=="), "{}", origin.requests()[0]);
    assert!(!other.requests().iter().any(credentials));
    for request in origin.requests().iter().chain(&other.requests()) {
        let head = request.to_lowercase();
        assert!(!head.contains("referer") && !head.contains("cookie") && !head.contains('@'), "{request}");
    }
}

#[tokio::test]
async fn no_cookie_is_ever_stored() {
    let origin = Origin::start(|path| match path {
        "/feed" => answer("302 Found", "Set-Cookie: id=1; Path=/\r\nLocation: /2\r\n", ""),
        _ => answer("200 OK", "", "<rss/>"),
    })
    .await;
    visit(&origin.url("/feed")).await;
    assert_eq!(origin.requests().len(), 2);
    assert!(!origin.requests()[1].to_lowercase().contains("cookie"));
}
