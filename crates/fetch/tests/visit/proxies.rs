//! Visits through proxies: HTTP, HTTPS and SOCKS5.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use fetch::{FailureClass, FormAnswer, Policy, RequestOptions, VisitRequest, Visitor};
use news::{FeedUrl, ProxyChoice, ProxyUrl, Timestamp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    NOW_MS, class, failure, full,
    guard::{Scripted, ips, scripted_with},
    origin::*,
    policy,
    tls::{authority, certificate, serve},
    visit_with,
};

/// A proxy that connects everything to one address, and records what it was asked for.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `user:password` is demanded if there is one.
    async fn socks(target: SocketAddr, credentials: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let record = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(name) = greet(&mut stream, credentials).await else { continue };
                record.lock().unwrap().push(name);
                let mut target = TcpStream::connect(target).await.unwrap();
                // Either side may close at any time.
                copy_bidirectional(&mut stream, &mut target).await.ok();
            }
        });
        Self { address, asked }
    }

    fn url(&self, scheme: &str, userinfo: &str) -> ProxyUrl {
        ProxyUrl::try_new(&format!("{scheme}://{userinfo}{}", self.address)).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The server's side of RFC 1928 and 1929: the address that was asked for, `None` if it is refused.
async fn greet(stream: &mut TcpStream, credentials: Option<&str>) -> Option<String> {
    assert_eq!(stream.read_u8().await.ok()?, 5);
    let methods = counted(stream).await?;
    let method = if credentials.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        stream.write_all(&[5, 0xff]).await.ok()?;
        return None;
    }
    stream.write_all(&[5, method]).await.ok()?;
    if let Some(credentials) = credentials {
        assert_eq!(stream.read_u8().await.ok()?, 1);
        let (user, password) = (counted(stream).await?, counted(stream).await?);
        let accepted = [user, password].join(&b':') == credentials.as_bytes();
        stream.write_all(&[1, u8::from(!accepted)]).await.ok()?;
        accepted.then_some(())?;
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.ok()?;
    let host = match head[3] {
        1 => std::net::Ipv4Addr::from(stream.read_u32().await.ok()?).to_string(),
        3 => String::from_utf8(counted(stream).await?).unwrap(),
        _ => format!("[{}]", std::net::Ipv6Addr::from(stream.read_u128().await.ok()?)),
    };
    let port = stream.read_u16().await.ok()?;
    let code = if host == "unreachable.example" { 4 } else { 0 };
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    (code == 0).then(|| format!("{host}:{port}"))
}

async fn counted(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::from(stream.read_u8().await.ok()?)];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

/// A visitor for which every name has no address, so that a lookup fails a visit.
fn without_names(policy: Policy) -> (Visitor, Arc<Scripted>) {
    scripted_with(policy, vec![Err("a name was looked up")])
}

#[tokio::test]
async fn a_socks_proxy_gets_names_and_no_lookups_happen_here() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    for (scheme, userinfo, credentials) in [
        ("socks5", "", None),
        ("socks5h", "us%3Aer:p%40ss@", Some("us:er:p@ss")),
        ("socks5", "u@", Some("u:")),
    ] {
        let proxy = Proxy::socks(origin.address, credentials).await;
        let policy = Policy { proxy: Some(proxy.url(scheme, userinfo)), ports: vec![80, 8080], ..policy() };
        let (visitor, resolver) = without_names(policy);
        let before = origin.requests().len();
        for url in ["http://feeds.example/rss", "http://other.example:8080/rss", "http://93.184.215.14/rss"] {
            let visit = visit_with(&visitor, url, None, None).await;
            assert_eq!(visit.remote, Some(proxy.address));
            full(visit);
        }
        assert_eq!(proxy.asked(), ["feeds.example:80", "other.example:8080", "93.184.215.14:80"]);
        assert_eq!(resolver.lookups.load(std::sync::atomic::Ordering::SeqCst), 0);
        // The origin sees an ordinary request, and nothing of the proxy.
        let sent = origin.requests()[before..].concat().to_lowercase();
        assert!(sent.starts_with("get /rss http/1.1\r\nhost: feeds.example\r\n"), "{sent}");
        assert!(!sent.contains("proxy"), "{sent}");
    }
}

#[tokio::test]
async fn tls_goes_through_a_proxy_of_any_kind_and_names_the_host() {
    let authority = authority();
    let target = serve(certificate("feeds.example"), Some(&authority)).await;
    let socks = Proxy::socks(target, None).await;
    let policy = Policy { authorities_pem: Some(authority.pem()), ..policy() };
    let (visitor, _) = without_names(Policy { proxy: Some(socks.url("socks5", "")), ..policy.clone() });
    assert_eq!(&full(visit_with(&visitor, "https://feeds.example/", None, None).await).body[..], b"<rss/>");
    let other = visit_with(&visitor, "https://other.example/", None, None).await;
    assert_eq!(class(&other), FailureClass::Tls, "the certificate is for the host, not for the proxy");
    assert_eq!(socks.asked(), ["feeds.example:443", "other.example:443"]);
    // A proxy that is reached over TLS itself: it answers the request that it reads.
    let by_tls = serve(certificate("proxy.example"), Some(&authority)).await;
    let proxy = ProxyUrl::try_new(&format!("https://proxy.example:{}", by_tls.port())).unwrap();
    let (visitor, resolver) =
        scripted_with(Policy { proxy: Some(proxy), ..policy }, vec![ips(&["127.0.0.1"])]);
    let visit = visit_with(&visitor, "http://feeds.example/", None, None).await;
    assert_eq!(&full(visit).body[..], b"<rss/>");
    assert_eq!(resolver.lookups.load(std::sync::atomic::Ordering::SeqCst), 1, "the proxy");
}

#[tokio::test]
async fn a_source_may_leave_the_proxy_for_all_or_have_its_own() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let [for_all, own] = [Proxy::socks(origin.address, None).await, Proxy::socks(origin.address, None).await];
    let visitor = Visitor::try_new(Policy { proxy: Some(for_all.url("socks5", "")), ..policy() }).unwrap();
    let url = FeedUrl::try_new(&origin.url("/")).unwrap();
    let direct = RequestOptions::default().with_proxy(ProxyChoice::Direct);
    let via = RequestOptions::default().with_proxy(ProxyChoice::Via(own.url("socks5", "")));
    for (options, asked) in [(None, [1, 0]), (Some(&direct), [1, 0]), (Some(&via), [1, 1])] {
        let request = VisitRequest { options, ..VisitRequest::new(&url, Timestamp::from_millis(NOW_MS)) };
        let visit = visitor.visit(&request).await;
        assert_eq!(visit.code, Some(200), "{visit:?}");
        assert_eq!([&for_all, &own].map(|proxy| proxy.asked().len()), asked, "{options:?}");
    }
    assert_eq!(origin.accepts(), 3);
}

#[tokio::test]
async fn a_hub_is_asked_through_the_proxy_for_all_or_that_of_its_source() {
    let hub = Origin::always(answer("202 Accepted", "", "")).await;
    let proxy = Proxy::socks(hub.address, None).await;
    let now = Timestamp::from_millis(NOW_MS);
    let (visitor, resolver) = without_names(Policy { proxy: Some(proxy.url("socks5", "")), ..policy() });
    let url = FeedUrl::try_new("http://hub.example/").unwrap();
    let accepted = FormAnswer::Answered { code: 202, retry_after: None };
    assert_eq!(visitor.post_form(&url, &[("a", "b")], None, None, now).await, Ok(accepted.clone()));
    assert_eq!(proxy.asked(), ["hub.example:80"]);
    assert_eq!(resolver.lookups.load(std::sync::atomic::Ordering::SeqCst), 0);
    let url = FeedUrl::try_new("http://127.0.0.1/").unwrap();
    let refused = visitor.post_form(&url, &[], None, None, now).await.unwrap_err();
    assert_eq!(refused.class, FailureClass::BlockedAddress, "{refused}");
    // The source has one of its own, and secrets that are not for hubs.
    let own = Proxy::socks(hub.address, None).await;
    let url = FeedUrl::try_new("http://hub.example/").unwrap();
    let via = RequestOptions::default().with_proxy(ProxyChoice::Via(own.url("socks5", "")));
    let via = via.with_header("x-api-key", "TOPSECRET").unwrap().with_bearer("TOPSECRET").unwrap();
    let via = via.with_authorities("not read".to_owned());
    assert_eq!(visitor.post_form(&url, &[("a", "b")], Some(&via), None, now).await, Ok(accepted));
    assert_eq!((proxy.asked().len(), own.asked().len()), (1, 1));
    assert!(hub.requests().iter().all(|request| !request.contains("TOPSECRET")), "{:?}", hub.requests());
    let direct = RequestOptions::default().with_proxy(ProxyChoice::Direct);
    let url = FeedUrl::try_new("http://feeds.example/").unwrap();
    let refused = visitor.post_form(&url, &[], Some(&direct), None, now).await.unwrap_err();
    assert_eq!(refused.class, FailureClass::Dns, "no proxy looks the name up: {refused}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let socks = Proxy::socks(origin.address, Some("user:pass")).await;
    let forbidden = Origin::always(answer("407 Proxy Authentication Required", "", "")).await;
    let http =
        |userinfo: &str| ProxyUrl::try_new(&format!("http://{userinfo}{}", forbidden.address)).unwrap();
    let refusing = ProxyUrl::try_new("socks5://user:TOPSECRET@127.0.0.1:1").unwrap();
    for (proxy, url, why) in [
        (socks.url("socks5", "user:TOPSECRET@"), "http://feeds.example/", "credentials not accepted"),
        (socks.url("socks5", "user:pass@"), "http://unreachable.example/", "host unreachable"),
        (http("user:TOPSECRET@"), "https://feeds.example/", "proxy authorization required"),
        (refusing, "http://feeds.example/", "Connection refused"),
    ] {
        let (visitor, _) = without_names(Policy { proxy: Some(proxy.clone()), ..policy() });
        let failure = failure(&visit_with(&visitor, url, None, None).await);
        assert_eq!(failure.class, FailureClass::Connect, "{failure}");
        let host = FeedUrl::try_new(url).unwrap();
        let said = format!("could not connect to {} through the proxy {proxy}: ", host.host());
        assert!(failure.message.starts_with(&said), "{failure}");
        assert!(failure.message.to_lowercase().contains(&why.to_lowercase()), "{failure}");
        assert!(!failure.message.contains("TOPSECRET"), "{failure}");
    }
    let connect = forbidden.requests().concat().to_lowercase();
    assert!(
        connect.starts_with("connect feeds.example:443 http/1.1\r\nhost: feeds.example:443\r\n"),
        "{connect}"
    );
    assert!(connect.contains("proxy-authorization: basic dxnlcjput1btrunsrvq=\r\n"), "{connect}");
}
