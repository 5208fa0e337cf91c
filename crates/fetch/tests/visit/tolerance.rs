//! What servers send that is not quite as the standards have it.

use fetch::{FailureClass, Policy, RequestOptions, VisitRequest, Visitor};
use news::{FeedUrl, Timestamp};

use crate::{NOW_MS, class, failure, full, origin::*, policy};

#[tokio::test]
async fn a_port_in_fetch_ports_is_visited_and_any_other_is_refused_by_the_name_of_the_key() {
    // A proxy stands for the public internet: it answers for every name.
    let proxy = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let options = RequestOptions::default().with_proxy(FeedUrl::try_new(&proxy.url("/")).unwrap());
    let visitor = Visitor::try_new(Policy { ports: vec![80, 8443], ..policy() }).unwrap();
    for (url, visited) in [
        ("http://feeds.example/", true),
        ("http://feeds.example:8443/", true),
        ("http://8.8.8.8:8443/", true),
        ("http://feeds.example:8080/", false),
        ("http://feeds.example:443/", false),
        ("http://8.8.8.8:8080/", false),
    ] {
        let url = FeedUrl::try_new(url).unwrap();
        let request = VisitRequest::new(&url, Timestamp::from_millis(NOW_MS));
        let visit = visitor.visit(&VisitRequest { options: Some(&options), ..request }).await;
        if visited {
            full(visit);
            continue;
        }
        assert_eq!(class(&visit), FailureClass::BlockedAddress, "{url}");
        let port = url.secret().port_or_known_default().unwrap();
        let message =
            format!("port {port} is not a web port (fetch.ports = [80, 8443]); add it there to permit it");
        assert!(failure(&visit).message.ends_with(&message), "{}", failure(&visit).message);
    }
    assert_eq!(proxy.accepts(), 3);
}
