//! The time limits of a visit, and where a visit may lead, on the real daemon and with `newswire check`.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::{fs, process::Command, sync::Arc, time::Duration};

use e2e::{Behaviour, Binary, DocumentFormat, Origin, TestStack, http, wait_for};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

/// Deadline of an event; only one that is lost reaches it.
const SOON: Duration = Duration::from_secs(60);

/// The `fetch` of `newswire check --json URL`.
async fn check(stack: &TestStack, url: &str) -> serde_json::Value {
    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.args(["check", "--json", url, "--config"]).arg(config).env_clear().current_dir(stack.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["fetch"].take()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_needs_12_s_is_read_with_a_longer_timeout_of_its_own() {
    let origin = Origin::start().await.unwrap();
    let mut sources = String::new();
    for (id, keys) in [
        ("default", ""),
        ("timeout", "timeout = \"60s\"\n"),
        ("first-byte", "timeout_first_byte = \"25s\"\n"),
    ] {
        let url = origin.add_feed(id, DocumentFormat::Rss);
        origin.publish(id, "The first");
        origin.set_behaviour(id, Behaviour::Late(Duration::from_secs(12)));
        sources.push_str(&format!("[[source]]\nid = \"{id}\"\nurl = \"{url}\"\nevery = \"1h\"\n{keys}\n"));
    }
    let mut stack = TestStack::new(&[]).unwrap();
    fs::write(stack.path("sources.toml"), sources).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    for id in ["timeout", "first-byte"] {
        subscriber.wait_event("item", SOON, |event| event.json()["source"] == *id).await.unwrap();
    }
    let by_default = stack.json("/sources/default").await.unwrap();
    let error = by_default["last_error"].as_str().unwrap_or_default().to_owned();
    assert!(error.ends_with("took longer than 10s (fetch.timeout_first_byte)"), "{by_default}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_shows_where_the_time_went() {
    let origin = Origin::start().await.unwrap();
    let url = origin.add_feed("a", DocumentFormat::Rss);
    origin.publish("a", "The first");
    let mut stack = TestStack::new(&[]).unwrap();
    origin.set_behaviour("a", Behaviour::Late(Duration::from_millis(700)));
    let late = check(&stack, &url).await;
    let ms = |fetch: &serde_json::Value, part: &str| fetch["timings"][part].as_u64().unwrap();
    // Each part is cut to milliseconds, so that their sum is the total at most, unless a wait is booked twice.
    let is_booked_once = |fetch: &serde_json::Value| {
        let parts = ["dns_ms", "connect_ms", "tls_ms", "first_byte_ms", "body_ms"];
        parts.iter().map(|part| ms(fetch, part)).sum::<u64>() <= ms(fetch, "total_ms")
    };
    assert!(ms(&late, "first_byte_ms") >= 700 && is_booked_once(&late), "{late}");
    assert_eq!((ms(&late, "head_ms"), ms(&late, "tls_ms")), (ms(&late, "first_byte_ms"), 0));
    origin.set_behaviour("a", Behaviour::Drip(100, Duration::from_millis(200)));
    let slow = check(&stack, &url).await;
    assert!(ms(&slow, "body_ms") >= 200 && is_booked_once(&slow), "{slow}");
    stack.set("fetch.timeout_first_byte", "\"300ms\"");
    origin.set_behaviour("a", Behaviour::Late(Duration::from_secs(30)));
    let refused = check(&stack, &url).await;
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("took longer than 300ms (fetch.timeout_first_byte)"), "{refused}");
    assert!(ms(&refused, "first_byte_ms") >= 300 && is_booked_once(&refused), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_visits_a_source_of_the_list_with_its_own_settings_and_shows_what_the_daemon_plans() {
    let origin = Origin::start().await.unwrap();
    let url = origin.add_feed("agency", DocumentFormat::Rss);
    origin.publish("agency", "The first");
    let mut stack = TestStack::new(&[]).unwrap();
    fs::write(stack.path("token"), "TOPSECRET").unwrap();
    let keys = "every = \"6h\"\nbearer_file = \"./token\"\nheaders = { X-Edition = \"north\" }\n";
    fs::write(stack.path("sources.toml"), format!("[[source]]\nid = \"agency\"\nurl = \"{url}\"\n{keys}"))
        .unwrap();
    let alone = check(&stack, "agency").await;
    assert_eq!(
        (alone["status"].as_u64(), &alone["daemon"]),
        (Some(200), &serde_json::Value::Null),
        "{alone}"
    );
    assert_eq!(alone["next_visit"]["why"], "every 6h, as configured", "{alone}");
    stack.start(Binary::Ingestd).unwrap();
    let visited = async || {
        let fetch = check(&stack, "source:agency").await;
        (fetch["daemon"]["last_status"] == "new").then_some(fetch)
    };
    let beside = wait_for("the daemon's visit", SOON, visited).await.unwrap();
    assert_eq!(beside["daemon"]["why"], "every 6h, as configured", "{beside}");
    let requests = origin.requests("agency");
    assert!(requests.len() >= 3, "each check asks for the document");
    for request in requests {
        assert_eq!(request.header("authorization"), Some("Bearer TOPSECRET"));
        assert_eq!((request.header("x-edition"), request.header("if-none-match")), (Some("north"), None));
    }
    let without_scheme = check(&stack, url.strip_prefix("http://").unwrap()).await;
    assert_eq!(without_scheme["status"], 200, "{without_scheme}");
}

/// A server on `[::1]` that answers each request with this response, and the URL of a feed there.
async fn serve_on_ipv6(response: String) -> String {
    serve("[::1]:0", response).await
}

async fn serve(address: &str, response: String) -> String {
    let listener = TcpListener::bind(address).await.unwrap();
    let url = format!("http://{}/feed", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_ok() {
                // The client may close at any time.
                stream.write_all(response.as_bytes()).await.ok();
            }
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_outside_cannot_lead_into_an_allowed_network() {
    let origin = Origin::start().await.unwrap();
    let [target, secret, inside] = ["target", "secret", "inside"].map(|id| {
        let url = origin.add_feed(id, DocumentFormat::Rss);
        origin.publish(id, "The first");
        url
    });
    origin.set_behaviour("inside", Behaviour::Redirect(302, target));
    let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {secret}\r\nContent-Length: 0\r\n\r\n");
    let outside = serve_on_ipv6(redirect).await;
    let page =
        format!("<html><head><link rel=alternate type=application/rss+xml href='{secret}'></head></html>");
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n", page.len());
    let page = serve_on_ipv6(head + &page).await;
    let mut stack = TestStack::new(&[]).unwrap();
    // Loopback of IPv6 stands for the public internet: a network of everything is allowed, but has no inside.
    stack.set("fetch.allow", "[\"::/0\", \"127.0.0.0/8\"]");
    let source =
        |id: &str, url: &str| format!("[[source]]\nid = \"{id}\"\nurl = \"{url}\"\nevery = \"1h\"\n");
    fs::write(stack.path("sources.toml"), source("inside", &inside) + &source("outside", &outside)).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    subscriber.wait_event("item", SOON, |event| event.json()["source"] == "inside").await.unwrap();
    let refused = wait_for("the redirect to be refused", SOON, async || {
        let outside = stack.json("/sources/outside").await.ok()?;
        outside["last_error"].as_str().map(str::to_owned)
    });
    let refused = refused.await.unwrap();
    assert!(refused.starts_with("blocked-address: 127.0.0.1 is loopback, not public"), "{refused}");

    let config = stack.write_config("newswire.toml", &[]).unwrap();
    let mut command = Command::new(Binary::Newswire.path().unwrap());
    command.args(["sources", "add", &page, "--config"]).arg(config).env_clear().current_dir(stack.folder());
    let added = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&added.stderr);
    assert!(!added.status.success() && said.contains("127.0.0.1 is loopback, not public"), "{said}");
    assert!(origin.requests("secret").is_empty(), "{:?}", origin.requests("secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_ports_opens_a_port_for_feeds() {
    let feed =
        "<rss version='2.0'><channel><title>a</title><item><title>The first</title></item></channel></rss>";
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{feed}", feed.len());
    // A proxy stands for the public internet: it answers for every name.
    let proxy = serve("127.0.0.1:0", response).await.replace("/feed", "");
    let source = |port: u16| {
        let url = format!("http://feeds.example:{port}/");
        format!("[[source]]\nid = \"at-{port}\"\nurl = \"{url}\"\nproxy = \"{proxy}\"\nevery = \"1h\"\n")
    };
    let mut stack = TestStack::new(&[]).unwrap();
    stack.set("fetch.ports", "[80, 8443]");
    stack.set("fetch.host_spacing", "\"10ms\"");
    fs::write(stack.path("sources.toml"), source(8443) + &source(8080)).unwrap();
    stack.start_both().await.unwrap();
    let subscriber = stack.subscribe("/news/stream?snapshot=1000");
    subscriber.wait_event("item", SOON, |event| event.json()["source"] == "at-8443").await.unwrap();
    let refused = wait_for("the port to be refused", SOON, async || {
        let refused = stack.json("/sources/at-8080").await.ok()?;
        refused["last_error"].as_str().map(str::to_owned)
    });
    let message = "port 8080 is not a web port (fetch.ports = [80, 8443]); add it there to permit it";
    assert_eq!(refused.await.unwrap(), format!("blocked-address: {message}"));
    let checked = check(&stack, "http://8.8.8.8:8080/").await;
    assert_eq!(checked["error"]["message"], message);
}

/// A server with a feed and a self-signed certificate: its address, and the certificate in PEM.
async fn serve_with_certificate(params: CertificateParams) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/feed", listener.local_addr().unwrap());
    let body = "<rss version='2.0'><channel><title>t</title><item><guid>1</guid><title>One</title></item></channel></rss>";
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust the certificate closes during the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(response.as_bytes()).await.unwrap();
            stream.shutdown().await.ok();
        }
    });
    (url, certificate.pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_certificate_that_has_expired_is_a_warning_with_its_date_until_it_is_renewed() {
    let mut stack = TestStack::new(&[]).unwrap();
    let mut expired = CertificateParams::new(["nas.local".to_owned()]).unwrap();
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let (old, old_pem) = serve_with_certificate(expired).await;
    let (valid, valid_pem) =
        serve_with_certificate(CertificateParams::new(["nas.local".to_owned()]).unwrap()).await;
    fs::write(stack.path("old.pem"), old_pem).unwrap();
    fs::write(stack.path("valid.pem"), valid_pem).unwrap();
    let source = |id: &str, url: &str, file: &str| {
        format!(
            "[[source]]\nid = \"{id}\"\nurl = \"{url}\"\nevery = \"1s\"\ntls_ca_file = \"./{file}.pem\"\n\n"
        )
    };
    let list = source("old", &old, "old") + &source("valid", &valid, "valid");
    fs::write(stack.path("sources.toml"), list).unwrap();
    stack.start_both().await.unwrap();
    let status = async |stack: &TestStack, id: &str, visits: u64| {
        let visited = async || {
            let status = stack.json(&format!("/sources/{id}")).await.ok()?;
            (status["counts"]["visits"].as_u64() >= Some(visits)).then_some(status)
        };
        wait_for("the visits", SOON, visited).await.unwrap()
    };
    let warnings = |status: &serde_json::Value| status["warnings"].as_array().unwrap().clone();

    // Also after a visit whose document is the same.
    for visits in [1, 2] {
        let told = status(&stack, "old", visits).await;
        assert_eq!(told["counts"]["items"], 1, "it is read: {told}");
        let warnings = warnings(&told);
        let text = warnings.last().unwrap().as_str().unwrap();
        assert!(text.starts_with("the certificate of the server expired at 2002-01-01T00:00:00Z"), "{text}");
        assert!(text.contains("renew it, and put the new one there"), "{text}");
        assert_eq!(warnings.iter().filter(|warning| warning.as_str() == Some(text)).count(), 1);
    }
    let plain = warnings(&status(&stack, "valid", 1).await);
    assert!(plain.iter().all(|warning| !warning.as_str().unwrap().contains("certificate")), "{plain:?}");
    let checked = check(&stack, "old").await;
    assert_eq!(checked["certificate_expired"], "2002-01-01T00:00:00Z", "{checked}");

    // Its operator renews it.
    fs::write(stack.path("sources.toml"), source("old", &valid, "valid")).unwrap();
    let reload = http::send("POST", &stack.wire(), "/reload", &[("Content-Length", "0")], "").await.unwrap();
    assert_eq!(reload.status, 200);
    let renewed = async || {
        let status = stack.json("/sources/old").await.ok()?;
        warnings(&status).iter().all(|w| !w.as_str().unwrap().contains("certificate")).then_some(())
    };
    wait_for("the warning to end", SOON, renewed).await.unwrap();
}
