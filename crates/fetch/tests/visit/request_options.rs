//! Sources with their own request options.

use std::sync::{Arc, OnceLock};

use fetch::{
    FailureClass, FetchReport, FetchResult, Policy, RequestOptions, VisitRequest, Visitor, validator_key,
};
use news::{FeedUrl, ProxyChoice, Timestamp};

use crate::{NOW_MS, class, full, origin::*, policy, visitor};

fn request(url: &FeedUrl) -> VisitRequest<'_> {
    VisitRequest::new(url, Timestamp::from_millis(NOW_MS))
}

async fn visit_as(visitor: &Visitor, url: &str, options: &RequestOptions) -> FetchReport {
    let url = FeedUrl::try_new(url).unwrap();
    visitor.visit(&VisitRequest { options: Some(options), ..request(&url) }).await
}

#[tokio::test]
async fn the_headers_of_a_source_never_reach_another_host() {
    let other = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let away = other.url("/");
    let origin = Origin::start(move |_| redirect(301, &away)).await;
    let options = RequestOptions::default().with_header("X-Key", "TOPSECRET").unwrap();
    let options = options.with_cookie("session=TOPSECRET").unwrap().with_agent("example/1").unwrap();
    for options in [options.clone().with_basic("user:TOPSECRET"), options.with_bearer("TOPSECRET")] {
        full(visit_as(&visitor(), &origin.url("/"), &options.unwrap()).await);
    }
    let (here, there) = (origin.requests().concat().to_lowercase(), other.requests().concat().to_lowercase());
    for sent in ["x-key: topsecret", "cookie: session=topsecret", "authorization: bearer topsecret"] {
        assert!(here.contains(sent), "{here}");
    }
    assert!(here.contains("authorization: basic dxnlcjput1btrunsrvq="), "{here}");
    for secret in ["x-key", "cookie", "authorization", "secret"] {
        assert!(!there.contains(secret), "{there}");
    }
    for head in [here, there] {
        assert_eq!(head.matches("user-agent: example/1\r\n").count(), 2, "{head}");
        assert_eq!(head.matches("user-agent").count(), 2, "{head}");
    }
}

#[tokio::test]
async fn what_a_source_sends_comes_back_with_a_redirect_that_returns_to_it_and_nowhere_else() {
    let login = Arc::new(OnceLock::<String>::new());
    let to_login = Arc::clone(&login);
    let origin = Origin::start(move |path| match path {
        "/feed" => redirect(302, to_login.get().unwrap()),
        _ => answer("200 OK", "", "<rss/>"),
    })
    .await;
    let home = origin.url("/feed?ticket=1");
    let other = Origin::start(move |_| redirect(302, &home)).await;
    login.set(other.url("/login")).unwrap();
    let options = RequestOptions::default().with_header("X-Key", "TOPSECRET").unwrap();
    let options = options.with_cookie("session=TOPSECRET").unwrap().with_bearer("TOPSECRET").unwrap();
    full(visit_as(&visitor(), &origin.url("/feed"), &options).await);
    let here: Vec<_> = origin.requests().iter().map(|request| request.to_lowercase()).collect();
    assert_eq!(here.len(), 2, "{here:?}");
    for request in &here {
        for sent in ["x-key: topsecret", "cookie: session=topsecret", "authorization: bearer topsecret"] {
            assert!(request.contains(sent), "{request}");
        }
    }
    let there = other.requests().concat().to_lowercase();
    assert!(!there.contains("topsecret") && !there.contains("cookie"), "{there}");
    // Another port of the same host is another origin: this visit begins there.
    full(visit_as(&visitor(), &other.url("/login"), &options).await);
    let last = origin.requests().last().unwrap().to_lowercase();
    assert!(!last.contains("topsecret") && last.contains("ticket=1"), "{last}");
}

#[tokio::test]
async fn a_proxy_may_be_private_and_targets_are_still_guarded() {
    let proxy = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let canary = Origin::canary("127.0.0.5:0").await;
    // Nothing private is allowed here, not even the address of the proxy.
    let visitor = Visitor::try_new(Policy { allow: Vec::new(), ..policy() }).unwrap();
    let with_password = proxy.url("/").replace("//", "//user:TOPSECRET@");
    let options = RequestOptions::default().with_proxy(ProxyChoice::parse(&with_password).unwrap());
    // The proxy looks names up, so this one needs no resolver here.
    full(visit_as(&visitor, "http://feed.invalid/rss", &options).await);
    let received = proxy.requests().concat();
    assert!(received.starts_with("GET http://feed.invalid/rss HTTP/1.1\r\n"), "{received}");
    assert!(received.to_lowercase().contains("proxy-authorization: basic "), "{received}");
    let before = proxy.accepts();
    let port = canary.address.port();
    for refused in [
        format!("http://127.0.0.5:{port}/"),
        "http://2130706433/".to_owned(),
        "http://[::ffff:127.0.0.1]/".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://localhost/".to_owned(),
        "http://feed.localhost./".to_owned(),
        "http://feed.invalid:6379/".to_owned(),
    ] {
        let visit = visit_as(&visitor, &refused, &options).await;
        assert_eq!(class(&visit), FailureClass::BlockedAddress, "{refused}");
    }
    assert_eq!((proxy.accepts() - before, canary.accepts()), (0, 0));
}

#[tokio::test]
async fn a_proxy_cannot_be_used_to_reach_what_a_redirect_must_not_name() {
    let proxy = Origin::always(redirect(302, "http://10.0.0.1/secret")).await;
    let options = RequestOptions::default().with_proxy(ProxyChoice::parse(&proxy.url("/")).unwrap());
    let visit = visit_as(&visitor(), "http://feed.invalid/", &options).await;
    assert_eq!((class(&visit), proxy.accepts()), (FailureClass::BlockedAddress, 1));
}

#[tokio::test]
async fn a_source_may_have_a_longer_or_a_shorter_body_than_the_others() {
    let origin = Origin::always(answer("200 OK", "", [b'x'; 3000])).await;
    let visitor = Visitor::try_new(Policy { body_bytes_max: 2000, ..policy() }).unwrap();
    let url = FeedUrl::try_new(&origin.url("/")).unwrap();
    for (body_bytes_max, fits) in [(None, false), (Some(2999), false), (Some(3000), true)] {
        let visit = visitor.visit(&VisitRequest { body_bytes_max, ..request(&url) }).await;
        assert_eq!(matches!(visit.answer, FetchResult::Full(_)), fits, "{body_bytes_max:?}");
    }
}

#[tokio::test]
async fn a_validator_is_sent_to_the_address_that_issued_it_and_to_no_other() {
    let origin = Origin::start(|path| match path {
        "/feed" => redirect(302, "/today"),
        _ => answer("304 Not Modified", "", ""),
    })
    .await;
    let url = FeedUrl::try_new(&origin.url("/feed")).unwrap();
    let today = validator_key(&FeedUrl::try_new(&origin.url("/today")).unwrap());
    let conditional = VisitRequest { etag: Some("\"v1\""), validator_key: Some(today), ..request(&url) };
    let visit = visitor().visit(&conditional).await;
    assert_eq!(visit.answer.as_str(), "not-modified");
    let sent: Vec<_> = origin.requests().iter().map(|r| r.to_lowercase().contains("if-none-match")).collect();
    assert_eq!(sent, [false, true]);
    let of_another = VisitRequest { validator_key: Some(today ^ 1), ..conditional };
    assert_eq!(
        class(&visitor().visit(&of_another).await),
        FailureClass::BadHttp,
        "a 304 to an unconditional request"
    );
}
