//! Steps of a visit without a network.

use reqwest::header::LOCATION;

use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn follow(feed: &str, at: &str, location: &str) -> Result<FeedUrl, Failure> {
    let (feed, at) = (FeedUrl::try_new(feed).unwrap(), FeedUrl::try_new(at).unwrap());
    let now = Timestamp::from_millis(0);
    let request = VisitRequest::new(&feed, now);
    let head = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(location).unwrap())]);
    Visitor::try_new(Policy::default()).unwrap().redirect_target(&request, &at, &head, 0)
}

#[test]
fn a_feed_with_credentials_is_never_followed_from_https_to_http() {
    let refused = follow("https://u:p@a.example/", "https://b.example/", "http://b.example/").unwrap_err();
    assert_eq!(refused.class, FailureClass::Redirect);
    for (feed, at, to) in [
        ("https://a.example/", "https://a.example/", "http://a.example/"),
        ("https://u:p@a.example/", "https://a.example/", "https://b.example/"),
        ("http://u:p@a.example/", "http://a.example/", "https://a.example/"),
        ("http://u:p@a.example/", "http://a.example/", "http://a.example/2"),
    ] {
        assert_eq!(follow(feed, at, to).unwrap().secret(), &url(to));
    }
}

#[test]
fn credentials_in_a_redirect_are_ignored() {
    let to = follow("http://a.example/", "http://a.example/", "http://u:p@a.example/2").unwrap();
    assert_eq!(to.secret(), &url("http://a.example/2"));
}

#[test]
fn credentials_are_shared_with_the_same_origin_or_its_upgrade_to_https() {
    for (from, to, same) in [
        ("http://a.example/", "http://a.example:80/x", true),
        ("http://a.example/", "https://a.example/", true),
        ("https://a.example/", "http://a.example/", false),
        ("http://a.example/", "http://a.example:8080/", false),
        ("http://a.example:8080/", "https://a.example:8443/", false),
        ("http://a.example/", "http://b.a.example/", false),
        ("http://a.example/", "http://a.example./", false),
    ] {
        assert_eq!(is_same_origin_or_upgrade(&url(from), &url(to)), same, "{from} {to}");
    }
}

#[test]
fn a_policy_under_which_no_visit_can_succeed_is_refused_with_the_setting() {
    let complaint = |policy| Visitor::try_new(policy).err().unwrap().to_string();
    let zero = Policy { timeout_total: Duration::ZERO, ..Policy::default() };
    assert_eq!(complaint(zero), "timeout_total is zero, so that no visit can succeed; set a positive value");
    let agent = Policy { user_agent: "a\nb".to_owned(), ..Policy::default() };
    assert_eq!(
        complaint(agent),
        "the user agent \"a\\nb\" is not a valid HTTP header value; use printable ASCII characters"
    );
}
