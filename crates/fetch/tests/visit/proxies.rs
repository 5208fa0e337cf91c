//! Visits through proxies: HTTP, HTTPS and SOCKS5.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use fetch::{FailureClass, FormAnswer, Policy, RequestOptions, VisitRequest, Visitor};
use news::{FeedUrl, ProxyChoice, ProxyUrl, Timestamp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::rustls;

use self::Behaviour::{Hangs, Says};
use crate::{
    NOW_MS, class, failure, full,
    guard::{Scripted, ips, scripted_with},
    origin::*,
    policy,
    tls::{Authority, authority, certificate, serve},
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

/// A proxy that is reached over TLS and tunnels everything to one address.
async fn tunnel_over_tls(authority: &Authority, target: SocketAddr) -> SocketAddr {
    fetch::install_tls();
    let key = rcgen::KeyPair::generate().unwrap();
    let signed = certificate("proxy.example").signed_by(&key, authority).unwrap();
    let key = key.serialize_der().try_into().unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![signed.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust the certificate closes.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut target = TcpStream::connect(target).await.unwrap();
            copy_bidirectional(&mut stream, &mut target).await.ok();
        }
    });
    address
}

#[tokio::test]
async fn the_authorities_of_a_source_are_for_its_server_only_and_a_proxy_may_have_those_or_the_usual_ones() {
    let (usual, own, unknown) = (authority(), authority(), authority());
    for (proxy, server, expected) in [
        (&usual, &own, None),
        (&own, &own, None),
        (&usual, &usual, Some(FailureClass::Tls)),
        (&own, &usual, Some(FailureClass::Tls)),
        (&unknown, &own, Some(FailureClass::Connect)),
    ] {
        let target = serve(certificate("feeds.example"), Some(server)).await;
        let address = tunnel_over_tls(proxy, target).await;
        let proxy = ProxyUrl::try_new(&format!("https://proxy.example:{}", address.port())).unwrap();
        let policy = Policy { authorities_pem: Some(usual.pem()), proxy: Some(proxy), ..policy() };
        let (visitor, _) = scripted_with(policy, vec![ips(&["127.0.0.1"])]);
        let options = RequestOptions::default().with_authorities(own.pem());
        let url = FeedUrl::try_new(TLS).unwrap();
        let now = Timestamp::from_millis(NOW_MS);
        let request = VisitRequest { options: Some(&options), ..VisitRequest::new(&url, now) };
        let visit = visitor.visit(&request).await;
        match expected {
            None => assert_eq!(&full(visit).body[..], b"<rss/>"),
            Some(expected) => assert_eq!(class(&visit), expected, "{visit:?}"),
        }
    }
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
        (socks.url("socks5", "user:TOPSECRET@"), "http://feeds.example/", "it does not accept the user name"),
        (
            socks.url("socks5", "user:pass@"),
            "http://unreachable.example/",
            "it answered that it cannot reach the host",
        ),
        (
            http("user:TOPSECRET@"),
            "https://feeds.example/",
            "it answered 407 Proxy Authentication Required; it does not accept",
        ),
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

/// What a proxy does with each connection after it has read something.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Hangs,
    /// Sends this and closes.
    Says(&'static [u8]),
}

async fn behaving(behaviour: Behaviour) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            match behaviour {
                Hangs => open.push(stream),
                Says(bytes) => stream.write_all(bytes).await.unwrap(),
            }
        }
    });
    address
}

/// What a visit through a proxy with credentials says; `PROXY` stands for its address.
async fn through(scheme: &str, behaviour: Behaviour, url: &str) -> String {
    let address = behaving(behaviour).await;
    let proxy = ProxyUrl::try_new(&format!("{scheme}://user:TOPSECRET@{address}")).unwrap();
    let mut policy = Policy { proxy: Some(proxy.clone()), ..policy() };
    if matches!(behaviour, Hangs) {
        policy.timeout_connect = Duration::from_millis(300);
        policy.timeout_first_byte = Duration::from_millis(300);
    }
    let said = failure(&visit_with(&without_names(policy).0, url, None, None).await).to_string();
    assert!(!said.contains("TOPSECRET") && !said.contains("Go away"), "{said}");
    said.replace(&proxy.to_string(), "PROXY")
}

const PLAIN: &str = "http://feeds.example/";
const TLS: &str = "https://feeds.example/";

#[tokio::test]
async fn a_proxy_that_answers_instead_of_the_server_is_named() {
    for (behaviour, expected) in [
        (
            Says(b"HTTP/1.1 407 Go away\r\n\r\n"),
            "http-status: the proxy PROXY answered 407 Proxy Authentication Required; it does not accept the user name and \
             the password in its address",
        ),
        (
            Says(b"HTTP/1.1 502 Go away\r\n\r\n"),
            "http-status: the server, or the proxy PROXY in front of it, answered 502 Bad Gateway",
        ),
        (
            Says(b"HTTP/1.1 420 Go away\r\n\r\n"),
            "http-status: the server, or the proxy PROXY in front of it, answered 420",
        ),
    ] {
        assert_eq!(through("http", behaviour, PLAIN).await, expected);
    }
    for (behaviour, expected) in [
        (
            Says(b""),
            "truncated: feeds.example behind the proxy PROXY closed the connection before it answered: ",
        ),
        (Says(b"SSH-2.0-x\r\n"), "bad-http: what feeds.example behind the proxy PROXY sent is not HTTP: "),
        (Hangs, "timeout: waiting for feeds.example behind the proxy PROXY to answer took longer than "),
    ] {
        let said = through("http", behaviour, PLAIN).await;
        assert!(said.starts_with(expected), "{behaviour:?}: {said}");
    }
}

#[tokio::test]
async fn a_proxy_that_may_have_asked_for_fewer_requests_is_named_without_its_password() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let address = behaving(Says(format!("HTTP/1.1 {status}\r\n\r\n").leak().as_bytes())).await;
        let proxy = ProxyUrl::try_new(&format!("http://user:TOPSECRET@{address}")).unwrap();
        let (visitor, _) = without_names(Policy { proxy: Some(proxy), ..policy() });
        let visit = visit_with(&visitor, PLAIN, None, None).await;
        assert_eq!(visit.answer.as_str(), "throttled");
        let expected = format!("the server, or the proxy http://…@{address} in front of it,");
        assert_eq!(visit.answerer(), expected);
        // Without a proxy, and through one that cannot read the request.
        let origin = Origin::always(vec![say(format!("HTTP/1.1 {status}\r\n\r\n"))]).await;
        assert_eq!(crate::visit(&origin.url("/")).await.answerer(), "the server");
        let socks = Proxy::socks(origin.address, None).await;
        let (visitor, _) = without_names(Policy { proxy: Some(socks.url("socks5", "")), ..policy() });
        let visit = visit_with(&visitor, PLAIN, None, None).await;
        assert_eq!((visit.answer.as_str(), visit.answerer()), ("throttled", "the server".to_owned()));
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_named_with_the_reason() {
    let login = "it does not accept the user name and the password in its address";
    let after_407 = format!("it answered 407 Proxy Authentication Required; {login}");
    let closed = "it closed the connection before it answered";
    let interim: &[u8] = "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n".repeat(2000).leak().as_bytes();
    for (scheme, bytes, expected) in [
        ("http", &b"HTTP/1.1 407 Go away\r\n\r\n"[..], after_407.as_str()),
        ("http", b"HTTP/1.1 403 Go away\r\nContent-Length: 4\r\n\r\nevil", "it answered 403 Forbidden"),
        ("http", b"HTTP/1.1 429 Go away\r\n\r\n", "it answered 429 Too Many Requests"),
        ("http", b"HTTP/1.0 502 Go away\r\n\r\n", "it answered 502 Bad Gateway"),
        ("http", b"HTTP/1.1 503 Go away\r\n\r\n", "it answered 503 Service Unavailable"),
        ("http", b"HTTP/1.1 599 Go away\r\n\r\n", "it answered 599"),
        ("http", b"", closed),
        ("http", interim, "it sent more than 65536 bytes of interim responses (1xx) and no answer"),
        ("http", b"SSH-2.0-x\r\n", "what it sent is not HTTP"),
        ("socks5", b"", closed),
        ("socks5", b"\x05\x02", closed),
        ("socks5", b"SSH-2.0-x\r\n", "what it sent is not SOCKS5"),
        ("socks5", b"\x05\x00\x05\x02", "it answered that it does not allow this connection"),
        ("socks5", b"\x05\xff", login),
    ] {
        let said = through(scheme, Says(bytes), TLS).await;
        let start = "connect: could not connect to feeds.example through the proxy PROXY: ";
        assert_eq!(said.strip_prefix(start), Some(expected), "{scheme}: {said}");
    }
    for (bytes, expected) in [
        (&b""[..], "it closed the connection during the TLS handshake; "),
        (b"HTTP/1.1 400 No\r\n\r\n", "what it sends is not TLS; "),
    ] {
        let said = through("https", Says(bytes), PLAIN).await;
        let start = "connect: could not connect to feeds.example through the proxy PROXY: no trustworthy TLS \
                     session with it: ";
        assert!(said.starts_with(&format!("{start}{expected}")), "{said}");
    }
}

#[tokio::test]
async fn a_proxy_that_hangs_is_named_with_what_it_was_asked_for() {
    for (scheme, url, expected) in [
        ("http", TLS, "timeout: waiting for the proxy PROXY to connect to feeds.example took longer than "),
        (
            "socks5",
            PLAIN,
            "timeout: waiting for the proxy PROXY to connect to feeds.example took longer than ",
        ),
        ("https", PLAIN, "timeout: waiting for the TLS handshake with the proxy PROXY took longer than "),
    ] {
        let said = through(scheme, Hangs, url).await;
        assert!(said.starts_with(expected), "{scheme}: {said}");
    }
}

#[tokio::test]
async fn a_proxy_without_an_address_or_with_an_unknown_certificate_is_named() {
    let proxy = ProxyUrl::try_new("http://user:TOPSECRET@proxy.example:3128").unwrap();
    let (visitor, _) = scripted_with(Policy { proxy: Some(proxy), ..policy() }, vec![Err("no such name")]);
    let said = failure(&visit_with(&visitor, "http://feeds.example/", None, None).await).to_string();
    assert_eq!(said, "dns: could not look up the proxy http://…@proxy.example:3128: no such name");

    let trusted = authority();
    let address = serve(certificate("proxy.example"), None).await;
    let proxy = ProxyUrl::try_new(&format!("https://proxy.example:{}", address.port())).unwrap();
    let policy = Policy { proxy: Some(proxy.clone()), authorities_pem: Some(trusted.pem()), ..policy() };
    let (visitor, _) = scripted_with(policy, vec![Ok(vec!["127.0.0.1".parse().unwrap()])]);
    let said = failure(&visit_with(&visitor, "http://feeds.example/", None, None).await).to_string();
    let expected = format!(
        "connect: could not connect to feeds.example through the proxy {proxy}: no trustworthy TLS session with it: its \
         certificate is self-signed; "
    );
    assert!(said.starts_with(&expected), "{said}");
}

#[tokio::test]
async fn a_tunnel_may_be_answered_with_any_success_and_with_headers() {
    let authority = authority();
    let target = serve(certificate("feeds.example"), Some(&authority)).await;
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 201 Made\r\nVia: x\r\n\r\n",
        "HTTP/1.1 200\r\n\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = ProxyUrl::try_new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            client.write_all(answer.as_bytes()).await.unwrap();
            let mut target = TcpStream::connect(target).await.unwrap();
            copy_bidirectional(&mut client, &mut target).await.ok();
        });
        let policy = Policy { proxy: Some(proxy), authorities_pem: Some(authority.pem()), ..policy() };
        let visit = visit_with(&without_names(policy).0, "https://feeds.example/", None, None).await;
        assert_eq!(&full(visit).body[..], b"<rss/>", "{answer}");
    }
}

#[tokio::test]
async fn a_socks_proxy_that_wants_no_login_is_used_also_with_one_in_its_address() {
    let origin = Origin::always(answer("200 OK", "", "<rss/>")).await;
    let proxy = Proxy::socks(origin.address, None).await;
    let url = proxy.url("socks5", "user:pass@");
    let (visitor, _) = without_names(Policy { proxy: Some(url), ..policy() });
    full(visit_with(&visitor, "http://feeds.example/", None, None).await);
    assert_eq!(proxy.asked(), ["feeds.example:80"]);
    // One that wants a login is told what is missing.
    let proxy = Proxy::socks(origin.address, Some("user:pass")).await;
    let (visitor, _) = without_names(Policy { proxy: Some(proxy.url("socks5", "")), ..policy() });
    let failure = failure(&visit_with(&visitor, "http://feeds.example/", None, None).await);
    let advice = "it wants a user name and a password; write them into its address";
    assert!(failure.message.ends_with(advice), "{failure}");
}
