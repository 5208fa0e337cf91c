//! Redirects: followed by the visit itself, each hop checked.

use std::sync::atomic::{AtomicUsize, Ordering};

use fetch::{FailureClass, Policy, RequestOptions, VisitRequest, Visitor};
use news::{FeedUrl, Timestamp};

use crate::{NOW_MS, class, failure, full, origin::*, policy, visit, visit_with};

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
async fn a_target_that_cannot_be_requested_is_named_with_the_reason() {
    for (location, expected) in [
        (format!("/{}", "a".repeat(2048)), "redirected to an address of 2069 bytes; the maximum is 2048"),
        (
            "http://other.example:99999/?token=SECRET".to_owned(),
            "redirected to an address that is not valid: invalid port number",
        ),
        (
            "http://[::1/?token=SECRET".to_owned(),
            "redirected to an address that is not valid: invalid IPv6 address",
        ),
        ("http:///?token=SECRET@".to_owned(), "redirected to an address that is not valid: "),
        ("data:text/xml,SECRET".to_owned(), "redirected to an address that is not http or https (data:…)"),
    ] {
        let origin = Origin::start_on("127.0.0.1", 0, redirect(302, &location)).await;
        let failure = failure(&visit(&origin.url("/")).await);
        assert_eq!(failure.class, FailureClass::BadUrl, "{failure}");
        let expected = expected.replace("2069", &(2048 + origin.url("/").len()).to_string());
        assert!(failure.message.starts_with(&expected) && !failure.message.contains("SECRET"), "{failure}");
        assert!(!failure.message.contains("(:"), "{failure}");
    }
}

#[tokio::test]
async fn credentials_are_sent_to_their_host_only_and_a_redirect_cannot_replace_them() {
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
    assert_eq!(sent, [true, true, true]);
    let requests = origin.requests();
    assert!(requests.iter().all(|request| request.contains("Basic dXNAcjpww6Rzcw==")), "{requests:?}");
    assert!(!other.requests().iter().any(credentials));
    for request in origin.requests().iter().chain(&other.requests()) {
        let head = request.to_lowercase();
        assert!(!head.contains("referer") && !head.contains("cookie") && !head.contains('@'), "{request}");
    }
}

/// The cookies of each request so far.
fn cookies(origin: &Origin) -> Vec<String> {
    let cookie = |head: &String| {
        let mut lines = head.lines().map(str::to_lowercase);
        let line = lines.find_map(|line| line.strip_prefix("cookie: ").map(str::to_owned));
        line.unwrap_or_default()
    };
    origin.requests().iter().map(cookie).collect()
}

#[tokio::test]
async fn a_cookie_lives_for_one_visit_and_on_its_own_host_only() {
    let other = Origin::start_on("127.0.0.2", 0, answer("200 OK", "Set-Cookie: b=2\r\n", "<rss/>")).await;
    let away = other.url("/feed");
    let origin = Origin::start(move |path| match path {
        "/feed" => answer("302 Found", "Set-Cookie: id=1; Path=/\r\nLocation: /2\r\n", ""),
        "/2" => answer("302 Found", &format!("Set-Cookie: id=2; Path=/\r\nLocation: {away}\r\n"), ""),
        _ => answer("200 OK", "", "<rss/>"),
    })
    .await;
    let allow = vec!["127.0.0.0/8".parse().unwrap()];
    let visitor = Visitor::try_new(Policy { allow, ..policy() }).unwrap();
    for _ in 0..2 {
        full(visit_with(&visitor, &origin.url("/feed"), None, None).await);
    }
    assert_eq!(cookies(&origin), ["", "id=1", "", "id=1"]);
    assert_eq!(cookies(&other), ["", ""]);
}

#[tokio::test]
async fn a_cookie_wall_is_passed_within_one_visit() {
    // The script does not see headers, so the server counts.
    let wall = |steps: &'static [(&'static str, &'static str)]| {
        let nth = AtomicUsize::new(0);
        Origin::start(move |_| match steps.get(nth.fetch_add(1, Ordering::SeqCst)) {
            Some((cookie, to)) => {
                answer("302 Found", &format!("Set-Cookie: {cookie}\r\nLocation: {to}\r\n"), "")
            }
            None => answer("200 OK", "", "<rss/>"),
        })
    };
    // To itself, over another address and back, with a second cookie, and with a new value each time.
    for (steps, sent) in [
        (&[("a=1", "/feed")][..], &["", "a=1"][..]),
        (&[("a=1", "/check"), ("b=2", "/feed")], &["", "a=1", "a=1; b=2"]),
        (&[("a=1", "/feed"), ("b=2", "/feed")], &["", "a=1", "a=1; b=2"]),
        (&[("a=1", "/feed"), ("a=2", "/feed"), ("a=3", "/feed")], &["", "a=1", "a=2", "a=3"]),
    ] {
        let origin = wall(steps).await;
        full(visit(&origin.url("/feed")).await);
        assert_eq!(cookies(&origin), sent);
    }
    // The same cookie again is a loop, and five redirects are enough.
    let origin = wall(&[("a=1", "/feed"), ("a=1", "/feed"), ("a=1", "/feed")]).await;
    let refused = visit(&origin.url("/feed")).await;
    assert_eq!(
        failure(&refused).to_string(),
        format!("redirect: the redirects form a loop at {}", origin.url("/feed"))
    );
    assert_eq!(cookies(&origin), ["", "a=1"]);
    let endless = [
        ("a=1", "/feed"),
        ("a=2", "/feed"),
        ("a=3", "/feed"),
        ("a=4", "/feed"),
        ("a=5", "/feed"),
        ("a=6", "/feed"),
    ];
    let origin = wall(Box::leak(Box::new(endless))).await;
    let refused = visit(&origin.url("/feed")).await;
    assert_eq!(failure(&refused).to_string(), "redirect: more than 5 redirects");
    assert_eq!(origin.accepts(), 6);
}

#[tokio::test]
async fn a_server_cannot_replace_a_cookie_of_the_source() {
    let other = Origin::start_on("127.0.0.2", 0, answer("200 OK", "", "<rss/>")).await;
    let away = other.url("/");
    let origin = Origin::start(move |path| match path {
        "/feed" => answer("302 Found", "Set-Cookie: session=evil\r\nSet-Cookie: b=2\r\nLocation: /2\r\n", ""),
        _ => redirect(302, &away),
    })
    .await;
    let allow = vec!["127.0.0.0/8".parse().unwrap()];
    let visitor = Visitor::try_new(Policy { allow, ..policy() }).unwrap();
    let options = RequestOptions::default().with_cookie("session=mine").unwrap();
    let url = FeedUrl::try_new(&origin.url("/feed")).unwrap();
    let request = VisitRequest::new(&url, Timestamp::from_millis(NOW_MS));
    full(visitor.visit(&VisitRequest { options: Some(&options), ..request }).await);
    assert_eq!(cookies(&origin), ["session=mine", "session=mine; b=2"]);
    assert_eq!(cookies(&other), [""]);
}
