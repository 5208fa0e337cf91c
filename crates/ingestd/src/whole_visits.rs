//! Tests of whole visits, from the catalogue to the status, against servers on loopback.

use std::{
    io,
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fetch::{Lookup, Policy, Resolver, Visitor};
use news::{CredentialFile, FailureClass, FeedUrl, Source, SourceId, VisitStatus};
use sources::CredentialFiles;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::supervisor::tests::{Harness, harness_with, run};

const FEED: &str = "<rss version='2.0'><channel><title>t</title><link>http://x.example/</link>\
                    <description>d</description><item><title>one</title><guid>1</guid></item></channel></rss>";

/// The response to the head of a request; `None`: none, ever.
type ResponseScript = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

/// A server that keeps the heads of its requests.
struct LocalServer {
    base: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl LocalServer {
    async fn start(script: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (heads, script): (_, Arc<ResponseScript>) = (Arc::new(Mutex::new(Vec::new())), Arc::new(script));
        let seen = Arc::clone(&heads);
        actix_rt::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                actix_rt::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                        if head[0] == 0x16 {
                            // A TLS handshake, which this server does not support.
                            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
                            return;
                        }
                    }
                    let head = String::from_utf8(head).unwrap().to_lowercase();
                    seen.lock().unwrap().push(head.clone());
                    match script(&head) {
                        Some(bytes) => drop(stream.write_all(&bytes).await),
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { base, heads }
    }

    fn head(&self, n: usize) -> String {
        self.heads.lock().unwrap()[n].clone()
    }
}

fn response(status: &str, headers: &str, body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    Some(format!("{head}{body}").into_bytes())
}

fn path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

fn source(id: &str, url: &str) -> Source {
    let mut source = Source::new(SourceId::try_new(id).unwrap(), FeedUrl::try_new(url).unwrap());
    source.every = Some(Duration::from_secs(3600));
    source
}

/// Fails every lookup.
struct NoNames;

impl Resolver for NoNames {
    fn lookup(&self, _: &str) -> Lookup {
        Box::pin(async { Err::<Vec<IpAddr>, _>(io::Error::other("no such name")) })
    }
}

async fn harness(credentials: CredentialFiles) -> Harness {
    let policy = Policy {
        allow: vec!["127.0.0.1/32".parse().unwrap()],
        retry_pause: Duration::from_millis(5),
        ..Policy::default()
    };
    let visitor = Visitor::with_resolver(policy, Arc::new(NoNames)).unwrap();
    harness_with(feed::read, visitor, credentials).await
}

/// The failures that the server causes.
fn fail(head: &str) -> Option<Vec<u8>> {
    let raw = |bytes: &str| Some(bytes.as_bytes().to_vec());
    match path(head) {
        "/bad-url" => response("302 Found", "location: file:///etc/passwd\r\n", ""),
        "/redirect" => response("302 Found", "location: /redirect\r\n", ""),
        "/http-status" => response("404 Not Found", "", ""),
        "/bad-http" => raw("SSH-2.0-nothing of yours\r\n\r\n"),
        "/bad-encoding" => response("200 OK", "content-encoding: gzip\r\n", FEED),
        "/truncated" => raw("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n<rss>"),
        "/too-large" => response("200 OK", "", FEED),
        "/too-complex" => {
            let nested = format!("<rss>{}{}", "<a>".repeat(200), "</a>".repeat(200));
            response("200 OK", "", &nested)
        }
        "/not-a-feed" => response("200 OK", "", "<!doctype html><title>Sign in</title>"),
        _ => None,
    }
}

/// A source whose visits fail with this class. A class without a case does not compile.
fn failing(class: FailureClass, server: &LocalServer, closed: u16) -> Source {
    let name = class.as_str();
    let here = format!("{}/{name}", server.base);
    let url = match class {
        FailureClass::BlockedAddress => "http://127.0.0.2/".to_owned(),
        FailureClass::Dns => "http://feed.invalid/".to_owned(),
        FailureClass::Connect => format!("http://127.0.0.1:{closed}/"),
        FailureClass::Tls => here.replace("http:", "https:"),
        FailureClass::BadUrl
        | FailureClass::Timeout
        | FailureClass::Redirect
        | FailureClass::HttpStatus
        | FailureClass::BadHttp
        | FailureClass::BadEncoding
        | FailureClass::Truncated
        | FailureClass::TooLarge
        | FailureClass::TooComplex
        | FailureClass::NotAFeed => here,
    };
    let mut source = source(name, &url);
    source.timeout = (class == FailureClass::Timeout).then_some(Duration::from_millis(300));
    source.body_bytes_max = (class == FailureClass::TooLarge).then_some(100);
    source
}

#[test]
fn every_failure_class_is_reached_counted_and_shown() {
    run(async {
        let server = LocalServer::start(fail).await;
        // Bound without listening, so that no other process can take the port.
        let bound = tokio::net::TcpSocket::new_v4().unwrap();
        bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed = bound.local_addr().unwrap().port();
        let mut harness = harness(CredentialFiles::default()).await;
        harness.apply(FailureClass::ALL.map(|class| failing(class, &server, closed)).to_vec()).await;
        for _ in FailureClass::ALL {
            let report = harness.report().await;
            let error = report.error.unwrap_or_default();
            assert!(error.starts_with(&format!("{}: ", report.source)), "{}: {error}", report.source);
            assert_eq!(report.status, VisitStatus::Error);
            assert!(report.next_visit.is_some(), "{error}");
        }
        for class in FailureClass::ALL {
            let name = class.as_str();
            assert_eq!(harness.metrics.failures.get_or_create(&[("class", name)]).get(), 1, "{name}");
            let status = harness.registry.get(name).unwrap().full_status();
            assert!(status.last_error.unwrap().starts_with(name));
            let attempts = status.attempts;
            assert_eq!((attempts.len(), attempts[0].class), (1, Some(class)), "{name}");
        }
    });
}

fn with_basic(mut source: Source, file: &str) -> Source {
    source.access.credential = Some(CredentialFile::Basic(file.into()));
    source
}

fn conditional(head: &str) -> Option<Vec<u8>> {
    match head.contains("if-none-match: \"v1\"") {
        true => response("304 Not Modified", "", ""),
        false => response("200 OK", "etag: \"v1\"\r\n", FEED),
    }
}

#[test]
fn a_credential_is_read_for_each_visit_and_a_new_one_drops_the_validators() {
    run(async {
        let etc = tempfile::tempdir().unwrap();
        let file = etc.path().join("agency");
        let server = LocalServer::start(conditional).await;
        let mut harness = harness(CredentialFiles::new(&etc.path().join("sources.toml"), None)).await;
        std::fs::write(&file, "user:one\n").unwrap();
        harness.apply(vec![with_basic(source("a", &server.base), "agency")]).await;
        assert_eq!(harness.report().await.status, VisitStatus::New);
        assert_eq!(harness.visit_again("a").await.status, VisitStatus::Unchanged);
        std::fs::write(&file, "user:two\n").unwrap();
        assert_eq!(harness.visit_again("a").await.status, VisitStatus::Unchanged);
        let sent = |n: usize| {
            let head = server.head(n);
            let basic = head.lines().find_map(|line| line.strip_prefix("authorization: basic "));
            (basic.unwrap().to_owned(), head.contains("if-none-match"))
        };
        // base64 of user:one and user:two, in lower case.
        assert_eq!(sent(0), ("dxnlcjpvbmu=".to_owned(), false));
        assert_eq!(sent(1), ("dxnlcjpvbmu=".to_owned(), true));
        assert_eq!(sent(2), ("dxnlcjp0d28=".to_owned(), false));
        let status = harness.registry.get("a").unwrap().full_status();
        assert_eq!((status.access, status.counts.not_modified), (vec!["basic_file".to_owned()], 1));
        let codes: Vec<_> = status.attempts.iter().map(|a| (a.code, a.new)).collect();
        assert_eq!(codes, [(Some(200), 1), (Some(304), 0), (Some(200), 0)]);
    });
}

#[test]
fn a_corrected_credential_file_ends_the_failures_at_the_next_reload() {
    run(async {
        let etc = tempfile::tempdir().unwrap();
        let file = etc.path().join("agency");
        let server = LocalServer::start(|head| match head.contains("authorization: basic dxnlcjp0d28=") {
            true => conditional(head),
            false => response("403 Forbidden", "", ""),
        })
        .await;
        let files = CredentialFiles::new(&etc.path().join("sources.toml"), None);
        let mut harness = harness(files.clone()).await;
        let source = with_basic(source("a", &server.base), "agency");
        std::fs::write(&file, "user:one\n").unwrap();
        harness.reload(vec![source.clone()], &files).await;
        assert_eq!(harness.report().await.status, VisitStatus::Error);
        assert_eq!(harness.reload(vec![source.clone()], &files).await.unchanged, 1, "nothing is new");
        std::fs::write(&file, "user:two\n").unwrap();
        assert_eq!(harness.reload(vec![source.clone()], &files).await.changed, 1);
        assert_eq!(harness.report().await.status, VisitStatus::New);
        assert_eq!(harness.reload(vec![source], &files).await.unchanged, 1);
    });
}

#[test]
fn a_missing_credential_fails_its_source_and_no_other() {
    run(async {
        let server = LocalServer::start(conditional).await;
        let mut harness = harness(CredentialFiles::new(Path::new("/nonexistent/sources.toml"), None)).await;
        let sources = vec![with_basic(source("a", &server.base), "agency"), source("b", &server.base)];
        harness.apply(sources).await;
        let mut reports = [harness.report().await, harness.report().await];
        reports.sort_by(|a, b| a.source.cmp(&b.source));
        let [a, b] = reports;
        let error = a.error.unwrap();
        assert!(error.starts_with("bad-url: basic_file: its file cannot be read"), "{error}");
        assert!(!error.contains("agency") && a.next_visit.is_some());
        assert_eq!(b.status, VisitStatus::New);
        assert_eq!(server.heads.lock().unwrap().len(), 1, "no request was sent without it");
    });
}

#[test]
fn a_feed_that_redirected_and_is_gone_is_requested_at_its_target_and_the_status_shows_it() {
    run(async {
        let visits = Arc::new(AtomicUsize::new(0));
        let server = LocalServer::start(move |head| match path(head) {
            "/old?token=topsecret" if visits.fetch_add(1, Ordering::SeqCst) == 0 => {
                response("301 Moved Permanently", "location: /new?key=topsecret\r\n", "")
            }
            "/new?key=topsecret" => conditional(head),
            _ => response("410 Gone", "", ""),
        })
        .await;
        let mut harness = harness(CredentialFiles::default()).await;
        let url = format!("{}/old?token=topsecret", server.base);
        harness.apply(vec![source("a", &url)]).await;
        assert_eq!(harness.report().await.status, VisitStatus::New);
        let gone = harness.visit_again("a").await;
        assert_eq!(gone.status, VisitStatus::Gone);
        assert!(gone.next_visit.is_some() && gone.why.ends_with("at another URL"), "{}", gone.why);
        assert_eq!(harness.visit_again("a").await.status, VisitStatus::Unchanged, "and still conditional");
        let paths: Vec<_> = server.heads.lock().unwrap().iter().map(|head| path(head).to_owned()).collect();
        let (old, new) = ("/old?token=topsecret", "/new?key=topsecret");
        assert_eq!(paths, [old, new, old, new]);
        let status = harness.registry.get("a").unwrap().status();
        assert_eq!(status.moved_to, Some(format!("{}/new?key=…", server.base)));
        assert!(status.moved_since.is_some());
        assert_eq!(status.url, format!("{}/old?token=…", server.base), "the configured URL stays");
    });
}

#[test]
fn a_damaged_document_keeps_the_old_validators_until_it_is_served_again() {
    run(async {
        let damaged = FEED.replace("</channel></rss>", "<item><title>two</title><guid>2</guid>");
        let server = LocalServer::start(move |head| match head.contains("if-none-match: \"v2\"") {
            true => response("304 Not Modified", "", ""),
            false => response("200 OK", "etag: \"v2\"\r\n", &damaged),
        })
        .await;
        let mut harness = harness(CredentialFiles::default()).await;
        harness.apply(vec![source("a", &server.base)]).await;
        assert_eq!(harness.report().await.status, VisitStatus::Partial);
        assert_eq!(harness.visit_again("a").await.status, VisitStatus::Unchanged);
        assert_eq!(harness.visit_again("a").await.status, VisitStatus::Unchanged);
        let conditional: Vec<_> =
            server.heads.lock().unwrap().iter().map(|head| head.contains("if-none-match")).collect();
        assert_eq!(conditional, [false, false, true]);
    });
}
