//! `fetch.allow` counts for the sources that lie in it, and for what never leaves it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use fetch::{
    AddressScope, Exchange, FailureClass, HttpTransport, Lookup, Policy, RequestOptions, Resolver,
    VisitRequest, Visitor,
};
use news::{FeedUrl, ProxyChoice, Timestamp};

use crate::{NOW_MS, failure};

/// A network of names: `in` and `in2` lie in the allowed one, `out` is public, `both` is both, `part` is also in a
/// private one that is not allowed.
struct Names;

impl Resolver for Names {
    fn lookup(&self, name: &str) -> Lookup {
        let found: &[&str] = match name {
            "in.example" => &["10.0.0.5"],
            "in2.example" => &["10.0.0.6", "10.0.0.7"],
            "out.example" => &["93.184.216.34"],
            "both.example" => &["93.184.216.34", "10.0.0.5"],
            "part.example" => &["10.0.0.5", "192.168.0.1"],
            "proxy.example" => &["192.168.0.9"],
            _ => &[],
        };
        let found: Vec<IpAddr> = found.iter().map(|ip| ip.parse().unwrap()).collect();
        Box::pin(async move { Ok(found) })
    }
}

/// Each of these hosts redirects to the next; the last one has the feed.
struct Chain {
    hosts: Vec<&'static str>,
    reached: Mutex<Vec<String>>,
}

impl HttpTransport for Chain {
    fn exchange(&self, request: reqwest::Request, _: SocketAddr) -> Exchange {
        let mut reached = self.reached.lock().unwrap();
        reached.push(request.url().host_str().unwrap().to_owned());
        let response = match self.hosts.get(reached.len()) {
            Some(next) => {
                let to = format!("http://{next}/{}", reached.len());
                http::Response::builder().status(302).header("location", to).body("")
            }
            None => http::Response::builder().body("<rss/>"),
        };
        Box::pin(async move { response.map(Into::into).map_err(io::Error::other) })
    }
}

/// A visitor over this chain of hosts.
fn visitor(allow: &[&str], hosts: &[&'static str]) -> (Visitor, Arc<Chain>) {
    let chain = Arc::new(Chain { hosts: hosts.to_vec(), reached: Mutex::default() });
    let allow = allow.iter().map(|network| network.parse().unwrap()).collect();
    let visitor = Visitor::with_resolver(Policy { allow, ..Policy::default() }, Arc::new(Names)).unwrap();
    (visitor.with_transport(Arc::clone(&chain) as Arc<dyn HttpTransport>), chain)
}

fn proxied() -> RequestOptions {
    let proxy = ProxyChoice::parse("http://proxy.example:3128").unwrap();
    RequestOptions::default().with_proxy(proxy)
}

/// Visits the first host, as a source that is configured with another address, or as something that a feed names.
/// Returns the hosts that were reached, and why the visit was refused.
async fn visit(
    allow: &[&str],
    scope: Option<AddressScope<'_>>,
    proxy: bool,
    hosts: &[&'static str],
) -> (usize, Option<String>) {
    let (visitor, chain) = visitor(allow, hosts);
    let url = FeedUrl::try_new(&format!("http://{}/", hosts[0])).unwrap();
    let proxied = proxied();
    let request = VisitRequest::new(&url, Timestamp::from_millis(NOW_MS));
    let scope = scope.unwrap_or(request.scope);
    let visit = visitor.visit(&VisitRequest { scope, options: proxy.then_some(&proxied), ..request }).await;
    let reached = chain.reached.lock().unwrap().len();
    if visit.code == Some(200) {
        return (reached, None);
    }
    let refused = failure(&visit);
    assert_eq!(refused.class, FailureClass::BlockedAddress, "{refused}");
    (reached, Some(refused.message))
}

const ALLOW: [&str; 1] = ["10.0.0.0/24"];

#[tokio::test]
async fn an_allowed_network_is_reached_from_inside_only() {
    for (hosts, reached) in [
        // Sources of that network, by name and by number, at any port.
        (&["in.example"][..], 1),
        (&["10.0.0.5:6379"], 1),
        (&["both.example"], 1),
        // Redirects within it, and out of it.
        (&["in.example", "10.0.0.6", "in2.example:8000"], 3),
        (&["10.0.0.5", "in2.example"], 2),
        (&["in.example", "out.example"], 2),
        // Redirects from outside, also of what had been inside or may be.
        (&["out.example", "in.example"], 1),
        (&["out.example", "10.0.0.5"], 1),
        (&["93.184.216.34", "in.example"], 1),
        (&["in.example", "out.example", "in.example"], 2),
        (&["both.example", "in.example"], 1),
        // What is not allowed, is not.
        (&["part.example"], 0),
        (&["192.168.0.1"], 0),
        (&["in.example", "192.168.0.1"], 1),
        (&["in.example", "out.example:6379"], 1),
    ] {
        let (found, refused) = visit(&ALLOW, None, false, hosts).await;
        assert_eq!(found, reached, "{hosts:?}: {refused:?}");
        assert_eq!(refused.is_none(), reached == hosts.len(), "{hosts:?}: {refused:?}");
    }
}

#[tokio::test]
async fn an_adopted_redirect_leads_into_an_allowed_network_only_if_its_source_lies_there() {
    for (configured, hosts, reached) in [
        ("in.example", &["in2.example"][..], 1),
        ("in.example", &["10.0.0.6", "10.0.0.5"], 2),
        ("10.0.0.5", &["in.example"], 1),
        ("in.example", &["out.example"], 1),
        ("out.example", &["in.example"], 0),
        ("93.184.216.34", &["10.0.0.5"], 0),
        ("both.example", &["in.example"], 0),
        ("in.example", &["out.example", "in.example"], 1),
    ] {
        let configured = FeedUrl::try_new(&format!("http://{configured}/")).unwrap();
        let scope = Some(AddressScope::Configured(&configured));
        let (found, refused) = visit(&ALLOW, scope, false, hosts).await;
        assert_eq!((found, refused.is_none()), (reached, reached == hosts.len()), "{configured} {hosts:?}");
    }
}

#[tokio::test]
async fn what_a_feed_or_a_page_names_is_reached_at_public_addresses_only() {
    for (host, reached) in
        [("in.example", 0), ("10.0.0.5", 0), ("both.example", 0), ("out.example", 1), ("out.example:81", 0)]
    {
        let (found, refused) = visit(&ALLOW, Some(AddressScope::Named), false, &[host]).await;
        assert_eq!((found, refused.is_none()), (reached, reached == 1), "{host}");
    }
}

#[tokio::test]
async fn a_proxy_reaches_an_allowed_network_only_for_a_source_with_its_number() {
    for (hosts, reached) in [
        (&["10.0.0.5"][..], 1),
        (&["10.0.0.5:6379", "10.0.0.6"], 2),
        // The proxy looks up names, and must refuse those that are private for it.
        (&["in.example"], 1),
        (&["in.example", "10.0.0.5"], 1),
        (&["out.example", "10.0.0.5"], 1),
        (&["10.0.0.5", "out.example", "10.0.0.5"], 2),
        (&["localhost"], 0),
    ] {
        let (found, refused) = visit(&ALLOW, None, true, hosts).await;
        assert_eq!((found, refused.is_none()), (reached, reached == hosts.len()), "{hosts:?}");
    }
}

#[tokio::test]
async fn a_network_of_everything_counts_everywhere() {
    let everything = ["0.0.0.0/0", "::/0"];
    for hosts in [&["out.example", "in.example"][..], &["part.example:1", "[::1]"], &["both.example"]] {
        assert_eq!(visit(&everything, None, false, hosts).await, (hosts.len(), None));
        assert_eq!(visit(&everything, Some(AddressScope::Named), false, hosts).await, (hosts.len(), None));
    }
    // A source that lies in it lies nowhere else.
    let (reached, refused) = visit(&["::/0", "10.0.0.0/24"], None, false, &["[::1]", "in.example"]).await;
    assert!(reached == 1 && refused.is_some(), "{refused:?}");
}

#[tokio::test]
async fn a_refusal_says_whether_fetch_allow_would_help() {
    let (_, own) = visit(&ALLOW, None, false, &["part.example"]).await;
    let message =
        "part.example is refused: 192.168.0.1 is private, not public; add it to fetch.allow to permit it";
    assert_eq!(own.unwrap(), message);
    for target in ["10.0.0.5", "192.168.0.1"] {
        let (_, foreign) = visit(&ALLOW, None, false, &["out.example", target]).await;
        let message = format!(
            "{target} is private, not public; fetch.allow counts only for a source whose own address lies in it"
        );
        assert_eq!(foreign.unwrap(), message);
    }
}

#[tokio::test]
async fn an_answer_is_from_inside_if_a_server_there_sent_it_itself() {
    let cases: [(&[&str], &[&'static str], bool, bool); 5] = [
        (&ALLOW, &["in.example", "in2.example"], false, true),
        (&ALLOW, &["out.example"], false, false),
        (&ALLOW, &["in.example", "out.example"], false, false),
        // What is behind a proxy is not known, and a network of everything has no inside.
        (&ALLOW, &["in.example"], true, false),
        (&["0.0.0.0/0"], &["in.example"], false, false),
    ];
    for (allow, hosts, proxy, is_inside) in cases {
        let (visitor, _) = visitor(allow, hosts);
        let url = FeedUrl::try_new(&format!("http://{}/", hosts[0])).unwrap();
        let proxied = proxied();
        let request = VisitRequest::new(&url, Timestamp::from_millis(NOW_MS));
        let request = VisitRequest { options: proxy.then_some(&proxied), ..request };
        let visit = visitor.visit(&request).await;
        assert_eq!(visit.code, Some(200), "{hosts:?}");
        assert_eq!(visitor.is_from_inside(&request, &visit), is_inside, "{hosts:?} {proxy}");
    }
}
